/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The allocator's slow paths.
 *
 * They run inside lane_alloc() or lane_dealloc(), whose lane is busy, and begin a call of their
 * own: a signal handler that allocates meanwhile gets -EDEADLK from one or the other.
 */
#include <errno.h>
#include <string.h>

#include "libclient/pool.h"
#include "libclient/source.h"

static int ask_spans(struct nvmm_client *nvmm, Nvmm__Request *request, uint32_t want, uint64_t *refs)
{
	_reply reply = NVMM_REPLY_INIT;
	_entry entry = ENTRY_NONE;
	const Nvmm__Spans *spans;
	int r;

	r = enter(&entry, nvmm);
	if (r < 0)
		return r;
	r = call_daemon(nvmm, request, NVMM__REPLY__RESULT_SPANS, 0, &reply);
	if (r < 0)
		return r;
	spans = reply.msg->spans;
	if (spans->n_refs > want)
		return nvmm_fail(nvmm, -EPROTO, "the daemon gave more spans than were asked for");
	if (spans->n_refs == 0)
		return nvmm_fail(nvmm, -ENOSPC, "the heap has no room");
	memcpy(refs, spans->refs, spans->n_refs * sizeof(*refs));
	return (int)spans->n_refs;
}

static int source_spans(void *ctx, unsigned class, uint32_t want, uint64_t *refs)
{
	struct pool *pool = ctx;
	Nvmm__SpanGet op = NVMM__SPAN_GET__INIT;
	Nvmm__Request request = NVMM_REQUEST(SPAN_GET, span_get, &op);

	op.id = pool->id;
	op.class_ = class;
	op.count = want;
	return ask_spans(pool->nvmm, &request, want, refs);
}

static int source_run(void *ctx, uint64_t units, uint64_t align, uint64_t *ref)
{
	struct pool *pool = ctx;
	Nvmm__RunGet op = NVMM__RUN_GET__INIT;
	Nvmm__Request request = NVMM_REQUEST(RUN_GET, run_get, &op);
	int r;

	op.id = pool->id;
	op.units = units;
	op.align = align;
	r = ask_spans(pool->nvmm, &request, 1, ref);
	return r < 0 ? r : 0;
}

/* -EINVAL: there is no such unit: the pointer is none of this heap's. */
static int source_resolve(void *ctx, uint64_t ref)
{
	struct pool *pool = ctx;
	struct shelf_map *map;
	_entry entry = ENTRY_NONE;
	_gate *locked = NULL;
	uint64_t units;
	int r;

	r = enter(&entry, pool->nvmm);
	if (r == 0)
		r = pool_lock(pool->nvmm, &locked);
	if (r == 0)
		r = pool_map_shelf(pool, ref_shelf(ref), &map);
	if (r == -ENXIO)
		return -EINVAL;
	if (r < 0)
		return r;
	/* ordering: relaxed; written under open_lock, which is held. */
	units = __atomic_load_n(&map->heap.units, __ATOMIC_RELAXED);
	return ref_unit(ref) < units ? 0 : -EINVAL;
}

static long source_patience(void *ctx)
{
	const struct pool *pool = ctx;

	return pool->nvmm->timeout_ms;
}

const struct lane_source lane_source = {
	.spans = source_spans,
	.run = source_run,
	.resolve = source_resolve,
	.patience = source_patience,
};
