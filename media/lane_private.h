/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What lane.c (the fast paths) and lane_span.c (owning and finding spans) share. Nobody else includes
 * this.
 */
#pragma once

#include <bsd/sys/queue.h>

#include "common/macro.h"
#include "media/lane.h"

#define SPARES_MAX 16u     /* granted spans that wait for adoption, a class */
#define CLAIM_TRIES 64     /* grants that others may snatch away before a request gives up */
#define NEAR_UNITS 512u    /* units whose owned span is found without the span table */
#define QUICK_SIZE 1024u   /* sizes whose class is looked up */

/*
 * A span that the lane owns: place i of the owned-span table. What the fast paths read comes first.
 *
 *   used == set bits of alloc          mask == zero bits of alloc[word], or 0 if not current
 *   base == pool << 48 | first << UNIT_SHIFT
 */
struct owned {
	uint64_t mask;    /* free blocks of `word` that are not handed out yet */
	m64 *alloc;
	uint64_t base;    /* global pointer of block 0 */
	uint64_t size;    /* bytes of a block */
	uint64_t recip;   /* as class_index() has it */
	uint64_t first;   /* unit of the heap, shelf included, as in a ref */
	uint32_t units;   /* 0: the place is empty */
	uint32_t word;
	uint32_t used;
	uint32_t blocks;
	const m64 *limbo;
	const m64 *remote;
	uint16_t class;
	bool current;
	bool exhausted;   /* in the list of those; else current or in the list of those with room */
	struct span_at at;
	TAILQ_ENTRY(owned) link;
};

TAILQ_HEAD(owned_list, owned);

struct class_state {
	struct owned_list room;
	struct owned_list exhausted; /* oldest first */
	uint32_t grown; /* spans that the next request to the source asks for */
	uint32_t spares;
	uint64_t spare[SPARES_MAX];
};

struct lane {
	struct lane_df *df;
	uint64_t pool;                      /* the pool's id, in a pointer's place */
	struct owned *current[CLASS_COUNT]; /* never NULL: `none` has no free bits */
	uint8_t quick[QUICK_SIZE / 8 + 1];  /* class of a small size, in steps of 8 bytes */
	uint8_t near[NEAR_UNITS];           /* place that owns a unit: a guess by its low bits */
	bool fence; /* the kernel has no asymmetric barrier: entering pays for one */
	enum durability durability;
	struct heap *heap;
	uint32_t number;
	const struct lane_source *source;
	void *ctx;
	uint64_t held; /* bytes of owned spans */
	uint64_t held_max;
	struct owned_list unused; /* empty places */
	struct owned none;
	struct owned owned[LANE_OWNED];
	struct class_state class[CLASS_COUNT];
};

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
