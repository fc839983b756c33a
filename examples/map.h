/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A persistent hash map from numbers to numbers, for any number of processes. Whoever is killed, and wherever, or power
 * cut, a change is in it or not, and no block is lost.
 *
 * Functions are called under shared_lock(), but for map_get(); they return 0 unless said otherwise, or -1 and a message.
 */
#pragma once

#include "shared.h"

#define MAP_BUCKETS 256u

/* The root block: zeroed, it is an empty map. */
struct map {
	struct shared_root root;
	uint64_t count;
	nvmm_ptr bucket[MAP_BUCKETS];
};

static inline unsigned map_bucket(uint64_t key)
{
	return key * UINT64_C(0x9e3779b97f4a7c15) >> 56;
}

int map_set(struct shared *s, uint64_t key, uint64_t value);
int map_remove(struct shared *s, uint64_t key);
/* 1: it is there; 0: it is not. Needs no lock. */
int map_get(struct shared *s, uint64_t key, uint64_t *value);

/* Calls fn for each key and the node that holds it, and checks that each is in its bucket, once, and counted. fn may be
 * NULL. */
int map_walk(struct shared *s, void (*fn)(uint64_t key, uint64_t value, nvmm_ptr node, void *arg), void *arg);
