/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Limbo: blocks that are freed with delay, from the freer's bit to the daemon's.
 *
 *   field                 writer                                       readers
 *   limbo bit             anybody sets; span_collect() clears          all
 *   limbo hint of a span  anybody sets; the daemon clears, before it   the daemon
 *                         reads the span's limbo bits
 *   lanes_file_df.watch   odd while the daemon looks at the heap: it   all
 *                         alone makes it even; who woke it, odd
 *
 * Blocks go free -> allocated -> limbo (lane_defer) -> in a snapshot (limbo_snapshot) -> remote
 * (limbo_release, when the snapshot is ripe) -> free (span_collect by whoever owns the span). A
 * snapshot is the daemon's memory alone: if it is lost, loading the heap finds the bits again.
 */
#pragma once

#include "media/heap.h"
#include "media/lane.h"

/* Freers */

/*
 * Frees a block with delay. *wake: the daemon does not look at this heap: wake it, then call
 * limbo_woken() with *watch. -EINVAL: not a block's start; -EALREADY: free, or freed so before;
 * -EDEADLK: a signal handler interrupted the allocator; source's.
 */
int lane_defer(struct lane *lane, uint64_t ptr, bool *wake, uint64_t *watch);
/* What lane_defer() began is done: before the thread uses the lane otherwise. */
void lane_deferred(struct lane *lane);
/* The daemon was woken when the watch word was `watch`: others need not do it again. */
void limbo_woken(struct heap *heap, uint64_t watch);

/* Sets the limbo hint of the span whose head is this unit. */
static inline void limbo_hint(const struct heap_shelf *shelf, uint32_t unit)
{
	m64 *word = shelf->limbo_hints + unit / 64;
	uint64_t bit = UINT64_C(1) << (unit % 64);

	/* ordering: acquire, so that the watch word is read after it; what the caller did before was
	 * a full barrier. Pairs with take_hints() in limbo.c. */
	if ((media_load_acquire(word) & bit) == 0)
		media_or(word, bit);
}

/* What a freer finds in the watch word, after its hint. */
static inline uint64_t limbo_watch_word(const struct heap *heap)
{
	/* ordering: acquire; after the hint, see limbo_unwatch(). */
	return media_load_acquire(&heap->lanes->watch);
}

/* Whether the daemon looks at the heap, so that it need not be woken. */
static inline bool limbo_watched(uint64_t watch)
{
	return watch & 1;
}

/* Sets the limbo bit of block `index`, then the span's limbo hint. -EALREADY. */
int span_defer(struct heap *heap, const struct span_at *at, uint32_t index);
/* Makes the limbo bit of block `index` durable, for what is to be exact after a power cut. */
void span_limbo_persist(struct heap *heap, const struct span_at *at, uint32_t index);
/* Sets the span's limbo hint if it has blocks in limbo. */
void span_limbo_hint(struct heap *heap, const struct span_at *at);
/* Makes all limbo blocks of the span remote: nobody can see one. The caller hints the span. */
void span_limbo_free(struct heap *heap, const struct span_at *at);

/* The daemon */

struct limbo;

/* For a heap, borrowed. -ENOMEM. */
int limbo_new(struct limbo **ret, struct heap *heap);
void limbo_free(struct limbo *limbo);

/*
 * Goes on with taking a snapshot (a new one if the last was released), looking at `budget` spans at
 * most. 1: it is not whole yet; 0: it is; -EIO; -ENOMEM: what was not noted is hinted again. What
 * it holds is limbo_blocks(); it may be nothing.
 */
int limbo_snapshot(struct limbo *limbo, uint32_t budget);
/* Goes on with freeing what is in the snapshot, `budget` words at most. 1: there is more; 0; -EIO. */
int limbo_release(struct limbo *limbo, uint32_t budget);

uint64_t limbo_blocks(const struct limbo *limbo); /* in the snapshot */
uint64_t limbo_bytes(const struct limbo *limbo);
uint64_t limbo_freed(const struct limbo *limbo); /* blocks, ever */

struct limbo_tally {
	uint64_t blocks;
	uint64_t bytes;
};
/*
 * Counts what is in limbo, in the snapshot and not: beside running frees a near figure. Looks at
 * *budget spans beside the snapshot at most, and takes them off. 1: there are more; 0; -EIO.
 */
int limbo_count(struct limbo *limbo, uint32_t *budget, struct limbo_tally *ret);

/* Says that the daemon looks at the heap: freers need not wake it. -EIO. */
int limbo_watch(struct limbo *limbo);
/* The daemon is about to look away. 1: there is limbo, and it goes on watching; 0; -EIO. */
int limbo_unwatch(struct limbo *limbo);
