/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libpmemobj by its atomic (non-transactional) calls. A pool is open in one process at a time, so
 * each process has one of its own.
 */
#pragma once

#include <libpmemobj.h>
#include <stdio.h>
#include <unistd.h>

typedef uint64_t block;

static const bool alloc_shared = false;
static PMEMobjpool *bench_pop;
static uint64_t bench_pop_id;

static inline block block_new(size_t size)
{
	PMEMoid oid;

	return pmemobj_alloc(bench_pop, &oid, size, 1, NULL, NULL) == 0 ? oid.off : 0;
}

static inline void block_free(block b)
{
	PMEMoid oid = { bench_pop_id, b };

	pmemobj_free(&oid);
}

static inline void *block_address(block b)
{
	return (char *)bench_pop + b;
}

static void alloc_path(const struct place *place, char *path, size_t room)
{
	snprintf(path, room, "%s/pmemobj.%d", place->dir, (int)getpid());
}

static int alloc_prepare(const struct place *place)
{
	return 0;
}

static int alloc_open(const struct place *place)
{
	char path[512];
	PMEMoid root;

	alloc_path(place, path, sizeof(path));
	bench_pop = pmemobj_create(path, "bench", place->bytes, 0600);
	/* It holds the file open: the name is needed no more. */
	unlink(path);
	if (!bench_pop) {
		fprintf(stderr, "%s: %s\n", path, pmemobj_errormsg());
		return -1;
	}
	root = pmemobj_root(bench_pop, 64);
	bench_pop_id = root.pool_uuid_lo;
	return 0;
}

static void alloc_close(void)
{
	pmemobj_close(bench_pop);
}

static void alloc_remove(const struct place *place)
{
}
