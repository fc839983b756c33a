/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Parsers and formatters of what people write and read.
 *
 * Parsers take the whole string or nothing: no leading blanks, no signs, no trailing rest, and no
 * dependence on the locale; so what a configuration file or a command line means does not depend
 * on who starts the program. Sums are checked before they are made, never after.
 */
#include "common/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/macro.h"

#define FRACTION_DIGITS_MAX 9

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Reads digits up to the first that is none. -EINVAL: there is none; -ERANGE: over max. */
static int parse_digits(uint64_t *ret, const char **text, uint64_t max)
{
	const char *p = *text;
	bool over = false;
	uint64_t v = 0;

	if (!is_digit(*p))
		return -EINVAL;
	for (; is_digit(*p); p++) {
		uint64_t digit = (uint64_t)(*p - '0');

		if (digit > max || v > (max - digit) / 10)
			over = true;
		else
			v = v * 10 + digit;
	}
	*text = p;
	if (over)
		return -ERANGE;
	*ret = v;
	return 0;
}

int text_parse_u64(uint64_t *ret, const char *text, uint64_t max)
{
	const char *end = text;
	uint64_t v = 0;
	int r;

	r = parse_digits(&v, &end, max);
	if (*end != '\0')
		return -EINVAL;
	if (r < 0)
		return r;
	*ret = v;
	return 0;
}

/* Shift of a unit "", "B", "K", "KB", "KiB" and so on; -EINVAL: no unit. */
static int parse_unit(const char *text)
{
	static const char letters[] = "KMGT";
	const char *letter;

	if (*text == '\0' || strcmp(text, "B") == 0)
		return 0;
	letter = strchr(letters, *text >= 'a' && *text <= 'z' ? *text - 'a' + 'A' : *text);
	if (!letter)
		return -EINVAL;
	text++;
	if (*text != '\0' && strcmp(text, "B") != 0 && strcmp(text, "iB") != 0)
		return -EINVAL;
	return (int)(letter - letters + 1) * 10;
}

/* Reads ".5" as a numerator and its power of ten; nothing there is 0/1. */
static int parse_fraction(uint64_t *ret_num, uint64_t *ret_den, const char **text)
{
	uint64_t num = 0, den = 1;
	int digits = 0;

	if (**text == '.') {
		(*text)++;
		for (; is_digit(**text); (*text)++, digits++) {
			if (digits >= FRACTION_DIGITS_MAX)
				return -EINVAL;
			num = num * 10 + (uint64_t)(**text - '0');
			den *= 10;
		}
		if (digits == 0)
			return -EINVAL;
	}
	*ret_num = num;
	*ret_den = den;
	return 0;
}

int text_parse_size(uint64_t *ret, const char *text)
{
	uint64_t whole = 0, num, den, bytes;
	int range, shift, r;

	range = parse_digits(&whole, &text, INT64_MAX);
	if (range == -EINVAL)
		return range;
	r = parse_fraction(&num, &den, &text);
	if (r < 0)
		return r;
	if (text[0] == ' ' && text[1] != '\0')
		text++;
	shift = parse_unit(text);
	if (shift < 0)
		return shift;
	if (shift == 0 && den != 1)
		return -EINVAL;
	if (range < 0 || whole > ((uint64_t)INT64_MAX >> shift))
		return -ERANGE;
	/* num < den <= 10^9 and shift <= 40: split, so that the product stays below 2^63 */
	bytes = num << (shift / 2);
	bytes = (bytes / den << (shift - shift / 2)) +
		((bytes % den << (shift - shift / 2)) / den);
	bytes += whole << shift;
	if (bytes > INT64_MAX)
		return -ERANGE;
	*ret = bytes;
	return 0;
}

const char *text_format_size(char *buf, size_t len, uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	uint64_t whole = bytes, rest = 0;
	unsigned unit = 0;

	if (bytes < 1024) {
		snprintf(buf, len, "%" PRIu64 " B", bytes);
		return buf;
	}
	while (whole >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		rest = whole % 1024;
		whole /= 1024;
		unit++;
	}
	rest = (rest * 10 + 512) / 1024;
	if (rest == 10) {
		rest = 0;
		whole++;
	}
	if (whole == 1024 && unit + 1 < ARRAY_SIZE(units)) {
		whole = 1;
		unit++;
	}
	snprintf(buf, len, "%" PRIu64 ".%" PRIu64 " %s", whole, rest, units[unit]);
	return buf;
}

int text_parse_mode(uint32_t *ret, const char *text)
{
	uint32_t mode = 0;
	size_t n;

	for (n = 0; text[n] >= '0' && text[n] <= '7' && n < 4; n++)
		mode = mode << 3 | (uint32_t)(text[n] - '0');
	if (n < 3 || text[n] != '\0' || (mode & ~0666u) != 0)
		return -EINVAL;
	*ret = mode;
	return 0;
}

int text_copy(char *dst, size_t len, const char *src)
{
	size_t n = strlen(src);

	if (n >= len)
		return -ENAMETOOLONG;
	memcpy(dst, src, n);
	memset(dst + n, 0, len - n);
	return 0;
}

/* Bytes of the character that starts with `first`, its smallest code point, and its first bits. */
static size_t utf8_start(uint32_t *ret_min, uint32_t *ret_bits, uint8_t first)
{
	if (first < 0x80) {
		*ret_min = 0;
		*ret_bits = first;
		return 1;
	}
	if ((first & 0xe0) == 0xc0) {
		*ret_min = 0x80;
		*ret_bits = first & 0x1f;
		return 2;
	}
	if ((first & 0xf0) == 0xe0) {
		*ret_min = 0x800;
		*ret_bits = first & 0x0f;
		return 3;
	}
	if ((first & 0xf8) == 0xf0) {
		*ret_min = 0x10000;
		*ret_bits = first & 0x07;
		return 4;
	}
	return 0;
}

size_t text_utf8(uint32_t *ret, const char *text, size_t len)
{
	uint32_t min = 0, c = 0;
	size_t n;

	if (len == 0)
		return 0;
	n = utf8_start(&min, &c, (uint8_t)text[0]);
	if (n == 0 || n > len)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if (((uint8_t)text[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | ((uint8_t)text[i] & 0x3f);
	}
	if (c < min || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	*ret = c;
	return n;
}

bool text_is_control(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0);
}

/* Code points without a shape of their own, in order: Unicode's default ignorable ones and format controls,
 * line and paragraph separators, fillers, interlinear marks, noncharacters of the first plane. */
static const struct {
	uint32_t first, last;
} hidden[] = {
	{ 0x00ad, 0x00ad },   /* soft hyphen */
	{ 0x034f, 0x034f },   /* grapheme joiner */
	{ 0x0600, 0x0605 },   /* number signs that enclose what follows */
	{ 0x061c, 0x061c },   /* Arabic letter mark */
	{ 0x06dd, 0x06dd },
	{ 0x070f, 0x070f },
	{ 0x0890, 0x0891 },
	{ 0x08e2, 0x08e2 },
	{ 0x115f, 0x1160 },   /* Hangul fillers */
	{ 0x17b4, 0x17b5 },
	{ 0x180b, 0x180f },   /* Mongolian selectors */
	{ 0x200b, 0x200f },   /* zero width, direction marks */
	{ 0x2028, 0x202e },   /* separators, embeddings, overrides */
	{ 0x2060, 0x206f },   /* joiners, isolates, deprecated controls */
	{ 0x2800, 0x2800 },   /* blank Braille pattern */
	{ 0x3164, 0x3164 },   /* Hangul filler */
	{ 0xfdd0, 0xfdef },   /* noncharacters */
	{ 0xfe00, 0xfe0f },   /* variation selectors */
	{ 0xfeff, 0xfeff },   /* byte order mark */
	{ 0xffa0, 0xffa0 },   /* Hangul filler */
	{ 0xfff0, 0xfffb },   /* interlinear annotation */
	{ 0x110bd, 0x110bd },
	{ 0x110cd, 0x110cd },
	{ 0x13430, 0x1343f }, /* hieroglyph format controls */
	{ 0x1bca0, 0x1bca3 }, /* shorthand format controls */
	{ 0x1d173, 0x1d17a }, /* musical format controls */
	{ 0xe0000, 0xe0fff }, /* tags, variation selectors */
};

bool text_is_shown(uint32_t c)
{
	size_t i = 0;

	if (text_is_control(c) || (c & 0xfffe) == 0xfffe)
		return false;
	while (i < ARRAY_SIZE(hidden) && hidden[i].last < c)
		i++;
	return i == ARRAY_SIZE(hidden) || c < hidden[i].first;
}

bool text_is_blank(uint32_t c)
{
	return c == ' ' || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x202f ||
	       c == 0x205f || c == 0x3000;
}
