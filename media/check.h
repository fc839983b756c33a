/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Audit of a heap's metadata: every span word, owner word and bit. Read-only.
 */
#pragma once

#include "media/heap.h"

/*
 * Returns the number of rules broken; the first is named in *why (static), its place in *where (a
 * ref). Exact while nobody uses the heap. May fault where a client shortened a file: the daemon
 * calls it under guard_run().
 */
int heap_check(struct heap *heap, const char **why, uint64_t *where);
