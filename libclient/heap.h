/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A handle on a heap.
 */
#pragma once

#include "libclient/lanes.h"
#include "libclient/pool.h"

/* Maps all shelves that there are by now. Entered. Text set. */
int heap_map_all(struct pool *pool);

struct nvmm_heap {
	struct handle handle; /* first */
	struct lanes_key lanes;
	const uint64_t *unreserved; /* reads lanes.id while nothing is reserved: reservations_word() */
};
