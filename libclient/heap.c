/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Heaps: opening, closing, counting. Handles of one connection on one heap share everything: its
 * mappings, and the lanes of its threads.
 */
#include <errno.h>
#include <stdlib.h>

#include "libclient/heap.h"
#include "libclient/options.h"
#include "libclient/pools.h"
#include "media/count.h"

_public int nvmm_heap_create(struct nvmm_client *nvmm, nvmm_pool_id *id, uint64_t bytes,
			     const struct nvmm_pool_options *options)
{
	return pools_create(nvmm, id, NVMM_POOL_HEAP, bytes, options);
}

_public int nvmm_heap_destroy(struct nvmm_client *nvmm, nvmm_pool_id id)
{
	return pools_destroy(nvmm, id, NVMM_POOL_HEAP, false);
}

_public int nvmm_heap_destroy_forced(struct nvmm_client *nvmm, nvmm_pool_id id)
{
	/* Of any kind: there was no other forced call for regions, and programs use this one. */
	return nvmm_pool_destroy(nvmm, id, NVMM_DESTROY_FORCED);
}

_public int nvmm_heap_open(struct nvmm_heap **ret, struct nvmm_client *nvmm, nvmm_pool_id id, int flags)
{
	_entry entry = ENTRY_NONE;
	static const uint64_t none = UINT64_MAX - 1;
	_gate *locked = NULL;
	struct nvmm_heap *heap;
	bool write;
	int r;

	r = enter(&entry, nvmm);
	if (r == 0)
		r = open_flags(nvmm, flags, &write);
	if (r == 0)
		r = pool_lock(nvmm, &locked);
	if (r < 0)
		return r;
	heap = calloc(1, sizeof(*heap));
	if (!heap)
		return nvmm_fail(nvmm, -ENOMEM, "no memory");
	r = pool_open(&heap->handle.pool, nvmm, id, NVMM_POOL_HEAP, write);
	if (r < 0) {
		free(heap);
		return r;
	}
	heap->handle.nvmm = nvmm;
	heap->handle.write = write;
	lanes_key_init(&heap->lanes, write ? lanes_id(heap->handle.pool->lanes) : UINT64_MAX);
	heap->unreserved = write ? reservations_word(lanes_reservations(heap->handle.pool->lanes)) : &none;
	handle_add(&heap->handle);
	*ret = heap;
	return 0;
}

_public void nvmm_heap_close(struct nvmm_heap *heap)
{
	_entry entry = ENTRY_NONE;

	if (!heap)
		return;
	if (enter(&entry, heap->handle.nvmm) == 0) {
		_gate *locked = NULL;

		if (pool_lock(heap->handle.nvmm, &locked) == 0)
			pool_close(heap->handle.pool, heap->handle.write);
	}
	handle_remove(&heap->handle);
	free(heap);
}

int heap_map_all(struct pool *pool)
{
	_gate *locked = NULL;
	struct nvmm_pool_info info;
	struct shelf_map *map;
	int r;

	r = pool_lock(pool->nvmm, &locked);
	if (r == 0)
		r = pools_ask(pool->nvmm, pool->id, &info);
	for (unsigned i = 0; r == 0 && i < info.shelves; i++)
		r = pool_map_shelf(pool, i, &map);
	return r;
}

static int count(struct nvmm_heap *heap, struct heap_totals *ret)
{
	int r = heap_map_all(heap->handle.pool);

	if (r < 0)
		return r;
	r = heap_count(&heap->handle.pool->heap, ret);
	if (r < 0)
		return nvmm_fail(heap->handle.nvmm, r,
				 "heap %u is damaged: its span table cannot be walked",
				 heap->handle.pool->id);
	return 0;
}

_public int nvmm_heap_classes(struct nvmm_heap *heap, struct nvmm_heap_class *classes, size_t n)
{
	_entry entry = ENTRY_NONE;
	struct heap_totals t;
	int found = 0, r;

	r = enter(&entry, heap->handle.nvmm);
	if (r == 0)
		r = count(heap, &t);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < COUNT_CLASSES; i++) {
		const struct heap_class_totals *c = &t.class[i];

		if (c->spans == 0)
			continue;
		if ((size_t)found++ < n)
			classes[found - 1] = (struct nvmm_heap_class){
				.block_size = i < CLASS_COUNT ? size_classes[i].size : 0,
				.spans = c->spans,
				.bytes = c->bytes,
				.blocks = c->blocks,
				.used = c->used,
				.limbo = c->limbo,
			};
	}
	return found;
}

_public int nvmm_heap_shelves(struct nvmm_heap *heap, struct nvmm_shelf *shelves, size_t n)
{
	struct pool *pool = heap->handle.pool;
	_entry entry = ENTRY_NONE;
	_gate *locked = NULL;
	int r;

	r = enter(&entry, heap->handle.nvmm);
	if (r == 0)
		r = heap_map_all(pool);
	if (r == 0)
		r = pool_lock(pool->nvmm, &locked);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < pool->shelves && i < n; i++)
		shelves[i] = (struct nvmm_shelf){
			.addr = pool->map[i]->data.addr,
			/* ordering: relaxed; written under open_lock, which is held. */
			.len = __atomic_load_n(&pool->map[i]->heap.units, __ATOMIC_RELAXED) << UNIT_SHIFT,
			.index = i,
		};
	return (int)pool->shelves;
}

_public int nvmm_heap_stat(struct nvmm_heap *heap, struct nvmm_heap_info *ret)
{
	struct nvmm_client *nvmm = heap->handle.nvmm;
	struct nvmm_heap_info info = { .size = sizeof(info) };
	struct heap_totals t;
	_entry entry = ENTRY_NONE;
	int r;

	r = enter(&entry, nvmm);
	if (r < 0)
		return r;
	if (!info_size_ok(ret->size))
		return nvmm_fail(nvmm, -EINVAL, "set nvmm_heap_info.size before the call");
	r = count(heap, &t);
	if (r < 0)
		return r;
	info.bytes = t.bytes;
	info.used = t.used;
	info.limbo = t.limbo;
	info.free = t.free;
	info.largest = t.largest;
	info.blocks = t.blocks;
	info.spans = t.spans;
	info.overhead = t.overhead;
	info.suspects = t.suspects;
	info.suspect_bytes = t.suspect_bytes;
	info_write(ret, ret->size, &info, sizeof(info));
	return 0;
}
