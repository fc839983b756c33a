/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The allocator of a thread against a grant: sizes, errors, exhaustion, foreign frees, death.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "media/lane_private.h"
#include "tests/unit/heap_fixture.h"
#include "tests/unit/suite.h"

static struct fixture fix;

static void setup(void)
{
	fixture_init(&fix, 1024, 16); /* 16 MiB */
}

static void teardown(void)
{
	fixture_check(&fix);
	fixture_deinit(&fix);
}

static uint64_t must_alloc(struct lane *lane, size_t size)
{
	uint64_t ptr = lane_alloc(lane, size);

	ck_assert_msg(ptr != 0, "alloc of %zu: %d", size, lane_error(lane));
	return ptr;
}

static int ptr_order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* As a reservation is allocated, but that it is not remembered. */
static int lane_alloc_slow(struct lane *lane, size_t size, uint64_t *ret)
{
	int r = lane_enter(lane);

	if (r < 0)
		return r;
	r = lane_alloc_entered(lane, size, ret);
	lane_leave(lane);
	return r;
}

START_TEST(all_sizes)
{
	struct lane *lane = fixture_lane(&fix, 3);

	for (size_t size = 1; size < 1 << 20; size += 1 + size / 7) {
		uint64_t a = must_alloc(lane, size), b = must_alloc(lane, size);
		struct span_at at;
		uint32_t index;

		ck_assert_int_eq(heap_block(&fix.heap, a, &at, &index), 0);
		ck_assert_uint_ge(at.block_size, size);
		memset(fixture_at(&fix, a), 1, at.block_size);
		memset(fixture_at(&fix, b), 2, at.block_size);
		for (size_t i = 0; i < at.block_size; i++)
			ck_assert_int_eq(((char *)fixture_at(&fix, a))[i], 1);
		ck_assert_int_eq(lane_dealloc(lane, a), 0);
		ck_assert_int_eq(lane_dealloc(lane, b), 0);
		fixture_check(&fix);
	}
	fixture_expect_used(&fix, 0);
	lane_free(lane);
}
END_TEST

/* At every alignment: where it should be, whole, found by its start, given back. */
START_TEST(aligned)
{
	static const size_t sizes[] = { 1, 16, 24, 100, 1000, 5000, 16384, 40000, 131072, 200000 };
	struct lane *lane = fixture_lane(&fix, 3), *other = fixture_lane(&fix, 4);

	for (size_t align = 1; align <= LANE_ALIGN_MAX; align *= 2)
		for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
			uint64_t a = lane_alloc_aligned(lane, align, sizes[i]);
			uint64_t b = lane_alloc_aligned(lane, align, sizes[i]);
			struct span_at at;
			uint32_t index;

			ck_assert_msg(a && b, "align %zu size %zu: %d", align, sizes[i],
				      lane_error(lane));
			ck_assert_uint_eq(a % align, 0);
			ck_assert_uint_eq(b % align, 0);
			ck_assert_int_eq(heap_block(&fix.heap, a, &at, &index), 0);
			ck_assert_uint_ge(at.block_size, sizes[i]);
			memset(fixture_at(&fix, a), 1, at.block_size);
			memset(fixture_at(&fix, b), 2, at.block_size);
			ck_assert_int_eq(((char *)fixture_at(&fix, a))[at.block_size - 1], 1);
			ck_assert_int_eq(lane_dealloc(lane, a), 0);
			ck_assert_int_eq(lane_dealloc(other, b), 0);
			fixture_check(&fix);
		}
	ck_assert_uint_eq(lane_alloc_aligned(lane, LANE_ALIGN_MAX * 2, 1), 0);
	ck_assert_int_eq(lane_error(lane), -EINVAL);
	ck_assert_uint_eq(lane_alloc_aligned(lane, 3, 1), 0);
	ck_assert_uint_eq(lane_alloc_aligned(lane, 0, 1), 0);
	ck_assert_uint_eq(lane_alloc_aligned(lane, 16, 0), 0);
	fixture_expect_used(&fix, 0);
	lane_free(other);
	lane_free(lane);
	fixture_reload(&fix);
	fixture_check(&fix);
	ck_assert_int_eq(grant_run(fix.grant, 1024, 1, &(uint64_t){ 0 }), 0);
}
END_TEST

START_TEST(wrong_pointers)
{
	struct lane *lane = fixture_lane(&fix, 0);
	uint64_t a, big;

	/* Of a lane that has seen no block yet. */
	ck_assert_int_eq(lane_dealloc(lane, 0), -EINVAL);
	ck_assert_int_eq(lane_dealloc(lane, 16), -EINVAL);
	a = must_alloc(lane, 100);
	big = must_alloc(lane, 1 << 20);
	ck_assert_int_eq(lane_dealloc(lane, a + 16), -EINVAL);
	ck_assert_int_eq(lane_dealloc(lane, a ^ (UINT64_C(1) << 48)), -EINVAL);
	ck_assert_int_eq(lane_dealloc(lane, a | (UINT64_C(1) << 40)), -EINVAL);
	ck_assert_int_eq(lane_dealloc(lane, big + UNIT_SIZE), -EINVAL);
	ck_assert_int_eq(lane_dealloc(lane, big + 16), -EINVAL);
	ck_assert_int_eq(lane_dealloc(lane, (UINT64_C(7) << 48) | (1023 << UNIT_SHIFT)), -EINVAL);
	ck_assert_int_eq(lane_dealloc(lane, (UINT64_C(7) << 48) | (UINT64_C(5) << 30)), -EINVAL);
	ck_assert_int_eq(lane_dealloc(lane, a), 0);
	ck_assert_int_eq(lane_dealloc(lane, a), -EALREADY);
	ck_assert_int_eq(lane_dealloc(lane, big), 0);
	ck_assert_int_eq(lane_dealloc(lane, big), -EALREADY);
	ck_assert_uint_eq(lane_alloc(lane, 0), 0);
	ck_assert_int_eq(lane_error(lane), -EINVAL);
	ck_assert_uint_eq(lane_alloc(lane, SIZE_MAX), 0);
	ck_assert_int_eq(lane_error(lane), -EINVAL);
	lane_free(lane);
}
END_TEST

/* Fills the heap with blocks of `size`; returns how many, their pointers in *ret. */
static size_t fill(struct lane *lane, size_t size, uint64_t **ret)
{
	size_t n = 0, room = (16 << 20) / size + 1;
	uint64_t *ptrs = calloc(room, sizeof(*ptrs));

	ck_assert_ptr_nonnull(ptrs);
	while ((ptrs[n] = lane_alloc(lane, size)))
		ck_assert_uint_lt(++n, room);
	ck_assert_int_eq(lane_error(lane), -ENOSPC);
	*ret = ptrs;
	return n;
}

START_TEST(full_then_free_then_full)
{
	static const size_t sizes[] = { 16, 64, 100, 1000, 5000, 70000, 200000 };
	struct lane *lane = fixture_lane(&fix, 1);

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		uint64_t *ptrs;
		size_t n = fill(lane, sizes[i], &ptrs);

		ck_assert_uint_ge(n * sizes[i] * 100, (uint64_t)(16 << 20) * 75);
		ck_assert_int_eq(lane_dealloc(lane, ptrs[n / 2]), 0);
		ptrs[n / 2] = must_alloc(lane, sizes[i]);
		for (size_t k = 0; k < n; k++)
			ck_assert_int_eq(lane_dealloc(lane, ptrs[k]), 0);
		fixture_expect_used(&fix, 0);
		fixture_check(&fix);
		free(ptrs);
	}
	lane_free(lane);
}
END_TEST

START_TEST(whole_heap_comes_back)
{
	struct lane *lane = fixture_lane(&fix, 1);
	uint64_t *ptrs, big;
	size_t n = fill(lane, 48, &ptrs);

	for (size_t k = 0; k < n; k++)
		ck_assert_int_eq(lane_dealloc(lane, ptrs[k]), 0);
	free(ptrs);
	big = must_alloc(lane, 1024 * UNIT_SIZE);
	ck_assert_int_eq(lane_dealloc(lane, big), 0);
	lane_free(lane);
}
END_TEST

START_TEST(freed_by_another)
{
	struct lane *producer = fixture_lane(&fix, 1), *consumer = fixture_lane(&fix, 2);
	uint64_t *ptrs, big;
	size_t n = fill(producer, 256, &ptrs);

	/* The producer sleeps from here on: nothing may be stuck with it. */
	for (size_t k = 0; k < n; k++)
		ck_assert_int_eq(lane_dealloc(consumer, ptrs[k]), 0);
	for (size_t k = 0; k < n; k += 97)
		ck_assert_int_eq(lane_dealloc(consumer, ptrs[k]), -EALREADY);
	free(ptrs);
	fixture_expect_used(&fix, 0);
	big = must_alloc(consumer, 15 << 20);
	ck_assert_int_eq(lane_dealloc(consumer, big), 0);
	lane_free(consumer);
	lane_free(producer);
}
END_TEST

/* What is remembered of another's units is of no use any more once they are of another class. */
START_TEST(units_change_their_class)
{
	static const size_t sizes[] = { 64, 1000, 64, 70000, 48 };
	struct lane *producer = fixture_lane(&fix, 1), *consumer = fixture_lane(&fix, 2);

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		uint64_t *ptrs;
		size_t n = fill(producer, sizes[i], &ptrs);

		for (size_t k = 0; k < n; k++) {
			ck_assert_int_eq(lane_dealloc(consumer, ptrs[k] + 8), -EINVAL);
			ck_assert_int_eq(lane_dealloc(consumer, ptrs[k]), 0);
			ck_assert_int_eq(lane_dealloc(consumer, ptrs[k]), -EALREADY);
		}
		fixture_expect_used(&fix, 0);
		fixture_check(&fix);
		free(ptrs);
	}
	lane_free(consumer);
	lane_free(producer);
}
END_TEST

/* Of full spans: the word that is freed into is the one that is allocated from. */
START_TEST(what_was_freed_is_given_next)
{
	struct lane *lane = fixture_lane(&fix, 1);
	uint64_t *ptrs;
	size_t n = fill(lane, 64, &ptrs);

	for (size_t k = 0; k < n; k += 61) {
		ck_assert_int_eq(lane_dealloc(lane, ptrs[k]), 0);
		ck_assert_int_eq(lane_dealloc(lane, ptrs[k]), -EALREADY);
		ck_assert_uint_eq(must_alloc(lane, 64), ptrs[k]);
	}
	/* The same of several at a time: none is lost from sight. */
	for (size_t k = 0; k < n; k += 61)
		ck_assert_int_eq(lane_dealloc(lane, ptrs[k]), 0);
	for (size_t k = 0; k < n; k += 61)
		ck_assert_uint_ne(lane_alloc(lane, 64), 0);
	ck_assert_uint_eq(lane_alloc(lane, 64), 0);
	fixture_check(&fix);
	free(ptrs);
	lane_free(lane);
}
END_TEST

/* Of many that were freed the class remembers some; none is lost, none given twice, whatever was freed or given in
 * other ways between. */
START_TEST(recent_blocks_are_hints)
{
	struct lane *lane = fixture_lane(&fix, 1);
	uint64_t a[200], b[200];

	for (size_t i = 0; i < 200; i++)
		a[i] = must_alloc(lane, 64);
	for (size_t i = 0; i < 10; i++)
		ck_assert_int_eq(lane_dealloc(lane, a[i]), 0);
	for (size_t i = 10; i-- > 0;)
		ck_assert_uint_eq(must_alloc(lane, 64), a[i]);
	for (size_t i = 0; i < 200; i += 2)
		ck_assert_int_eq(lane_dealloc(lane, a[i]), 0);
	for (size_t i = 0; i < 200; i += 2)
		ck_assert_int_eq(lane_dealloc(lane, a[i]), -EALREADY);
	/* Not by the fast path: from the current word. */
	for (size_t i = 0; i < 50; i++)
		ck_assert_int_eq(lane_alloc_slow(lane, 64, &b[i]), 0);
	for (size_t i = 50; i < 100; i++)
		b[i] = must_alloc(lane, 64);
	qsort(b, 100, sizeof(*b), ptr_order);
	for (size_t i = 1; i < 100; i++)
		ck_assert_uint_ne(b[i - 1], b[i]);
	fixture_expect_used(&fix, 200 * 64);
	lane_free(lane);
}
END_TEST

/* A span that is given up is not allocated from any more, though blocks of it were freed last. */
START_TEST(recent_blocks_of_a_released_span)
{
	struct lane *lane = fixture_lane(&fix, 1);
	uint64_t a[1000];

	for (size_t i = 0; i < 1000; i++)
		a[i] = must_alloc(lane, 64);
	for (size_t i = 0; i < 1000; i += 3)
		ck_assert_int_eq(lane_dealloc(lane, a[i]), 0);
	lane_release(lane);
	for (size_t i = 0; i < 500; i++) {
		uint64_t ptr = must_alloc(lane, 64);
		const struct owned *o = owned_near(lane, ptr);

		ck_assert_uint_lt(ptr - o->base, o->bytes);
	}
	fixture_check(&fix);
	lane_free(lane);
}
END_TEST

START_TEST(death_gives_spans_back)
{
	struct lane *dead = fixture_lane(&fix, 9), *other = fixture_lane(&fix, 10);
	uint64_t kept = must_alloc(dead, 64), freed = must_alloc(dead, 64), big;

	ck_assert_int_eq(lane_dealloc(other, freed), 0);
	lane_forget(dead);
	ck_assert_int_eq(grant_settle(fix.grant, 9), 0);
	fixture_expect_used(&fix, 64);
	/* Its span is adopted by the next who needs one of the class. */
	big = must_alloc(other, 64);
	ck_assert_uint_eq(big >> UNIT_SHIFT, kept >> UNIT_SHIFT);
	ck_assert_int_eq(lane_dealloc(other, kept), 0);
	ck_assert_int_eq(lane_dealloc(other, big), 0);
	lane_free(other);
	fixture_expect_used(&fix, 0);
	ck_assert_int_ge(grant_trim(fix.grant), 0);
	ck_assert_int_eq(grant_run(fix.grant, 1024, 1, &big), 0);
}
END_TEST

/* A daemon that grants a run, takes it back before its asker claims it, and grants a shorter one there. */
static int slow_reply(void *ctx, uint64_t units, uint64_t align, uint64_t *ref)
{
	static bool done;
	struct fixture *f = ctx;
	uint64_t shorter;
	int r = grant_run(f->grant, units, align, ref);

	if (r == 0 && !done) {
		done = true;
		ck_assert_int_eq(grant_trim(f->grant), (int64_t)(units << UNIT_SHIFT));
		ck_assert_int_eq(grant_run(f->grant, units / 2, 1, &shorter), 0);
		ck_assert_uint_eq(shorter, *ref);
	}
	return r;
}

START_TEST(a_run_is_as_long_as_asked)
{
	static const struct lane_source slow = { .run = slow_reply };
	struct lane *lane = NULL;
	struct span_at at;
	uint32_t index;
	uint64_t ptr;

	ck_assert_int_eq(lane_new(&lane, &fix.heap, 1, &slow, &fix), 0);
	ptr = must_alloc(lane, 20 * UNIT_SIZE);
	ck_assert_int_eq(heap_block(&fix.heap, ptr, &at, &index), 0);
	ck_assert_uint_ge(at.block_size, 20 * UNIT_SIZE);
	ck_assert_int_eq(lane_dealloc(lane, ptr), 0);
	lane_free(lane);
}
END_TEST

/* Taking and giving back large blocks asks the daemon once; what is kept is bounded, suits what is asked, and
 * is another's when room is short. */
START_TEST(large_blocks_are_kept)
{
	struct lane *lane = fixture_lane(&fix, 1), *other = fixture_lane(&fix, 2);
	uint64_t ptr[40], a, b, before;
	unsigned calls;
	struct span_at at;
	uint32_t index;

	a = must_alloc(lane, 20 * UNIT_SIZE);
	calls = fix.calls;
	for (int i = 0; i < 1000; i++) {
		ck_assert_int_eq(lane_dealloc(lane, a), 0);
		ck_assert_int_eq(lane_dealloc(lane, a), -EALREADY);
		ck_assert_int_eq(lane_dealloc(other, a), -EALREADY);
		/* A little smaller is as good; */
		b = must_alloc(lane, (i % 2 ? 18 : 20) * UNIT_SIZE);
		ck_assert_uint_eq(a, b);
		/* and it is a block as any other. */
		ck_assert_int_eq(heap_block(&fix.heap, a, &at, &index), 0);
		ck_assert_uint_eq(at.block_size, 20 * UNIT_SIZE);
		fixture_expect_used(&fix, 20 * UNIT_SIZE);
	}
	ck_assert_uint_eq(fix.calls, calls);
	ck_assert_int_eq(lane_dealloc(other, a), 0);
	/* Much smaller is not. */
	b = must_alloc(other, 10 * UNIT_SIZE);
	ck_assert_uint_ne(a, b);
	ck_assert_int_eq(lane_dealloc(other, b), 0);
	for (unsigned i = 0; i < 40; i++)
		ptr[i] = must_alloc(lane, 10 * UNIT_SIZE);
	for (unsigned i = 0; i < 40; i++)
		ck_assert_int_eq(lane_dealloc(lane, ptr[i]), 0);
	fixture_expect_used(&fix, 0);
	fixture_check(&fix);
	/* 1/32 of 16 MiB, each. */
	before = (uint64_t)grant_trim(fix.grant);
	ck_assert_uint_ge(before, (40 * 10 - 32) * UNIT_SIZE);
	a = must_alloc(other, 1024 * UNIT_SIZE);
	ck_assert_int_eq(lane_dealloc(lane, a), 0);
	lane_free(other);
	lane_free(lane);
	fixture_expect_used(&fix, 0);
}
END_TEST

/* What an idle thread holds is had by others before the heap is full, and it goes on afterwards. */
START_TEST(idle_lanes_are_revoked)
{
	struct lane *idle = fixture_lane(&fix, 1), *busy = fixture_lane(&fix, 2);
	uint64_t kept[40], *ptrs, big;
	size_t n;

	for (unsigned i = 0; i < 40; i++)
		kept[i] = must_alloc(idle, 16 + i * 200);
	for (unsigned i = 1; i < 40; i++)
		ck_assert_int_eq(lane_dealloc(idle, kept[i]), 0);
	big = must_alloc(busy, 1020 * UNIT_SIZE);
	ck_assert_int_eq(lane_dealloc(busy, big), 0);
	fixture_check(&fix);
	/* Without its spans, but with what it had allocated. */
	ck_assert_int_eq(lane_dealloc(idle, kept[2]), -EINVAL);
	kept[1] = must_alloc(idle, 16);
	ck_assert_uint_ne(kept[1], kept[0]);
	ck_assert_int_eq(lane_dealloc(idle, kept[0]), 0);
	ck_assert_int_eq(lane_dealloc(idle, kept[1]), 0);
	n = fill(busy, 16, &ptrs);
	ck_assert_uint_eq(n, (16 << 20) / 16);
	for (size_t k = 0; k < n; k++)
		ck_assert_int_eq(lane_dealloc(idle, ptrs[k]), 0);
	free(ptrs);
	lane_free(idle);
	lane_free(busy);
	fixture_expect_used(&fix, 0);
}
END_TEST

/* A lane that was settled under its user, and given to another, is the other's alone. */
START_TEST(settled_under_its_user)
{
	struct lane *old = fixture_lane(&fix, 1), *new;
	uint64_t a = must_alloc(old, 64), b, c;

	ck_assert_int_eq(lane_dealloc(old, must_alloc(old, 64)), 0);
	ck_assert_int_eq(grant_settle(fix.grant, 1), 0);
	new = fixture_lane(&fix, 1);
	b = must_alloc(new, 64);
	ck_assert_uint_eq(lane_alloc(old, 64), 0);
	ck_assert_int_eq(lane_error(old), -ESTALE);
	ck_assert_int_eq(lane_dealloc(old, a), -ESTALE);
	ck_assert_uint_eq(lane_alloc(old, 1 << 20), 0);
	ck_assert_int_eq(lane_error(old), -ESTALE);
	lane_free(old);
	c = must_alloc(new, 64);
	ck_assert_uint_ne(c, b);
	ck_assert_uint_ne(c, a);
	ck_assert_int_eq(lane_dealloc(new, a), 0);
	ck_assert_int_eq(lane_dealloc(new, b), 0);
	ck_assert_int_eq(lane_dealloc(new, c), 0);
	lane_free(new);
	fixture_expect_used(&fix, 0);
}
END_TEST

START_TEST(reload_keeps_the_living)
{
	struct lane *alive = fixture_lane(&fix, 1), *dead = fixture_lane(&fix, 2);
	uint64_t a = must_alloc(alive, 64), d = must_alloc(dead, 64), b;

	fix.alive[2] = false;
	lane_forget(dead);
	fixture_reload(&fix);
	fixture_check(&fix);
	b = must_alloc(alive, 64);
	ck_assert_uint_ne(b, a);
	ck_assert_uint_ne(b, d);
	ck_assert_int_eq(lane_dealloc(alive, d), 0);
	ck_assert_int_eq(lane_dealloc(alive, a), 0);
	ck_assert_int_eq(lane_dealloc(alive, b), 0);
	lane_free(alive);
	fixture_expect_used(&fix, 0);
}
END_TEST

START_TEST(second_shelf)
{
	struct lane *lane = fixture_lane(&fix, 1);
	uint64_t *ptrs, *more;
	size_t n = fill(lane, 4096, &ptrs), m;

	fixture_second_shelf(&fix, 1024);
	m = fill(lane, 4096, &more);
	ck_assert_uint_ge(m * 100, n * 90);
	for (size_t k = 0; k < n; k++)
		ck_assert_int_eq(lane_dealloc(lane, ptrs[k]), 0);
	for (size_t k = 0; k < m; k++)
		ck_assert_int_eq(lane_dealloc(lane, more[k]), 0);
	free(ptrs);
	free(more);
	lane_free(lane);
	fixture_expect_used(&fix, 0);
}
END_TEST

START_TEST(a_rotten_table_is_refused)
{
	struct lane *lane = fixture_lane(&fix, 1), *other = fixture_lane(&fix, 2);
	uint64_t a = must_alloc(lane, 64);
	struct grant_lanes lanes = { 0 };
	uint64_t *word = (uint64_t *)(void *)fix.shelf[0].table, kept = word[0], where = 0;
	struct grant *g = NULL;
	const char *why = NULL;

	word[0] = 0x7;
	ck_assert_int_eq(lane_dealloc(other, a), -EINVAL);
	ck_assert_int_eq(grant_new(&g, &fix.heap, &lanes, &why, &where), -EUCLEAN);
	ck_assert_ptr_null(g);
	ck_assert_ptr_nonnull(why);
	ck_assert_uint_eq(where, ref_make(0, 0));
	word[0] = span_pack((struct span){ .kind = SPAN_LARGE, .length = 1025 });
	ck_assert_int_eq(grant_new(&g, &fix.heap, &lanes, &why, &where), -EUCLEAN);
	word[0] = kept;
	ck_assert_int_eq(lane_dealloc(lane, a), 0);
	lane_free(lane);
	lane_free(other);
}
END_TEST

START_TEST(few_round_trips)
{
	struct lane *lane = fixture_lane(&fix, 1);

	for (int i = 0; i < 100000; i++)
		(void)must_alloc(lane, 64);
	/* 390 spans: the batches grow. */
	ck_assert_uint_lt(fix.calls, 60);
	lane_free(lane);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lane");
	TCase *t = tcase_create("lane");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, all_sizes);
	tcase_add_test(t, aligned);
	tcase_add_test(t, wrong_pointers);
	tcase_add_test(t, full_then_free_then_full);
	tcase_add_test(t, whole_heap_comes_back);
	tcase_add_test(t, freed_by_another);
	tcase_add_test(t, units_change_their_class);
	tcase_add_test(t, what_was_freed_is_given_next);
	tcase_add_test(t, recent_blocks_are_hints);
	tcase_add_test(t, recent_blocks_of_a_released_span);
	tcase_add_test(t, death_gives_spans_back);
	tcase_add_test(t, a_run_is_as_long_as_asked);
	tcase_add_test(t, large_blocks_are_kept);
	tcase_add_test(t, idle_lanes_are_revoked);
	tcase_add_test(t, settled_under_its_user);
	tcase_add_test(t, reload_keeps_the_living);
	tcase_add_test(t, second_shelf);
	tcase_add_test(t, a_rotten_table_is_refused);
	tcase_add_test(t, few_round_trips);
	suite_add_tcase(s, t);
	return suite_run(s);
}
