/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Boost.Interprocess: a managed mapped file, whose handles mean the same in each process. It is C++:
 * alloc_boost.cc has what is called here, by direct calls within the worker.
 */
#pragma once

#include <stdio.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Makes the file (bytes > 0) or opens it. 0, or -1 with a message on stderr. */
int boost_open(const char *path, uint64_t bytes);
void boost_close(void);
void *boost_new(size_t size);
void boost_free(void *p);
/* Where the file is mapped. */
char *boost_base(void);

#ifdef __cplusplus
}
#endif

/* The offset in the file. */
typedef uint64_t block;

static const bool alloc_shared = true;
static char *bench_base;

static inline block block_new(size_t size)
{
	char *p = (char *)boost_new(size);

	return p ? (uint64_t)(p - bench_base) : 0;
}

static inline void *block_address(block b)
{
	return bench_base + b;
}

static inline void block_free(block b)
{
	boost_free(block_address(b));
}

static inline void alloc_path(const struct place *place, char *path, size_t room)
{
	snprintf(path, room, "%s/boost.%d", place->dir, (int)getpgrp());
}

static inline int alloc_prepare(const struct place *place)
{
	char path[512];

	alloc_path(place, path, sizeof(path));
	if (boost_open(path, place->bytes) < 0)
		return -1;
	boost_close();
	return 0;
}

static inline int alloc_open(const struct place *place)
{
	char path[512];

	alloc_path(place, path, sizeof(path));
	if (boost_open(path, 0) < 0)
		return -1;
	bench_base = boost_base();
	return 0;
}

static inline void alloc_close(void)
{
	boost_close();
}

static inline void alloc_remove(const struct place *place)
{
	char path[512];

	alloc_path(place, path, sizeof(path));
	unlink(path);
}
