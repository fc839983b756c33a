/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Text of sizes, modes and bounded strings.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * "128MiB", "1G", "4096", "1.5TiB": K, M, G, T are powers of 1024, with or without "iB" or "B".
 * -EINVAL: not a size; -ERANGE: over 2^63-1.
 */
int text_parse_size(uint64_t *ret, const char *text);

/* "128.0 MiB" into buf (32 bytes are enough); returns buf. */
const char *text_format_size(char *buf, size_t len, uint64_t bytes);

/* An octal mode of rw bits, "0640" or "640". -EINVAL: other bits or no number. */
int text_parse_mode(uint32_t *ret, const char *text);

/* Decimal, whole string. -EINVAL; -ERANGE: over max. */
int text_parse_u64(uint64_t *ret, const char *text, uint64_t max);

/* Copies into a field of `len` bytes, zero-padded. -ENAMETOOLONG: does not fit with its NUL. */
int text_copy(char *dst, size_t len, const char *src);

/*
 * Length of the UTF-8 character at text[0..len), its code point in *ret; 0: none that is valid
 * (overlong, a surrogate, over U+10FFFF, cut short, or len is 0).
 */
size_t text_utf8(uint32_t *ret, const char *text, size_t len);

/* Whether a code point is a control character (C0, DEL, C1). */
bool text_is_control(uint32_t c);
/* Whether it is none, and is one that is seen: it does not turn the direction of text, join, vary or fill
 * without a shape of its own, and is not a noncharacter. */
bool text_is_shown(uint32_t c);
/* Whether it is a space of any width. */
bool text_is_blank(uint32_t c);
