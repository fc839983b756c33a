/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What lane.c (the fast paths) and lane_span.c (owning and finding spans) share. Nobody else includes
 * this.
 */
#pragma once

#include <bsd/sys/queue.h>

#include "common/macro.h"
#include "media/lane.h"
#include "media/mark.h"

#define SPARES_MAX 256u    /* spans known to be unowned that the lane tries first, a class */
#define CLAIM_TRIES 64     /* grants that others may snatch away before a request gives up */
#define NEAR_UNITS 1024u   /* units whose owned span is found without the span table */
#define CLOSING_MAX 8u     /* spans given up whose marks wait for the next drain */
#define QUICK_SIZE 1024u   /* sizes whose class is looked up */

/*
 * A span that the lane owns: place i of the owned-span table. What the fast paths read comes first.
 *
 *   mask == zero bits of *word if current, else 0
 *   used == set bits of alloc, and bits of mask: blocks that are allocated or about to be
 *   word == &alloc[(here - base) / size / 64] if current, else NULL
 */
struct owned {
	uint64_t mask;   /* free blocks of *word that are not handed out yet */
	m64 *word;
	uint64_t here;   /* global pointer of the word's first block */
	uint64_t size;   /* bytes of a block */
	uint64_t base;   /* global pointer of block 0 */
	uint64_t recip;  /* as class_index() has it */
	m64 *alloc;
	uint32_t blocks;
	uint32_t used;

	uint64_t first;  /* base >> UNIT_SHIFT */
	uint32_t units;  /* 0: the place is empty */
	uint16_t class;
	bool current;
	bool exhausted;  /* in the list of those; else current or in the list of those with room */
	TAILQ_ENTRY(owned) link;
	struct span_at at;
} __attribute__((__aligned__(MEDIA_LINE)));

TAILQ_HEAD(owned_list, owned);

struct class_state {
	struct owned_list room;
	struct owned_list exhausted; /* oldest first */
	uint32_t grown; /* spans that the next request to the source asks for */
	uint32_t spares;
	uint64_t spare[SPARES_MAX]; /* a stack */
};

struct lane {
	struct lane_df *df;
	size_t limbo;  /* bytes from an alloc word to its limbo and remote words */
	size_t remote;
	uint64_t calm; /* df->revoke as long as the lane is ours and nobody wants anything */
	bool lost;     /* it is another's */
	bool slow;  /* either: the fast paths are for neither */
	bool fence; /* the kernel has no asymmetric barrier: entering pays for one */
	int error;  /* of the last allocation that failed */
	struct owned *last;                 /* span of the last quick allocation */
	struct owned *current[CLASS_COUNT]; /* never NULL: `none` has no free bits */
	uint8_t quick[QUICK_SIZE / 8 + 1];  /* class of a small size, in steps of 8 bytes */
	uint8_t near[NEAR_UNITS];           /* place that owns a unit: a guess by its low bits */
	struct heap *heap;
	uint32_t number;
	const struct lane_source *source;
	void *ctx;
	uint64_t held; /* bytes of owned spans */
	uint64_t held_max;
	struct owned_list unused; /* empty places */
	struct closing closing[CLOSING_MAX];
	unsigned closings;
	struct owned none;
	struct owned owned[LANE_OWNED];
	struct class_state class[CLASS_COUNT];
};

static inline uint64_t lane_pool(const struct lane *lane)
{
	return (uint64_t)lane->heap->pool << 48;
}

/* Marks the thread busy in its lane. 0; -EDEADLK: a signal handler interrupted the allocator;
 * -ETIMEDOUT; -ESTALE. */
int lane_enter(struct lane *lane);
/* The thread is marked busy: 0; or -ETIMEDOUT, -ESTALE, and it is not marked. */
int lane_entered(struct lane *lane);
void lane_leave(struct lane *lane);

/* Power: opens a span that the lane owns. It takes the marks of spans given up before away. */
void lane_open(struct lane *lane, const struct span_at *at);
/* Gives a span up, as span_disown(); its mark goes at the lane's next drain. */
void lane_disown(struct lane *lane, const struct span_at *at);
/* Drains, and no mark waits any more. */
void lane_closings_end(struct lane *lane);

/* Makes every place empty, without touching media: what they named is nobody's or another's. */
void lane_reset(struct lane *lane);

/* Gives a span up: swap of the owner word, hint, then its place. */
void owned_release(struct lane *lane, struct owned *o);

/* Takes back what others freed into owned spans and gives up those that are empty. */
void lane_release_empty(struct lane *lane);

/* Makes current[class] a span with free bits in its mask. 0 or -errno. */
int lane_refill(struct lane *lane, unsigned class);

/* Grants a run, claims it, allocates its block. */
int lane_take_run(struct lane *lane, uint64_t units, uint64_t *ret);

/* An owned span that is not current has a block more. */
void owned_freed(struct lane *lane, struct owned *o);

static inline unsigned place_of(const struct lane *lane, const struct owned *o)
{
	return (unsigned)(o - lane->owned);
}
