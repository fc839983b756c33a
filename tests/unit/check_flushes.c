/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Golden counts: flushes and drains of each operation in durability `power`. A count that rises is a
 * cost that somebody should have meant; one that falls is a promise that somebody should still keep.
 */
#include <check.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/macro.h"
#include "media/limbo.h"
#include "media/mark.h"
#include "media/marks.h"
#include "media/meta.h"
#include "media/publish.h"
#include "tests/unit/heap_fixture.h"
#include "tests/unit/suite.h"
#include "tests/unit/tempdir.h"

static struct counts {
	unsigned flushes;
	unsigned drains;
} counts;

static void count_flush(const void *addr, size_t len)
{
	(void)addr;
	(void)len;
	counts.flushes++;
}

static void count_drain(void)
{
	counts.drains++;
}

static void point(enum media_point kind, const void *addr, size_t len)
{
	(void)kind;
	(void)addr;
	(void)len;
}

static const struct media_backend counting = { .flush = count_flush, .drain = count_drain,
					       .point = point };

static struct fixture fix;
static struct lane *lane, *other;

static void setup(void)
{
	media_backend = &counting;
	fixture_init_power(&fix, 4096, 64, NULL);
	lane = fixture_lane(&fix, 1);
	other = fixture_lane(&fix, 2);
}

static void teardown(void)
{
	lane_free(lane);
	lane_free(other);
	fixture_check(&fix);
	fixture_deinit(&fix);
}

/* What was done since the last call. */
#define expect(f, d)                              \
	do {                                      \
		ck_assert_uint_eq(counts.flushes, f); \
		ck_assert_uint_eq(counts.drains, d);  \
		counts = (struct counts){ 0 };    \
	} while (0)

static uint64_t get(struct lane *l, size_t size)
{
	uint64_t ptr = lane_alloc(l, size);

	ck_assert_uint_ne(ptr, 0);
	return ptr;
}

static void defer(struct lane *l, uint64_t ptr)
{
	uint64_t watch;
	bool wake = false;

	ck_assert_int_eq(lane_defer(l, ptr, &wake, &watch), 0);
	if (wake)
		lane_deferred(l);
}

static struct span_at span_of(uint64_t ptr)
{
	struct span_at at;
	uint32_t index;

	ck_assert_int_eq(heap_block(&fix.heap, ptr, &at, &index), 0);
	return at;
}

START_TEST(owner)
{
	uint64_t ptr[100];

	(void)get(lane, 64);
	counts = (struct counts){ 0 };
	for (unsigned i = 0; i < ARRAY_SIZE(ptr); i++)
		ptr[i] = get(lane, 64);
	for (unsigned i = 0; i < 50; i++)
		ck_assert_int_eq(lane_dealloc(lane, ptr[i]), 0);
	for (unsigned i = 50; i < ARRAY_SIZE(ptr); i++)
		defer(lane, ptr[i]);
	expect(0, 0);
}
END_TEST

START_TEST(foreign)
{
	uint64_t a = get(lane, 64), b = get(lane, 64);

	/* The span is open. */
	counts = (struct counts){ 0 };
	ck_assert_int_eq(lane_dealloc(other, a), 0);
	defer(other, b);
	expect(0, 0);
}
END_TEST

START_TEST(foreign_closed)
{
	uint64_t a = get(lane, 64), b = get(lane, 64), c = get(lane, 64);
	struct span_at at;

	lane_release(lane);
	at = span_of(a);
	ck_assert(!span_trusted(&fix.heap, &at));
	counts = (struct counts){ 0 };
	/* The first one opens it. */
	ck_assert_int_eq(lane_dealloc(other, a), 0);
	expect(1, 1);
	ck_assert_int_eq(lane_dealloc(other, b), 0);
	defer(other, c);
	expect(0, 0);
}
END_TEST

/* Granting: remainder's word, record, span words, head's word. Adopting: the mark. */
START_TEST(grant_and_adopt)
{
	uint64_t ref;

	counts = (struct counts){ 0 };
	ck_assert_int_eq(grant_spans(fix.grant, class_of(64), 1, &ref), 1);
	expect(4, 3);
	/* Its hint is kept back: the lane is granted one of its own. */
	(void)get(lane, 64);
	expect(5, 4);
}
END_TEST

/* To give a span up is to flush its maps and its mark, with one drain for many, unless it is open again. */
START_TEST(give_up)
{
	struct span_at at;
	struct closing closing;

	at = span_of(get(lane, 64));
	counts = (struct counts){ 0 };
	ck_assert(span_close_begin(&fix.heap, &at, &closing));
	expect(0, 0);
	span_close_end(&fix.heap, &closing, 1);
	expect(3, 1);
	span_open(&fix.heap, &at);
	expect(1, 1);
	/* Opened by another in between. */
	ck_assert(span_close_begin(&fix.heap, &at, &closing));
	span_open(&fix.heap, &at);
	span_close_end(&fix.heap, &closing, 1);
	expect(0, 0);
	ck_assert(span_trusted(&fix.heap, &at));
}
END_TEST

START_TEST(thread_ends)
{
	for (size_t size = 64; size <= 256; size *= 2)
		(void)get(lane, size);
	counts = (struct counts){ 0 };
	/* Three spans, one drain. */
	lane_release(lane);
	expect(9, 1);
}
END_TEST

START_TEST(collect)
{
	uint64_t ptr[256];
	struct span_at at;

	for (unsigned i = 0; i < ARRAY_SIZE(ptr); i++)
		ptr[i] = get(lane, 64);
	for (unsigned i = 0; i < 100; i++)
		ck_assert_int_eq(lane_dealloc(other, ptr[i]), 0);
	at = span_of(ptr[0]);
	counts = (struct counts){ 0 };
	ck_assert_uint_eq(span_collect(&fix.heap, &at), 100);
	expect(0, 0);
	/* Blocks that were in limbo: their words are drained, once. */
	for (unsigned i = 100; i < 180; i++)
		defer(other, ptr[i]);
	span_limbo_free(&fix.heap, &at);
	expect(0, 0);
	ck_assert_uint_eq(span_collect(&fix.heap, &at), 80);
	expect(2, 1);
}
END_TEST

START_TEST(large)
{
	uint64_t a, b, ref;

	ck_assert_int_eq(grant_run(fix.grant, 16, 1, &ref), 0);
	counts = (struct counts){ 0 };
	/* Granting: remainder's word, record, head's word twice; that the units are touched, with the bit. */
	a = get(lane, 20 * UNIT_SIZE);
	expect(6, 4);
	b = get(lane, 20 * UNIT_SIZE);
	counts = (struct counts){ 0 };
	ck_assert_int_eq(lane_dealloc(lane, a), 0);
	expect(1, 1);
	defer(lane, b);
	expect(1, 1);
}
END_TEST

START_TEST(retire)
{
	uint64_t a = get(lane, 64), ref[GRANT_SPANS_MAX];

	ck_assert_int_eq(lane_dealloc(lane, a), 0);
	lane_release(lane);
	ck_assert_int_gt(grant_trim(fix.grant), 0);
	ck_assert_int_eq(grant_spans(fix.grant, class_of(64), 1, ref), 1);
	counts = (struct counts){ 0 };
	/* The owner word, the span word. */
	ck_assert_int_gt(grant_trim(fix.grant), 0);
	expect(2, 2);
}
END_TEST

/* Closed, a heap has no open span: another pass has nothing to do. */
START_TEST(heap_closed)
{
	uint64_t a = get(lane, 64);

	lane_release(lane);
	ck_assert_int_eq(lane_dealloc(other, a), 0);
	counts = (struct counts){ 0 };
	ck_assert_int_eq(marks_close(&fix.heap), 0);
	expect(3, 2);
	ck_assert_int_eq(marks_close(&fix.heap), 0);
	expect(0, 1);
}
END_TEST

/* Reserving: the entry. Cancelling: the limbo bit, then the entry. */
START_TEST(reserving)
{
	struct reservations *res;
	uint64_t ptr, watch;
	bool wake;

	ck_assert_int_eq(reservations_new(&res), 0);
	(void)get(lane, 64);
	counts = (struct counts){ 0 };
	ck_assert_int_eq(lane_reserve(lane, res, 64, &ptr), 0);
	expect(1, 1);
	ck_assert_int_eq(lane_cancel(lane, res, ptr, &wake, &watch), 0);
	if (wake)
		lane_deferred(lane);
	expect(2, 2);
	reservations_free(res);
}
END_TEST

/* Four drains: the words' old values and the log; its commit; words, entry and limbo bit; the end. */
START_TEST(publishing)
{
	uint64_t root = get(lane, 64), old = get(lane, 64), fresh, watch;
	struct reservations *res;
	size_t bad;
	bool wake;

	ck_assert_int_eq(reservations_new(&res), 0);
	ck_assert_int_eq(lane_reserve(lane, res, 64, &fresh), 0);
	counts = (struct counts){ 0 };
	const struct publish_action actions[] = {
		{ .kind = LOG_COMMIT_BLOCK, .where = fresh },
		{ .kind = LOG_STORE, .where = root, .value = 1, .word = fixture_at(&fix, root) },
		{ .kind = LOG_STORE, .where = root + 8, .value = 2,
		  .word = fixture_at(&fix, root + 8) },
		{ .kind = LOG_FREE_BLOCK, .where = old },
	};
	ck_assert_int_eq(lane_publish(lane, res, actions, ARRAY_SIZE(actions), &bad, &wake, &watch),
			 0);
	if (wake)
		lane_deferred(lane);
	expect(2 + 1 + 1 + 4 + 1, 4);
	reservations_free(res);
}
END_TEST

/* Each span that the dead owned is closed by its own drain; its log's word and its entries, by one together. */
START_TEST(settling)
{
	for (size_t size = 64; size <= 256; size *= 2)
		(void)get(lane, size);
	counts = (struct counts){ 0 };
	fix.alive[1] = false;
	ck_assert_int_eq(grant_settle(fix.grant, 1), 0);
	expect(11, 4);
	lane_forget(lane);
	lane = fixture_lane(&fix, 3);
}
END_TEST

/*
 * A root set, for the first time, and again, and removed: the slot that stands, unless there is none; the other one
 * blank; its body; its commit word. Each is flushed and drained before the next.
 */
START_TEST(root_changes)
{
	struct root_record root = { .name = "head", .ptr = 1 };
	int dir = tempdir_new(NULL);
	struct meta *meta;
	const char *why;

	ck_assert_int_eq(meta_create(dir, 1, 5, 1), 0);
	ck_assert_int_eq(meta_open(&meta, dir, 1, 5, 1, DURABILITY_POWER, &why), 0);
	counts = (struct counts){ 0 };
	ck_assert_int_eq(meta_root_put(meta, 0, &root), 0);
	expect(3, 3);
	root.ptr = 2;
	ck_assert_int_eq(meta_root_put(meta, 0, &root), 0);
	expect(4, 4);
	ck_assert_int_eq(meta_root_put(meta, 0, &(struct root_record){ .op_seq = 1 }), 0);
	expect(4, 4);
	meta_free(meta);
	close(dir);
}
END_TEST

START_TEST(in_process)
{
	struct fixture f;
	struct lane *l;
	uint64_t a, b;

	fixture_init(&f, 256, 64);
	l = fixture_lane(&f, 1);
	counts = (struct counts){ 0 };
	a = get(l, 64);
	b = get(l, 20 * UNIT_SIZE);
	ck_assert_int_eq(lane_dealloc(l, a), 0);
	ck_assert_int_eq(lane_dealloc(l, b), 0);
	lane_free(l);
	ck_assert_int_eq(marks_close(&f.heap), 0);
	expect(0, 0);
	fixture_deinit(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("flushes");
	TCase *t = tcase_create("flushes");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, owner);
	tcase_add_test(t, foreign);
	tcase_add_test(t, foreign_closed);
	tcase_add_test(t, grant_and_adopt);
	tcase_add_test(t, give_up);
	tcase_add_test(t, thread_ends);
	tcase_add_test(t, collect);
	tcase_add_test(t, large);
	tcase_add_test(t, retire);
	tcase_add_test(t, heap_closed);
	tcase_add_test(t, reserving);
	tcase_add_test(t, publishing);
	tcase_add_test(t, settling);
	tcase_add_test(t, root_changes);
	tcase_add_test(t, in_process);
	suite_add_tcase(s, t);
	return suite_run(s);
}
