/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Structs that programs pass and that later versions may append fields to. Each begins with its
 * size in bytes as the program was compiled.
 */
#pragma once

#include <errno.h>
#include <stddef.h>
#include <string.h>

/*
 * Copies a program's options of `size` bytes, NULL: none, over zeroes. -EINVAL: the size is smaller
 * than any version's, or the struct is a later version's and asks for what is not known here.
 */
static inline int options_read(void *ret, size_t known, const void *options, size_t size)
{
	const unsigned char *p = options;

	memset(ret, 0, known);
	if (!options)
		return 0;
	if (size < known || size > 4096)
		return -EINVAL;
	for (size_t i = known; i < size; i++)
		if (p[i])
			return -EINVAL;
	memcpy(ret, options, known);
	return 0;
}

/* Whether a program's result struct has a size that can be: it holds its own size field. */
static inline int info_size_ok(size_t size)
{
	return size > sizeof(size_t) && size <= 4096;
}

/* Fills a program's struct of `size` bytes as far as it goes; its size field stays. What a later
 * version has and this one does not know becomes zero. */
static inline void info_write(void *dst, size_t size, const void *info, size_t known)
{
	const size_t head = sizeof(size_t);
	size_t n = size < known ? size : known;

	memcpy((char *)dst + head, (const char *)info + head, n - head);
	if (size > known)
		memset((char *)dst + known, 0, size - known);
}
