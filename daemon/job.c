/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Jobs. libuv's queue orders memory between loop and threads: what the loop stored before
 * job_start() is seen by run(), and what run() stored is seen by done(). Only done() may change
 * what the daemon owns, so that the loop thread stays the one writer of all of it.
 */
#include "daemon/job.h"

#include "common/macro.h"
#include "daemon/nvmmd.h"

static void job_work(uv_work_t *work)
{
	struct job *job = work->data;

	job->result = job->run(job);
}

static void job_after(uv_work_t *work, int status)
{
	struct job *job = work->data;
	struct nvmmd *nvmmd = job->nvmmd;

	job->done(job, status < 0 ? status : job->result);
	nvmmd->jobs--;
	nvmmd_stop_if_idle(nvmmd);
}

void job_start(struct job *job, struct nvmmd *nvmmd)
{
	int r;

	job->nvmmd = nvmmd;
	job->work.data = job;
	nvmmd->jobs++;
	r = uv_queue_work(&nvmmd->loop, &job->work, job_work, job_after);
	if (r < 0) /* only for a missing callback; then the result still reaches who waits */
		job_after(&job->work, r);
}

int job_pause(struct job *job)
{
	(void)job;
	return 0;
}
