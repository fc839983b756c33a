/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One connection in the hands of several threads, of a signal's handler, of a thread that is cancelled, of a child.
 */
#include <nvmm/client.h>

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/call_fixture.h"
#include "tests/unit/suite.h"

static void *ask_often(void *arg)
{
	nvmm_pool_id id;

	for (int i = 0; i < 200; i++) {
		const char *name = (i & 1) ? "ab" : "abcd";

		ck_assert_int_eq(nvmm_pool_lookup(nvmm, name, &id), 0);
		ck_assert_uint_eq(id, strlen(name));
	}
	return NULL;
}

START_TEST(test_threads)
{
	pthread_t threads[4];

	fake.serve = call_serve_lookup;
	fake_start(&fake);
	ck_assert_int_eq(call_connect(10000), 0);
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, ask_often, NULL), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(fake_count(&fake.requests), 800);
	ck_assert_uint_eq(fake_count(&fake.early), 0);
}
END_TEST

static void *fail_late(void *arg)
{
	nvmm_pool_id id;

	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "late", &id), -ETIMEDOUT);
	return NULL;
}

/* Texts are the thread's own. */
START_TEST(test_texts)
{
	pthread_t thread;
	nvmm_pool_id id;

	fake.serve = call_serve_lookup;
	fake_start(&fake);
	ck_assert_int_eq(call_connect(100), 0);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "", &id), -EINVAL);
	ck_assert_int_eq(pthread_create(&thread, NULL, fail_late, NULL), 0);
	pthread_join(thread, NULL);
	ck_assert_ptr_nonnull(strstr(nvmm_errmsg(nvmm), "name"));
}
END_TEST

static int in_handler;

static void handler(int sig)
{
	nvmm_pool_id id;

	in_handler = nvmm_pool_lookup(nvmm, "x", &id);
}

START_TEST(test_signal)
{
	struct sigaction action = { .sa_handler = handler };
	struct itimerval timer = { .it_value = { .tv_usec = 100000 } };
	sigset_t alarm;
	nvmm_pool_id id;

	fake.serve = call_serve_lookup;
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	/* To this thread, not to the fake's. */
	pthread_sigmask(SIG_BLOCK, &alarm, NULL);
	fake_start(&fake);
	pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
	ck_assert_int_eq(call_connect(5000), 0);
	in_handler = 0;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "late", &id), 0);
	ck_assert_int_eq(in_handler, -EDEADLK);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "abc", &id), 0);
}
END_TEST

static void *ask_late(void *arg)
{
	nvmm_pool_id id;

	nvmm_pool_lookup(nvmm, "late", &id);
	pthread_testcancel();
	return NULL;
}

/* A thread that is cancelled in a call finishes it first: nobody else is disturbed. */
START_TEST(test_cancel)
{
	pthread_t thread;
	nvmm_pool_id id;
	void *result;

	fake.serve = call_serve_lookup;
	fake_start(&fake);
	ck_assert_int_eq(call_connect(5000), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, ask_late, NULL), 0);
	usleep(100000);
	pthread_cancel(thread);
	pthread_join(thread, &result);
	ck_assert_ptr_eq(result, PTHREAD_CANCELED);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "abc", &id), 0);
	ck_assert_uint_eq(id, 3);
}
END_TEST

static int in_child(void)
{
	nvmm_pool_id id;

	if (nvmm_pool_lookup(nvmm, "abc", &id) != -ENOTCONN)
		return 1;
	if (!strstr(nvmm_errmsg(nvmm), "connect anew"))
		return 2;
	nvmm_disconnect(nvmm);
	return 0;
}

START_TEST(test_fork)
{
	nvmm_pool_id id;
	int status;
	pid_t pid;

	fake.serve = call_serve_lookup;
	fake_start(&fake);
	ck_assert_int_eq(call_connect(5000), 0);
	pid = fork();
	if (pid == 0)
		_exit(in_child());
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 0);
	/* The parent's connection is as it was. */
	ck_assert_uint_eq(fake_count(&fake.goodbyes), 0);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "abc", &id), 0);
	ck_assert_uint_eq(id, 3);
	ck_assert_uint_eq(fake_count(&fake.hellos), 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("call threads");
	TCase *tc = tcase_create("call threads");

	tcase_add_checked_fixture(tc, call_setup, call_teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, test_threads);
	tcase_add_test(tc, test_texts);
	tcase_add_test(tc, test_signal);
	tcase_add_test(tc, test_cancel);
	tcase_add_test(tc, test_fork);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
