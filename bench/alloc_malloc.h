/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Allocators of one process: glibc, jemalloc, mimalloc. The worker is linked with the library, whose
 * malloc then is the process's; alloc_open() makes sure that it is. mimalloc is called by its own
 * names, which are the same code.
 */
#pragma once

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(BENCH_MIMALLOC)
#include <mimalloc.h>
#define BENCH_LIBRARY "libmimalloc"
#define bench_malloc mi_malloc
#define bench_free mi_free
#elif defined(BENCH_JEMALLOC)
#define BENCH_LIBRARY "libjemalloc"
#define bench_malloc malloc
#define bench_free free
#else
#define BENCH_LIBRARY "libc.so"
#define bench_malloc malloc
#define bench_free free
#endif

typedef void *block;

static const bool alloc_shared = false;

static inline block block_new(size_t size)
{
	return bench_malloc(size);
}

static inline void block_free(block b)
{
	bench_free(b);
}

static inline void *block_address(block b)
{
	return b;
}

static int alloc_prepare(const struct place *place)
{
	Dl_info info;

	if (!dladdr((void *)(uintptr_t)bench_malloc, &info) ||
	    !strstr(info.dli_fname, BENCH_LIBRARY)) {
		fprintf(stderr, "malloc is not the one of %s\n", BENCH_LIBRARY);
		return -1;
	}
	return 0;
}

static int alloc_open(const struct place *place)
{
	return 0;
}

static void alloc_close(void)
{
}

static void alloc_remove(const struct place *place)
{
}
