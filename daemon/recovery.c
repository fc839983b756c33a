/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Recovery of heaps.
 *
 * A daemon that finds no clean mark plans the recovery of each heap that may have been in use, and
 * begins when it serves: whoever asks for a pool that is done, or that needs none, does not wait.
 * Turns: pools that somebody waits for; then by the pools' priority; then the smaller first.
 * `recovery.parallel` of them at once.
 *
 * Pools that living sessions of before have open are loaded at once in any case (epochs.c): their
 * clients must not notice that a daemon was gone, whatever recovery.on_start says.
 */
#include "daemon/recovery.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/heap_load.h"
#include "daemon/nvmmd.h"
#include "daemon/request.h"

static uint64_t now_ms(void)
{
	return uv_hrtime() / 1000000;
}

void recovery_init(struct recovery *recovery)
{
	memset(recovery, 0, sizeof(*recovery));
	TAILQ_INIT(&recovery->waiting);
}

/* Whether a goes before b. */
static bool goes_first(const struct pool *a, const struct pool *b)
{
	if (a->recovery.urgent != b->recovery.urgent)
		return a->recovery.urgent;
	if (a->record.priority != b->record.priority)
		return a->record.priority > b->record.priority;
	return a->record.size < b->record.size;
}

static void enqueue(struct pool *pool)
{
	struct recovery *recovery = &pool->nvmmd->recovery;
	struct pool *other;

	pool->recovery.state = RECOVERY_WAITING;
	TAILQ_FOREACH (other, &recovery->waiting, recovery.of_queue)
		if (goes_first(pool, other)) {
			TAILQ_INSERT_BEFORE(other, pool, recovery.of_queue);
			return;
		}
	TAILQ_INSERT_TAIL(&recovery->waiting, pool, recovery.of_queue);
}

static void dequeue(struct pool *pool)
{
	if (pool->recovery.state == RECOVERY_WAITING)
		TAILQ_REMOVE(&pool->nvmmd->recovery.waiting, pool, recovery.of_queue);
}

/* Whether the heap needs to be looked at after a stop that was not in order. */
static bool was_in_use(struct pool *pool)
{
	return pool->record.kind == POOL_HEAP && !pool->damage &&
	       pool->record.state == POOL_LIVE && heap_was_in_use(pool);
}

static void plan_pool(struct nvmmd *nvmmd, struct pool *pool)
{
	static const enum recovery_depth depths[] = {
		[RECOVERY_START_ONLINE] = RECOVERY_LOAD,
		[RECOVERY_START_OFFLINE] = RECOVERY_VERIFY,
		[RECOVERY_START_MANUAL] = RECOVERY_LOAD,
	};
	enum recovery_start how = nvmmd->config.recovery.on_start;
	struct recovery *recovery = &nvmmd->recovery;

	pool->recovery.at_start = true;
	pool->recovery.units = pool_layout_bytes(&pool->shelves) >> UNIT_SHIFT;
	pool->recovery.depth = depths[how];
	recovery->total++;
	recovery->bytes += pool->recovery.units << UNIT_SHIFT;
	if (pool->busy == POOL_BUSY_LOADING) {
		pool->recovery.state = RECOVERY_RUNNING;
		pool->recovery.began = now_ms();
		recovery->running++;
		recovery->most = MAX(recovery->most, recovery->running);
	} else if (how == RECOVERY_START_MANUAL && pool->openers == 0) {
		pool->recovery.state = RECOVERY_HELD;
	} else {
		enqueue(pool);
	}
}

void recovery_plan(struct nvmmd *nvmmd)
{
	struct recovery *recovery = &nvmmd->recovery;

	for (uint32_t id = 1; !nvmmd->clean_start && id <= POOL_ID_MAX; id++)
		if (nvmmd->pools.by_id[id] && was_in_use(nvmmd->pools.by_id[id]))
			plan_pool(nvmmd, nvmmd->pools.by_id[id]);
	recovery->began = now_ms();
	if (recovery->total > 0)
		log_info("%u heaps of %" PRIu64 " bytes are to be recovered%s", recovery->total,
			 recovery->bytes,
			 nvmmd->config.recovery.on_start == RECOVERY_START_MANUAL ?
				 ": those that nobody has open wait for `nvmmctl recover`" :
				 "");
}

/* Whose turn it is. A pool that a job works on comes here again at its end. */
static struct pool *next_turn(struct recovery *recovery)
{
	struct pool *pool;

	TAILQ_FOREACH (pool, &recovery->waiting, recovery.of_queue)
		if (pool->busy == POOL_IDLE)
			return pool;
	return NULL;
}

/* Starts as many as may run. */
static void pump(struct nvmmd *nvmmd)
{
	struct recovery *recovery = &nvmmd->recovery;
	struct pool *pool;

	while (recovery->running < nvmmd->config.recovery.parallel && !nvmmd->stopping &&
	       (pool = next_turn(recovery))) {
		int r;

		dequeue(pool);
		pool->recovery.state = RECOVERY_RUNNING;
		pool->recovery.began = now_ms();
		pool->recovery.done = 0;
		recovery->running++;
		recovery->most = MAX(recovery->most, recovery->running);
		r = heap_load_recover(pool);
		if (r < 0) {
			recovery_ended(pool, r);
			pool_unpark(pool);
		}
	}
}

void recovery_kick(struct nvmmd *nvmmd)
{
	pump(nvmmd);
}

int recovery_report(struct pool *pool)
{
	struct pool_recovery *p = &pool->recovery;

	if (!p->report)
		p->report = calloc(1, sizeof(*p->report));
	return p->report ? 0 : -ENOMEM;
}

int recovery_ask(struct pool *pool, enum recovery_depth depth)
{
	struct pool_recovery *p = &pool->recovery;

	if (recovery_report(pool) < 0)
		return -ENOMEM;
	if (p->state == RECOVERY_RUNNING)
		return 0;
	p->text[0] = '\0';
	dequeue(pool);
	p->urgent = true;
	p->depth = MAX(p->state == RECOVERY_WAITING ? p->depth : RECOVERY_LOAD, depth);
	p->units = pool_layout_bytes(&pool->shelves) >> UNIT_SHIFT;
	enqueue(pool);
	pump(pool->nvmmd);
	return 0;
}

int recovery_need(struct request *request, struct pool *pool, bool wait)
{
	enum recovery_state state = pool->recovery.state;

	if (state == RECOVERY_HELD)
		return request_fail(request, -EAGAIN,
				    "pool %u was in use when the daemon stopped, and "
				    "recovery.on_start is manual: `nvmmctl recover %u` makes it "
				    "usable",
				    pool->id, pool->id);
	if (state != RECOVERY_WAITING && state != RECOVERY_RUNNING)
		return 0;
	if (!wait)
		return request_fail(request, -EAGAIN,
				    "pool %u is being recovered: `nvmmctl recover --watch` shows "
				    "how far it is",
				    pool->id);
	if (state == RECOVERY_WAITING && !pool->recovery.urgent) {
		dequeue(pool);
		pool->recovery.urgent = true;
		enqueue(pool);
		pump(pool->nvmmd);
	}
	/* It may have ended at once, without memory for a job: then nothing would run this again. */
	if (pool->recovery.state != RECOVERY_WAITING && pool->recovery.state != RECOVERY_RUNNING)
		return 0;
	pool_park(pool, request);
	return REQUEST_PENDING;
}

static void count_start(struct pool *pool, int r)
{
	struct recovery *recovery = &pool->nvmmd->recovery;

	/* Ended by a stop: the pool is loaded when it is opened. */
	if (!pool->recovery.at_start || r == -ECANCELED)
		return;
	pool->recovery.at_start = false;
	if (pool->recovery.state == RECOVERY_DONE)
		client_log(pool->nvmmd, CLIENT_EVENT, pool->record.uid,
			   "pool %u is recovered, in %" PRIu64 " ms", pool->id,
			 pool->recovery.ended - pool->recovery.began);
	recovery->bytes_done += pool->recovery.units << UNIT_SHIFT;
	recovery->done++;
	recovery->failed += r < 0;
	if (recovery->done < recovery->total)
		return;
	recovery->ended = now_ms();
	log_info("%u heaps of %" PRIu64 " bytes were recovered in %" PRIu64 " ms, %u of them "
		 "cannot be; up to %u at a time",
		 recovery->total - recovery->failed, recovery->bytes,
		 recovery->ended - recovery->began, recovery->failed, recovery->most);
}

void recovery_ended(struct pool *pool, int r)
{
	struct pool_recovery *p = &pool->recovery;
	struct nvmmd *nvmmd = pool->nvmmd;

	if (p->state != RECOVERY_RUNNING) {
		pump(nvmmd); /* a job of another kind was in the way of a waiting one */
		return;
	}
	p->state = r < 0 ? RECOVERY_FAILED : RECOVERY_DONE;
	p->urgent = p->offline = false;
	p->ended = now_ms();
	if (r < 0 && !p->text[0])
		snprintf(p->text, sizeof(p->text), "%s", pool->damage ? pool->damage : strerror(-r));
	nvmmd->recovery.running--;
	nvmmd->counters.heaps_recovered += r == 0;
	count_start(pool, r);
	pump(nvmmd);
}

void recovery_forget(struct pool *pool)
{
	dequeue(pool);
	/* A look at a heap goes on beside its destruction, and no turn is its any more when it ends. */
	if (pool->recovery.state == RECOVERY_RUNNING)
		pool->nvmmd->recovery.running--;
	count_start(pool, 0);
	pool->recovery.state = RECOVERY_NONE;
}

void recovery_free(struct pool *pool)
{
	free(take(pool->recovery.report));
}

uint64_t recovery_progress(const struct nvmmd *nvmmd)
{
	uint64_t bytes = nvmmd->recovery.bytes_done;

	if (nvmmd->recovery.done == nvmmd->recovery.total)
		return bytes;
	for (uint32_t id = 1; id <= POOL_ID_MAX; id++) {
		const struct pool *pool = nvmmd->pools.by_id[id];

		if (pool && pool->recovery.at_start && pool->recovery.state == RECOVERY_RUNNING)
			/* ordering: none needed; a figure for people. */
			bytes += __atomic_load_n(&pool->recovery.done, __ATOMIC_RELAXED)
				 << UNIT_SHIFT;
	}
	return bytes;
}

uint64_t recovery_ms(const struct recovery *recovery)
{
	return (recovery->ended ? recovery->ended : now_ms()) - recovery->began;
}
