/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a pool's bytes are laid out in shelves, and what its files take. Pure functions.
 */
#pragma once

#include <stdint.h>

#include "media/poolfile.h"

/* What a pool may have at most: POOL_SHELVES_MAX whole shelves. */
#define POOL_SIZE_MAX (POOL_SHELVES_MAX * SHELF_SIZE_MAX)
#define MIN_BLOCK_DEFAULT 16u

/* Rounds `size` up to what a pool of this kind is made of. -EINVAL: 0, or over POOL_SIZE_MAX. */
int pool_layout_size(uint64_t *ret, enum pool_kind kind, uint64_t size);

/* Lays out a new pool of a rounded size. */
void pool_layout_create(struct pool_shelves *ret, uint64_t size);

/*
 * Lays `to` bytes out, beginning with `now`: the last shelf grows up to its limit, then further
 * shelves follow. *first is the first shelf that differs. -EINVAL: not more than now, or
 * more than a pool can have shelves for.
 */
int pool_layout_grow(struct pool_shelves *ret, uint32_t *first, const struct pool_shelves *now,
		     uint64_t to);

/* Bytes to which a shelf of `size` may grow in place. */
uint64_t pool_layout_limit(uint64_t size);

uint64_t pool_layout_bytes(const struct pool_shelves *shelves);

/* Bytes of a pool's files; `lanes` counts for heaps alone. Of a sparse heap: while nothing is granted. */
uint64_t pool_layout_file_bytes(const struct pool_record *record, const struct pool_shelves *shelves,
				uint32_t lanes);
