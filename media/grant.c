/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Granting and retiring spans.
 *
 * The span table is this module's alone. A grant cuts a free run: the run's own word, if it is
 * shorter than the span, the remainder's word, interior words, an empty state record, then the head's
 * word, which is the commit; only then does the owner word become NONE and the span can be adopted.
 * Retiring goes the other way: claim, collect, verify, owner NOT_HEAD, word FREE. A typed span whose
 * owner is NOT_HEAD was caught in between, either way, with all its bits zero: grant_new() completes
 * it as granted.
 *
 * State records, hints and lanes can be written, and their files shortened, by clients: every access
 * is in a function run by guard_run(), which touches media and its argument alone; the index of free
 * runs changes outside.
 */
#include "media/grant.h"

#include <errno.h>
#include <stdlib.h>

#include "common/macro.h"
#include "media/debug.h"
#include "media/fault.h"
#include "media/grant_private.h"
#include "media/guard.h"
#include "media/mark.h"
#include "media/untouched.h"

#define SCAN_BUDGET 64u  /* hint words that a request looks at before it takes fresh units */
#define TRIM_SLICE 128u  /* hint words, of 64 units each, that are trimmed at once */

/* Span words */

static void put_word(struct grant *g, struct heap_shelf *shelf, uint64_t unit, struct span s)
{
	s.node = g->heap->node;
	/* ordering: release; pairs with the acquire of who reads a head. */
	media_store_release(&shelf->table[unit], span_pack(s));
}

static void persist_words(struct grant *g, struct heap_shelf *shelf, uint64_t unit, uint64_t n)
{
	media_persist(g->heap->durability, &shelf->table[unit], n * sizeof(m64));
}

static uint32_t next_generation(const struct heap_shelf *shelf, uint64_t unit)
{
	return span_unpack(media_load64(&shelf->table[unit])).generation + 1;
}

/* Granting */

struct typing {
	struct grant *grant;
	struct run run; /* the free run that it is cut from */
	uint64_t untouched; /* its units from here on were never granted */
	struct span span;
};

/* The word of a free run that is made of [unit, unit + length) of the run. */
static void put_free(const struct typing *t, uint64_t unit, uint64_t length, uint32_t generation)
{
	struct heap_shelf *shelf = t->grant->heap->shelf[t->run.shelf];

	put_word(t->grant, shelf, unit,
		 (struct span){ .kind = SPAN_FREE,
				.class = unit >= t->untouched ? FREE_UNTOUCHED : 0,
				.length = (uint32_t)length,
				.generation = generation });
	persist_words(t->grant, shelf, unit, 1);
}

/*
 * The free run of a grant may be several in the table, joined in the index alone: its head's word is
 * made to cover all of it before words behind it cease to be heads.
 */
static void cover(const struct typing *t)
{
	const struct heap_shelf *shelf = t->grant->heap->shelf[t->run.shelf];
	struct span head = span_unpack(media_load64(&shelf->table[t->run.unit]));

	if (head.length >= t->run.length)
		return;
	/*
	 * COMMIT: the runs are one.
	 *   crash before: neighbouring free runs.
	 *   crash after:  one free run as long; a walk does not look inside of it.
	 *   ordering:     release; nobody but the daemon acts on a free run's length.
	 *   durable:      drained before the words inside change.
	 */
	put_free(t, t->run.unit, t->run.length, head.generation);
}

static bool covers(struct heap_shelf *shelf, const struct run *run, uint64_t units)
{
	return span_unpack(media_load64(&shelf->table[run->unit])).length >= units;
}

/* An empty state record of a span. The word `open` goes on: who closed the last span here may still
 * look at it. */
static void clear_record(const struct state_layout *l, char *record, uint64_t word, uint32_t unit,
			 bool untouched)
{
	m64 *open = &state_tail(l, record)->open;
	uint64_t fresh = span_open_fresh(media_load64(open));
	size_t before = (size_t)((char *)open - record);

	media_zero(record, before);
	media_store64(open, fresh | (untouched ? OPEN_UNTOUCHED : 0));
	media_zero(open + 1, l->stride - before - sizeof(*open));
	media_store64(&state_tail(l, record)->word, word);
	media_store64(&state_tail(l, record)->seal, state_seal(word, unit));
}

/* Guarded. Types the head of a run. */
static int type_span(void *arg)
{
	struct typing *t = arg;
	struct grant *g = t->grant;
	const struct state_layout *l = &g->heap->layout;
	struct heap_shelf *shelf = g->heap->shelf[t->run.shelf];
	uint32_t unit = t->run.unit, n = t->span.length;
	char *record = shelf->state + (uint64_t)unit * l->stride;
	struct span_at at;

	if (FAULT(GRANT_WORD_FIRST))
		put_word(g, shelf, unit, t->span);
	if (!covers(shelf, &t->run, n) && !FAULT(GRANT_WITHOUT_COVER))
		cover(t);
	if (t->run.length > n)
		put_free(t, unit + n, t->run.length - n, next_generation(shelf, unit + n));
	for (uint32_t i = 1; i < n && t->span.kind == SPAN_SMALL; i++)
		put_word(g, shelf, unit + i, (struct span){ .kind = SPAN_INTERIOR, .length = i });
	t->span.node = g->heap->node;
	t->span.generation = next_generation(shelf, unit);
	clear_record(l, record, span_pack(t->span), unit,
		     t->span.kind == SPAN_LARGE && unit >= t->untouched);
	media_flush(g->heap->durability, record, l->stride);
	persist_words(g, shelf, unit, t->span.kind == SPAN_SMALL ? n : 1);
	/*
	 * COMMIT: the units are a span.
	 *   crash before: the head's word still says FREE, for a run at least as long; the remainder's
	 *                 word lies inside of it, where a walk does not look.
	 *   crash after:  a span without bits whose owner is NOT_HEAD; grant_new() makes it unowned.
	 *   ordering:     release; the record is zero for whoever acquires the word.
	 *   durable:      drained before anybody can adopt it.
	 */
	put_word(g, shelf, unit, t->span);
	persist_words(g, shelf, unit, 1);
	if (heap_span(g->heap, ref_make(t->run.shelf, unit), &at) < 0)
		return -EIO;
	/* ordering: release; pairs with the adopter's claim. */
	media_store_release(owner_word(g, &at), OWNER_NONE);
	return 0;
}

struct hinting {
	struct grant *grant;
	uint64_t ref;
};

/* Guarded. */
static int hint_ref(void *arg)
{
	struct hinting *h = arg;
	struct span_at at;

	if (h->ref != 0 && heap_span(h->grant->heap, h->ref, &at) == 0)
		heap_hint(h->grant->heap, &at);
	return 0;
}

/* Keeps the hint of a fresh span back for a while; the oldest one's is set. */
static int promise(struct grant *g, uint64_t ref)
{
	uint64_t *place = &g->promised[g->promised_next++ % PROMISED_MAX];
	struct hinting h = { .grant = g, .ref = *place };

	*place = ref;
	return h.ref ? guard_run(hint_ref, &h, NULL) : 0;
}

/* Sets the hints that were kept back. */
static int promises_end(struct grant *g)
{
	int r = 0;

	for (unsigned i = 0; i < PROMISED_MAX && r == 0; i++)
		r = promise(g, 0);
	return r;
}

/* Puts units of a run that was taken back into the index, which says so; returns r. */
static int untake(struct grant *g, const struct run *run, uint64_t unit, uint64_t n, int r)
{
	int q = runs_add(g->runs, (struct run){ .shelf = run->shelf, .unit = (uint32_t)unit,
						.length = n });

	return q < 0 ? q : r;
}

/*
 * Leaves the first `lead` units of a run that was taken from the index to the table as a run of their own.
 * Span tables are the daemon's alone: no guard.
 */
static void cut_lead(struct typing *t, uint64_t lead)
{
	struct run *run = &t->run;
	const struct heap_shelf *shelf = t->grant->heap->shelf[run->shelf];
	struct span head = span_unpack(media_load64(&shelf->table[run->unit]));
	uint64_t at = run->unit + lead;

	if (lead == 0)
		return;
	cover(t);
	put_free(t, at, run->length - lead, next_generation(shelf, at));
	/*
	 * COMMIT: the run is two.
	 *   crash before: one free run; the second's word lies inside of it, where a walk does not look.
	 *   crash after:  two free runs, side by side.
	 *   ordering:     release; nobody but the daemon acts on a free run's length.
	 *   durable:      drained before the second is made a span.
	 */
	put_free(t, run->unit, lead, head.generation);
	run->unit += (uint32_t)lead;
	run->length -= lead;
}

/* Grants one fresh span, at a multiple of `align` units. */
int grant_fresh(struct grant *g, struct span span, uint64_t align, uint64_t *ref)
{
	struct typing t = { .grant = g, .span = span };
	uint64_t at;
	int r = runs_take(g->runs, span.length, align, &t.run);

	if (r < 0)
		return r;
	at = run_aligned(&t.run, align);
	r = space_reserve(g, &t.run, at, span);
	if (r < 0)
		return untake(g, &t.run, at, span.length, r);
	t.untouched = untouched_from(g->heap->shelf[t.run.shelf], &t.run);
	/* What is untouched behind the span keeps words of its own. */
	if (t.untouched >= at + span.length)
		t.run.length = t.untouched - t.run.unit;
	cut_lead(&t, at - t.run.unit);
	r = guard_run(type_span, &t, NULL);
	if (r < 0)
		return r;
	*ref = ref_make(t.run.shelf, t.run.unit);
	if (DEBUG_CHECKS)
		grant_check_span(g, *ref, &span);
	return promise(g, *ref);
}

/* Retiring */

/* Guarded part: whether the span was empty and is FREE now. Its word is the commit. */
static bool retire(struct grant *g, const struct span_at *at)
{
	struct heap_shelf *shelf = at->shelf;
	uint32_t unit = ref_unit(at->ref);

	if (media_load64(owner_word(g, at)) != OWNER_NONE || span_used(g->heap, at) != 0 ||
	    !span_claim(g->heap, at, OWNER_DAEMON))
		return false;
	heap_unhint(at);
	span_collect(g->heap, at);
	if (span_used(g->heap, at) != 0) {
		span_disown(g->heap, at);
		return false;
	}
	if (FAULT(RETIRE_WORD_FIRST))
		put_word(g, shelf, unit, (struct span){ .kind = SPAN_FREE, .length = at->span.length });
	/* ordering: release; after it no claim of an unowned span can succeed. */
	media_store_release(owner_word(g, at), OWNER_NOT_HEAD);
	media_persist(g->heap->durability, owner_word(g, at), sizeof(m64));
	/*
	 * COMMIT: the units are free.
	 *   crash before: a span without bits, owner NOT_HEAD or DAEMON; grant_new() makes it unowned.
	 *   crash after:  a free run.
	 *   ordering:     release; who acquires the word no longer takes it for a head.
	 *   durable:      drained before the units are granted again.
	 */
	put_word(g, shelf, unit,
		 (struct span){ .kind = SPAN_FREE, .length = at->span.length,
				.generation = at->span.generation });
	persist_words(g, shelf, unit, 1);
	return true;
}

/* Looking for spans by their hint bits */

/* What a scan is for. */
enum scan_aim {
	SCAN_ROOMY, /* unowned spans of `class` with an eighth free; freed large ones are retired */
	SCAN_ROOM,  /* the same with any room */
	SCAN_EMPTY, /* every empty unowned span is retired */
};

struct scan {
	struct grant *grant;
	enum scan_aim aim;
	unsigned class;
	uint32_t shelf;
	uint64_t word;     /* where it goes on */
	uint64_t bits;     /* of that word, still to be looked at */
	uint64_t budget;   /* words */
	uint64_t found;    /* ref of a span with room */
	struct run retired;
};

/* Guarded. Whether the span serves a request of the scan's class. */
static bool scan_suits(struct scan *s, const struct span_at *at)
{
	uint32_t spare = s->aim == SCAN_ROOMY ? at->blocks / 8 : 0;

	return at->span.class == s->class &&
	       media_load64(owner_word(s->grant, at)) == OWNER_NONE &&
	       !span_suspect(s->grant->heap, at) &&
	       span_used(s->grant->heap, at) + spare < at->blocks;
}

/* Guarded. Looks at one hinted span; whether it was worth returning for. */
static bool scan_span(struct scan *s, uint64_t ref)
{
	struct grant *g = s->grant;
	struct span_at at;

	if (heap_span(g->heap, ref, &at) < 0)
		return false;
	if (s->aim != SCAN_EMPTY && at.span.kind == SPAN_SMALL) {
		if (scan_suits(s, &at))
			s->found = ref;
		return s->found != 0;
	}
	if (!retire(g, &at))
		return false;
	s->retired = (struct run){ .shelf = ref_shelf(ref), .unit = ref_unit(ref),
				   .length = at.span.length };
	return true;
}

/* To the next word, of the next shelf after the last word; round to the first shelf. */
static void scan_advance(struct scan *s)
{
	uint64_t end = DIV_UP(units_of(s->grant, s->shelf), 64);

	s->word = shelf_hint_word(s->grant->heap->shelf[s->shelf], s->word + 1, end);
	if (s->word < end)
		return;
	s->word = 0;
	do
		s->shelf = (s->shelf + 1) % POOL_SHELVES_MAX;
	while (units_of(s->grant, s->shelf) == 0 && s->shelf != 0);
}

/* Guarded. Scans until something is found or the budget is used up: 1 or 0. */
static int scan_step(void *arg)
{
	struct scan *s = arg;

	s->found = 0;
	s->retired.length = 0;
	for (;;) {
		while (s->bits) {
			uint64_t unit = s->word * 64 + (uint64_t)__builtin_ctzll(s->bits);

			s->bits &= s->bits - 1;
			if (unit < units_of(s->grant, s->shelf) &&
			    scan_span(s, ref_make(s->shelf, (uint32_t)unit)))
				return 1;
		}
		if (s->budget == 0)
			return 0;
		s->budget--;
		scan_advance(s);
		if (s->word * 64 < units_of(s->grant, s->shelf))
			s->bits = media_load64(&s->grant->heap->shelf[s->shelf]->hints[s->word]);
	}
}

static void scan_init(struct scan *s, struct grant *g, enum scan_aim aim, unsigned class,
		      uint64_t budget)
{
	*s = (struct scan){ .grant = g, .aim = aim, .class = class, .shelf = g->cursor_shelf,
			    .word = g->cursor_word, .budget = budget };
}

/* Goes on with a scan and files what it retired: 1 with found or retired set, 0 at its end. */
static int scan_next(struct scan *s)
{
	struct grant *g = s->grant;
	int r = guard_run(scan_step, s, NULL);
	int q;

	g->cursor_shelf = s->shelf;
	g->cursor_word = s->word;
	if (r > 0 && s->retired.length > 0) {
		q = runs_add(g->runs, s->retired);
		if (q < 0)
			return q;
		if (DEBUG_CHECKS)
			grant_check_free(g, s->retired.shelf, s->retired.unit);
	}
	return r;
}

/* Hint words of all shelves. */
static uint64_t all_words(struct grant *g)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < POOL_SHELVES_MAX; i++)
		if (units_of(g, i) > 0)
			n += shelf_hint_words(g->heap->shelf[i], DIV_UP(units_of(g, i), 64));
	return n;
}

/* Spans of a class that others left behind, up to `want`. */
static int find_spans(struct grant *g, enum scan_aim aim, unsigned class, uint32_t want,
		      uint64_t budget, uint64_t *refs)
{
	struct scan s;
	uint32_t n = 0;
	int r = 0;

	scan_init(&s, g, aim, class, budget);
	while (n < want && (r = scan_next(&s)) > 0)
		if (s.found)
			refs[n++] = s.found;
	return r < 0 ? r : (int)n;
}

/* Looks at some words, from where the pass is, or until it finds a span with room: 1, which the scans of requests
 * go on behind; else they have a place of their own. *units: what it retired. */
static int pass_words(struct grant *g, struct grant_trim *pass, struct scan *s, uint64_t *units)
{
	uint64_t cursor_word = g->cursor_word, words = s->budget;
	uint32_t cursor_shelf = g->cursor_shelf;
	int r;

	s->shelf = pass->shelf;
	s->word = pass->word;
	while ((r = scan_next(s)) > 0 && !s->found)
		*units += s->retired.length;
	pass->shelf = s->shelf;
	pass->word = s->word;
	pass->left -= words;
	if (r > 0)
		return r;
	g->cursor_shelf = cursor_shelf;
	g->cursor_word = cursor_word;
	return r;
}

static int64_t trim_words(struct grant *g, struct grant_trim *trim, uint64_t words)
{
	uint64_t units = 0;
	struct scan s;
	int r;

	scan_init(&s, g, SCAN_EMPTY, 0, words);
	r = pass_words(g, trim, &s, &units);
	return r < 0 ? r : (int64_t)(units << UNIT_SHIFT);
}

static int trim_begin(struct grant *g, struct grant_trim *trim)
{
	*trim = (struct grant_trim){ .begun = true, .left = all_words(g) + 1 };
	return promises_end(g);
}

int64_t grant_trim_slice(struct grant *g, struct grant_trim *trim)
{
	int r = trim->begun ? 0 : trim_begin(g, trim);

	return r < 0 ? r : trim_words(g, trim, MIN(trim->left, (uint64_t)TRIM_SLICE));
}

int64_t grant_trim(struct grant *g)
{
	struct grant_trim trim;
	int r = trim_begin(g, &trim);

	return r < 0 ? r : trim_words(g, &trim, trim.left);
}

int grant_room_slice(struct grant *g, struct grant_trim *pass, unsigned class, uint64_t *ref)
{
	int r = pass->begun ? 0 : trim_begin(g, pass);
	uint64_t units = 0;
	struct scan s;

	if (r < 0)
		return r;
	scan_init(&s, g, SCAN_ROOM, class, MIN(pass->left, (uint64_t)TRIM_SLICE));
	r = pass_words(g, pass, &s, &units);
	*ref = s.found;
	return r;
}

/* Requests */

int grant_fresh_spans(struct grant *g, unsigned class, uint32_t want, uint64_t *refs)
{
	/* A span is at most 1/64 of the heap, and no longer than the longest free run. */
	uint64_t longest = MIN(runs_longest(g->runs), g->heap->bytes >> UNIT_SHIFT >> 6);
	struct span span = { .kind = SPAN_SMALL, .class = class,
			     .length = class_span_units(class, g->heap->layout.bits,
							(uint32_t)MIN(longest, (uint64_t)64)) };
	uint64_t most = 1 + runs_units(g->runs) / span.length / 16;
	uint32_t n;

	want = (uint32_t)MIN((uint64_t)want, most);
	for (n = 0; n < want; n++) {
		int r = grant_fresh(g, span, 1, &refs[n]);

		if (r == -ENOSPC || (r == -EINPROGRESS && n > 0))
			break;
		if (r < 0)
			return r;
	}
	return (int)n;
}

int grant_left_spans(struct grant *g, unsigned class, uint32_t want, uint64_t *refs)
{
	return find_spans(g, SCAN_ROOMY, class, want, SCAN_BUDGET, refs);
}

int grant_keep_first(struct grant *g)
{
	int r = space_granule(g, 0, 0);

	if (r < 0)
		return r;
	/* As in grant_grow(): before the COMMIT of the shelf's record, and nobody walks there yet. */
	put_word(g, g->heap->shelf[0], 0, (struct span){ .kind = SPAN_FREE, .class = FREE_KEPT, .length = 1 });
	persist_words(g, g->heap->shelf[0], 0, 1);
	return 0;
}

int grant_grow(struct grant *g, uint32_t shelf, uint64_t from, uint64_t to)
{
	struct run run = { .shelf = shelf, .unit = (uint32_t)from, .length = to - from };
	int r;

	if (shelf >= POOL_SHELVES_MAX || from >= to || to > units_of(g, shelf))
		return -EINVAL;
	r = space_granule(g, shelf, from);
	if (r < 0)
		return r;
	/*
	 * Before the COMMIT, which is the shelf record: units behind the shelf's size are walked by
	 * nobody. They are new to the file and read zero.
	 */
	put_word(g, g->heap->shelf[shelf], from,
		 (struct span){ .kind = SPAN_FREE, .class = FREE_UNTOUCHED,
				.length = (uint32_t)run.length });
	persist_words(g, g->heap->shelf[shelf], from, 1);
	return runs_add_ready(g->runs, run);
}

int grant_grow_ready(struct grant *g, unsigned n)
{
	return runs_ready(g->runs, n);
}
