/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reserved blocks: allocated, and free again if the process dies before they are committed.
 *
 *   field                 writer                                          readers
 *   lane_df.reserved[i]   0 -> block: the lane's thread; block -> 0: the   all
 *                         thread that commits or cancels it; its settler
 *   struct reservations   the process's threads, under a stripe's lock    its threads
 *
 * The entry is written before the block's alloc bit is set; so an allocated block that nobody keeps yet is
 * found by whoever settles the lane. Any thread of the process may commit (media/publish.h) or cancel a
 * reservation of any other: where its entry stands is found in `struct reservations`. An entry belongs to the
 * lane, not to the thread: it stays when the thread ends and the lane waits for another.
 */
#pragma once

#include "media/heap.h"
#include "media/lane.h"

/* What one process has reserved in one heap. */
struct reservations;

struct reservation;

/* -ENOMEM. */
int reservations_new(struct reservations **ret);
/* Forgets them; what they are on media is the settler's. */
void reservations_free(struct reservations *res);

/* What each reservation adds to the word below; tags are less. 2^28 are more than all lanes of a heap can have. */
#define RESERVATION (UINT64_C(1) << 36)

/* Before anything is reserved. */
void reservations_set_tag(struct reservations *res, uint64_t tag);
/* A word, atomic, that reads `tag` while nothing is reserved: then no block need be looked up before it is freed,
 * which the fast path learns by comparing what it compares anyway. */
const uint64_t *reservations_word(const struct reservations *res);

/*
 * Whether the block is reserved: it must not be freed. A thread that may be interrupted by a signal handler
 * calls it, like all below, inside of the lane.
 */
bool reservations_have(struct reservations *res, uint64_t ptr);

/* Takes a reservation for committing or cancelling. -EINVAL: there is none of this block; -EBUSY: another
 * thread has taken it. */
int reservation_take(struct reservations *res, uint64_t ptr, struct reservation **ret);
/* It was not committed after all. */
void reservation_put(struct reservations *res, struct reservation *r);
/* It is gone from the lane. */
void reservation_drop(struct reservations *res, struct reservation *r);
/* Its entry on media. */
m64 *reservation_entry(const struct reservation *r);

/*
 * Allocates a block that is reserved. As lane_alloc(), but the error is returned; -ENOBUFS: the lane has
 * LANE_RESERVED of them already; -ENOMEM.
 */
int lane_reserve(struct lane *lane, struct reservations *res, size_t size, uint64_t *ret);

/* lane_dealloc() and lane_defer() where something is reserved. -EBUSY: this block is. */
int lane_dealloc_unreserved(struct lane *lane, struct reservations *res, uint64_t ptr);
int lane_defer_unreserved(struct lane *lane, struct reservations *res, uint64_t ptr, bool *wake,
			  uint64_t *watch);

/*
 * Frees a reserved block, with delay; *wake, *watch: as lane_defer(). The caller is in an epoch. -EINVAL: it
 * is not reserved; -EBUSY: it is being committed or cancelled; else as lane_defer().
 */
int lane_cancel(struct lane *lane, struct reservations *res, uint64_t ptr, bool *wake,
		uint64_t *watch);
