/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lanes of this process in one opened heap, and which of them each thread has.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/macro.h"
#include "media/lane.h"
#include "media/reserve.h"

struct pool;

/* A thread's lane in a heap. Ids of heaps (struct lanes) are never used twice, and never 0. */
struct lane_ref {
	uint64_t id;
	struct lane *lane;
};

#define LANE_CACHE 4u
#define _initial_exec __attribute__((__tls_model__("initial-exec"), __visibility__("hidden")))

/* The calling thread's lanes of late: what makes the fast path fast. */
extern __thread struct lane_ref lane_cache[LANE_CACHE] _initial_exec;

/* What a handle on a heap keeps to find its threads' lanes. */
struct lanes_key {
	uint64_t id; /* no heap's: opened read-only */
	intptr_t where; /* of its place in lane_cache, from the thread's pointer: the same in all threads */
};

static inline void lanes_key_init(struct lanes_key *key, uint64_t id)
{
	key->id = id;
	key->where = (intptr_t)&lane_cache[id % LANE_CACHE] - (intptr_t)__builtin_thread_pointer();
}

/* The calling thread's lane in the heap; NULL: it has none, did not use the heap lately, or `id` is not the heap's. */
static inline struct lane *lanes_find_as(const struct lanes_key *key, uint64_t id)
{
#if defined(__SEG_FS) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	/* Two instructions: the segment's base is the thread's pointer. Sanitizers take the offset for
	 * an address. */
	const __seg_fs struct lane_ref *c = (const __seg_fs struct lane_ref *)key->where;
#else
	const struct lane_ref *c = &lane_cache[key->id % LANE_CACHE];
#endif
	struct lane *lane = c->lane;

	/* ordering: the compiler's; a signal handler may put another heap's lane there. If it does before the
	 * lane was read, the id is that heap's too; if after, at worst the id does not fit. */
	__atomic_signal_fence(__ATOMIC_ACQUIRE);
	if (_unlikely(c->id != id))
		return NULL;
	if (!lane)
		__builtin_unreachable();
	return lane;
}

static inline struct lane *lanes_find(const struct lanes_key *key)
{
	return lanes_find_as(key, key->id);
}

struct lanes;

/* For the process's first writer of a heap; `pool` is borrowed. -ENOMEM. */
int lanes_new(struct lanes **ret, struct pool *pool);
uint64_t lanes_id(const struct lanes *lanes);
struct reservations *lanes_reservations(const struct lanes *lanes);

/*
 * Gives up what the lanes own. No thread may be using one. Their numbers, up to `max` at a time,
 * are then left to the caller, to be returned to the daemon.
 */
void lanes_stop(struct lanes *lanes);
size_t lanes_numbers(struct lanes *lanes, uint32_t *ret, size_t max);
void lanes_free(struct lanes *lanes);

/* The calling thread's lane: its own, an idle one, or a new one from the daemon. Entered. -ENOMEM
 * and the daemon's errors, text set. */
int lanes_acquire(struct lanes *lanes, struct lane **ret);

/* Keeps numbers that came late. Process lock held. */
void lanes_add_numbers(struct lanes *lanes, const uint32_t *numbers, size_t n);

int lanes_init(void);
void lanes_fork_child(void);
