/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests about heaps: lanes, spans, large blocks.
 *
 * Lanes are in the session's file before they are in a reply, so that a restarted daemon never
 * gives one out twice. Spans and large blocks need no such record: they are granted unowned, and a
 * reply that is lost leaves them to be found by whoever asks next.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/epochs.h"
#include "daemon/heap_load.h"
#include "daemon/heap_space.h"
#include "daemon/job.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_files.h"
#include "daemon/pool_ops.h"

#define TAKE_MAX 64u
#define SPANS_MAX GRANT_SPANS_MAX

/* Finds the opening of a heap that is loaded; `r` of heap_need() else. */
static int heap_opening(struct request *request, uint32_t id, bool write, struct opening **ret)
{
	int r;

	r = opening_need(request, id, write, ret);
	if (r < 0)
		return r;
	if ((*ret)->pool->record.kind != POOL_HEAP)
		return request_fail(request, -EINVAL, "pool %u is a region, not a heap", id);
	return heap_need(request, (*ret)->pool);
}

static int heap_failed(struct request *request, struct pool *pool, int r, const char *what)
{
	pool_judge(pool, r, what);
	if (pool->damage)
		return request_fail(request, -EUCLEAN, "pool %u is damaged: %s", pool->id,
				    pool->damage);
	return request_fail(request, r, "pool %u: %s: %s", pool->id, what, request_error_text(r));
}

static int reply_lanes(struct request *request, const uint32_t *lanes, uint32_t n)
{
	Nvmm__Lanes *reply = request_alloc(request, sizeof(*reply));
	uint32_t *copy = request_alloc(request, n * sizeof(*copy));

	if (!reply || !copy)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	nvmm__lanes__init(reply);
	memcpy(copy, lanes, n * sizeof(*copy));
	reply->lanes = copy;
	reply->n_lanes = n;
	request->reply.result_case = NVMM__REPLY__RESULT_LANES;
	request->reply.lanes = reply;
	return 0;
}

/* Takes the last `n` lanes away from an opening again. */
static void untake(struct opening *opening, uint32_t n)
{
	opening_drop_lanes(opening, n);
	heap_service_settle(opening->pool->heap, opening->lanes + opening->n_lanes, n);
}

/* Lanes that the session gave up before are settled first. */
static int calm_need(struct request *request, const struct opening *opening)
{
	if (!opening->settling)
		return 0;
	pool_park(opening->pool, request);
	return REQUEST_PENDING;
}

/* Something was short: if the dead have some of it, the request begins again when they are settled; but once. */
static bool settled_first(struct request *request, struct pool *pool)
{
	if (request->settled || !settle_pending(pool, UINT64_MAX))
		return false;
	request->settled = true;
	request->waited = false;
	request->rounds = 0;
	pool_park(pool, request);
	return true;
}

static int take_lanes(struct request *request, struct opening *opening, uint32_t count)
{
	struct pool *pool = opening->pool;
	uint32_t n = opening->n_lanes;
	uint32_t *lanes = realloc(opening->lanes, (n + count) * sizeof(*lanes));
	uint32_t before = heap_service_lanes(pool->heap);
	int dir, r;

	if (!lanes)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	opening->lanes = lanes;
	r = lane_charge_check(request, pool, count);
	if (r < 0)
		return settled_first(request, pool) ? REQUEST_PENDING : r;
	r = pool_files_dir(&dir, request->nvmmd->base_fd, pool->id);
	if (r < 0)
		return heap_failed(request, pool, r, "opening its directory");
	r = heap_service_take(pool->heap, dir, opening->session->id,
			      process_number(opening->session->peer.process), count, lanes + n);
	close(dir);
	lane_charge_add(pool, opening->session->user, heap_service_lanes(pool->heap) - before);
	if (r == -ENOSPC && settled_first(request, pool))
		return REQUEST_PENDING;
	if (r < 0)
		return heap_failed(request, pool, r, "no more lanes can be had");
	opening_add_lanes(opening, count);
	pool->lanes = heap_service_lanes(pool->heap);
	pool_recount(pool);
	r = session_save(opening->session);
	if (r < 0) {
		untake(opening, count);
		return request_fail(request, r, "the session's file cannot be written: %s",
				    strerror(-r));
	}
	request->nvmmd->counters.lanes_taken += count;
	return 0;
}

int op_lane_take(struct request *request)
{
	const Nvmm__LaneTake *m = request->msg->lane_take;
	uint32_t limit = request->nvmmd->config.limits.lanes_per_client;
	struct opening *opening;
	int r;

	if (m->count == 0 || m->count > TAKE_MAX)
		return request_fail(request, -EINVAL, "%u lanes at once: 1 to %u", m->count,
				    TAKE_MAX);
	r = heap_opening(request, m->id, true, &opening);
	if (r == 0)
		r = calm_need(request, opening);
	if (r != 0)
		return r;
	if (request_was_done(request) && opening->n_lanes >= m->count)
		return reply_lanes(request, opening->lanes + opening->n_lanes - m->count, m->count);
	if (limit > 0 && opening->n_lanes + m->count > limit)
		return request_fail(request, -EDQUOT,
				    "this process has %u lanes in heap %u, and "
				    "limits.lanes_per_client allows %u: one for each thread that "
				    "allocates",
				    opening->n_lanes, m->id, limit);
	if (request->session->n_lanes + m->count > SESSION_LANES_MAX)
		return request_fail(request, -EDQUOT, "this process has %u lanes in all of its heaps: one may have %u",
				    request->session->n_lanes, SESSION_LANES_MAX);
	/* The lanes file may be getting shorter: it is made longer after that. */
	if (opening->pool->busy == POOL_BUSY_CUTTING) {
		pool_park(opening->pool, request);
		return REQUEST_PENDING;
	}
	r = take_lanes(request, opening, m->count);
	if (r != 0)
		return r;
	return reply_lanes(request, opening->lanes + opening->n_lanes - m->count, m->count);
}

/* The lanes that are named, each once. -EINVAL: they cannot be this session's. */
static int named_lanes(struct lane_set *ret, const struct opening *opening, const Nvmm__LaneReturn *m)
{
	if (m->n_lanes > opening->n_lanes)
		return -EINVAL;
	for (size_t i = 0; i < m->n_lanes; i++) {
		if (m->lanes[i] >= LANES_MAX || lane_set_has(ret, m->lanes[i]))
			return -EINVAL;
		lane_set_add(ret, m->lanes[i]);
	}
	return 0;
}

/* Moves the named lanes behind those that the opening has left; how many. */
static uint32_t take_away(struct opening *opening, const struct lane_set *named)
{
	uint32_t left = opening->n_lanes, i = 0;

	while (i < left) {
		uint32_t lane = opening->lanes[i];

		if (!lane_set_has(named, lane)) {
			i++;
			continue;
		}
		opening->lanes[i] = opening->lanes[--left];
		opening->lanes[left] = lane;
	}
	return opening->n_lanes - left;
}

int op_lane_return(struct request *request)
{
	const Nvmm__LaneReturn *m = request->msg->lane_return;
	struct lane_set named = { { 0 } };
	struct opening *opening;
	uint32_t n = 0;
	int r;

	if (request_was_done(request))
		return 0;
	r = heap_opening(request, m->id, true, &opening);
	if (r == 0)
		r = calm_need(request, opening);
	if (r != 0)
		return r;
	r = named_lanes(&named, opening, m);
	if (r == 0)
		n = take_away(opening, &named);
	if (r < 0 || n != m->n_lanes)
		return request_fail(request, -EINVAL,
				    "%zu lanes of heap %u: one is named twice, or is not this session's, "
				    "which has %u",
				    m->n_lanes, m->id, opening->n_lanes);
	if (n == 0)
		return 0;
	settle_lanes(opening, n, false, request);
	return REQUEST_PENDING;
}

static int reply_spans(struct request *request, const uint64_t *refs, uint32_t n)
{
	Nvmm__Spans *reply = request_alloc(request, sizeof(*reply));
	uint64_t *copy = request_alloc(request, n * sizeof(*copy));

	if (!reply || !copy)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	nvmm__spans__init(reply);
	memcpy(copy, refs, n * sizeof(*copy));
	reply->refs = copy;
	reply->n_refs = n;
	request->reply.result_case = NVMM__REPLY__RESULT_SPANS;
	request->reply.spans = reply;
	return 0;
}

/* Whether a grant that found no room may find some now. */
static bool relieved(struct request *request, struct pool *pool, enum epoch_relief *relief)
{
	if (heap_space_relief(request, pool)) {
		*relief = RELIEF_LATER;
		return false;
	}
	*relief = epochs_pressure(request, pool);
	/* What limbo had may be given back as well. */
	if (*relief != RELIEF_NONE)
		request->relieved = false;
	else if (settled_first(request, pool))
		*relief = RELIEF_LATER;
	return *relief == RELIEF_NOW;
}

/* Room is looked for in a large heap: others are served before the request goes on. */
struct pause {
	struct job job;
	struct pool *pool;
	struct heap_service *heap;
	struct request *request;
};

static void pause_done(struct job *job, int r)
{
	struct pause *pause = container_of(job, struct pause, job);
	struct pool *pool = pause->pool;

	/* Given up and loaded anew meanwhile: all is looked at again. */
	if (pool->heap != pause->heap)
		memset(&pause->request->press, 0, sizeof(pause->request->press));
	if (r < 0)
		request_finish(pause->request, request_fail(pause->request, r, "nvmmd stops"));
	else
		request_run(pause->request);
	heap_service_unref(pause->heap);
	pool_rest(pool);
	pool_unref(pool);
	free(pause);
}

static int pause_start(struct request *request, struct pool *pool)
{
	struct pause *pause = calloc(1, sizeof(*pause));

	if (!pause)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	pause->pool = pool_ref(pool);
	pause->heap = heap_service_ref(pool->heap);
	pause->request = request;
	pause->job.done = pause_done;
	job_pause(&pause->job, request->nvmmd, request_peer(request)->uid);
	return REQUEST_PENDING;
}

int op_span_get(struct request *request)
{
	const Nvmm__SpanGet *m = request->msg->span_get;
	enum epoch_relief relief = RELIEF_NONE;
	struct opening *opening;
	uint64_t refs[SPANS_MAX];
	int r;

	if (m->count == 0 || m->count > SPANS_MAX)
		return request_fail(request, -EINVAL, "%u spans at once: 1 to %u", m->count,
				    SPANS_MAX);
	r = heap_opening(request, m->id, true, &opening);
	if (r != 0)
		return r;
	if (!heap_service_class_ok(opening->pool->heap, m->class_))
		return request_fail(request, -EINVAL, "heap %u has no size class %u", m->id,
				    m->class_);
	do {
		r = heap_service_spans(opening->pool->heap, m->class_, m->count, refs,
				       &request->press);
	} while (r == -ENOSPC && relieved(request, opening->pool, &relief));
	heap_space_count(opening->pool);
	if (r == -ENOSPC && relief == RELIEF_LATER)
		return REQUEST_PENDING;
	if (r == -EAGAIN)
		return pause_start(request, opening->pool);
	if (r == -EINPROGRESS)
		return heap_space_wish(request, opening->pool);
	if (r == -ENOSPC && heap_space_short(request, opening->pool, &r))
		return r;
	if (r == -ENOSPC)
		return request_fail(request, r,
				    "heap %u is full: free blocks, or grow it with "
				    "`nvmmctl pool resize`",
				    m->id);
	if (r < 0)
		return heap_failed(request, opening->pool, r, "granting spans");
	request->nvmmd->counters.spans_granted += (uint64_t)r;
	return reply_spans(request, refs, (uint32_t)r);
}

int op_run_get(struct request *request)
{
	const Nvmm__RunGet *m = request->msg->run_get;
	uint64_t align = m->align ? m->align : 1;
	enum epoch_relief relief = RELIEF_NONE;
	struct opening *opening;
	uint64_t ref;
	int r;

	if (m->units == 0 || m->units > SHELF_SIZE_MAX >> UNIT_SHIFT)
		return request_fail(request, -EINVAL,
				    "a block of %" PRIu64 " units: a shelf has at most "
				    "%" PRIu64,
				    m->units, SHELF_SIZE_MAX >> UNIT_SHIFT);
	if (align > GRANT_ALIGN_MAX || (align & (align - 1)) != 0)
		return request_fail(request, -EINVAL,
				    "a block at a multiple of %" PRIu64 " units: powers of two up to %u",
				    align, GRANT_ALIGN_MAX);
	r = heap_opening(request, m->id, true, &opening);
	if (r != 0)
		return r;
	do
		r = heap_service_run(opening->pool->heap, m->units, align, &ref, &request->press);
	while (r == -ENOSPC && relieved(request, opening->pool, &relief));
	heap_space_count(opening->pool);
	if (r == -ENOSPC && relief == RELIEF_LATER)
		return REQUEST_PENDING;
	if (r == -EAGAIN)
		return pause_start(request, opening->pool);
	if (r == -EINPROGRESS)
		return heap_space_wish(request, opening->pool);
	if (r == -ENOSPC && heap_space_short(request, opening->pool, &r))
		return r;
	if (r == -ENOSPC)
		return request_fail(request, r,
				    "heap %u has no %" PRIu64 " bytes in one piece: free "
				    "blocks, or grow it with `nvmmctl pool resize`",
				    m->id, m->units << UNIT_SHIFT);
	if (r < 0)
		return heap_failed(request, opening->pool, r, "granting a large block");
	request->nvmmd->counters.runs_granted++;
	return reply_spans(request, &ref, 1);
}
