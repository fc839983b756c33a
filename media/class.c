/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Size classes and the length of their spans.
 *
 * The table is written out by macros, so that it is constant data: size, and the reciprocal that
 * turns an offset into a block's index without a division. With recip = ceil(2^64 / size) the index is the
 * upper half of offset * recip, and the offset is a multiple of the size just if the lower half is less than
 * recip (Lemire, Kaser and Kurz, "Faster remainder by direct computation", 2019): exact for offsets of N bits
 * and sizes of 64 - N. Spans are at most 2^20 bytes, blocks at most 2^17.
 */
#include "media/class.h"

#include "common/macro.h"
#include "media/format.h"

_Static_assert(UNIT_SHIFT == 14, "class_span_blocks() has it too");

#define CLASS(bytes) { .size = (bytes), .recip = UINT64_MAX / (bytes) + 1 }
#define DOUBLING(from) \
	CLASS((from) / 4 * 5), CLASS((from) / 4 * 6), CLASS((from) / 4 * 7), CLASS((from) * 2)

const struct size_class size_classes[CLASS_COUNT] = {
	CLASS(16),      CLASS(24),      CLASS(32),       CLASS(40),
	CLASS(48),      CLASS(56),      CLASS(64),       DOUBLING(64),
	DOUBLING(128),  DOUBLING(256),  DOUBLING(512),   DOUBLING(1024),
	DOUBLING(2048), DOUBLING(4096), DOUBLING(8192),  DOUBLING(16384),
	DOUBLING(32768), DOUBLING(65536),
};

#define SPAN_BYTES_WANTED (128u << 10)
#define SPAN_BLOCKS_WANTED 128u
#define SPAN_BLOCKS_LEAST 8u

/* Bytes of a span that no block can have. */
static uint64_t span_waste(unsigned class, uint32_t units, uint32_t bits)
{
	uint64_t blocks = class_span_blocks(class, units, bits);

	return (uint64_t)units * UNIT_SIZE - blocks * size_classes[class].size;
}

/* Bytes that a span should have: up to 128 blocks in 128 KiB, but not less than 8 blocks. */
static uint64_t span_wanted(uint64_t size, uint32_t bits)
{
	uint64_t blocks = MIN(SPAN_BLOCKS_WANTED, bits);
	uint64_t most = MIN(size * blocks, (uint64_t)SPAN_BYTES_WANTED);

	return MAX(most, size * SPAN_BLOCKS_LEAST);
}

uint32_t class_span_units(unsigned class, uint32_t bits, uint32_t most)
{
	uint64_t size = size_classes[class].size;
	uint32_t least = (uint32_t)DIV_UP(size, UNIT_SIZE);
	uint32_t first = (uint32_t)(span_wanted(size, bits) / UNIT_SIZE);
	uint32_t best;

	most = MIN(most, CLASS_SPAN_UNITS_MAX);
	most = MAX(most, least);
	first = MIN(first, most);
	first = MAX(first, least);
	best = first;
	for (uint32_t units = first; units <= most; units++) {
		uint64_t waste = span_waste(class, units, bits);

		if (waste * 64 <= units * UNIT_SIZE)
			return units;
		if (waste * best < span_waste(class, best, bits) * units)
			best = units;
	}
	return best;
}
