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

static inline unsigned lane_class(const struct lane *lane, size_t size)
{
	return size <= QUICK_SIZE ? lane->quick[(size + 7) / 8] : class_of(size);
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

/* The block, or 0: lane_alloc_more() is to be called. */
static inline uint64_t lane_alloc_quick(struct lane *lane, size_t size)
{
	struct lane_df *df = lane->df;
	uint64_t word, bits, ptr = 0;
	struct current *c;

	if (_unlikely(size - 1 >= CLASS_SIZE_MAX || media_load64(&df->busy) != 0))
		return 0;
	media_store64(&df->busy, 1);
	/* ordering: the compiler's; as in lane_enter(). */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	c = &lane->current[lane_class(lane, size)];
	word = media_load64(c->word);
	bits = current_free(c, word);
	if (_likely(bits != 0 && media_load64(&df->revoke) == lane->quiet))
		ptr = current_take(lane, c, word, bits);
	/* ordering: release; as in lane_leave(). */
	media_store_release(&df->busy, 0);
	return ptr;
}

/* A block was freed elsewhere than in its class's current word; false: the span may be empty now. */
static inline bool freed_elsewhere(struct lane *lane, struct owned *o, const struct place *p)
{
	struct current *c = o->current;

	if (_unlikely(p->bits == p->bit))
		return false;
	place_set(c->room, place_of(lane, o));
	if (current_free(c, media_load64(c->word)) == 0)
		current_set(lane, o, p->word);
	return true;
}

/* The lane is entered. Whether the block is an owned span's and was freed. */
static inline bool free_quick(struct lane *lane, uint64_t ptr)
{
	struct owned *o;
	struct place p;

	if (_unlikely(media_load64(&lane->df->revoke) != lane->quiet))
		return false;
	if (ptr == lane->last_ptr) {
		p.word = lane->last->word;
		p.bit = lane->last_bit;
		if (_unlikely(!place_allocated(lane, &p)))
			return false;
	} else {
		o = &lane->owned[lane->near[(ptr >> UNIT_SHIFT) % NEAR_UNITS]];
		if (_unlikely(!find_place(o, ptr, &p) || !place_allocated(lane, &p)))
			return false;
		if (p.word != o->current->word && !freed_elsewhere(lane, o, &p))
			return false;
	}
	place_free(&p);
	return true;
}

/* False: lane_free_more() is to be called. */
static inline bool lane_free_quick(struct lane *lane, uint64_t ptr)
{
	struct lane_df *df = lane->df;
	bool done;

	if (_unlikely(media_load64(&df->busy) != 0))
		return false;
	media_store64(&df->busy, 1);
	/* ordering: the compiler's; as in lane_enter(). */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	done = free_quick(lane, ptr);
	/* ordering: release; as in lane_leave(). */
	media_store_release(&df->busy, 0);
	return done;
}
