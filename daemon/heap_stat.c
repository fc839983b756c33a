/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests that look at all of a heap: a count, a map. How full a heap is, is no secret: it need not be open.
 *
 * Both walk the span tables in a thread, beside the loop that goes on granting. The mappings are held by a
 * reference to the heap's service.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/heap_load.h"
#include "daemon/job.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_ops.h"
#include "daemon/recovery.h"

#define CELLS_MAX 512u /* of a map: a reply holds them */

struct look {
	struct job job;
	struct pool *pool;
	struct request *request;
	struct heap_service *heap;
	int (*reply)(struct look *look);
	struct heap_totals totals;
	struct heap_cell *cells; /* of a map */
	size_t n_cells;
	uint64_t first;
	uint64_t per_cell;
};

static int no_memory(struct request *request)
{
	return request_fail(request, -ENOMEM, "the daemon has no memory");
}

static int look_failed(struct look *look, int r)
{
	struct pool *pool = look->pool;

	pool_judge(pool, r, "counting the heap");
	if (pool->damage)
		return request_fail(look->request, -EUCLEAN, "pool %u is damaged: %s", pool->id,
				    pool->damage);
	return request_fail(look->request, r, "pool %u: counting the heap: %s", pool->id,
			    strerror(-r));
}

static void look_done(struct job *job, int r)
{
	struct look *look = container_of(job, struct look, job);

	r = r < 0 ? look_failed(look, r) : look->reply(look);
	request_finish(look->request, r);
	heap_service_unref(look->heap);
	pool_rest(look->pool);
	pool_unref(look->pool);
	free(look->cells);
	free(look);
}

/* Finds the heap and makes what looks at it. 0; REQUEST_PENDING; an error with its text. */
static int look_new(struct look **ret, struct request *request, uint32_t id)
{
	struct look *look;
	struct pool *pool;
	int r;

	r = pool_need(request, id, &pool);
	if (r < 0)
		return r;
	if (pool->record.kind == POOL_REGION)
		return request_fail(request, -EINVAL, "pool %u is a region, not a heap", id);
	/* Who only looks does not wait for a recovery. */
	if (!opening_find(request->session, pool) && recovery_need(request, pool, false) < 0)
		return -EBUSY;
	r = heap_need(request, pool);
	if (r != 0)
		return r;
	look = calloc(1, sizeof(*look));
	if (!look)
		return no_memory(request);
	look->pool = pool_ref(pool);
	look->heap = heap_service_ref(pool->heap);
	look->request = request;
	look->job.done = look_done;
	*ret = look;
	return 0;
}

/* Counting */

static int count_run(struct job *job)
{
	struct look *look = container_of(job, struct look, job);

	return heap_service_count(look->heap, &look->totals);
}

static int reply_classes(struct request *request, Nvmm__HeapInfo *info,
			 const struct heap_totals *totals)
{
	info->classes = request_alloc(request, COUNT_CLASSES * sizeof(*info->classes));
	if (!info->classes)
		return -ENOMEM;
	for (unsigned i = 0; i < COUNT_CLASSES; i++) {
		const struct heap_class_totals *c = &totals->class[i];
		Nvmm__HeapClass *class;

		if (c->spans == 0)
			continue;
		class = request_alloc(request, sizeof(*class));
		if (!class)
			return -ENOMEM;
		nvmm__heap_class__init(class);
		class->block_size = i < CLASS_COUNT ? size_classes[i].size : 0;
		class->spans = c->spans;
		class->bytes = c->bytes;
		class->blocks = c->blocks;
		class->used = c->used;
		class->limbo = c->limbo;
		info->classes[info->n_classes++] = class;
	}
	return 0;
}

static int reply_count(struct look *look)
{
	struct request *request = look->request;
	Nvmm__HeapInfo *info = request_alloc(request, sizeof(*info));
	const struct heap_totals *t = &look->totals;

	if (!info)
		return no_memory(request);
	nvmm__heap_info__init(info);
	info->bytes = t->bytes;
	info->used = t->used;
	info->limbo = t->limbo;
	info->free = t->free;
	info->largest = t->largest;
	info->blocks = t->blocks;
	info->spans = t->spans;
	info->overhead = t->overhead;
	info->suspects = t->suspects;
	info->suspect_bytes = t->suspect_bytes;
	info->lanes = heap_service_lanes_used(look->heap);
	if (reply_classes(request, info, t) < 0)
		return no_memory(request);
	request->reply.result_case = NVMM__REPLY__RESULT_HEAP;
	request->reply.heap = info;
	return 0;
}

int op_heap_stat(struct request *request)
{
	struct look *look;
	int r;

	r = look_new(&look, request, request->msg->heap_stat->id);
	if (r != 0)
		return r;
	look->reply = reply_count;
	look->job.run = count_run;
	job_start(&look->job, request, JOB_LOOK);
	return REQUEST_PENDING;
}

/* Mapping */

static int map_run(struct job *job)
{
	struct look *look = container_of(job, struct look, job);

	return heap_service_map(look->heap, look->first, look->per_cell, look->cells, look->n_cells);
}

static int reply_map(struct look *look)
{
	struct request *request = look->request;
	Nvmm__HeapMapped *map = request_alloc(request, sizeof(*map));
	Nvmm__HeapCell *cells = request_alloc(request, look->n_cells * sizeof(*cells));

	if (!map || !cells)
		return no_memory(request);
	nvmm__heap_mapped__init(map);
	map->units = pool_layout_bytes(&look->pool->shelves) >> UNIT_SHIFT;
	map->cells = request_alloc(request, look->n_cells * sizeof(*map->cells));
	if (!map->cells)
		return no_memory(request);
	for (size_t i = 0; i < look->n_cells; i++) {
		const struct heap_cell *from = &look->cells[i];

		nvmm__heap_cell__init(&cells[i]);
		cells[i].units = from->units;
		cells[i].free = from->free;
		cells[i].small = from->small;
		cells[i].large = from->large;
		cells[i].used = from->used;
		cells[i].limbo = from->limbo;
		cells[i].suspect = from->suspect;
		map->cells[map->n_cells++] = &cells[i];
	}
	request->reply.result_case = NVMM__REPLY__RESULT_HEAP_MAPPED;
	request->reply.heap_mapped = map;
	return 0;
}

int op_heap_map(struct request *request)
{
	const Nvmm__HeapMap *m = request->msg->heap_map;
	struct look *look;
	int r;

	if (m->cells == 0 || m->cells > CELLS_MAX || m->per_cell == 0 ||
	    m->per_cell > POOL_SIZE_MAX >> UNIT_SHIFT || m->first > POOL_SIZE_MAX >> UNIT_SHIFT)
		return request_fail(request, -EINVAL, "a map of %u cells of %" PRIu64 " units: it has 1 to %u",
				    m->cells, m->per_cell, CELLS_MAX);
	r = look_new(&look, request, m->id);
	if (r != 0)
		return r;
	look->first = m->first;
	look->per_cell = m->per_cell;
	look->n_cells = m->cells;
	look->cells = calloc(m->cells, sizeof(*look->cells));
	look->reply = reply_map;
	look->job.run = map_run;
	if (!look->cells) {
		look_done(&look->job, -ENOMEM);
		return REQUEST_PENDING;
	}
	job_start(&look->job, request, JOB_LOOK);
	return REQUEST_PENDING;
}
