/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The length of loop turns: by the second, and measured of a real loop.
 */
#include <check.h>
#include <string.h>
#include <unistd.h>

#include <uv.h>

#include "daemon/turn.h"
#include "tests/unit/tempdir.h"

#define SECOND UINT64_C(1000000000)

START_TEST(longest_since_the_start)
{
	struct turn_log log = { .turns = 0 };

	turn_note(&log, 1000 * SECOND, 50);
	turn_note(&log, 1000 * SECOND + 1, 70);
	turn_note(&log, 9000 * SECOND, 60);
	ck_assert_uint_eq(log.longest, 70);
	ck_assert_uint_eq(log.turns, 3);
}
END_TEST

START_TEST(window_forgets_what_is_older)
{
	struct turn_log log = { .turns = 0 };

	turn_note(&log, 1000 * SECOND, 900);
	turn_note(&log, 1003 * SECOND, 30);
	turn_note(&log, 1005 * SECOND, 5);
	ck_assert_uint_eq(turn_recent(&log, 1005 * SECOND, 1), 5);
	ck_assert_uint_eq(turn_recent(&log, 1005 * SECOND, 2), 30);
	ck_assert_uint_eq(turn_recent(&log, 1005 * SECOND, 5), 900);
	/* Seconds pass in which no turn ends. */
	ck_assert_uint_eq(turn_recent(&log, 1060 * SECOND, 60), 900);
	ck_assert_uint_eq(turn_recent(&log, 1061 * SECOND, 60), 30);
	ck_assert_uint_eq(turn_recent(&log, 1200 * SECOND, 60), 0);
}
END_TEST

/* The slots of the ring are used again: no value of an earlier round is taken for a new one. */
START_TEST(ring_is_cleared)
{
	struct turn_log log = { .turns = 0 };

	for (uint64_t s = 0; s < TURN_SECONDS; s++)
		turn_note(&log, (5000 + s) * SECOND, 1000 + s);
	turn_note(&log, (5000 + TURN_SECONDS + 9) * SECOND, 7);
	ck_assert_uint_eq(turn_recent(&log, (5000 + TURN_SECONDS + 9) * SECOND, 9), 7);
	ck_assert_uint_eq(turn_recent(&log, (5000 + TURN_SECONDS + 9) * SECOND, 10),
			  1000 + TURN_SECONDS - 1);
	turn_note(&log, 90000 * SECOND, 3);
	ck_assert_uint_eq(turn_recent(&log, 90000 * SECOND, TURN_SECONDS), 3);
}
END_TEST

/* A loop that works for 60 ms in a callback of a socket, and waits for 400 ms. */
static struct {
	uv_loop_t loop;
	uv_poll_t poll;
	uv_timer_t timer;
	struct turns turns;
	uint64_t long_turns;
	int fds[2];
} l;

static void work(uv_poll_t *poll, int status, int events)
{
	usleep(60000);
	uv_close((uv_handle_t *)poll, NULL);
}

static void quiet(uv_timer_t *timer)
{
	uv_close((uv_handle_t *)timer, NULL);
}

static void run_loop(bool busy, unsigned wait_ms)
{
	memset(&l, 0, sizeof(l));
	ck_assert_int_eq(uv_loop_init(&l.loop), 0);
	ck_assert_int_eq(turns_start(&l.turns, &l.loop, &l.long_turns), 0);
	ck_assert_int_eq(pipe(l.fds), 0);
	if (busy) {
		ck_assert_int_eq(write(l.fds[1], "", 1), 1);
		uv_poll_init(&l.loop, &l.poll, l.fds[0]);
		uv_poll_start(&l.poll, UV_READABLE, work);
	}
	uv_timer_init(&l.loop, &l.timer);
	uv_timer_start(&l.timer, quiet, wait_ms, 0);
	uv_run(&l.loop, UV_RUN_DEFAULT);
	turns_stop(&l.turns);
	turns_stop(&l.turns);
	uv_run(&l.loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&l.loop), 0);
	close(l.fds[0]);
	close(l.fds[1]);
}

START_TEST(callbacks_of_sockets_count)
{
	run_loop(true, 200);
	ck_assert_uint_ge(l.turns.log.longest, 60 * UINT64_C(1000000));
	ck_assert_uint_ge(l.long_turns, 1);
	ck_assert_uint_ge(turn_recent(&l.turns.log, uv_hrtime(), 60), 60 * UINT64_C(1000000));
}
END_TEST

START_TEST(waiting_does_not_count)
{
	run_loop(false, 2000);
	ck_assert_uint_ge(l.turns.log.turns, 1);
	ck_assert_uint_lt(l.turns.log.longest, 1500 * UINT64_C(1000000));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("turn");
	TCase *tc = tcase_create("turn");

	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, longest_since_the_start);
	tcase_add_test(tc, window_forgets_what_is_older);
	tcase_add_test(tc, ring_is_cleared);
	tcase_add_test(tc, callbacks_of_sockets_count);
	tcase_add_test(tc, waiting_does_not_count);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
