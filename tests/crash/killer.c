/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/crash/killer.h"

#include <stddef.h>

#include "tests/crash/doomed.h"

void (*killer_watch)(void);

static bool armed;
static long points_left;

static void flush(const void *addr, size_t len)
{
	(void)addr;
	(void)len;
}

static void drain(void)
{
}

static void point(enum media_point kind, const void *addr, size_t len)
{
	(void)kind;
	(void)addr;
	(void)len;
	if (!armed)
		return;
	if (killer_watch)
		killer_watch();
	if (points_left-- == 0)
		doomed_end();
}

const struct media_backend killer_backend = {
	.flush = flush,
	.drain = drain,
	.point = point,
};

struct job {
	long k;
	void (*fn)(void *arg);
	void *arg;
};

static void child(void *arg)
{
	const struct job *job = arg;

	points_left = job->k;
	armed = true;
	media_backend = &killer_backend;
	job->fn(job->arg);
}

bool killer_run(long k, void (*fn)(void *arg), void *arg)
{
	struct job job = { k, fn, arg };

	return doomed_run(child, &job);
}
