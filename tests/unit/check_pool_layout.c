/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Layout of pools in shelves: sizes, limits, growth; the invariant that tells where a pool ends.
 */
#include <errno.h>
#include <stdlib.h>

#include "common/macro.h"
#include "daemon/pool_layout.h"
#include "media/span.h"
#include "tests/unit/tempdir.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define TIB (UINT64_C(1) << 40)

START_TEST(sizes)
{
	uint64_t size;

	ck_assert_int_eq(pool_layout_size(&size, POOL_REGION, 0), -EINVAL);
	ck_assert_int_eq(pool_layout_size(&size, POOL_REGION, UINT64_C(1) << 63), -EINVAL);
	ck_assert_int_eq(pool_layout_size(&size, POOL_HEAP, UINT64_MAX), -EINVAL);
	ck_assert_int_eq(pool_layout_size(&size, POOL_REGION, POOL_SIZE_MAX + 1), -EINVAL);
	ck_assert_int_eq(pool_layout_size(&size, POOL_REGION, 1), 0);
	ck_assert_uint_eq(size, MEDIA_PAGE);
	/* The first unit of a heap is kept. */
	ck_assert_int_eq(pool_layout_size(&size, POOL_HEAP, 1), 0);
	ck_assert_uint_eq(size, 2 * UNIT_SIZE);
	ck_assert_int_eq(pool_layout_size(&size, POOL_HEAP, 2 * UNIT_SIZE + 1), 0);
	ck_assert_uint_eq(size, 3 * UNIT_SIZE);
	ck_assert_int_eq(pool_layout_size(&size, POOL_HEAP, POOL_SIZE_MAX), 0);
	ck_assert_uint_eq(size, POOL_SIZE_MAX);
}
END_TEST

START_TEST(limits)
{
	ck_assert_uint_eq(pool_layout_limit(UNIT_SIZE), GIB);
	ck_assert_uint_eq(pool_layout_limit(256 * MIB), GIB);
	ck_assert_uint_eq(pool_layout_limit(257 * MIB), 1088 * MIB);
	ck_assert_uint_eq(pool_layout_limit(TIB / 4), SHELF_SIZE_MAX);
	ck_assert_uint_eq(pool_layout_limit(SHELF_SIZE_MAX), SHELF_SIZE_MAX);
}
END_TEST

static void check_invariant(const struct pool_shelves *s, uint64_t bytes)
{
	ck_assert_uint_ge(s->n, 1);
	ck_assert_uint_le(s->n, POOL_SHELVES_MAX);
	ck_assert_uint_eq(pool_layout_bytes(s), bytes);
	for (uint32_t i = 0; i < s->n; i++) {
		ck_assert_uint_gt(s->shelf[i].size, 0);
		ck_assert_uint_le(s->shelf[i].size, s->shelf[i].limit);
		ck_assert_uint_le(s->shelf[i].limit, SHELF_SIZE_MAX);
		ck_assert_uint_eq(s->shelf[i].size % MEDIA_PAGE, 0);
		ck_assert_uint_eq(s->shelf[i].limit % UNIT_SIZE, 0);
		if (i + 1 < s->n)
			ck_assert_uint_eq(s->shelf[i].size, s->shelf[i].limit);
	}
}

START_TEST(several_shelves)
{
	struct pool_shelves s;

	pool_layout_create(&s, SHELF_SIZE_MAX + UNIT_SIZE);
	ck_assert_uint_eq(s.n, 2);
	check_invariant(&s, SHELF_SIZE_MAX + UNIT_SIZE);
	pool_layout_create(&s, POOL_SIZE_MAX);
	ck_assert_uint_eq(s.n, POOL_SHELVES_MAX);
	check_invariant(&s, POOL_SIZE_MAX);
}
END_TEST

START_TEST(grow_in_place_then_further)
{
	struct pool_shelves s, t;
	uint32_t first;

	pool_layout_create(&s, 64 * MIB);
	ck_assert_int_eq(pool_layout_grow(&t, &first, &s, 64 * MIB), -EINVAL);
	ck_assert_int_eq(pool_layout_grow(&t, &first, &s, 32 * MIB), -EINVAL);
	ck_assert_int_eq(pool_layout_grow(&t, &first, &s, 128 * MIB), 0);
	ck_assert_uint_eq(first, 0);
	ck_assert_uint_eq(t.n, 1);
	check_invariant(&t, 128 * MIB);
	ck_assert_int_eq(pool_layout_grow(&s, &first, &t, 3 * GIB), 0);
	ck_assert_uint_eq(first, 0);
	ck_assert_uint_eq(s.n, 2);
	check_invariant(&s, 3 * GIB);
	pool_layout_create(&s, POOL_SIZE_MAX);
	ck_assert_int_eq(pool_layout_grow(&t, &first, &s, POOL_SIZE_MAX + UNIT_SIZE), -EINVAL);
}
END_TEST

START_TEST(random_growth)
{
	srandom((unsigned)_i);
	for (int round = 0; round < 200; round++) {
		struct pool_shelves s, t;
		uint64_t bytes = ((uint64_t)random() % (TIB >> UNIT_SHIFT) + 1) << UNIT_SHIFT;
		uint32_t first;

		pool_layout_create(&s, bytes);
		check_invariant(&s, bytes);
		for (int step = 0; step < 8; step++) {
			bytes += ((uint64_t)random() % (2 * TIB >> UNIT_SHIFT) + 1) << UNIT_SHIFT;
			if (pool_layout_grow(&t, &first, &s, bytes) < 0)
				break;
			check_invariant(&t, bytes);
			for (uint32_t i = 0; i < first; i++)
				ck_assert_uint_eq(t.shelf[i].size, s.shelf[i].size);
			for (uint32_t i = 0; i < s.n; i++)
				ck_assert_uint_eq(t.shelf[i].limit, s.shelf[i].limit);
			s = t;
		}
	}
}
END_TEST

START_TEST(file_bytes)
{
	struct pool_record region = { .kind = POOL_REGION }, heap = { .kind = POOL_HEAP };
	struct pool_shelves s;

	pool_layout_create(&s, GIB);
	ck_assert_uint_eq(pool_layout_file_bytes(&region, &s, 0),
			  GIB + sizeof(struct meta_file_df));
	/* What metadata may take: 3 % with blocks of 16 bytes, 1 % with 64. */
	heap.min_block = 16;
	ck_assert_uint_lt(pool_layout_file_bytes(&heap, &s, LANES_FIRST), GIB + GIB * 3 / 100);
	heap.min_block = 64;
	ck_assert_uint_lt(pool_layout_file_bytes(&heap, &s, LANES_FIRST), GIB + GIB / 100);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("pool layout");
	TCase *tc = tcase_create("pool layout");

	tcase_add_test(tc, sizes);
	tcase_add_test(tc, limits);
	tcase_add_test(tc, several_shelves);
	tcase_add_test(tc, grow_in_place_then_further);
	tcase_add_loop_test(tc, random_growth, 1, 6);
	tcase_add_test(tc, file_bytes);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
