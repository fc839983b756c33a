/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * media/epoch.c against the header's entry and exit: what a scan sees of readers that are early, late,
 * nested or gone; and media/limbo.c on a heap of its own: what becomes of a snapshot.
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
static struct epoch_slots *slots;

static void setup(void)
{
	memset(&page, 0, sizeof(page));
	slots = calloc(1, EPOCH_SLOTS_BYTES);
	ck_assert_ptr_nonnull(slots);
	epoch_page_init(&page);
	epoch_slots_use(slots, 2);
}

static void teardown(void)
{
	free(slots);
}

static uint64_t oldest(void)
{
	struct epoch_reading r[4];
	uint32_t from = 0, n;
	uint64_t ret = 0;

	do {
		n = epoch_scan(slots, &from, r, 4);
		for (uint32_t i = 0; i < n; i++)
			ret = ret == 0 || r[i].epoch < ret ? r[i].epoch : ret;
	} while (n == 4);
	return ret;
}

static void pin(unsigned i)
{
	nvmm_epoch_pin(&slots->slot[i].word, &page.current);
}

static void unpin(unsigned i)
{
	nvmm_epoch_unpin(&slots->slot[i].word);
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
	ck_assert_uint_eq(slots->slot[0].word, 0);
	/* One exit too many changes nothing. */
	unpin(0);
	ck_assert_uint_eq(slots->slot[0].word, 0);
}
END_TEST

START_TEST(late_store_holds_more_never_less)
{
	uint64_t read = page.current; /* a thread stops between its load and its store */
	uint64_t passed, held;

	passed = epoch_raise(&page);
	ck_assert(epoch_ripe(passed, oldest()));
	held = epoch_raise(&page);
	slots->slot[0].word = read;
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

START_TEST(scan_is_bounded)
{
	uint32_t from = 0;
	struct epoch_reading r[8];

	/* What the client says of the number of its slots may be anything. */
	slots->used = UINT32_MAX;
	slots->slot[EPOCH_SLOTS_MAX - 1].word = epoch_word(3);
	ck_assert_uint_eq(epoch_scan(slots, &from, r, 8), 1);
	ck_assert_uint_eq(from, EPOCH_SLOTS_MAX);
	ck_assert_uint_eq(r[0].slot, EPOCH_SLOTS_MAX - 1);
	/* More readers than there is room for come piece by piece. */
	slots->used = 100;
	for (unsigned i = 0; i < 100; i++)
		slots->slot[i].word = epoch_word(10 + i);
	from = 0;
	for (unsigned i = 0; i < 100; i += 8)
		ck_assert_uint_eq(epoch_scan(slots, &from, r, 8), i + 8 <= 100 ? 8 : 100 - i);
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

START_TEST(thread_end_clears)
{
	pin(0);
	pin(0);
	epoch_slot_clear(&slots->slot[0]);
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
	tcase_add_test(words, scan_is_bounded);
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
