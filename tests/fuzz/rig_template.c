/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See rig_template.h. The process ends without closing anything, so that lanes, logs and limbo are left as
 * a death leaves them, which the daemon then settles.
 */
#include "tests/fuzz/rig_template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fcntl.h>
#include <nvmm/client.h>

#include "tests/fuzz/rig.h"

static void fail(struct nvmm_client *nvmm, const char *what)
{
	fprintf(stderr, "template: %s: %s\n", what, nvmm_errmsg(nvmm));
	_exit(1);
}

static struct nvmm_heap *make_heap(struct nvmm_client *nvmm, nvmm_pool_id id, uint64_t size,
				   struct nvmm_pool_options options)
{
	struct nvmm_heap *heap = NULL;

	options.size = sizeof(options);
	if (nvmm_heap_create(nvmm, &id, size, &options) < 0 || nvmm_heap_open(&heap, nvmm, id, O_RDWR) < 0)
		fail(nvmm, "heap");
	return heap;
}

static void make_region(struct nvmm_client *nvmm, nvmm_pool_id id, mode_t mode)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .mode = mode };
	struct nvmm_region *region;
	void *addr = NULL;

	if (nvmm_region_create(nvmm, &id, 65536, &options) < 0 ||
	    nvmm_region_open(&region, nvmm, id, O_RDWR) < 0 ||
	    nvmm_region_map(region, NULL, 65536, PROT_READ | PROT_WRITE, 0, 0, &addr) < 0)
		fail(nvmm, "region");
	memset(addr, 0x5a, 65536);
}

/* Blocks of many classes: kept, freed, in limbo, reserved. */
static void fill(struct nvmm_client *nvmm, struct nvmm_heap *heap, unsigned n)
{
	nvmm_ptr ptr, kept = NVMM_NULL;

	for (unsigned i = 0; i < n; i++) {
		ptr = nvmm_alloc(heap, (size_t)16 << i % 12);
		if (ptr == NVMM_NULL)
			fail(nvmm, "alloc");
		if (i % 5 == 1)
			nvmm_free(heap, ptr);
		else if (i % 5 == 2)
			nvmm_free_deferred(heap, ptr);
		else
			kept = ptr;
	}
	if (nvmm_root_set(heap, "kept", kept) < 0)
		fail(nvmm, "root");
	for (unsigned i = 0; i < 3; i++)
		if (nvmm_reserve(heap, 100) == NVMM_NULL)
			fail(nvmm, "reserve");
}

static void canary(struct nvmm_client *nvmm)
{
	struct nvmm_heap *heap =
		make_heap(nvmm, RIG_CANARY_HEAP, 1 << 20, (struct nvmm_pool_options){ .name = "canary" });
	nvmm_ptr ptr;

	for (unsigned i = 0; i < TEMPLATE_CANARY_BLOCKS; i++) {
		ptr = nvmm_alloc(heap, 16 + i * 40);
		if (ptr == NVMM_NULL)
			fail(nvmm, "alloc");
		memset(nvmm_local(nvmm, ptr), (int)i, 16);
	}
	make_region(nvmm, RIG_CANARY_REGION, 0600);
}

void template_client(unsigned user, const char *socket)
{
	struct nvmm_options options = { .size = sizeof(options), .socket = socket };
	struct nvmm_client *nvmm;

	if (nvmm_connect(&nvmm, &options) < 0)
		fail(NULL, "connect");
	if (user == RIG_CANARY) {
		canary(nvmm);
	} else if (user == 1) {
		fill(nvmm, make_heap(nvmm, RIG_HEAP, 2 << 20,
				     (struct nvmm_pool_options){ .name = "heap", .mode = 0666 }), 60);
		fill(nvmm, make_heap(nvmm, RIG_POWER, 1 << 20,
				     (struct nvmm_pool_options){ .mode = 0666, .smallest_block = 64,
								 .durability = NVMM_DURABILITY_POWER }), 30);
		make_region(nvmm, RIG_REGION, 0666);
	} else {
		fill(nvmm, make_heap(nvmm, RIG_SPARSE, 16 << 20,
				     (struct nvmm_pool_options){ .name = "sparse", .mode = 0666,
								 .sparse = true }), 40);
		make_region(nvmm, RIG_SECRET, 0600);
	}
}
