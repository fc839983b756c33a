/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Repair.
 *
 * Two files tell of each span: the table's word, and the copy of it in the state record of the span's
 * head, whose owner word says besides that it is a head. Units inside of spans and free runs have no
 * owner. So a head is proven by both, and:
 *
 *   word rotten, record good    the word is written anew from the copy
 *   word good, record rotten    the record is made anew, all its blocks allocated: which of them were
 *                               cannot be told
 *   no head from here to there  a free run: every span there has a head
 *
 * A stretch that the table does not explain is written from its end to its begin. Its first word is
 * last, and the commit: until then a walk fails at the same place and finds the same heads behind it.
 */
#include "media/repair.h"

#include <stdio.h>

#include "common/macro.h"
#include "media/mark.h"

struct repair {
	struct heap *heap;
	struct check_report *report;
	uint32_t index;
	struct heap_shelf *shelf;
	uint64_t done;
};

static struct state_tail_df *tail_at(const struct heap *heap, const struct heap_shelf *shelf,
				     uint64_t unit)
{
	return state_tail(&heap->layout, shelf->state + unit * heap->layout.stride);
}

/* Whether `word` can be the head at `unit`. */
static bool can_be_head(uint64_t word, uint64_t unit, uint64_t units)
{
	struct span s = span_unpack(word);

	if (s.length == 0 || s.length > units - unit)
		return false;
	if (s.kind == SPAN_LARGE)
		return s.class == CLASS_LARGE;
	return s.kind == SPAN_SMALL && s.class < CLASS_COUNT && s.length <= CLASS_SPAN_UNITS_MAX;
}

uint64_t repair_cover(struct heap *heap, uint32_t index, uint64_t unit)
{
	struct heap_shelf *shelf = heap->shelf[index];
	uint64_t u = 0;

	while (u <= unit) {
		struct span s = span_unpack(shelf_word(shelf, u));

		if ((s.kind != SPAN_FREE && !can_be_head(span_pack(s), u, shelf->units)) ||
		    s.length == 0 || s.length > shelf->units - u)
			return unit;
		u += s.length;
	}
	return u;
}

/* The word of which the record at `unit` is, if it says so credibly; else 0. */
static uint64_t record_word(const struct heap *heap, const struct heap_shelf *shelf, uint64_t unit,
			    uint64_t end)
{
	const struct state_tail_df *tail = tail_at(heap, shelf, unit);
	uint64_t word;

	if (!shelf_has(shelf, unit))
		return 0;
	word = media_load64(&tail->word);
	if (media_load64(&tail->owner) == OWNER_NOT_HEAD || !state_sealed(tail, word, unit))
		return 0;
	return can_be_head(word, unit, end) ? word : 0;
}

uint64_t repair_record_word(const struct heap *heap, uint32_t index, uint64_t unit)
{
	return record_word(heap, heap->shelf[index], unit, heap->shelf[index]->units);
}

static uint64_t next_head(struct heap *heap, struct heap_shelf *shelf, uint64_t unit, uint64_t end)
{
	for (uint64_t u = unit + 1; u < end; u++) {
		uint64_t word = shelf_word(shelf, u);

		if (!shelf_has(shelf, u))
			u |= GRANULE_UNITS - 1;
		else if (can_be_head(word, u, shelf->units) &&
		    record_word(heap, shelf, u, shelf->units) == word)
			return u;
	}
	return end;
}

uint64_t repair_next_head(struct heap *heap, uint32_t index, uint64_t unit)
{
	return next_head(heap, heap->shelf[index], unit, heap->shelf[index]->units);
}

static void note(struct repair *r, uint64_t unit, bool state, const char *what, const char *so)
{
	char file[24];

	r->done++;
	if (state) {
		snprintf(file, sizeof(file), "state-%u", r->index);
		check_note(r->report, file,
			   state_records_offset(r->shelf->limit) + unit * r->heap->layout.stride,
			   ref_make(r->index, (uint32_t)unit), what, so);
		return;
	}
	snprintf(file, sizeof(file), "table-%u.%u", r->index, r->heap->node);
	check_note(r->report, file, sizeof(struct table_file_df) + unit * sizeof(m64),
		   ref_make(r->index, (uint32_t)unit), what, so);
}

static void put_word(struct repair *r, uint64_t unit, struct span s)
{
	s.node = r->heap->node;
	media_store64(&r->shelf->table[unit], span_pack(s));
	media_persist(r->heap->durability, &r->shelf->table[unit], sizeof(m64));
}

/* The words inside of a small span. */
static void put_interior(struct repair *r, uint64_t unit, struct span s)
{
	for (uint32_t i = 1; i < s.length && s.kind == SPAN_SMALL; i++) {
		struct span inner = span_unpack(media_load64(&r->shelf->table[unit + i]));

		if (inner.kind != SPAN_INTERIOR || inner.length != i)
			put_word(r, unit + i,
				 (struct span){ .kind = SPAN_INTERIOR, .length = i });
	}
}

/* Suspects are of durability `power`, and not of one large block; elsewhere the mark is a repair's alone. */
static uint64_t suspect_mark(const struct repair *r, struct span s)
{
	return s.kind == SPAN_SMALL && r->heap->durability == DURABILITY_POWER ? OPEN_SUSPECT : 0;
}

/* Makes the record of a head anew: every block allocated, nobody's. `word`: the span's. */
static void keep_all(struct repair *r, uint64_t unit, uint64_t word)
{
	const struct state_layout *l = &r->heap->layout;
	char *record = r->shelf->state + unit * l->stride;
	struct state_tail_df *tail = state_tail(l, record);
	struct span s = span_unpack(word);
	uint32_t blocks = s.kind == SPAN_SMALL ? class_span_blocks(s.class, s.length, l->bits) : 1;

	/* It claims to be a head until it is one: what a rotten owner word says is none the better. */
	media_store64(&tail->owner, OWNER_NONE);
	for (uint32_t w = 0; w < l->words; w++) {
		uint64_t left = blocks > w * 64 ? blocks - w * 64 : 0;

		media_store64(&state_alloc(record)[w],
			      left >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << left) - 1);
		media_store64(&state_limbo(l, record)[w], 0);
		media_store64(&state_remote(l, record)[w], 0);
	}
	media_store64(&tail->open, suspect_mark(r, s));
	media_store64(&tail->word, word);
	media_persist(r->heap->durability, record, l->stride);
	/*
	 * COMMIT: the record is the span's again.
	 *   crash before: its copy of the word is not sealed: it is made anew again.
	 *   crash after:  all blocks are allocated.
	 *   ordering:     release; owner and bits come before it.
	 *   durable:      drained before the table's word is written.
	 */
	media_store_release(&tail->seal, state_seal(word, unit));
	media_persist(r->heap->durability, &tail->seal, sizeof(m64));
}

/* Whether a state record, of which no word is known, claims to be a head's. */
static bool claims_head(struct repair *r, uint64_t unit)
{
	return shelf_has(r->shelf, unit) &&
	       media_load64(&tail_at(r->heap, r->shelf, unit)->owner) != OWNER_NOT_HEAD;
}

/* A free run. Whether the heap's first unit was kept cannot be told any more, so it is from now on. */
static void put_free(struct repair *r, uint64_t unit, struct span s)
{
	if (r->index == 0 && unit == 0) {
		if (s.length > 1)
			put_word(r, 1, (struct span){ .kind = SPAN_FREE, .length = s.length - 1 });
		s.class = FREE_KEPT;
		s.length = 1;
	}
	put_word(r, unit, s);
}

/*
 * Writes one piece of an unexplained stretch: [unit, end), `unit` being a head by its record or the
 * stretch's begin, the rest without a head.
 */
static void put_piece(struct repair *r, uint64_t unit, uint64_t end)
{
	struct span s = { .kind = SPAN_FREE, .length = (uint32_t)(end - unit) };
	uint64_t word = record_word(r->heap, r->shelf, unit, end);

	if (!claims_head(r, unit)) {
		put_free(r, unit, s);
		note(r, unit, false, "no head of a span is in this stretch: it is a free run now",
		     "nothing is lost");
		return;
	}
	if (word != 0) {
		s = span_unpack(word);
		if (unit + s.length < end)
			put_word(r, unit + s.length,
				 (struct span){ .kind = SPAN_FREE,
						.length = (uint32_t)(end - unit - s.length) });
		put_interior(r, unit, s);
		put_word(r, unit, s);
		note(r, unit, false, "the word of this span was restored from its state record",
		     "nothing is lost");
		return;
	}
	s.kind = SPAN_LARGE;
	s.class = CLASS_LARGE;
	s.node = r->heap->node;
	keep_all(r, unit, span_pack(s));
	put_word(r, unit, s);
	note(r, unit, false, "what was here cannot be told: it is kept as one large block",
	     "its space comes back when a sweep frees the block");
}

/* Explains [from, to), of which the table tells nothing: pieces, the last one first. */
static void put_stretch(struct repair *r, uint64_t from, uint64_t to)
{
	uint64_t end = to;

	for (uint64_t u = to; u-- > from;) {
		if (u != from && !claims_head(r, u))
			continue;
		put_piece(r, u, end);
		end = u;
	}
}

/* Whether bits of a span contradict each other, or stand for no block; a suspect one has no freed blocks. */
static bool bits_odd(struct repair *r, const struct span_at *at)
{
	const struct state_layout *l = &r->heap->layout;
	bool suspect = media_load64(&state_tail(l, at->record)->open) & OPEN_SUSPECT;
	/* A dead owner may have been about to collect: settling goes on with that. */
	bool owned = media_load64(&state_tail(l, at->record)->owner) != OWNER_NONE;
	uint64_t odd = suspect && suspect_mark(r, at->span) == 0;

	for (uint32_t w = 0; w < l->words; w++) {
		uint64_t left = at->blocks > w * 64 ? at->blocks - w * 64 : 0;
		uint64_t valid = left >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << left) - 1;
		uint64_t a = media_load64(&state_alloc(at->record)[w]);
		uint64_t b = media_load64(&state_limbo(l, at->record)[w]);
		uint64_t c = media_load64(&state_remote(l, at->record)[w]);

		odd |= ((owned ? b : b | c) & ~a & valid) | ((a | b | c) & ~valid);
		odd |= suspect ? b | c : 0;
	}
	return odd != 0;
}

static void put_open(struct repair *r, const struct span_at *at, uint64_t open)
{
	m64 *word = &state_tail(&r->heap->layout, at->record)->open;

	media_store64(word, open);
	media_persist(r->heap->durability, word, sizeof(*word));
}

/*
 * Keeps every block of which any bit is set as allocated: what is freed and what is rotten cannot be told.
 * The span is suspect first, and a suspect one is gone through again: a death in between leaves
 * bits that do not contradict each other any more, and limbo would free what was to be kept.
 */
static bool mend_bits(struct repair *r, const struct span_at *at)
{
	const struct state_layout *l = &r->heap->layout;

	if (!bits_odd(r, at))
		return false;
	put_open(r, at, OPEN_SUSPECT);
	for (uint32_t w = 0; w < l->words; w++) {
		m64 *alloc = &state_alloc(at->record)[w];
		m64 *limbo = &state_limbo(l, at->record)[w];
		m64 *remote = &state_remote(l, at->record)[w];
		uint64_t left = at->blocks > w * 64 ? at->blocks - w * 64 : 0;
		uint64_t valid = left >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << left) - 1;

		media_store64(alloc, (media_load64(alloc) | media_load64(limbo) | media_load64(remote)) &
					     valid);
		media_persist(r->heap->durability, alloc, sizeof(*alloc));
		media_store64(limbo, 0);
		media_store64(remote, 0);
	}
	media_persist(r->heap->durability, at->record, l->stride);
	if (suspect_mark(r, at->span) == 0)
		put_open(r, at, 0);
	return true;
}

/*
 * A page that is rotten may begin or end within a record, and leave its tail whole. So with a rotten
 * record those that share a page with it are kept as well, before it is made anew: a death in
 * between does the same again.
 */
static void keep_neighbours(struct repair *r, uint64_t unit)
{
	uint64_t stride = r->heap->layout.stride;
	uint64_t from = unit * stride / MEDIA_PAGE * MEDIA_PAGE / stride;
	uint64_t to = ALIGN_UP((unit + 1) * stride, (uint64_t)MEDIA_PAGE) / stride;

	for (uint64_t u = from; u <= MIN(to, r->shelf->units - 1); u++) {
		uint64_t word = media_load64(&r->shelf->table[u]);

		if (u == unit || record_word(r->heap, r->shelf, u, r->shelf->units) != word ||
		    !can_be_head(word, u, r->shelf->units))
			continue;
		keep_all(r, u, word);
		note(r, u, true,
		     "a record beside this span's is rotten: all its blocks are allocated",
		     "blocks that were free are lost until a sweep frees them");
	}
}

static void mend_span(struct repair *r, const struct span_at *at)
{
	uint64_t unit = ref_unit(at->ref), word = span_pack(at->span);

	/* Without an owner it is a grant that was interrupted: loading completes it. */
	if (!state_sealed(state_tail(&r->heap->layout, at->record), word, unit)) {
		keep_neighbours(r, unit);
		keep_all(r, unit, word);
		note(r, unit, true, "the state of this span was rotten: all its blocks are allocated",
		     "blocks that were free are lost until a sweep frees them");
	} else if (mend_bits(r, at)) {
		note(r, unit, true, "bits of this span contradicted each other, or are suspect: "
				    "its blocks are allocated",
		     "blocks that were free may be lost until a sweep frees them");
	}
	put_interior(r, unit, at->span);
}

/* Units that are no head have no owner. */
static void mend_interior(struct repair *r, uint64_t from, uint64_t to)
{
	for (uint64_t u = from; u < to; u++) {
		struct state_tail_df *tail = tail_at(r->heap, r->shelf, u);

		if (!shelf_has(r->shelf, u)) {
			u |= GRANULE_UNITS - 1; /* a sparse heap's, without metadata */
			continue;
		}
		if (media_load64(&tail->owner) == OWNER_NOT_HEAD)
			continue;
		media_store64(&tail->owner, OWNER_NOT_HEAD);
		media_persist(r->heap->durability, &tail->owner, sizeof(m64));
		note(r, u, true, "a unit that is no head had an owner", "nothing is lost");
	}
}

/* Mends what stands at `unit`; returns its length, or 0: nothing does. */
static uint64_t mend_unit(struct repair *r, uint64_t unit)
{
	struct span s = span_unpack(shelf_word(r->shelf, unit));
	struct span_at at;

	if (s.kind == SPAN_FREE && s.length > 0 && s.length <= r->shelf->units - unit)
		return s.length;
	if (heap_span(r->heap, ref_make(r->index, (uint32_t)unit), &at) < 0)
		return 0;
	return at.span.length;
}

/* A head's word that is not what its credible record says is written anew. */
static void mend_word(struct repair *r, uint64_t unit)
{
	uint64_t word = record_word(r->heap, r->shelf, unit, r->shelf->units);
	struct span s = span_unpack(word);

	if (word == 0 || shelf_word(r->shelf, unit) == word)
		return;
	put_interior(r, unit, s);
	put_word(r, unit, s);
	note(r, unit, false, "the word of this span was restored from its state record",
	     "nothing is lost");
}

/* Mends [u, end) or a first part of it; returns where to go on. */
static uint64_t mend_at(struct repair *r, uint64_t u)
{
	uint64_t n, end, head;
	struct span_at at;

	mend_word(r, u);
	n = mend_unit(r, u);
	end = n > 0 ? u + n : r->shelf->units;
	head = next_head(r->heap, r->shelf, u, end);
	/* Nothing, or a word that covers a proven head of another span: then it lies. */
	if (n == 0 || head < end) {
		put_stretch(r, u, head);
		return head;
	}
	if (heap_span(r->heap, ref_make(r->index, (uint32_t)u), &at) == 0) {
		mend_span(r, &at);
		mend_interior(r, u + 1, end);
	} else {
		mend_interior(r, u, end);
	}
	return end;
}

static void mend_shelf(struct repair *r)
{
	uint64_t before = r->report->units;

	for (uint64_t u = 0; u < r->shelf->units;) {
		u = mend_at(r, u);
		check_progress(r->report, before + u);
	}
}

uint64_t heap_repair(struct heap *heap, struct check_report *report)
{
	struct repair r = { .heap = heap, .report = report };

	for (r.index = 0; r.index < POOL_SHELVES_MAX; r.index++) {
		r.shelf = heap->shelf[r.index];
		/* A sparse shelf's are left: a word may be due where no space is reserved for it. */
		if (r.shelf && !r.shelf->granules)
			mend_shelf(&r);
	}
	return r.done;
}
