/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A grant's long jobs in slices, between which the daemon serves others: they come to the same as in one piece.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "media/grant.h"
#include "tests/unit/heap_fixture.h"
#include "tests/unit/suite.h"

static struct fixture fix;

/* Slices retire all that a trim does, whatever is granted and scanned between them. */
START_TEST(trimmed_in_slices)
{
	const uint64_t units = 40000, spans = 30000;
	struct grant_trim trim = { .begun = false };
	uint64_t freed = 0, ref, last = 0;
	struct span_at at;
	unsigned slices = 0;

	fixture_init(&fix, units, 16);
	for (uint64_t i = 0; i < spans; i++)
		ck_assert_int_eq(grant_run(fix.grant, 1, 1, &ref), 0);
	ck_assert_int_eq(heap_span(&fix.heap, ref, &at), 0);
	ck_assert(span_claim(&fix.heap, &at, owner_lane(1, 3, 0)));
	while (!trim.begun || trim.left > 0) {
		int64_t bytes = grant_trim_slice(fix.grant, &trim);

		ck_assert_int_ge(bytes, 0);
		freed += (uint64_t)bytes;
		slices++;
		/* This one has no block, and is taken, and stays. */
		ck_assert_int_eq(grant_run(fix.grant, 1, 1, &last), 0);
		ck_assert_int_eq(heap_span(&fix.heap, last, &at), 0);
		ck_assert(span_claim(&fix.heap, &at, owner_lane(1, 3, 0)));
	}
	ck_assert_uint_ge(slices, units / 64 / 128);
	ck_assert_uint_eq(freed, (spans - 1) << UNIT_SHIFT);
	ck_assert_int_eq(grant_trim(fix.grant), 0);
	fixture_deinit(&fix);
}
END_TEST

/* Room in a large heap is looked for in slices: the only span that has any is found wherever it is, and the request
 * ends where there is none. */
START_TEST(pressed_in_slices)
{
	const uint64_t units = 40000;
	struct grant_press press = { .stage = 0 };
	uint64_t *refs = calloc(units, sizeof(*refs)), ref, n = 0;
	unsigned slices = 0;
	struct span_at at;
	int r;

	fixture_init(&fix, units, 16);
	ck_assert_ptr_nonnull(refs);
	while (grant_run(fix.grant, 1, 1, &refs[n]) == 0) {
		ck_assert_int_eq(heap_span(&fix.heap, refs[n], &at), 0);
		media_store64(state_alloc(at.record), 1);
		n++;
	}
	ck_assert_uint_gt(n, units - 100);
	while ((r = grant_spans_slice(fix.grant, 0, 1, &ref, &press)) == -EAGAIN)
		slices++;
	ck_assert_int_eq(r, -ENOSPC);
	ck_assert_uint_ge(slices, 2 * (units / 64 / 128));
	ck_assert_uint_eq(press.stage, 0);
	/* A unit that is given back ahead of the pass, and one behind it, which the next has. */
	for (uint64_t k = 1; k < 6; k++) {
		uint64_t one = refs[n * k / 6];

		slices = 0;
		ck_assert_int_eq(grant_run_slice(fix.grant, 1, 1, &ref, &press), -EAGAIN);
		ck_assert_int_eq(heap_span(&fix.heap, one, &at), 0);
		media_store64(state_alloc(at.record), 0);
		heap_hint(&fix.heap, &at);
		while ((r = grant_run_slice(fix.grant, 1, 1, &ref, &press)) == -EAGAIN)
			ck_assert_uint_lt(slices++, 100);
		if (r == -ENOSPC)
			r = grant_run(fix.grant, 1, 1, &ref);
		ck_assert_int_eq(r, 0);
		ck_assert_uint_eq(ref_unit(ref), ref_unit(one));
		ck_assert_int_eq(heap_span(&fix.heap, ref, &at), 0);
		media_store64(state_alloc(at.record), 1);
		memset(&press, 0, sizeof(press));
	}
	free(refs);
	fixture_deinit(&fix);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("grant slices");
	TCase *t = tcase_create("grant slices");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, trimmed_in_slices);
	tcase_add_test(t, pressed_in_slices);
	suite_add_tcase(s, t);
	return suite_run(s);
}
