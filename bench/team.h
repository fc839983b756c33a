/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A team: the threads or processes that run one round after another together, each pinned to a CPU,
 * and the process that gives them the word. What they share is in one mapping made before the first
 * fork.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "bench/cell.h"

#define TEAM_LINE 128 /* two cache lines: the one beside is fetched along */

struct outcome {
	uint64_t ns;
	uint64_t pairs;
	bool disturbed; /* something else ran on the CPU meanwhile */
};

struct team {
	unsigned workers;
	uint32_t round;  /* futex; raised to start one; TEAM_STOP: no more */
	uint32_t opened; /* workers that are ready for the first */
	/* written by workers */
	uint32_t arrived __attribute__((aligned(TEAM_LINE)));
	uint32_t finished __attribute__((aligned(TEAM_LINE))); /* futex */
	uint32_t ball __attribute__((aligned(TEAM_LINE)));
	uint64_t round_trip_ps __attribute__((aligned(TEAM_LINE)));
	struct outcome outcome[CELL_WORKERS_MAX];
};

#define TEAM_STOP UINT32_MAX

/* A mapping that forked processes share, zeroed. NULL: none. */
void *team_memory(size_t bytes);

/* How many CPUs the process may use; to be called before anything is pinned. */
unsigned team_cpus(void);
/* Pins the calling thread to the n-th of them. */
void team_pin(unsigned n);
/* Lets the calling thread have more of its CPU than others, if that is allowed: what else the machine
 * does is then less in the way. */
void team_favour(void);
uint64_t team_now_ns(void);

/* The workers' side. Waits for the round behind `*round`; false: there is none. */
bool team_await(struct team *team, uint32_t *round);
/* Waits, spinning, until all workers are here: `meetings` counts them, one for each worker. */
void team_meet(struct team *team, uint32_t *meetings);
/* Measures a cache line's way from worker 0 to worker 1 and back; both call it. */
void team_round_trip(struct team *team, unsigned worker);
void team_ready(struct team *team);
void team_finish(struct team *team);

/* The other side. Starts a round; waits until all have finished it. */
void team_start(struct team *team);
void team_stop(struct team *team);
/* Waits up to 100 ms for *counter (opened, finished) to be `n`. */
bool team_wait(uint32_t *counter, uint32_t n);
