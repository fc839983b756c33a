/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A connection with a heap, for tests of epochs: what is freed with delay, and whether it is free.
 */
#pragma once

#include "tests/system/harness.h"

struct view {
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
};

/* A heap of `bytes`, made; its id goes to *id, which may be NULL. */
struct view view_new(struct harness *h, nvmm_pool_id *id, uint64_t bytes);

/* Allocates `n` blocks of `size` bytes, each freed with delay at once. */
void view_defer(const struct view *v, unsigned n, size_t size);

/* Bytes in limbo. */
uint64_t view_limbo(const struct view *v);
/* For harness_until(). */
bool view_no_limbo(void *view);
