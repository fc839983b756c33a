/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A lock that is waited for until a deadline of the monotonic clock.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/macro.h"

struct gate {
	pthread_mutex_t mutex; /* held for a few instructions */
	pthread_cond_t left;
	bool taken;
};

void gate_init(struct gate *gate);
void gate_deinit(struct gate *gate);

/* `when`: nanoseconds of CLOCK_MONOTONIC, UINT64_MAX: for ever. 0, or -ETIMEDOUT. */
int gate_enter(struct gate *gate, uint64_t when);
void gate_leave(struct gate *gate);

static inline void gate_leave_p(struct gate **gate)
{
	if (*gate)
		gate_leave(*gate);
}

/* A gate that was entered: left at the end of the scope. */
#define _gate _cleanup(gate_leave_p) struct gate
