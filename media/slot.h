/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Records in two slots: the slot that is not current is made blank, filled, sealed, and its commit
 * word stored last; a crash at any store leaves the old record or the new one.
 * One writer; readers of the same process and thread.
 */
#pragma once

#include "media/format.h"

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
 * Writes `record` (in memory, its slot_head_df ignored) as the next record. The COMMIT is the store
 * of the commit word. Refuses a rotten pair: -EUCLEAN.
 */
int slot_put(enum durability d, void *slots, const void *record, size_t size);
