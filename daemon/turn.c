/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Turns of the loop.
 *
 * libuv calls a prepare handle right before it waits. The time from one such call to the next is
 * one turn and one wait. libuv itself counts the wait (UV_METRICS_IDLE_TIME), which is taken off.
 * What is left holds all callbacks, those of sockets too, which run inside uv__io_poll().
 *
 * The metric costs one more epoll_wait(2) a turn: libuv asks without waiting first.
 *
 * The seconds are a ring. A second in which no turn ended keeps the value of an earlier round, so
 * the ring is cleared as far as time went on whenever a turn is noted.
 */
#include "daemon/turn.h"

#include "common/macro.h"

#define SECOND UINT64_C(1000000000)

void turn_note(struct turn_log *log, uint64_t now, uint64_t length)
{
	uint64_t number = now / SECOND;
	uint64_t *second = &log->second[number % TURN_SECONDS];

	/* At most one round is cleared, however long the loop slept. */
	if (number - log->number > TURN_SECONDS)
		log->number = number - TURN_SECONDS;
	while (log->number < number)
		log->second[++log->number % TURN_SECONDS] = 0;
	log->turns++;
	log->longest = MAX(log->longest, length);
	*second = MAX(*second, length);
}

uint64_t turn_recent(const struct turn_log *log, uint64_t now, uint32_t seconds)
{
	uint64_t number = now / SECOND, longest = 0;

	seconds = MIN(seconds, TURN_SECONDS - 1);
	for (uint64_t n = number >= seconds ? number - seconds : 0; n <= number; n++)
		/* Seconds after the last noted one have no turn, and the slots of older ones. */
		if (n <= log->number && log->number - n < TURN_SECONDS)
			longest = MAX(longest, log->second[n % TURN_SECONDS]);
	return longest;
}

static void before_wait(uv_prepare_t *prepare)
{
	struct turns *turns = prepare->data;
	uint64_t now = uv_hrtime(), idle = uv_metrics_idle_time(prepare->loop);
	uint64_t passed = now - turns->began, waited = idle - turns->idle;
	uint64_t length = passed > waited ? passed - waited : 0;

	if (turns->began != 0) {
		turn_note(&turns->log, now, length);
		*turns->long_turns += length >= TURN_LONG_US * UINT64_C(1000);
	}
	turns->began = now;
	turns->idle = idle;
}

int turns_start(struct turns *turns, uv_loop_t *loop, uint64_t *long_turns)
{
	int r;

	r = uv_loop_configure(loop, UV_METRICS_IDLE_TIME);
	if (r < 0)
		return r;
	turns->long_turns = long_turns;
	uv_prepare_init(loop, &turns->prepare);
	turns->prepare.data = turns;
	turns->started = true;
	uv_prepare_start(&turns->prepare, before_wait);
	/* It has nothing to do: it does not keep the loop alive. */
	uv_unref((uv_handle_t *)&turns->prepare);
	return 0;
}

void turns_stop(struct turns *turns)
{
	if (!turns->started)
		return;
	turns->started = false;
	uv_close((uv_handle_t *)&turns->prepare, NULL);
}
