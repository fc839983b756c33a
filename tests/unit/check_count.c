/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Counting against a heap of random content, by what the test itself knows of it.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "common/macro.h"
#include "media/count.h"
#include "media/limbo.h"
#include "media/reserve.h"
#include "tests/unit/heap_fixture.h"
#include "tests/unit/suite.h"

#define BLOCKS 4000u

static struct fixture fix;
static struct lane *lane;
static uint64_t ptr[BLOCKS];
static unsigned n;
static uint64_t seed;

static void setup(void)
{
	fixture_init(&fix, 1000, 16);
	lane = fixture_lane(&fix, 1);
	n = 0;
}

static void teardown(void)
{
	lane_free(lane);
	fixture_check(&fix);
	fixture_deinit(&fix);
}

static uint64_t draw(uint64_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (seed >> 33) % below;
}

static uint64_t random_size(void)
{
	switch (draw(10)) {
	case 0:
		return 1 + draw(900000);
	case 1:
	case 2:
		return 1 + draw(100000);
	default:
		return 1 + draw(3000);
	}
}

static uint64_t usable(uint64_t p)
{
	struct span_at at;
	uint32_t index;

	ck_assert_int_eq(heap_block(&fix.heap, p, &at, &index), 0);
	return at.block_size;
}

/* Allocates and frees at random; leaves about `share` tenths of the blocks that fit. */
static void fill(unsigned share)
{
	uint64_t p;

	while (n < BLOCKS && (p = lane_alloc(lane, random_size())) != 0)
		ptr[n++] = p;
	for (unsigned i = 0; i < n;) {
		if (draw(10) < share) {
			i++;
			continue;
		}
		ck_assert_int_eq(lane_dealloc(lane, ptr[i]), 0);
		ptr[i] = ptr[--n];
	}
}

static void expect_sums(const struct heap_totals *t)
{
	uint64_t used = 0, bytes = 0, class_used = 0, spans = 0;

	for (unsigned i = 0; i < n; i++)
		used += usable(ptr[i]);
	ck_assert_uint_eq(t->used, used);
	ck_assert_uint_eq(t->blocks, n);
	ck_assert_uint_eq(t->used + t->free + t->overhead, t->bytes);
	for (unsigned i = 0; i < COUNT_CLASSES; i++) {
		bytes += t->class[i].bytes;
		spans += t->class[i].spans;
		if (i < CLASS_COUNT)
			class_used += t->class[i].used * size_classes[i].size;
	}
	ck_assert_uint_eq(bytes + t->free_units, t->bytes);
	ck_assert_uint_eq(spans, t->spans);
	ck_assert_uint_le(class_used, t->used);
}

/* The largest can be had, one more cannot. */
static void expect_largest(uint64_t largest)
{
	uint64_t more = largest + (largest > CLASS_SIZE_MAX ? UNIT_SIZE : 1), p;

	ck_assert_uint_gt(largest, 0);
	p = lane_alloc(lane, more);
	ck_assert_msg(p == 0, "%llu bytes were to be had, and there are %llu",
		      (unsigned long long)largest, (unsigned long long)more);
	ck_assert_int_eq(lane_error(lane), -ENOSPC);
	p = lane_alloc(lane, largest);
	ck_assert_msg(p != 0, "%llu bytes: %d", (unsigned long long)largest, lane_error(lane));
	ck_assert_int_eq(lane_dealloc(lane, p), 0);
}

START_TEST(random_content)
{
	struct heap_totals t;

	seed = (uint64_t)_i;
	for (unsigned round = 0; round < 4; round++) {
		fill(1 + (unsigned)draw(10));
		ck_assert_int_eq(heap_count(&fix.heap, &t), 0);
		expect_sums(&t);
		expect_largest(t.largest);
	}
}
END_TEST

/*
 * Several lanes: each block is freed by its own, by another, or with delay, or was reserved and is kept so. What
 * others freed is free though nobody has collected it; limbo and what is reserved is not.
 */

#define LANES 3u

struct others {
	struct lane *lane[LANES];
	struct reservations *res;
	uint64_t limbo;
	uint64_t limbo_blocks;
};

static void others_fill(struct others *o)
{
	unsigned reserved = 0;

	while (n < BLOCKS) {
		struct lane *l = o->lane[draw(LANES)];
		uint64_t p = 0;

		if (draw(40) == 0 && reserved < 20) {
			if (lane_reserve(l, o->res, random_size(), &p) < 0)
				break;
			reserved++;
		} else {
			p = lane_alloc(l, random_size());
		}
		if (p == 0)
			break;
		ptr[n++] = p;
	}
}

static void others_defer(struct others *o, struct lane *l, uint64_t p)
{
	uint64_t watch = 0;
	bool wake = false;

	ck_assert_int_eq(lane_defer(l, p, &wake, &watch), 0);
	if (wake)
		lane_deferred(l);
	o->limbo += usable(p);
	o->limbo_blocks++;
}

static void others_free(struct others *o, unsigned share)
{
	uint64_t limbo[BLOCKS];

	for (unsigned i = 0; i < n;) {
		struct lane *l = o->lane[draw(LANES)];

		if (draw(10) < share || reservations_have(o->res, ptr[i])) {
			i++;
			continue;
		}
		if (draw(8) == 0) {
			limbo[o->limbo_blocks] = ptr[i];
			others_defer(o, l, ptr[i]);
		} else {
			ck_assert_int_eq(lane_dealloc(l, ptr[i]), 0);
		}
		ptr[i] = ptr[--n];
	}
	/* They count as allocated. */
	for (uint64_t i = 0; i < o->limbo_blocks; i++)
		ptr[n++] = limbo[i];
}

START_TEST(others)
{
	struct others o = { .limbo = 0 };
	struct heap_totals t;

	seed = (uint64_t)_i + 1000;
	ck_assert_int_eq(reservations_new(&o.res), 0);
	for (unsigned i = 0; i < LANES; i++)
		o.lane[i] = fixture_lane(&fix, 2 + i);
	others_fill(&o);
	others_free(&o, (unsigned)draw(9));
	ck_assert_int_eq(heap_count(&fix.heap, &t), 0);
	expect_sums(&t);
	ck_assert_uint_eq(t.limbo, o.limbo);
	ck_assert_uint_gt(o.limbo_blocks, 0);
	/* For a lane that has nothing: the others' empty spans, and free blocks in their spans, can be had. */
	expect_largest(t.largest);
	for (unsigned i = 0; i < LANES; i++)
		lane_free(o.lane[i]);
	ck_assert_int_eq(heap_count(&fix.heap, &t), 0);
	expect_sums(&t);
	ck_assert_uint_eq(t.limbo, o.limbo);
	reservations_free(o.res);
}
END_TEST

/* Filled to the last byte of some sizes. */
START_TEST(brim)
{
	struct heap_totals t;
	uint64_t p, size = _i == 0 ? 100000 : _i == 1 ? 24 : 300000;

	while (n < BLOCKS && (p = lane_alloc(lane, 300000)) != 0)
		ptr[n++] = p;
	for (; size > 0; size /= 5)
		while (n < BLOCKS && (p = lane_alloc(lane, size)) != 0)
			ptr[n++] = p;
	ck_assert_int_eq(heap_count(&fix.heap, &t), 0);
	expect_sums(&t);
	if (t.largest > 0)
		expect_largest(t.largest);
}
END_TEST

/* The cells of a map add up to the count. */
START_TEST(mapped)
{
	struct heap_cell cells[150];
	struct heap_totals t;

	seed = 42;
	fill(5);
	ck_assert_int_eq(heap_count(&fix.heap, &t), 0);
	for (uint64_t per = 7; per < 2000; per = per * 3 + 1) {
		struct heap_cell sum = { 0 };

		ck_assert_int_eq(heap_map(&fix.heap, 0, per, cells, ARRAY_SIZE(cells)), 0);
		for (unsigned i = 0; i < ARRAY_SIZE(cells); i++) {
			ck_assert_uint_eq(cells[i].units,
					  cells[i].free + cells[i].small + cells[i].large);
			ck_assert_uint_le(cells[i].units, per);
			ck_assert_uint_le(cells[i].used, cells[i].units << UNIT_SHIFT);
			sum.units += cells[i].units;
			sum.free += cells[i].free;
			sum.large += cells[i].large;
			sum.used += cells[i].used;
		}
		ck_assert_uint_eq(sum.units, 1000);
		ck_assert_uint_eq(sum.free << UNIT_SHIFT, t.free_units);
		ck_assert_uint_eq(sum.large << UNIT_SHIFT, t.class[CLASS_COUNT].bytes);
		/* A byte is lost wherever a cell's edge cuts a span. */
		ck_assert_uint_le(sum.used, t.used);
		ck_assert_uint_ge(sum.used + 2 * t.spans + ARRAY_SIZE(cells), t.used);
	}
	ck_assert_int_eq(heap_map(&fix.heap, 990, 100, cells, 2), 0);
	ck_assert_uint_eq(cells[0].units, 10);
	ck_assert_uint_eq(cells[1].units, 0);
	ck_assert_int_eq(heap_map(&fix.heap, 0, 0, cells, 1), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("count");
	TCase *tcase = tcase_create("count");

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_loop_test(tcase, random_content, 0, 30);
	tcase_add_loop_test(tcase, others, 0, 30);
	tcase_add_loop_test(tcase, brim, 0, 3);
	tcase_add_test(tcase, mapped);
	suite_add_tcase(suite, tcase);
	return suite_run(suite);
}
