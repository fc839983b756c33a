/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon as its clients see it, where the client library does not go: repeats, sessions that
 * outlive a daemon, limits, ids that stay taken, bad manners.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "media/format.h"
#include "tests/unit/daemon_child.h"
#include "tests/unit/tempdir.h"

#define MIB (UINT64_C(1) << 20)
#define WAIT_TRIES 2000

static struct daemon_child d;

static void setup(void)
{
	daemon_child_init(&d, NULL);
	daemon_child_start(&d);
}

static void teardown(void)
{
	if (d.pid > 0)
		ck_assert_int_eq(daemon_child_stop(&d), 0);
}

/* A process that has heap `id` open, with two lanes, until it is killed. */
static pid_t holder_start(uint32_t id)
{
	int ready[2];
	pid_t pid;
	char c;

	ck_assert_int_eq(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		static struct raw_client held;

		close(ready[0]);
		raw_open(&held, &d, 77);
		ck_assert_int_eq(raw_pool_open(&held, id, true), 0);
		ck_assert_int_eq(raw_lanes(&held, id, 2), 0);
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	close(ready[0]);
	return pid;
}

static void holder_kill(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
}

static void wait_sessions(struct raw_client *c, unsigned n)
{
	for (int i = 0; i < WAIT_TRIES && raw_sessions(c) != n; i++)
		usleep(1000);
	ck_assert_uint_eq(raw_sessions(c), n);
}

/* The same request again is answered with the same pool. */
START_TEST(repeat_is_answered)
{
	struct raw_client c, again;
	uint32_t id;

	raw_open(&c, &d, 1);
	ck_assert_int_eq(raw_create(&c, POOL_REGION, MIB, "one", 0), 0);
	id = c.reply->pool->id;
	c.seq--;
	ck_assert_int_eq(raw_create(&c, POOL_REGION, MIB, "one", 0), 0);
	ck_assert_uint_eq(c.reply->pool->id, id);
	ck_assert_int_eq(raw_create(&c, POOL_REGION, MIB, "one", 0), -EEXIST);
	raw_close(&c);

	/* From the record alone: another daemon, another session, the same cookie. */
	raw_open(&c, &d, 1);
	c.seq = 10;
	ck_assert_int_eq(raw_create(&c, POOL_HEAP, MIB, "two", 0), 0);
	id = c.reply->pool->id;
	daemon_child_kill(&d);
	daemon_child_start(&d);
	raw_open(&again, &d, 1);
	again.seq = 10;
	ck_assert_int_eq(raw_create(&again, POOL_HEAP, MIB, "two", 0), 0);
	ck_assert_uint_eq(again.reply->pool->id, id);
	ck_assert_int_eq(raw_destroy(&again, id, false), 0);
	again.seq--;
	ck_assert_int_eq(raw_destroy(&again, id, false), 0);
	ck_assert_int_eq(raw_destroy(&again, id, false), -ENOENT);
	raw_close(&again);
	raw_close(&c);
}
END_TEST

START_TEST(numbers_rise)
{
	struct raw_client c;

	raw_open(&c, &d, 1);
	c.seq = 5;
	ck_assert_int_eq(raw_stat(&c, 1), -ENOENT);
	c.seq = 3;
	ck_assert_int_eq(raw_stat(&c, 1), -EPROTO);
	ck_assert_int_eq(raw_receive(&c), -ECONNRESET);
	raw_close(&c);
}
END_TEST

/* A request that comes before the last reply was read ends the connection. */
START_TEST(one_reply_under_way)
{
	Nvmm__PoolStat op = NVMM__POOL_STAT__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	struct raw_client c, other;
	int r = 0;

	raw_open(&c, &d, 1);
	raw_open(&other, &d, 2);
	request.op_case = NVMM__REQUEST__OP_POOL_STAT;
	request.pool_stat = &op;
	op.id = 1;
	for (int i = 0; i < 100 && r == 0; i++) {
		request.seq++;
		r = raw_send(&c, &request);
		usleep(1000);
	}
	ck_assert_int_lt(r, 0);
	ck_assert_int_eq(raw_stat(&other, 1), -ENOENT);
	raw_close(&c);
	raw_close(&other);
}
END_TEST

START_TEST(session_outlives_daemon)
{
	struct raw_client c, other;
	uint32_t id, lanes[2];

	raw_open(&c, &d, 1);
	ck_assert_int_eq(raw_create(&c, POOL_HEAP, 4 * MIB, NULL, 0), 0);
	id = c.reply->pool->id;
	ck_assert_int_eq(raw_pool_open(&c, id, true), 0);
	ck_assert_uint_eq(c.frame.n_fds, 1);
	ck_assert_int_eq(raw_lanes(&c, id, 2), 0);
	memcpy(lanes, c.reply->lanes->lanes, sizeof(lanes));
	daemon_child_kill(&d);
	daemon_child_start(&d);

	raw_open(&other, &d, 2);
	ck_assert_uint_eq(raw_sessions(&other), 2);
	ck_assert_int_eq(raw_pool_open(&other, id, true), 0);
	ck_assert_int_eq(raw_lanes(&other, id, 2), 0);
	for (int i = 0; i < 4; i++)
		ck_assert_uint_ne(other.reply->lanes->lanes[i / 2], lanes[i % 2]);

	raw_close(&other);
	raw_close(&c);
	raw_connect(&other, &d);
	memset(other.cookie, 9, sizeof(other.cookie));
	ck_assert_int_eq(raw_hello(&other, c.session), -EPERM); /* not its cookie */
	raw_close(&other);
	raw_connect(&other, &d);
	memcpy(other.cookie, c.cookie, sizeof(other.cookie));
	ck_assert_int_eq(raw_hello(&other, c.session), 0);
	ck_assert(other.resumed);
	ck_assert_uint_eq(other.session, c.session);
	other.seq = c.seq;
	ck_assert_int_eq(raw_lanes(&other, id, 1), 0); /* it is open still */
	raw_close(&other);
	raw_connect(&other, &d);
	memcpy(other.cookie, c.cookie, sizeof(other.cookie));
	ck_assert_int_eq(raw_hello(&other, 4711), 0); /* there is none: a new one */
	ck_assert(!other.resumed);
	raw_close(&other);
}
END_TEST

/* Only the process that a session belongs to can attach to it. */
START_TEST(child_cannot_resume)
{
	struct raw_client c, other;
	int status;
	pid_t pid;

	raw_open(&c, &d, 1);
	pid = fork();
	if (pid == 0) {
		raw_connect(&other, &d);
		memcpy(other.cookie, c.cookie, sizeof(other.cookie));
		_exit(raw_hello(&other, c.session) != -EPERM);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(raw_stat(&c, 1), -ENOENT);
	raw_close(&c);
}
END_TEST

START_TEST(death_frees_lanes)
{
	struct raw_client c;
	pid_t holder;
	uint32_t id;

	raw_open(&c, &d, 1);
	ck_assert_int_eq(raw_create(&c, POOL_HEAP, 4 * MIB, NULL, 0), 0);
	id = c.reply->pool->id;
	for (int i = 0; i < 20;
	     i++) { /* more lanes than there are at first, if they stayed taken */
		holder = holder_start(id);
		ck_assert_int_eq(raw_destroy(&c, id, false), -EBUSY);
		holder_kill(holder);
		wait_sessions(&c, 1);
	}
	ck_assert_int_eq(raw_pool_open(&c, id, true), 0);
	ck_assert_int_eq(raw_lanes(&c, id, 1), 0);
	ck_assert_uint_lt(c.reply->lanes->lanes[0], 16);
	raw_close(&c);
}
END_TEST

/* Both die, in either order; the next daemon waits for nobody. */
START_TEST(death_of_both)
{
	struct raw_client c;
	pid_t holder;
	uint32_t id;

	raw_open(&c, &d, 1);
	ck_assert_int_eq(raw_create(&c, POOL_HEAP, 4 * MIB, NULL, 0), 0);
	id = c.reply->pool->id;
	raw_close(&c);

	holder = holder_start(id);
	daemon_child_kill(&d);
	holder_kill(holder);
	daemon_child_start(&d);
	raw_open(&c, &d, 1);
	ck_assert_uint_eq(raw_sessions(&c), 1);
	raw_close(&c);

	holder = holder_start(id);
	daemon_child_kill(&d);
	daemon_child_start(&d);
	raw_open(&c, &d, 1);
	ck_assert_uint_eq(raw_sessions(&c), 2);
	holder_kill(holder);
	wait_sessions(&c, 1);
	ck_assert_int_eq(raw_destroy(&c, id, false), 0);
	raw_close(&c);
}
END_TEST

/* A pool destroyed under a session keeps its id, also over a restart, until the session lets go. */
START_TEST(forced_destroy_keeps_the_id)
{
	uint64_t incarnation;
	struct raw_client c;
	pid_t holder;
	uint32_t id;

	raw_open(&c, &d, 1);
	ck_assert_int_eq(raw_create(&c, POOL_HEAP, 4 * MIB, "doomed", 0), 0);
	id = c.reply->pool->id;
	incarnation = c.reply->pool->incarnation;
	holder = holder_start(id);
	ck_assert_int_eq(raw_pool_open(&c, id, false), 0);
	ck_assert_int_eq(raw_destroy(&c, id, false), -EBUSY);
	ck_assert_int_eq(raw_destroy(&c, id, true), 0);
	ck_assert_int_eq(raw_stat(&c, id), -ENOENT);
	ck_assert_int_eq(raw_lookup(&c, "doomed"), -ENOENT);
	ck_assert_int_eq(raw_create(&c, POOL_REGION, MIB, NULL, id), -EBUSY);
	ck_assert_int_eq(raw_create(&c, POOL_REGION, MIB, "doomed", 0), 0);
	ck_assert_uint_ne(c.reply->pool->id, id);
	ck_assert_int_eq(raw_pool_close(&c, id, incarnation + 1, false), -EBADF);
	ck_assert_int_eq(raw_pool_close(&c, id, incarnation, false), 0);
	ck_assert_int_eq(raw_create(&c, POOL_REGION, MIB, NULL, id), -EBUSY);
	ck_assert_int_eq(raw_goodbye(&c), 0);
	raw_close(&c);

	daemon_child_kill(&d);
	daemon_child_start(&d);
	raw_open(&c, &d, 1);
	ck_assert_int_eq(raw_create(&c, POOL_REGION, MIB, NULL, id), -EBUSY);
	holder_kill(holder);
	wait_sessions(&c, 1);
	ck_assert_int_eq(raw_create(&c, POOL_REGION, MIB, NULL, id), 0);
	ck_assert_uint_gt(c.reply->pool->incarnation, incarnation);
	raw_close(&c);
}
END_TEST

static void expect_limit(struct raw_client *c, int r, int expected, const char *key)
{
	ck_assert_int_eq(r, expected);
	ck_assert_msg(strstr(c->reply->text, key) != NULL, "'%s' does not name %s", c->reply->text,
		      key);
}

static void expect_refused(uint8_t who, int expected, const char *key)
{
	struct raw_client c;

	raw_connect(&c, &d);
	memset(c.cookie, who, sizeof(c.cookie));
	expect_limit(&c, raw_hello(&c, 0), expected, key);
	raw_close(&c);
}

START_TEST(limits_name_their_key)
{
	struct raw_client c, other;
	uint32_t id;

	daemon_child_stop(&d);
	daemon_child_config(&d, "limits:\n  clients: 2\n  pools_per_user: 2\n"
				"  bytes_per_user: 64MiB\n  lanes_per_client: 4\n");
	daemon_child_start(&d);
	raw_open(&c, &d, 1);
	ck_assert_int_eq(raw_create(&c, POOL_HEAP, 4 * MIB, NULL, 0), 0);
	id = c.reply->pool->id;
	expect_limit(&c, raw_create(&c, POOL_REGION, 63 * MIB, NULL, 0), -EDQUOT, "bytes_per_user");
	ck_assert_int_eq(raw_create(&c, POOL_REGION, MIB, NULL, 0), 0);
	expect_limit(&c, raw_create(&c, POOL_REGION, MIB, NULL, 0), -EDQUOT, "pools_per_user");
	ck_assert_int_eq(raw_pool_open(&c, id, true), 0);
	ck_assert_int_eq(raw_lanes(&c, id, 4), 0);
	expect_limit(&c, raw_lanes(&c, id, 1), -EDQUOT, "lanes_per_client");
	raw_open(&other, &d, 2);
	expect_refused(3, -EUSERS, "limits.clients");
	raw_close(&other);
	wait_sessions(&c, 1);
	raw_open(&other, &d, 2); /* a place that was given up can be had */
	raw_close(&other);
	raw_close(&c);
}
END_TEST

static void reload(const char *extra)
{
	daemon_child_config(&d, extra);
	kill(d.pid, SIGHUP);
}

/* SIGHUP: limits count from the next request on; a file with a fault changes nothing. */
START_TEST(reload_changes_limits)
{
	struct raw_client c;
	int r = 0;

	raw_open(&c, &d, 1);
	reload("limits:\n  pools_per_user: 1\nunknown: 1\n");
	reload("limits:\n  pools: 2\n  clients_per_user: 1\n");
	ck_assert_int_eq(raw_create(&c, POOL_REGION, MIB, NULL, 0), 0);
	ck_assert_int_eq(raw_create(&c, POOL_REGION, MIB, NULL, 0), 0);
	for (int i = 0; i < WAIT_TRIES && r == 0; i++) {
		r = raw_create(&c, POOL_REGION, 4096, NULL, 0);
		usleep(1000);
	}
	expect_limit(&c, r, -ENOSPC, "limits.pools");
	expect_refused(2, -EDQUOT, "clients_per_user");
	raw_close(&c);
}
END_TEST

/* What stands in the base and is in no record is a damaged pool's: left alone, and its id is not used. */
START_TEST(unknown_directory_is_left_alone)
{
	struct raw_client c;
	char path[300];
	struct stat st;

	daemon_child_stop(&d);
	snprintf(path, sizeof(path), "%s/pool-1", d.base);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	daemon_child_start(&d);
	raw_open(&c, &d, 1);
	ck_assert_int_eq(raw_create(&c, POOL_REGION, MIB, NULL, 1), -EEXIST);
	ck_assert_int_eq(raw_create(&c, POOL_REGION, MIB, NULL, 0), 0);
	ck_assert_uint_eq(c.reply->pool->id, 2);
	ck_assert_int_eq(raw_stat(&c, 1), 0);
	ck_assert_str_ne(c.reply->pool->damage, "");
	ck_assert_int_eq(raw_pool_open(&c, 1, false), -EUCLEAN);
	ck_assert_int_eq(raw_destroy(&c, 1, false), -EUCLEAN);
	raw_close(&c);
	snprintf(path, sizeof(path), "%s/pool-9", d.base);
	ck_assert_int_eq(mkdir(path, 0700), 0); /* while it runs */
	raw_open(&c, &d, 2); /* with the same cookie and numbers it would be a repeat */
	ck_assert_int_eq(raw_create(&c, POOL_REGION, MIB, NULL, 9), -EEXIST);
	ck_assert_int_eq(raw_create(&c, POOL_REGION, MIB, NULL, 9), -EEXIST);
	ck_assert_int_eq(stat(path, &st), 0);
	raw_close(&c);
}
END_TEST

/* A pool whose file was cut is damaged; the others serve. */
START_TEST(cut_file_damages_its_pool_alone)
{
	struct raw_client c;
	char path[300];

	raw_open(&c, &d, 1);
	ck_assert_int_eq(raw_create(&c, POOL_HEAP, 4 * MIB, NULL, 1), 0);
	ck_assert_int_eq(raw_create(&c, POOL_HEAP, 4 * MIB, NULL, 2), 0);
	ck_assert_int_eq(raw_pool_open(&c, 1, true), 0);
	ck_assert_int_eq(raw_lanes(&c, 1, 1), 0);
	snprintf(path, sizeof(path), "%s/pool-1/state-0", d.base);
	ck_assert_int_eq(truncate(path, 4096), 0);
	raw_lanes(&c, 1, 1); /* whatever it says, it does not end the daemon */
	ck_assert_int_eq(raw_pool_open(&c, 1, false), -EUCLEAN);
	ck_assert_int_eq(raw_stat(&c, 1), 0);
	ck_assert_str_ne(c.reply->pool->damage, "");
	ck_assert_int_eq(raw_pool_open(&c, 2, true), 0);
	ck_assert_int_eq(raw_stat(&c, 2), 0);
	ck_assert_str_eq(c.reply->pool->damage, "");
	ck_assert_int_eq(raw_destroy(&c, 1, true), 0);
	raw_close(&c);
}
END_TEST

/* Nobody is waited for who connects and says nothing. */
START_TEST(silent_connection_is_closed)
{
	struct raw_client c;

	raw_connect(&c, &d);
	ck_assert_int_eq(raw_receive(&c), -ECONNRESET);
	raw_close(&c);
}
END_TEST

/* Two requests on one pool whose job is under way: the second waits and sees what came of it. */
START_TEST(destroy_waits_for_resize)
{
	Nvmm__PoolResize op = NVMM__POOL_RESIZE__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	struct raw_client c, other;

	raw_open(&c, &d, 1);
	raw_open(&other, &d, 2);
	ck_assert_int_eq(raw_create(&c, POOL_REGION, MIB, NULL, 1), 0);
	request.op_case = NVMM__REQUEST__OP_POOL_RESIZE;
	request.pool_resize = &op;
	request.seq = ++c.seq;
	op.id = 1;
	op.size = 512 * MIB;
	ck_assert_int_eq(raw_send(&c, &request), 0);
	usleep(2000);
	ck_assert_int_eq(raw_destroy(&other, 1, false), 0);
	ck_assert_int_eq(raw_receive(&c), 0);
	ck_assert_int_eq(raw_stat(&c, 1), -ENOENT);
	raw_close(&c);
	raw_close(&other);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("daemon");
	TCase *tc = tcase_create("daemon");

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, repeat_is_answered);
	tcase_add_test(tc, numbers_rise);
	tcase_add_test(tc, one_reply_under_way);
	tcase_add_test(tc, session_outlives_daemon);
	tcase_add_test(tc, child_cannot_resume);
	tcase_add_test(tc, death_frees_lanes);
	tcase_add_test(tc, death_of_both);
	tcase_add_test(tc, forced_destroy_keeps_the_id);
	tcase_add_test(tc, limits_name_their_key);
	tcase_add_test(tc, reload_changes_limits);
	tcase_add_test(tc, unknown_directory_is_left_alone);
	tcase_add_test(tc, cut_file_damages_its_pool_alone);
	tcase_add_test(tc, silent_connection_is_closed);
	tcase_add_test(tc, destroy_waits_for_resize);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
