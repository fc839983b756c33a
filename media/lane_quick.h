/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The fast paths, for whoever wants them inline: they touch the lane and one word of the shelf, call
 * nothing, and leave all that is not ordinary to lane_alloc_more() and lane_free_more().
 *
 * The blocks of a class that were freed last are given first, from a stack that has their words and bits:
 * where frees and allocations alternate at random, neither how full a word is nor where the holes are decides a
 * branch. And a pair of calls on one block, where the word that is freed into is the next that is allocated
 * from, is a short chain: the free bits are those of the word itself, so there is one store a call, and what is
 * stored does not wait for the pointer's way to its word.
 */
#pragma once

#include "media/lane_private.h"
#include "media/limbo.h"

/* As lane_alloc(), lane_dealloc() and lane_defer(), for those who have tried what is quick. */
uint64_t lane_alloc_more(struct lane *lane, size_t size);
int lane_free_more(struct lane *lane, uint64_t ptr);
int lane_defer_more(struct lane *lane, uint64_t ptr, bool *wake, uint64_t *watch);

static inline struct current *lane_current(struct lane *lane, size_t size)
{
	if (_likely(size <= QUICK_SIZE))
		return lane->quick[(size + 7) / 8];
	return &lane->current[size <= CLASS_SIZE_MAX ? class_of(size) : CLASS_COUNT];
}

/* 0: the thread is in the lane, and nobody wants anything of it. Else the fast paths are not for it. */
static inline uint64_t quick_enter(const struct lane *lane, struct lane_df *df, uint64_t *was)
{
	*was = media_load64(&df->busy);
	media_store64(&df->busy, 1);
	/* ordering: the compiler's; as in lane_enter(). */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	return *was | (media_load64(&df->revoke) ^ lane->quiet);
}

/* `was`: what `busy` was, if the thread could not enter: then it may have been inside before. */
static inline void quick_leave(struct lane_df *df, uint64_t was)
{
	/* ordering: release; as in lane_leave(). */
	media_store_release(&df->busy, was);
}

static inline struct recent *recent_at(struct current *c, uint64_t top)
{
	return (struct recent *)(void *)((char *)c->recent + top);
}

/* Sets the alloc bit of a free block: stores its word with it. */
static inline void place_take(m64 *word, uint64_t bits)
{
	/*
	 * COMMIT: the block is allocated. The owner is the word's only writer.
	 *   crash before: it is free.
	 *   crash after:  it is allocated; if the caller had not kept the pointer, nothing reaches it.
	 *   ordering:     release; pairs with the acquire of who adopts the span, and with whoever
	 *                 got the pointer from the caller.
	 *   durable:      the span is open (media/mark.h).
	 */
	media_store_release(word, bits);
}

/* The block freed last; there is one. 0: it was given in other ways since. */
static inline uint64_t recent_take(struct current *c)
{
	uint64_t top = c->top - sizeof(struct recent);
	const struct recent *r = recent_at(c, top);
	uint64_t word = media_load64(r->word), bits = word | r->bit;

	c->top = top;
	if (_unlikely(bits == word))
		return 0;
	place_take(r->word, bits);
	if (r->ptr == 0)
		__builtin_unreachable();
	return r->ptr;
}

/* The lowest free block of the current word. 0: it is full. The valid bits are the low ones, so the lowest clear bit
 * is one of them, or none of them is clear. */
static inline uint64_t current_take(struct current *c)
{
	uint64_t word = media_load64(c->word), taken = word | (word + 1), bit = taken ^ word;

	if (_unlikely((bit & c->valid) == 0))
		return 0;
	place_take(c->word, taken);
	return c->here + (uint64_t)__builtin_ctzll(bit) * c->size;
}

/* 0: lane_alloc_more() is to be called. */
static inline uint64_t lane_alloc_quick(struct lane *lane, size_t size)
{
	struct current *c = lane_current(lane, size);
	struct lane_df *df = lane->df;
	uint64_t ptr, was;

	if (_unlikely(quick_enter(lane, df, &was))) {
		quick_leave(df, was);
		return 0;
	}
	ptr = c->top != 0 ? recent_take(c) : current_take(c);
	quick_leave(df, 0);
	return ptr;
}

/* Does what a fast path leaves over; its last step. */
typedef int (*lane_rest)(struct lane *lane, uint64_t ptr);

/* The lane is entered, the block of no span that it is known to own: frees it if its unit is remembered, and
 * leaves. */
int lane_free_other(struct lane *lane, uint64_t ptr, lane_rest rest);

static inline int free_refused(struct lane *lane, uint64_t ptr, lane_rest rest)
{
	quick_leave(lane->df, 0);
	return rest(lane, ptr);
}

/* Remembers a block that is freed now. */
static inline void recent_put(const struct owned *o, uint64_t ptr, const struct place *p)
{
	struct current *c = o->current;
	uint64_t top = c->top;
	struct recent *r = recent_at(c, top);

	*o->room = 1;
	if (top == sizeof(c->recent))
		return;
	r->ptr = ptr;
	r->word = p->word;
	r->bit = p->bit;
	c->top = top + sizeof(*r);
}

/* Frees a block; what is not ordinary is left to `rest`, which is to call lane_free_more(). All calls are the
 * last step, and their arguments are in the same order, so that the fast path needs no stack. */
static inline int lane_free_quick(struct lane *lane, uint64_t ptr, lane_rest rest)
{
	const struct owned *o = owned_near(lane, ptr);
	struct lane_df *df = lane->df;
	struct place p;
	uint64_t was;

	if (_unlikely(quick_enter(lane, df, &was))) {
		quick_leave(df, was);
		return rest(lane, ptr);
	}
	if (ptr - o->base >= o->bytes)
		return lane_free_other(lane, ptr, rest);
	if (_unlikely(!find_place(o, ptr, &p) || !place_allocated(lane, &p)))
		return free_refused(lane, ptr, rest);
	/* The span may be empty now. */
	if (_unlikely(p.bits == p.bit && p.word != o->current->word))
		return free_refused(lane, ptr, rest);
	recent_put(o, ptr, &p);
	place_store(p.word, p.bits ^ p.bit);
	quick_leave(df, 0);
	return 0;
}

/*
 * Frees a block of an owned span with delay. False: nothing was done, lane_defer_more() is to be called. True:
 * it is done; *watch: what the watch word was after it; unless limbo_watched(), the lane is still entered, and
 * the caller wakes the daemon, then calls limbo_woken() and lane_deferred().
 */
static inline bool lane_defer_quick(struct lane *lane, uint64_t ptr, uint64_t *watch)
{
	const struct owned *o = owned_near(lane, ptr);
	struct lane_df *df = lane->df;
	struct place p;
	uint64_t was;

	if (_unlikely(quick_enter(lane, df, &was))) {
		quick_leave(df, was);
		return false;
	}
	if (_unlikely(ptr - o->base >= o->bytes || !find_place(o, ptr, &p) || !place_allocated(lane, &p))) {
		quick_leave(df, 0);
		return false;
	}
	/*
	 * COMMIT: the block is freed with delay.
	 *   crash before: it is allocated, as it was.
	 *   crash after:  the span stands in the lane's table, so its settler sets the limbo hint.
	 *   ordering:     full barrier; as in span_defer(). Nobody but the owner clears the alloc bit or the
	 *                 limbo bit. It was clear when it was looked at: if another thread has freed the
	 *                 block so since, one of the two frees is in vain and not told so.
	 *   durable:      the span is open (media/mark.h).
	 */
	media_or((m64 *)(void *)((char *)p.word + lane->limbo), p.bit);
	limbo_hint(o->at.shelf, ref_unit(o->at.ref));
	*watch = limbo_watch_word(lane->heap);
	if (_likely(limbo_watched(*watch)))
		quick_leave(df, 0);
	return true;
}
