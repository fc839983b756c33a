/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A heap as one process sees it: addresses of its mapped metadata. Owns nothing; who maps fills it
 * in and keeps the mappings as long as it is used. Shared by a process's threads: `shelf[i]` is
 * stored with release once filled, `units` may grow.
 */
#pragma once

#include "media/format.h"
#include "media/span.h"

struct heap_shelf {
	m64 *table;     /* span words; a client's mapping is read-only */
	char *state;    /* state record of unit 0 */
	m64 *hints;     /* hint bitmap: bit u is unit u's */
	m64 *limbo_hints; /* the same of deferred frees (media/limbo.h) */
	uint64_t units; /* atomic: what is there by now */
	uint64_t limit; /* units that the mappings provide for */
	m64 *granules;  /* sparse heaps: bit g: the metadata of granule g are reserved; else NULL */
	struct backing *backing; /* sparse heaps, the daemon's: media/backing.h */
};

/* Units whose metadata are reserved together in a sparse heap. */
#define GRANULE_UNITS 512u

/* Whether a unit has metadata that may be touched: always, unless the heap is sparse. */
static inline bool shelf_has(const struct heap_shelf *shelf, uint64_t unit)
{
	uint64_t granule = unit / GRANULE_UNITS;

	return !shelf->granules ||
	       (media_load64(&shelf->granules[granule / 64]) >> granule % 64 & 1);
}

/* A span word of any unit; 0, which is no head, where there is none. */
static inline uint64_t shelf_word(const struct heap_shelf *shelf, uint64_t unit)
{
	/* ordering: acquire; pairs with the release that granted the span: its state record was
	 * zeroed before. */
	return shelf_has(shelf, unit) ? media_load_acquire(&shelf->table[unit]) : 0;
}

/* The first word of a hint map at or behind word `w` that may be touched, `end` if none is. */
uint64_t shelf_hint_word(const struct heap_shelf *shelf, uint64_t w, uint64_t end);
/* How many there are, up to `end`. */
uint64_t shelf_hint_words(const struct heap_shelf *shelf, uint64_t end);

struct heap {
	uint16_t pool;
	uint16_t node;
	enum durability durability;
	uint32_t min_block;
	unsigned first_class; /* class_of(min_block) */
	struct state_layout layout;
	uint64_t bytes; /* atomic: of all shelves */
	struct lanes_file_df *lanes; /* NULL: opened read-only */
	struct heap_shelf *shelf[POOL_SHELVES_MAX]; /* atomic */
};

/* -EINVAL: min_block. */
int heap_init(struct heap *heap, uint16_t pool, uint16_t node, enum durability durability,
	      uint32_t min_block);

/* Fills in a shelf whose table and state files are mapped at these addresses, with room for `limit` units. */
void heap_shelf_init(struct heap_shelf *shelf, void *table, void *state, uint64_t units, uint64_t limit,
		     bool sparse);
/* Publishes a filled shelf (borrowed) to the other threads. */
void heap_shelf_add(struct heap *heap, uint32_t index, struct heap_shelf *shelf);
void heap_shelf_grow(struct heap *heap, struct heap_shelf *shelf, uint64_t units);

/* A span head, found and read once: what a caller works on. */
struct span_at {
	struct heap_shelf *shelf;
	uint64_t ref;  /* of the head */
	char *record;  /* its state record */
	struct span span;
	uint32_t blocks;
	uint64_t block_size;
};

/* Words of a map that the span's blocks use. */
static inline uint32_t span_words(const struct span_at *at)
{
	return (at->blocks + 63) / 64;
}

/* The bits of word `w` that stand for blocks. */
static inline uint64_t span_valid(const struct span_at *at, uint32_t w)
{
	uint32_t left = w * 64 < at->blocks ? at->blocks - w * 64 : 0;

	return left >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << left) - 1;
}

/* The head's span of a ref that names a head. 0; -ENXIO: no such shelf or unit is mapped (the
 * caller may map more and try again); -EINVAL: not a typed head. */
int heap_span(struct heap *heap, uint64_t ref, struct span_at *ret);

/* The span that covers a unit, head or not. Errors as heap_span(); -EINVAL: none does. */
int heap_covering(struct heap *heap, uint64_t ref, struct span_at *ret);
/* Units of a shelf that are there by now; 0: no such shelf. */
uint64_t heap_shelf_units(struct heap *heap, uint32_t index);

/* The span and block that `ptr` (its low 48 bits count) starts. Errors as heap_span(); -EINVAL also
 * if it is not a block's start. */
int heap_block(struct heap *heap, uint64_t ptr, struct span_at *ret, uint32_t *index);
/* The same of the block that `ptr` points into. */
int heap_block_around(struct heap *heap, uint64_t ptr, struct span_at *ret, uint32_t *index);
/* Whether block `index` is allocated and freed by nobody, with delay or without. */
bool span_block_live(struct heap *heap, const struct span_at *at, uint32_t index);

/* Hints */

/* Says that the span may have something to collect or room to give. */
void heap_hint(struct heap *heap, const struct span_at *at);
/* Takes the hint bit away; before what it speaks of is collected. */
void heap_unhint(const struct span_at *at);
/* Takes a ref from the class's hint array: 0 if it is empty. */
uint64_t heap_hint_take(struct heap *heap, unsigned class);

/* Steps; the caller owns the span (its owner word says so) unless noted. */

/* Moves remote frees into `alloc`; idempotent. Returns the blocks that it freed. */
uint32_t span_collect(struct heap *heap, const struct span_at *at);
/* Blocks that are allocated, limbo included, remote ones not. Anybody; exact for the owner. */
uint32_t span_used(struct heap *heap, const struct span_at *at);
/* Gives the span up, its bits drained and closed before, then hints it if it has room or remote bits. */
void span_disown(struct heap *heap, const struct span_at *at);
/* The same for who has begun to close it (media/mark.h). */
void span_release(struct heap *heap, const struct span_at *at);
/* Claims an unowned span. */
bool span_claim(struct heap *heap, const struct span_at *at, uint64_t owner);
/* Frees block `index` without owning the span. Anybody. -EALREADY. */
int span_free_remote(struct heap *heap, const struct span_at *at, uint32_t index);

/* Which rule a span breaks, as a static string, or NULL. Exact while nothing runs. */
const char *span_check(struct heap *heap, const struct span_at *at);
