/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opened pools.
 *
 * The daemon counts at most two openings of a pool for a session, one for reading and one for
 * writing; handles are counted here. A pool is opened at its first handle and closed with its last
 * one, and so are its mappings: an address stays true as long as any handle is there. The opening
 * for writing is kept as long, even if the handle that needed it goes first; what such a handle
 * could allocate from (its lanes) is given back with it.
 *
 * A pool object belongs to one incarnation of its id: as long as it is open here, the daemon gives
 * the id to no other pool.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "libclient/pool.h"

#define RETURN_MAX 256u

int pool_lock(struct nvmm_client *nvmm, struct gate **locked)
{
	int r = gate_enter(&nvmm->open_lock, deadline());

	if (r < 0)
		return nvmm_fail(nvmm, r,
				 "the daemon did not answer another thread's call in time");
	*locked = &nvmm->open_lock;
	return 0;
}

static void pool_set(struct pool *pool)
{
	process_lock();
	pool->nvmm->pools[pool->id] = pool;
	process_unlock();
}

static void pool_unset(struct pool *pool)
{
	process_lock();
	pool->nvmm->pools[pool->id] = NULL;
	process_unlock();
}

static bool pool_sync(const struct pool *pool)
{
	return pool->durability == NVMM_DURABILITY_POWER;
}

/* Forgets a pool in this process; the daemon knows, or will not be told. */
static void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	for (unsigned i = 0; i < POOL_SHELVES_MAX; i++)
		if (pool->map[i]) {
			shelf_map_retract(pool->nvmm, pool->map[i]);
			shelf_map_free(pool->map[i]);
		}
	area_unmap(&pool->lanes_area);
	free(pool);
}

static struct lanes *lanes_detach(struct pool *pool)
{
	struct lanes *lanes;

	process_lock();
	lanes = take(pool->lanes);
	process_unlock();
	return lanes;
}

/* Gives the lanes back: spans to whoever wants them, numbers to the daemon. */
static void lanes_give_back(struct pool *pool)
{
	struct lanes *lanes = lanes_detach(pool);
	uint32_t numbers[RETURN_MAX];
	size_t n;
	int r = 0;

	if (!lanes)
		return;
	lanes_stop(lanes);
	while (r == 0 && (n = lanes_numbers(lanes, numbers, RETURN_MAX)) > 0) {
		_reply reply = NVMM_REPLY_INIT;
		Nvmm__LaneReturn op = NVMM__LANE_RETURN__INIT;
		Nvmm__Request request = NVMM_REQUEST(LANE_RETURN, lane_return, &op);

		op.id = pool->id;
		op.n_lanes = n;
		op.lanes = numbers;
		r = call_daemon(pool->nvmm, &request, NVMM__REPLY__RESULT__NOT_SET, 0, &reply);
	}
	lanes_free(lanes);
}

void pool_add_lanes(struct nvmm_client *nvmm, nvmm_pool_id id, const Nvmm__Lanes *lanes)
{
	struct pool *pool;

	process_lock();
	pool = nvmm->pools[id];
	if (pool && pool->lanes) {
		size_t n = 0;

		while (n < lanes->n_lanes && lanes->lanes[n] < LANES_MAX)
			n++;
		lanes_add_numbers(pool->lanes, lanes->lanes, n);
	}
	process_unlock();
}

static void tell_closed(struct pool *pool, bool write)
{
	_reply reply = NVMM_REPLY_INIT;
	Nvmm__PoolClose op = NVMM__POOL_CLOSE__INIT;
	Nvmm__Request request = NVMM_REQUEST(POOL_CLOSE, pool_close, &op);

	op.id = pool->id;
	op.incarnation = pool->incarnation;
	op.write = write;
	/* If it fails the session's end closes the pool. */
	(void)call_daemon(pool->nvmm, &request, NVMM__REPLY__RESULT__NOT_SET, 0, &reply);
}

static void pool_end(struct pool *pool)
{
	pool_unset(pool);
	if (pool->write_open)
		tell_closed(pool, true);
	if (pool->read_open)
		tell_closed(pool, false);
	pool_free(pool);
}

/* The lanes file grows as lanes come into use; the mapping provides for all that there can be. */
static int take_lanes_file(struct pool *pool, struct nvmm_reply *reply)
{
	int r;

	if (pool->lanes_area.addr)
		return 0;
	r = area_map(&pool->lanes_area, reply->fds[0], lanes_file_size(LANES_MAX), MEDIA_PAGE, true,
		     pool_sync(pool), NULL);
	if (r < 0)
		return nvmm_fail(pool->nvmm, r, "cannot map the lanes of heap %u: %s", pool->id,
				 strerror(-r));
	pool->heap.lanes = (struct lanes_file_df *)(void *)pool->lanes_area.addr;
	return 0;
}

/* What the daemon says of the pool, checked, into a new object or against an old one. */
static int take_info(struct pool *pool, const Nvmm__PoolOpened *opened)
{
	const Nvmm__PoolInfo *info = opened->pool;

	if (!info || info->id != pool->id || info->kind < NVMM_POOL_REGION ||
	    info->kind > NVMM_POOL_HEAP ||
	    (opened->last && opened->last->index >= POOL_SHELVES_MAX) ||
	    (pool->incarnation && info->incarnation != pool->incarnation))
		return nvmm_fail(pool->nvmm, -EPROTO, "the daemon describes pool %u wrongly",
				 pool->id);
	pool->incarnation = info->incarnation;
	pool->kind = (enum nvmm_pool_kind)info->kind;
	pool->durability = (enum nvmm_durability)info->durability;
	pool->min_block = info->min_block;
	pool->bytes = info->size;
	if (opened->last)
		pool->shelves = MAX(pool->shelves, opened->last->index + 1);
	return 0;
}

static int wrong_kind(struct pool *pool)
{
	return nvmm_fail(pool->nvmm, -EINVAL, "pool %u is a %s", pool->id,
			 pool->kind == NVMM_POOL_HEAP ? "heap" : "region");
}

/* Prepares what a heap needs that is newly opened, or opened for writing now. */
static int prepare_heap(struct pool *pool, bool write, struct nvmm_reply *reply)
{
	int r;

	if (pool->heap.pool == 0) {
		r = heap_init(&pool->heap, pool->id, (uint16_t)pool->nvmm->node,
			      pool->durability == NVMM_DURABILITY_POWER ? DURABILITY_POWER
									: DURABILITY_PROCESS,
			      pool->min_block);
		if (r < 0)
			return nvmm_fail(pool->nvmm, -EPROTO, "heap %u: smallest block %u",
					 pool->id, pool->min_block);
	}
	return write ? take_lanes_file(pool, reply) : 0;
}

/* Opens it in the daemon. The object notes what was opened even if more fails. */
static int ask_open(struct pool *pool, unsigned kind, bool write)
{
	_reply reply = NVMM_REPLY_INIT;
	Nvmm__PoolOpen op = NVMM__POOL_OPEN__INIT;
	Nvmm__Request request = NVMM_REQUEST(POOL_OPEN, pool_open, &op);
	int r;

	op.id = pool->id;
	op.write = write;
	r = call_daemon(pool->nvmm, &request, NVMM__REPLY__RESULT_OPENED, NVMM_ANY_FDS, &reply);
	if (r < 0)
		return r;
	if (write)
		pool->write_open = true;
	else
		pool->read_open = true;
	r = take_info(pool, reply.msg->opened);
	if (r < 0)
		return r;
	if (kind && pool->kind != kind)
		return wrong_kind(pool);
	if (reply.n_fds != (pool->kind == NVMM_POOL_HEAP && write ? 1u : 0u))
		return nvmm_fail(pool->nvmm, -EPROTO, "the daemon sent wrong descriptors");
	return pool->kind == NVMM_POOL_HEAP ? prepare_heap(pool, write, &reply) : 0;
}

int pool_ask_shelf(struct pool *pool, unsigned index, bool write, struct nvmm_reply *reply)
{
	Nvmm__ShelfOpen op = NVMM__SHELF_OPEN__INIT;
	Nvmm__Request request = NVMM_REQUEST(SHELF_OPEN, shelf_open, &op);
	const Nvmm__Shelf *s;
	int r;

	if (index >= POOL_SHELVES_MAX)
		return nvmm_fail(pool->nvmm, -ENXIO, "a pool has at most 256 shelves");
	op.id = pool->id;
	op.index = index;
	op.write = write;
	r = call_daemon(pool->nvmm, &request, NVMM__REPLY__RESULT_SHELF,
			pool->kind == NVMM_POOL_HEAP ? 3 : 1, reply);
	if (r < 0)
		return r;
	s = reply->msg->shelf;
	if (s->index != index || s->size == 0 || s->limit < s->size ||
	    s->limit > UINT64_C(1) << 40) {
		nvmm_reply_deinit(reply);
		return nvmm_fail(pool->nvmm, -EPROTO, "the daemon describes shelf %u of pool %u wrongly",
				 index, pool->id);
	}
	pool->shelves = MAX(pool->shelves, index + 1);
	return 0;
}

static int map_new(struct pool *pool, unsigned index, const Nvmm__Shelf *s, const int *fds)
{
	_auto(shelf_map_free) struct shelf_map *map = NULL;
	nvmm_ptr first = (nvmm_ptr)pool->id << 48 | (nvmm_ptr)index << 40;
	struct heap *heap = pool->kind == NVMM_POOL_HEAP ? &pool->heap : NULL;
	int r;

	r = shelf_map_new(&map, pool->nvmm, first, s->size, s->limit, fds, pool->write_open,
			  pool_sync(pool), s->sparse, heap);
	if (r < 0)
		return r;
	r = shelf_map_publish(pool->nvmm, map);
	if (r < 0)
		return r;
	pool->map[index] = take(map);
	if (heap)
		heap_shelf_add(heap, index, &pool->map[index]->heap);
	return 0;
}

static int learn_growth(struct pool *pool, struct shelf_map *map, const Nvmm__Shelf *s)
{
	if (s->limit != map->limit)
		return nvmm_fail(pool->nvmm, -EPROTO, "the daemon moved the limit of a shelf");
	/* ordering: relaxed; a hint whether to store at all. */
	if (pool->kind == NVMM_POOL_HEAP &&
	    s->size >> UNIT_SHIFT > __atomic_load_n(&map->heap.units, __ATOMIC_RELAXED))
		heap_shelf_grow(&pool->heap, &map->heap, s->size >> UNIT_SHIFT);
	return 0;
}

int pool_map_shelf(struct pool *pool, unsigned index, struct shelf_map **ret)
{
	_reply reply = NVMM_REPLY_INIT;
	int r;

	r = pool_ask_shelf(pool, index, pool->write_open, &reply);
	if (r < 0)
		return r;
	if (pool->map[index])
		r = learn_growth(pool, pool->map[index], reply.msg->shelf);
	else
		r = map_new(pool, index, reply.msg->shelf, reply.fds);
	if (r < 0)
		return r;
	*ret = pool->map[index];
	return 0;
}

/* Maps again for writing what is mapped for reading. */
static int upgrade(struct pool *pool)
{
	for (unsigned i = 0; i < pool->shelves; i++) {
		_reply reply = NVMM_REPLY_INIT;
		int r;

		if (!pool->map[i] || pool->map[i]->write)
			continue;
		r = pool_ask_shelf(pool, i, true, &reply);
		if (r == 0)
			r = shelf_map_upgrade(pool->map[i], pool->nvmm, reply.fds, pool_sync(pool),
					      pool->kind == NVMM_POOL_HEAP);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Makes sure that the pool is open in the wanted way. */
static int require(struct pool *pool, unsigned kind, bool write)
{
	int r;

	if (kind && pool->kind != kind)
		return wrong_kind(pool);
	if (!write)
		return 0;
	if (!pool->write_open) {
		r = ask_open(pool, kind, true);
		if (r < 0)
			return r;
	}
	return upgrade(pool);
}

/* Lanes for a heap that has a writer now, and its shelves: what a lane may hold back depends on the
 * size of the heap, and the first allocation need not map. */
static int require_lanes(struct pool *pool)
{
	struct shelf_map *map;
	struct lanes *lanes;
	int r = 0;

	if (pool->kind != NVMM_POOL_HEAP || pool->lanes)
		return 0;
	for (unsigned i = 0; r == 0 && i < pool->shelves; i++)
		if (!pool->map[i])
			r = pool_map_shelf(pool, i, &map);
	if (r < 0)
		return r;
	if (lanes_new(&lanes, pool) < 0)
		return nvmm_fail(pool->nvmm, -ENOMEM, "no memory");
	process_lock();
	pool->lanes = lanes;
	process_unlock();
	return 0;
}

static int pool_new(struct pool **ret, struct nvmm_client *nvmm, nvmm_pool_id id, unsigned kind,
		    bool write)
{
	struct pool *pool;
	int r;

	pool = calloc(1, sizeof(*pool));
	if (!pool)
		return nvmm_fail(nvmm, -ENOMEM, "no memory");
	pool->nvmm = nvmm;
	pool->id = id;
	r = ask_open(pool, kind, write);
	if (r < 0) {
		pool_end(pool);
		return r;
	}
	pool_set(pool);
	*ret = pool;
	return 0;
}

int pool_open(struct pool **ret, struct nvmm_client *nvmm, nvmm_pool_id id, unsigned kind, bool write)
{
	struct pool *pool = nvmm->pools[id];
	int r = 0;

	if (id == 0)
		return nvmm_fail(nvmm, -EINVAL, "0 is not the id of a pool");
	if (pool)
		r = require(pool, kind, write);
	else
		r = pool_new(&pool, nvmm, id, kind, write);
	if (r < 0)
		return r;
	pool->refs++;
	if (write) {
		pool->writers++;
		r = require_lanes(pool);
		if (r < 0) {
			pool_close(pool, write);
			return r;
		}
	}
	*ret = pool;
	return 0;
}

void pool_close(struct pool *pool, bool write)
{
	if (write && --pool->writers == 0)
		lanes_give_back(pool);
	if (--pool->refs == 0)
		pool_end(pool);
}

int pool_open_implicit(struct pool **ret, struct nvmm_client *nvmm, nvmm_pool_id id, bool write)
{
	struct pool *pool = nvmm->pools[id];
	int r;

	if (id == 0)
		return nvmm_fail(nvmm, -EINVAL, "0 is not the id of a pool");
	if (pool) {
		r = require(pool, 0, write);
		if (r == 0)
			*ret = pool;
		return r;
	}
	r = pool_new(&pool, nvmm, id, 0, true);
	if (r == -EACCES && !write)
		r = pool_new(&pool, nvmm, id, 0, false);
	if (r < 0)
		return r;
	pool->refs++;
	pool->implicit = true;
	*ret = pool;
	return 0;
}

int pool_release(struct nvmm_client *nvmm, nvmm_pool_id id)
{
	struct pool *pool = nvmm->pools[id];

	if (id == 0)
		return nvmm_fail(nvmm, -EINVAL, "0 is not the id of a pool");
	if (!pool)
		return 0;
	if (!pool->implicit || pool->refs > 1)
		return nvmm_fail(nvmm, -EBUSY,
				 "a handle on pool %u exists: close it first", id);
	pool->implicit = false;
	pool_close(pool, false);
	return 0;
}

void pools_free_all(struct nvmm_client *nvmm)
{
	for (unsigned id = 1; id <= POOL_ID_MAX; id++) {
		struct pool *pool = nvmm->pools[id];
		struct lanes *lanes;

		if (!pool)
			continue;
		pool_unset(pool);
		lanes = lanes_detach(pool);
		if (lanes)
			lanes_stop(lanes);
		lanes_free(lanes);
		pool_free(pool);
	}
}
