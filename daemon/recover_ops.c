/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests about recovery: begin one, tell how far it is; check a pool; have one for oneself.
 *
 * A recovery is begun by a request and looked at by others: who asked may go away meanwhile. A check
 * answers when it is done; it reads files through mappings of its own, so that it works on damaged
 * pools and on what is in use alike.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/job.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_ops.h"
#include "daemon/request.h"
#include "media/inspect.h"

#define STATUS_POOLS 128u

static int no_memory(struct request *request)
{
	return request_fail(request, -ENOMEM, "the daemon has no memory");
}

/* Reports */

static Nvmm__Finding *finding_reply(struct request *request, const struct check_finding *from)
{
	Nvmm__Finding *f = request_alloc(request, sizeof(*f));

	if (!f)
		return NULL;
	nvmm__finding__init(f);
	f->file = request_strdup(request, from->file);
	f->offset = from->offset;
	f->ref = from->ref;
	f->what = request_strdup(request, from->what);
	f->so = request_strdup(request, from->so);
	return f->file && f->what && f->so ? f : NULL;
}

static Nvmm__CheckReply *report_reply(struct request *request, const struct check_report *report)
{
	Nvmm__CheckReply *reply = request_alloc(request, sizeof(*reply));

	if (!reply)
		return NULL;
	nvmm__check_reply__init(reply);
	reply->units = report->units;
	reply->spans = report->spans;
	reply->blocks = report->blocks;
	reply->used = report->used;
	reply->limbo = report->limbo;
	reply->free = report->free;
	reply->suspects = report->suspects;
	reply->violations = report->violations;
	reply->findings = request_alloc(request, (report->n_findings + 1) * sizeof(Nvmm__Finding *));
	if (!reply->findings)
		return NULL;
	for (uint32_t i = 0; i < report->n_findings; i++) {
		reply->findings[i] = finding_reply(request, &report->finding[i]);
		if (!reply->findings[i])
			return NULL;
		reply->n_findings++;
	}
	return reply;
}

/* Recover */

/* Who may write the pool may have it recovered; mending may drop things: that is its owner's. */
static int recover_permit(struct request *request, const struct pool *pool)
{
	const Nvmm__Recover *m = request->msg->recover;
	const struct access_admin *admin = &request->nvmmd->admin;
	const struct peer *peer = request_peer(request);

	if (access_change(admin, peer, &pool->record) == 0)
		return 0;
	if (m->repair)
		return request_fail(request, -EPERM,
				    "pool %u is user %u's: only its owner or an administrator may "
				    "have it repaired",
				    pool->id, pool->record.uid);
	if (access_open(admin, peer, &pool->record, ACCESS_READ | ACCESS_WRITE) < 0)
		return request_fail(request, -EACCES,
				    "pool %u is user %u's: user %u may not open it for writing",
				    pool->id, pool->record.uid, peer->uid);
	return 0;
}

/* The dead that have the pool open are settled first. */
static int settled_need(struct request *request, struct pool *pool)
{
	if (!settle_pending(pool, UINT64_MAX))
		return 0;
	pool_park(pool, request);
	return REQUEST_PENDING;
}

/* Offline: nobody but the caller's session has it open; nobody at all for a repair. */
static int recover_alone(struct request *request, struct pool *pool)
{
	struct opening *opening;

	LIST_FOREACH (opening, &pool->openings, of_pool)
		if (!opening->session->ended &&
		    (opening->session != request->session || request->msg->recover->repair))
			return request_fail(request, -EBUSY,
					    "process %d has pool %u open: it cannot be %s",
					    opening->session->peer.process.pid, pool->id,
					    request->msg->recover->repair ? "repaired" :
									    "recovered offline");
	return settled_need(request, pool);
}

static int recover_check(struct request *request, struct pool *pool)
{
	const Nvmm__Recover *m = request->msg->recover;
	int r;

	if (pool->record.kind == POOL_REGION && !m->repair)
		return request_fail(request, -EINVAL,
				    "pool %u is a region: there is nothing in it to recover",
				    pool->id);
	r = recover_permit(request, pool);
	if (r == 0 && (m->offline || m->repair))
		r = recover_alone(request, pool);
	if (r != 0)
		return r;
	if (pool->damage && !m->repair)
		return request_fail(request, -EUCLEAN,
				    "pool %u is damaged: %s; `nvmmctl recover --offline --repair` "
				    "mends what can be",
				    pool->id, pool->damage);
	return 0;
}

int op_recover(struct request *request)
{
	const Nvmm__Recover *m = request->msg->recover;
	struct pool *pool;
	int r;

	r = pool_need(request, m->id, &pool);
	if (r == 0)
		r = recover_check(request, pool);
	if (r != 0)
		return r;
	if (pool->busy != POOL_IDLE || pool->recovery.state == RECOVERY_RUNNING) {
		pool_park(pool, request);
		return REQUEST_PENDING;
	}
	if (m->repair)
		return recovery_mend(request, pool);
	pool->recovery.offline = m->offline;
	r = recovery_ask(pool, RECOVERY_VERIFY);
	return r < 0 ? no_memory(request) : 0;
}

int recovery_repair(struct request *request, struct pool *pool)
{
	pool->recovery.offline = true;
	return recovery_ask(pool, RECOVERY_REPAIR) < 0 ? no_memory(request) : 0;
}

/* Status */

static Nvmm__RecoverPool *pool_reply(struct request *request, const struct pool *pool, bool all)
{
	const struct pool_recovery *p = &pool->recovery;
	Nvmm__RecoverPool *reply = request_alloc(request, sizeof(*reply));
	bool ended = p->state == RECOVERY_DONE || p->state == RECOVERY_FAILED;

	if (!reply)
		return NULL;
	nvmm__recover_pool__init(reply);
	reply->id = pool->id;
	reply->state = p->state;
	reply->priority = pool->record.priority;
	reply->bytes = p->units << UNIT_SHIFT;
	/* ordering: none needed; a figure for people. */
	reply->bytes_done = MIN(__atomic_load_n(&p->done, __ATOMIC_RELAXED), p->units)
			    << UNIT_SHIFT;
	if (ended)
		reply->bytes_done = reply->bytes;
	reply->ms = ended ? p->ended - p->began : 0;
	reply->text = request_strdup(request, p->text);
	reply->name = request_strdup(request, pool->record.name);
	if (all && p->report && ended)
		reply->report = report_reply(request, p->report);
	return reply->text && reply->name ? reply : NULL;
}

static int add_pool(struct request *request, Nvmm__RecoverStatusReply *reply,
		    const struct pool *pool, bool all)
{
	Nvmm__RecoverPool *p = pool_reply(request, pool, all);

	if (!p)
		return -ENOMEM;
	reply->pools[reply->n_pools++] = p;
	return 0;
}

static int add_pools(struct request *request, Nvmm__RecoverStatusReply *reply)
{
	const Nvmm__RecoverStatus *m = request->msg->recover_status;
	struct nvmmd *nvmmd = request->nvmmd;
	int r = 0;

	for (uint64_t id = (uint64_t)m->after + 1; r == 0 && id <= POOL_ID_MAX; id++) {
		struct pool *pool = nvmmd->pools.by_id[id];

		if (!pool || pool->recovery.state == RECOVERY_NONE)
			continue;
		if (reply->n_pools == STATUS_POOLS) {
			reply->more = true;
			break;
		}
		r = add_pool(request, reply, pool, false);
	}
	return r;
}

int op_recover_status(struct request *request)
{
	const struct recovery *recovery = &request->nvmmd->recovery;
	Nvmm__RecoverStatusReply *reply = request_alloc(request, sizeof(*reply));
	uint32_t id = request->msg->recover_status->id;
	struct pool *pool;
	int r;

	if (!reply)
		return no_memory(request);
	nvmm__recover_status_reply__init(reply);
	reply->total = recovery->total;
	reply->done = recovery->done;
	reply->failed = recovery->failed;
	reply->bytes = recovery->bytes;
	reply->bytes_done = recovery_progress(request->nvmmd);
	reply->ms = recovery_ms(recovery);
	reply->pools = request_alloc(request, STATUS_POOLS * sizeof(*reply->pools));
	if (!reply->pools)
		return no_memory(request);
	r = id ? pool_need(request, id, &pool) : 0;
	if (r < 0)
		return r;
	r = id ? add_pool(request, reply, pool, true) : add_pools(request, reply);
	if (r < 0)
		return no_memory(request);
	request->reply.result_case = NVMM__REPLY__RESULT_RECOVER_STATUS;
	request->reply.recover_status = reply;
	return 0;
}

/* Check */

struct check_job {
	struct job job;
	struct pool *pool;
	struct request *request;
	int base_fd;
	bool live;
	uint32_t lanes;
	struct pool_record record; /* kind 0: rotten */
	struct check_report report;
};

static int check_run(struct job *job)
{
	struct check_job *check = container_of(job, struct check_job, job);

	if (check->record.kind == 0)
		check_note(&check->report, "registry",
			   offsetof(struct registry_file_df, entry) +
				   check->record.pool * sizeof(struct registry_entry_df),
			   0, "the pool's record is rotten or not there",
			   "nobody can tell what the pool is; repair asks its files");
	return inspect_pool(&check->report, check->base_fd, &check->record, check->lanes,
			    check->live);
}

static void check_done(struct job *job, int r)
{
	struct check_job *check = container_of(job, struct check_job, job);
	struct request *request = check->request;
	Nvmm__CheckReply *reply = r == 0 ? report_reply(request, &check->report) : NULL;

	if (r < 0)
		r = request_fail(request, r, "pool %u cannot be checked: %s", check->pool->id,
				 strerror(-r));
	else if (!reply)
		r = no_memory(request);
	request->reply.result_case = NVMM__REPLY__RESULT_CHECK;
	request->reply.check = reply;
	request_finish(request, r);
	pool_unref(check->pool);
	free(check);
}

int op_check(struct request *request)
{
	struct check_job *check;
	struct pool *pool;
	int r;

	r = pool_need(request, request->msg->check->id, &pool);
	if (r < 0)
		return r;
	if (pool->record.kind != 0 &&
	    access_open(&request->nvmmd->admin, request_peer(request), &pool->record,
			ACCESS_READ) < 0)
		return request_fail(request, -EACCES,
				    "pool %u is user %u's: user %u may not read it", pool->id,
				    pool->record.uid, request_peer(request)->uid);
	if (pool->busy != POOL_IDLE) {
		pool_park(pool, request);
		return REQUEST_PENDING;
	}
	check = calloc(1, sizeof(*check));
	if (!check)
		return no_memory(request);
	check->pool = pool_ref(pool);
	check->request = request;
	check->base_fd = request->nvmmd->base_fd;
	check->live = pool->openers > 0 || pool->heap;
	check->record = pool->record;
	check->record.pool = pool->id;
	check->lanes = pool->lanes;
	check->report.stop = &request->nvmmd->jobs.stopping;
	check->job.run = check_run;
	check->job.done = check_done;
	job_start(&check->job, request, JOB_LOOK);
	return REQUEST_PENDING;
}

/* Exclusive */

int op_exclusive(struct request *request)
{
	const Nvmm__Exclusive *m = request->msg->exclusive;
	struct opening *opening, *other;
	struct pool *pool;
	int r;

	r = opening_need(request, m->id, true, &opening);
	if (r < 0)
		return r;
	pool = opening->pool;
	if (!m->on) {
		if (pool->exclusive == request->session)
			pool_share(pool);
		return 0;
	}
	LIST_FOREACH (other, &pool->openings, of_pool)
		if (other != opening && !other->session->ended)
			return request_fail(request, -EBUSY, "process %d has pool %u open, too",
					    other->session->peer.process.pid, pool->id);
	r = settled_need(request, pool);
	if (r == 0)
		pool->exclusive = request->session;
	return r;
}
