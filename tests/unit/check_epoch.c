/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * media/epoch.c against the header's entry and exit: what a scan sees of readers that are early,
 * late, nested or gone; and media/limbo.c on a heap of its own: what becomes of a snapshot.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <nvmm/client.h>

#include "media/epoch.h"
#include "media/limbo.h"
#include "tests/unit/heap_fixture.h"
#include "tests/unit/suite.h"

static struct epoch_page page;
#define SLOTS 128u

static struct epoch_slot *slots;

static void setup(void)
{
	memset(&page, 0, sizeof(page));
	slots = calloc(SLOTS, sizeof(*slots));
	ck_assert_ptr_nonnull(slots);
	epoch_page_init(&page);
}

static void teardown(void)
{
	free(slots);
}

static uint64_t oldest(void)
{
	struct epoch_reading r[SLOTS];
	uint32_t n = epoch_scan(slots, 0, SLOTS, r);
	uint64_t ret = 0;

	for (uint32_t i = 0; i < n; i++)
		ret = ret == 0 || r[i].epoch < ret ? r[i].epoch : ret;
	return ret;
}

static void pin(unsigned i)
{
	nvmm_epoch_pin(&slots[i].word, &page.current);
}

static void unpin(unsigned i)
{
	nvmm_epoch_unpin(&slots[i].word);
}

START_TEST(reader_holds_its_epoch)
{
	uint64_t stamp;

	pin(0);
	stamp = epoch_raise(&page);
	ck_assert(!epoch_ripe(stamp, oldest()));
	/* Who enters after the raise has nothing to do with the snapshot. */
	pin(1);
	unpin(0);
	ck_assert(epoch_ripe(stamp, oldest()));
	ck_assert_uint_eq(oldest(), stamp + 1);
	ck_assert(!epoch_ripe(epoch_raise(&page), oldest()));
	unpin(1);
	ck_assert_uint_eq(oldest(), 0);
}
END_TEST

START_TEST(nesting_keeps_the_first_epoch)
{
	uint64_t first = epoch_current(&page);

	pin(0);
	for (int i = 0; i < 1000; i++) {
		epoch_raise(&page);
		pin(0);
	}
	for (int i = 0; i < 1000; i++) {
		ck_assert_uint_eq(oldest(), first);
		unpin(0);
	}
	ck_assert_uint_eq(oldest(), first);
	unpin(0);
	ck_assert_uint_eq(slots[0].word, 0);
	/* One exit too many changes nothing. */
	unpin(0);
	ck_assert_uint_eq(slots[0].word, 0);
}
END_TEST

START_TEST(late_store_holds_more_never_less)
{
	uint64_t read = page.current; /* a thread stops between its load and its store */
	uint64_t passed, held;

	passed = epoch_raise(&page);
	ck_assert(epoch_ripe(passed, oldest()));
	held = epoch_raise(&page);
	slots[0].word = read;
	ck_assert(!epoch_ripe(held, oldest()));
	ck_assert(!epoch_ripe(epoch_raise(&page), oldest()));
	unpin(0);
	ck_assert(epoch_ripe(held, oldest()));
}
END_TEST

START_TEST(equal_is_not_ripe)
{
	ck_assert(!epoch_ripe(7, 7));
	ck_assert(!epoch_ripe(7, 6));
	ck_assert(epoch_ripe(7, 8));
	ck_assert(epoch_ripe(7, 0));
}
END_TEST

START_TEST(scan_finds_each)
{
	struct epoch_reading r[SLOTS];

	for (unsigned i = 0; i < SLOTS; i += 3) {
		slots[i].word = epoch_word(10 + i);
		epoch_slot_give(&slots[i], i + 1);
	}
	ck_assert_uint_eq(epoch_scan(slots, 1000, 10, r), 4);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_uint_eq(r[i].slot, 1000 + 3 * i);
		ck_assert_uint_eq(r[i].epoch, 10 + 3 * i);
		ck_assert_uint_eq(r[i].tid, 3 * i + 1);
	}
	ck_assert_uint_eq(epoch_scan(slots, 0, 0, r), 0);
}
END_TEST

START_TEST(daemon_begins_above_all)
{
	uint64_t before;

	for (int i = 0; i < 5; i++)
		epoch_raise(&page);
	before = epoch_current(&page);
	ck_assert_uint_gt(epoch_page_init(&page), before);
	epoch_publish_frontier(&page, 5);
	epoch_publish_frontier(&page, 3);
	ck_assert_uint_eq(epoch_frontier(&page), 5);
}
END_TEST

/* Makes it so many milliseconds later. */
static void pass_time(uint64_t ms)
{
	for (unsigned i = 0; i < 2; i++)
		page.clock[i].since -= ms * 1000000u;
}

/* The number that programs see rises with time alone, is never below what is stored, and never
 * falls. */
START_TEST(number_rises_with_time)
{
	uint64_t a = epoch_now(&page), b, stamp;

	epoch_set_interval(&page, 1000000);
	ck_assert_uint_eq(epoch_now(&page), a);
	pass_time(5000000);
	b = epoch_now(&page);
	ck_assert_uint_eq(b, a + 5);
	/* A stamp is at least what any program has seen, and readers who come later store a
	 * higher one. */
	stamp = epoch_raise(&page);
	ck_assert_uint_eq(stamp, b);
	ck_assert_uint_eq(epoch_current(&page), b + 1);
	ck_assert_uint_eq(epoch_now(&page), b + 1);
	/* It does not stand still after many raises. */
	for (int i = 0; i < 1000; i++)
		epoch_raise(&page);
	b = epoch_now(&page);
	ck_assert_uint_eq(b, epoch_current(&page));
	pass_time(1000000);
	ck_assert_uint_eq(epoch_now(&page), b + 1);
	/* Another interval, and another daemon. */
	epoch_set_interval(&page, 2000000);
	ck_assert_uint_eq(epoch_now(&page), b + 1);
	pass_time(2000000);
	ck_assert_uint_eq(epoch_now(&page), b + 2);
	ck_assert_uint_eq(epoch_page_init(&page), b + 3);
	ck_assert_uint_ge(epoch_now(&page), b + 3);
	/* A daemon that was killed while it set the clock: the half that it wrote does not
	 * count. */
	b = epoch_now(&page);
	page.clock[(page.turn + 1) & 1] = (struct epoch_clock){ .epoch = 1, .interval = 1 };
	ck_assert_uint_eq(epoch_now(&page), b);
}
END_TEST

START_TEST(thread_end_clears)
{
	pin(0);
	pin(0);
	epoch_slot_clear(&slots[0]);
	ck_assert_uint_eq(oldest(), 0);
}
END_TEST

/* Limbo */

#define MANY 1000u

static struct fixture f;
static struct lane *lane;
static struct limbo *limbo;

static void heap_setup(void)
{
	fixture_init(&f, 256, 16);
	lane = fixture_lane(&f, 0);
	ck_assert_int_eq(limbo_new(&limbo, &f.heap), 0);
}

static void heap_teardown(void)
{
	limbo_free(limbo);
	lane_free(lane);
	fixture_deinit(&f);
}

static int defer(uint64_t ptr)
{
	uint64_t watch = 0;
	bool wake = false;
	int r = lane_defer(lane, ptr, &wake, &watch);

	if (wake) {
		limbo_woken(&f.heap, watch);
		lane_deferred(lane);
	}
	return r;
}

static uint64_t alloc_one(size_t size)
{
	uint64_t ptr = lane_alloc(lane, size);

	ck_assert_uint_ne(ptr, 0);
	return ptr;
}

static struct heap_totals totals(void)
{
	struct heap_totals t;

	ck_assert_int_eq(heap_count(&f.heap, &t), 0);
	return t;
}

START_TEST(snapshot_then_release)
{
	static uint64_t ptr[MANY];
	int r;

	for (unsigned i = 0; i < MANY; i++)
		ptr[i] = alloc_one(16 + i % 200);
	for (unsigned i = 0; i < MANY; i += 2)
		ck_assert_int_eq(defer(ptr[i]), 0);
	while ((r = limbo_snapshot(limbo, 1)) > 0)
		;
	ck_assert_int_eq(r, 0);
	ck_assert_uint_eq(limbo_blocks(limbo), MANY / 2);
	/* What comes after the snapshot is of the next one. */
	ck_assert_int_eq(defer(ptr[1]), 0);
	ck_assert_int_eq(limbo_snapshot(limbo, 1000), 0);
	ck_assert_uint_eq(limbo_blocks(limbo), MANY / 2);
	while ((r = limbo_release(limbo, 1)) > 0)
		;
	ck_assert_int_eq(r, 0);
	ck_assert_uint_eq(limbo_freed(limbo), MANY / 2);
	ck_assert_uint_eq(totals().blocks, MANY / 2);
	ck_assert_int_eq(limbo_snapshot(limbo, 1000), 0);
	ck_assert_uint_eq(limbo_blocks(limbo), 1);
	ck_assert_int_eq(limbo_release(limbo, 1000), 0);
	for (unsigned i = 3; i < MANY; i += 2)
		ck_assert_int_eq(lane_dealloc(lane, ptr[i]), 0);
	ck_assert_uint_eq(totals().blocks, 0);
	fixture_check(&f);
}
END_TEST

START_TEST(refuses)
{
	uint64_t ptr = alloc_one(64);

	ck_assert_int_eq(defer(ptr + 1), -EINVAL);
	ck_assert_int_eq(defer(ptr ^ UINT64_C(1) << 48), -EINVAL);
	ck_assert_int_eq(defer(ptr), 0);
	ck_assert_int_eq(defer(ptr), -EALREADY);
	ck_assert_int_eq(lane_dealloc(lane, ptr), -EALREADY);
	ck_assert_int_eq(limbo_snapshot(limbo, 1000), 0);
	ck_assert_int_eq(limbo_release(limbo, 1000), 0);
	ck_assert_int_eq(defer(ptr), -EALREADY);
	ck_assert_int_eq(lane_dealloc(lane, ptr), -EALREADY);
}
END_TEST

START_TEST(who_wakes_the_daemon)
{
	uint64_t a = alloc_one(64), b = alloc_one(64), c = alloc_one(64), watch, late;
	bool wake;

	/* Nobody looks: the first says so, the next one need not. */
	ck_assert_int_eq(lane_defer(lane, a, &wake, &late), 0);
	ck_assert(wake);
	limbo_woken(&f.heap, late);
	lane_deferred(lane);
	ck_assert_int_eq(lane_defer(lane, b, &wake, &watch), 0);
	ck_assert(!wake);
	/* The daemon does not look away from what is hinted. */
	ck_assert_int_eq(limbo_unwatch(limbo), 1);
	ck_assert_int_eq(limbo_snapshot(limbo, 1000), 0);
	ck_assert_int_eq(limbo_release(limbo, 1000), 0);
	ck_assert_int_eq(limbo_unwatch(limbo), 0);
	/* A freer that was stopped before it could say that it woke the daemon says it late. */
	limbo_woken(&f.heap, late);
	ck_assert_int_eq(lane_defer(lane, c, &wake, &watch), 0);
	ck_assert(wake);
	lane_deferred(lane);
}
END_TEST

START_TEST(lost_snapshot_is_found_again)
{
	uint64_t ptr = alloc_one(64);

	ck_assert_int_eq(defer(ptr), 0);
	ck_assert_int_eq(limbo_snapshot(limbo, 1000), 0);
	ck_assert_uint_eq(limbo_blocks(limbo), 1);
	/* The daemon dies and loads the heap; its readers may still be there. */
	limbo_free(limbo);
	ck_assert_int_eq(limbo_new(&limbo, &f.heap), 0);
	ck_assert_int_eq(limbo_snapshot(limbo, 1000), 0);
	ck_assert_uint_eq(limbo_blocks(limbo), 0);
	fixture_reload(&f);
	ck_assert_int_eq(limbo_snapshot(limbo, 1000), 0);
	ck_assert_uint_eq(limbo_blocks(limbo), 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("epoch");
	TCase *words = tcase_create("words"), *heap = tcase_create("limbo");

	tcase_add_checked_fixture(words, setup, teardown);
	tcase_add_test(words, reader_holds_its_epoch);
	tcase_add_test(words, nesting_keeps_the_first_epoch);
	tcase_add_test(words, late_store_holds_more_never_less);
	tcase_add_test(words, equal_is_not_ripe);
	tcase_add_test(words, scan_finds_each);
	tcase_add_test(words, number_rises_with_time);
	tcase_add_test(words, daemon_begins_above_all);
	tcase_add_test(words, thread_end_clears);
	suite_add_tcase(suite, words);
	tcase_add_checked_fixture(heap, heap_setup, heap_teardown);
	tcase_add_test(heap, snapshot_then_release);
	tcase_add_test(heap, refuses);
	tcase_add_test(heap, who_wakes_the_daemon);
	tcase_add_test(heap, lost_snapshot_is_found_again);
	suite_add_tcase(suite, heap);
	return suite_run(suite);
}
