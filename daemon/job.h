/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Work that may take long, off the loop: run in libuv's thread pool, committed on the loop.
 */
#pragma once

#include <uv.h>

struct nvmmd;

/* Embedded in what the job works on. */
struct job {
	struct nvmmd *nvmmd;
	uv_work_t work;
	int result;
	/* In a thread of the pool: touches what the job owns, nothing of the daemon's. 0 or -errno. */
	int (*run)(struct job *job);
	/* On the loop, afterwards, with what run() returned; owns the job from then on. */
	void (*done)(struct job *job, int r);
};

/* Starts it; run and done are set. Jobs under way hold up an orderly stop. */
void job_start(struct job *job, struct nvmmd *nvmmd);

/* A run() that does nothing: the loop serves others, then comes back by done(). */
int job_pause(struct job *job);
