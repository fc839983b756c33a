/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Size classes: which block size serves a request, and how many units a span of it has.
 *
 * 8-byte steps from 16 to 64, then four classes a doubling to 128 KiB: neighbours are at most 25 %
 * apart, powers of two are classes, and a request that is a multiple of 16 gets a class that is
 * one. A heap whose smallest block is B starts at class_of(B). Spans have as many blocks as the
 * state record of one unit has bits, at most; their length is chosen for many blocks a span, and so
 * that at most 1/64 of them is left over. Pure functions of constants; the span word carries class and length, so that the
 * choice may change without changing what is on media.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLASS_COUNT 51u
#define CLASS_LARGE 63u /* a span of one block of whole units */
#define CLASS_SIZE_MAX (UINT32_C(128) << 10)
#define CLASS_SPAN_UNITS_MAX 64u

struct size_class {
	uint64_t size;  /* bytes of a block */
	uint64_t recip; /* ceil(2^64 / size) */
};

extern const struct size_class size_classes[CLASS_COUNT];

/* The smallest class that holds `size` bytes; 1 <= size <= CLASS_SIZE_MAX. */
static inline unsigned class_of(size_t size)
{
	unsigned shift;

	if (size <= 64)
		return size <= 16 ? 0 : (unsigned)((size - 9) >> 3);
	/* The two bits behind the highest of size - 1 choose among a doubling's four classes. */
	shift = 61u - (unsigned)__builtin_clzll(size - 1);
	return (unsigned)(((size - 1) >> shift) + (shift - 4) * 4 + 3);
}

/* Which block `offset` bytes into a span of at most 2^20 bytes lies in; *start: it is the block's first byte. */
static inline uint64_t recip_index(uint64_t recip, uint64_t offset, bool *start)
{
	__extension__ unsigned __int128 product = (unsigned __int128)offset * recip;

	*start = (uint64_t)product < recip;
	return (uint64_t)(product >> 64);
}

static inline uint32_t class_index(unsigned class, uint64_t offset)
{
	bool start;

	return (uint32_t)recip_index(size_classes[class].recip, offset, &start);
}

/* Units of a span of this class in a heap whose records have `bits` bits; `most`: no longer than that if
 * a block fits (a small heap's spans are short). */
uint32_t class_span_units(unsigned class, uint32_t bits, uint32_t most);

/* Blocks in a span of `units`, at most CLASS_SPAN_UNITS_MAX. */
static inline uint32_t class_span_blocks(unsigned class, uint32_t units, uint32_t bits)
{
	uint32_t fit = class_index(class, (uint64_t)units << 14);

	return fit < bits ? fit : bits;
}
