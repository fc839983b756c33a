/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Repair of a heap's metadata: what is provably good is kept, what is not is made harmless, and each
 * change is said in a report. Nobody else uses the heap meanwhile; each call may be interrupted at
 * any store and done again.
 *
 * Nothing that may be allocated becomes free: what cannot be told is kept as allocated, for a sweep
 * to decide about.
 */
#pragma once

#include "media/check.h"

/* Repairs span tables and state records, noting what was done. Returns how many things. Under
 * guard_run(). */
uint64_t heap_repair(struct heap *heap, struct check_report *report);

/* The first unit behind `unit` that is provably a span's head: its word is typed, and its state record
 * says the same; the shelf's units if there is none. */
uint64_t repair_next_head(struct heap *heap, uint32_t shelf, uint64_t unit);

/* The word that the state record at `unit` vouches for, of whatever the table says there; 0: none. */
uint64_t repair_record_word(const struct heap *heap, uint32_t shelf, uint64_t unit);

/* The end of what covers `unit`, by a walk from the shelf's begin; `unit` itself if nothing does. */
uint64_t repair_cover(struct heap *heap, uint32_t shelf, uint64_t unit);
