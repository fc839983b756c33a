/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What allocation in all its forms shares.
 */
#pragma once

#include "libclient/heap.h"

/* The calling thread's lane in the heap, made if need be. -EROFS; those of lanes_acquire(). Text set. */
int block_lane(struct nvmm_heap *heap, struct lane **ret);

/* Says why there is no block of `size`: sets the text, and errno. */
nvmm_ptr block_failed(struct nvmm_heap *heap, size_t size, int r);

/* Says why `ptr` was not freed; returns the error. */
int free_text(const struct pool *pool, nvmm_ptr ptr, int r);

/* Whether anything is reserved, so that a block must be looked up before it is freed. */
static inline bool block_reserved(const struct nvmm_heap *heap)
{
	/* ordering: relaxed; who frees a reserved block had its pointer from who reserved it. */
	return __atomic_load_n(heap->unreserved, __ATOMIC_RELAXED) != heap->lanes.id;
}

/* The block that starts at ptr, mapping its shelf if need be. -EINVAL: none does; others with a text. */
int block_find(struct nvmm_heap *heap, nvmm_ptr ptr, struct span_at *at, uint32_t *index);

/* Whether it is allocated: neither free nor in limbo. */
bool block_allocated(struct nvmm_heap *heap, const struct span_at *at, uint32_t index);
