/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pointers to addresses and back.
 *
 * nvmm_local() is inline in the public header: two loads. What it does not find comes here, once
 * for each shelf: the pool is opened if it has no handle, the shelf mapped and entered into the
 * tables. nvmm_global() is one load of a table by the address's 64 MiB granule, since shelves share
 * none.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libclient/pool.h"
#include "libclient/range.h"

/* -ERANGE: behind the end of the shelf. */
static int find(struct nvmm_client *nvmm, nvmm_ptr ptr, char **ret)
{
	_entry entry = ENTRY_NONE;
	_gate *locked = NULL;
	struct shelf_map *map;
	struct pool *pool;
	int r;

	r = enter(&entry, nvmm);
	if (r == 0)
		r = pool_lock(nvmm, &locked);
	if (r == 0)
		r = pool_open_implicit(&pool, nvmm, nvmm_ptr_pool(ptr), false);
	if (r < 0)
		return r;
	map = pool->map[nvmm_ptr_shelf(ptr)];
	if (!map) {
		r = pool_map_shelf(pool, nvmm_ptr_shelf(ptr), &map);
		if (r < 0)
			return r;
	}
	if (nvmm_ptr_offset(ptr) >= map->limit)
		return nvmm_fail(nvmm, -ERANGE, "%#llx points behind its shelf",
				 (unsigned long long)ptr);
	*ret = map->data.addr + nvmm_ptr_offset(ptr);
	return 0;
}

_public void *nvmm_local_slow(struct nvmm_client *nvmm, nvmm_ptr ptr)
{
	char *p = NULL;
	int r;

	if (ptr == NVMM_NULL)
		return NULL;
	r = find(nvmm, ptr, &p);
	if (r < 0) {
		errno = -r;
		return NULL;
	}
	return p;
}

_public nvmm_ptr nvmm_global(struct nvmm_client *nvmm, const void *addr)
{
	uintptr_t granule = (uintptr_t)addr >> SHELF_GRANULE_SHIFT;
	const struct shelf_map *map;
	uint64_t offset;

	if (granule >> (ADDRESS_BITS - SHELF_GRANULE_SHIFT))
		return NVMM_NULL;
	/* ordering: acquire; pairs with the release in set_granules(). */
	map = __atomic_load_n(&nvmm->shelf_at[granule], __ATOMIC_ACQUIRE);
	if (!map)
		return NVMM_NULL;
	offset = (uintptr_t)addr - (uintptr_t)map->data.addr;
	return offset < map->limit ? map->first + offset : NVMM_NULL;
}

static int map_one(struct nvmm_client *nvmm, nvmm_ptr ptr, size_t len, void *hint, int prot, int flags,
		   void **ret)
{
	_reply reply = NVMM_REPLY_INIT;
	_gate *locked = NULL;
	struct segment segment;
	struct pool *pool;
	uint64_t size;
	int r;

	r = pool_lock(nvmm, &locked);
	if (r == 0)
		r = pool_open_implicit(&pool, nvmm, nvmm_ptr_pool(ptr), prot & PROT_WRITE);
	if (r == 0)
		r = pool_ask_shelf(pool, nvmm_ptr_shelf(ptr), prot & PROT_WRITE, &reply);
	if (r < 0)
		return r;
	size = reply.msg->shelf->size;
	if (nvmm_ptr_offset(ptr) >= size || len > size - nvmm_ptr_offset(ptr))
		return nvmm_fail(nvmm, -EINVAL, "the range ends behind its shelf");
	segment = (struct segment){ .fd = reply.fds[0],
				    .offset = nvmm_ptr_offset(ptr),
				    .len = len,
				    .sparse = reply.msg->shelf->sparse };
	return range_map(nvmm, hint, prot, flags, &segment, 1, ret);
}

_public int nvmm_map(struct nvmm_client *nvmm, nvmm_ptr ptr, size_t len, void *hint, int prot, int flags,
		     void **ret)
{
	_entry entry = ENTRY_NONE;
	int r;

	r = enter(&entry, nvmm);
	if (r == 0)
		r = range_check(nvmm, len, prot, flags);
	if (r < 0)
		return r;
	if (nvmm_ptr_offset(ptr) % MEDIA_PAGE)
		return nvmm_fail(nvmm, -EINVAL, "the pointer must be at a multiple of %u bytes",
				 MEDIA_PAGE);
	return map_one(nvmm, ptr, len, hint, prot, flags, ret);
}

_public int nvmm_unmap(struct nvmm_client *nvmm, void *addr, size_t len)
{
	_entry entry = ENTRY_NONE;
	int r;

	r = enter(&entry, nvmm);
	if (r < 0)
		return r;
	return range_unmap(nvmm, addr, len);
}
