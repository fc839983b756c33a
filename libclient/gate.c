/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Gates: a mutex would do, if the wait for one by the monotonic clock were as old as thread
 * checkers are; a condition variable has had that clock for longer. Whoever is inside may wait for
 * the daemon, so there is no haste here.
 */
#include "libclient/gate.h"

#include <errno.h>
#include <time.h>

void gate_init(struct gate *gate)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&gate->mutex, NULL);
	pthread_cond_init(&gate->left, &attr);
	pthread_condattr_destroy(&attr);
	gate->taken = false;
}

void gate_deinit(struct gate *gate)
{
	pthread_cond_destroy(&gate->left);
	pthread_mutex_destroy(&gate->mutex);
}

/* Waits for a leaver; the mutex is held. 0 or -ETIMEDOUT. */
static int wait_left(struct gate *gate, uint64_t when)
{
	struct timespec ts = {
		.tv_sec = (time_t)(when / 1000000000u),
		.tv_nsec = (long)(when % 1000000000u),
	};

	if (when == UINT64_MAX)
		return -pthread_cond_wait(&gate->left, &gate->mutex);
	return -pthread_cond_timedwait(&gate->left, &gate->mutex, &ts);
}

int gate_enter(struct gate *gate, uint64_t when)
{
	int r = 0;

	pthread_mutex_lock(&gate->mutex);
	while (gate->taken && r == 0)
		r = wait_left(gate, when);
	if (!gate->taken) {
		gate->taken = true;
		r = 0;
	}
	pthread_mutex_unlock(&gate->mutex);
	return r;
}

void gate_leave(struct gate *gate)
{
	pthread_mutex_lock(&gate->mutex);
	gate->taken = false;
	pthread_cond_signal(&gate->left);
	pthread_mutex_unlock(&gate->mutex);
}
