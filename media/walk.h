/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A walk over a heap's spans, by whoever has its metadata mapped, if only for reading.
 */
#pragma once

#include "media/heap.h"

/*
 * Calls fn(at, arg) for each span that is typed when its turn comes, in the order of their units; what is
 * granted or retired meanwhile may be met or not, no span is met twice. Stops at the first value
 * that is not 0 and returns it. -ENOMEM; -EUCLEAN: a span table leads nowhere.
 */
int heap_walk(struct heap *heap, int (*fn)(const struct span_at *at, void *arg), void *arg);
