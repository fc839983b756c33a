/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Space of sparse heaps.
 *
 * A sparse heap's size is no promise: what is granted is reserved then and counts then, against
 * shelves.capacity and the owner's bytes_per_user. So a grant can fail in three ways beside a heap that is
 * full, and each says which it was.
 *
 * Retiring empty spans and giving back go in slices on the loop, with other requests between them: all that
 * changes the index of free runs is on one thread, so that nothing is granted while it is given back. A slice
 * is a few milliseconds of work for the kernel. A wish (media/grant.h) is reserved in a thread; the trim leaves
 * it alone.
 *
 * Free memory goes back when a program or an operator trims, when the base has no more of it, and when a heap
 * is loaded, since then nobody knows which free runs have pages. A request that finds the base short waits
 * while as much is given back as it may need, and is begun again: until it is served or nothing is left to
 * give back. What it waited for others may take first; then they were served. It does not go back by itself while
 * the heap is used: what was free a moment ago is what is granted next, and a page costs 1 to 2 us.
 */
#include "daemon/heap_space.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/access.h"
#include "daemon/heap_load.h"
#include "daemon/job.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_ops.h"
#include "daemon/request.h"

#define SLICE (UINT64_C(16) << 20) /* bytes that are given back at once */

/* Limits */

static bool space_allow(void *ctx, uint64_t bytes)
{
	struct pool *pool = ctx;

	pool_recount(pool);
	pool->space_refused = quota_short(pool->nvmmd, pool->record.uid, bytes);
	/* What is reserved at once asks for memory then (memory_admit()); a wish is begun only if all of it is there. */
	if (pool->space_refused == 0 && bytes > SLICE && memory_left(&pool->nvmmd->memory) < bytes)
		pool->space_refused = -ENOMEM;
	return pool->space_refused == 0;
}

void heap_space_begin(struct pool *pool)
{
	if (pool->record.flags & POOL_SPARSE)
		heap_service_allow(pool->heap, space_allow, pool);
}

void heap_space_count(struct pool *pool)
{
	if (pool->heap && heap_service_space_spent(pool->heap))
		pool_recount(pool);
}

bool heap_space_short(struct request *request, struct pool *pool, int *r)
{
	uint64_t limit = pool->nvmmd->config.limits.bytes_per_user;

	if (!heap_service_space_short(pool->heap))
		return false;
	if (pool->space_refused == -EDQUOT)
		*r = request_fail(request, -EDQUOT,
				  "heap %u is sparse, and more space for it would take user %u over "
				  "limits.bytes_per_user (%" PRIu64 "): trim or destroy heaps",
				  pool->id, pool->record.uid, limit);
	else if (pool->space_refused == -ENOSPC)
		*r = request_fail(request, -ENOSPC,
				  "heap %u is sparse, and more space for it would go over "
				  "shelves.capacity (%" PRIu64 "): trim or destroy heaps",
				  pool->id, pool->nvmmd->config.shelves.capacity);
	else if (pool->space_refused == -ENOMEM || memory_left(&pool->nvmmd->memory) < SLICE)
		*r = request_fail(request, -ENOSPC,
				  "heap %u is sparse, and there is no memory for more of it beside what "
				  "shelves.memory_margin (%u %%) keeps free: trim or destroy heaps",
				  pool->id, pool->nvmmd->config.shelves.memory_margin);
	else
		*r = request_fail(request, -ENOSPC,
				  "heap %u is sparse, and the shelf base has no room for more of it: "
				  "trim or destroy heaps, or make its file system larger",
				  pool->id);
	return true;
}

/* Giving back */

struct giving {
	struct job job;
	struct pool *pool;
	struct heap_service *heap;
	struct request *request;
	struct grant_trim trim; /* first, if spans are to be retired */
	struct grant_place place;
	uint64_t most; /* bytes, about */
	uint64_t own;  /* bytes that the request itself reserved in vain: giving these back is no relief */
	uint64_t retired;
	uint64_t returned;
	void (*end)(struct giving *giving, int r); /* the request goes on */
};

static void giving_end(struct giving *giving, int r)
{
	struct pool *pool = giving->pool;

	pool_recount(pool);
	giving->end(giving, r);
	heap_service_unref(giving->heap);
	pool_rest(pool);
	pool_unref(pool);
	free(giving);
}

/* Retires spans or gives back: bytes, or an error. */
static int64_t giving_some(struct giving *giving)
{
	bool retires = !giving->trim.begun || giving->trim.left > 0;
	int64_t bytes = retires ? heap_service_retire(giving->heap, &giving->trim) :
				  heap_service_space_return(giving->heap, &giving->place, SLICE);

	if (bytes < 0)
		pool_judge(giving->pool, (int)bytes, retires ? "retiring spans" : "giving space back");
	else if (retires)
		giving->retired += (uint64_t)bytes;
	else
		giving->returned += (uint64_t)bytes;
	return bytes;
}

static void giving_slice(struct job *job, int r)
{
	struct giving *giving = container_of(job, struct giving, job);
	int64_t bytes;

	/* Given up and loaded anew meanwhile: then all was given back, and this one's index is old. */
	if (r < 0 || giving->pool->heap != giving->heap) {
		giving_end(giving, r);
		return;
	}
	bytes = giving_some(giving);
	if (bytes < 0) {
		giving_end(giving, (int)bytes);
		return;
	}
	if (giving->place.whole || giving->returned >= giving->most)
		giving_end(giving, 0);
	else
		job_pause(&giving->job, giving->pool->nvmmd, request_peer(giving->request)->uid);
}

/* Gives back `most` bytes of what the pool has free, of empty spans as well if it `retires`; then calls
 * `end`. */
static int giving_start(struct request *request, struct pool *pool, uint64_t most, uint64_t own,
			bool retires, void (*end)(struct giving *giving, int r))
{
	struct giving *giving = calloc(1, sizeof(*giving));

	if (!giving)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	giving->pool = pool_ref(pool);
	giving->heap = heap_service_ref(pool->heap);
	giving->request = request;
	giving->most = most;
	giving->own = own;
	giving->trim.begun = !retires;
	giving->end = end;
	giving->job.done = giving_slice;
	job_pause(&giving->job, request->nvmmd, request_peer(request)->uid);
	return REQUEST_PENDING;
}

/* Relief */

/* The request is begun again; one for which nothing was had asks for no more. */
static void relief_end(struct giving *giving, int r)
{
	giving->request->relieved = r < 0 || giving->returned <= giving->own;
	request_run(giving->request);
}

bool heap_space_relief(struct request *request, struct pool *pool)
{
	if (!heap_service_space_short(pool->heap) || request->relieved)
		return false;
	return giving_start(request, pool, SLICE, 0, false, relief_end) == REQUEST_PENDING;
}

/* Wishes */

struct wish {
	struct job job;
	struct pool *pool;
	struct heap_service *heap;
	struct request *request;
	struct grant_wish wish;
	struct reservation reservation;
};

static int wish_run(struct job *job)
{
	struct wish *wish = container_of(job, struct wish, job);

	int r;

	reservation_enter(&wish->reservation);
	r = grant_wish_run(&wish->wish);
	reservation_leave(&wish->reservation);
	return r;
}

/*
 * What the base lacks may be had from this heap's own free runs, of empty spans as well: the grant that wished
 * saw room enough and retired none.
 */
static void wish_failed(struct wish *wish, int r)
{
	struct pool *pool = wish->pool;
	bool lacking = r == -EDQUOT || r == -ENOSPC;

	if (lacking && !wish->request->relieved && pool->heap == wish->heap) {
		r = giving_start(wish->request, pool, (wish->wish.units + wish->wish.done) << UNIT_SHIFT,
				 wish->wish.done << UNIT_SHIFT, true, relief_end);
		if (r == REQUEST_PENDING)
			return;
	} else {
		if (lacking)
			heap_service_space_lack(wish->heap);
		if (!heap_space_short(wish->request, pool, &r))
			request_fail(wish->request, r, "heap %u: reserving space: %s", pool->id,
				     strerror(-r));
	}
	request_finish(wish->request, r);
}

static void wish_done(struct job *job, int r)
{
	struct wish *wish = container_of(job, struct wish, job);
	struct pool *pool = wish->pool;

	pool->space_wish = false;
	reservation_end(&wish->reservation);
	heap_service_wish_end(wish->heap, &wish->wish);
	pool_recount(pool);
	pool->space_refused = 0;
	if (r < 0)
		wish_failed(wish, r);
	else
		request_run(wish->request);
	heap_service_unref(wish->heap);
	pool_unpark(pool);
	pool_rest(pool);
	pool_unref(pool);
	free(wish);
}

int heap_space_wish(struct request *request, struct pool *pool)
{
	struct grant_wish wanted;
	struct wish *wish;

	/* One at a time; who comes in between asks again after it. */
	if (pool->space_wish) {
		pool_park(pool, request);
		return REQUEST_PENDING;
	}
	wish = calloc(1, sizeof(*wish));
	if (!wish || !heap_service_wished(pool->heap, &wanted)) {
		free(wish);
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	}
	wish->pool = pool_ref(pool);
	wish->heap = heap_service_ref(pool->heap);
	wish->request = request;
	wish->wish = wanted;
	wish->job.run = wish_run;
	wish->job.done = wish_done;
	heap_service_wish_begin(pool->heap, &wanted);
	reservation_begin(&wish->reservation, &request->nvmmd->memory, wanted.units << UNIT_SHIFT,
			  &request->session->gone);
	pool->space_wish = true;
	job_start(&wish->job, request, JOB_WORK);
	return REQUEST_PENDING;
}

/* Trimming */

static int reply_trimmed(struct giving *giving)
{
	Nvmm__HeapTrimmed *reply = request_alloc(giving->request, sizeof(*reply));

	if (!reply)
		return request_fail(giving->request, -ENOMEM, "the daemon has no memory");
	nvmm__heap_trimmed__init(reply);
	reply->retired = giving->retired;
	reply->returned = giving->returned;
	giving->request->reply.result_case = NVMM__REPLY__RESULT_HEAP_TRIMMED;
	giving->request->reply.heap_trimmed = reply;
	return 0;
}

static void trim_end(struct giving *giving, int r)
{
	if (r < 0)
		r = request_fail(giving->request, r, "heap %u: giving space back: %s",
				 giving->pool->id, strerror(-r));
	else
		r = reply_trimmed(giving);
	request_finish(giving->request, r);
}

/* Takes what the caller's threads hold and do not use. */
static int revoke_own(struct request *request, struct pool *pool)
{
	const struct opening *own = opening_find(request->session, pool);

	return own ? heap_service_revoke(pool->heap, own->lanes, own->n_lanes) : 0;
}

int op_heap_trim(struct request *request)
{
	uint32_t id = request->msg->heap_trim->id;
	struct pool *pool;
	int r;

	r = pool_need(request, id, &pool);
	if (r < 0)
		return r;
	if (pool->record.kind == POOL_REGION)
		return request_fail(request, -EINVAL, "pool %u is a region, not a heap", id);
	if (access_open(&request->nvmmd->admin, request_peer(request), &pool->record,
			ACCESS_READ | ACCESS_WRITE) < 0)
		return request_fail(request, -EACCES,
				    "pool %u is user %u's with mode 0%03o: only who may write it may "
				    "trim it",
				    id, pool->record.uid, pool->record.mode);
	r = heap_need(request, pool);
	if (r != 0)
		return r;
	/* A round of limbo; one that waits for readers begins the request again. */
	if (epochs_pressure(request, pool) == RELIEF_LATER)
		return REQUEST_PENDING;
	r = revoke_own(request, pool);
	if (r < 0) {
		pool_judge(pool, r, "taking spans back");
		return request_fail(request, r, "heap %u: taking spans back: %s", id, strerror(-r));
	}
	return giving_start(request, pool, UINT64_MAX, 0, true, trim_end);
}
