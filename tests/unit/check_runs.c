/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The index of free runs against a plain map of units: what is taken was free, is aligned, and nothing
 * that fits is refused.
 */
#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"
#include "media/runs.h"
#include "tests/unit/suite.h"

#define UNITS 2048u

static bool is_free[UNITS];
static uint64_t seed;

static uint64_t pick(uint64_t below)
{
	seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (seed >> 33) % below;
}

/* Whether `length` units at a multiple of `align` are free. */
static bool possible(uint64_t length, uint64_t align)
{
	for (uint64_t at = 0; at + length <= UNITS; at += align) {
		uint64_t n = 0;

		while (n < length && is_free[at + n])
			n++;
		if (n == length)
			return true;
	}
	return false;
}

static void set(uint64_t unit, uint64_t length, bool value)
{
	for (uint64_t i = 0; i < length; i++) {
		ck_assert_msg(is_free[unit + i] != value, "unit %u", (unsigned)(unit + i));
		is_free[unit + i] = value;
	}
}

static uint64_t free_units(void)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < UNITS; i++)
		n += is_free[i];
	return n;
}

START_TEST(random_takes)
{
	static struct run taken[UNITS];
	struct runs *runs = NULL;
	unsigned n = 0;

	seed = (uint64_t)_i + 1;
	memset(is_free, 0, sizeof(is_free));
	ck_assert_int_eq(runs_new(&runs), 0);
	ck_assert_int_eq(runs_add(runs, (struct run){ .unit = 0, .length = UNITS }), 0);
	set(0, UNITS, true);
	for (int i = 0; i < 4000; i++) {
		uint64_t length = 1 + pick(pick(8) ? 12 : 300), align = UINT64_C(1) << pick(8);
		struct run run = { .length = 0 };
		int r;

		if (pick(3) == 0 && n > 0) {
			unsigned k = (unsigned)pick(n);

			set(taken[k].unit, taken[k].length, true);
			ck_assert_int_eq(runs_add(runs, taken[k]), 0);
			taken[k] = taken[--n];
			continue;
		}
		r = runs_take(runs, length, align, &run);
		ck_assert_int_eq(r, possible(length, align) ? 0 : -ENOSPC);
		if (r < 0)
			continue;
		ck_assert_uint_eq(run_aligned(&run, align) % align, 0);
		ck_assert_uint_le(run_aligned(&run, align) + length, run.unit + run.length);
		taken[n++] = (struct run){ .unit = (uint32_t)run_aligned(&run, align),
					   .length = length };
		set(taken[n - 1].unit, length, false);
		ck_assert_uint_eq(runs_units(runs), free_units());
	}
	while (n-- > 0)
		ck_assert_int_eq(runs_add(runs, taken[n]), 0);
	ck_assert_uint_eq(runs_longest(runs), UNITS);
	runs_free(runs);
}
END_TEST

/* More runs that are too short for the alignment than are looked at, and none that is long enough wherever
 * it begins: the one that fits is found. */
START_TEST(the_last_that_fits)
{
	struct runs *runs = NULL;
	struct run run;

	ck_assert_int_eq(runs_new(&runs), 0);
	for (uint32_t i = 0; i < 500; i++)
		ck_assert_int_eq(runs_add(runs, (struct run){ .unit = i * 16 + 1, .length = 8 }), 0);
	ck_assert_int_eq(runs_take(runs, 8, 16, &run), -ENOSPC);
	ck_assert_int_eq(runs_add(runs, (struct run){ .unit = 16 * 600, .length = 8 }), 0);
	ck_assert_int_eq(runs_take(runs, 8, 16, &run), 0);
	ck_assert_uint_eq(run.unit, 16 * 600);
	runs_free(runs);
}
END_TEST

/* What was set aside is used up, joins neighbours as any other, and is topped up, not doubled. */
START_TEST(set_aside)
{
	struct runs *runs = NULL;

	ck_assert_int_eq(runs_new(&runs), 0);
	ck_assert_int_eq(runs_ready(runs, 2), 0);
	ck_assert_int_eq(runs_ready(runs, 3), 0);
	for (uint32_t i = 0; i < 5; i++)
		ck_assert_int_eq(runs_add_ready(runs, (struct run){ .unit = i * 8, .length = 8 }), 0);
	ck_assert_uint_eq(runs_longest(runs), 40);
	ck_assert_int_eq(runs_ready(runs, 1), 0);
	runs_free(runs);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("runs");
	TCase *t = tcase_create("runs");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, random_takes, 0, 20);
	tcase_add_test(t, the_last_that_fits);
	tcase_add_test(t, set_aside);
	suite_add_tcase(s, t);
	return suite_run(s);
}
