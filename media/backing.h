/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The space behind a shelf of a sparse heap: which of it is reserved, reserving, giving back.
 *
 * Data are reserved unit by unit, before the units become a span, and given back when they are free.
 * Metadata (span words, hint bits, state records) are reserved a *granule* of 512 units at once and
 * never given back: a bit in the shelf's granule map, behind the span table, says so. Whoever reads
 * metadata of a unit that he was not granted looks at that bit first (shelf_has()): a touch of a hole
 * would take a page that nobody reserved.
 *
 *   granule bit   the daemon sets it, after the space is reserved     all read
 *   backed units  the daemon's memory: units whose data it reserved; after a load, those of spans
 *
 * Made and used by the daemon's one writer of the heap; backing_reserve() alone may run beside him.
 */
#pragma once

#include <stdbool.h>

#include "common/macro.h"
#include "media/heap.h"

struct backing;

/* Takes the descriptors of shelf, table and state, also on failure; borrows the others. -ENOMEM. */
int backing_new(struct backing **ret, const struct heap *heap, struct heap_shelf *shelf,
		const int fds[3]);
void backing_free(struct backing *backing);
DEFINE_AUTO(struct backing, backing_free)

/*
 * Reserves the metadata of a unit's granule in the files of a shelf that is not in service yet, so that
 * backing_granule() cannot fail for want of space. As that.
 */
int backing_prepare(const int fds[3], const struct state_layout *layout, enum durability durability,
		    uint64_t limit, uint64_t unit);

/* Reserves the metadata of the unit's granule. 0; -ENOSPC and others of fallocate(2). */
int backing_granule(struct backing *backing, uint64_t unit);
/* Bytes that this would take; of any granule. */
#define BACKING_GRANULE_BYTES(layout) (3 * MEDIA_PAGE + GRANULE_UNITS * (uint64_t)(layout)->stride)
uint64_t backing_granule_cost(const struct backing *backing, uint64_t unit);

/* Reserves the data of units, whether they are or not; any thread. As backing_granule(). */
int backing_reserve(struct backing *backing, uint64_t unit, uint64_t n);
/* Says that units are reserved. */
void backing_mark(struct backing *backing, uint64_t unit, uint64_t n);
/* How many of these units are not known to be reserved; how many are. */
uint64_t backing_missing(const struct backing *backing, uint64_t unit, uint64_t n);

/*
 * Gives back the data of the first at most `most` reserved units of a free run, from *unit on, which is
 * moved behind them. How many; or -errno of fallocate(2).
 */
int64_t backing_return(struct backing *backing, uint64_t *unit, uint64_t end, uint64_t most);
/* Gives back all of a free run, reserved or not: after a load nobody knows. */
int backing_clear(struct backing *backing, uint64_t unit, uint64_t n);

/* Bytes that the file system holds for the shelf's files. */
uint64_t backing_bytes(const struct backing *backing);
