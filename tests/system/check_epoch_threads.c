/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Epochs within a process: threads that end in them, in whatever way; fork; nesting; signal handlers
 * that enter and leave at any instruction of whom they interrupt, on this connection and on another.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/view.h"

#define MIB (UINT64_C(1) << 20)

static struct harness h;

static void *enter_and_end(void *arg)
{
	must(nvmm_epoch_enter(arg) == 0, "%s", nvmm_errmsg(arg));
	return NULL;
}

START_TEST(threads_end_inside)
{
	struct view v = view_new(&h, NULL, 16 * MIB);

	for (int i = 0; i < 100; i++) {
		pthread_t threads[8];

		for (int t = 0; t < 8; t++)
			ck_assert_int_eq(pthread_create(&threads[t], NULL, enter_and_end, v.nvmm),
					 0);
		for (int t = 0; t < 8; t++)
			pthread_join(threads[t], NULL);
	}
	view_defer(&v, 100, 64);
	harness_until(view_no_limbo, &v, 5000);
	nvmm_disconnect(v.nvmm);
}
END_TEST

START_TEST(forked_child_has_no_slot)
{
	struct view v = view_new(&h, NULL, 16 * MIB);
	int status;
	pid_t pid;

	ck_assert_int_eq(nvmm_epoch_enter(v.nvmm), 0);
	view_defer(&v, 100, 64);
	pid = fork();
	if (pid == 0) {
		/* It cannot unpin its parent. */
		nvmm_epoch_exit(v.nvmm);
		_exit(nvmm_epoch_enter(v.nvmm) == -ENOTCONN &&
		      nvmm_epoch_synchronize(v.nvmm) == -ENOTCONN ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	harness_sleep_ms(100);
	ck_assert_uint_eq(view_limbo(&v), 6400);
	nvmm_epoch_exit(v.nvmm);
	harness_until(view_no_limbo, &v, 5000);
	nvmm_disconnect(v.nvmm);
}
END_TEST

/* The parent's slots are no mapping of its child: to end the inherited connection leaves alone what is
 * mapped there since. */
START_TEST(forked_child_connects_anew)
{
	struct view v = view_new(&h, NULL, 16 * MIB);
	int status;
	pid_t pid;

	ck_assert_int_eq(nvmm_epoch_enter(v.nvmm), 0);
	pid = fork();
	if (pid == 0) {
		struct nvmm_client *own = harness_connect(&h);
		int r = nvmm_epoch_enter(own);

		nvmm_disconnect(v.nvmm);
		nvmm_epoch_exit(own);
		if (r == 0)
			r = nvmm_epoch_enter(own);
		nvmm_epoch_exit(own);
		nvmm_disconnect(own);
		_exit(r == 0 ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	nvmm_epoch_exit(v.nvmm);
	nvmm_disconnect(v.nvmm);
}
END_TEST

START_TEST(two_connections)
{
	struct view a = view_new(&h, NULL, 16 * MIB), b = view_new(&h, NULL, 16 * MIB);

	for (int i = 0; i < 100; i++) {
		ck_assert_int_eq(nvmm_epoch_enter(a.nvmm), 0);
		ck_assert_int_eq(nvmm_epoch_enter(b.nvmm), 0);
		nvmm_epoch_exit(a.nvmm);
		nvmm_epoch_exit(b.nvmm);
	}
	ck_assert_int_eq(nvmm_epoch_enter(a.nvmm), 0);
	view_defer(&a, 100, 64);
	view_defer(&b, 100, 64);
	harness_until(view_no_limbo, &b, 5000);
	ck_assert_uint_eq(view_limbo(&a), 6400);
	nvmm_disconnect(b.nvmm);
	nvmm_epoch_exit(a.nvmm);
	harness_until(view_no_limbo, &a, 5000);
	nvmm_disconnect(a.nvmm);
}
END_TEST

/* A thread that goes without its libraries knowing stays where it was, until its process ends. */
static _Atomic pid_t vanishing;

static void *enter_and_vanish(void *arg)
{
	must(nvmm_epoch_enter(arg) == 0, "%s", nvmm_errmsg(arg));
	atomic_store(&vanishing, (pid_t)syscall(SYS_gettid));
	syscall(SYS_exit, 0);
	return NULL;
}

static void vanish(void *arg)
{
	_Atomic bool *said = arg;
	struct view v = { .nvmm = harness_connect(&h) };
	nvmm_pool_id id;
	pthread_t thread;

	must(nvmm_pool_lookup(v.nvmm, "shared", &id) == 0, "%s", nvmm_errmsg(v.nvmm));
	v.heap = harness_open(v.nvmm, id);
	must(pthread_create(&thread, NULL, enter_and_vanish, v.nvmm) == 0, "thread");
	/* The kernel is asked: joining such a thread hangs under TSan, whose libraries did not see it go. */
	while (vanishing == 0 || syscall(SYS_tgkill, getpid(), vanishing, 0) == 0)
		harness_sleep_ms(1);
	atomic_store(said, true);
	for (;;)
		pause();
}

static bool is_true(void *arg)
{
	return atomic_load((_Atomic bool *)arg);
}

START_TEST(raw_exit_stays_until_the_process_ends)
{
	_Atomic bool *said = harness_shared(sizeof(*said));
	struct view v = { .nvmm = harness_connect(&h) };
	nvmm_pool_id id = 0;
	pid_t pid;

	v.heap = harness_heap(v.nvmm, &id, 16 * MIB, "shared", 16);
	pid = harness_fork(vanish, said);
	harness_until(is_true, said, 10000);
	view_defer(&v, 100, 64);
	harness_sleep_ms(100);
	ck_assert_uint_eq(view_limbo(&v), 6400);
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	harness_until(view_no_limbo, &v, 5000);
	nvmm_disconnect(v.nvmm);
}
END_TEST

static void *enter_and_wait(void *arg)
{
	must(nvmm_epoch_enter(arg) == 0, "%s", nvmm_errmsg(arg));
	for (;;)
		pause();
	return NULL;
}

START_TEST(cancelled_thread_leaves)
{
	struct view v = view_new(&h, NULL, 16 * MIB);

	for (int i = 0; i < 20; i++) {
		pthread_t thread;

		ck_assert_int_eq(pthread_create(&thread, NULL, enter_and_wait, v.nvmm), 0);
		if (i % 2)
			harness_sleep_ms(2);
		pthread_cancel(thread);
		pthread_join(thread, NULL);
	}
	view_defer(&v, 100, 64);
	harness_until(view_no_limbo, &v, 5000);
	nvmm_disconnect(v.nvmm);
}
END_TEST

/* As deep as it is said to be possible. */
START_TEST(nests_a_million_deep)
{
	struct view v = view_new(&h, NULL, 16 * MIB);

	for (int i = 0; i < 1000000; i++)
		must(nvmm_epoch_enter(v.nvmm) == 0, "%s", nvmm_errmsg(v.nvmm));
	view_defer(&v, 100, 64);
	for (int i = 0; i < 999999; i++)
		nvmm_epoch_exit(v.nvmm);
	harness_sleep_ms(100);
	ck_assert_uint_eq(view_limbo(&v), 6400);
	nvmm_epoch_exit(v.nvmm);
	harness_until(view_no_limbo, &v, 5000);
	nvmm_disconnect(v.nvmm);
}
END_TEST

/* Connections that come and go leave a thread no more places than there ever were at once. */
START_TEST(connections_come_and_go)
{
	struct view v = view_new(&h, NULL, 16 * MIB);

	for (int i = 0; i < 50; i++) {
		struct nvmm_client *other = harness_connect(&h);

		ck_assert_int_eq(nvmm_epoch_enter(v.nvmm), 0);
		ck_assert_int_eq(nvmm_epoch_enter(other), 0);
		nvmm_epoch_exit(v.nvmm);
		nvmm_epoch_exit(other);
		nvmm_disconnect(other);
	}
	view_defer(&v, 100, 64);
	harness_until(view_no_limbo, &v, 5000);
	nvmm_disconnect(v.nvmm);
}
END_TEST

/* Signals */

static struct view on_signal[2]; /* what the handler enters */
static _Atomic unsigned long handled;

static void handle(int signal)
{
	(void)signal;
	for (int i = 0; i < 2; i++) {
		must(nvmm_epoch_enter(on_signal[i].nvmm) == 0, "enter, in a handler");
		must(nvmm_epoch_enter(on_signal[i].nvmm) == 0, "enter, in a handler");
		nvmm_epoch_exit(on_signal[i].nvmm);
		nvmm_epoch_exit(on_signal[i].nvmm);
	}
	atomic_fetch_add(&handled, 1);
}

struct storm {
	pthread_t target;
	_Atomic bool stop;
};

/* One at a time, as fast as they are handled. */
static void *storm_on(void *arg)
{
	struct storm *storm = arg;

	while (!atomic_load(&storm->stop)) {
		unsigned long before = atomic_load(&handled);

		pthread_kill(storm->target, SIGUSR1);
		while (atomic_load(&handled) == before && !atomic_load(&storm->stop))
			;
	}
	return NULL;
}

/* Bounded by signals handled, not by time. */
static void enter_in_storm(struct nvmm_client *nvmm)
{
	while (atomic_load(&handled) < 20000) {
		for (int i = 0; i < 1000; i++) {
			must(nvmm_epoch_enter(nvmm) == 0, "%s", nvmm_errmsg(nvmm));
			nvmm_epoch_exit(nvmm);
		}
		usleep(0); /* a sanitizer may keep signals back until a system call */
	}
}

/*
 * The thread is on the first connection, and each signal takes it to the other and back, so that what it
 * was about to store goes, sooner or later, to the wrong slot if that can be. Then one of the pools
 * stays in limbo.
 */
START_TEST(handlers_enter_anywhere)
{
	struct storm storm = { .target = pthread_self() };
	struct sigaction action = { .sa_handler = handle };
	struct view a = view_new(&h, NULL, 16 * MIB), b = view_new(&h, NULL, 16 * MIB);
	pthread_t thread;

	on_signal[0] = _i ? a : b;
	on_signal[1] = b;
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(nvmm_epoch_enter(i ? a.nvmm : b.nvmm), 0);
		nvmm_epoch_exit(i ? a.nvmm : b.nvmm);
	}
	sigaction(SIGUSR1, &action, NULL);
	ck_assert_int_eq(pthread_create(&thread, NULL, storm_on, &storm), 0);
	enter_in_storm(a.nvmm);
	atomic_store(&storm.stop, true);
	pthread_join(thread, NULL);
	view_defer(&a, 100, 64);
	view_defer(&b, 100, 64);
	harness_until(view_no_limbo, &a, 5000);
	harness_until(view_no_limbo, &b, 5000);
	nvmm_disconnect(a.nvmm);
	nvmm_disconnect(b.nvmm);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("epoch threads");
	TCase *tc = harness_case_served(suite, "threads", 60, &h);

	tcase_add_test(tc, threads_end_inside);
	tcase_add_test(tc, cancelled_thread_leaves);
	tcase_add_test(tc, raw_exit_stays_until_the_process_ends);
	tcase_add_test(tc, forked_child_has_no_slot);
	tcase_add_test(tc, forked_child_connects_anew);
	tcase_add_test(tc, two_connections);
	tcase_add_test(tc, connections_come_and_go);
	tcase_add_test(tc, nests_a_million_deep);
	tcase_add_loop_test(tc, handlers_enter_anywhere, 0, 2);
	return harness_run(suite);
}
