/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Size classes: every size, every offset.
 */
#include <check.h>
#include <stdlib.h>

#include "media/class.h"
#include "media/format.h"
#include "media/span.h"
#include "tests/unit/suite.h"

START_TEST(smallest_class_that_holds)
{
	for (uint32_t size = 1; size <= CLASS_SIZE_MAX; size++) {
		unsigned c = class_of(size);

		ck_assert_uint_lt(c, CLASS_COUNT);
		ck_assert_uint_ge(size_classes[c].size, size);
		if (c > 0)
			ck_assert_uint_lt(size_classes[c - 1].size, size);
		if (size % 16 == 0)
			ck_assert_uint_eq(size_classes[c].size % 16, 0);
	}
}
END_TEST

START_TEST(classes_are_close)
{
	for (unsigned c = 3; c < CLASS_COUNT; c++) {
		uint64_t below = size_classes[c - 1].size, here = size_classes[c].size;

		ck_assert_uint_le((here - below) * 4, below);
	}
	for (uint32_t size = 16; size <= CLASS_SIZE_MAX; size *= 2)
		ck_assert_uint_eq(size_classes[class_of(size)].size, size);
}
END_TEST

/* Of every class and every byte of the longest span: which block it lies in, and whether that begins there. */
START_TEST(index_is_exact)
{
	for (unsigned c = 0; c < CLASS_COUNT; c++) {
		uint64_t size = size_classes[c].size, index = 0, rest = 0, wrong = 0;

		for (uint64_t offset = 0; offset <= CLASS_SPAN_UNITS_MAX * UNIT_SIZE; offset++) {
			bool start;

			wrong += recip_index(size_classes[c].recip, offset, &start) != index;
			wrong += start != (rest == 0);
			if (++rest == size) {
				rest = 0;
				index++;
			}
		}
		ck_assert_msg(wrong == 0, "class %u: %llu wrong", c, (unsigned long long)wrong);
		ck_assert_uint_eq(class_index(c, size * 7 - 1), 6);
	}
}
END_TEST

START_TEST(spans_waste_little)
{
	static const uint32_t mins[] = { 16, 32, 64, 128, 256 };

	for (unsigned m = 0; m < 5; m++) {
		uint32_t bits = (uint32_t)UNIT_SIZE / mins[m];

		for (unsigned c = class_of(mins[m]); c < CLASS_COUNT; c++) {
			uint32_t units = class_span_units(c, bits, 64);
			uint32_t blocks = class_span_blocks(c, units, bits);
			uint64_t used = blocks * size_classes[c].size;

			ck_assert_uint_le(blocks, bits);
			ck_assert_uint_gt(blocks, 0);
			ck_assert_uint_le(used, units * UNIT_SIZE);
			ck_assert_uint_le((units * UNIT_SIZE - used) * 64, units * UNIT_SIZE);
		}
	}
}
END_TEST

START_TEST(metadata_is_small)
{
	struct state_layout l;

	ck_assert_int_eq(state_layout_init(&l, 16), 0);
	ck_assert_uint_le((l.stride + sizeof(m64)) * 100, 3 * UNIT_SIZE);
	ck_assert_int_eq(state_layout_init(&l, 64), 0);
	ck_assert_uint_le((l.stride + sizeof(m64)) * 100, UNIT_SIZE);
	ck_assert_int_lt(state_layout_init(&l, 0), 0);
	ck_assert_int_lt(state_layout_init(&l, 24), 0);
	ck_assert_int_lt(state_layout_init(&l, 512), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("class");
	TCase *t = tcase_create("class");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, smallest_class_that_holds);
	tcase_add_test(t, classes_are_close);
	tcase_add_test(t, index_is_exact);
	tcase_add_test(t, spans_waste_little);
	tcase_add_test(t, metadata_is_small);
	suite_add_tcase(s, t);
	return suite_run(s);
}
