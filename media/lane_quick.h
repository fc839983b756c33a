/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The fast paths, for whoever wants them inline: they touch the lane and one word of the shelf, call
 * nothing, and leave all that is not ordinary to lane_alloc_more() and lane_free_more().
 *
 * A pair of calls on one block is a chain: the word that is freed into is the next that is allocated
 * from. Two things keep the chain short. The free bits are those of the word itself, so there is one
 * store a call. And the block allocated last is remembered with its bit: freeing that one takes
 * neither the pointer nor the multiplications that led to it into the chain.
 *
 * A block that is freed when the current word is full makes its word the current one: it is given
 * next, while it is in the cache, and a program whose spans are nearly full does not search them at
 * every allocation.
 */
#pragma once

#include "media/lane_private.h"

/* As lane_alloc() and lane_dealloc(), for those who have tried what is quick. */
uint64_t lane_alloc_more(struct lane *lane, size_t size);
int lane_free_more(struct lane *lane, uint64_t ptr);

/* Frees a block of a class whose current word is full: stores `bits` to its word, which is the current one
 * then. Leaves. 0. */
int lane_free_here(struct lane *lane, struct owned *o, m64 *word, uint64_t bits);

static inline struct current *lane_current(struct lane *lane, size_t size)
{
	_Static_assert(sizeof(struct current) * CLASS_COUNT <= UINT16_MAX, "lane.quick");

	if (_likely(size <= QUICK_SIZE))
		return (struct current *)(void *)((char *)lane->current + lane->quick[(size + 7) / 8]);
	return &lane->current[class_of(size)];
}

/* Allocates the lowest of `bits`, the free blocks of the current word, which reads `word`. */
static inline uint64_t current_take(struct lane *lane, struct current *c, uint64_t word, uint64_t bits)
{
	uint64_t bit = bits & -bits, ptr = current_block(c, bit);

	/*
	 * COMMIT: the block is allocated. The owner is the word's only writer.
	 *   crash before: it is free.
	 *   crash after:  it is allocated; if the caller had not kept the pointer, nothing reaches it.
	 *   ordering:     release; pairs with the acquire of who adopts the span, and with whoever
	 *                 got the pointer from the caller.
	 *   durable:      the span is open (media/mark.h).
	 */
	media_store_release(c->word, word | bit);
	lane->last = c;
	lane->last_bit = bit;
	lane->last_ptr = ptr;
	return ptr;
}

/* False: lane_alloc_more() is to be called. */
static inline bool lane_alloc_quick(struct lane *lane, size_t size, uint64_t *ret)
{
	struct lane_df *df = lane->df;
	uint64_t word, bits;
	struct current *c;

	if (_unlikely(size - 1 >= CLASS_SIZE_MAX || media_load64(&df->busy) != 0))
		return false;
	media_store64(&df->busy, 1);
	/* ordering: the compiler's; as in lane_enter(). */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	c = lane_current(lane, size);
	word = media_load64(c->word);
	bits = current_free(c, word);
	if (_unlikely(bits == 0 || media_load64(&df->revoke) != lane->quiet)) {
		/* ordering: release; as in lane_leave(). */
		media_store_release(&df->busy, 0);
		return false;
	}
	*ret = current_take(lane, c, word, bits);
	/* ordering: release; as in lane_leave(). */
	media_store_release(&df->busy, 0);
	return true;
}

/* Does what a fast path leaves over; its last step. */
typedef int (*lane_rest)(void *ctx, struct lane *lane, uint64_t ptr);

/* The lane is entered, the block of no span that it is known to own: frees it if its unit is remembered, and
 * leaves. */
int lane_free_other(struct lane *lane, uint64_t ptr, lane_rest rest, void *ctx);

static inline int free_refused(struct lane *lane, uint64_t ptr, lane_rest rest, void *ctx)
{
	/* ordering: release; as in lane_leave(). */
	media_store_release(&lane->df->busy, 0);
	return rest(ctx, lane, ptr);
}

static inline int free_store(struct lane *lane, const struct place *p)
{
	place_store(p->word, p->bits ^ p->bit);
	/* ordering: release; as in lane_leave(). */
	media_store_release(&lane->df->busy, 0);
	return 0;
}

/* The lane is entered. Frees any block of an owned span, and leaves. */
static inline int free_owned_quick(struct lane *lane, uint64_t ptr, lane_rest rest, void *ctx)
{
	unsigned place = lane->near[(ptr >> UNIT_SHIFT) % NEAR_UNITS];
	struct owned *o = &lane->owned[place];
	struct current *c;
	struct place p;

	if (ptr - o->base >= o->bytes)
		return lane_free_other(lane, ptr, rest, ctx);
	if (_unlikely(!find_place(o, ptr, &p) || !place_allocated(lane, &p)))
		return free_refused(lane, ptr, rest, ctx);
	c = o->current;
	if (p.word == c->word)
		return free_store(lane, &p);
	/* The span may be empty now. */
	if (_unlikely(p.bits == p.bit))
		return free_refused(lane, ptr, rest, ctx);
	c->room[place] = 1;
	if (current_free(c, media_load64(c->word)) == 0)
		return lane_free_here(lane, o, p.word, p.bits ^ p.bit);
	return free_store(lane, &p);
}

/* Frees a block; what is not ordinary is left to `rest`, which is to call lane_free_more(). All calls are
 * the last step, so that the fast path needs no stack. */
static inline int lane_free_quick(struct lane *lane, uint64_t ptr, lane_rest rest, void *ctx)
{
	struct lane_df *df = lane->df;
	struct place p;

	if (_unlikely(media_load64(&df->busy) != 0))
		return rest(ctx, lane, ptr);
	media_store64(&df->busy, 1);
	/* ordering: the compiler's; as in lane_enter(). */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (_unlikely(media_load64(&df->revoke) != lane->quiet))
		return free_refused(lane, ptr, rest, ctx);
	if (ptr != lane->last_ptr)
		return free_owned_quick(lane, ptr, rest, ctx);
	p.word = lane->last->word;
	p.bit = lane->last_bit;
	if (_unlikely(!place_allocated(lane, &p)))
		return free_refused(lane, ptr, rest, ctx);
	return free_store(lane, &p);
}
