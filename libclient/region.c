/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Regions: pools that are mapped as they are.
 *
 * A region's bytes are those of its shelves, one behind the other: a region has one shelf unless it
 * grew beyond what a shelf can hold. Each mapping asks the daemon for the descriptors that it needs
 * and closes them once mapped, so an open region costs no descriptor, and the daemon's answer says
 * how large the shelf is by now.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libclient/pool.h"
#include "libclient/pools.h"
#include "libclient/range.h"

struct nvmm_region {
	struct handle handle; /* first */
	uint64_t bytes;       /* as last heard of; atomic */
};

_public int nvmm_region_create(struct nvmm_client *nvmm, nvmm_pool_id *id, uint64_t bytes,
			       const struct nvmm_pool_options *options)
{
	return pools_create(nvmm, id, NVMM_POOL_REGION, bytes, options);
}

_public int nvmm_region_destroy(struct nvmm_client *nvmm, nvmm_pool_id id)
{
	return pools_destroy(nvmm, id, NVMM_POOL_REGION, false);
}

_public int nvmm_region_destroy_forced(struct nvmm_client *nvmm, nvmm_pool_id id)
{
	return pools_destroy(nvmm, id, NVMM_POOL_REGION, true);
}

_public int nvmm_region_open(struct nvmm_region **ret, struct nvmm_client *nvmm, nvmm_pool_id id,
			     int flags)
{
	_entry entry = ENTRY_NONE;
	_gate *locked = NULL;
	struct nvmm_region *region;
	bool write;
	int r;

	r = enter(&entry, nvmm);
	if (r == 0)
		r = open_flags(nvmm, flags, &write);
	if (r == 0)
		r = pool_lock(nvmm, &locked);
	if (r < 0)
		return r;
	region = calloc(1, sizeof(*region));
	if (!region)
		return nvmm_fail(nvmm, -ENOMEM, "no memory");
	r = pool_open(&region->handle.pool, nvmm, id, NVMM_POOL_REGION, write);
	if (r < 0) {
		free(region);
		return r;
	}
	region->handle.nvmm = nvmm;
	region->handle.write = write;
	region->bytes = region->handle.pool->bytes;
	handle_add(&region->handle);
	*ret = region;
	return 0;
}

_public void nvmm_region_close(struct nvmm_region *region)
{
	_entry entry = ENTRY_NONE;

	if (!region)
		return;
	if (enter(&entry, region->handle.nvmm) == 0) {
		_gate *locked = NULL;

		if (pool_lock(region->handle.nvmm, &locked) == 0)
			pool_close(region->handle.pool, region->handle.write);
	}
	handle_remove(&region->handle);
	free(region);
}

/* The bytes asked for, as parts of shelves. */
struct plan {
	struct segment segments[POOL_SHELVES_MAX];
	size_t n;
};

static void plan_deinit(struct plan *plan)
{
	for (size_t i = 0; i < plan->n; i++)
		close(plan->segments[i].fd);
}

/* Adds what of [offset, offset + len) lies in shelf `index`; returns how much, moving both behind
 * it. */
static int plan_shelf(struct plan *plan, struct pool *pool, unsigned index, bool write,
		      uint64_t *offset, size_t *len)
{
	_reply reply = NVMM_REPLY_INIT;
	uint64_t size;
	size_t part;
	int r;

	r = pool_ask_shelf(pool, index, write, &reply);
	if (r < 0)
		return r;
	size = reply.msg->shelf->size;
	if (*offset >= size) {
		*offset -= size;
		return 0;
	}
	part = (size_t)MIN(size - *offset, (uint64_t)*len);
	plan->segments[plan->n++] =
		(struct segment){ .fd = reply.fds[0], .offset = *offset, .len = part };
	reply.fds[0] = -1;
	*offset = 0;
	*len -= part;
	return 0;
}

static int plan_make(struct plan *plan, struct pool *pool, bool write, uint64_t offset, size_t len)
{
	int r;

	for (unsigned i = 0; len > 0; i++) {
		r = plan_shelf(plan, pool, i, write, &offset, &len);
		if (r == -ENXIO)
			return nvmm_fail(pool->nvmm, -EINVAL, "the range ends behind the region");
		if (r < 0)
			return r;
	}
	return 0;
}

static int map_plan(struct nvmm_region *region, void *hint, size_t len, int prot, int flags,
		    uint64_t offset, void **ret)
{
	struct nvmm_client *nvmm = region->handle.nvmm;
	_cleanup(plan_deinit) struct plan plan = { .n = 0 };
	_gate *locked = NULL;
	int r;

	r = pool_lock(nvmm, &locked);
	if (r == 0)
		r = plan_make(&plan, region->handle.pool, prot & PROT_WRITE, offset, len);
	if (r < 0)
		return r;
	return range_map(nvmm, hint, prot, flags, plan.segments, plan.n, ret);
}

_public int nvmm_region_map(struct nvmm_region *region, void *hint, size_t len, int prot, int flags,
			    uint64_t offset, void **ret)
{
	struct nvmm_client *nvmm = region->handle.nvmm;
	_entry entry = ENTRY_NONE;
	int r;

	r = enter(&entry, nvmm);
	if (r == 0)
		r = range_check(nvmm, len, prot, flags);
	if (r < 0)
		return r;
	if (offset % MEDIA_PAGE || offset > NVMM_SIZE_MAX)
		return nvmm_fail(nvmm, -EINVAL, "the offset must be a multiple of %u", MEDIA_PAGE);
	if ((prot & PROT_WRITE) && !region->handle.write)
		return nvmm_fail(nvmm, -EACCES, "region %u was opened O_RDONLY",
				 region->handle.pool->id);
	return map_plan(region, hint, len, prot, flags, offset, ret);
}

_public int nvmm_region_unmap(struct nvmm_region *region, void *addr, size_t len)
{
	_entry entry = ENTRY_NONE;
	int r;

	r = enter(&entry, region->handle.nvmm);
	if (r < 0)
		return r;
	return range_unmap(region->handle.nvmm, addr, len);
}

_public uint64_t nvmm_region_size(struct nvmm_region *region)
{
	struct nvmm_pool_info info;
	_entry entry = ENTRY_NONE;

	if (enter(&entry, region->handle.nvmm) == 0 &&
	    pools_ask(region->handle.nvmm, region->handle.pool->id, &info) == 0)
		/* ordering: relaxed; a number by itself. */
		__atomic_store_n(&region->bytes, info.bytes, __ATOMIC_RELAXED);
	/* ordering: relaxed; as above. */
	return __atomic_load_n(&region->bytes, __ATOMIC_RELAXED);
}
