/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Passes over all spans of a heap for their open marks (media/mark.h): after a power cut, and when the
 * heap leaves service. The daemon's; each is guarded and can be done again after a death in between.
 * In durability `process` they do nothing.
 */
#pragma once

#include "media/heap.h"

/* After a power cut, before anything else looks at bits: what was open becomes suspect. -EIO. */
int marks_load(struct heap *heap);

/* Nobody has the heap open and every lane is settled: no span is open any more, all bits are drained.
 * -EIO; -EBUSY: a span has an owner that nobody knows of. */
int marks_close(struct heap *heap);
