/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Nothing is stuck and nothing hoarded: what a sleeping producer handed on, what idle processes hold, what
 * thousands of threads left behind, can be had by others.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/system/harness.h"

#define MIB (UINT64_C(1) << 20)
#define HEAP (64 * MIB)
#define WHOLE (HEAP - 16384) /* the largest block: a heap's first unit is kept */
#define SIZE 1000u
#define BLOCKS (HEAP / SIZE)
#define HOARDERS 4
#define THREADS 5000

static struct harness h;

struct shared {
	nvmm_pool_id id;
	atomic_uint ready;
	atomic_bool over;
	uint64_t n;
	nvmm_ptr block[BLOCKS];
};

static struct shared *s;

static void start(void)
{
	harness_init(&h, NULL);
	harness_start(&h);
	s = harness_shared(sizeof(*s));
}

static void stop(void)
{
	harness_stop(&h);
}

static bool are_ready(void *arg)
{
	return atomic_load(&s->ready) == *(unsigned *)arg;
}

static void sleep_to_the_end(void)
{
	atomic_fetch_add(&s->ready, 1);
	while (!atomic_load(&s->over))
		harness_sleep_ms(10);
}

/* Bytes that can be had in blocks of `size`, all given back at once. */
static uint64_t can_have(struct nvmm_client *nvmm, struct nvmm_heap *heap, size_t size)
{
	static nvmm_ptr ptr[BLOCKS];
	uint64_t n = 0;

	while (n < BLOCKS && (ptr[n] = nvmm_alloc(heap, size)) != NVMM_NULL)
		n++;
	must(errno == ENOSPC, "%s", nvmm_errmsg(nvmm));
	for (uint64_t i = 0; i < n; i++)
		must(nvmm_free(heap, ptr[i]) == 0, "%s", nvmm_errmsg(nvmm));
	return n * size;
}

static void produce(void *arg)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, s->id);

	(void)arg;
	while (s->n < BLOCKS && (s->block[s->n] = nvmm_alloc(heap, SIZE)) != NVMM_NULL)
		s->n++;
	sleep_to_the_end();
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

static void consume(void *arg)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, s->id);

	(void)arg;
	for (uint64_t i = 0; i < s->n; i++)
		must(nvmm_free(heap, s->block[i]) == 0, "%s", nvmm_errmsg(nvmm));
	sleep_to_the_end();
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

START_TEST(producer_sleeps)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_heap(nvmm, &s->id, HEAP, NULL, 0);
	unsigned one = 1, two = 2;
	pid_t producer, consumer;

	producer = harness_fork(produce, NULL);
	harness_until(are_ready, &one, 60000);
	ck_assert_uint_ge(s->n * SIZE, HEAP / 100 * 90);
	consumer = harness_fork(consume, NULL);
	harness_until(are_ready, &two, 60000);
	/* Of the size, of a smaller one, and in large blocks. */
	ck_assert_uint_ge(can_have(nvmm, heap, 1024), HEAP / 100 * 95);
	ck_assert_uint_ge(can_have(nvmm, heap, 4096), HEAP / 100 * 95);
	ck_assert_uint_ge(can_have(nvmm, heap, MIB), HEAP / 100 * 95);
	atomic_store(&s->over, true);
	harness_join(producer);
	harness_join(consumer);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

/* Holds an empty span of many classes and large blocks that are kept. */
static void hoard(void *arg)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, s->id);
	nvmm_ptr ptr[64];

	(void)arg;
	for (unsigned i = 0; i < 64; i++)
		ptr[i] = nvmm_alloc(heap, i < 60 ? 16 + i * 500 : 300000);
	for (unsigned i = 0; i < 64; i++)
		must(nvmm_free(heap, ptr[i]) == 0, "%s", nvmm_errmsg(nvmm));
	sleep_to_the_end();
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

/* Processes that do as `fn` does, until they have all they want. */
static void start_hoarders(pid_t pids[HOARDERS], void (*fn)(void *arg))
{
	unsigned all = HOARDERS;

	for (int i = 0; i < HOARDERS; i++)
		pids[i] = harness_fork(fn, NULL);
	harness_until(are_ready, &all, 60000);
}

static void end_hoarders(const pid_t pids[HOARDERS])
{
	atomic_store(&s->over, true);
	for (int i = 0; i < HOARDERS; i++)
		harness_join(pids[i]);
}

/* One block of all of it. */
static nvmm_ptr take_all(struct nvmm_client *nvmm, struct nvmm_heap *heap)
{
	nvmm_ptr ptr = nvmm_alloc(heap, WHOLE);

	ck_assert_msg(ptr != NVMM_NULL, "%s", nvmm_errmsg(nvmm));
	return ptr;
}

START_TEST(idle_processes_hold_nothing_up)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_heap(nvmm, &s->id, HEAP, NULL, 0);
	pid_t pids[HOARDERS];

	start_hoarders(pids, hoard);
	ck_assert_int_eq(nvmm_free(heap, take_all(nvmm, heap)), 0);
	end_hoarders(pids);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

/* Hoards, and works on when it is over. */
static void hoard_and_go_on(void *arg)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, s->id);

	(void)arg;
	for (int turn = 0; turn < 2; turn++) {
		nvmm_ptr ptr[60];

		for (unsigned i = 0; i < 60; i++) {
			ptr[i] = nvmm_alloc(heap, 16 + i * 500);
			must(ptr[i] != NVMM_NULL, "%s", nvmm_errmsg(nvmm));
		}
		for (unsigned i = 0; i < 60; i++)
			must(nvmm_free(heap, ptr[i]) == 0, "%s", nvmm_errmsg(nvmm));
		if (turn == 0)
			sleep_to_the_end();
	}
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

static bool no_limbo(void *arg)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };

	return nvmm_heap_stat(arg, &info) == 0 && info.limbo == 0;
}

/* Clients that were there before the daemon died and ask nothing of the next one, half of them stopped: all that
 * they hold can be had, what is freed with delay comes back, and they go on afterwards. */
START_TEST(idle_since_before_the_daemon)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_heap(nvmm, &s->id, HEAP, NULL, 0);
	pid_t pids[HOARDERS];

	start_hoarders(pids, hoard_and_go_on);
	for (int i = 0; i < HOARDERS; i += 2)
		ck_assert_int_eq(kill(pids[i], SIGSTOP), 0);
	harness_signal(&h, SIGKILL);
	harness_start(&h);
	ck_assert_int_eq(nvmm_free_deferred(heap, take_all(nvmm, heap)), 0);
	harness_until(no_limbo, heap, 10000);
	ck_assert_int_eq(nvmm_free(heap, take_all(nvmm, heap)), 0);
	ck_assert_int_ge(nvmm_heap_trim(heap), 0);
	for (int i = 0; i < HOARDERS; i += 2)
		ck_assert_int_eq(kill(pids[i], SIGCONT), 0);
	end_hoarders(pids);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

/*
 * All of the heap is an idle process's: in limbo, in spans that it owns. One allocation has a round run for it,
 * and gets at those spans; the daemon would not run one by itself for a minute.
 */
static void defer_all(void *arg)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, s->id);
	uint64_t n = 0;

	(void)arg;
	while (n < BLOCKS && (s->block[n] = nvmm_alloc(heap, SIZE)) != NVMM_NULL)
		n++;
	must(n * SIZE >= HEAP / 100 * 90, "%llu blocks", (unsigned long long)n);
	/* One more is had and freed when all others are in limbo: so its span is in use till the end. */
	for (uint64_t i = 1; i < n; i++)
		must(nvmm_free_deferred(heap, s->block[i]) == 0, "%s", nvmm_errmsg(nvmm));
	must(nvmm_free(heap, s->block[0]) == 0, "%s", nvmm_errmsg(nvmm));
	sleep_to_the_end();
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

START_TEST(limbo_of_the_idle)
{
	struct harness_options options = { .limits = "  clients: 64\nepoch:\n  interval: 60000\n" };
	struct nvmm_heap *heap;
	unsigned one = 1;
	struct nvmm_client *nvmm;
	nvmm_ptr ptr;
	pid_t pid;

	harness_init(&h, &options);
	harness_start(&h);
	s = harness_shared(sizeof(*s));
	nvmm = harness_connect(&h);
	heap = harness_heap(nvmm, &s->id, HEAP, NULL, 0);
	pid = harness_fork(defer_all, NULL);
	harness_until(are_ready, &one, 60000);
	ptr = nvmm_alloc(heap, _i == 0 ? WHOLE : SIZE);
	ck_assert_msg(ptr != NVMM_NULL, "%s", nvmm_errmsg(nvmm));
	ck_assert_int_eq(nvmm_free(heap, ptr), 0);
	atomic_store(&s->over, true);
	harness_join(pid);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

struct user {
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
};

static void *use(void *arg)
{
	struct user *u = arg;
	nvmm_ptr small = nvmm_alloc(u->heap, 100), large = nvmm_alloc(u->heap, 200000);

	must(small && large, "%s", nvmm_errmsg(u->nvmm));
	must(nvmm_free(u->heap, small) == 0 && nvmm_free(u->heap, large) == 0, "%s",
	     nvmm_errmsg(u->nvmm));
	return NULL;
}

static long resident_pages(void)
{
	long size = 0, resident = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fscanf(f, "%ld %ld", &size, &resident), 2);
	fclose(f);
	return resident;
}

START_TEST(threads_come_and_go)
{
	struct user u = { .nvmm = harness_connect(&h) };
	struct harness_usage before = { 0, 0 }, after;
	struct nvmm_heap_info info = { .size = sizeof(info) };
	long pages = 0;
	nvmm_ptr ptr;

	u.heap = harness_heap(u.nvmm, &s->id, HEAP, NULL, 0);
	for (int i = 0; i < THREADS; i++) {
		pthread_t thread;

		if (i == 500) {
			before = harness_usage(h.base);
			pages = resident_pages();
		}
		ck_assert_int_eq(pthread_create(&thread, NULL, use, &u), 0);
		pthread_join(thread, NULL);
	}
	after = harness_usage(h.base);
	ck_assert_uint_eq(after.files, before.files);
	ck_assert_uint_eq(after.bytes, before.bytes);
	/* 4500 threads: a lane left behind by each would be hundreds of MiB, more than a sanitizer holds
	 * back. */
	ck_assert_int_le(resident_pages(), pages + 16384);
	ck_assert_int_eq(nvmm_heap_stat(u.heap, &info), 0);
	ck_assert_uint_eq(info.blocks, 0);
	ptr = nvmm_alloc(u.heap, WHOLE);
	ck_assert_msg(ptr != NVMM_NULL, "%s", nvmm_errmsg(u.nvmm));
	ck_assert_int_eq(nvmm_free(u.heap, ptr), 0);
	nvmm_heap_close(u.heap);
	nvmm_disconnect(u.nvmm);
}
END_TEST

/* Many at a time, in two heaps, with epochs, limbo and reservations. */

#define WAVES 40
#define AT_ONCE 50

struct wave {
	struct user user[2];
	pthread_barrier_t together;
};

static void use_all(struct user *u, size_t size)
{
	nvmm_ptr a = nvmm_alloc(u->heap, size), b = nvmm_reserve(u->heap, size), c;

	must(a && b, "%s", nvmm_errmsg(u->nvmm));
	must(nvmm_epoch_enter(u->nvmm) == 0, "%s", nvmm_errmsg(u->nvmm));
	must(nvmm_free_deferred(u->heap, a) == 0, "%s", nvmm_errmsg(u->nvmm));
	nvmm_epoch_exit(u->nvmm);
	must(nvmm_cancel(u->heap, b) == 0, "%s", nvmm_errmsg(u->nvmm));
	c = nvmm_alloc(u->heap, size);
	must(c && nvmm_free(u->heap, c) == 0, "%s", nvmm_errmsg(u->nvmm));
}

static void *use_together(void *arg)
{
	struct wave *w = arg;

	for (size_t size = 16; size < 200000; size = size * 7 + 1) {
		use_all(&w->user[0], size);
		use_all(&w->user[1], size);
	}
	pthread_barrier_wait(&w->together);
	return NULL;
}

static void run_wave(struct wave *w)
{
	pthread_t thread[AT_ONCE];

	for (int i = 0; i < AT_ONCE; i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, use_together, w), 0);
	for (int i = 0; i < AT_ONCE; i++)
		pthread_join(thread[i], NULL);
}

static bool nothing_in_use(void *arg)
{
	struct user *u = arg;
	struct nvmm_heap_info info = { .size = sizeof(info) };

	must(nvmm_heap_stat(u->heap, &info) == 0, "%s", nvmm_errmsg(u->nvmm));
	return info.blocks == 0;
}

START_TEST(waves_of_threads)
{
	struct harness_holdings mine = { 0, 0 }, daemons = { 0, 0 }, now;
	struct nvmm_client *nvmm = harness_connect(&h);
	struct harness_usage before = { 0, 0 };
	struct wave w;
	nvmm_pool_id id[2];
	long pages = 0;
	nvmm_ptr ptr;

	for (int i = 0; i < 2; i++) {
		w.user[i].nvmm = nvmm;
		w.user[i].heap = harness_heap(nvmm, &id[i], HEAP, NULL, 0);
	}
	pthread_barrier_init(&w.together, NULL, AT_ONCE);
	for (int i = 0; i < WAVES; i++) {
		if (i == 5) {
			mine = harness_holdings(getpid());
			daemons = harness_holdings(h.daemon);
			before = harness_usage(h.dir);
			pages = resident_pages();
		}
		run_wave(&w);
	}
	now = harness_holdings(getpid());
	ck_assert_uint_eq(now.fds, mine.fds);
	/* Of a heap's files more may be mapped, as its spans spread. */
	ck_assert_uint_le(now.maps, mine.maps);
	now = harness_holdings(h.daemon);
	ck_assert_uint_eq(now.fds, daemons.fds);
	ck_assert_uint_eq(now.maps, daemons.maps);
	ck_assert_uint_eq(harness_usage(h.dir).files, before.files);
	ck_assert_uint_eq(harness_usage(h.dir).bytes, before.bytes);
	ck_assert_int_le(resident_pages(), pages + 16384);
	for (int i = 0; i < 2; i++) {
		harness_until(nothing_in_use, &w.user[i], 30000);
		ptr = nvmm_alloc(w.user[i].heap, WHOLE);
		ck_assert_msg(ptr != NVMM_NULL, "%s", nvmm_errmsg(nvmm));
		ck_assert_int_eq(nvmm_free(w.user[i].heap, ptr), 0);
		nvmm_heap_close(w.user[i].heap);
	}
	pthread_barrier_destroy(&w.together);
	nvmm_disconnect(nvmm);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stuck");
	TCase *tcase = harness_case(suite, "stuck", 180), *configured = harness_case(suite, "configured", 60);

	tcase_add_checked_fixture(tcase, start, stop);
	tcase_add_test(tcase, producer_sleeps);
	tcase_add_test(tcase, idle_processes_hold_nothing_up);
	tcase_add_test(tcase, idle_since_before_the_daemon);
	tcase_add_test(tcase, threads_come_and_go);
	tcase_add_test(tcase, waves_of_threads);
	tcase_add_checked_fixture(configured, NULL, stop);
	tcase_add_loop_test(configured, limbo_of_the_idle, 0, 2);
	return harness_run(suite);
}
