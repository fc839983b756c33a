/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Space of sparse heaps: reserved before it is used, given back when it is free, and by what is granted, not
 * by how large the heap is.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"
#include "tests/unit/sparse_fixture.h"
#include "tests/unit/suite.h"

#define MIB (UINT64_C(1) << 20)
#define TIB_UNITS ((UINT64_C(1) << 26) - 1) /* the longest shelf */

static struct sparse sparse;

static void teardown(void)
{
	sparse_check(&sparse);
	sparse_deinit(&sparse);
}

static uint64_t must(uint64_t size)
{
	uint64_t ptr = sparse_alloc(&sparse, size);

	ck_assert_msg(ptr != 0, "alloc of %llu: %d", (unsigned long long)size,
		      lane_error(sparse.lane));
	return ptr;
}

static void setup_huge(void)
{
	sparse_init(&sparse, TIB_UNITS, TIB_UNITS);
}

START_TEST(huge_and_empty)
{
	struct heap_totals t;

	/* Header pages, the granule map, one granule. */
	ck_assert_uint_le(sparse_data(&sparse) + sparse_meta(&sparse), MIB);
	ck_assert_int_eq(heap_count(&sparse.heap, &t), 0);
	ck_assert_uint_eq(t.free, TIB_UNITS << UNIT_SHIFT);
	ck_assert_uint_eq(t.largest, TIB_UNITS << UNIT_SHIFT);
	sparse_reload(&sparse, true);
	ck_assert_uint_le(sparse_data(&sparse) + sparse_meta(&sparse), MIB);
}
END_TEST

START_TEST(huge_and_used)
{
	uint64_t ptr[600], kept;
	unsigned n = 0;

	kept = must(100000);
	memset(sparse_at(&sparse, kept), 0x5a, 100000);
	for (unsigned i = 0; i < 400; i++)
		ptr[n++] = must(16 + i * 331);
	for (unsigned i = 0; i < 8; i++)
		ptr[n++] = must(3 * MIB + i * 20000);
	sparse_check(&sparse);
	ck_assert_uint_ge(sparse_data(&sparse), 50 * MIB);
	ck_assert_uint_le(sparse_data(&sparse), 200 * MIB);
	while (n > 0)
		ck_assert_int_eq(lane_dealloc(sparse.lane, ptr[--n]), 0);
	lane_release(sparse.lane);
	ck_assert_uint_ge(sparse_trim(&sparse), 50 * MIB);
	ck_assert_uint_le(sparse_data(&sparse), 8 * MIB);
	ck_assert_uint_eq(sparse_trim(&sparse), 0);
	for (unsigned i = 0; i < 100000; i++)
		if (((unsigned char *)sparse_at(&sparse, kept))[i] != 0x5a)
			ck_abort_msg("byte %u of a block was given back", i);
	sparse_check(&sparse);
	ptr[0] = must(5 * MIB);
	for (unsigned i = 0; i < 5 * MIB; i++)
		if (((char *)sparse_at(&sparse, ptr[0]))[i] != (i % MEDIA_PAGE == 0))
			ck_abort_msg("byte %u of a new block does not read zero", i);
}
END_TEST

/* A block at the far end, and words of units between that were never granted. */
START_TEST(far_apart)
{
	uint64_t most = (TIB_UNITS - 4096) << UNIT_SHIFT, far, ref;
	struct span_at at;
	uint32_t index;

	/* The room for a block of almost all is found, its space cannot be had. */
	sparse.allowed = 64 * MIB;
	ck_assert_int_eq(grant_run(sparse.grant, most >> UNIT_SHIFT, 1, &ref), -ENOSPC);
	sparse_check(&sparse);
	sparse.allowed = UINT64_MAX;
	far = must(100);
	for (uint64_t unit = 5000; unit < TIB_UNITS; unit = unit * 3 + 1)
		ck_assert_int_eq(heap_block(&sparse.heap, far - (far & ((UINT64_C(1) << 40) - 1)) +
							  (unit << UNIT_SHIFT), &at, &index),
				 -EINVAL);
}
END_TEST

static void setup_small(void)
{
	sparse_init(&sparse, 8192, 16384); /* 128 MiB of 256 */
}

START_TEST(shortage)
{
	uint64_t ptr[2000], ref;
	unsigned n = 0;

	sparse.allowed = 10 * MIB;
	while (n < ARRAY_SIZE(ptr) && (ptr[n] = sparse_alloc(&sparse, 60000)) != 0)
		n++;
	ck_assert_int_eq(lane_error(sparse.lane), -ENOSPC);
	ck_assert_uint_ge(n * UINT64_C(60000), 8 * MIB);
	ck_assert_uint_le(sparse_data(&sparse), 10 * MIB);
	ck_assert_int_eq(grant_run(sparse.grant, 2048, 1, &ref), -ENOSPC);
	sparse_check(&sparse);
	/* A block that was freed can be had again; and with more allowance, more. */
	ck_assert_int_eq(lane_dealloc(sparse.lane, ptr[--n]), 0);
	ck_assert_uint_ne(ptr[n++] = sparse_alloc(&sparse, 60000), 0);
	ck_assert_uint_eq(sparse_alloc(&sparse, 60000), 0);
	sparse.allowed = 50 * MIB;
	ck_assert_uint_ne(sparse_alloc(&sparse, 60000), 0);
}
END_TEST

START_TEST(wishes)
{
	uint64_t big = must(70 * MIB);

	ck_assert_uint_eq(sparse.wishes, 1);
	ck_assert_int_eq(lane_dealloc(sparse.lane, big), 0);
	lane_release(sparse.lane);
	ck_assert_uint_ge(sparse_trim(&sparse), 70 * MIB);
	big = must(10 * MIB);
	ck_assert_uint_eq(sparse.wishes, 1);
}
END_TEST

/* What is wished for is not given back, what lies around it is. */
START_TEST(wish_and_trim)
{
	uint64_t big = must(100 * MIB), ref;
	struct grant_wish wish;

	ck_assert_int_eq(lane_dealloc(sparse.lane, big), 0);
	lane_release(sparse.lane);
	sparse_trim(&sparse);
	ck_assert_int_eq(grant_run(sparse.grant, 4096, 1, &ref), -EINPROGRESS);
	ck_assert(grant_wished(sparse.grant, &wish));
	grant_wish_begin(sparse.grant, &wish);
	ck_assert_int_eq(grant_wish_run(&wish), 0);
	ck_assert_uint_eq(sparse_trim(&sparse), 0);
	ck_assert_uint_ge(sparse_data(&sparse), 64 * MIB);
	grant_wish_end(sparse.grant, &wish);
	ck_assert_uint_eq(sparse_trim(&sparse), 64 * MIB);
	/* And without a trim between, the wish is what the next grant gets. */
	ck_assert_int_eq(grant_run(sparse.grant, 4096, 1, &ref), -EINPROGRESS);
	ck_assert(grant_wished(sparse.grant, &wish));
	grant_wish_begin(sparse.grant, &wish);
	ck_assert_int_eq(grant_wish_run(&wish), 0);
	grant_wish_end(sparse.grant, &wish);
	ck_assert_int_eq(grant_run(sparse.grant, 4096, 1, &ref), 0);
}
END_TEST

START_TEST(reloaded)
{
	uint64_t ptr[100];
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(ptr); i++)
		ptr[n++] = must(i % 3 ? 40000 : 700000);
	for (unsigned i = 0; i < n; i += 2)
		ck_assert_int_eq(lane_dealloc(sparse.lane, ptr[i]), 0);
	lane_release(sparse.lane);
	sparse_trim(&sparse);
	sparse_reload(&sparse, true);
	ck_assert_int_eq(grant_space_clear(sparse.grant), 0);
	sparse_check(&sparse);
	for (unsigned i = 1; i < n; i += 2)
		ck_assert_int_eq(((char *)sparse_at(&sparse, ptr[i]))[0], 1);
	while (sparse_alloc(&sparse, 500000) != 0)
		;
	while (sparse_alloc(&sparse, 1000) != 0)
		;
	ck_assert_int_eq(lane_error(sparse.lane), -ENOSPC);
}
END_TEST

START_TEST(grown)
{
	while (sparse_alloc(&sparse, 4 * MIB) != 0)
		;
	while (sparse_alloc(&sparse, 100) != 0)
		;
	heap_shelf_grow(&sparse.heap, &sparse.shelf, 16384);
	ck_assert_int_eq(grant_grow(sparse.grant, 0, 8192, 16384), 0);
	for (unsigned i = 0; i < 30; i++)
		must(4 * MIB);
	while (sparse_alloc(&sparse, 3000) != 0)
		;
}
END_TEST

/* The block around an address inside of a large one is found without a look at what is not reserved. */
START_TEST(inside_of_large)
{
	uint64_t ptr = must(100 * MIB), free_one = ptr + 300 * MIB, before = sparse_meta(&sparse);
	struct span_at at;
	uint32_t index;

	for (uint64_t at_mib = 0; at_mib < 100; at_mib += 7) {
		ck_assert_int_eq(heap_block_around(&sparse.heap, ptr + at_mib * MIB, &at, &index), 0);
		ck_assert_uint_eq(at.block_size, 100 * MIB);
		ck_assert_uint_eq(at.ref, ref_of_ptr(ptr));
	}
	ck_assert_int_eq(heap_block_around(&sparse.heap, free_one, &at, &index), -EINVAL);
	ck_assert_uint_eq(sparse_meta(&sparse), before);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("backing");
	TCase *huge = tcase_create("huge"), *small = tcase_create("small");

	tcase_add_checked_fixture(huge, setup_huge, teardown);
	tcase_add_test(huge, huge_and_empty);
	tcase_add_test(huge, huge_and_used);
	tcase_add_test(huge, far_apart);
	tcase_add_test(huge, inside_of_large);
	tcase_add_checked_fixture(small, setup_small, teardown);
	tcase_add_test(small, shortage);
	tcase_add_test(small, wishes);
	tcase_add_test(small, wish_and_trim);
	tcase_add_test(small, reloaded);
	tcase_add_test(small, grown);
	suite_add_tcase(suite, huge);
	suite_add_tcase(suite, small);
	return suite_run(suite);
}
