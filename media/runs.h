/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Free runs of a heap's units, coalesced: an index that the daemon derives from the span tables.
 * Ordered by place and by length. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct run {
	uint32_t shelf;
	uint32_t unit;
	uint64_t length; /* units */
};

struct runs;

int runs_new(struct runs **ret);
void runs_free(struct runs *runs);

/* Adds a run that overlaps none, joining its neighbours. -ENOMEM: then it is lost to the index until
 * the heap is loaded again. */
int runs_add(struct runs *runs, struct run run);

/* Sets memory aside for `n` runs, those set aside before included, which runs_add_ready() uses. -ENOMEM. */
int runs_ready(struct runs *runs, unsigned n);
int runs_add_ready(struct runs *runs, struct run run);

/* The first unit of a run at a multiple of `align`, a power of two. */
static inline uint64_t run_aligned(const struct run *run, uint64_t align)
{
	return (run->unit + align - 1) & ~(align - 1);
}

/*
 * Takes `length` units at a multiple of `align` (1: anywhere) from the shortest run that has them, of
 * those the one with the lowest place, so that memory which was touched before is used again. *ret is the
 * whole run as it was; what lies before run_aligned() and behind `length` stays in the index. With an
 * alignment runs that are long enough in any case may be preferred. -ENOSPC: no run has them; -ENOMEM.
 */
int runs_take(struct runs *runs, uint64_t length, uint64_t align, struct run *ret);

/* The first run that ends behind a place; whether there is one. */
bool runs_at(const struct runs *runs, uint32_t shelf, uint64_t unit, struct run *ret);

/* Units in all runs, and in the longest. */
uint64_t runs_units(const struct runs *runs);
uint64_t runs_longest(const struct runs *runs);
