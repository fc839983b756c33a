/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Threads that publish, cancel and free the same things at once, also against the contract: a word may be either's then,
 * but each block is committed, cancelled or freed by one of them, and none is lost. Roots change meanwhile.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/macro.h"
#include "tests/system/harness.h"

#define THREADS 4u
#define ROUNDS 400u
#define BLOCK 64u

static struct harness h;

static struct shared {
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	nvmm_ptr at; /* two words */
	nvmm_ptr mine[THREADS][ROUNDS];
	nvmm_ptr contended[ROUNDS];
	unsigned won[ROUNDS]; /* atomic: how many committed, cancelled or freed it */
	pthread_barrier_t together;
} all;

static void start(void)
{
	nvmm_pool_id id;

	harness_init(&h, NULL);
	harness_start(&h);
	all.nvmm = harness_connect(&h);
	all.heap = harness_heap(all.nvmm, &id, UINT64_C(16) << 20, NULL, 0);
	all.at = nvmm_zalloc(all.heap, BLOCK);
	ck_assert_uint_ne(all.at, NVMM_NULL);
	ck_assert_int_eq(pthread_barrier_init(&all.together, NULL, THREADS), 0);
}

static void stop(void)
{
	nvmm_heap_close(all.heap);
	nvmm_disconnect(all.nvmm);
	harness_stop(&h);
}

static void run(void *(*fn)(void *arg))
{
	pthread_t thread[THREADS];

	for (unsigned i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, fn, (void *)(uintptr_t)i), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
}

static bool has_blocks(void *arg)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };

	ck_assert_int_eq(nvmm_heap_stat(all.heap, &info), 0);
	return info.limbo == 0 && info.blocks == *(const uint64_t *)arg;
}

static void expect_blocks(uint64_t n)
{
	struct nvmm_heap_report report = { .size = sizeof(report) };

	harness_until(has_blocks, &n, 10000);
	ck_assert_int_eq(nvmm_heap_check(all.heap, &report), 0);
	ck_assert_uint_eq(report.violations, 0);
}

static void *to_one_word(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;

	pthread_barrier_wait(&all.together);
	for (unsigned i = 0; i < ROUNDS; i++) {
		nvmm_ptr ptr = nvmm_reserve(all.heap, BLOCK);
		const struct nvmm_action actions[] = {
			NVMM_COMMIT(ptr),
			NVMM_STORE(all.at, ptr),
			NVMM_STORE(all.at + 8 * (1 + me), i + 1),
		};

		must(ptr != NVMM_NULL && nvmm_publish(all.heap, actions, 3) == 0, "publish: %s",
		     nvmm_errmsg(all.nvmm));
		all.mine[me][i] = ptr;
	}
	return NULL;
}

START_TEST(one_word)
{
	const uint64_t *word;
	bool found = false;

	start();
	run(to_one_word);
	word = nvmm_local(all.nvmm, all.at);
	for (unsigned t = 0; t < THREADS; t++) {
		ck_assert_uint_eq(word[1 + t], ROUNDS);
		for (unsigned i = 0; i < ROUNDS; i++) {
			must(nvmm_usable_size(all.heap, all.mine[t][i]) == BLOCK, "a block is lost");
			found |= all.mine[t][i] == word[0];
		}
	}
	ck_assert(found);
	expect_blocks(1 + THREADS * ROUNDS);
	for (unsigned t = 0; t < THREADS; t++)
		for (unsigned i = 0; i < ROUNDS; i++)
			must(nvmm_free(all.heap, all.mine[t][i]) == 0, "a block was given twice");
	expect_blocks(1);
	stop();
}
END_TEST

static void won(unsigned i)
{
	/* ordering: relaxed; a count. */
	__atomic_fetch_add(&all.won[i], 1, __ATOMIC_RELAXED);
}

/* Half of the threads commit, the others cancel. */
static void *one_reservation(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		const struct nvmm_action commit = NVMM_COMMIT(all.contended[i]);
		int r;

		if (i % 50 == 0)
			pthread_barrier_wait(&all.together);
		r = me % 2 ? nvmm_publish(all.heap, &commit, 1) :
			     nvmm_cancel(all.heap, all.contended[i]);
		if (r == 0)
			won(i);
		must(r == 0 || r == -EINVAL || r == -EBUSY, "%d: %s", r, nvmm_errmsg(all.nvmm));
	}
	return NULL;
}

START_TEST(reservations_of_all)
{
	uint64_t left = 1;

	start();
	for (unsigned round = 0; round < ROUNDS / 100; round++) {
		for (unsigned i = 0; i < ROUNDS; i++)
			all.contended[i] = i < 100 ? nvmm_reserve(all.heap, BLOCK) : NVMM_NULL;
		for (unsigned i = 0; i < 100; i++)
			must(all.contended[i] != NVMM_NULL, "reserve: %s", nvmm_errmsg(all.nvmm));
		for (unsigned i = 100; i < ROUNDS; i++)
			all.contended[i] = all.contended[i % 100];
		for (unsigned i = 0; i < ROUNDS; i++)
			all.won[i] = 0;
		run(one_reservation);
		for (unsigned i = 0; i < 100; i++) {
			unsigned n = 0;

			for (unsigned k = i; k < ROUNDS; k += 100)
				n += all.won[k];
			must(n == 1, "reservation %u went %u times", i, n);
			left += nvmm_usable_size(all.heap, all.contended[i]) != 0;
		}
		expect_blocks(left);
	}
	stop();
}
END_TEST

/* Frees of the same blocks: one of all the publishes has it, or the plain free. */
static void *free_same(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;

	pthread_barrier_wait(&all.together);
	for (unsigned i = 0; i < ROUNDS; i++) {
		const struct nvmm_action free = NVMM_FREE(all.contended[i]);
		int r = me % 2 ? nvmm_publish(all.heap, &free, 1) :
				 nvmm_free_deferred(all.heap, all.contended[i]);

		must(r == 0 || r == -EALREADY, "%d: %s", r, nvmm_errmsg(all.nvmm));
	}
	return NULL;
}

START_TEST(frees_of_all)
{
	start();
	for (unsigned i = 0; i < ROUNDS; i++)
		must((all.contended[i] = nvmm_alloc(all.heap, BLOCK)) != NVMM_NULL, "alloc");
	/* Nobody has them anew meanwhile. */
	ck_assert_int_eq(nvmm_epoch_enter(all.nvmm), 0);
	run(free_same);
	nvmm_epoch_exit(all.nvmm);
	expect_blocks(1);
	stop();
}
END_TEST

static void *roots_meanwhile(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	nvmm_ptr expected = NVMM_NULL;

	if (me == 0)
		return to_one_word(arg);
	pthread_barrier_wait(&all.together);
	for (unsigned i = 0; i < ROUNDS / 10;) {
		int r = nvmm_root_cas(all.heap, "turn", &expected, all.at + 8 * (i % 7));

		must(r == 0 || r == -EAGAIN, "cas: %s", nvmm_errmsg(all.nvmm));
		if (r == 0) {
			expected = all.at + 8 * (i++ % 7);
			/* ordering: relaxed; a count. */
			__atomic_fetch_add(&all.won[0], 1, __ATOMIC_RELAXED);
		}
	}
	return NULL;
}

/* A root is the daemon's, a publish the process's: neither waits for the other, or sees half of it. */
START_TEST(roots_and_words)
{
	nvmm_ptr ptr;

	start();
	run(roots_meanwhile);
	ck_assert_uint_eq(all.won[0], (THREADS - 1) * (ROUNDS / 10));
	ck_assert_int_eq(nvmm_root_get(all.heap, "turn", &ptr), 0);
	ck_assert_uint_eq(ptr % 8, 0);
	ck_assert_uint_lt(ptr - all.at, BLOCK);
	ck_assert_uint_eq(((const uint64_t *)nvmm_local(all.nvmm, all.at))[1], ROUNDS);
	expect_blocks(1 + ROUNDS);
	stop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("publish by threads");
	TCase *t = harness_case(s, "publish by threads", 60);

	tcase_add_test(t, one_word);
	tcase_add_test(t, reservations_of_all);
	tcase_add_test(t, frees_of_all);
	tcase_add_test(t, roots_and_words);
	return harness_run(s);
}
