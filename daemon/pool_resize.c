/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Growing a pool.
 *
 *   loop    record RESIZING, with the size that is wanted
 *   thread  files longer, further files made, all reserved; a heap's further shelves mapped
 *   loop    a heap's new units brought into service; shelf records from the last to the first: the
 *           first is the commit (pool_layout.c); record LIVE; the reply
 *
 * A crash before the commit leaves shelf records that add up to the old size: files are cut back to
 * them at the next start, and the record loses the mark of the request, so that a retry is done
 * anew. After it they add up to what the record wants: it becomes LIVE as it is. Clients go on
 * meanwhile, and learn of new units only from this daemon, after the commit.
 *
 * Whatever may fail for want of something comes before new units are brought into service: then all is taken
 * back, and the pool serves as before. What fails later is the medium: the pool is damaged.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "daemon/heap_load.h"
#include "daemon/job.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_files.h"
#include "daemon/pool_ops.h"

struct resize {
	struct job job;
	struct pool *pool;
	struct request *request;
	int pool_fd;
	struct heap_service *heap; /* NULL: a region */
	struct heap_growth *growth;
	char damage[HEAP_DAMAGE_LEN];
	struct reservation reservation;
	struct pool_record before;
	struct pool_shelves now;
	struct pool_shelves to;
	uint32_t first; /* the first shelf that differs */
};

static void resize_free(struct resize *resize)
{
	heap_growth_free(resize->growth);
	heap_service_unref(resize->heap);
	fd_close_p(&resize->pool_fd);
	free(resize);
}

static int resize_run(struct job *job)
{
	struct resize *resize = container_of(job, struct resize, job);
	int r;

	reservation_enter(&resize->reservation);
	r = pool_files_grow(resize->pool_fd, &resize->before, &resize->now, &resize->to);
	reservation_leave(&resize->reservation);
	if (r < 0 || !resize->heap)
		return r;
	r = heap_service_grow_map(&resize->growth, resize->heap, resize->pool_fd, &resize->now,
				  &resize->to, resize->damage);
	if (r < 0)
		pool_files_cut(resize->pool_fd, &resize->before, &resize->now);
	return r;
}

static int resize_commit(struct resize *resize)
{
	struct pool *pool = resize->pool;
	struct meta *meta;
	int r;

	r = pool_meta(pool, &meta);
	if (r == 0 && resize->heap)
		r = heap_service_grow(resize->heap, resize->growth, &resize->now, &resize->to,
				      resize->damage);
	if (r < 0) {
		/* The engine may know units that are not the pool's. */
		pool_damage(pool, "growing: %s", resize->damage[0] ? resize->damage : strerror(-r));
		return r;
	}
	/*
	 * COMMIT: the record of the first shelf that differs; those behind it are not looked at
	 * before, because it is not full.
	 *   crash before: files are cut back at the next start.
	 *   crash after:  the pool has its new size.
	 *   durable:      meta_shelf_put() drains; units of it are granted only afterwards.
	 */
	for (uint32_t i = resize->to.n; r == 0 && i-- > resize->first;)
		r = meta_shelf_put(meta, i, &resize->to.shelf[i]);
	if (r < 0)
		pool_damage(pool, "meta.%u: shelf records cannot be written", pool->record.home);
	else
		pool->shelves = resize->to;
	return r;
}

/* Nothing of it was committed: the pool is as it was. */
static void resize_undo(struct resize *resize)
{
	struct pool *pool = resize->pool;

	pool_recount(pool);
	if (pool->damage)
		return; /* put right at the next start */
	if (pool_put(pool, &resize->before) < 0)
		pool_damage(pool, "a resize failed, and so did writing that down");
}

static int resize_fail(struct resize *resize, int r)
{
	if (r == -ENOSPC && resize->reservation.refused)
		return request_fail(resize->request, r,
				    "memory to make pool %u larger was taken by others before all was reserved, "
				    "and shelves.memory_margin stays free: ask for less, or again",
				    resize->pool->id);
	if (r == -ENOSPC)
		return request_fail(resize->request, r,
				    "the shelf base has no room to make pool %u "
				    "larger: remove pools, or make its file system larger",
				    resize->pool->id);
	return request_fail(resize->request, r, "pool %u cannot be made larger: %s",
			    resize->pool->id, request_error_text(r));
}

static void resize_done(struct job *job, int r)
{
	struct resize *resize = container_of(job, struct resize, job);
	struct pool *pool = resize->pool;
	struct pool_record record = pool->record;

	reservation_end(&resize->reservation);
	pool->busy = POOL_IDLE;
	if (r == 0)
		r = resize_commit(resize);
	if (r == 0) {
		record.state = POOL_LIVE;
		if (pool_put(pool, &record) < 0)
			client_log(pool->nvmmd, CLIENT_COMPLAINT, pool->record.uid,
				   "pool %u is resized; its record says so at the next start",
				    pool->id);
		pool_recount(pool);
		pool->nvmmd->counters.pools_resized++;
		client_log(pool->nvmmd, CLIENT_EVENT, pool->record.uid,
			   "pool %u resized from %" PRIu64 " to %" PRIu64 " bytes", pool->id,
			 resize->before.size, record.size);
		r = reply_pool(resize->request, pool);
	} else {
		resize_undo(resize);
		r = resize_fail(resize, r);
	}
	if (r != -ENOSPC || !overgrown_relief(resize->request))
		request_finish(resize->request, r);
	pool_unpark(pool);
	pool_rest(pool);
	pool_unref(pool);
	resize_free(resize);
}

/* By how much the pool's files become longer; a sparse heap's, by what is reserved at once. */
static uint64_t resize_bytes(const struct pool *pool, const struct resize *resize)
{
	uint64_t to = pool_layout_file_bytes(&pool->record, &resize->to, pool->lanes);

	if (pool->record.flags & POOL_SPARSE)
		to += GRANULE_UNITS * UNIT_SIZE / 32; /* the metadata of the first new units */
	return to - pool_layout_file_bytes(&pool->record, &resize->now, pool->lanes);
}

/* Has what the commit needs at hand. */
static int resize_ready(struct resize *resize, struct pool *pool)
{
	struct meta *meta;
	int r;

	r = pool_files_dir(&resize->pool_fd, pool->nvmmd->base_fd, pool->id);
	if (r == 0)
		r = pool_meta(pool, &meta);
	if (r < 0 || pool->record.kind != POOL_HEAP)
		return r;
	resize->heap = heap_service_ref(pool->heap);
	return heap_service_grow_ready(resize->heap, &resize->now, &resize->to);
}

static int resize_start(struct request *request, struct pool *pool, struct resize *resize)
{
	struct pool_record record = pool->record;
	int r;

	resize->pool = pool;
	resize->request = request;
	r = resize_ready(resize, pool);
	if (r < 0)
		return resize_fail(resize, r);
	record.state = POOL_RESIZING;
	record.size = pool_layout_bytes(&resize->to);
	pool_mark_change(request, &record);
	r = pool_put(pool, &record);
	if (r < 0)
		return request_fail(request, r, "pool %u: its record cannot be written: %s",
				    pool->id, strerror(-r));
	pool->file_bytes += resize_bytes(pool, resize);
	reservation_begin(&resize->reservation, &request->nvmmd->memory, resize_bytes(pool, resize),
			  &request->session->gone);
	pool_ref(pool);
	resize->job.run = resize_run;
	resize->job.done = resize_done;
	pool_job_start(pool, &resize->job, request, POOL_BUSY_RESIZING);
	return REQUEST_PENDING;
}

static int resize_plan(struct request *request, struct pool *pool, uint64_t size)
{
	struct resize *resize = calloc(1, sizeof(*resize));
	int r;

	if (!resize)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	resize->pool_fd = -1;
	resize->before = pool->record;
	resize->now = pool->shelves;
	r = pool_layout_grow(&resize->to, &resize->first, &resize->now, size);
	if (r < 0) {
		r = request_fail(request, r,
				 "pool %u has %u shelves and cannot grow to %" PRIu64 " bytes",
				 pool->id, pool->shelves.n, size);
	} else {
		r = check_quota(request, pool->record.uid, 0, resize_bytes(pool, resize));
		if (r == 0)
			r = check_memory(request, resize_bytes(pool, resize));
	}
	if (r == 0)
		r = resize_start(request, pool, resize);
	if (r < 0) {
		resize_free(resize);
		pool_rest(pool);
	}
	return r;
}

static int resize_check(struct request *request, struct pool *pool, uint64_t *size)
{
	if (pool->damage)
		return request_fail(request, -EUCLEAN, "pool %u is damaged: %s", pool->id,
				    pool->damage);
	if (access_change(&request->nvmmd->admin, request_peer(request), &pool->record) < 0)
		return request_fail(request, -EPERM,
				    "pool %u is user %u's: only its owner or an "
				    "administrator may resize it",
				    pool->id, pool->record.uid);
	if (pool_layout_size(size, pool->record.kind, *size) < 0)
		return request_fail(request, -EINVAL, "a pool cannot have %" PRIu64 " bytes",
				    *size);
	if (pool->busy == POOL_IDLE && *size < pool->record.size)
		return request_fail(request, -EINVAL,
				    "pool %u has %" PRIu64 " bytes: pools grow and do "
				    "not shrink",
				    pool->id, pool->record.size);
	return 0;
}

int op_pool_resize(struct request *request)
{
	const Nvmm__PoolResize *m = request->msg->pool_resize;
	uint64_t size = m->size;
	struct pool *pool;
	int r;

	r = pool_need(request, m->id, &pool);
	if (r == 0)
		r = resize_check(request, pool, &size);
	if (r < 0)
		return r;
	if (pool->busy != POOL_IDLE) {
		pool_park(pool, request);
		return REQUEST_PENDING;
	}
	if (pool_is_repeat(request, &pool->record) || size == pool->record.size)
		return reply_pool(request, pool);
	if (pool->record.kind == POOL_HEAP) {
		r = heap_need(request, pool);
		if (r != 0)
			return r;
	}
	return resize_plan(request, pool, size);
}
