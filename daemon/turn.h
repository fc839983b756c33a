/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long the turns of the loop are: the time that any client waits because of others.
 *
 * A turn is what the loop does between two waits: callbacks of sockets, signals, jobs and timers, and
 * the closing of handles. Its length is wall time without the wait in epoll_wait(2). Kept are the
 * longest turn since the start, and the longest of each of the last TURN_SECONDS seconds.
 *
 * Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

#define TURN_SECONDS 64u      /* how far back turns are known by the second */
#define TURN_WINDOW_DEFAULT 10u /* seconds */
#define TURN_WINDOW_MAX 60u
#define TURN_LONG_US 10000u   /* a turn from this length on is counted as a long one */

struct turn_log {
	uint64_t turns;
	uint64_t longest; /* ns, since the start */
	uint64_t number;  /* of the second that was noted last */
	uint64_t second[TURN_SECONDS]; /* ns; the longest turn that ended in second n % TURN_SECONDS */
};

/* Notes a turn that ended at `now`; both in ns. */
void turn_note(struct turn_log *log, uint64_t now, uint64_t length);
/* The longest turn, in ns, of those that ended in the second of `now` or in the `seconds` before it
 * (at most TURN_SECONDS - 1). */
uint64_t turn_recent(const struct turn_log *log, uint64_t now, uint32_t seconds);

struct turns {
	uv_prepare_t prepare;
	bool started;
	uint64_t began; /* ns of the monotonic clock */
	uint64_t idle;  /* ns that the loop had waited by then */
	uint64_t *long_turns; /* a counter */
	struct turn_log log;
};

/* Measures the turns of `loop` from now on; counts long ones in *long_turns. Before the loop runs. */
int turns_start(struct turns *turns, uv_loop_t *loop, uint64_t *long_turns);
/* Closes the handle. Idempotent. */
void turns_stop(struct turns *turns);
