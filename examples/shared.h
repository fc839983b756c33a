/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the queue and the map share: a named heap with one root block, and a lock for those who change it.
 */
#pragma once

#include <stddef.h>

#include <nvmm/client.h>

/* The root block begins with it. */
struct shared_root {
	struct nvmm_mutex lock; /* zeroed, it is unlocked */
};

struct shared {
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	nvmm_ptr at; /* of the root block */
	void *root;
};

/* Opens the heap `name`, making it if need be, with a zeroed root block of `size`. 0, or -1 and a message. */
int shared_open(struct shared *s, const char *name, size_t size);
void shared_close(struct shared *s);

/* Locks; if the last holder died, what it was publishing is done to the end before. 0, or -1 and a message. */
int shared_lock(struct shared *s);
void shared_unlock(struct shared *s);

/* Says what failed and why; returns -1. */
int shared_failed(struct shared *s, const char *what);

/* The word at offset `offset` of the root block, for NVMM_STORE(). */
static inline nvmm_ptr shared_word(const struct shared *s, size_t offset)
{
	return s->at + offset;
}
