/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * word 0: serial   word 1: size   word i: of both and i
 *
 * Long blocks have words at both ends and one in each page between: where two blocks overlap, they do
 * so by whole classes or units.
 */
#include "tests/stress/stamp.h"

#define STEP UINT64_C(0x9e3779b97f4a7c15)
#define DENSE 64u  /* words at either end */
#define SPARSE 512u

/* The word behind i that has a stamp. */
static size_t next_word(size_t i, size_t n)
{
	if (i + 1 < DENSE || i + 1 + DENSE >= n)
		return i + 1;
	return i + SPARSE + DENSE < n ? i + SPARSE : n - DENSE;
}

/* Volatile: others read and write it, if something is wrong or in an epoch. */
void stamp_write(void *block, size_t size, uint64_t serial)
{
	volatile uint64_t *word = block;
	size_t n = size / 8;

	word[0] = serial;
	word[1] = size;
	for (size_t i = 2; i < n; i = next_word(i, n))
		word[i] = serial + i * STEP;
}

bool stamp_whole(const void *block)
{
	const volatile uint64_t *word = block;
	uint64_t serial = word[0];
	size_t n = word[1] / 8;

	if (n < 2 || n > UINT64_C(1) << 24)
		return false;
	for (size_t i = 2; i < n; i = next_word(i, n))
		if (word[i] != serial + i * STEP)
			return false;
	return word[0] == serial;
}

uint64_t stamp_serial(const void *block)
{
	return *(const volatile uint64_t *)block;
}

void stamp_spoil(void *block)
{
	volatile uint64_t *word = block;

	word[0] ^= STEP;
}
