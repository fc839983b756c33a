/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A handle on a heap.
 */
#pragma once

#include "libclient/pool.h"

struct nvmm_heap {
	struct handle handle; /* first */
	uint64_t lanes_id;    /* 0: opened read-only */
	const uint32_t *reserved; /* reservations_count() */
};
