/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The client library in programs with threads that come and go, forks, and signals.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/harness.h"

#define MIB (UINT64_C(1) << 20)

static struct harness h;

/* Threads */

#define HEAPS 9

struct many_heaps {
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap[HEAPS];
	pthread_barrier_t closed;
};

static void *use_heaps(void *arg)
{
	struct many_heaps *m = arg;
	nvmm_ptr ptr[HEAPS] = { NVMM_NULL };
	int r;

	for (int round = 0; round < 500; round++)
		for (int i = 0; i < HEAPS; i++) {
			r = nvmm_free(m->heap[i], ptr[i]);
			must(r == 0, "free: %d: %s", r, nvmm_errmsg(m->nvmm));
			ptr[i] = nvmm_alloc(m->heap[i], 48);
			must(ptr[i] != NVMM_NULL, "alloc: %s", nvmm_errmsg(m->nvmm));
		}
	for (int i = 0; i < HEAPS; i++)
		ck_assert_int_eq(nvmm_free(m->heap[i], ptr[i]), 0);
	pthread_barrier_wait(&m->closed);
	/* Its heaps are closed while it lives, then it ends. */
	pthread_barrier_wait(&m->closed);
	return NULL;
}

/* More heaps than a thread's quick table has places; closed before their threads end. */
START_TEST(many_heaps)
{
	struct many_heaps m = { .nvmm = harness_connect(&h) };
	pthread_t threads[3];
	nvmm_pool_id id[HEAPS];

	pthread_barrier_init(&m.closed, NULL, 4);
	for (int i = 0; i < HEAPS; i++)
		m.heap[i] = harness_heap(m.nvmm, &id[i], 4 * MIB, NULL, 0);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, use_heaps, &m), 0);
	pthread_barrier_wait(&m.closed);
	for (int i = 0; i < HEAPS; i++) {
		ck_assert_uint_eq(harness_blocks(m.heap[i]), 0);
		nvmm_heap_close(m.heap[i]);
		ck_assert_int_eq(nvmm_heap_destroy(m.nvmm, id[i]), 0);
	}
	pthread_barrier_wait(&m.closed);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&m.closed);
	nvmm_disconnect(m.nvmm);
}
END_TEST

static void *alloc_one(void *arg)
{
	struct nvmm_heap *heap = arg;
	nvmm_ptr ptr = nvmm_alloc(heap, 64);

	must(ptr != NVMM_NULL, "errno %d", errno);
	must(nvmm_free(heap, ptr) == 0, "free");
	return NULL;
}

/* Threads that end leave nothing behind: there are more of them than there may be lanes. */
START_TEST(many_short_threads)
{
	struct harness_options limits = { .limits = "  lanes_per_client: 4\n" };
	struct nvmm_heap *heap;
	struct nvmm_client *nvmm;
	nvmm_pool_id id;
	pthread_t thread[5];

	harness_stop(&h);
	harness_init(&h, &limits);
	harness_start(&h);
	nvmm = harness_connect(&h);
	heap = harness_heap(nvmm, &id, 4 * MIB, NULL, 0);
	for (int i = 0; i < 300; i++) {
		for (int k = 0; k < 3; k++)
			ck_assert_int_eq(pthread_create(&thread[k], NULL, alloc_one, heap), 0);
		for (int k = 0; k < 3; k++)
			pthread_join(thread[k], NULL);
	}
	ck_assert_uint_eq(harness_blocks(heap), 0);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

static void *alloc_and_stay(void *arg)
{
	void **args = arg;
	pthread_barrier_t *barrier = args[1];
	nvmm_ptr ptr = nvmm_alloc(args[0], 64);
	int error = errno;

	pthread_barrier_wait(barrier);
	return ptr ? NULL : (void *)(intptr_t)error;
}

/* The thread that is one too many is told so; when others have ended there is room again. */
START_TEST(too_many_threads)
{
	struct harness_options limits = { .limits = "  lanes_per_client: 4\n" };
	pthread_barrier_t barrier;
	struct nvmm_heap *heap;
	struct nvmm_client *nvmm;
	nvmm_pool_id id;
	pthread_t thread[5];
	unsigned refused = 0;
	void *result, *args[2];

	harness_stop(&h);
	harness_init(&h, &limits);
	harness_start(&h);
	nvmm = harness_connect(&h);
	heap = harness_heap(nvmm, &id, 4 * MIB, NULL, 0);
	pthread_barrier_init(&barrier, NULL, 5);
	args[0] = heap;
	args[1] = &barrier;
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, alloc_and_stay, args), 0);
	for (int i = 0; i < 5; i++) {
		pthread_join(thread[i], &result);
		if (!result)
			continue;
		ck_assert_int_eq((int)(intptr_t)result, EDQUOT);
		refused++;
	}
	ck_assert_uint_eq(refused, 1);
	ck_assert_uint_ne(nvmm_alloc(heap, 64), NVMM_NULL);
	pthread_barrier_destroy(&barrier);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

/* Forks */

static void child(struct nvmm_client *nvmm, struct nvmm_heap *heap, nvmm_ptr ptr, nvmm_pool_id id)
{
	struct nvmm_heap *own_heap;
	struct nvmm_client *own;
	nvmm_ptr mine;

	ck_assert_int_eq(*(int *)nvmm_local(nvmm, ptr), 42);
	ck_assert_uint_eq(nvmm_alloc(heap, 64), NVMM_NULL);
	ck_assert_int_eq(errno, ENOTCONN);
	ck_assert_int_eq(nvmm_free(heap, ptr), -ENOTCONN);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	own = harness_connect(&h);
	own_heap = harness_open(own, id);
	mine = nvmm_alloc(own_heap, 64);
	ck_assert_uint_ne(mine, NVMM_NULL);
	ck_assert_int_eq(*(int *)nvmm_local(own, ptr), 42);
	ck_assert_int_eq(nvmm_free(own_heap, mine), 0);
	nvmm_heap_close(own_heap);
	nvmm_disconnect(own);
}

/* A child has none of its parent's lanes: what each does, the other never sees. */
START_TEST(forks)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id id;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, 4 * MIB, NULL, 0);
	nvmm_ptr ptr = nvmm_alloc(heap, 64), more;
	int status;
	pid_t pid;

	*(int *)nvmm_local(nvmm, ptr) = 42;
	for (int i = 0; i < 5; i++) {
		pid = fork();
		if (pid == 0) {
			child(nvmm, heap, ptr, id);
			_exit(0);
		}
		for (int k = 0; k < 1000; k++) {
			more = nvmm_alloc(heap, 64);
			must(more != NVMM_NULL, "%s", nvmm_errmsg(nvmm));
			must(nvmm_free(heap, more) == 0, "%s", nvmm_errmsg(nvmm));
		}
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_int_eq(status, 0);
	}
	ck_assert_uint_eq(harness_blocks(heap), 1);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

struct forker {
	struct nvmm_heap *heap;
	atomic_bool stop;
};

static void *alloc_often(void *arg)
{
	struct forker *f = arg;
	nvmm_ptr ptr;

	while (!atomic_load(&f->stop)) {
		ptr = nvmm_alloc(f->heap, 200000);
		must(ptr != NVMM_NULL, "errno %d", errno);
		must(nvmm_free(f->heap, ptr) == 0, "free");
	}
	return NULL;
}

/* Forks while other threads are in calls: the child can disconnect and connect anew. */
START_TEST(forks_beside_calls)
{
	struct nvmm_client *nvmm = harness_connect(&h), *own;
	nvmm_pool_id id;
	struct forker f = { .heap = harness_heap(nvmm, &id, 64 * MIB, NULL, 0) };
	pthread_t threads[2];
	int status;
	pid_t pid;

	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, alloc_often, &f), 0);
	for (int i = 0; i < 30; i++) {
		pid = fork();
		if (pid == 0) {
			alarm(20);
			nvmm_disconnect(nvmm);
			own = harness_connect(&h);
			nvmm_disconnect(own);
			_exit(0);
		}
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_int_eq(status, 0);
	}
	atomic_store(&f.stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(harness_blocks(f.heap), 0);
	nvmm_heap_close(f.heap);
	nvmm_disconnect(nvmm);
}
END_TEST

/* Signals */

static struct nvmm_heap *signal_heap;
static volatile sig_atomic_t nested, refused;

static void on_alarm(int sig)
{
	int error = errno;
	nvmm_ptr ptr = nvmm_alloc(signal_heap, 64);

	if (ptr != NVMM_NULL)
		nested += nvmm_free(signal_heap, ptr) == 0;
	else
		refused += errno == EDEADLK;
	errno = error;
}

static void alarms(unsigned us)
{
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	struct itimerval often = { .it_interval = { .tv_usec = us }, .it_value = { .tv_usec = us } };

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
}

/* A handler that allocates gets a block or is told that it interrupted the allocator. */
START_TEST(signals)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id id;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, 16 * MIB, NULL, 0);
	uint64_t until = harness_now_us() + 1000000;
	nvmm_ptr ptr;

	signal_heap = heap;
	alarms(200);
	while (harness_now_us() < until) {
		ptr = nvmm_alloc(heap, nested % 2 ? 64 : 200000);
		must(ptr != NVMM_NULL, "%s", nvmm_errmsg(nvmm));
		must(nvmm_free(heap, ptr) == 0, "%s", nvmm_errmsg(nvmm));
	}
	alarms(0);
	printf("signals: %d blocks, %d refused\n", (int)nested, (int)refused);
	ck_assert_int_gt(nested + refused, 0);
	ck_assert_uint_eq(harness_blocks(heap), 0);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

/* A thread keeps few heaps at hand: one that a handler uses takes another's place there, between any two
 * instructions of who looks. */
START_TEST(signals_of_other_heaps)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap[5];
	nvmm_pool_id id[5];
	uint64_t until;
	nvmm_ptr ptr;

	for (int i = 0; i < 5; i++)
		heap[i] = harness_heap(nvmm, &id[i], 4 * MIB, NULL, 0);
	signal_heap = heap[4];
	until = harness_now_us() + 1000000;
	alarms(20);
	while (harness_now_us() < until)
		for (int i = 0; i < 100; i++) {
			ptr = nvmm_alloc(heap[0], 64);
			must(ptr != NVMM_NULL, "%s", nvmm_errmsg(nvmm));
			must(nvmm_ptr_pool(ptr) == id[0], "%#llx is of another heap", (unsigned long long)ptr);
			must(nvmm_free(heap[0], ptr) == 0, "%s", nvmm_errmsg(nvmm));
		}
	alarms(0);
	printf("signals: %d blocks, %d refused\n", (int)nested, (int)refused);
	ck_assert_int_gt(nested, 0);
	for (int i = 0; i < 5; i++) {
		ck_assert_uint_eq(harness_blocks(heap[i]), 0);
		nvmm_heap_close(heap[i]);
	}
	nvmm_disconnect(nvmm);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("client threads");
	TCase *tcase = harness_case_served(suite, "client threads", 120, &h);

	tcase_add_test(tcase, many_heaps);
	tcase_add_test(tcase, many_short_threads);
	tcase_add_test(tcase, too_many_threads);
	tcase_add_test(tcase, forks);
	tcase_add_test(tcase, forks_beside_calls);
#if !defined(__SANITIZE_THREAD__)
	tcase_add_test(tcase, signals); /* its slow path is not async-signal-safe to TSan's taste */
	tcase_add_test(tcase, signals_of_other_heaps);
#else
	(void)signals;
	(void)signals_of_other_heaps;
#endif
	return harness_run(suite);
}
