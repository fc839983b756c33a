/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A damaged pool is mended and taken up anew, because its owner or an administrator asked for it.
 *
 * First its record: of two slots the one that is readable, perhaps the older; of none, what the
 * headers of its files say, and then it is the daemon's own user's, with mode 0600 and no name: whose
 * it was, nobody can tell any more. Then its files (media/mend.c), in a job: files that are missing are
 * made, whatever their size. Spans and state records are mended when the heap is loaded (media/repair.c).
 *
 * The registry's record is written last, over the rotten one, which stays rotten until then: a daemon
 * that is killed before finds the pool as damaged as it was.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/job.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_files.h"
#include "daemon/recover.h"
#include "daemon/request.h"
#include "media/mend.h"

struct mending {
	struct job job;
	struct pool *pool;
	struct request *request;
	int dir;
	struct pool_record record; /* what the pool is */
	bool unknown;              /* its files are to tell */
	uint16_t node;
	enum durability durability; /* of a pool that its files tell of */
	uint64_t size;              /* of its shelves, after it */
	struct check_report report;
};

static int mending_run(struct job *job)
{
	struct mending *m = container_of(job, struct mending, job);
	int r = 0;

	if (m->unknown) {
		r = mend_identify(&m->record, m->dir, m->record.pool, m->node);
		m->record.durability = m->durability;
	}
	return r < 0 ? r : mend_files(&m->report, m->dir, &m->record, &m->size);
}

static void log_report(const struct pool *pool, const struct check_report *report)
{
	for (uint32_t i = 0; i < report->n_findings; i++)
		client_log(pool->nvmmd, CLIENT_EVENT, pool->record.uid,
			   "pool %u: %s at byte %llu: %s: %s", pool->id, report->finding[i].file,
			 (unsigned long long)report->finding[i].offset, report->finding[i].what,
			 report->finding[i].so);
}

/* The record that a rotten one becomes. */
static struct pool_record mended_record(const struct mending *m)
{
	struct nvmmd *nvmmd = m->pool->nvmmd;
	struct pool_record record = m->record;

	if (m->unknown) {
		record.uid = nvmmd->admin.uid;
		record.gid = getegid();
		record.created = (uint64_t)nvmmd_now();
	}
	/* Its files are there: whatever was under way when the older slot was written is over. */
	record.state = POOL_LIVE;
	if (record.name[0] && pool_by_name(nvmmd, record.name))
		memset(record.name, 0, sizeof(record.name));
	return record;
}

/* Takes the pool up with what its files are now. */
static int take_up(const struct mending *m)
{
	struct pool *pool = m->pool;
	bool rotten = pool->record.kind == 0;
	struct pool_record record = rotten ? mended_record(m) : pool->record;
	int r;

	/* A resize that was interrupted goes on to its end below. */
	if (record.state != POOL_RESIZING)
		record.size = m->size;
	r = pool_replace(pool, &record);
	if (r < 0)
		return r;
	if (rotten)
		pool_take_name(pool);
	free(take(pool->damage));
	pool_load(pool);
	if (pool->record.state == POOL_RESIZING)
		recover_resize(pool);
	return pool->damage ? -EUCLEAN : 0;
}

static void mending_done(struct job *job, int r)
{
	struct mending *m = container_of(job, struct mending, job);
	struct pool *pool = m->pool;

	pool->busy = POOL_IDLE;
	*pool->recovery.report = m->report;
	log_report(pool, &m->report);
	if (r == 0)
		r = take_up(m);
	if (r < 0)
		r = request_fail(m->request, r, "pool %u cannot be repaired: %s", pool->id,
				 pool->damage ? pool->damage : strerror(-r));
	else if (pool->record.kind == POOL_HEAP)
		r = recovery_repair(m->request, pool);
	request_finish(m->request, r);
	pool_unpark(pool);
	pool_rest(pool);
	pool_unref(pool);
	close(m->dir);
	free(m);
}

int recovery_mend(struct request *request, struct pool *pool)
{
	struct nvmmd *nvmmd = pool->nvmmd;
	struct mending *m = calloc(1, sizeof(*m));
	int r;

	r = m ? recovery_report(pool) : -ENOMEM;
	if (r == 0)
		r = pool_files_dir(&m->dir, nvmmd->base_fd, pool->id);
	if (r < 0) {
		free(m);
		return request_fail(request, r, "pool %u cannot be repaired: %s", pool->id,
				    r == -ENOENT ? "its directory is gone" : strerror(-r));
	}
	/* Who gives back space of the heap sees that it is gone, and ends. */
	heap_service_unref(take(pool->heap));
	meta_free(take(pool->meta));
	m->record = pool->record;
	if (m->record.kind == 0)
		m->unknown = !registry_salvage(nvmmd->registry, pool->id, &m->record) ||
			     m->record.state == POOL_FREE;
	m->record.pool = pool->id;
	m->node = nvmmd->node.node;
	m->durability = nvmmd->base_is_pmem ? DURABILITY_POWER : DURABILITY_PROCESS;
	m->pool = pool_ref(pool);
	m->request = request;
	m->job.run = mending_run;
	m->job.done = mending_done;
	pool_job_start(pool, &m->job, request, POOL_BUSY_MENDING);
	return REQUEST_PENDING;
}
