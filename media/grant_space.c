/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Space for grants of sparse heaps.
 *
 * A grant reserves what it is about to use, before the first store to it: data of all its units; the
 * metadata of each unit whose word or record is written: the head's, interior ones of a span of small
 * blocks, and that of the unit behind it, where the rest of the free run begins. It reserves ahead to
 * the next multiple of SPACE_AHEAD within the free run, so that a row of small spans makes few system
 * calls and huge pages can be used. If that is too much, it reserves what it needs alone.
 *
 * The kernel takes about 1 us a page, and the loop has others to serve. So a request reserves at most
 * SPACE_BUDGET at once; for more it ends with -EINPROGRESS and a wish, which the caller has fulfilled in
 * a thread and asks again. Nothing else is done to the units meanwhile, but that others may be granted
 * them: reserving what is reserved changes nothing. What is wished for is not given back before.
 */
#include <errno.h>

#include "common/macro.h"
#include "media/backing.h"
#include "media/file.h"
#include "media/grant_private.h"

#define SPACE_AHEAD (UINT64_C(2) << 20 >> UNIT_SHIFT)   /* units */
#define SPACE_BUDGET (UINT64_C(16) << 20 >> UNIT_SHIFT) /* units */

static struct backing *backing_of(struct grant *g, uint32_t shelf)
{
	return g->heap->shelf[shelf] ? g->heap->shelf[shelf]->backing : NULL;
}

void grant_allow_set(struct grant *g, bool (*allow)(void *ctx, uint64_t bytes), void *ctx)
{
	g->space.allow = allow;
	g->space.ctx = ctx;
}

/* Notes a shortage; a file system's own quota is one like others to who asks for a grant. */
static int shortage(struct grant *g, int r)
{
	if (r != -ENOSPC && r != -EDQUOT)
		return r;
	g->space.lacking = true;
	return -ENOSPC;
}

static int allowed(struct grant *g, uint64_t bytes)
{
	if (!g->space.allow || bytes == 0 || g->space.allow(g->space.ctx, bytes))
		return 0;
	return shortage(g, -ENOSPC);
}

bool grant_space_short(const struct grant *g)
{
	return g->space.lacking;
}

bool grant_space_spent(const struct grant *g)
{
	return g->space.spent > 0;
}

void grant_space_lack(struct grant *g)
{
	g->space.lacking = true;
}

int space_granule(struct grant *g, uint32_t shelf, uint64_t unit)
{
	struct backing *b = backing_of(g, shelf);
	int r;

	if (!b || unit >= units_of(g, shelf))
		return 0;
	r = allowed(g, backing_granule_cost(b, unit));
	return r < 0 ? r : shortage(g, backing_granule(b, unit));
}

/* Reserves the data of [unit, to). */
static int reserve_data(struct grant *g, struct backing *b, uint64_t unit, uint64_t to)
{
	uint64_t missing = backing_missing(b, unit, to - unit);
	int r;

	if (missing == 0)
		return 0;
	r = allowed(g, missing << UNIT_SHIFT);
	if (r == 0)
		r = shortage(g, backing_reserve(b, unit, to - unit));
	if (r < 0)
		return r;
	backing_mark(b, unit, to - unit);
	g->space.spent += missing;
	return 0;
}

/* Leaves a wish for what is too much at once. */
static int wish(struct grant *g, uint32_t shelf, uint64_t unit, uint64_t n)
{
	int r = allowed(g, backing_missing(backing_of(g, shelf), unit, n) << UNIT_SHIFT);

	if (r < 0)
		return r;
	g->space.wish = (struct grant_wish){ .backing = backing_of(g, shelf), .shelf = shelf,
					     .unit = unit, .units = n };
	return -EINPROGRESS;
}

int space_reserve(struct grant *g, const struct run *room, uint64_t unit, struct span span)
{
	struct backing *b = backing_of(g, room->shelf);
	uint64_t end = unit + span.length, room_end = room->unit + room->length;
	uint64_t missing, ahead;
	int r;

	if (!b)
		return 0;
	missing = backing_missing(b, unit, span.length);
	if (g->space.spent > 0 && g->space.spent + missing > SPACE_BUDGET)
		return -EINPROGRESS;
	if (missing > SPACE_BUDGET)
		return wish(g, room->shelf, unit, span.length);
	r = space_granule(g, room->shelf, unit);
	if (r == 0 && span.kind == SPAN_SMALL)
		r = space_granule(g, room->shelf, end - 1);
	if (r == 0 && end < room_end)
		r = space_granule(g, room->shelf, end);
	if (r < 0 || missing == 0)
		return r;
	ahead = MIN(ALIGN_UP(end, SPACE_AHEAD), room_end);
	r = reserve_data(g, b, unit, ahead);
	if (r == -ENOSPC && ahead > end) {
		g->space.lacking = false;
		r = reserve_data(g, b, unit, end);
	}
	return r;
}

void space_begin(struct grant *g)
{
	g->space.spent = 0;
	g->space.lacking = false;
	g->space.wish.units = 0;
}

bool grant_wished(const struct grant *g, struct grant_wish *ret)
{
	*ret = g->space.wish;
	return ret->units > 0;
}

void grant_wish_begin(struct grant *g, const struct grant_wish *w)
{
	g->space.pending = *w;
}

int grant_wish_run(struct grant_wish *w)
{
	int r = 0;

	w->done = 0;
	while (r == 0 && w->done < w->units) {
		uint64_t n = MIN(w->units - w->done, FILE_SLICE >> UNIT_SHIFT);

		r = backing_reserve(w->backing, w->unit + w->done, n);
		if (r == 0)
			w->done += n;
	}
	return r;
}

void grant_wish_end(struct grant *g, const struct grant_wish *w)
{
	backing_mark(w->backing, w->unit, w->done);
	g->space.pending.units = 0;
}

void space_loaded(struct grant *g, uint32_t shelf, uint64_t unit, uint64_t units)
{
	if (backing_of(g, shelf))
		backing_mark(backing_of(g, shelf), unit, units);
}

int grant_space_clear(struct grant *g)
{
	struct run run;
	uint64_t unit = 0;
	int r = 0;

	for (uint32_t shelf = 0; r == 0 && runs_at(g->runs, shelf, unit, &run);) {
		if (backing_of(g, run.shelf))
			r = backing_clear(backing_of(g, run.shelf), run.unit, run.length);
		shelf = run.shelf;
		unit = run.unit + run.length;
	}
	return r;
}

/* Where giving back goes on in a free run that a wish may have part of: past that. */
static bool wished_for(const struct grant *g, const struct run *run, uint64_t *unit, uint64_t *end)
{
	const struct grant_wish *w = &g->space.pending;

	if (w->units == 0 || w->shelf != run->shelf || *unit >= w->unit + w->units || *end <= w->unit)
		return false;
	if (*unit < w->unit) {
		*end = w->unit;
		return false;
	}
	*unit = MIN(w->unit + w->units, *end);
	return true;
}

int64_t grant_space_return(struct grant *g, struct grant_place *place, uint64_t bytes)
{
	uint64_t most = DIV_UP(bytes, UNIT_SIZE), done = 0;
	struct run run;
	int64_t r = 0;

	while (done < most && runs_at(g->runs, place->shelf, place->unit, &run)) {
		uint64_t end = run.unit + run.length;

		if (run.shelf != place->shelf || run.unit > place->unit)
			*place = (struct grant_place){ .shelf = run.shelf, .unit = run.unit };
		if (!backing_of(g, run.shelf))
			place->unit = end;
		else if (!wished_for(g, &run, &place->unit, &end))
			r = backing_return(backing_of(g, run.shelf), &place->unit, end, most - done);
		if (r < 0)
			return r;
		done += (uint64_t)r;
		r = 0;
	}
	place->whole = done < most;
	return (int64_t)(done << UNIT_SHIFT);
}

uint64_t grant_space_bytes(const struct grant *g)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < POOL_SHELVES_MAX; i++)
		if (g->heap->shelf[i] && g->heap->shelf[i]->backing)
			bytes += backing_bytes(g->heap->shelf[i]->backing);
	return bytes;
}
