/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mapping shelves.
 *
 * Address space is set aside first, without memory and without access, for all that a shelf may
 * become; the file is mapped over it for that whole length. Pages behind the file's end cannot be
 * touched until it has grown, and then are there without another call: growth in place costs the
 * other processes nothing. A shelf that was mapped for reading and is then opened for writing is
 * mapped again over itself, so that addresses which the program holds stay true.
 *
 * Publication. An entry of the tables is stored with release after what it leads to was filled;
 * readers load it with acquire and take no lock. Entries are cleared before the unmapping; who
 * translates a pointer of a pool while its last handle is being closed has no right to.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "libclient/mapping.h"
#include "libclient/shelf.h"

#ifndef MAP_SYNC
#define MAP_SYNC 0x80000
#endif
#ifndef MAP_SHARED_VALIDATE
#define MAP_SHARED_VALIDATE 3
#endif

/* Address space at a multiple of `align`, without access. */
static int set_aside(struct area *ret, size_t len, size_t align)
{
	size_t slack = align > MEDIA_PAGE ? align : 0;
	uintptr_t start, aligned;
	void *p;

	if (len + slack < len)
		return -ENOMEM;
	p = mapping_new(NULL, len + slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	if (p == MAP_FAILED)
		return -errno;
	start = (uintptr_t)p;
	aligned = slack ? ALIGN_UP(start, (uintptr_t)align) : start;
	if (aligned > start)
		munmap(p, aligned - start);
	if (start + len + slack > aligned + len)
		munmap((void *)(aligned + len), start + slack - aligned);
	*ret = (struct area){ .addr = (char *)aligned, .len = len };
	return 0;
}

/* Maps the file over the area. With `sync` the file system vouches that flushed bytes are found
 * again (MAP_SYNC); where it cannot, the daemon has judged the medium already. */
static int map_over(const struct area *area, int fd, size_t len, bool write, bool sync)
{
	int prot = PROT_READ | (write ? PROT_WRITE : 0);
	void *p = MAP_FAILED;

	if (sync && write)
		p = mapping_new(area->addr, len, prot, MAP_SHARED_VALIDATE | MAP_SYNC, fd);
	if (p == MAP_FAILED)
		p = mapping_new(area->addr, len, prot, MAP_SHARED, fd);
	return p == MAP_FAILED ? -errno : 0;
}

int area_map(struct area *ret, int fd, size_t len, size_t align, bool write, bool sync, void *at)
{
	struct area area = { .addr = at, .len = ALIGN_UP(len, align) };
	int r;

	if (!at) {
		r = set_aside(&area, ALIGN_UP(len, align), align);
		if (r < 0)
			return r;
	}
	r = map_over(&area, fd, ALIGN_UP(len, (size_t)MEDIA_PAGE), write, sync);
	if (r < 0) {
		if (!at)
			area_unmap(&area);
		return r;
	}
	*ret = area;
	return 0;
}

void area_unmap(struct area *area)
{
	if (area->addr)
		munmap(area->addr, area->len);
	*area = (struct area){ .addr = NULL };
}

static int no_room(struct nvmm_client *nvmm, int r, uint64_t len)
{
	if (r == -ENOMEM)
		return nvmm_fail(nvmm, r,
				 "no address space for %llu bytes of a shelf: raise ulimit -v or "
				 "vm.max_map_count",
				 (unsigned long long)len);
	if (r == -EAGAIN)
		return nvmm_fail(nvmm, r,
				 "cannot map a shelf: mlockall() is in force and this process is at its "
				 "limit on locked memory (ulimit -l)");
	return nvmm_fail(nvmm, r, "cannot map a shelf: %s", strerror(-r));
}

static void heap_shelf_set(struct shelf_map *map, uint64_t size)
{
	heap_shelf_init(&map->heap, map->table.addr, map->state.addr, size >> UNIT_SHIFT,
			map->limit >> UNIT_SHIFT, map->sparse);
}

static int map_heap_files(struct shelf_map *map, struct nvmm_client *nvmm, const int *fds, bool sync,
			  const struct heap *heap)
{
	uint64_t units = map->limit >> UNIT_SHIFT;
	uint64_t table = map->sparse ? sparse_table_size(units) : table_file_size(units);
	uint64_t state = state_file_size(&heap->layout, units, units);
	int r;

	r = area_map(&map->table, fds[1], table, MEDIA_PAGE, false, false, NULL);
	if (r < 0)
		return no_room(nvmm, r, table);
	r = area_map(&map->state, fds[2], state, MEDIA_PAGE, map->write, sync, NULL);
	if (r < 0)
		return no_room(nvmm, r, state);
	return 0;
}

int shelf_map_new(struct shelf_map **ret, struct nvmm_client *nvmm, nvmm_ptr first, uint64_t size,
		  uint64_t limit, const int *fds, bool write, bool sync, bool sparse,
		  struct heap *heap)
{
	_auto(shelf_map_free) struct shelf_map *map = NULL;
	int r;

	if (size == 0 || limit < size || limit > (UINT64_C(1) << 40))
		return nvmm_fail(nvmm, -EPROTO, "the daemon names impossible sizes of a shelf");
	map = calloc(1, sizeof(*map));
	if (!map)
		return nvmm_fail(nvmm, -ENOMEM, "no memory");
	map->first = first;
	map->limit = limit;
	map->write = write;
	map->sparse = sparse;
	r = area_map(&map->data, fds[0], limit, SHELF_GRANULE, write, sync, NULL);
	if (r < 0)
		return no_room(nvmm, r, limit);
	if (heap) {
		r = map_heap_files(map, nvmm, fds, sync, heap);
		if (r < 0)
			return r;
		heap_shelf_set(map, size);
	}
	*ret = take(map);
	return 0;
}

void shelf_map_free(struct shelf_map *map)
{
	if (!map)
		return;
	area_unmap(&map->state);
	area_unmap(&map->table);
	area_unmap(&map->data);
	free(map);
}

int shelf_map_upgrade(struct shelf_map *map, struct nvmm_client *nvmm, const int *fds, bool sync,
		      bool heap)
{
	int r;

	r = map_over(&map->data, fds[0], ALIGN_UP(map->limit, (uint64_t)MEDIA_PAGE), true, sync);
	if (r == 0 && heap)
		r = map_over(&map->state, fds[2], map->state.len, true, sync);
	if (r < 0)
		return no_room(nvmm, r, map->limit);
	map->write = true;
	return 0;
}

static void set_granules(struct nvmm_client *nvmm, const struct shelf_map *map, struct shelf_map *value)
{
	uintptr_t from = (uintptr_t)map->data.addr >> SHELF_GRANULE_SHIFT;
	uintptr_t to = from + (map->data.len >> SHELF_GRANULE_SHIFT);

	for (uintptr_t i = from; i < to; i++)
		/* ordering: release; pairs with the acquire in nvmm_global(). */
		__atomic_store_n(&nvmm->shelf_at[i], value, __ATOMIC_RELEASE);
}

int shelf_map_publish(struct nvmm_client *nvmm, struct shelf_map *map)
{
	nvmm_pool_id pool = nvmm_ptr_pool(map->first);
	char **shelves = nvmm->shelf_base[pool];

	if ((uintptr_t)map->data.addr + map->data.len > UINT64_C(1) << ADDRESS_BITS)
		return nvmm_fail(nvmm, -ENOMEM, "the shelf was mapped above 2^%d", ADDRESS_BITS);
	if (!shelves) {
		shelves = calloc(POOL_SHELVES_MAX, sizeof(*shelves));
		if (!shelves)
			return nvmm_fail(nvmm, -ENOMEM, "no memory");
		/* ordering: release; pairs with the first acquire in nvmm_local(). */
		__atomic_store_n(&nvmm->shelf_base[pool], shelves, __ATOMIC_RELEASE);
	}
	set_granules(nvmm, map, map);
	/* ordering: release; pairs with the second acquire in nvmm_local(). */
	__atomic_store_n(&shelves[nvmm_ptr_shelf(map->first)], map->data.addr, __ATOMIC_RELEASE);
	return 0;
}

void shelf_map_retract(struct nvmm_client *nvmm, struct shelf_map *map)
{
	char **shelves = nvmm->shelf_base[nvmm_ptr_pool(map->first)];

	if (!shelves)
		return;
	/* ordering: release; as in shelf_map_publish(); the unmapping comes after. */
	__atomic_store_n(&shelves[nvmm_ptr_shelf(map->first)], NULL, __ATOMIC_RELEASE);
	set_granules(nvmm, map, NULL);
}
