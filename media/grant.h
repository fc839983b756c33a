/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon's side of a heap: it alone writes span words. Types free runs into spans, retires
 * empty spans, coalesces, settles the lanes of the dead. One thread.
 *
 * Its indexes are derived: grant_new() walks the tables and completes what a killed daemon left.
 * Access to what clients can write goes through media/guard.h: -EIO then means that a file is
 * shorter than it should be, and the pool is to be marked damaged.
 */
#pragma once

#include <stdbool.h>

#include "media/heap.h"

struct grant;

#define GRANT_SPANS_MAX 256u
#define GRANT_ALIGN_MAX 128u /* units: 2 MiB, to which shelves are mapped everywhere */

/* How a word in a block is had, of which the daemon maps none otherwise: by its place in the heap, which
 * is within a shelf and aligned. 0 or -errno. What was mapped stays until all logs are settled. */
struct grant_words {
	int (*map)(void *ctx, uint64_t place, m64 **ret);
	void (*done)(void *ctx);
	void *ctx;
};

/* Which lanes a living session holds: all others are settled when the heap is loaded, and it is they
 * whose idle spans are taken back when room is short. */
struct grant_lanes {
	bool (*alive)(void *ctx, uint32_t lane);
	void *ctx;
	uint32_t count; /* lanes that the lanes file has room for */
	uint64_t *progress; /* NULL, or where loading adds the units that it has walked; atomic */
	const struct grant_words *words; /* borrowed as ctx is; NULL: no log stores words */
	bool power_cut; /* what was not drained may be lost: open spans become suspect */
	bool no_readers; /* nobody has the heap open: whatever is in limbo is free */
};

/*
 * Takes a heap into service: walks the span tables of `heap` (borrowed, all shelves added, tables
 * writable), completes what a killed daemon began, settles every lane that is not alive, sets every
 * hint anew. -EUCLEAN with *why and *where (a ref) if a table is rotten; -EIO; -ENOMEM.
 */
int grant_new(struct grant **ret, struct heap *heap, const struct grant_lanes *lanes,
	      const char **why, uint64_t *where);
void grant_free(struct grant *grant);

/* Brings units [from, to) of a shelf into service; their table and state space is reserved and
 * zero (whatever a killed attempt left there is overwritten). The caller commits the shelf's size
 * after it and calls heap_shelf_add() or heap_shelf_grow() before. -EINVAL; of a sparse heap those of
 * fallocate(2); -ENOMEM, but for as many calls as are ready. */
/* Of a heap that is being made, with a shelf and no units yet: its first unit is never granted. grant_grow() then begins
 * behind it. */
int grant_keep_first(struct grant *grant);
int grant_grow(struct grant *grant, uint32_t shelf, uint64_t from, uint64_t to);
/* Sets memory aside for `n` calls of it, those set aside before included. -ENOMEM. */
int grant_grow_ready(struct grant *grant, unsigned n);

/* Up to `want` (at most GRANT_SPANS_MAX) typed, unowned spans of a class with room: first ones that others left
 * behind, then fresh ones. How many; -ENOSPC; -EINVAL; -EIO; -ENOMEM. */
int grant_spans(struct grant *grant, unsigned class, uint32_t want, uint64_t *refs);

/* One large span of `units`, its first a multiple of `align` (a power of two up to GRANT_ALIGN_MAX; 1: any).
 * 0; -ENOSPC; -EINVAL; -EIO; -ENOMEM. */
int grant_run(struct grant *grant, uint64_t units, uint64_t align, uint64_t *ref);

/* From now on these lanes live: `ctx` is borrowed until the next call or grant_free(). */
void grant_lanes_set(struct grant *grant, const struct grant_lanes *lanes);

/*
 * Gives back all that the owner of these lanes left, after its death or their orderly return: what it had
 * begun to publish is done to the end, what it had reserved is freed with delay, spans are given up.
 * Idempotent. All lanes of a session are settled by one call: a log of one may commit what another
 * has reserved. Each is one that the lanes file has room for. -EIO, or what mapping a word returned.
 */
int grant_settle_lanes(struct grant *grant, const uint32_t *lanes, uint32_t n);
int grant_settle(struct grant *grant, uint32_t lane);


/*
 * The same in steps, each of which deals with one lane: logs of all lanes first, then reservations, then spans. Other
 * requests may be served between two steps (grant_lanes.c says why); the lanes are given to nobody until the
 * last step. `has` tells which lanes are settled together; it is borrowed with `lanes` and `ctx` until then.
 * The rest is zero at first.
 */
struct grant_settle {
	const uint32_t *lanes;
	uint32_t n;
	bool (*has)(const void *ctx, uint32_t lane);
	const void *ctx;
	unsigned stage;
	uint32_t next; /* lane of this stage, by its place */
};
/* 1: there is more to do; 0: all are settled; errors as grant_settle_lanes(): then the rest stays as it is. */
int grant_settle_step(struct grant *grant, struct grant_settle *settle);

/* Who a lane was given to: a number that is not 0. Not durable: it is asked for as long as that process may live.
 * 0 or -EIO. */
int grant_lane_hold(struct grant *grant, uint32_t lane, uint64_t holder);
int grant_lane_holder(struct grant *grant, uint32_t lane, uint64_t *ret);

/*
 * Space of sparse heaps (media/backing.h). Its shortage ends grant_spans() and grant_run() with -ENOSPC, and so
 * does `allow`, asked before anything is reserved, if it refuses. -EINPROGRESS: what was asked for takes long
 * to reserve: then there is a wish to be fulfilled first.
 */
struct grant_wish {
	struct backing *backing;
	uint32_t shelf;
	uint64_t unit;
	uint64_t units;
	uint64_t done; /* of these, so many are reserved */
};

void grant_allow_set(struct grant *grant, bool (*allow)(void *ctx, uint64_t bytes), void *ctx);

/* Whether the last request found too little space, not too few units; whether it reserved any. */
bool grant_space_short(const struct grant *grant);
bool grant_space_spent(const struct grant *grant);
/* Says that it was short, of a wish that could not be fulfilled. */
void grant_space_lack(struct grant *grant);

/* The wish that the last request ended with; whether there is one. */
bool grant_wished(const struct grant *grant, struct grant_wish *ret);
/*
 * One wish at a time: begin; run, in any thread; end. Then the request is repeated. A run that fails may have
 * reserved a part, which the end makes known: so it is given back like other free space.
 */
void grant_wish_begin(struct grant *grant, const struct grant_wish *wish);
int grant_wish_run(struct grant_wish *wish);
void grant_wish_end(struct grant *grant, const struct grant_wish *wish);

/* Gives back the data of all free runs: after a load, when nobody knows which of them have any. */
int grant_space_clear(struct grant *grant);

/* Where giving back goes on; zero at first. */
struct grant_place {
	uint32_t shelf;
	uint64_t unit;
	bool whole; /* it has come to the end */
};

/* Gives back up to about `bytes` of free runs' data. How many bytes, or -errno. */
int64_t grant_space_return(struct grant *grant, struct grant_place *place, uint64_t bytes);

/* Bytes that the file system holds for all shelves. */
uint64_t grant_space_bytes(const struct grant *grant);

/* Takes what these lanes own, as far as they live and their threads are outside of the allocator: as is done
 * for all lanes when room is short. How many lanes; -EIO. */
int grant_revoke_lanes(struct grant *grant, const uint32_t *lanes, uint32_t n);

/* Retires every empty span that is unowned. Returns bytes freed, or -errno. */
int64_t grant_trim(struct grant *grant);

/* The same in slices, between which other requests are served. Zero at first. */
struct grant_trim {
	bool begun;
	uint32_t shelf; /* where it goes on */
	uint64_t word;
	uint64_t left; /* hint words; 0, once it has begun: it is done */
};
int64_t grant_trim_slice(struct grant *grant, struct grant_trim *trim);

/* grant_spans() and grant_run() in slices, when room is short: zero at first. -EAGAIN: to be called again, with the
 * same; else as they are, and it is zero again after -ENOSPC. */
struct grant_press {
	unsigned stage;
	struct grant_trim pass;
};
int grant_spans_slice(struct grant *grant, unsigned class, uint32_t want, uint64_t *refs,
		      struct grant_press *press);
int grant_run_slice(struct grant *grant, uint64_t units, uint64_t align, uint64_t *ref,
		    struct grant_press *press);
