/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Large blocks: runs of whole units, a span of one block each.
 *
 * The daemon grants a run unowned; the lane claims it, sets its bit and disowns it at once: whoever frees
 * the block sets its remote bit.
 */
#include <errno.h>

#include "media/lane_private.h"

/*
 * Claims the granted run `ref` and allocates its block. -EAGAIN: somebody was there before, or the run
 * was taken back meanwhile and its head is one of another length now.
 */
static int claim_run(struct lane *lane, uint64_t ref, uint64_t units, uint64_t *ret)
{
	struct span_at at;
	struct owned *o;
	bool taken;
	m64 *word;
	int r = lane_find_span(lane, ref, &at);

	if (r < 0 || at.span.kind != SPAN_LARGE || at.span.length != units)
		return r == -EINVAL || r == 0 ? -EAGAIN : r;
	o = place_get(lane, CLASS_COUNT);
	taken = place_claim(lane, o, &at);
	if (taken) {
		heap_unhint(&at);
		span_collect(lane->heap, &at);
		word = state_alloc(at.record);
		taken = media_load64(word) == 0;
		if (taken) {
			lane_reserving(lane, lane_pool(lane) | (ref & REF_MASK) << UNIT_SHIFT);
			/* COMMIT: the block is allocated; as in current_take().
			 *   ordering: release; as in current_take(). */
			media_store_release(word, 1);
			media_persist(lane->heap->durability, word, sizeof(*word));
		}
		span_disown(lane->heap, &at);
	}
	place_clear(lane, o);
	if (!taken)
		return -EAGAIN;
	*ret = lane_pool(lane) | (ref & REF_MASK) << UNIT_SHIFT;
	return 0;
}

int lane_take_run(struct lane *lane, uint64_t units, uint64_t align, uint64_t *ret)
{
	int r = -EAGAIN;

	for (int i = 0; i < CLAIM_TRIES && r == -EAGAIN; i++) {
		uint64_t ref = 0;

		r = lane->source->run(lane->ctx, units, align, &ref);
		if (r == -ENOSPC && i == 0) {
			lane_release_empty(lane);
			r = lane->source->run(lane->ctx, units, align, &ref);
		}
		if (r == 0)
			r = claim_run(lane, ref, units, ret);
	}
	return r == -EAGAIN ? -ENOSPC : r;
}

/* A block of whole units, the first at a multiple of the alignment: more than a unit's. */
static uint64_t alloc_run(struct lane *lane, size_t align, size_t size)
{
	uint64_t ptr = 0;
	int r = size - 1 >= SHELF_SIZE_MAX ? -EINVAL : lane_enter(lane);

	if (r == 0) {
		r = lane_take_run(lane, DIV_UP((uint64_t)size, UNIT_SIZE), align >> UNIT_SHIFT, &ptr);
		lane_leave(lane);
	}
	lane->error = r;
	return ptr;
}

uint64_t lane_alloc_aligned(struct lane *lane, size_t align, size_t size)
{
	if (align == 0 || (align & (align - 1)) != 0 || align > LANE_ALIGN_MAX ||
	    size - 1 >= SHELF_SIZE_MAX) {
		lane->error = -EINVAL;
		return 0;
	}
	/* The class of a multiple of a power of two is itself a multiple of it, and so is a block's place
	 * in its span; spans begin at units. */
	if (align <= UNIT_SIZE)
		return lane_alloc(lane, ALIGN_UP(size, align));
	return alloc_run(lane, align, size);
}
