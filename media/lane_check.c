/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of a lane: what its memory, its owned-span table and the owner words say of each other.
 *
 * The bits of one span are looked at each time, all places in turn, so that a check costs about as much as a
 * refill. Others set limbo and remote bits meanwhile, of blocks that are allocated; alloc bits, owner word and
 * entries are this thread's.
 */
#include <stddef.h>

#include "media/barrier.h"
#include "media/debug.h"
#include "media/lane_private.h"

/* A span that stands at a place, kept runs too. */
static const char *check_owned(struct lane *lane, unsigned place, const struct span_at *at)
{
	struct span_at now;

	if (media_load64(&lane->df->owned[place]) != at->ref)
		return "an owned span is not in the owned-span table";
	if (heap_span(lane->heap, at->ref, &now) < 0 || span_pack(now.span) != span_pack(at->span))
		return "the span table has another span where an owned one is";
	if (media_load64(&state_tail(&lane->heap->layout, at->record)->owner) !=
	    owner_lane(lane->heap->node, lane->number, place))
		return "an owned span's owner word names somebody else";
	return NULL;
}

/* Recent blocks are known by their places in spans that the lane owns and counts as used. */
static const char *check_recent(struct lane *lane, const struct current *c, const struct recent *r)
{
	const struct owned *o = owned_near(lane, r->ptr);
	struct place p;

	if (r->ptr == 0)
		return r->word == &lane->full ? NULL : "a recent block has no place";
	for (unsigned i = 0; i < LANE_OWNED && r->ptr - o->base >= o->bytes; i++)
		o = &lane->owned[i];
	if (r->ptr - o->base >= o->bytes || !find_place(o, r->ptr, &p) || o->current != c || o->empty)
		return "a recent block is of a span that is not the class's";
	return p.word == r->word && p.bit == r->bit ? NULL : "a recent block has another's place";
}

static const char *check_recents(struct lane *lane, const struct current *c)
{
	const char *why = c->top % sizeof(c->recent[0]) != 0 || c->top > sizeof(c->recent) ?
				  "the stack of a class's recent blocks ends between them" : NULL;

	for (unsigned i = 0; i < c->top / sizeof(c->recent[0]) && !why; i++)
		why = check_recent(lane, c, &c->recent[i]);
	return why;
}

static const char *check_current(const struct lane *lane, const struct current *c)
{
	const struct owned *o = c->span;

	if (!o)
		return c->word == lane->nothing && c->valid == 0 ?
			       NULL : "a class without a current span has a current word";
	if (o->bytes == 0 || o->current != c || c->word < o->alloc || c->word > o->last)
		return "a class's current word is not of its current span";
	return c->valid == (c->word == o->last ? o->last_valid : UINT64_MAX) ?
		       NULL : "a current word's valid bits are others";
}

/* Every word with a free block can be found again. */
static const char *check_room(const struct lane *lane, const struct owned *o)
{
	for (const m64 *word = o->alloc; word <= o->last; word++) {
		uint64_t valid = word == o->last ? o->last_valid : ~UINT64_C(0);

		if ((valid & ~media_load64(word)) && word != o->current->word &&
		    !o->current->room[place_of(lane, o)])
			return "a word with a free block is neither current nor marked to have room";
	}
	return NULL;
}

static const char *check_place(struct lane *lane, unsigned place, bool bits)
{
	const struct owned *o = &lane->owned[place];
	const char *why;

	if (place_isset(lane->unused, place))
		return o->bytes == 0 && media_load64(&lane->df->owned[place]) == 0 ?
			       NULL : "an unused place has a span";
	if (o->bytes == 0)
		return NULL; /* a kept run's */
	if (!place_isset(lane->class[o->at.span.class].places, place))
		return "an owned span is not among those of its class";
	why = check_owned(lane, place, &o->at);
	if (!why && bits)
		why = span_check(lane->heap, &o->at);
	return !why && bits ? check_room(lane, o) : why;
}

static const char *check_sums(const struct lane *lane)
{
	uint64_t held = 0, empty = 0, runs = 0;

	for (unsigned i = 0; i < LANE_OWNED; i++) {
		const struct owned *o = &lane->owned[i];
		uint64_t bytes = o->bytes > 0 ? (uint64_t)o->at.span.length << UNIT_SHIFT : 0;

		held += bytes;
		empty += o->bytes > 0 && o->empty ? bytes : 0;
	}
	for (unsigned i = 0; i < lane->runs.n; i++)
		runs += lane->runs.run[i].at.block_size;
	if (held != lane->held || empty != lane->empty || runs != lane->runs.bytes)
		return "what a lane holds is not the sum of its spans";
	return NULL;
}

static const char *check_runs(struct lane *lane, uint64_t *where)
{
	const char *why = NULL;

	for (unsigned i = 0; i < lane->runs.n && !why; i++) {
		const struct kept_run *run = &lane->runs.run[i];

		*where = run->at.ref;
		if (place_isset(lane->unused, place_of(lane, run->place)) || run->place->bytes != 0)
			why = "a kept run's place is not its own";
		else
			why = check_owned(lane, place_of(lane, run->place), &run->at);
	}
	return why;
}

/* Whether the lane was settled under its thread: then it is another's, as the next entering finds. */
static bool settled(const struct lane *lane)
{
	/* What was read of the spans comes before: who settles raises the number before it takes one. */
	barrier_full();
	return (media_load64(&lane->df->revoke) ^ lane->calm) & ~REVOKE_STATE;
}

const char *lane_check(struct lane *lane, unsigned turn, uint64_t *where)
{
	const char *why = check_sums(lane);

	*where = 0;
	for (unsigned i = 0; i < CLASS_COUNT && !why; i++)
		why = check_current(lane, &lane->current[i]);
	for (unsigned i = 0; i < CLASS_COUNT && !why; i++)
		why = check_recents(lane, &lane->current[i]);
	for (unsigned i = 0; i < LANE_OWNED && !why; i++) {
		*where = lane->owned[i].at.ref;
		why = check_place(lane, i, i == turn % LANE_OWNED);
	}
	if (!why)
		why = check_runs(lane, where);
	return why && !settled(lane) ? why : NULL;
}

void lane_check_now(struct lane *lane)
{
	static _Thread_local unsigned turn;
	uint64_t where;
	const char *why;

	/* The next place that has a span, if any has. */
	for (unsigned i = 0; i < LANE_OWNED; i++)
		if (!place_isset(lane->unused, ++turn % LANE_OWNED))
			break;
	why = lane_check(lane, turn, &where);
	debug_rule(why, where);
}
