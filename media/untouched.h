/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Units that were never granted, and so read zero: a large block of them need not be cleared.
 *
 *   where                            says                                  writer
 *   class of a free run's word       none of its units was ever granted    daemon
 *   OPEN_UNTOUCHED of a large span   nobody has had its block yet          daemon, before the span's word;
 *                                                                          cleared by who claims it first
 *
 * Neither promises that touched units are marked so: after it was lost, a block is cleared once more. A unit
 * that was granted never becomes untouched again.
 */
#pragma once

#include "media/heap.h"
#include "media/mark.h"
#include "media/runs.h"

/* In the class of a free run's word. */

/*
 * Where the untouched end of a free run begins: this unit and all behind it in the run were never granted. The
 * run's end, if none is known to be. Of a run whose words are as the index took it.
 */
uint64_t untouched_from(const struct heap_shelf *shelf, const struct run *run);

/*
 * The owner of a large span, before it sets the block's bit: whether the block reads zero. It does not
 * any more for who asks next.
 */
bool untouched_take(struct heap *heap, const struct span_at *at);
