/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is in a heap: totals, per size class, and as a map. By walking the span tables, beside whatever runs;
 * exact when nothing does. Time goes by spans and free runs, not by the heap's size.
 *
 *   sum of class[].bytes + free_units = bytes
 *   used + free + overhead            = bytes
 */
#pragma once

#include "media/heap.h"

/* What is in spans of one class. */
struct heap_class_totals {
	uint64_t spans;
	uint64_t bytes;  /* of the spans */
	uint64_t blocks; /* that they have, allocated or not */
	uint64_t used;   /* blocks that are allocated, limbo included */
	uint64_t limbo;  /* blocks in limbo */
};

#define COUNT_CLASSES (CLASS_COUNT + 1u) /* the last one: large blocks */

struct heap_totals {
	uint64_t bytes;
	uint64_t used;
	uint64_t limbo;
	uint64_t free;
	uint64_t free_units; /* of `free`, bytes of units in no span, or in one that is empty and nobody's */
	uint64_t overhead;   /* bytes of spans that no block can have */
	uint64_t largest;    /* bytes of the largest block that could be had at once, all going well */
	uint64_t blocks;
	uint64_t spans;
	uint64_t suspects; /* allocated blocks that may have been free when power was cut, */
	uint64_t suspect_bytes; /* and theirs; counted in `used` too */
	struct heap_class_totals class[COUNT_CLASSES];
};

/* Counts what is there. -EUCLEAN: a table is rotten. */
int heap_count(struct heap *heap, struct heap_totals *ret);

/* A part of the heap as a picture shows it; units, and bytes of blocks. */
struct heap_cell {
	uint64_t units;
	uint64_t free;  /* units of free runs and of empty spans that nobody owns */
	uint64_t small; /* units of spans of small blocks */
	uint64_t large; /* units of large blocks */
	uint64_t used;  /* bytes */
	uint64_t limbo;
	uint64_t suspect;
};

/* Maps the units of all shelves, one behind the other, from `first` on: `per_cell` units a cell. A span's
 * bytes are spread over its units. As heap_count(). */
int heap_map(struct heap *heap, uint64_t first, uint64_t per_cell, struct heap_cell *cells, size_t n);
