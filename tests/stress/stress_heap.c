/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Threads allocate, fill, check and free blocks of one heap, hand them to each other, end and begin
 * anew, in heaps of both durabilities. Each block is filled with its own pointer, so an overlap shows. Counts
 * decide; the seed is printed and NVMMD_TEST_SEED replays it.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/macro.h"
#include "tests/unit/heap_fixture.h"
#include "tests/unit/suite.h"

#define THREADS 4u
#define LIVES 6u      /* lanes that each thread takes one after the other */
#define ROUNDS 6000u  /* operations of each life */
#define MAILBOX 64u   /* places through which blocks change hands */

static struct fixture fix;
static _Atomic uint64_t mailbox[MAILBOX];
static atomic_uint full;

struct worker {
	pthread_t thread;
	unsigned number;
	uint64_t random;
};

/* xorshift64 (Marsaglia, "Xorshift RNGs", 2003). */
static uint64_t next_random(struct worker *w)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random;
}

static size_t random_size(struct worker *w)
{
	uint64_t r = next_random(w);
	size_t size = (size_t)1 << (4 + r % 12);

	if (r % 251 == 0)
		size = 1 << 18;
	return size + (r >> 32) % size;
}

/* The first and last words of a block name it. */
static void mark(uint64_t ptr)
{
	struct span_at at;
	uint32_t index;
	uint64_t *words;

	if (heap_block(&fix.heap, ptr, &at, &index) < 0)
		abort();
	words = fixture_at(&fix, ptr);
	words[0] = words[1] = ptr;
	words[at.block_size / 8 - 1] = ptr;
}

static void check_and_free(struct lane *lane, uint64_t ptr)
{
	struct span_at at;
	uint32_t index;
	uint64_t *words = fixture_at(&fix, ptr);

	if (heap_block(&fix.heap, ptr, &at, &index) < 0)
		abort();
	if (words[0] != ptr || words[1] != ptr || words[at.block_size / 8 - 1] != ptr) {
		fprintf(stderr, "block %llx holds another's mark\n", (unsigned long long)ptr);
		abort();
	}
	words[0] = words[1] = 0;
	words[at.block_size / 8 - 1] = 0;
	if (lane_dealloc(lane, ptr) != 0)
		abort();
}

static void one_life(struct worker *w, struct lane *lane)
{
	uint64_t own[32] = { 0 };

	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t r = next_random(w);
		uint64_t *place = &own[r % ARRAY_SIZE(own)];

		if (*place) {
			if (r & 64)
				*place = atomic_exchange(&mailbox[(r >> 8) % MAILBOX], *place);
			else
				check_and_free(lane, take(*place));
			continue;
		}
		*place = lane_alloc(lane, random_size(w));
		if (*place)
			mark(*place);
		else if (lane_error(lane) == -ENOSPC)
			atomic_fetch_add(&full, 1);
		else
			abort();
	}
	for (unsigned i = 0; i < ARRAY_SIZE(own); i++)
		if (own[i])
			check_and_free(lane, own[i]);
}

static void *work(void *arg)
{
	struct worker *w = arg;

	for (unsigned life = 0; life < LIVES; life++) {
		struct lane *lane = NULL;

		/* Lanes of one number follow each other: what one leaves the next finds. */
		pthread_mutex_lock(&fix.lock);
		lane = fixture_lane(&fix, w->number);
		pthread_mutex_unlock(&fix.lock);
		one_life(w, lane);
		lane_free(lane);
	}
	return NULL;
}

static void make_fixture(uint64_t units, bool power)
{
	if (power)
		fixture_init_power(&fix, units, 16, NULL);
	else
		fixture_init(&fix, units, 16);
}

static uint64_t seed_of_run(void)
{
	const char *text = getenv("NVMMD_TEST_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL) * 2654435761u + 1;

	printf("NVMMD_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

static void run(uint64_t units, bool power, uint64_t seed)
{
	struct worker workers[THREADS];
	struct lane *last;
	uint64_t big;

	make_fixture(units, power);
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i].number = i;
		workers[i].random = (seed + i) * UINT64_C(0x9e3779b97f4a7c15) | 1;
		ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	last = fixture_lane(&fix, THREADS);
	for (unsigned i = 0; i < MAILBOX; i++) {
		uint64_t ptr = atomic_exchange(&mailbox[i], 0);

		if (ptr)
			check_and_free(last, ptr);
	}
	fixture_expect_used(&fix, 0);
	fixture_check(&fix);
	big = lane_alloc(last, units * UNIT_SIZE);
	ck_assert_uint_ne(big, 0);
	ck_assert_int_eq(lane_dealloc(last, big), 0);
	lane_free(last);
	fixture_check(&fix);
	fixture_deinit(&fix);
}

START_TEST(with_room)
{
	run(4096, _i, seed_of_run());
	ck_assert_uint_eq(full, 0);
}
END_TEST

/* Most requests meet a full heap: pressure, retiring and adopting all the time. */
START_TEST(without_room)
{
	run(128, _i, seed_of_run());
	ck_assert_uint_gt(full, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("stress heap");
	TCase *t = tcase_create("stress heap");

	tcase_set_timeout(t, 180);
	tcase_add_loop_test(t, with_room, 0, 2); /* of both durabilities */
	tcase_add_loop_test(t, without_room, 0, 2);
	suite_add_tcase(s, t);
	return suite_run(s);
}
