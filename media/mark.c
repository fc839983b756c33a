/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Open marks and suspects.
 *
 * Opening drains once; then owner and freers change bits by plain stores and ORs, without a flush.
 * Closing is in two steps, which may be far apart: a lane ends many closings by one drain, and a
 * span that somebody opens in between costs neither a flush nor a drain. In between, and for as long as
 * the closer likes, the mark stands: that is conservative. The word's value at the first step decides the
 * last one: if it is unchanged, nobody has opened the span since, so each change since then was
 * drained by its maker.
 *
 * A mark is never cleared before the drain, not even in a cache: a line may reach the medium by itself.
 */
#include "media/mark.h"

#include "media/fault.h"

void span_open_slow(struct heap *heap, const struct span_at *at)
{
	m64 *word = span_open_word(heap, at);
	uint64_t w;

	if (at->span.kind != SPAN_SMALL)
		return;
	do {
		w = media_load64(word);
		if (w & (OPEN_TRUST | OPEN_SUSPECT))
			return;
		if (!(w & OPEN_LEFT)) {
			/* ordering: full barrier; the flush comes after it. */
			if (!(w & OPEN_MARK) && !media_cas(word, w, w | OPEN_MARK))
				continue;
			w |= OPEN_MARK;
			if (!FAULT(OPEN_UNDRAINED))
				media_persist(DURABILITY_POWER, word, sizeof(*word));
		}
		/*
		 * COMMIT: the span is open.
		 *   crash before: a mark that nobody relied on: the span's blocks become suspect.
		 *   crash after:  the same, and now some of its bits may be lost.
		 *   ordering:     full barrier; every change of bits that is not drained comes after
		 *                 it. It fails if a closer ended in between and cleared the mark.
		 *   durable:      TRUST itself means nothing on the medium.
		 */
	} while (!media_cas(word, w, (w & ~OPEN_LEFT) | OPEN_TRUST));
}

/* Flushes `words` words of each map of a state record. */
static void flush_maps(struct heap *heap, char *record, uint32_t words)
{
	size_t len = words * sizeof(m64);

	if (heap->layout.limbo <= MEDIA_LINE / 2) {
		media_flush(DURABILITY_POWER, record, heap->layout.limbo + len);
	} else {
		media_flush(DURABILITY_POWER, record, len);
		media_flush(DURABILITY_POWER, record + heap->layout.limbo, len);
	}
	media_flush(DURABILITY_POWER, record + heap->layout.remote, len);
}

bool span_close_begin(struct heap *heap, const struct span_at *at, struct closing *ret)
{
	m64 *word = span_open_word(heap, at);
	uint64_t w, closed;

	if (heap->durability != DURABILITY_POWER)
		return false;
	do {
		w = media_load64(word);
		if (!(w & OPEN_MARK) || (w & OPEN_SUSPECT))
			return false;
		closed = (w & ~OPEN_TRUST) + OPEN_VERSION;
		/* The mark was durable before anybody trusted it. */
		if (w & OPEN_TRUST)
			closed |= OPEN_LEFT;
		/* ordering: full barrier; pairs with the OR before span_changed(): either the flush of
		 * span_close_end() has the freer's bit, or the freer finds TRUST gone. */
	} while (!media_cas(word, w, closed));
	*ret = (struct closing){ .record = at->record, .words = span_words(at), .as = closed };
	return true;
}

static m64 *closing_word(struct heap *heap, const struct closing *c)
{
	return &state_tail(&heap->layout, c->record)->open;
}

/* The bits are drained. */
static void close_one(struct heap *heap, const struct closing *c)
{
	m64 *word = closing_word(heap, c);

	/*
	 * COMMIT: the span is closed; its bits are exact.
	 *   crash before: it counts as open.
	 *   crash after:  as before until the word reaches the medium; then its bits count, and
	 *                 they are there: what was changed before `as` was stored is drained, who changed
	 *                 one later has drained it or has not returned.
	 *   ordering:     full barrier; fails if the span was opened, closed or granted anew since.
	 *   durable:      whenever it likes: the caller need not wait.
	 */
	if (media_cas(word, c->as, (c->as & ~(OPEN_MARK | OPEN_LEFT)) + OPEN_VERSION))
		media_flush(DURABILITY_POWER, word, sizeof(*word));
}

unsigned span_closings_left(struct heap *heap, struct closing *closing, unsigned n)
{
	unsigned left = 0;

	for (unsigned i = 0; i < n; i++)
		if (media_load64(closing_word(heap, &closing[i])) == closing[i].as)
			closing[left++] = closing[i];
	return left;
}

void span_close_end(struct heap *heap, struct closing *closing, unsigned n)
{
	unsigned left = span_closings_left(heap, closing, n);

	for (unsigned i = 0; i < left && !FAULT(CLOSE_UNFLUSHED); i++)
		flush_maps(heap, closing[i].record, closing[i].words);
	if (left > 0)
		media_drain(DURABILITY_POWER);
	for (unsigned i = 0; i < left; i++)
		close_one(heap, &closing[i]);
}

void span_close(struct heap *heap, const struct span_at *at)
{
	struct closing closing;

	if (span_close_begin(heap, at, &closing))
		span_close_end(heap, &closing, 1);
}

uint64_t span_open_fresh(uint64_t before)
{
	return ((before & ~(OPEN_VERSION - 1)) + 2 * OPEN_VERSION) & ~OPEN_UNTOUCHED;
}

/* Suspects */

static void put_persist(m64 *word, uint64_t value)
{
	/* ordering: release; more than it needs, nobody else uses the heap yet. */
	media_store_release(word, value);
	media_persist(DURABILITY_POWER, word, sizeof(*word));
}

bool span_suspect_load(struct heap *heap, const struct span_at *at)
{
	m64 *word = span_open_word(heap, at);
	uint64_t version = media_load64(word) & ~(OPEN_VERSION - 1);
	m64 *alloc = state_alloc(at->record);
	const m64 *limbo = state_limbo(&heap->layout, at->record);
	m64 *remote = state_remote(&heap->layout, at->record);

	if (heap->durability != DURABILITY_POWER || at->span.kind != SPAN_SMALL)
		return false;
	if (!(media_load64(word) & OPEN_MARK))
		return media_load64(word) & OPEN_SUSPECT;
	for (uint32_t w = 0; w < span_words(at); w++) {
		uint64_t valid = span_valid(at, w);

		media_store64(&alloc[w], valid);
		media_store64(&remote[w], media_load64(&limbo[w]) & valid);
	}
	flush_maps(heap, at->record, span_words(at));
	media_drain(DURABILITY_POWER);
	/*
	 * COMMIT: the span's bits are exact again; which of its blocks were free is not known.
	 *   crash before: MARK says so: the same is made of the same limbo bits, which do not change.
	 *   crash after:  a suspect; its bits are drained at each change.
	 *   durable:      drained before the span is used.
	 */
	put_persist(word, version + OPEN_VERSION + OPEN_SUSPECT);
	return true;
}

void span_suspect_clear(struct heap *heap, const struct span_at *at)
{
	m64 *word = span_open_word(heap, at);
	uint64_t w = media_load64(word);

	/*
	 * COMMIT: the span is one like others.
	 *   crash before: its allocated blocks are suspects, the freed ones of them free.
	 *   crash after:  it can be adopted.
	 *   ordering:     release; pairs with the claim of who adopts it.
	 */
	if (w & OPEN_SUSPECT)
		put_persist(word, (w & ~(OPEN_VERSION - 1)) + OPEN_VERSION);
}
