/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Large blocks: runs of whole units, a span of one block each.
 *
 * The daemon grants a run unowned; the lane claims it, sets its bit and disowns it at once. Who frees the
 * block claims the span again, clears the bit, and keeps the empty span for its next allocation of about
 * this size, so that a program that takes and gives back large blocks does not ask the daemon each time. What
 * is kept is bounded: RUNS_KEPT spans, and together a 32nd of the heap and 32 MiB; the oldest goes. Of a span
 * that cannot be kept the block is freed as another's.
 *
 * A span that is kept is an owned one like any other: its entry stands in the owned-span table before the
 * owner word changes and goes after it, so settling and revoking find it; only the fast paths do not know it
 * (its place has no bytes). Its bit changes while it is owned:
 *
 *   free    entry, claim, bit cleared           a death before the bit: allocated, as it was;
 *                                               after: empty, given back by the settler
 *   alloc   bit set, disowned, entry cleared    a death before the bit: empty; after: allocated,
 *                                               and nothing reaches it, as after any allocation
 *
 * It is drained in durability `power` at each change: a large block is never suspect.
 */
#include <errno.h>
#include <string.h>

#include "media/debug.h"
#include "media/fault.h"
#include "media/lane_private.h"
#include "media/untouched.h"

/* Spans that are kept */

static bool run_fits(const struct span_at *at, uint64_t units, uint64_t align)
{
	uint64_t length = at->span.length;

	/* An eighth too long at most: with what rounding up to units takes, less than a quarter. */
	return length >= units && length <= units + units / 8 && (ref_unit(at->ref) & (align - 1)) == 0;
}

/* Takes a span out of those that are kept; it is the lane's all the same. */
static struct kept_run kept_take(struct lane *lane, unsigned i)
{
	struct kept_run run = lane->runs.run[i];

	lane->runs.n--;
	memmove(&lane->runs.run[i], &lane->runs.run[i + 1],
		(lane->runs.n - i) * sizeof(lane->runs.run[0]));
	lane->runs.bytes -= run.at.block_size;
	return run;
}

static void kept_release(struct lane *lane, unsigned i)
{
	struct kept_run run = kept_take(lane, i);

	span_disown(lane->heap, &run.at);
	place_clear(lane, run.place);
}

void lane_runs_release(struct lane *lane)
{
	while (lane->runs.n > 0)
		kept_release(lane, 0);
}

static void bit_store(struct lane *lane, const struct span_at *at, uint64_t bit)
{
	m64 *word = state_alloc(at->record);

	/*
	 * COMMIT: the block is allocated, or free. The owner is the word's only writer.
	 *   crash before: as it was.
	 *   crash after:  it is; the span's entry makes the settler give it back.
	 *   ordering:     release; pairs with the acquire of who claims the span, and with whoever
	 *                 got the pointer from the caller.
	 *   durable:      drained before the caller knows.
	 */
	media_store_release(word, bit);
	if (!FAULT(LARGE_UNDRAINED))
		media_persist(lane->heap->durability, word, sizeof(*word));
}

/* Gives the block of a span that the lane owns to the caller; the span is nobody's then. */
static uint64_t run_give(struct lane *lane, const struct kept_run *run)
{
	uint64_t ptr = lane_pool(lane) | (run->at.ref & REF_MASK) << UNIT_SHIFT;

	lane_reserving(lane, ptr);
	bit_store(lane, &run->at, 1);
	span_disown(lane->heap, &run->at);
	place_clear(lane, run->place);
	return ptr;
}

/* From the spans that are kept, the latest first. 0: none fits. */
static uint64_t alloc_kept(struct lane *lane, uint64_t units, uint64_t align)
{
	for (unsigned i = lane->runs.n; i-- > 0;)
		if (run_fits(&lane->runs.run[i].at, units, align)) {
			struct kept_run run = kept_take(lane, i);

			return run_give(lane, &run);
		}
	return 0;
}

/* Keeps an empty span that the lane owns. */
static void keep(struct lane *lane, const struct kept_run *run)
{
	while (lane->runs.n == RUNS_KEPT ||
	       (lane->runs.n > 0 && lane->runs.bytes + run->at.block_size > lane->runs.bytes_max))
		kept_release(lane, 0);
	lane->runs.run[lane->runs.n++] = *run;
	lane->runs.bytes += run->at.block_size;
}

int lane_free_run(struct lane *lane, const struct span_at *at)
{
	struct state_layout *l = &lane->heap->layout;
	struct kept_run run = { .at = *at };
	bool allocated;

	if (at->block_size > lane->runs.bytes_max)
		return -EAGAIN;
	run.place = place_get(lane, CLASS_COUNT);
	if (!place_claim(lane, run.place, &run.at)) {
		place_clear(lane, run.place);
		return -EAGAIN;
	}
	heap_unhint(at);
	allocated = (media_load64(state_alloc(at->record)) & 1) &&
		    !((media_load64(state_limbo(l, at->record)) |
		       media_load64(state_remote(l, at->record))) & 1);
	if (!allocated) {
		span_disown(lane->heap, at);
		place_clear(lane, run.place);
		return -EALREADY;
	}
	bit_store(lane, at, 0);
	keep(lane, &run);
	if (DEBUG_CHECKS)
		lane_check_now(lane);
	return 0;
}

/* From the source */

/*
 * Claims the granted run `ref` and allocates its block. -EAGAIN: somebody was there before, or the run
 * was taken back meanwhile and its head is one of another length now.
 */
static int claim_run(struct lane *lane, uint64_t ref, uint64_t units, uint64_t *ret)
{
	struct kept_run run;
	bool clear;
	int r = lane_find_span(lane, ref, &run.at);

	if (r < 0 || run.at.span.kind != SPAN_LARGE || run.at.span.length != units)
		return r == -EINVAL || r == 0 ? -EAGAIN : r;
	run.place = place_get(lane, CLASS_COUNT);
	if (!place_claim(lane, run.place, &run.at)) {
		place_clear(lane, run.place);
		return -EAGAIN;
	}
	heap_unhint(&run.at);
	span_collect(lane->heap, &run.at);
	if (media_load64(state_alloc(run.at.record)) != 0) {
		span_disown(lane->heap, &run.at);
		place_clear(lane, run.place);
		return -EAGAIN;
	}
	clear = untouched_take(lane->heap, &run.at);
	*ret = run_give(lane, &run);
	lane->runs.clear = clear ? *ret : 0;
	return 0;
}

bool lane_gave_clear(const struct lane *lane, uint64_t ptr)
{
	return lane->runs.clear == ptr;
}

int lane_take_run(struct lane *lane, uint64_t units, uint64_t align, uint64_t *ret)
{
	int r = -EAGAIN;

	lane->runs.clear = 0;
	*ret = alloc_kept(lane, units, align);
	if (*ret)
		return 0;
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
	if (r < 0)
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
