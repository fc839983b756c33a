/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Open marks: durability `power` without a flush for each allocation and free. doc/power.md has the
 * argument.
 *
 * A span of small blocks is open from before the first change of its bits that is not drained until
 * its bits were drained. Its state record's word `open`, anybody's to change by compare-and-swap:
 *
 *   MARK     durable before TRUST is set; after a power cut: the bits of this span prove nothing
 *   TRUST    the mark is durable: bits may change and need not be drained
 *   LEFT     its closer is not done; the mark is durable: who opens the span need not drain
 *   SUSPECT  it was open when power was cut: all its allocated blocks may have been free before
 *   UNTOUCHED  of a large span, which is never open: nobody has had its block yet (media/untouched.h)
 *   version  between: raised whenever TRUST or MARK is taken away, so that no value comes back
 *
 *   closed                   -> MARK -> MARK TRUST       span_open()
 *   MARK TRUST               -> MARK LEFT                span_close_begin()
 *   MARK LEFT                -> MARK TRUST               span_open(), without a drain
 *   MARK LEFT, unchanged     -> closed                   span_close_end(), after flush and drain
 *
 *   operation      who may                          runs beside
 *   open           who owns the span or frees into  all
 *   close_begin    the span's owner                 all but another close_begin
 *   close_end      who did close_begin, any time    all: it does nothing if the span was opened
 *                                                   or closed by another since
 *
 * Spans of one large block are never open: their bit is drained at each change. Nor are suspects. In
 * durability `process` all of it does nothing.
 */
#pragma once

#include "media/heap.h"

#define OPEN_MARK UINT64_C(1)
#define OPEN_TRUST UINT64_C(2)
#define OPEN_SUSPECT UINT64_C(4)
#define OPEN_LEFT UINT64_C(8)
#define OPEN_VERSION UINT64_C(16) /* one step of it */
#define OPEN_UNTOUCHED (UINT64_C(1) << 63)

static inline m64 *span_open_word(struct heap *heap, const struct span_at *at)
{
	return &state_tail(&heap->layout, at->record)->open;
}

/* Whether changes of the span's bits need not be drained. */
static inline bool span_trusted(struct heap *heap, const struct span_at *at)
{
	return media_load64(span_open_word(heap, at)) & OPEN_TRUST;
}

/* Whether it was open when power was cut and nobody has vouched for its blocks since. */
static inline bool span_suspect(struct heap *heap, const struct span_at *at)
{
	return heap->durability == DURABILITY_POWER &&
	       (media_load64(span_open_word(heap, at)) & OPEN_SUSPECT);
}

/* What span_open() does when the span is not open yet. */
void span_open_slow(struct heap *heap, const struct span_at *at);

/* Opens a span, before its first change that is not drained. */
static inline void span_open(struct heap *heap, const struct span_at *at)
{
	if (heap->durability == DURABILITY_POWER && !span_trusted(heap, at))
		span_open_slow(heap, at);
}

/*
 * After a bit of another's span was ORed into `word`: drains it unless the span has stayed open. The OR
 * is a full barrier: if it came before the closer took TRUST away, the closer's flush has the bit;
 * else TRUST is gone here, or another mark is durable.
 */
static inline void span_changed(struct heap *heap, const struct span_at *at, const m64 *word)
{
	if (heap->durability == DURABILITY_POWER && !span_trusted(heap, at))
		media_persist(DURABILITY_POWER, word, sizeof(*word));
}

/* A span that is being closed. */
struct closing {
	char *record; /* its state record */
	uint32_t words; /* of each map */
	uint64_t as;
};

/* Begins to close a span; whether there is anything to close. */
bool span_close_begin(struct heap *heap, const struct span_at *at, struct closing *ret);
/* Forgets, of several, those that were opened since; how many are left, in their order. */
unsigned span_closings_left(struct heap *heap, struct closing *closing, unsigned n);
/* Ends it: drains the bits of those that were not opened since, once for all, then takes their marks
 * away. They need not be the caller's any more, nor the same spans. */
void span_close_end(struct heap *heap, struct closing *closing, unsigned n);
/* All of it. */
void span_close(struct heap *heap, const struct span_at *at);

/* The word of a span that is granted anew in the place of the one that had `before`. */
uint64_t span_open_fresh(uint64_t before);

/* Suspects */

/*
 * After a power cut, before anything else looks at the bits of a span: if it was open, all its
 * blocks are allocated, but those whose limbo bit is durable, which are freed; and it is suspect.
 * Done again after a crash in between, it ends the same. Whether the span is suspect now.
 */
bool span_suspect_load(struct heap *heap, const struct span_at *at);

/* Every allocated block of the span is known to be wanted: it is as any other, durably, and may be
 * adopted. The caller has freed the others and sets the hint. */
void span_suspect_clear(struct heap *heap, const struct span_at *at);
