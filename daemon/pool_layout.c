/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Layout of pools in shelves.
 *
 * A shelf's limit is what clients set address space aside for and what the state file's layout
 * provides for: four times its size, so that a pool can grow well before it needs another
 * shelf, but at least 1 GiB, since address space is cheap and small pools are those that grow.
 *
 * Invariant: every shelf but the last is as long as its limit. So the end of a pool can be
 * told from its shelf records alone: it is the first shelf that is shorter than its limit. A
 * resize over several shelves stores the records of the further shelves first, unseen behind a
 * shelf that is not full; the record that fills that shelf makes all of them the pool's at once.
 */
#include "daemon/pool_layout.h"

#include <errno.h>
#include <string.h>

#include "common/macro.h"
#include "media/backing.h"
#include "media/span.h"

#ifdef NVMM_MEDIA_POINTS
/* Tests that kill the daemon make pools of several shelves, and small ones. */
#define LIMIT_STEP (UINT64_C(64) << 10)
#define LIMIT_MIN (UINT64_C(512) << 10)
#else
#define LIMIT_STEP (UINT64_C(64) << 20)
#define LIMIT_MIN (UINT64_C(1) << 30)
#endif

static uint64_t layout_grain(enum pool_kind kind)
{
	return kind == POOL_HEAP ? UNIT_SIZE : MEDIA_PAGE;
}

int pool_layout_size(uint64_t *ret, enum pool_kind kind, uint64_t size)
{
	if (size == 0 || size > POOL_SIZE_MAX)
		return -EINVAL;
	*ret = ALIGN_UP(size, layout_grain(kind));
	/* A heap's first unit is never given. */
	if (kind == POOL_HEAP)
		*ret = MAX(*ret, 2 * UNIT_SIZE);
	return 0;
}

uint64_t pool_layout_limit(uint64_t size)
{
	uint64_t limit;

	if (size >= SHELF_SIZE_MAX / 4)
		return SHELF_SIZE_MAX;
	limit = MAX(ALIGN_UP(4 * size, LIMIT_STEP), LIMIT_MIN);
	return MIN(limit, SHELF_SIZE_MAX);
}

static void layout_append(struct pool_shelves *shelves, uint64_t size)
{
	while (size > 0) {
		uint64_t part = MIN(size, SHELF_SIZE_MAX);

		shelves->shelf[shelves->n++] = (struct shelf_record){
			.size = part,
			.limit = pool_layout_limit(part),
		};
		size -= part;
	}
}

void pool_layout_create(struct pool_shelves *ret, uint64_t size)
{
	memset(ret, 0, sizeof(*ret));
	layout_append(ret, size);
}

uint64_t pool_layout_bytes(const struct pool_shelves *shelves)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < shelves->n; i++)
		bytes += shelves->shelf[i].size;
	return bytes;
}

int pool_layout_grow(struct pool_shelves *ret, uint32_t *first, const struct pool_shelves *now,
		     uint64_t to)
{
	uint64_t bytes = pool_layout_bytes(now);
	const struct shelf_record *last;
	uint64_t add, room, in_place;

	if (now->n == 0 || to <= bytes)
		return -EINVAL;
	last = &now->shelf[now->n - 1];
	add = to - bytes;
	room = last->limit - last->size;
	in_place = MIN(add, room);
	if (DIV_UP(add - in_place, SHELF_SIZE_MAX) > POOL_SHELVES_MAX - now->n)
		return -EINVAL;
	*ret = *now;
	ret->shelf[now->n - 1].size += in_place;
	*first = in_place > 0 ? now->n - 1 : now->n;
	layout_append(ret, add - in_place);
	return 0;
}

/* What the files of empty shelves take: headers, granule maps, the first granules. */
static uint64_t pool_layout_sparse_bytes(const struct pool_shelves *shelves,
					 const struct state_layout *layout)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < shelves->n; i++) {
		uint64_t limit = shelves->shelf[i].limit >> UNIT_SHIFT;

		bytes += 2 * MEDIA_PAGE + sparse_table_size(limit) - table_file_size(limit) +
			 BACKING_GRANULE_BYTES(layout);
	}
	return bytes;
}

uint64_t pool_layout_file_bytes(const struct pool_record *record,
				const struct pool_shelves *shelves, uint32_t lanes)
{
	uint64_t bytes = sizeof(struct meta_file_df) + pool_layout_bytes(shelves);
	struct state_layout layout;

	if (record->kind != POOL_HEAP || state_layout_init(&layout, record->min_block) < 0)
		return bytes;
	if (record->flags & POOL_SPARSE)
		bytes = sizeof(struct meta_file_df) + pool_layout_sparse_bytes(shelves, &layout);
	for (uint32_t i = 0; i < shelves->n && !(record->flags & POOL_SPARSE); i++) {
		uint64_t units = shelves->shelf[i].size >> UNIT_SHIFT;

		bytes += table_file_size(units) +
			 state_file_size(&layout, shelves->shelf[i].limit >> UNIT_SHIFT, units);
	}
	return bytes + lanes_file_size(lanes);
}
