/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Walks the span tables from unit 0. Every unit is the head of a free run, the head of a span, or
 * inside of one; span_check() has the rules of a span, and a unit that is no head must not have an
 * owner, or a stale hint could make it adoptable. An owned span stands in its lane's table: a
 * settler would not find it else.
 *
 * Beside running clients each rule can look broken for a moment. There a finding counts if it is
 * still there after LIVE_TRIES looks, of which one audit makes so many that its pauses take CHECK_WAIT_MS, and none
 * once the report is full: a client that fills its state files with rubbish does not hold a thread. And a walk that was led astray by a grant begins again at the
 * last head that it had seen.
 *
 * A table that leads nowhere is gone on with at the next head that can be told, so that one rotten
 * word does not hide what is behind it.
 */
#include "media/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/macro.h"
#include "media/mark.h"
#include "media/repair.h"

#define LIVE_TRIES 20u
#define PAUSE_NS 200000u

struct audit {
	struct heap *heap;
	struct check_report *report;
	bool live;
	unsigned pauses; /* that are left */
};

void check_note(struct check_report *report, const char *file, uint64_t offset, uint64_t ref,
		const char *what, const char *so)
{
	struct check_finding *f;

	report->violations++;
	if (report->n_findings == CHECK_FINDINGS)
		return;
	f = &report->finding[report->n_findings++];
	snprintf(f->file, sizeof(f->file), "%s", file);
	f->offset = offset;
	f->ref = ref;
	f->what = what;
	f->so = so;
}

void check_progress(struct check_report *report, uint64_t units)
{
	report->units = units;
	if (report->progress)
		/* ordering: none needed; one writer, for who shows it. */
		__atomic_store_n(report->progress, units, __ATOMIC_RELAXED);
}

bool check_stopped(const struct check_report *report)
{
	/* ordering: relaxed; seen a step later, the audit ends a step later. */
	return report->stop && __atomic_load_n(report->stop, __ATOMIC_RELAXED);
}

/* Waits before another look, of which `tries` are left; false: what was seen counts. */
static bool look_again(struct audit *a, unsigned *tries)
{
	if (--*tries == 0 || a->pauses == 0 || a->report->n_findings == CHECK_FINDINGS ||
	    check_stopped(a->report))
		return false;
	a->pauses--;
	nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
	return true;
}

static void note_table(struct audit *a, uint64_t ref, const char *what, const char *so)
{
	char file[24];

	snprintf(file, sizeof(file), "table-%u.%u", ref_shelf(ref), a->heap->node);
	check_note(a->report, file, sizeof(struct table_file_df) + ref_unit(ref) * sizeof(m64), ref,
		   what, so);
}

static void note_state(struct audit *a, uint64_t ref, const char *what, const char *so)
{
	const struct heap_shelf *shelf = a->heap->shelf[ref_shelf(ref)];
	char file[24];

	snprintf(file, sizeof(file), "state-%u", ref_shelf(ref));
	check_note(a->report, file,
		   state_records_offset(shelf->limit) +
			   (uint64_t)ref_unit(ref) * a->heap->layout.stride,
		   ref, what, so);
}

static uint64_t owner_at(const struct heap *heap, const struct heap_shelf *shelf, uint64_t unit)
{
	char *record = shelf->state + unit * heap->layout.stride;

	return media_load64(&state_tail(&heap->layout, record)->owner);
}

/* Whether units [from, to) are still what they were: the word of their head is `word`. */
static bool still(const struct heap_shelf *shelf, uint64_t head, uint64_t word)
{
	return media_load64(&shelf->table[head]) == word;
}

/* Units that are no head have no owner. `head`: what they belong to. */
static void audit_interior(struct audit *a, uint32_t index, uint64_t head, uint64_t from,
			   uint64_t to)
{
	const struct heap_shelf *shelf = a->heap->shelf[index];
	uint64_t word = media_load64(&shelf->table[head]);

	for (uint64_t u = from; u < to; u++) {
		unsigned tries = a->live ? LIVE_TRIES : 1;

		if (!shelf_has(shelf, u)) {
			/* A sparse heap's granule without metadata: nothing can be wrong with them. */
			u |= GRANULE_UNITS - 1;
			continue;
		}
		while (owner_at(a->heap, shelf, u) != OWNER_NOT_HEAD && still(shelf, head, word)) {
			if (!look_again(a, &tries)) {
				note_state(a, ref_make(index, (uint32_t)u),
					   "a unit that is no head has an owner",
					   "a thread could take it for a span of its own");
				break;
			}
		}
	}
}

static const char *owner_fault(struct heap *heap, const struct span_at *at)
{
	uint64_t owner = media_load64(&state_tail(&heap->layout, at->record)->owner);

	if (!(owner & OWNER_LANE))
		return NULL;
	if (((owner >> 40) & 255) != heap->node)
		return "a span's owner is a lane of a node that is not there";
	return NULL;
}

/* Where the record is whole and is of another word, the table is what is rotten. */
static void note_span(struct audit *a, const struct span_at *at, const char *why)
{
	uint64_t word = repair_record_word(a->heap, ref_shelf(at->ref), ref_unit(at->ref));

	if (word != 0 && word != span_pack(at->span))
		note_table(a, at->ref, "a span word is not the one that its state record vouches for",
			   "blocks of the span may be lost, or given to two");
	else
		note_state(a, at->ref, why, "blocks of the span may be lost, or given to two");
}

static void audit_span(struct audit *a, const struct span_at *at)
{
	unsigned tries = a->live ? LIVE_TRIES : 1;
	uint64_t word = span_pack(at->span);
	const char *why;

	while ((why = span_check(a->heap, at)) || (why = owner_fault(a->heap, at))) {
		if (!still(at->shelf, ref_unit(at->ref), word))
			return; /* retired meanwhile */
		if (!look_again(a, &tries)) {
			note_span(a, at, why);
			return;
		}
	}
}

static void count_span(struct audit *a, const struct span_at *at)
{
	const struct state_layout *l = &a->heap->layout;
	uint32_t used = MIN(span_used(a->heap, at), at->blocks);

	a->report->spans++;
	a->report->blocks += used;
	a->report->used += used * at->block_size;
	a->report->suspects += span_suspect(a->heap, at) ? used : 0;
	for (uint32_t w = 0; w < DIV_UP(at->blocks, 64u); w++)
		a->report->limbo += at->block_size *
				    (uint64_t)__builtin_popcountll(
					    media_load64(&state_limbo(l, at->record)[w]) &
					    ~media_load64(&state_remote(l, at->record)[w]));
}

/* Words inside of a small span lead back to its head, or who frees a block there is refused. */
static void audit_words(struct audit *a, const struct span_at *at)
{
	uint32_t unit = ref_unit(at->ref);
	uint64_t word = span_pack(at->span);

	for (uint32_t i = 1; i < at->span.length && at->span.kind == SPAN_SMALL; i++) {
		struct span s = span_unpack(media_load64(&at->shelf->table[unit + i]));

		if ((s.kind == SPAN_INTERIOR && s.length == i) || !still(at->shelf, unit, word))
			continue;
		note_table(a, ref_make(ref_shelf(at->ref), unit + i),
			   "a word inside of a span does not lead to its head",
			   "blocks in this unit cannot be freed");
	}
}

/* Returns the length of what stands at `unit`; 0: nothing can. */
static uint64_t audit_unit(struct audit *a, uint32_t index, uint64_t unit)
{
	struct heap_shelf *shelf = a->heap->shelf[index];
	uint64_t ref = ref_make(index, (uint32_t)unit);
	struct span s = span_unpack(shelf_word(shelf, unit));
	struct span_at at;

	if (s.kind == SPAN_FREE && s.length > 0 && s.length <= shelf->units - unit) {
		audit_interior(a, index, unit, unit, unit + s.length);
		if (!span_is_kept(&s, index, unit))
			a->report->free += (uint64_t)s.length << UNIT_SHIFT;
		return s.length;
	}
	if (heap_span(a->heap, ref, &at) < 0)
		return 0;
	audit_span(a, &at);
	audit_words(a, &at);
	audit_interior(a, index, unit, unit + 1, unit + at.span.length);
	count_span(a, &at);
	return at.span.length;
}

/* Nothing can stand at `unit`: says so, unless it was a passing state. Where to go on. */
static uint64_t audit_lost(struct audit *a, uint32_t index, uint64_t unit, unsigned *tries)
{
	struct heap_shelf *shelf = a->heap->shelf[index];
	uint64_t next;

	if (*tries == 0)
		*tries = a->live ? LIVE_TRIES : 1;
	if (look_again(a, tries)) {
		/* A span or run that begins earlier covers it now. */
		next = repair_cover(a->heap, index, unit);
		return next > unit ? next : unit;
	}
	*tries = 0;
	next = repair_next_head(a->heap, index, unit);
	note_table(a, ref_make(index, (uint32_t)unit),
		   "a span word is neither a free run nor a span",
		   next < shelf->units ? "what is up to the next head that can be told is lost" :
					 "what is up to the shelf's end is lost");
	return next;
}

static void audit_shelf(struct audit *a, uint32_t index)
{
	struct heap_shelf *shelf = a->heap->shelf[index];
	uint64_t units = shelf ? shelf->units : 0, before = a->report->units;
	unsigned tries = 0;

	for (uint64_t u = 0; u < units && !check_stopped(a->report);) {
		uint64_t step = audit_unit(a, index, u);

		if (step > 0)
			tries = 0;
		u = step > 0 ? u + step : audit_lost(a, index, u, &tries);
		check_progress(a->report, before + u);
	}
}

uint64_t heap_audit(struct heap *heap, bool live, struct check_report *report)
{
	struct audit a = { .heap = heap, .report = report, .live = live,
			   .pauses = CHECK_WAIT_MS * 1000000 / PAUSE_NS };
	uint64_t before = report->violations;

	for (uint32_t i = 0; i < POOL_SHELVES_MAX; i++)
		audit_shelf(&a, i);
	return report->violations - before;
}

int heap_check(struct heap *heap, const char **why, uint64_t *where)
{
	struct check_report *report = calloc(1, sizeof(*report));
	int violations;

	if (!report) {
		*why = "there is no memory to check it";
		*where = 0;
		return 1;
	}
	heap_audit(heap, false, report);
	violations = (int)MIN(report->violations, (uint64_t)INT32_MAX);
	if (violations > 0) {
		*why = report->finding[0].what;
		*where = report->finding[0].ref;
	}
	free(report);
	return violations;
}
