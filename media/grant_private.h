/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What grant.c (granting, retiring), grant_press.c (requests) and grant_lanes.c (lanes, loading) share. Nobody
 * else includes this.
 */
#pragma once

#include "media/grant.h"
#include "media/runs.h"

#define PROMISED_MAX 4096u

struct grant {
	struct heap *heap;
	struct runs *runs;
	struct grant_lanes lanes;
	uint32_t cursor_shelf; /* where the scan of the hint bitmaps goes on */
	uint64_t cursor_word;
	/*
	 * Granted lately: these get their hint when they fall out of the ring or when room is short,
	 * so that nobody snatches a span that its asker is about to adopt. Lost with the daemon:
	 * loading sets every hint.
	 */
	uint64_t promised[PROMISED_MAX];
	unsigned promised_next;
	struct {
		bool (*allow)(void *ctx, uint64_t bytes);
		void *ctx;
		uint64_t spent; /* units that this request reserved */
		bool lacking;   /* it found no space */
		struct grant_wish wish;    /* that it ended with */
		struct grant_wish pending; /* under way in a thread */
	} space;
};

static inline m64 *owner_word(struct grant *g, const struct span_at *at)
{
	return &state_tail(&g->heap->layout, at->record)->owner;
}

/* Units of a shelf, 0 if there is none; the daemon's own value. */
static inline uint64_t units_of(struct grant *g, uint32_t shelf)
{
	return g->heap->shelf[shelf] ? g->heap->shelf[shelf]->units : 0;
}

/* Checks (grant_check.c): they end the process if a rule is broken; for builds with DEBUG_CHECKS. */

/* The first free run that ends behind a place. */
void grant_check_free(struct grant *grant, uint32_t shelf, uint64_t unit);
/* A span that was just granted, and the free runs beside it. */
void grant_check_span(struct grant *grant, uint64_t ref, const struct span *span);

/* Granting (grant.c) */

/* Types a free run. 0; -ENOSPC; space_reserve()'s; -EIO; -ENOMEM. */
int grant_fresh(struct grant *grant, struct span span, uint64_t align, uint64_t *ref);
/* Fresh spans, up to `want`, but no more than a small part of what is free beyond the first. How many; as
 * grant_fresh(), but 0 for -ENOSPC. */
int grant_fresh_spans(struct grant *grant, unsigned class, uint32_t want, uint64_t *refs);
/* Spans with an eighth free that others left, within a few hint words. How many; -EIO. */
int grant_left_spans(struct grant *grant, unsigned class, uint32_t want, uint64_t *refs);
/* A slice of a pass over all hints, which ends when `left` is 0 after it: 1 and a span with room; 0; -EIO. */
int grant_room_slice(struct grant *grant, struct grant_trim *pass, unsigned class, uint64_t *ref);

/* Space (grant_space.c); all do nothing unless the heap is sparse. */

/* A request begins. */
void space_begin(struct grant *grant);
/* Reserves what a span at `unit`, within the free run `room`, needs. 0; -ENOSPC and others of
 * fallocate(2); -EINPROGRESS: enough for one request. */
int space_reserve(struct grant *grant, const struct run *room, uint64_t unit, struct span span);
/* Reserves a unit's metadata. */
int space_granule(struct grant *grant, uint32_t shelf, uint64_t unit);
/* A span was met while loading. */
void space_loaded(struct grant *grant, uint32_t shelf, uint64_t unit, uint64_t units);

/* Takes the spans of living lanes whose threads are not inside the allocator. How many lanes; -EIO. */
int grant_revoke(struct grant *grant);

/* Applies the log of a lane to the end. Idempotent. `dead`: the lanes that are settled together. -EIO; or what mapping
 * a word returned. */
int grant_settle_log(struct grant *grant, const struct grant_settle *dead, uint32_t lane);
/* Frees what the lane had reserved, after the logs of all lanes that are settled with it. Idempotent. -EIO. */
int grant_settle_reserved(struct grant *grant, uint32_t lane);
