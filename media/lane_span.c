/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The spans of a lane: owning, finding, giving up.
 *
 * When the current span of a class is exhausted, room is looked for, nearest first: owned spans with
 * room; owned exhausted ones with remote frees to collect; spans granted and not adopted yet; refs in
 * the heap's hint array; the source (the daemon).
 *
 * What a lane holds back is bounded: LANE_OWNED spans and `held_max` bytes, beyond which exhausted
 * spans are disowned, oldest first; of each class at most one empty span is kept beside the current
 * one.
 *
 * A death at any store here leaves what grant_settle() needs: the owned-span entry is written before
 * the owner word changes and cleared after it.
 */
#include <errno.h>
#include <string.h>

#include "media/lane_private.h"

#define EXHAUSTED_LOOKS 4 /* exhausted spans that are looked at for remote frees, a refill */

/* Open marks */

void lane_closings_end(struct lane *lane)
{
	if (lane->closings == 0)
		return;
	media_drain(lane->heap->durability);
	while (lane->closings > 0)
		span_close_end(&lane->closing[--lane->closings]);
}

void lane_open(struct lane *lane, const struct span_at *at)
{
	if (!span_open(lane->heap, at))
		return;
	/* It has drained what was flushed before. */
	while (lane->closings > 0)
		span_close_end(&lane->closing[--lane->closings]);
}

void lane_disown(struct lane *lane, const struct span_at *at)
{
	if (lane->closings == CLOSING_MAX)
		lane_closings_end(lane);
	if (span_close_begin(lane->heap, at, &lane->closing[lane->closings]))
		lane->closings++;
	span_release(lane->heap, at);
}

/* Places */

void lane_reset(struct lane *lane)
{
	lane->held = 0;
	lane->closings = 0;
	lane->last = &lane->none;
	TAILQ_INIT(&lane->unused);
	for (unsigned i = 0; i < LANE_OWNED; i++) {
		lane->owned[i].units = 0;
		TAILQ_INSERT_TAIL(&lane->unused, &lane->owned[i], link);
	}
	for (unsigned c = 0; c < CLASS_COUNT; c++) {
		lane->current[c] = &lane->none;
		TAILQ_INIT(&lane->class[c].room);
		TAILQ_INIT(&lane->class[c].exhausted);
	}
}

static void owned_unlink(struct lane *lane, struct owned *o)
{
	struct class_state *c = &lane->class[o->class];

	if (o->current) {
		lane->current[o->class] = &lane->none;
		o->current = false;
		o->used -= (uint32_t)__builtin_popcountll(o->mask);
		o->mask = 0;
		o->word = NULL;
	} else if (o->exhausted) {
		TAILQ_REMOVE(&c->exhausted, o, link);
	} else {
		TAILQ_REMOVE(&c->room, o, link);
	}
}

/* Empties a place; its span is disowned already, or was never claimed. */
static void place_clear(struct lane *lane, struct owned *o)
{
	o->units = 0;
	/* ordering: release; the settler that reads the entry as empty need not look at the span:
	 * it was disowned and hinted before. */
	media_store_release(&lane->df->owned[place_of(lane, o)], 0);
	TAILQ_INSERT_HEAD(&lane->unused, o, link);
}

void owned_release(struct lane *lane, struct owned *o)
{
	struct class_state *c = &lane->class[o->class];

	owned_unlink(lane, o);
	lane->held -= (uint64_t)o->units << UNIT_SHIFT;
	lane_disown(lane, &o->at);
	place_clear(lane, o);
	/* The first to be tried when the class runs dry; others may have it by then. */
	if (o->used < o->blocks && c->spares < SPARES_MAX)
		c->spare[c->spares++] = o->at.ref;
}

/* The span of a class that the lane is least likely to miss; NULL: none but the current. */
static struct owned *least_wanted(struct class_state *c)
{
	struct owned *o = TAILQ_FIRST(&c->exhausted);

	return o ? o : TAILQ_LAST(&c->room, owned_list);
}

/* Gives one span up, of `class` last of all: its spans are the likeliest to be of use now. */
static void release_one(struct lane *lane, unsigned class)
{
	struct owned *o = NULL;

	for (unsigned i = 1; !o && i <= CLASS_COUNT; i++)
		o = least_wanted(&lane->class[(class + i) % CLASS_COUNT]);
	for (unsigned i = 1; !o && i <= CLASS_COUNT; i++)
		if (lane->current[(class + i) % CLASS_COUNT] != &lane->none)
			o = lane->current[(class + i) % CLASS_COUNT];
	if (o)
		owned_release(lane, o);
}

/* An empty place, taken from the list of them. */
static struct owned *place_get(struct lane *lane, unsigned class)
{
	struct owned *o;

	if (lane->held > lane->held_max)
		release_one(lane, class);
	while (!(o = TAILQ_FIRST(&lane->unused)))
		release_one(lane, class);
	TAILQ_REMOVE(&lane->unused, o, link);
	return o;
}

/* Claiming */

/* heap_span(), mapping what is not mapped yet. */
static int find_span(struct lane *lane, uint64_t ref, struct span_at *ret)
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

/* Claims the span of `at` into place `o`. Fails if somebody has it, or it is no longer what `at` says. */
static bool claim(struct lane *lane, struct owned *o, const struct span_at *at)
{
	unsigned place = place_of(lane, o);
	struct span_at now;

	/* ordering: release, and the claim is a full barrier: the settler of a lane whose claim
	 * succeeded finds the entry. */
	media_store_release(&lane->df->owned[place], at->ref);
	if (!span_claim(lane->heap, at, owner_lane(lane->heap->node, lane->number, place)))
		return false;
	/* Retired and granted anew before the claim, it may be of another class now. */
	if (heap_span(lane->heap, at->ref, &now) == 0 && now.span.kind == at->span.kind &&
	    now.span.class == at->span.class && now.span.length == at->span.length)
		return true;
	span_disown(lane->heap, at);
	/* Whether it has room was judged by what it was. */
	heap_hint(lane->heap, at);
	return false;
}

/* The guesses of free_near() for the units of a span. */
static void near_set(struct lane *lane, const struct owned *o)
{
	_Static_assert(LANE_OWNED <= 256, "a place fits into a byte");


	for (uint32_t i = 0; i < o->units; i++)
		lane->near[(o->first + i) % NEAR_UNITS] = (uint8_t)place_of(lane, o);
}

/*
 * Set bits of alloc. Not span_used(), which leaves out what others have freed: those blocks cannot be
 * given before they are collected, which counts them then.
 */
static uint32_t alloc_bits(const m64 *alloc, uint32_t blocks)
{
	uint32_t n = 0;

	for (uint32_t w = 0; w < DIV_UP(blocks, 64u); w++)
		n += (uint32_t)__builtin_popcountll(media_load64(&alloc[w]));
	return n;
}

static void owned_init(struct lane *lane, struct owned *o, const struct span_at *at)
{
	o->at = *at;
	o->mask = 0;
	o->word = NULL;
	o->alloc = state_alloc(at->record);
	o->base = o->here = lane_pool(lane) | (at->ref & REF_MASK) << UNIT_SHIFT;
	o->first = o->base >> UNIT_SHIFT;
	o->class = (uint16_t)at->span.class;
	o->size = at->block_size;
	o->recip = size_classes[at->span.class].recip;
	o->units = at->span.length;
	o->blocks = at->blocks;
	o->used = alloc_bits(o->alloc, o->blocks);
	o->current = o->exhausted = false;
	lane->held += (uint64_t)o->units << UNIT_SHIFT;
	near_set(lane, o);
}

/* Adopts the unowned span `ref` of `class` if it has room; it then stands in the list of those. */
static struct owned *adopt(struct lane *lane, unsigned class, uint64_t ref)
{
	struct span_at at;
	struct owned *o;

	if (find_span(lane, ref, &at) < 0 || at.span.kind != SPAN_SMALL || at.span.class != class ||
	    span_suspect(lane->heap, &at))
		return NULL;
	o = place_get(lane, class);
	if (!claim(lane, o, &at)) {
		place_clear(lane, o);
		return NULL;
	}
	lane_open(lane, &at);
	heap_unhint(&at);
	span_collect(lane->heap, &at);
	owned_init(lane, o, &at);
	TAILQ_INSERT_HEAD(&lane->class[class].room, o, link);
	if (o->used == o->blocks) {
		owned_release(lane, o);
		return NULL;
	}
	return o;
}

/* Refilling */

/* Takes the free bits of the next word that has any, going round; whether there is one. */
static bool owned_scan(struct owned *o)
{
	uint32_t words = DIV_UP(o->blocks, 64u);
	uint32_t w = o->word ? (uint32_t)(o->word - o->alloc) : 0;

	for (uint32_t n = 0; n < words; n++, w = w + 1 >= words ? 0 : w + 1) {
		uint32_t left = o->blocks - w * 64;
		uint64_t valid = left >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << left) - 1;
		uint64_t mask = ~media_load64(&o->alloc[w]) & valid;

		if (mask == 0)
			continue;
		o->mask = mask;
		o->used += (uint32_t)__builtin_popcountll(mask);
		o->word = &o->alloc[w];
		o->here = o->base + w * 64 * o->size;
		return true;
	}
	return false;
}

/* Collects what others freed into an owned span; whether it has room now. */
static bool owned_collect(struct lane *lane, struct owned *o)
{
	o->used -= span_collect(lane->heap, &o->at);
	return o->used < o->blocks;
}

static struct owned *from_exhausted(struct lane *lane, struct class_state *c)
{
	struct owned *o;

	for (int i = 0; i < EXHAUSTED_LOOKS && (o = TAILQ_FIRST(&c->exhausted)); i++) {
		TAILQ_REMOVE(&c->exhausted, o, link);
		if (owned_collect(lane, o)) {
			o->exhausted = false;
			TAILQ_INSERT_HEAD(&c->room, o, link);
			return o;
		}
		TAILQ_INSERT_TAIL(&c->exhausted, o, link);
	}
	return NULL;
}

static struct owned *from_spares(struct lane *lane, struct class_state *c, unsigned class)
{
	struct owned *o = NULL;

	while (!o && c->spares > 0)
		o = adopt(lane, class, c->spare[--c->spares]);
	return o;
}

static struct owned *from_hints(struct lane *lane, unsigned class)
{
	for (unsigned i = 0; i < CLASS_HINTS; i++) {
		uint64_t ref = heap_hint_take(lane->heap, class);
		struct owned *o = ref ? adopt(lane, class, ref) : NULL;

		if (o || !ref)
			return o;
	}
	return NULL;
}

static int from_source(struct lane *lane, struct class_state *c, unsigned class,
		       struct owned **ret)
{
	for (int i = 0; i < CLAIM_TRIES; i++) {
		int r = lane->source->spans(lane->ctx, class, c->grown, c->spare);

		if (r < 0)
			return r;
		/* They come in the order of their places; the stack gives the lowest first. */
		for (int k = 0; k < r / 2; k++) {
			uint64_t ref = c->spare[k];

			c->spare[k] = c->spare[r - 1 - k];
			c->spare[r - 1 - k] = ref;
		}
		c->spares = (uint32_t)r;
		c->grown = MIN(c->grown * 2, SPARES_MAX);
		*ret = from_spares(lane, c, class);
		if (*ret)
			return 0;
	}
	return -ENOSPC;
}

void lane_release_empty(struct lane *lane)
{
	for (unsigned i = 0; i < LANE_OWNED; i++) {
		struct owned *o = &lane->owned[i];

		if (o->units > 0 && owned_collect(lane, o) &&
		    o->used == (uint32_t)__builtin_popcountll(o->mask))
			owned_release(lane, o);
	}
}

/* Takes a span with room from wherever one is; it is in no list then. */
static int find_room(struct lane *lane, unsigned class, struct owned **ret)
{
	struct class_state *c = &lane->class[class];
	struct owned *o;
	int r;

	(void)((o = TAILQ_FIRST(&c->room)) || (o = from_exhausted(lane, c)) ||
	       (o = from_spares(lane, c, class)) || (o = from_hints(lane, class)));
	if (!o) {
		r = from_source(lane, c, class, &o);
		if (r == -ENOSPC) {
			lane_release_empty(lane);
			r = from_source(lane, c, class, &o);
		}
		if (r < 0)
			return r;
	}
	TAILQ_REMOVE(&c->room, o, link);
	*ret = o;
	return 0;
}

/* The current span stays one of the lane's, among those without room. Counted anew: two threads that
 * race on freeing one block, against the contract, must not make a span look roomy for ever. */
static void current_exhausted(struct lane *lane, struct owned *o)
{
	o->used = alloc_bits(o->alloc, o->blocks);
	o->current = false;
	o->mask = 0;
	o->word = NULL;
	o->exhausted = true;
	TAILQ_INSERT_TAIL(&lane->class[o->class].exhausted, o, link);
	lane->current[o->class] = &lane->none;
}

int lane_refill(struct lane *lane, unsigned class)
{
	for (;;) {
		struct owned *o = lane->current[class];
		int r;

		if (o != &lane->none) {
			if ((o->used < o->blocks || owned_collect(lane, o)) && owned_scan(o))
				return 0;
			current_exhausted(lane, o);
		}
		r = find_room(lane, class, &o);
		if (r < 0)
			return r;
		o->current = true;
		lane->current[class] = o;
	}
}

void owned_freed(struct lane *lane, struct owned *o)
{
	struct class_state *c = &lane->class[o->class];
	struct owned *other;

	if (o->exhausted) {
		TAILQ_REMOVE(&c->exhausted, o, link);
		o->exhausted = false;
		TAILQ_INSERT_HEAD(&c->room, o, link);
	}
	if (o->used > 0)
		return;
	/* One empty span is kept, at the list's end; the one that has been empty longer goes. */
	other = TAILQ_LAST(&c->room, owned_list);
	if (other != o && other->used == 0)
		owned_release(lane, other);
	TAILQ_REMOVE(&c->room, o, link);
	TAILQ_INSERT_TAIL(&c->room, o, link);
}

/* Runs */

/*
 * Claims the granted run `ref` and allocates its block. -EAGAIN: somebody was there before, or the run
 * was taken back meanwhile and its head is one of another length now.
 */
static int claim_run(struct lane *lane, uint64_t ref, uint64_t units, uint64_t *ret)
{
	struct span_at at;
	struct owned *o;
	bool taken;
	m64 *word;
	int r = find_span(lane, ref, &at);

	if (r < 0 || at.span.kind != SPAN_LARGE || at.span.length != units)
		return r == -EINVAL || r == 0 ? -EAGAIN : r;
	o = place_get(lane, 0);
	taken = claim(lane, o, &at);
	if (taken) {
		heap_unhint(&at);
		span_collect(lane->heap, &at);
		word = state_alloc(at.record);
		taken = media_load64(word) == 0;
		if (taken) {
			/* COMMIT: the block is allocated; as in alloc_small().
			 *   ordering: release; as in alloc_small(). */
			media_store_release(word, 1);
			media_persist(lane->heap->durability, word, sizeof(*word));
		}
		span_disown(lane->heap, &at);
	}
	place_clear(lane, o);
	if (!taken)
		return -EAGAIN;
	*ret = lane_pool(lane) | (ref & REF_MASK) << UNIT_SHIFT;
	return 0;
}

int lane_take_run(struct lane *lane, uint64_t units, uint64_t *ret)
{
	int r = -EAGAIN;

	for (int i = 0; i < CLAIM_TRIES && r == -EAGAIN; i++) {
		uint64_t ref = 0;

		r = lane->source->run(lane->ctx, units, &ref);
		if (r == -ENOSPC && i == 0) {
			lane_release_empty(lane);
			r = lane->source->run(lane->ctx, units, &ref);
		}
		if (r == 0)
			r = claim_run(lane, ref, units, ret);
	}
	return r == -EAGAIN ? -ENOSPC : r;
}
