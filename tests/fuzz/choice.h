/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An input as a stream of decisions. A generator takes each decision from the next bytes, so every input
 * is a valid program for it, and a small change of the input is a small change of the program. After the
 * last byte every decision is 0.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct choice {
	const uint8_t *at;
	size_t left;
};

static inline struct choice choice_of(const uint8_t *data, size_t len)
{
	return (struct choice){ .at = data, .left = len };
}

static inline bool choice_done(const struct choice *c)
{
	return c->left == 0;
}

static inline uint8_t choose_byte(struct choice *c)
{
	if (c->left == 0)
		return 0;
	c->left--;
	return *c->at++;
}

/* The next `n` bytes (at most 8) as a number. */
static inline uint64_t choose_bytes(struct choice *c, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n; i++)
		v = v << 8 | choose_byte(c);
	return v;
}

/* A number below `sides`, which is not 0. */
static inline uint32_t choose(struct choice *c, uint64_t sides)
{
	unsigned n = sides <= 256 ? 1 : sides <= 65536 ? 2 : 4;

	return (uint32_t)(choose_bytes(c, n) % sides);
}

/* A number of any size: small ones, those at borders, and any. */
static inline uint64_t choose_number(struct choice *c)
{
	static const uint64_t borders[] = {
		0, 1, 2, 63, 64, 65, 127, 128, 255, 256, 4095, 4096, 4097, 16383, 16384, 16385, 65535, 65536,
		1 << 20, (1 << 20) + 1, 4 << 20, INT32_MAX, UINT64_C(1) << 31, UINT32_MAX, UINT64_C(1) << 32,
		UINT64_C(1) << 40, UINT64_C(1) << 47, INT64_MAX, UINT64_C(1) << 63, UINT64_MAX - 1, UINT64_MAX,
	};

	switch (choose(c, 4)) {
	case 0:
		return choose(c, 16);
	case 1:
		return borders[choose(c, sizeof(borders) / sizeof(borders[0]))];
	case 2:
		return choose_bytes(c, 2);
	default:
		return choose_bytes(c, 1 + choose(c, 8));
	}
}
