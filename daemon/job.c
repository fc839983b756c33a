/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Jobs. libuv's queue orders memory between loop and threads: what the loop stored before
 * job_start() is seen by run(), and what run() stored is seen by done(). Only done() may change
 * what the daemon owns, so that the loop thread stays the one writer of all of it.
 *
 * Threads. Each class has threads of its own: a flood of one class takes none of another's, and a user never has
 * all threads of a class that clients can ask for. libuv's pool has as many threads as all classes together. Most
 * jobs compute: so a user has fewer at once than there are processors, where there are several.
 *
 * Bounds. A session has one request under way, so a user has at most as many jobs as sessions. A client that goes
 * away leaves its job. Of a pool there is at most one job of JOB_WORK that changes it and one that reserves. Looks
 * would add up, so the ones without a client are dropped when a user's queue has doubled since the last time.
 *
 * Slices and jobs that end without running are completed by an idle handle, a few each turn of the loop.
 */
#include "daemon/job.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/macro.h"
#include "daemon/connection.h"
#include "daemon/nvmmd.h"
#include "daemon/request.h"

#define WORK_THREADS 6u
#define WORK_PER_USER 3u
#define LOOK_THREADS 3u
#define LOOK_PER_USER 2u
#define CLOSE_THREADS 2u
#define CLOSE_PER_USER 1u
#define TURN_JOBS 8u             /* slices, and ended jobs, in one turn of the loop */
#define TURN_NS UINT64_C(200000) /* no more begins after this time */
#define LOOKED_MIN 64u

static uint64_t now_ms(void)
{
	return uv_hrtime() / 1000000;
}

static struct job *job_of(struct job_turn *turn)
{
	return turn ? container_of(turn, struct job, turn) : NULL;
}

/* Whether nobody waits for the job any more, and nothing needs it. */
static bool is_abandoned(const struct job *job)
{
	const struct request *request = job->request;

	return job->turn.class == JOB_LOOK && request &&
	       (request->connection->closed || (request->session && request->session->ended));
}

static void job_end(struct job *job, int r)
{
	struct nvmmd *nvmmd = job->nvmmd;

	job->done(job, r);
	nvmmd->jobs.n--;
	nvmmd_stop_if_idle(nvmmd);
}

/* Has done() called soon, though it does not run. It is in no queue. */
static void job_cancel(struct job *job)
{
	struct jobs *jobs = &job->nvmmd->jobs;

	TAILQ_INSERT_TAIL(&jobs->ended, &job->turn, of_user);
}

static void dispatch(struct nvmmd *nvmmd, enum job_class class);

static void job_work(uv_work_t *work)
{
	struct job *job = work->data;

	job->result = job->run(job);
}

static void job_after(uv_work_t *work, int status)
{
	struct job *job = work->data;
	struct nvmmd *nvmmd = job->nvmmd;
	enum job_class class = job->turn.class;

	job_queue_end(&nvmmd->jobs.queue, &job->turn);
	dispatch(nvmmd, class);
	job_end(job, status < 0 ? status : job->result);
}

static void on_idle(uv_idle_t *idle);

/* The idle handle is active exactly while there is something for it. */
static void update_idle(struct nvmmd *nvmmd)
{
	struct jobs *jobs = &nvmmd->jobs;

	if (uv_is_closing((uv_handle_t *)&jobs->idle))
		return;
	if (jobs->queue.class[JOB_SLICE].waiting > 0 || !TAILQ_EMPTY(&jobs->ended))
		uv_idle_start(&jobs->idle, on_idle);
	else
		uv_idle_stop(&jobs->idle);
}

static void run(struct job *job)
{
	int r;

	if (is_abandoned(job)) {
		job_queue_end(&job->nvmmd->jobs.queue, &job->turn);
		job_cancel(job);
		return;
	}
	job->work.data = job;
	r = uv_queue_work(&job->nvmmd->loop, &job->work, job_work, job_after);
	if (r == 0)
		return;
	/* Only for a missing callback; then the result still reaches who waits. */
	job_queue_end(&job->nvmmd->jobs.queue, &job->turn);
	job_cancel(job);
}

/* Starts what may run of a class. */
static void dispatch(struct nvmmd *nvmmd, enum job_class class)
{
	struct job *job;

	if (class == JOB_SLICE)
		return;
	while ((job = job_of(job_queue_pop(&nvmmd->jobs.queue, class, now_ms()))))
		run(job);
	update_idle(nvmmd);
}

/* Runs the next slice, or completes a job that ended; false: there is none. */
static bool turn_one(struct nvmmd *nvmmd)
{
	struct jobs *jobs = &nvmmd->jobs;
	struct job_turn *turn = TAILQ_FIRST(&jobs->ended);

	if (turn) {
		TAILQ_REMOVE(&jobs->ended, turn, of_user);
		job_end(job_of(turn), -ECANCELED);
		return true;
	}
	turn = job_queue_pop(&jobs->queue, JOB_SLICE, now_ms());
	if (!turn)
		return false;
	job_queue_end(&jobs->queue, turn);
	job_end(job_of(turn), 0);
	return true;
}

static void on_idle(uv_idle_t *idle)
{
	struct nvmmd *nvmmd = idle->data;
	uint64_t began = uv_hrtime();

	for (unsigned i = 0; i < TURN_JOBS && uv_hrtime() - began < TURN_NS; i++)
		if (!turn_one(nvmmd))
			break;
	update_idle(nvmmd);
}

/* Drops a user's looks that nobody waits for, once they may be half of what waits. */
static void drop_abandoned(struct job_queue *queue, struct job_user *user)
{
	struct job_turn *turn, *next;

	if (user->waiting < MAX(LOOKED_MIN, 2 * user->looked))
		return;
	for (turn = TAILQ_FIRST(&user->jobs); turn; turn = next) {
		next = TAILQ_NEXT(turn, of_user);
		/* The last one was just queued, so the user's record stays. */
		if (next && is_abandoned(job_of(turn))) {
			job_queue_remove(queue, turn);
			job_cancel(job_of(turn));
		}
	}
	user->looked = user->waiting;
}

static void enqueue(struct job *job, struct nvmmd *nvmmd, enum job_class class, uid_t uid)
{
	struct jobs *jobs = &nvmmd->jobs;

	job->nvmmd = nvmmd;
	job->turn.class = class;
	jobs->n++;
	if (nvmmd->stopping && class != JOB_CLOSE) {
		job_cancel(job);
	} else {
		job_queue_push(&jobs->queue, &job->turn, class, uid, now_ms());
		if (class == JOB_LOOK)
			drop_abandoned(&jobs->queue, job->turn.user);
		dispatch(nvmmd, class);
	}
	update_idle(nvmmd);
}

void job_start(struct job *job, struct request *request, enum job_class class)
{
	job->request = request;
	enqueue(job, request->nvmmd, class, request_peer(request)->uid);
}

void job_start_own(struct job *job, struct nvmmd *nvmmd, enum job_class class, uid_t uid)
{
	job->request = NULL;
	enqueue(job, nvmmd, class, uid);
}

void job_pause(struct job *job, struct nvmmd *nvmmd, uid_t uid)
{
	job->request = NULL;
	enqueue(job, nvmmd, JOB_SLICE, uid);
}

void job_hasten(struct job *job, uid_t uid)
{
	struct jobs *jobs = &job->nvmmd->jobs;

	/* Running, or ended: nothing can be sooner. */
	if (!job->turn.waiting)
		return;
	job_queue_hasten(&jobs->queue, &job->turn, uid);
	dispatch(job->nvmmd, job->turn.class);
}

/* At most `most` threads of a user, and one processor is left for the others. */
static unsigned of_user(unsigned most)
{
	unsigned others = uv_available_parallelism();

	others = others > 1 ? others - 1 : 1;
	return MIN(most, others);
}

int jobs_init(struct nvmmd *nvmmd, unsigned recoveries)
{
	struct jobs *jobs = &nvmmd->jobs;
	char threads[16];
	int r;

	job_queue_init(&jobs->queue);
	TAILQ_INIT(&jobs->ended);
	job_queue_limit(&jobs->queue, JOB_WORK, WORK_THREADS, of_user(WORK_PER_USER));
	job_queue_limit(&jobs->queue, JOB_LOOK, LOOK_THREADS, of_user(LOOK_PER_USER));
	job_queue_limit(&jobs->queue, JOB_CLOSE, CLOSE_THREADS, CLOSE_PER_USER);
	job_queue_limit(&jobs->queue, JOB_RECOVERY, recoveries, recoveries);
	job_queue_limit(&jobs->queue, JOB_SLICE, 1, 1);
	snprintf(threads, sizeof(threads), "%u",
		 WORK_THREADS + LOOK_THREADS + CLOSE_THREADS + recoveries);
	if (setenv("UV_THREADPOOL_SIZE", threads, 1) < 0)
		return -ENOMEM;
	r = uv_idle_init(&nvmmd->loop, &jobs->idle);
	jobs->idle.data = nvmmd;
	return r;
}

void jobs_deinit(struct nvmmd *nvmmd)
{
	job_queue_deinit(&nvmmd->jobs.queue);
}

void jobs_stop(struct nvmmd *nvmmd)
{
	static const enum job_class classes[] = { JOB_WORK, JOB_LOOK, JOB_RECOVERY, JOB_SLICE };
	struct jobs *jobs = &nvmmd->jobs;
	struct job_turn *turn;

	/* ordering: relaxed; a thread that sees it later works a little longer. */
	__atomic_store_n(&jobs->stopping, 1, __ATOMIC_RELAXED);
	for (size_t i = 0; i < ARRAY_SIZE(classes); i++)
		while ((turn = job_queue_first(&jobs->queue, classes[i]))) {
			job_queue_remove(&jobs->queue, turn);
			job_cancel(job_of(turn));
		}
	update_idle(nvmmd);
}

void jobs_close(struct nvmmd *nvmmd)
{
	uv_close((uv_handle_t *)&nvmmd->jobs.idle, NULL);
}
