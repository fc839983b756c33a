/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Walking a heap.
 *
 * A walk beside grants can be led into the middle of a run that was granted since, and has to begin
 * again. So the heads of a shelf are gathered first, as often as it takes, and visited then: each is
 * read anew, and one that is no head any more is passed over.
 */
#include "media/walk.h"

#include <errno.h>
#include <stdlib.h>

#include "common/macro.h"

#define WALK_TRIES 50u

struct heads {
	uint32_t *unit;
	size_t n, room;
};

static int heads_add(struct heads *heads, uint32_t unit)
{
	uint32_t *more;
	size_t room;

	if (heads->n == heads->room) {
		room = heads->room ? heads->room * 2 : 1024;
		more = realloc(heads->unit, room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		heads->unit = more;
		heads->room = room;
	}
	heads->unit[heads->n++] = unit;
	return 0;
}

/* -EUCLEAN: what a step led to is nothing. */
static int gather(struct heads *heads, struct heap *heap, uint32_t index, uint64_t units)
{
	const struct heap_shelf *shelf = heap->shelf[index];
	int r;

	heads->n = 0;
	for (uint64_t u = 0; u < units;) {
		struct span s = span_unpack(shelf_word(shelf, u));
		struct span_at at;

		if (s.kind == SPAN_FREE && s.length > 0) {
			u += s.length;
			continue;
		}
		r = heap_span(heap, ref_make(index, (uint32_t)u), &at);
		if (r == -ENXIO)
			return 0; /* it goes on behind what is mapped */
		if (r < 0)
			return -EUCLEAN;
		r = heads_add(heads, (uint32_t)u);
		if (r < 0)
			return r;
		u += at.span.length;
	}
	return 0;
}

static int walk_shelf(struct heads *heads, struct heap *heap, uint32_t index,
		      int (*fn)(const struct span_at *at, void *arg), void *arg)
{
	/* ordering: acquire; pairs with the release in heap_shelf_add() and heap_shelf_grow(). */
	struct heap_shelf *shelf = __atomic_load_n(&heap->shelf[index], __ATOMIC_ACQUIRE);
	/* ordering: as above. */
	uint64_t units = shelf ? __atomic_load_n(&shelf->units, __ATOMIC_ACQUIRE) : 0;
	struct span_at at;
	int r = units > 0 ? -EUCLEAN : 0;

	for (unsigned tries = 0; r == -EUCLEAN && tries < WALK_TRIES; tries++)
		r = gather(heads, heap, index, units);
	for (size_t i = 0; r == 0 && i < heads->n; i++)
		if (heap_span(heap, ref_make(index, heads->unit[i]), &at) == 0)
			r = fn(&at, arg);
	return r;
}

int heap_walk(struct heap *heap, int (*fn)(const struct span_at *at, void *arg), void *arg)
{
	struct heads heads = { .unit = NULL };
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < POOL_SHELVES_MAX; i++) {
		heads.n = 0;
		r = walk_shelf(&heads, heap, i, fn, arg);
	}
	free(heads.unit);
	return r;
}
