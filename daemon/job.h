/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Work that may take long, off the loop: run in libuv's thread pool, committed on the loop.
 *
 * Jobs wait in queues by class and user (job_queue.h). The thread pool has a thread for each job that the queues
 * let run, so nothing waits inside of libuv.
 */
#pragma once

#include <uv.h>

#include "daemon/job_queue.h"

struct nvmmd;
struct request;

/* Embedded in what the job works on. */
struct job {
	struct nvmmd *nvmmd;
	struct request *request; /* who waits for it; NULL: nobody, or it must be done even so */
	struct job_turn turn;
	uv_work_t work;
	int result;
	/* In a thread of the pool: touches what the job owns, nothing of the daemon's. 0 or -errno. */
	int (*run)(struct job *job);
	/* On the loop, afterwards, with what run() returned; owns the job from then on. -ECANCELED: it did not
	 * run. */
	void (*done)(struct job *job, int r);
};

struct jobs {
	struct job_queue queue;
	struct job_turns ended; /* that will not run; done() is due, on the loop */
	uv_idle_t idle;         /* active while slices wait or jobs have ended so */
	unsigned n;             /* queued, running or ended, and not done */
	int stopping;           /* atomic: long jobs end between two steps */
};

/* `recoveries`: how many heaps are recovered at once. Before libuv starts its threads. */
int jobs_init(struct nvmmd *nvmmd, unsigned recoveries);
void jobs_deinit(struct nvmmd *nvmmd);
/* Ends what is queued, except for jobs that close heaps; asks long ones to end. */
void jobs_stop(struct nvmmd *nvmmd);
/* Closes its handle: no job is left. */
void jobs_close(struct nvmmd *nvmmd);

/* Starts it for a client, which waits for it; run and done are set. A look whose client is gone is dropped. Jobs
 * under way hold up an orderly stop. */
void job_start(struct job *job, struct request *request, enum job_class class);
/* Starts it for the daemon itself, on account of a user. */
void job_start_own(struct job *job, struct nvmmd *nvmmd, enum job_class class, uid_t uid);
/* Lets the loop serve others, then comes back by done(), in turn with the slices of other users. */
void job_pause(struct job *job, struct nvmmd *nvmmd, uid_t uid);

/* Another user waits for a job: it goes to that user's queue if it comes sooner there. */
void job_hasten(struct job *job, uid_t uid);
