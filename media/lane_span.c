/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The spans of a lane: owning, finding, giving up.
 *
 * What a lane holds back is bounded: by LANE_OWNED places and `held_max` bytes of owned spans, beyond
 * which spans without room are given up first, and by `empty_max` bytes of spans without a block,
 * beyond which one that becomes empty is given up at once. What an idle lane owns can be had by others
 * besides (revocation), so the bounds are for what is in use, not for what is left behind.
 *
 * Who frees into a span of another sets its hint bit, always. So the owner of a span without room looks
 * at that bit alone, and reads the remote bits when it is set: clear it, then collect, as on adoption.
 *
 * A death at any store here leaves what grant_settle() needs: the owned-span entry is written before
 * the owner word changes and cleared after it.
 */
#include <errno.h>
#include <string.h>

#include "media/debug.h"
#include "media/fault.h"
#include "media/lane_private.h"

#define REMOTE_LOOKS 16 /* spans without room that are looked at for remote frees, a refill */
#define REMOTE_LEAST 8  /* that part of a span must have been freed to be worth collecting */

/* Open marks */

void lane_closings_end(struct lane *lane)
{
	span_close_end(lane->heap, lane->closing, lane->closings);
	lane->closings = 0;
}

/* Makes room among them: those that were adopted again, else the older half. */
static void closings_thin(struct lane *lane)
{
	unsigned ended = CLOSING_MAX / 2;

	lane->closings = span_closings_left(lane->heap, lane->closing, lane->closings);
	if (lane->closings <= ended)
		return;
	span_close_end(lane->heap, lane->closing, ended);
	lane->closings -= ended;
	memmove(lane->closing, lane->closing + ended, lane->closings * sizeof(lane->closing[0]));
}

void lane_disown(struct lane *lane, const struct span_at *at)
{
	if (lane->closings == CLOSING_MAX)
		closings_thin(lane);
	if (span_close_begin(lane->heap, at, &lane->closing[lane->closings]))
		lane->closings++;
	span_release(lane->heap, at);
}

/* Places */

void lane_reset(struct lane *lane)
{
	lane->held = lane->empty = 0;
	lane->closings = 0;
	lane->runs.n = 0;
	lane->runs.bytes = 0;
	memset(lane->unused, 0xff, sizeof(lane->unused));
	for (unsigned i = 0; i < LANE_OWNED; i++)
		lane->owned[i].bytes = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(lane->current); i++) {
		struct current *c = &lane->current[i];

		memset(c, 0, sizeof(*c));
		c->word = lane->nothing;
		c->valid = 0;
	}
	for (unsigned i = 0; i < CLASS_COUNT; i++)
		memset(lane->class[i].places, 0, sizeof(lane->class[i].places));
}

/* The fast paths are not to know blocks of `o` any more. */
static void recents_forget(struct lane *lane, struct current *c, const struct owned *o)
{
	for (unsigned i = 0; i < c->top / sizeof(c->recent[0]); i++)
		if (c->recent[i].ptr - o->base < o->bytes)
			c->recent[i] = (struct recent){ .word = &lane->full };
}

static struct class_state *class_of_owned(struct lane *lane, const struct owned *o)
{
	return &lane->class[o->at.span.class];
}

static uint64_t owned_held(const struct owned *o)
{
	return (uint64_t)o->at.span.length << UNIT_SHIFT;
}

static void owned_unlink(struct lane *lane, struct owned *o)
{
	struct current *c = o->current;
	unsigned place = place_of(lane, o);

	if (c->span == o) {
		c->span = NULL;
		c->word = lane->nothing;
		c->valid = 0;
	}
	recents_forget(lane, c, o);
	c->room[place] = 0;
	place_unset(class_of_owned(lane, o)->places, place);
	lane->held -= owned_held(o);
	if (o->empty)
		lane->empty -= owned_held(o);
	o->empty = false;
}

void place_clear(struct lane *lane, struct owned *o)
{
	unsigned place = place_of(lane, o);

	o->bytes = 0;
	/* ordering: release; the settler that reads the entry as empty need not look at the span:
	 * it was disowned and hinted before. */
	media_store_release(&lane->df->owned[place], 0);
	place_set(lane->unused, place);
}

/* Bits of an alloc word that stand for blocks. */
static uint64_t word_valid(const struct owned *o, const m64 *word)
{
	return word == o->last ? o->last_valid : ~UINT64_C(0);
}

/* The first word with a free block, from `from` on and round; NULL: there is none. */
static m64 *owned_scan(const struct owned *o, m64 *from)
{
	m64 *word = from;

	do {
		if (word_valid(o, word) & ~media_load64(word))
			return word;
		word = word == o->last ? o->alloc : word + 1;
	} while (word != from);
	return NULL;
}

static bool owned_is_empty(const struct owned *o)
{
	for (const m64 *word = o->alloc; word <= o->last; word++)
		if (media_load64(word) != 0)
			return false;
	return true;
}

static void spare_add(struct lane *lane, const struct owned *o)
{
	struct class_state *c = class_of_owned(lane, o);

	if (c->spares < SPARES_MAX)
		lane->spare[o->at.span.class][c->spares++] = o->at.ref;
}

/* Remembers a span that is given up without room; the oldest such is forgotten for it. */
static void shed_add(struct lane *lane, const struct owned *o)
{
	struct class_state *c = class_of_owned(lane, o);

	lane->shed[o->at.span.class][(c->shed_head + c->sheds) % SHED_MAX] = o->at.ref;
	if (c->sheds < SHED_MAX)
		c->sheds++;
	else
		c->shed_head = (c->shed_head + 1) % SHED_MAX;
}

void owned_release(struct lane *lane, struct owned *o)
{
	bool room = owned_scan(o, o->alloc);

	owned_unlink(lane, o);
	lane_disown(lane, &o->at);
	place_clear(lane, o);
	/* Tried first when the class runs dry; others may have it by then. */
	if (room)
		spare_add(lane, o);
	else
		shed_add(lane, o);
}

/* How much the lane would miss a span, were it given up for one of `class`. */
static unsigned owned_worth(const struct lane *lane, const struct owned *o, unsigned class)
{
	bool current = o->current->span == o, room = *o->room;

	return (current ? 4u : 0u) | (room ? 2u : 0u) | (o->at.span.class == class);
}

/* Gives one span up: the least wanted, of those the one that was looked at longest ago. */
static void release_one(struct lane *lane, unsigned class)
{
	struct owned *least = NULL;
	unsigned worth = 8;

	for (unsigned i = 1; i <= LANE_OWNED; i++) {
		struct owned *o = &lane->owned[(lane->hand + i) % LANE_OWNED];

		if (o->bytes > 0 && owned_worth(lane, o, class) < worth) {
			least = o;
			worth = owned_worth(lane, o, class);
		}
	}
	if (!least)
		return;
	lane->hand = place_of(lane, least);
	owned_release(lane, least);
}

struct owned *place_get(struct lane *lane, unsigned class)
{
	if (lane->held > lane->held_max)
		release_one(lane, class);
	if (!(lane->unused[0] | lane->unused[1]))
		release_one(lane, class);
	for (unsigned i = 0;; i++) {
		unsigned place;

		if (lane->unused[i] == 0)
			continue;
		place = i * 64 + (unsigned)__builtin_ctzll(lane->unused[i]);
		place_unset(lane->unused, place);
		return &lane->owned[place];
	}
}

/* Claiming */

int lane_find_span(struct lane *lane, uint64_t ref, struct span_at *ret)
{
	int r = heap_span(lane->heap, ref, ret);

	if (r == -ENXIO) {
		r = lane->source->resolve(lane->ctx, ref);
		if (r < 0)
			return r;
		r = heap_span(lane->heap, ref, ret);
	}
	return r;
}

bool place_claim(struct lane *lane, struct owned *o, struct span_at *at)
{
	unsigned place = place_of(lane, o);
	struct span_at now = *at;

	/* ordering: release, and the claim is a full barrier: the settler of a lane whose claim
	 * succeeded finds the entry. */
	if (!FAULT(OWNED_AFTER_CLAIM))
		media_store_release(&lane->df->owned[place], at->ref);
	if (!span_claim(lane->heap, at, owner_lane(lane->heap->node, lane->number, place)))
		return false;
	if (FAULT(OWNED_AFTER_CLAIM))
		media_store_release(&lane->df->owned[place], at->ref);
	/* Retired and granted anew before the claim, it may be of another class now. */
	if (heap_span(lane->heap, at->ref, &now) == 0 && now.span.kind == at->span.kind &&
	    now.span.class == at->span.class && now.span.length == at->span.length) {
		*at = now;
		return true;
	}
	/* Nothing of it was changed: its mark is another's to close, who knows how many words it has. */
	span_release(lane->heap, &now);
	/* If it could not be read, room was judged by what it was. */
	heap_hint(lane->heap, &now);
	return false;
}

/* The guesses of free_quick() for the units of a span. */
static void near_set(struct lane *lane, const struct owned *o)
{
	_Static_assert(sizeof(lane->owned) / NEAR_STEP <= UINT16_MAX, "lane.near");
	uint16_t where = (uint16_t)(place_of(lane, o) * (sizeof(*o) / NEAR_STEP));

	for (uint64_t i = 0; i < o->at.span.length; i++)
		lane->near[((o->base >> UNIT_SHIFT) + i) % NEAR_UNITS] = where;
}

static void owned_init(struct lane *lane, struct owned *o, const struct span_at *at)
{
	uint32_t rest = (at->blocks - 1) % 64 + 1;

	o->at = *at;
	o->alloc = state_alloc(at->record);
	o->last = o->alloc + (at->blocks - 1) / 64;
	o->last_valid = ~UINT64_C(0) >> (64 - rest);
	o->base = lane_pool(lane) | (at->ref & REF_MASK) << UNIT_SHIFT;
	o->bytes = at->blocks * at->block_size;
	o->recip = size_classes[at->span.class].recip;
	o->current = &lane->current[at->span.class];
	o->room = &o->current->room[place_of(lane, o)];
	o->empty = false;
	lane->held += owned_held(o);
	place_set(class_of_owned(lane, o)->places, place_of(lane, o));
	near_set(lane, o);
}

/* The class's current word is full: makes it one of `o` that is not. False: there is none. */
static bool owned_use(struct lane *lane, struct owned *o, m64 *from)
{
	m64 *word = owned_scan(o, from);

	if (!word) {
		*o->room = 0;
		return false;
	}
	/* The other words of the span are found again by its mark. */
	*o->room = 1;
	if (o->empty)
		lane->empty -= owned_held(o);
	o->empty = false;
	current_set(o, word);
	return true;
}

/* Makes the unowned span `ref` the current one of `class` if it has room. */
static bool adopt(struct lane *lane, unsigned class, uint64_t ref)
{
	struct span_at at;
	struct owned *o;

	if (lane_find_span(lane, ref, &at) < 0 || at.span.kind != SPAN_SMALL ||
	    at.span.class != class || span_suspect(lane->heap, &at))
		return false;
	o = place_get(lane, class);
	if (!place_claim(lane, o, &at)) {
		place_clear(lane, o);
		return false;
	}
	span_open(lane->heap, &at);
	heap_unhint(&at);
	span_collect(lane->heap, &at);
	owned_init(lane, o, &at);
	if (DEBUG_CHECKS)
		debug_rule(span_check(lane->heap, &at), ref);
	if (owned_use(lane, o, o->alloc))
		return true;
	owned_release(lane, o);
	return false;
}

/* Refilling */

static bool hinted(const struct span_at *at)
{
	uint32_t unit = ref_unit(at->ref);

	return media_load64(&at->shelf->hints[unit / 64]) >> (unit % 64) & 1;
}

/* Blocks of an owned span that others have freed. */
static uint32_t remote_bits(struct lane *lane, const struct owned *o)
{
	uint32_t n = 0;

	for (const m64 *word = o->alloc; word <= o->last; word++)
		n += (uint32_t)__builtin_popcountll(map_word(word, lane->remote));
	return n;
}

static void owned_collect(struct lane *lane, struct owned *o)
{
	heap_unhint(&o->at);
	if (span_collect(lane->heap, &o->at) > 0)
		*o->room = 1;
}

/* Collects an owned span that others freed into if that is worth it; whether it has room now. */
static bool try_remote(struct lane *lane, struct owned *o)
{
	if (!hinted(&o->at) || remote_bits(lane, o) * REMOTE_LEAST < o->at.blocks)
		return false;
	owned_collect(lane, o);
	return owned_use(lane, o, o->alloc);
}

/* Looks round the places of the class, from where the last look ended: the longest without room is
 * the likeliest to be free. */
static bool from_remote(struct lane *lane, unsigned class)
{
	struct class_state *c = &lane->class[class];
	unsigned looks = 0;

	for (unsigned i = 1; i <= LANE_OWNED && looks < REMOTE_LOOKS; i++) {
		unsigned place = (c->look + i) % LANE_OWNED;

		if (!place_isset(c->places, place))
			continue;
		looks++;
		if (try_remote(lane, &lane->owned[place])) {
			c->look = place;
			return true;
		}
	}
	return false;
}

/* The next place from `from` on that is marked to have room; LANE_OWNED: none is. */
static unsigned room_next(const struct current *c, unsigned from)
{
	for (unsigned i = from; i < LANE_OWNED; i = (i & ~7u) + 8) {
		uint64_t marks;

		memcpy(&marks, &c->room[i & ~7u], sizeof(marks));
		marks >>= i % 8 * 8;
		if (marks != 0)
			return i + (unsigned)__builtin_ctzll(marks) / 8;
	}
	return LANE_OWNED;
}

/* Owned spans with room. */
static bool from_room(struct lane *lane, unsigned class)
{
	struct current *c = &lane->current[class];

	for (unsigned i = 0; (i = room_next(c, i)) < LANE_OWNED; i++)
		if (owned_use(lane, &lane->owned[i], lane->owned[i].alloc))
			return true;
	return false;
}

static bool from_current(struct lane *lane, unsigned class)
{
	struct current *c = &lane->current[class];

	return c->span && owned_use(lane, c->span, c->word);
}

static bool from_spares(struct lane *lane, unsigned class)
{
	struct class_state *c = &lane->class[class];

	while (c->spares > 0)
		if (adopt(lane, class, lane->spare[class][--c->spares]))
			return true;
	return false;
}

/* Spans that were given up without room and have got some since: their hint says so. */
static bool from_shed(struct lane *lane, unsigned class)
{
	struct class_state *c = &lane->class[class];
	uint32_t looks = MIN(c->sheds, (uint32_t)REMOTE_LOOKS);

	for (uint32_t i = 0; i < looks; i++) {
		uint64_t ref = lane->shed[class][c->shed_head];
		struct span_at at;

		c->shed_head = (c->shed_head + 1) % SHED_MAX;
		c->sheds--;
		if (heap_span(lane->heap, ref, &at) < 0 || at.span.class != class)
			continue;
		if (hinted(&at) && adopt(lane, class, ref))
			return true;
		lane->shed[class][(c->shed_head + c->sheds++) % SHED_MAX] = ref;
	}
	return false;
}

static bool from_hints(struct lane *lane, unsigned class)
{
	for (unsigned i = 0; i < CLASS_HINTS; i++) {
		uint64_t ref = heap_hint_take(lane->heap, class);

		if (!ref)
			return false;
		if (adopt(lane, class, ref))
			return true;
	}
	return false;
}

static int from_source(struct lane *lane, unsigned class)
{
	struct class_state *c = &lane->class[class];
	uint64_t *spare = lane->spare[class];

	for (int i = 0; i < CLAIM_TRIES; i++) {
		int r = lane->source->spans(lane->ctx, class, c->grown, spare);

		if (r < 0)
			return r;
		/* They come in the order of their places; the stack gives the lowest first. */
		for (int k = 0; k < r / 2; k++) {
			uint64_t ref = spare[k];

			spare[k] = spare[r - 1 - k];
			spare[r - 1 - k] = ref;
		}
		c->spares = (uint32_t)r;
		c->grown = MIN(c->grown * 2, SPARES_MAX);
		if (from_spares(lane, class))
			return 0;
	}
	return -ENOSPC;
}

void lane_release_empty(struct lane *lane)
{
	if (DEBUG_CHECKS)
		lane_check_now(lane);
	for (unsigned i = 0; i < LANE_OWNED; i++) {
		struct owned *o = &lane->owned[i];

		if (o->bytes == 0)
			continue;
		owned_collect(lane, o);
		if (owned_is_empty(o))
			owned_release(lane, o);
	}
	lane_runs_release(lane);
}

int lane_refill(struct lane *lane, unsigned class)
{
	int r;

	if (DEBUG_CHECKS)
		lane_check_now(lane);
	if (from_current(lane, class) || from_room(lane, class) || from_remote(lane, class) ||
	    from_spares(lane, class) || from_shed(lane, class) || from_hints(lane, class))
		return 0;
	r = from_source(lane, class);
	if (r == -ENOSPC) {
		lane_release_empty(lane);
		if (from_room(lane, class))
			return 0;
		r = from_source(lane, class);
	}
	return r;
}

/* Freeing */

void owned_freed(struct lane *lane, struct owned *o, m64 *word)
{
	struct current *c = o->current;

	*o->room = 1;
	if (current_free(c, media_load64(c->word)) == 0) {
		current_set(o, word);
		return;
	}
	if (c->span == o || media_load64(word) != 0 || !owned_is_empty(o))
		return;
	if (lane->empty + owned_held(o) > lane->empty_max) {
		owned_release(lane, o);
		return;
	}
	recents_forget(lane, c, o);
	o->empty = true;
	lane->empty += owned_held(o);
}
