/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Blocks: allocation and freeing.
 *
 * The fast path is a lookup of the thread's lane and the lane's own work, without a lock and
 * without the daemon. The slow path finds the thread a lane. What idle threads of any process hold
 * back, and lanes whose threads ended, the daemon takes back by itself before it says that a heap
 * is full.
 */
#include <errno.h>
#include <string.h>

#include "libclient/block.h"
#include "libclient/epochs.h"
#include "libclient/source.h"
#include "media/lane_quick.h"
#include "media/limbo.h"

int block_lane(struct nvmm_heap *heap, struct lane **ret)
{
	struct nvmm_client *nvmm = heap->handle.nvmm;
	_entry entry = ENTRY_NONE;
	int r;

	r = enter(&entry, nvmm);
	if (r < 0)
		return r;
	if (!heap->handle.write)
		return nvmm_fail(nvmm, -EROFS, "heap %u was opened O_RDONLY",
				 heap->handle.pool->id);
	return lanes_acquire(heap->handle.pool->lanes, ret);
}

static int late(const struct pool *pool)
{
	return nvmm_fail(pool->nvmm, -ETIMEDOUT,
			 "heap %u: nvmmd did not answer in time: it is stopped, or busy", pool->id);
}

static int lost(const struct pool *pool)
{
	return nvmm_fail(pool->nvmm, -ECONNRESET,
			 "heap %u: the daemon does not know this session any more and has settled its "
			 "lanes; disconnect and connect anew",
			 pool->id);
}

/* Says what failed; the source's own failures have their text already. */
static int alloc_text(struct nvmm_heap *heap, size_t size, int r)
{
	struct nvmm_client *nvmm = heap->handle.nvmm;
	unsigned id = heap->handle.pool->id;

	switch (r) {
	case -ENOSPC:
		/* Of a sparse heap the daemon has said what is short: the heap, a limit, the base. */
		if (heap->handle.pool->map[0] && heap->handle.pool->map[0]->sparse)
			return r;
		return nvmm_fail(nvmm, r, "heap %u has no room for %zu bytes: free some, or grow it",
				 id, size);
	case -EINVAL:
		return nvmm_fail(nvmm, r, "a block of %zu bytes cannot be in any heap", size);
	case -EDEADLK:
		return nvmm_fail(nvmm, r,
				 "called from a signal handler that interrupted the allocator");
	case -ETIMEDOUT:
		return late(heap->handle.pool);
	case -ESTALE:
		return lost(heap->handle.pool);
	case -ENXIO:
		return nvmm_fail(nvmm, -EUCLEAN, "heap %u is damaged: a span ends behind its shelf",
				 id);
	default:
		return r;
	}
}

_noinline nvmm_ptr block_failed(struct nvmm_heap *heap, size_t size, int r)
{
	errno = -alloc_text(heap, size, r);
	return NVMM_NULL;
}

/* What the fast path leaves: the thread's first allocation in this heap for a while, and all that is not
 * ordinary. */
static _noinline nvmm_ptr alloc_slow(struct nvmm_heap *heap, size_t size)
{
	struct lane *lane = lanes_find(&heap->lanes);
	nvmm_ptr ptr;
	int r = size == 0 ? -EINVAL : lane ? 0 : block_lane(heap, &lane);

	if (r < 0)
		return block_failed(heap, size, r);
	ptr = lane_alloc_more(lane, size);
	return ptr ? ptr : block_failed(heap, size, lane_error(lane));
}

_public nvmm_ptr nvmm_alloc(struct nvmm_heap *heap, size_t size)
{
	struct lane *lane = lanes_find(&heap->lanes);
	nvmm_ptr ptr = lane ? lane_alloc_quick(lane, size) : NVMM_NULL;

	return _likely(ptr != NVMM_NULL) ? ptr : alloc_slow(heap, size);
}

/* Whether a block that was just allocated is known to read zero: one of units that nobody ever had. */
static bool is_clear(struct nvmm_heap *heap, nvmm_ptr ptr, size_t size)
{
	const struct lane *lane = size > CLASS_SIZE_MAX ? lanes_find(&heap->lanes) : NULL;

	return lane && lane_gave_clear(lane, ptr);
}

_public nvmm_ptr nvmm_zalloc(struct nvmm_heap *heap, size_t size)
{
	nvmm_ptr ptr = nvmm_alloc(heap, size);
	void *p;
	int error;

	if (_unlikely(ptr == NVMM_NULL))
		return NVMM_NULL;
	p = nvmm_local(heap->handle.nvmm, ptr);
	if (_unlikely(!p)) {
		error = errno;
		(void)nvmm_free(heap, ptr);
		errno = error;
		return NVMM_NULL;
	}
	if (!is_clear(heap, ptr, size))
		memset(p, 0, size);
	return ptr;
}

_noinline int free_text(const struct pool *pool, nvmm_ptr ptr, int r)
{
	struct nvmm_client *nvmm = pool->nvmm;
	unsigned id = pool->id;

	switch (r) {
	case -EINVAL:
		return nvmm_fail(nvmm, r, "%#llx is not the start of a block of heap %u",
				 (unsigned long long)ptr, id);
	case -EALREADY:
		return nvmm_fail(nvmm, r, "the block %#llx of heap %u is free already",
				 (unsigned long long)ptr, id);
	case -EBUSY:
		return nvmm_fail(nvmm, r,
				 "the block %#llx of heap %u is reserved: nvmm_cancel() frees it",
				 (unsigned long long)ptr, id);
	case -EDEADLK:
		return nvmm_fail(nvmm, r,
				 "called from a signal handler that interrupted the allocator");
	case -ETIMEDOUT:
		return late(pool);
	case -ESTALE:
		return lost(pool);
	default:
		return r;
	}
}

/* What the fast path leaves. */
static _noinline int free_more(struct lane *lane, uint64_t ptr)
{
	const struct pool *pool = lane_ctx(lane);
	int r = ptr == NVMM_NULL ? 0 : lane_free_more(lane, ptr);

	return r == 0 ? 0 : free_text(pool, ptr, r);
}

/* The thread's first in this heap for a while, or something is reserved. */
static _noinline int free_slow(struct nvmm_heap *heap, nvmm_ptr ptr)
{
	struct lane *lane = lanes_find(&heap->lanes);
	struct pool *pool = heap->handle.pool;
	int r = lane || ptr == NVMM_NULL ? 0 : block_lane(heap, &lane);

	if (r < 0 || ptr == NVMM_NULL)
		return r;
	if (!block_reserved(heap))
		return free_more(lane, ptr);
	r = lane_dealloc_unreserved(lane, lanes_reservations(pool->lanes), ptr);
	return r == 0 ? 0 : free_text(pool, ptr, r);
}

_public int nvmm_free(struct nvmm_heap *heap, nvmm_ptr ptr)
{
	/* ordering: relaxed; as in block_reserved(). */
	uint64_t id = __atomic_load_n(heap->unreserved, __ATOMIC_RELAXED);
	struct lane *lane = lanes_find_as(&heap->lanes, id);

	return _likely(lane) ? lane_free_quick(lane, ptr, free_more) : free_slow(heap, ptr);
}

/* The thread's lane, and the connection's epochs to wake the daemon by. */
static _noinline int defer_ready(struct nvmm_heap *heap, struct lane **lane,
				 struct epochs **epochs)
{
	int r = block_lane(heap, lane);

	return r < 0 || *epochs ? r : epochs_need(heap->handle.nvmm, epochs);
}

/* The block is in limbo, the lane entered: what the watch word says is that the daemon does not look. */
static _noinline int defer_wake(struct nvmm_heap *heap, struct lane *lane, struct epochs *epochs,
				uint64_t watch)
{
	epochs_wake(epochs);
	limbo_woken(&heap->handle.pool->heap, watch);
	lane_deferred(lane);
	return 0;
}

/* What the fast path leaves. */
static _noinline int defer_slow(struct nvmm_heap *heap, nvmm_ptr ptr)
{
	struct epochs *epochs = epochs_of(heap->handle.nvmm);
	struct lane *lane = lanes_find(&heap->lanes);
	struct pool *pool = heap->handle.pool;
	uint64_t watch;
	bool wake;
	int r;

	if (ptr == NVMM_NULL)
		return 0;
	r = lane && epochs ? 0 : defer_ready(heap, &lane, &epochs);
	if (r < 0)
		return r;
	r = block_reserved(heap) ?
		    lane_defer_unreserved(lane, lanes_reservations(pool->lanes), ptr, &wake, &watch) :
		    lane_defer_more(lane, ptr, &wake, &watch);
	if (r < 0)
		return free_text(pool, ptr, r);
	return wake ? defer_wake(heap, lane, epochs, watch) : 0;
}

_public int nvmm_free_deferred(struct nvmm_heap *heap, nvmm_ptr ptr)
{
	/* ordering: relaxed; as in block_reserved(). */
	uint64_t id = __atomic_load_n(heap->unreserved, __ATOMIC_RELAXED);
	struct epochs *epochs = epochs_of(heap->handle.nvmm);
	struct lane *lane = lanes_find_as(&heap->lanes, id);
	uint64_t watch;

	if (_unlikely(!lane || !epochs || !lane_defer_quick(lane, ptr, &watch)))
		return defer_slow(heap, ptr);
	return _likely(limbo_watched(watch)) ? 0 : defer_wake(heap, lane, epochs, watch);
}

int block_find(struct nvmm_heap *heap, nvmm_ptr ptr, struct span_at *at, uint32_t *index)
{
	struct pool *pool = heap->handle.pool;
	int r;

	if (nvmm_ptr_pool(ptr) != pool->id)
		return -EINVAL;
	r = heap_block(&pool->heap, ptr, at, index);
	if (r != -ENXIO)
		return r;
	r = lane_source.resolve(pool, ref_of_ptr(ptr));
	if (r < 0)
		return r;
	return heap_block(&pool->heap, ptr, at, index);
}

static bool bit(const m64 *map, uint32_t index)
{
	/* ordering: acquire; a free of this block that happened before is seen. */
	return media_load_acquire(&map[index / 64]) >> (index % 64) & 1;
}

bool block_allocated(struct nvmm_heap *heap, const struct span_at *at, uint32_t index)
{
	const struct state_layout *l = &heap->handle.pool->heap.layout;

	return bit(state_alloc(at->record), index) && !bit(state_limbo(l, at->record), index) &&
	       !bit(state_remote(l, at->record), index);
}

_public size_t nvmm_usable_size(struct nvmm_heap *heap, nvmm_ptr ptr)
{
	struct span_at at;
	uint32_t index;

	if (block_find(heap, ptr, &at, &index) < 0 || !block_allocated(heap, &at, index))
		return 0;
	return at.block_size;
}
