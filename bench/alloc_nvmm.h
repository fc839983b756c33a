/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nvmm: a heap that is there already; its name says its durability.
 */
#pragma once

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include <nvmm/client.h>

typedef nvmm_ptr block;

static const bool alloc_shared = true;
static struct nvmm_client *bench_nvmm;
static struct nvmm_heap *bench_heap;

static inline block block_new(size_t size)
{
	return nvmm_alloc(bench_heap, size);
}

static inline void block_free(block b)
{
	nvmm_free(bench_heap, b);
}

static inline void *block_address(block b)
{
	return nvmm_local(bench_nvmm, b);
}

static int alloc_fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, nvmm_errmsg(bench_nvmm));
	return -1;
}

static void alloc_close(void)
{
	nvmm_heap_close(bench_heap);
	nvmm_disconnect(bench_nvmm);
	bench_heap = NULL;
	bench_nvmm = NULL;
}

static int alloc_open(const struct place *place)
{
	nvmm_pool_id id;
	int r;

	if (nvmm_connect(&bench_nvmm, NULL) < 0)
		return alloc_fail("connect");
	r = nvmm_pool_lookup(bench_nvmm, place->heap, &id);
	if (r == 0)
		r = nvmm_heap_open(&bench_heap, bench_nvmm, id, O_RDWR);
	return r < 0 ? alloc_fail(place->heap) : 0;
}

static int alloc_prepare(const struct place *place)
{
	int r = alloc_open(place);

	alloc_close();
	return r;
}

/* The heap stays for the next worker. */
static void alloc_remove(const struct place *place)
{
}
