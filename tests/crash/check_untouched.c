/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is called untouched reads zero.
 *
 * Whoever gets a block fills it. Lanes take and free blocks of all sizes, give spans up, the daemon trims
 * and is loaded anew, and processes die at each of their stores: a block that its lane calls clear never
 * has a byte of anybody. And fresh units are called clear, else nothing would be gained.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"
#include "media/untouched.h"
#include "tests/crash/killer.h"
#include "tests/unit/heap_fixture.h"
#include "tests/unit/suite.h"

#define UNITS 128u
#define LARGE (CLASS_SIZE_MAX + 1)
#define LARGE_UNITS (DIV_UP(LARGE, UNIT_SIZE))
#define LANES 3u
#define BLOCKS 64u

static struct fixture fix;
static struct lane *lanes[LANES];
static uint64_t blocks[BLOCKS];
static unsigned n_blocks, clears;
static uint64_t seed;

static uint64_t pick(uint64_t below)
{
	seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (seed >> 33) % below;
}

static void start(void)
{
	fixture_init(&fix, UNITS, 16);
	for (unsigned i = 0; i < LANES; i++)
		lanes[i] = fixture_lane(&fix, 5 + i);
	n_blocks = clears = 0;
}

static void stop(void)
{
	for (unsigned i = 0; i < LANES; i++)
		lane_forget(lanes[i]);
	fixture_deinit(&fix);
}

/* Takes a block and fills it; whether it was called clear, which must be true. */
static bool take_filled(struct lane *lane, uint64_t align, uint64_t size, uint64_t *ret)
{
	uint64_t ptr = lane_alloc_aligned(lane, align, size);
	unsigned char *p = ptr ? fixture_at(&fix, ptr) : NULL;
	bool clear = ptr && size > CLASS_SIZE_MAX && lane_gave_clear(lane, ptr);

	*ret = ptr;
	for (uint64_t i = 0; clear && i < size; i++)
		if (p[i] != 0)
			ck_abort_msg("byte %llu of a block of %llu at %llx is %u",
				     (unsigned long long)i, (unsigned long long)size,
				     (unsigned long long)ptr, p[i]);
	if (ptr)
		memset(p, 0xee, size);
	return clear;
}

static bool taken_clear(struct lane *lane, uint64_t size)
{
	uint64_t ptr;
	bool clear = take_filled(lane, 1, size, &ptr);

	ck_assert_uint_ne(ptr, 0);
	blocks[n_blocks++] = ptr;
	return clear;
}

static void free_all(struct lane *lane)
{
	while (n_blocks > 0)
		ck_assert_int_eq(lane_dealloc(lane, blocks[--n_blocks]), 0);
}

START_TEST(only_once)
{
	struct span_at at;
	uint32_t index;

	start();
	ck_assert(taken_clear(lanes[0], LARGE));
	ck_assert(taken_clear(lanes[1], 2 * LARGE));
	/* Nor are they for who would claim the same span, however he came by it. */
	for (unsigned i = 0; i < n_blocks; i++) {
		ck_assert_int_eq(heap_block(&fix.heap, blocks[i], &at, &index), 0);
		ck_assert(!untouched_take(&fix.heap, &at));
	}
	free_all(lanes[0]);
	for (unsigned i = 0; i < LANES; i++)
		lane_release(lanes[i]);
	ck_assert_int_ge(grant_trim(fix.grant), 0);
	/* All three were filled; what is behind them was not. */
	for (unsigned i = 0; i < 3; i++)
		ck_assert(!taken_clear(lanes[2], LARGE));
	ck_assert(taken_clear(lanes[2], LARGE));
	free_all(lanes[2]);
	stop();
}
END_TEST

/* What is behind stays untouched while small blocks and a restart go on before it. */
START_TEST(fresh_to_the_end)
{
	unsigned before = 0;

	start();
	for (unsigned i = 0; i < 6; i++) {
		(void)taken_clear(lanes[0], 1000);
		before += taken_clear(lanes[0], LARGE);
		fixture_reload(&fix);
	}
	ck_assert_uint_eq(before, 6);
	fixture_second_shelf(&fix, UNITS);
	while (n_blocks < BLOCKS) {
		uint64_t ptr;

		before += take_filled(lanes[1], 1, LARGE, &ptr);
		if (ptr == 0)
			break;
	}
	/* Of two shelves all but what small blocks and odd ends take. */
	ck_assert_uint_ge(before, 2 * UNITS / LARGE_UNITS - 4);
	stop();
}
END_TEST

static void act(struct lane *lane)
{
	uint64_t size = pick(2) ? 1 + pick(20000) : CLASS_SIZE_MAX + 1 + pick(6 * UNIT_SIZE), ptr;
	uint64_t align = pick(4) ? 1 : UINT64_C(1) << pick(18);

	if (n_blocks > 0 && (n_blocks == BLOCKS || pick(2))) {
		unsigned i = (unsigned)pick(n_blocks);

		ck_assert_int_eq(lane_dealloc(lane, blocks[i]), 0);
		blocks[i] = blocks[--n_blocks];
		return;
	}
	clears += take_filled(lane, align, size, &ptr);
	if (ptr)
		blocks[n_blocks++] = ptr;
}

START_TEST(at_random)
{
	seed = (uint64_t)_i + 1;
	start();
	for (unsigned i = 0; i < 3000; i++) {
		if (i == 1500)
			fixture_second_shelf(&fix, UNITS);
		act(lanes[pick(LANES)]);
		if (pick(16) == 0)
			lane_release(lanes[pick(LANES)]);
		if (pick(64) == 0)
			ck_assert_int_ge(grant_trim(fix.grant), 0);
		if (pick(128) == 0) {
			memset(fix.alive, true, sizeof(fix.alive));
			fixture_reload(&fix);
		}
	}
	ck_assert_uint_ge(clears, 3);
	stop();
}
END_TEST

/* Deaths */

/* All that makes units touched; the daemon's part dies with it. */
static void doomed(void *unused)
{
	uint64_t ptr[3];

	(void)unused;
	(void)take_filled(lanes[0], 1, LARGE, &ptr[0]);
	(void)take_filled(lanes[0], 16 * UNIT_SIZE, LARGE, &ptr[1]);
	(void)take_filled(lanes[0], 1, 16000, &ptr[2]);
	for (unsigned i = 0; i < 3; i++)
		if (lane_dealloc(lanes[0], ptr[i]) < 0)
			abort();
	lane_release(lanes[0]);
	if (grant_trim(fix.grant) < 0)
		abort();
	(void)take_filled(lanes[0], 1, 2 * LARGE, &ptr[0]);
}

START_TEST(killed)
{
	static const uint64_t sizes[] = { LARGE, CLASS_SIZE_MAX + 4 * UNIT_SIZE };
	long k = 0;
	bool again = true;

	for (; again; k++) {
		uint64_t ptr;

		start();
		again = killer_run(k, doomed, NULL);
		fixture_reload(&fix);
		do
			clears += take_filled(lanes[1], 1, sizes[_i], &ptr);
		while (ptr);
		ck_assert_uint_ge(clears, 1);
		fixture_check(&fix);
		stop();
	}
	ck_assert_int_gt(k, 50);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("untouched");
	TCase *t = tcase_create("untouched");

	tcase_set_timeout(t, 120);
	tcase_add_test(t, only_once);
	tcase_add_test(t, fresh_to_the_end);
	tcase_add_loop_test(t, at_random, 0, 8);
	tcase_add_loop_test(t, killed, 0, 2);
	suite_add_tcase(s, t);
	return suite_run(s);
}
