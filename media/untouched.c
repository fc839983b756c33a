/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What was never granted.
 *
 * A shelf's file is new where it grows, so it reads zero there, and its only free run says so. What is cut
 * from the end of such a run says it too; a span that is retired does not. The index joins runs of both kinds,
 * so a run is looked at word by word, but no more than WALK of them: who gives up takes it for touched.
 */
#include "media/untouched.h"

#include "media/span.h"

#define WALK 64u

uint64_t untouched_from(const struct heap_shelf *shelf, const struct run *run)
{
	uint64_t unit = run->unit, end = unit + run->length, from = end;

	for (unsigned i = 0; i < WALK && unit < end; i++) {
		struct span s = span_unpack(media_load64(&shelf->table[unit]));

		if (s.kind != SPAN_FREE || s.length == 0 || s.length > end - unit)
			return end;
		if (s.class != FREE_UNTOUCHED)
			from = end;
		else if (from == end)
			from = unit;
		unit += s.length;
	}
	return unit == end ? from : end;
}

bool untouched_take(struct heap *heap, const struct span_at *at)
{
	m64 *word = span_open_word(heap, at);

	if (!(media_load64(word) & OPEN_UNTOUCHED))
		return false;
	/*
	 * COMMIT: the block counts as written.
	 *   crash before: nobody has it yet; it reads zero.
	 *   crash after:  it reads zero, and is cleared once more by who wants it so.
	 *   ordering:     full barrier; comes before the block's bit, and that before any store into it.
	 *   durable:      drained with the block's bit, before the caller knows the block.
	 */
	media_and(word, ~OPEN_UNTOUCHED);
	media_flush(heap->durability, word, sizeof(*word));
	return true;
}
