/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A handle on a heap.
 */
#pragma once

#include "libclient/lanes.h"
#include "libclient/pool.h"

struct nvmm_heap {
	struct handle handle; /* first */
	struct lanes_key lanes;
	const uint32_t *reserved; /* reservations_count() */
};
