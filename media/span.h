/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Spans: words of the span table, state records, and the steps on them that both sides share.
 *
 * A heap shelf is a row of 16 KiB units. A span is a run of them; its head unit's word in the span
 * table says what it is, its head unit's state record holds three bits a block and the owner word.
 *
 *   field            writer                                       readers
 *   span word        the daemon                                   all
 *   alloc bits       the span's owner, by plain release stores    all
 *   limbo bits       anybody sets (deferred free); collect clears all
 *   remote bits      anybody sets; collect clears, last           all
 *   owner word       compare-and-swap NONE -> x; x -> NONE by x   all
 *   hint bit         anybody, at any time; never the truth        all
 *
 *   block state      alloc limbo remote
 *   free               0     0     0
 *   allocated          1     0     0
 *   in limbo           1     1     0
 *   freed, uncollected 1     x     1
 *
 * x is a lane, or the daemon (OWNER_DAEMON) for a moment, or a lane's settler. Linearisation: alloc
 * at the store of its bit; free at the cleared alloc bit (owner) or the set remote bit (others);
 * adoption at the compare-and-swap. If an owner dies between any two stores, span_collect() and
 * span_disown() done again by its settler complete what it began.
 */
#pragma once

#include <stdbool.h>

#include "media/class.h"
#include "media/format.h"

/* Span words */

enum span_kind {
	SPAN_NONE = 0,     /* never a head */
	SPAN_FREE = 1,     /* head of a free run */
	SPAN_SMALL = 2,    /* head of blocks of one class */
	SPAN_LARGE = 3,    /* head of one block of whole units */
	SPAN_INTERIOR = 4, /* `length` is the distance back to the head: true only if the head covers it */
};

/* A span word in plain fields. */
struct span {
	enum span_kind kind;
	unsigned class;
	uint32_t length; /* units */
	unsigned node;
	uint32_t generation; /* 18 bits, raised at each grant */
};

static inline uint64_t span_pack(struct span s)
{
	return (uint64_t)s.kind | (uint64_t)s.class << 4 | (uint64_t)s.length << 12 |
	       (uint64_t)s.node << 38 | (uint64_t)(s.generation & 0x3ffff) << 46;
}

static inline struct span span_unpack(uint64_t w)
{
	return (struct span){
		.kind = (enum span_kind)(w & 15),
		.class = (unsigned)(w >> 4) & 255,
		.length = (uint32_t)(w >> 12) & ((1u << 26) - 1),
		.node = (unsigned)(w >> 38) & 255,
		.generation = (uint32_t)(w >> 46),
	};
}

/* Classes of free runs. */
enum free_class {
	FREE_USED = 0,      /* it was granted before, at least in part */
	FREE_UNTOUCHED = 1, /* never: media/untouched.h */
	FREE_KEPT = 2,      /* it is never granted */
};

/*
 * The first unit of a heap is kept, so that no block has offset 0: programs that keep offsets take 0 for none. Heaps
 * that were made before this rule have no such word. Anywhere else the class says nothing.
 */
static inline bool span_is_kept(const struct span *s, uint32_t shelf, uint64_t unit)
{
	return s->kind == SPAN_FREE && s->class == FREE_KEPT && s->length == 1 && shelf == 0 && unit == 0;
}

/* Refs: a unit of a heap, named in messages, lanes and hints. Zero is none. */

#define REF_VALID (UINT64_C(1) << 63)
#define REF_UNIT_BITS 26
#define REF_MASK ((UINT64_C(1) << (REF_UNIT_BITS + 8)) - 1)

static inline uint64_t ref_make(uint32_t shelf, uint32_t unit)
{
	return REF_VALID | (uint64_t)shelf << REF_UNIT_BITS | unit;
}

static inline uint32_t ref_shelf(uint64_t ref)
{
	return (uint32_t)(ref >> REF_UNIT_BITS) & 255;
}

static inline uint32_t ref_unit(uint64_t ref)
{
	return (uint32_t)ref & ((1u << REF_UNIT_BITS) - 1);
}

/* The unit that a pointer lies in; of its low 48 bits. */
static inline uint64_t ref_of_ptr(uint64_t ptr)
{
	return REF_VALID | ((ptr >> UNIT_SHIFT) & REF_MASK);
}

/* Owner words */

#define OWNER_NOT_HEAD UINT64_C(0)
#define OWNER_NONE UINT64_C(1)
#define OWNER_DAEMON UINT64_C(2)
#define OWNER_LANE (UINT64_C(1) << 63)
#define OWNER_WHO_MASK (~(UINT64_C(0xff) << 48))

/* `place`: of the span in the lane's owned-span table. */
static inline uint64_t owner_lane(unsigned node, uint32_t lane, unsigned place)
{
	return OWNER_LANE | (uint64_t)place << 48 | (uint64_t)node << 40 | lane;
}

static inline unsigned owner_place(uint64_t owner)
{
	return (unsigned)(owner >> 48) & 127;
}

/* State records */

/* Where what stands in a state record; fixed by the heap's smallest block. */
struct state_layout {
	uint32_t bits;   /* a map's */
	uint32_t words;  /* a map's 64-bit words */
	uint32_t limbo;  /* offsets, bytes; alloc is at 0 */
	uint32_t remote;
	uint32_t tail;
	uint32_t stride;
};

/* -EINVAL: not a smallest block that there is (16, 32, 64, 128, 256). */
int state_layout_init(struct state_layout *ret, uint32_t min_block);

/* Offset of the first state record in a state file that provides for `limit` units, and its size
 * with `units` of them. */
uint64_t state_records_offset(uint64_t limit_units);
uint64_t limbo_hints_offset(uint64_t limit_units);
uint64_t state_file_size(const struct state_layout *l, uint64_t limit_units, uint64_t units);
uint64_t table_file_size(uint64_t units);
/* A sparse heap's table has words for `limit` units and the granule map behind them. */
uint64_t sparse_table_size(uint64_t limit_units);
uint64_t lanes_file_size(uint32_t lanes);

static inline m64 *state_alloc(char *record)
{
	return (m64 *)(void *)record;
}

static inline m64 *state_limbo(const struct state_layout *l, char *record)
{
	return (m64 *)(void *)(record + l->limbo);
}

static inline m64 *state_remote(const struct state_layout *l, char *record)
{
	return (m64 *)(void *)(record + l->remote);
}

/* Tells a true copy of a span word from rot and from another unit's. */
static inline uint64_t state_seal(uint64_t word, uint64_t unit)
{
	uint64_t x = (word ^ (unit + 1) * UINT64_C(0x9e3779b97f4a7c15)) + UINT64_C(0x6e766d6d);

	x = (x ^ x >> 31) * UINT64_C(0xbf58476d1ce4e5b9);
	return x ^ x >> 29;
}

static inline struct state_tail_df *state_tail(const struct state_layout *l, char *record)
{
	return (struct state_tail_df *)(void *)(record + l->tail);
}

/* Whether the record at `unit` is that of a span with this word. */
static inline bool state_sealed(const struct state_tail_df *tail, uint64_t word, uint64_t unit)
{
	return media_load64(&tail->word) == word &&
	       media_load64(&tail->seal) == state_seal(word, unit);
}
