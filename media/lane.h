/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A lane: one thread's allocator in a heap. Not thread-safe: a lane has one user at a time.
 *
 * What is true stands in shelves (state records, the lane's owned-span table); what is here is
 * derived: the word of free bits being handed out, lists of owned spans with room. It may be lost
 * at any instruction: the daemon's grant_settle() gives back what the owned-span table names.
 */
#pragma once

#include "media/heap.h"

/* What the allocator asks of who embeds it (the client library; a unit test). */
struct lane_source {
	/* Up to `want` (at most 256) typed, unowned spans of a class with room: how many, or -errno;
	 * -ENOSPC: there are none. */
	int (*spans)(void *ctx, unsigned class, uint32_t want, uint64_t *refs);
	/* One large span of `units`, the first a multiple of `align`, unowned and empty. 0 or -errno. */
	int (*run)(void *ctx, uint64_t units, uint64_t align, uint64_t *ref);
	/* Maps what the ref names, after -ENXIO. 0 or -errno. */
	int (*resolve)(void *ctx, uint64_t ref);
	/* Milliseconds that a thread may wait for the daemon, negative: for ever. NULL: 30 s. */
	long (*patience)(void *ctx);
};

struct lane;

#define LANE_ALIGN_MAX (UINT64_C(2) << 20)

/* `number`: the lane that the daemon gave, already settled. heap and source are borrowed. -ENOMEM. */
int lane_new(struct lane **ret, struct heap *heap, uint32_t number,
	     const struct lane_source *source, void *ctx);

/* Gives up every span and forgets the lane; its number may then be given to another thread. */
void lane_free(struct lane *lane);

/* Gives up every span and keeps the lane: its thread ended, the next one takes it over. */
void lane_release(struct lane *lane);

/* Forgets it without touching media: after fork, in the child. */
void lane_forget(struct lane *lane);

uint32_t lane_number(const struct lane *lane);

/*
 * Allocates `size` bytes: the pointer (pool, shelf, offset), or 0 and lane_error(): -ENOSPC; -EINVAL;
 * -EDEADLK: a signal handler interrupted the allocator; -ETIMEDOUT: the daemon stopped while it took the
 * lane's spans back; -ESTALE: it settled the lane, which may be another's now; or what the source returned. In a register, not through memory: what the caller
 * does with the pointer waits for it.
 */
uint64_t lane_alloc(struct lane *lane, size_t size);
/* The same at a multiple of `align`, a power of two up to LANE_ALIGN_MAX; of the place in its shelf. */
uint64_t lane_alloc_aligned(struct lane *lane, size_t align, size_t size);
int lane_error(const struct lane *lane);
/* lane_new()'s. */
void *lane_ctx(const struct lane *lane);
/* Whether the block allocated last, if it is one of whole units, reads zero: nobody ever had its units. */
bool lane_gave_clear(const struct lane *lane, uint64_t ptr);

/* Frees a block of any owner. -EINVAL; -EALREADY; -EDEADLK; source's. */
int lane_dealloc(struct lane *lane, uint64_t ptr);
