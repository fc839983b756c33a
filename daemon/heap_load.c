/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Loading of heaps.
 *
 * Walking a heap's span tables takes a while, so it is done in a thread, while clients that had the
 * heap open before a restart go on using it. The lanes of sessions that live when the job begins
 * are left alone, all others are settled. Those of a session that dies meanwhile are settled on the loop,
 * afterwards (settle.c).
 *
 * The heap's service record says IN_USE under this boot before anybody gets descriptors to write by, and
 * CLOSED when the last has left and, of durability `power`, all is drained, in a job. Found IN_USE under
 * another boot, a heap of durability `power` may have lost what was not drained; in the same boot memory is as
 * its writers left it.
 */
#include "daemon/heap_load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/heap_space.h"
#include "daemon/job.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_files.h"
#include "daemon/request.h"

struct heap_load {
	struct job job;
	struct pool *pool;
	int pool_fd;
	struct pool_record record;
	struct pool_shelves shelves;
	struct lane_set alive; /* when the job began */
	struct heap_taking how;
	struct heap_service *service;
	char damage[HEAP_DAMAGE_LEN];
};

static int load_run(struct job *job)
{
	struct heap_load *load = container_of(job, struct heap_load, job);

	return heap_service_new(&load->service, load->pool_fd, &load->record, &load->shelves,
				&load->alive, &load->how, load->damage);
}

/* Claims lanes [from, to) of an opening and moves those that it may have to `n`; the next place. */
static uint32_t claim_some(struct opening *opening, uint32_t from, uint32_t to, uint32_t n)
{
	struct pool *pool = opening->pool;

	for (uint32_t i = from; i < to; i++) {
		uint32_t lane = opening->lanes[i];

		if (heap_service_claim(pool->heap, lane, opening->session->id) == 0)
			opening->lanes[n++] = lane;
		else
			client_log(pool->nvmmd, CLIENT_COMPLAINT, opening->session->peer.uid,
				   "session %llu claims lane %u of pool %u, which it cannot have",
				    (unsigned long long)opening->session->id, lane, pool->id);
	}
	return n;
}

/* Those that are being settled stay the last ones. */
static void claim_lanes(struct opening *opening)
{
	uint32_t before = opening->n_lanes, kept = before - opening->n_settling;
	uint32_t used = claim_some(opening, 0, kept, 0);
	uint32_t all = claim_some(opening, kept, before, used);

	opening->n_settling = all - used;
	opening->n_lanes = all;
	opening->session->n_lanes -= before - all;
}

/* Whether the heap was in use when power was cut. */
static int was_cut(bool *ret, struct pool *pool)
{
	struct service_record record;
	struct meta *meta;
	int r = pool_meta(pool, &meta);

	if (r < 0)
		return r;
	r = meta_service_get(meta, &record);
	if (r < 0)
		return pool_judge(pool, r, "its service record");
	*ret = record.in_use && memcmp(record.boot_id, pool->nvmmd->boot_id, BOOT_ID_LEN) != 0;
	return 0;
}

bool heap_was_in_use(struct pool *pool)
{
	struct service_record record = { .in_use = true };
	struct meta *meta;

	if (pool_meta(pool, &meta) == 0 && meta_service_get(meta, &record) < 0)
		pool_judge(pool, -EUCLEAN, "its service record");
	pool_rest(pool);
	return !pool->damage && record.in_use;
}

static int service_put(struct pool *pool, bool in_use)
{
	struct service_record record = { .in_use = in_use };
	struct meta *meta;
	int r = pool_meta(pool, &meta);

	if (r < 0)
		return r;
	memcpy(record.boot_id, pool->nvmmd->boot_id, BOOT_ID_LEN);
	r = meta_service_put(meta, &record);
	if (r < 0)
		client_log(pool->nvmmd, CLIENT_COMPLAINT, pool->record.uid,
			   "pool %u: its service record cannot be written: %s", pool->id,
			  strerror(-r));
	return r;
}

/* Unloading */

struct heap_closing {
	struct job job;
	struct pool *pool;
	struct heap_service *heap;
};

/* Lanes at the end of the file that nobody has are given up. */
static void lanes_trimmed(struct pool *pool, struct heap_service *heap)
{
	uint32_t before = pool->lanes;

	heap_service_lanes_trim(heap);
	pool->lanes = heap_service_lanes(heap);
	if (pool->lanes != before)
		overgrown_trimmed(pool);
	pool_recount(pool);
}

static void closed(struct pool *pool, struct heap_service *heap, int r)
{
	if (r < 0) {
		pool_judge(pool, r, "draining the heap");
		return;
	}
	(void)service_put(pool, false);
	lanes_trimmed(pool, heap);
	lane_charge_clear(pool);
}

static int closing_run(struct job *job)
{
	return heap_service_close(container_of(job, struct heap_closing, job)->heap);
}

static void closing_done(struct job *job, int r)
{
	struct heap_closing *closing = container_of(job, struct heap_closing, job);
	struct pool *pool = closing->pool;

	pool->busy = POOL_IDLE;
	closed(pool, closing->heap, r);
	heap_service_unref(closing->heap);
	pool_unpark(pool);
	pool_rest(pool);
	pool_unref(pool);
	free(closing);
}

bool heap_unload(struct pool *pool)
{
	struct heap_closing *closing;

	if (pool->damage || pool->record.state == POOL_FREE)
		return false;
	closing = heap_service_drains(pool->heap) && !pool->nvmmd->stopping ?
			  calloc(1, sizeof(*closing)) : NULL;
	if (!closing) {
		closed(pool, pool->heap, heap_service_close(pool->heap));
		return false;
	}
	closing->pool = pool_ref(pool);
	closing->heap = take(pool->heap);
	closing->job.run = closing_run;
	closing->job.done = closing_done;
	pool_job_start_own(pool, &closing->job, POOL_BUSY_CLOSING, JOB_CLOSE, pool->record.uid);
	return true;
}

static void load_commit(struct heap_load *load)
{
	struct pool *pool = load->pool;
	struct opening *opening;
	int r;

	r = service_put(pool, true);
	if (r < 0) {
		pool->load_error = r;
		return;
	}
	pool->heap = take(load->service);
	pool->lanes = heap_service_lanes(pool->heap);
	heap_space_begin(pool);
	pool_recount(pool);
	pool->nvmmd->counters.heaps_loaded++;
	LIST_FOREACH (opening, &pool->openings, of_pool)
		claim_lanes(opening);
	r = heap_service_settle_unowned(pool->heap, &load->alive);
	if (r < 0) {
		pool->load_error = r;
		pool_judge(pool, r, "settling the lanes of the dead");
		heap_service_unref(take(pool->heap));
		return;
	}
	lanes_trimmed(pool, pool->heap);
	lane_charge_guess(pool);
	epochs_kick(pool);
}

static void load_done(struct job *job, int r)
{
	struct heap_load *load = container_of(job, struct heap_load, job);
	struct pool *pool = load->pool;

	pool->busy = POOL_IDLE;
	pool->load_error = r;
	if (load->how.report)
		*pool->recovery.report = *load->how.report;
	if (r == 0)
		load_commit(load);
	else if (load->damage[0] && (r == -EIO || r == -EUCLEAN))
		pool_damage(pool, "%s", load->damage);
	else
		pool_judge(pool, r, "loading the heap");
	recovery_ended(pool, pool->load_error);
	settle_resume(pool);
	pool_unpark(pool);
	pool->load_error = 0;
	pool_rest(pool);
	pool_unref(pool);
	heap_service_unref(load->service);
	close(load->pool_fd);
	free(load->how.report);
	free(load);
}

static bool holder_lives(uint64_t holder)
{
	int fd, r = process_open(&fd, process_of_number(holder));

	if (r == 0)
		close(fd);
	/* Who cannot be asked after may live. */
	return r != -ESRCH;
}

/* Starts a load on account of `uid`. */
static int load_start(struct pool *pool, enum recovery_depth depth, enum job_class class, uid_t uid)
{
	struct heap_load *load = calloc(1, sizeof(*load));
	const struct opening *opening;
	int r = 0;

	if (!load)
		return -ENOMEM;
	load->how.lives = holder_lives;
	load->how.progress = &pool->recovery.done;
	load->how.repair = depth == RECOVERY_REPAIR;
	if (depth > RECOVERY_LOAD) {
		load->how.report = calloc(1, sizeof(*load->how.report));
		if (load->how.report)
			load->how.report->stop = &pool->nvmmd->jobs.stopping;
		r = load->how.report && recovery_report(pool) == 0 ? 0 : -ENOMEM;
	}
	if (r == 0)
		r = was_cut(&load->how.power_cut, pool);
	if (r == 0)
		r = pool_files_dir(&load->pool_fd, pool->nvmmd->base_fd, pool->id);
	if (r < 0) {
		free(load->how.report);
		free(load);
		return r;
	}
	load->pool = pool_ref(pool);
	load->record = pool->record;
	load->shelves = pool->shelves;
	load->how.readers = !LIST_EMPTY(&pool->openings);
	load->how.live = load->how.readers && !pool->recovery.offline;
	LIST_FOREACH (opening, &pool->openings, of_pool)
		for (uint32_t i = 0; i < opening->n_lanes; i++)
			lane_set_add(&load->alive, opening->lanes[i]);
	load->job.run = load_run;
	load->job.done = load_done;
	pool_job_start_own(pool, &load->job, POOL_BUSY_LOADING, class, uid);
	return 0;
}

void heap_load_ahead(struct pool *pool)
{
	if (!pool->heap && !pool->damage && !pool_is_gone(pool) && pool->busy == POOL_IDLE &&
	    pool->recovery.state != RECOVERY_WAITING &&
	    load_start(pool, RECOVERY_LOAD, JOB_RECOVERY, pool->record.uid) < 0)
		client_log(pool->nvmmd, CLIENT_COMPLAINT, pool->record.uid,
			   "pool %u: its heap will be loaded when it is asked for", pool->id);
}

/* Beside running clients */

struct heap_look {
	struct job job;
	struct pool *pool;
	struct heap_service *heap;
	struct grant_trim trim;
	struct check_report *report;
};

static int look_run(struct job *job)
{
	struct heap_look *look = container_of(job, struct heap_look, job);

	return heap_service_audit(look->heap, true, look->report, &look->pool->recovery.done);
}

static void look_done(struct job *job, int r);

/* Retires a slice of the empty spans; after the last one all is verified. */
static void look_trim(struct job *job, int r)
{
	struct heap_look *look = container_of(job, struct heap_look, job);
	int64_t bytes = 0;

	/* Given up meanwhile, its index is old. */
	if (r == 0 && look->pool->heap == look->heap)
		bytes = heap_service_retire(look->heap, &look->trim);
	if (r < 0 || bytes < 0) {
		look_done(job, r < 0 ? r : (int)bytes);
		return;
	}
	if (look->pool->heap != look->heap || look->trim.left == 0) {
		job->run = look_run;
		job->done = look_done;
	}
	if (job->run == look_run)
		job_start_own(job, look->pool->nvmmd, JOB_RECOVERY, look->pool->record.uid);
	else
		job_pause(job, look->pool->nvmmd, look->pool->record.uid);
}

static void look_done(struct job *job, int r)
{
	struct heap_look *look = container_of(job, struct heap_look, job);
	struct pool *pool = look->pool;

	*pool->recovery.report = *look->report;
	if (r == 0 && look->report->violations > 0)
		r = -EUCLEAN;
	pool_judge(pool, r, "verifying the heap");
	recovery_ended(pool, r);
	heap_service_unref(look->heap);
	pool_unpark(pool);
	pool_rest(pool);
	pool_unref(pool);
	free(look->report);
	free(look);
}

/* A heap that is in use: what is empty is given back, then all is verified; nobody waits. */
static int look_start(struct pool *pool)
{
	struct heap_look *look = calloc(1, sizeof(*look));
	int r;

	if (!look)
		return -ENOMEM;
	look->report = calloc(1, sizeof(*look->report));
	r = look->report ? recovery_report(pool) : -ENOMEM;
	if (r < 0) {
		free(look->report);
		free(look);
		return r;
	}
	look->report->stop = &pool->nvmmd->jobs.stopping;
	look->pool = pool_ref(pool);
	look->heap = heap_service_ref(pool->heap);
	look->job.done = look_trim;
	job_pause(&look->job, pool->nvmmd, pool->record.uid);
	return 0;
}

int heap_load_recover(struct pool *pool)
{
	enum recovery_depth depth = pool->recovery.depth;

	if (pool->damage)
		return -EUCLEAN;
	if (pool->heap && pool->recovery.offline)
		heap_service_unref(take(pool->heap)); /* its clients are kept away meanwhile */
	return pool->heap ? look_start(pool) : load_start(pool, depth, JOB_RECOVERY, pool->record.uid);
}

int heap_need(struct request *request, struct pool *pool)
{
	int r;

	if (pool_is_gone(pool))
		return request_fail(request, -ENOENT, "pool %u was destroyed", pool->id);
	if (pool->damage)
		return request_fail(request, -EUCLEAN, "pool %u is damaged: %s", pool->id,
				    pool->damage);
	if (pool->heap)
		return 0;
	r = request->load_error;
	request->load_error = 0;
	if (r < 0)
		return request_fail(request, r, "pool %u: its heap cannot be loaded: %s", pool->id,
				    strerror(-r));
	r = recovery_need(request, pool, true);
	if (r != 0)
		return r;
	if (pool->busy == POOL_IDLE) {
		r = load_start(pool, RECOVERY_LOAD, JOB_WORK, request_peer(request)->uid);
		if (r < 0)
			return request_fail(request, r, "pool %u: its heap cannot be loaded: %s",
					    pool->id, strerror(-r));
	}
	pool_park(pool, request);
	return REQUEST_PENDING;
}
