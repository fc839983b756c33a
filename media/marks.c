/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Passes over all spans for their open marks.
 *
 * A pass goes by the span tables, from head to head. Where it meets what is neither a free run nor a
 * span it leaves the rest of the shelf alone: that shelf is damaged, and loading says so.
 */
#include "media/marks.h"

#include <errno.h>

#include "common/macro.h"
#include "media/guard.h"
#include "media/mark.h"

#define CLOSINGS 64u /* spans that are closed by one drain */

struct pass {
	struct heap *heap;
	int (*visit)(struct pass *p, const struct span_at *at);
	struct closing closing[CLOSINGS];
	unsigned closings;
};

/* Visits the spans of one shelf. */
static int pass_shelf(struct pass *p, uint32_t index)
{
	const struct heap_shelf *shelf = p->heap->shelf[index];
	uint64_t units = shelf ? shelf->units : 0, step;
	int r = 0;

	for (uint64_t unit = 0; unit < units && r == 0; unit += step) {
		struct span s = span_unpack(shelf_word(shelf, unit));
		struct span_at at;

		step = s.length;
		if (s.kind == SPAN_FREE && s.length > 0)
			continue;
		if (heap_span(p->heap, ref_make(index, (uint32_t)unit), &at) < 0)
			return 0;
		r = p->visit(p, &at);
	}
	return r;
}

static void closings_end(struct pass *p)
{
	span_close_end(p->heap, p->closing, p->closings);
	p->closings = 0;
}

/* Guarded. */
static int pass_run(void *arg)
{
	struct pass *p = arg;
	int r = 0;

	for (uint32_t i = 0; i < POOL_SHELVES_MAX && r == 0; i++)
		r = pass_shelf(p, i);
	closings_end(p);
	/* What is flushed is drained: the marks are gone from the medium too when this returns. */
	media_drain(DURABILITY_POWER);
	return r;
}

/*
 * A span that was not open. One that was being collected may have blocks that are free already and
 * still have a limbo or remote bit, and no owner to say that somebody was at it.
 */
static void load_exact(struct pass *p, const struct span_at *at)
{
	const struct state_layout *l = &p->heap->layout;

	for (uint32_t w = 0; w < span_words(at); w++) {
		uint64_t alloc = media_load64(&state_alloc(at->record)[w]);
		m64 *maps[] = { &state_limbo(l, at->record)[w], &state_remote(l, at->record)[w] };

		for (unsigned i = 0; i < ARRAY_SIZE(maps); i++) {
			if (!(media_load64(maps[i]) & ~alloc))
				continue;
			/* Drained at the end; lost, it is done again. */
			media_store64(maps[i], media_load64(maps[i]) & alloc);
			media_flush(DURABILITY_POWER, maps[i], sizeof(m64));
		}
	}
}

static int visit_load(struct pass *p, const struct span_at *at)
{
	if (!span_suspect_load(p->heap, at))
		load_exact(p, at);
	return 0;
}

static int visit_close(struct pass *p, const struct span_at *at)
{
	if (at->span.kind != SPAN_SMALL ||
	    !(media_load64(span_open_word(p->heap, at)) & OPEN_MARK))
		return 0;
	/* Without its owner's right nobody may close a span; a death here leaves it the daemon's, which
	 * loading undoes. */
	if (!span_claim(p->heap, at, OWNER_DAEMON))
		return -EBUSY;
	if (span_close_begin(p->heap, at, &p->closing[p->closings]))
		p->closings++;
	span_release(p->heap, at);
	if (p->closings == CLOSINGS)
		closings_end(p);
	return 0;
}

int marks_load(struct heap *heap)
{
	struct pass p = { .heap = heap, .visit = visit_load };

	return heap->durability == DURABILITY_POWER ? guard_run(pass_run, &p, NULL) : 0;
}

int marks_close(struct heap *heap)
{
	struct pass p = { .heap = heap, .visit = visit_close };

	return heap->durability == DURABILITY_POWER ? guard_run(pass_run, &p, NULL) : 0;
}
