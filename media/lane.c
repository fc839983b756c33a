/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The allocator of one thread.
 *
 * For each class there is a current span and the word of its map whose free bits are being handed
 * out; allocating takes the lowest. Other owned spans of the class stand in one of two lists: those
 * with room, and those that were exhausted, the oldest first. When the current span is exhausted,
 * room is looked for, nearest first: owned spans with room; owned exhausted ones with remote frees to
 * collect; spans granted and not adopted yet; refs in the heap's hint array; the source (the daemon).
 *
 * What a lane holds back is bounded: LANE_OWNED spans and `held_max` bytes, beyond which exhausted
 * spans are disowned, oldest first; of each class at most one empty span is kept.
 *
 * A death at any store here leaves what lane_settle-ing needs: the owned-span entry is written before
 * the owner word and cleared after it; lane.freeing covers a remote free.
 */
#include "media/lane.h"

#include <errno.h>
#include <stdlib.h>
#include <bsd/sys/queue.h>

#include "common/macro.h"

#define SPARES_MAX 16u      /* granted spans that wait for adoption, a class */
#define CLAIM_TRIES 64      /* grants that others may snatch away before a large request gives up */
#define EXHAUSTED_LOOKS 4   /* exhausted spans that are looked at for remote frees, a refill */
#define HELD_MAX (UINT64_C(4) << 20)

/* A span that the lane owns; place i of the owned-span table. */
struct owned {
	struct span_at at;
	m64 *alloc;
	uint64_t mask;     /* free blocks of `word` that are not handed out yet */
	uint32_t word;
	uint32_t used;     /* blocks allocated; exact: the owner alone allocates and collects */
	uint64_t base;     /* global pointer of block 0 */
	bool exhausted;    /* in the list of those; else current or with room */
	TAILQ_ENTRY(owned) link;
};

TAILQ_HEAD(owned_list, owned);

struct class_state {
	struct owned *current;
	struct owned_list room;
	struct owned_list exhausted;
	uint32_t grown; /* spans that the next request to the source asks for */
	uint32_t spares;
	uint64_t spare[SPARES_MAX];
};

struct lane {
	struct heap *heap;
	struct lane_df *df;
	uint32_t number;
	const struct lane_source *source;
	void *ctx;
	uint64_t held; /* bytes of owned spans */
	uint64_t held_max;
	struct owned_list unused; /* places of the owned-span table that are empty */
	struct owned owned[LANE_OWNED];
	struct class_state class[CLASS_COUNT];
};

/* Lifecycle */

int lane_new(struct lane **ret, struct heap *heap, uint32_t number,
	     const struct lane_source *source, void *ctx)
{
	struct lane *lane = calloc(1, sizeof(*lane));

	if (!lane)
		return -ENOMEM;
	lane->heap = heap;
	lane->df = &heap->lanes->lane[number];
	lane->number = number;
	lane->source = source;
	lane->ctx = ctx;
	lane->held_max = MIN(HELD_MAX, heap->bytes / 64);
	TAILQ_INIT(&lane->unused);
	for (unsigned i = 0; i < LANE_OWNED; i++)
		TAILQ_INSERT_TAIL(&lane->unused, &lane->owned[i], link);
	for (unsigned c = 0; c < CLASS_COUNT; c++) {
		TAILQ_INIT(&lane->class[c].room);
		TAILQ_INIT(&lane->class[c].exhausted);
		lane->class[c].grown = 1;
	}
	*ret = lane;
	return 0;
}

uint32_t lane_number(const struct lane *lane)
{
	return lane->number;
}

void lane_forget(struct lane *lane)
{
	free(lane);
}

static unsigned place_of(const struct lane *lane, const struct owned *o)
{
	return (unsigned)(o - lane->owned);
}

static struct class_state *class_of_owned(struct lane *lane, const struct owned *o)
{
	return &lane->class[o->at.span.class];
}

static void owned_unlink(struct lane *lane, struct owned *o)
{
	struct class_state *c = class_of_owned(lane, o);

	if (c->current == o)
		c->current = NULL;
	else if (o->exhausted)
		TAILQ_REMOVE(&c->exhausted, o, link);
	else
		TAILQ_REMOVE(&c->room, o, link);
}

/* Gives a place of the owned-span table back; the span is disowned already, or was never claimed. */
static void place_clear(struct lane *lane, struct owned *o)
{
	/* ordering: release; the settler that reads the entry as empty need not look at the span:
	 * it was disowned and hinted before. */
	media_store_release(&lane->df->owned[place_of(lane, o)], 0);
	TAILQ_INSERT_HEAD(&lane->unused, o, link);
}

/* Gives a span up. */
static void owned_release(struct lane *lane, struct owned *o)
{
	owned_unlink(lane, o);
	lane->held -= (uint64_t)o->at.span.length << UNIT_SHIFT;
	span_disown(lane->heap, &o->at);
	place_clear(lane, o);
}

static void class_release(struct lane *lane, struct class_state *c)
{
	struct owned *o;

	while ((o = TAILQ_FIRST(&c->room)) || (o = TAILQ_FIRST(&c->exhausted)) ||
	       (o = c->current))
		owned_release(lane, o);
}

void lane_free(struct lane *lane)
{
	if (!lane)
		return;
	for (unsigned c = 0; c < CLASS_COUNT; c++)
		class_release(lane, &lane->class[c]);
	free(lane);
}

/* Owning */

/* Makes the lane hold less: gives up the span that it is least likely to use. */
static bool release_one(struct lane *lane, unsigned class)
{
	/* Its own class last: those spans are the likeliest to have room again. */
	for (unsigned i = 1; i <= CLASS_COUNT; i++) {
		struct class_state *c = &lane->class[(class + i) % CLASS_COUNT];
		struct owned *o = TAILQ_FIRST(&c->exhausted);

		if (!o)
			o = TAILQ_LAST(&c->room, owned_list);
		if (o) {
			owned_release(lane, o);
			return true;
		}
	}
	for (unsigned i = 1; i <= CLASS_COUNT; i++) {
		struct class_state *c = &lane->class[(class + i) % CLASS_COUNT];

		if (c->current) {
			owned_release(lane, c->current);
			return true;
		}
	}
	return false;
}

/* An empty place of the owned-span table, taken from the list. */
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

/*
 * Claims the span of `at` into place `o`, which is lost to the list until place_clear(). Fails if
 * somebody else has it, or if it is no longer what `at` says.
 */
static bool claim(struct lane *lane, struct owned *o, const struct span_at *at)
{
	unsigned place = place_of(lane, o);
	struct span_at now;

	/* ordering: release, and the claim is a full barrier: the settler of a lane whose claim
	 * succeeded finds the entry. */
	media_store_release(&lane->df->owned[place], at->ref);
	if (span_claim(lane->heap, at, owner_lane(lane->heap->node, lane->number, place))) {
		/* Retired and granted anew before the claim, it may be another's class now. */
		if (heap_span(lane->heap, at->ref, &now) == 0 &&
		    now.span.kind == at->span.kind && now.span.class == at->span.class &&
		    now.span.length == at->span.length)
			return true;
		span_disown(lane->heap, at);
	}
	return false;
}

static void owned_init(struct lane *lane, struct owned *o, const struct span_at *at)
{
	o->at = *at;
	o->alloc = state_alloc(at->record);
	o->mask = 0;
	o->word = 0;
	o->exhausted = false;
	o->base = (uint64_t)lane->heap->pool << 48 | (at->ref & REF_MASK) << UNIT_SHIFT;
	o->used = span_used(lane->heap, at);
	lane->held += (uint64_t)at->span.length << UNIT_SHIFT;
}

/* Adopts the unowned span `ref` of `class` if it has room; it then stands in the room list. */
static struct owned *adopt(struct lane *lane, unsigned class, uint64_t ref)
{
	struct span_at at;
	struct owned *o;

	if (find_span(lane, ref, &at) < 0 || at.span.kind != SPAN_SMALL || at.span.class != class)
		return NULL;
	o = place_get(lane, class);
	if (!claim(lane, o, &at)) {
		place_clear(lane, o);
		return NULL;
	}
	heap_unhint(&at);
	span_collect(lane->heap, &at);
	owned_init(lane, o, &at);
	TAILQ_INSERT_HEAD(&lane->class[class].room, o, link);
	if (o->used == at.blocks) {
		owned_release(lane, o);
		return NULL;
	}
	return o;
}

/* Refilling */

/* Finds a word with free bits; whether there is one. */
static bool owned_scan(struct owned *o)
{
	uint32_t words = DIV_UP(o->at.blocks, 64u);

	for (uint32_t n = 0, w = o->word; n <= words; n++, w = w + 1 == words ? 0 : w + 1) {
		uint32_t left = o->at.blocks - w * 64;
		uint64_t valid = left >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << left) - 1;
		uint64_t mask = ~media_load64(&o->alloc[w]) & valid;

		if (mask) {
			o->word = w;
			o->mask = mask;
			return true;
		}
	}
	return false;
}

/* Collects what others freed into an owned span; whether it has room now. */
static bool owned_collect(struct lane *lane, struct owned *o)
{
	o->used -= span_collect(lane->heap, &o->at);
	return o->used < o->at.blocks;
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
		c->spares = (uint32_t)r;
		c->grown = MIN(c->grown * 2, SPARES_MAX);
		*ret = from_spares(lane, c, class);
		if (*ret)
			return 0;
	}
	return -ENOSPC;
}

/* Gives up what is empty or has been freed into from outside, so that the daemon can retire it. */
static void release_idle(struct lane *lane)
{
	for (unsigned i = 0; i < LANE_OWNED; i++) {
		struct owned *o = &lane->owned[i];

		if (media_load64(&lane->df->owned[i]) == 0)
			continue;
		if (!owned_collect(lane, o) || o->used > 0)
			continue;
		owned_release(lane, o);
	}
}

static int refill(struct lane *lane, unsigned class, struct owned **ret)
{
	struct class_state *c = &lane->class[class];
	struct owned *o;
	int r = 0;

	(void)((o = TAILQ_FIRST(&c->room)) || (o = from_exhausted(lane, c)) ||
	       (o = from_spares(lane, c, class)) || (o = from_hints(lane, class)));
	if (!o) {
		r = from_source(lane, c, class, &o);
		if (r == -ENOSPC) {
			release_idle(lane);
			r = from_source(lane, c, class, &o);
		}
		if (r < 0)
			return r;
	}
	TAILQ_REMOVE(&c->room, o, link);
	*ret = o;
	return 0;
}

/* The current span has no bit left in its word: the next word, or another span. */
static int current_refill(struct lane *lane, unsigned class)
{
	struct class_state *c = &lane->class[class];

	for (;;) {
		struct owned *o = c->current;
		int r;

		if (o && (o->used < o->at.blocks || owned_collect(lane, o)) && owned_scan(o))
			return 0;
		if (o) {
			o->exhausted = true;
			o->mask = 0;
			TAILQ_INSERT_TAIL(&c->exhausted, o, link);
			c->current = NULL;
		}
		r = refill(lane, class, &o);
		if (r < 0)
			return r;
		c->current = o;
	}
}

/* Allocation */

static int alloc_small(struct lane *lane, unsigned class, uint64_t *ret)
{
	struct class_state *c = &lane->class[class];
	struct owned *o = c->current;
	unsigned bit;
	m64 *word;

	if (_unlikely(!o || o->mask == 0)) {
		int r = current_refill(lane, class);

		if (r < 0)
			return r;
		o = c->current;
	}
	bit = (unsigned)__builtin_ctzll(o->mask);
	o->mask &= o->mask - 1;
	o->used++;
	word = &o->alloc[o->word];
	/*
	 * COMMIT: the block is allocated. The owner is the word's only writer.
	 *   crash before: it is free.
	 *   crash after:  it is allocated; if the caller had not kept the pointer, nothing reaches it.
	 *   ordering:     release; pairs with the acquire of who adopts the span, and with whoever
	 *                 got the pointer from the caller.
	 *   durable:      drained before the caller has the pointer.
	 */
	media_store_release(word, media_load64(word) | UINT64_C(1) << bit);
	media_persist(lane->heap->durability, word, sizeof(*word));
	*ret = o->base + (o->word * 64 + bit) * o->at.block_size;
	return 0;
}

/* Takes the granted run `ref` and allocates its block. */
static int take_run(struct lane *lane, uint64_t ref, uint64_t *ret)
{
	struct span_at at;
	struct owned *o;
	bool taken;
	m64 *word;
	int r = find_span(lane, ref, &at);

	if (r < 0 || at.span.kind != SPAN_LARGE)
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
	*ret = (uint64_t)lane->heap->pool << 48 | (ref & REF_MASK) << UNIT_SHIFT;
	return 0;
}

static int alloc_large(struct lane *lane, size_t size, uint64_t *ret)
{
	uint64_t units = DIV_UP((uint64_t)size, UNIT_SIZE);
	int r = -EAGAIN;

	for (int i = 0; i < CLAIM_TRIES && r == -EAGAIN; i++) {
		uint64_t ref;

		r = lane->source->run(lane->ctx, units, &ref);
		if (r == -ENOSPC && i == 0) {
			release_idle(lane);
			r = lane->source->run(lane->ctx, units, &ref);
		}
		if (r == 0)
			r = take_run(lane, ref, ret);
	}
	return r == -EAGAIN ? -ENOSPC : r;
}

/*
 * Marks that the thread is inside. A signal handler that finds the mark is told -EDEADLK.
 * ordering: relaxed and a compiler barrier; handler and thread are one thread.
 */
static bool lane_enter(struct lane *lane)
{
	if (_unlikely(media_load64(&lane->df->busy) != 0))
		return false;
	media_store64(&lane->df->busy, 1);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	return true;
}

static void lane_leave(struct lane *lane)
{
	/* ordering: release; who finds the mark gone sees all that was done under it. */
	media_store_release(&lane->df->busy, 0);
}

int lane_alloc(struct lane *lane, size_t size, uint64_t *ret)
{
	int r;

	if (size == 0 || size > SHELF_SIZE_MAX)
		return -EINVAL;
	if (!lane_enter(lane))
		return -EDEADLK;
	if (_likely(size <= CLASS_SIZE_MAX))
		r = alloc_small(lane, MAX(class_of(size), lane->heap->first_class), ret);
	else
		r = alloc_large(lane, size, ret);
	lane_leave(lane);
	return r;
}

/* Freeing */

/* An owned span has a block more: it may have been exhausted, it may be empty now. */
static void owned_freed(struct lane *lane, struct owned *o)
{
	struct class_state *c = class_of_owned(lane, o);
	struct owned *other;

	if (o->exhausted) {
		TAILQ_REMOVE(&c->exhausted, o, link);
		o->exhausted = false;
		TAILQ_INSERT_HEAD(&c->room, o, link);
	}
	if (_likely(o->used > 0) || c->current == o)
		return;
	/* One empty span is kept; the one that has been empty for longer is given up. */
	other = TAILQ_LAST(&c->room, owned_list);
	if (other != o && other->used == 0)
		owned_release(lane, other);
	TAILQ_REMOVE(&c->room, o, link);
	TAILQ_INSERT_TAIL(&c->room, o, link);
}

static int free_owned(struct lane *lane, struct owned *o, uint32_t index)
{
	uint32_t w = index / 64;
	uint64_t bit = UINT64_C(1) << (index % 64);
	m64 *word = &o->alloc[w];
	uint64_t bits = media_load64(word);

	if (!(bits & bit) || (media_load64(&state_remote(&lane->heap->layout, o->at.record)[w]) & bit) ||
	    (media_load64(&state_limbo(&lane->heap->layout, o->at.record)[w]) & bit))
		return -EALREADY;
	/*
	 * COMMIT: the block is free. The owner is the word's only writer.
	 *   crash before: it is allocated.
	 *   crash after:  it is free.
	 *   ordering:     release; the caller's last use of the block comes before.
	 *   durable:      drained before the block can be given again.
	 */
	media_store_release(word, bits & ~bit);
	media_persist(lane->heap->durability, word, sizeof(*word));
	o->used--;
	if (w == o->word && class_of_owned(lane, o)->current == o)
		o->mask |= bit;
	if (_unlikely(o->exhausted || o->used == 0))
		owned_freed(lane, o);
	return 0;
}

static int free_foreign(struct lane *lane, const struct span_at *at, uint32_t index)
{
	int r;

	/* ordering: release, and the OR is a full barrier: the settler of a lane whose OR was done
	 * finds the span here and sets its hint. */
	media_store_release(&lane->df->freeing, at->ref);
	r = span_free_remote(lane->heap, at, index);
	/* ordering: release; the hint was set before. */
	media_store_release(&lane->df->freeing, 0);
	return r;
}

static int free_block(struct lane *lane, uint64_t ptr)
{
	struct heap *heap = lane->heap;
	struct span_at at;
	uint64_t owner;
	uint32_t index;
	int r = heap_block(heap, ptr, &at, &index);

	if (r == -ENXIO) {
		r = lane->source->resolve(lane->ctx, ref_of_ptr(ptr));
		if (r == 0)
			r = heap_block(heap, ptr, &at, &index);
	}
	if (r < 0)
		return r == -ENXIO ? -EINVAL : r;
	owner = media_load64(&state_tail(&heap->layout, at.record)->owner);
	if ((owner & OWNER_WHO_MASK) == owner_lane(heap->node, lane->number, 0)) {
		struct owned *o = &lane->owned[owner_place(owner)];

		if (_likely(media_load64(&lane->df->owned[owner_place(owner)]) == at.ref))
			return free_owned(lane, o, index);
	}
	return free_foreign(lane, &at, index);
}

int lane_dealloc(struct lane *lane, uint64_t ptr)
{
	int r;

	if (ptr >> 48 != lane->heap->pool)
		return -EINVAL;
	if (!lane_enter(lane))
		return -EDEADLK;
	r = free_block(lane, ptr);
	lane_leave(lane);
	return r;
}
