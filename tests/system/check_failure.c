/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nvmm_on_failure(): who has a pool open beside a process that dies is told so when the death is settled.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/harness.h"

#define MIB (UINT64_C(1) << 20)
#define TOLD_MAX 64u
#define RESERVED 112u /* bytes of a block in its class */

static struct harness h;
static struct nvmm_client *nvmm;
static struct nvmm_heap *heap;
static nvmm_pool_id ours, others;

/* What was told, and what the heap had in it at that time. */
static struct {
	pthread_mutex_t lock;
	unsigned n, missed;
	struct nvmm_failure failure[TOLD_MAX];
	uint64_t used[TOLD_MAX]; /* bytes, without those in limbo */
} told = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Of the processes that die. */
static struct {
	atomic_uint ready;
} *shared;

static void note(const struct nvmm_failure *failure, void *arg)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };

	ck_assert_ptr_eq(arg, &told);
	must(nvmm_heap_stat(heap, &info) == 0, "%s", nvmm_errmsg(nvmm));
	pthread_mutex_lock(&told.lock);
	if (failure->pid == 0) {
		ck_assert_uint_eq(failure->pool, 0);
		told.missed++;
	} else {
		ck_assert_uint_lt(told.n, TOLD_MAX);
		told.used[told.n] = info.used - info.limbo;
		told.failure[told.n++] = *failure;
	}
	pthread_mutex_unlock(&told.lock);
}

static unsigned count(const unsigned *n)
{
	unsigned r;

	pthread_mutex_lock(&told.lock);
	r = *n;
	pthread_mutex_unlock(&told.lock);
	return r;
}

static bool is_told(void *arg)
{
	return count(&told.n) >= *(unsigned *)arg;
}

static bool is_missed(void *arg)
{
	return count(&told.missed) >= *(unsigned *)arg;
}

static void await_told(unsigned n)
{
	harness_until(is_told, &n, 20000);
}

static void start(void)
{
	harness_init(&h, NULL);
	harness_start(&h);
	shared = harness_shared(sizeof(*shared));
	nvmm = harness_connect(&h);
	heap = harness_heap(nvmm, &ours, 4 * MIB, "ours", 0);
	must(nvmm_heap_create(nvmm, &others, 4 * MIB, NULL) == 0, "%s", nvmm_errmsg(nvmm));
	must(nvmm_on_failure(nvmm, note, &told) == 0, "%s", nvmm_errmsg(nvmm));
}

static void stop(void)
{
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}

/* Has both heaps open, and in ours a reserved block; waits for its end. */
static void hold(void *arg)
{
	struct nvmm_client *n = harness_connect(&h);
	struct nvmm_heap *a = harness_open(n, ours), *b = harness_open(n, others);

	must(a && b && nvmm_reserve(a, RESERVED) != NVMM_NULL, "%s", nvmm_errmsg(n));
	atomic_fetch_add(&shared->ready, 1);
	while (!arg)
		pause();
	nvmm_heap_close(a);
	nvmm_heap_close(b);
	nvmm_disconnect(n);
}

static bool is_ready(void *arg)
{
	return atomic_load(&shared->ready) >= *(unsigned *)arg;
}

static pid_t holder(void)
{
	unsigned n = atomic_load(&shared->ready) + 1;
	pid_t pid = harness_fork(hold, NULL);

	harness_until(is_ready, &n, 20000);
	return pid;
}

static void kill_one(pid_t pid)
{
	int status;

	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
}

/* `living`: others that hold a block. */
static void check_told(unsigned i, pid_t pid, unsigned living)
{
	ck_assert_int_eq(told.failure[i].pid, pid);
	ck_assert_uint_eq(told.failure[i].pool, ours);
	/* Settled: what it had reserved is free. */
	ck_assert_uint_eq(told.used[i], living * RESERVED);
}

/* Each death once, for the pool that is shared alone; an orderly end is none. */
START_TEST(each_death_once)
{
	pid_t pid[4];

	for (unsigned i = 0; i < 4; i++) {
		harness_join(harness_fork(hold, &h));
		pid[i] = holder();
		kill_one(pid[i]);
		await_told(i + 1);
		check_told(i, pid[i], 0);
	}
	harness_sleep_ms(100);
	ck_assert_uint_eq(count(&told.n), 4);
	ck_assert_uint_eq(count(&told.missed), 0);
}
END_TEST

/* A daemon that was killed: deaths may have been missed, which is said; those it knows of it tells. */
START_TEST(daemon_dies)
{
	unsigned one = 1, two = 2;
	pid_t pid = holder(), later = holder();

	harness_signal(&h, SIGKILL);
	kill_one(pid);
	harness_start(&h);
	harness_until(is_missed, &one, 20000);
	await_told(1);
	check_told(0, pid, 1);
	kill_one(later);
	await_told(2);
	check_told(1, later, 0);
	/* Ended in order: the same. */
	harness_stop(&h);
	harness_start(&h);
	harness_until(is_missed, &two, 20000);
	pid = holder();
	kill_one(pid);
	await_told(3);
	check_told(2, pid, 0);
	ck_assert_uint_eq(count(&told.missed), 2);
}
END_TEST

static atomic_uint calls;

static void once(const struct nvmm_failure *failure, void *arg)
{
	(void)failure;
	(void)arg;
	atomic_fetch_add(&calls, 1);
	ck_assert_int_eq(nvmm_on_failure(nvmm, NULL, NULL), 0);
}

static bool is_called(void *arg)
{
	(void)arg;
	return atomic_load(&calls) > 0;
}

/* The function can end itself and be replaced. */
START_TEST(ended_and_replaced)
{
	pid_t pid = holder();

	ck_assert_int_eq(nvmm_on_failure(nvmm, once, NULL), 0);
	kill_one(pid);
	harness_until(is_called, NULL, 20000);
	kill_one(holder());
	ck_assert_int_eq(nvmm_wait_settled(heap), 0);
	ck_assert_int_eq(nvmm_on_failure(nvmm, note, &told), 0);
	pid = holder();
	kill_one(pid);
	await_told(1);
	check_told(0, pid, 0);
	harness_sleep_ms(50);
	ck_assert_uint_eq(atomic_load(&calls), 1);
	ck_assert_uint_eq(count(&told.n), 1);
}
END_TEST

/* Beside a daemon that is stopped, a program can end; so can the child of a fork, which has no such thread. */
START_TEST(ends_beside_a_stopped_daemon)
{
	struct nvmm_options options = {
		.size = sizeof(options), .socket = h.socket, .timeout_ms = 300 };
	struct nvmm_client *mine;
	pid_t pid;

	ck_assert_int_eq(nvmm_connect(&mine, &options), 0);
	ck_assert_int_eq(nvmm_on_failure(mine, note, &told), 0);
	fflush(NULL);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		nvmm_disconnect(mine);
		_exit(0);
	}
	harness_join(pid);
	harness_signal(&h, SIGSTOP);
	ck_assert_int_eq(nvmm_on_failure(mine, note, &told), -ETIMEDOUT);
	nvmm_disconnect(mine);
	harness_signal(&h, SIGCONT);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("failure");
	TCase *tcase = harness_case(suite, "failure", 60);

	tcase_add_checked_fixture(tcase, start, stop);
	tcase_add_test(tcase, each_death_once);
	tcase_add_test(tcase, daemon_dies);
	tcase_add_test(tcase, ended_and_replaced);
	tcase_add_test(tcase, ends_beside_a_stopped_daemon);
	return harness_run(suite);
}
