/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Walks the span tables from unit 0. Every unit is the head of a free run, the head of a span, or
 * inside of one; span_check() has the rules of a span, and a unit that is no head must not have an
 * owner, or a stale hint could make it adoptable.
 */
#include "media/check.h"

#include "common/macro.h"

struct audit {
	struct heap *heap;
	int violations;
	const char *why;
	uint64_t where;
};

static void audit_note(struct audit *a, const char *why, uint64_t where)
{
	if (a->violations++ == 0) {
		a->why = why;
		a->where = where;
	}
}

static void audit_interior(struct audit *a, uint32_t index, uint64_t from, uint64_t to)
{
	const struct heap *heap = a->heap;
	const struct heap_shelf *shelf = heap->shelf[index];
	char *record;

	for (uint64_t u = from; u < to; u++) {
		if (!shelf_has(shelf, u)) {
			/* A sparse heap's granule without metadata: nothing can be wrong with them. */
			u |= GRANULE_UNITS - 1;
			continue;
		}
		record = shelf->state + u * heap->layout.stride;
		if (media_load64(&state_tail(&heap->layout, record)->owner) != OWNER_NOT_HEAD)
			audit_note(a, "a unit that is no head has an owner",
				   ref_make(index, (uint32_t)u));
	}
}

/* Returns the length of what stands at `unit`; 0: nothing can. */
static uint64_t audit_unit(struct audit *a, uint32_t index, uint64_t unit)
{
	struct heap_shelf *shelf = a->heap->shelf[index];
	uint64_t ref = ref_make(index, (uint32_t)unit);
	struct span s = span_unpack(shelf_word(shelf, unit));
	struct span_at at;
	const char *why;

	if (s.kind == SPAN_FREE && s.length > 0 && s.length <= shelf->units - unit) {
		audit_interior(a, index, unit, unit + s.length);
		return s.length;
	}
	if (heap_span(a->heap, ref, &at) < 0) {
		audit_note(a, "a span word is neither a free run nor a span", ref);
		return 0;
	}
	why = span_check(a->heap, &at);
	if (why)
		audit_note(a, why, ref);
	audit_interior(a, index, unit + 1, unit + at.span.length);
	return at.span.length;
}

int heap_check(struct heap *heap, const char **why, uint64_t *where)
{
	struct audit a = { .heap = heap };

	for (uint32_t i = 0; i < POOL_SHELVES_MAX; i++) {
		uint64_t units = heap->shelf[i] ? heap->shelf[i]->units : 0;
		uint64_t step = 0;

		for (uint64_t u = 0; u < units; u += step) {
			step = audit_unit(&a, i, u);
			if (step == 0)
				break;
		}
	}
	if (a.violations > 0) {
		*why = a.why;
		*where = a.where;
	}
	return a.violations;
}
