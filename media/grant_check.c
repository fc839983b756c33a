/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of the daemon's side: free runs of the index are, in the span table, rows of free heads that end
 * where they do, and what was granted is in the table and not in the index. Span tables are written by
 * nobody else, so whatever is broken here is the daemon's own fault.
 */
#include "common/macro.h"
#include "media/debug.h"
#include "media/grant_private.h"

static const char *check_run(struct grant *g, const struct run *run)
{
	const struct heap_shelf *shelf = g->heap->shelf[run->shelf];
	uint64_t unit = run->unit, end = unit + run->length;

	if (!shelf || run->length == 0 || end > shelf->units)
		return "a free run of the index is not in the heap";
	while (unit < end) {
		struct span s = span_unpack(shelf_word(shelf, unit));

		if (s.kind != SPAN_FREE || s.length == 0 || s.length > end - unit)
			return "a free run of the index is not one of the span table";
		unit += s.length;
	}
	return NULL;
}

static const char *check_head(struct grant *g, uint32_t index, uint64_t unit, const struct span *span)
{
	const struct heap_shelf *shelf = g->heap->shelf[index];
	struct span s = span_unpack(shelf_word(shelf, unit));

	if (s.kind != span->kind || s.length != span->length || s.class != span->class)
		return "a granted span is not in the span table";
	for (uint32_t i = 1; i < s.length && s.kind == SPAN_SMALL; i++) {
		struct span inside = span_unpack(shelf_word(shelf, unit + i));

		if (inside.kind != SPAN_INTERIOR || inside.length != i)
			return "a word inside of a granted span does not lead to its head";
	}
	return NULL;
}

void grant_check_free(struct grant *g, uint32_t shelf, uint64_t unit)
{
	struct run run;

	if (runs_at(g->runs, shelf, unit, &run))
		debug_rule(check_run(g, &run), ref_make(run.shelf, run.unit));
}

void grant_check_span(struct grant *g, uint64_t ref, const struct span *span)
{
	uint64_t unit = ref_unit(ref);
	struct run run;

	debug_rule(check_head(g, ref_shelf(ref), unit, span), ref);
	if (runs_at(g->runs, ref_shelf(ref), unit, &run) && run.shelf == ref_shelf(ref) &&
	    run.unit < unit + span->length)
		debug_rule("a granted span is in the index of free runs", ref);
	/* The rests of the run that it was cut from. */
	grant_check_free(g, ref_shelf(ref), unit + span->length);
	if (unit > 0)
		grant_check_free(g, ref_shelf(ref), unit - 1);
}
