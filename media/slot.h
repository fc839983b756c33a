/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Records in two slots: the slot that is not current is made blank, filled, sealed, and its commit
 * word stored last; a crash at any store leaves the old record or the new one.
 * One writer; readers of the same process and thread. A slot is a multiple of 8 bytes, at most
 * SLOT_SIZE_MAX, 8-byte aligned, and opens with a struct slot_head_df.
 */
#pragma once

#include "media/format.h"

#define SLOT_SIZE_MAX 512u

/* Which slot holds the record. */
enum slot_state {
	SLOT_BLANK,  /* neither: the record was never written */
	SLOT_FIRST,
	SLOT_SECOND,
	SLOT_ROTTEN, /* a slot is neither torn, blank nor valid: never guess which is newer */
};

/* `slots`: two slots of `size` bytes each, one behind the other. */
enum slot_state slot_find(const void *slots, size_t size);

/* A bare pointer to the current slot, NULL if blank or rotten. */
const void *slot_current(const void *slots, size_t size);

/*
 * Copies the current record to `ret` (`size` bytes, 8-byte aligned), reading it once: what was
 * checked is what is returned. Blank or rotten: `ret` is untouched.
 */
enum slot_state slot_read(void *ret, const void *slots, size_t size);

/* The same: 1; 0 if blank, -EUCLEAN if rotten. */
int slot_get(void *ret, const void *slots, size_t size);

/*
 * Writes `record` (in memory, its slot_head_df ignored) as the next record, durable on return. The
 * COMMIT is the store of the commit word. Refuses a rotten pair: -EUCLEAN; a `size` that no
 * slot has: -EINVAL. Other errors, of a medium that did not take it, leave the old record.
 */
int slot_put(enum durability d, void *slots, const void *record, size_t size);

/* Repair, which an administrator asked for */

/*
 * Blanks the slots that are neither blank, torn nor valid, so that a valid one, perhaps the older, is
 * the record; else it is blank. Whether there was any.
 */
bool slot_mend(enum durability d, void *slots, size_t size);

/* Copies what can be read of a pair, rotten or not: the newest of its valid slots. False: there is none. */
bool slot_salvage(void *ret, const void *slots, size_t size);

/* slot_put(), over what is rotten, too: the pair is rotten until it is the new record. */
int slot_replace(enum durability d, void *slots, const void *record, size_t size);
/* slot_put() or slot_replace(). */
typedef int slot_writer(enum durability d, void *slots, const void *record, size_t size);
