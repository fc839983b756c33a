/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reserving, publishing, cancelling against a grant: what they do, what they refuse, and that what is
 * refused has changed nothing. Deaths are in tests/crash/check_publish_kill.c.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"
#include "media/limbo.h"
#include "media/publish.h"
#include "tests/unit/heap_fixture.h"
#include "tests/unit/suite.h"

#define UNITS 1024u

static struct fixture fix;
static struct lane *lane, *other;
static struct reservations *res;

static void setup(void)
{
	fixture_init(&fix, UNITS, 16);
	lane = fixture_lane(&fix, 3);
	other = fixture_lane(&fix, 4);
	ck_assert_int_eq(reservations_new(&res), 0);
}

static void teardown(void)
{
	reservations_free(res);
	lane_free(other);
	lane_free(lane);
	fixture_check(&fix);
	fixture_deinit(&fix);
}

static uint64_t must_reserve(struct lane *by, size_t size)
{
	uint64_t ptr = 0;
	int r = lane_reserve(by, res, size, &ptr);

	ck_assert_msg(r == 0, "reserve of %zu: %d", size, r);
	return ptr;
}

static uint64_t must_alloc(size_t size)
{
	uint64_t ptr = lane_alloc(lane, size);

	ck_assert_uint_ne(ptr, 0);
	return ptr;
}

static struct publish_action commit(uint64_t ptr)
{
	return (struct publish_action){ .kind = LOG_COMMIT_BLOCK, .where = ptr };
}

static struct publish_action release(uint64_t ptr)
{
	return (struct publish_action){ .kind = LOG_FREE_BLOCK, .where = ptr };
}

static struct publish_action store(uint64_t ptr, uint64_t value)
{
	return (struct publish_action){ .kind = LOG_STORE, .where = ptr, .value = value,
					.word = fixture_at(&fix, ptr) };
}

static uint64_t word(uint64_t ptr)
{
	return media_load64(fixture_at(&fix, ptr));
}

static int publish_by(struct lane *by, const struct publish_action *actions, size_t n, size_t *bad)
{
	uint64_t watch = 0;
	bool wake = false;
	int r = lane_publish(by, res, actions, n, bad, &wake, &watch);

	if (r == 0 && wake)
		lane_deferred(by);
	return r;
}

static int publish(const struct publish_action *actions, size_t n, size_t *bad)
{
	return publish_by(lane, actions, n, bad);
}

static int cancel(struct lane *by, uint64_t ptr)
{
	uint64_t watch = 0;
	bool wake = false;
	int r = lane_cancel(by, res, ptr, &wake, &watch);

	if (r == 0 && wake)
		lane_deferred(by);
	return r;
}

static void expect_limbo(uint64_t bytes)
{
	struct heap_totals t;

	ck_assert_int_eq(heap_count(&fix.heap, &t), 0);
	ck_assert_uint_eq(t.limbo, bytes);
}

static unsigned entries(uint32_t number)
{
	unsigned n = 0;

	for (unsigned i = 0; i < LANE_RESERVED; i++)
		n += media_load64(&fix.heap.lanes->lane[number].reserved[i]) != 0;
	return n;
}

/* What nobody reads any more comes back, as the daemon's rounds would do it. */
static void reclaim(void)
{
	struct limbo *limbo;
	int r;

	ck_assert_int_eq(limbo_new(&limbo, &fix.heap), 0);
	do
		r = limbo_snapshot(limbo, 1000);
	while (r > 0);
	ck_assert_int_eq(r, 0);
	do
		r = limbo_release(limbo, 1000);
	while (r > 0);
	ck_assert_int_eq(r, 0);
	limbo_free(limbo);
}

START_TEST(one_of_each)
{
	uint64_t root = must_alloc(64), old = must_alloc(64), new = must_reserve(lane, 64);
	struct publish_action actions[] = { commit(new), store(root, new), store(root + 8, 42),
					    release(old) };
	size_t bad;

	ck_assert_uint_eq(entries(3), 1);
	ck_assert_uint_eq(*reservations_word(res), RESERVATION);
	ck_assert_int_eq(publish(actions, 4, &bad), 0);
	ck_assert_uint_eq(entries(3), 0);
	ck_assert_uint_eq(*reservations_word(res), 0);
	ck_assert_uint_eq(word(root), new);
	ck_assert_uint_eq(word(root + 8), 42);
	expect_limbo(64);
	ck_assert_int_eq(lane_dealloc(lane, old), -EALREADY);
	reclaim();
	fixture_expect_used(&fix, 128);
	ck_assert_int_eq(lane_dealloc(lane, new), 0);
	ck_assert_int_eq(lane_dealloc(lane, root), 0);
}
END_TEST

START_TEST(a_reserved_block_is_not_freed)
{
	uint64_t ptr = must_reserve(lane, 100), watch;
	bool wake;

	ck_assert_int_eq(lane_dealloc_unreserved(lane, res, ptr), -EBUSY);
	ck_assert_int_eq(lane_dealloc_unreserved(other, res, ptr), -EBUSY);
	ck_assert_int_eq(lane_defer_unreserved(lane, res, ptr, &wake, &watch), -EBUSY);
	ck_assert_int_eq(cancel(other, ptr), 0);
	ck_assert_int_eq(cancel(lane, ptr), -EINVAL);
	ck_assert_int_eq(lane_dealloc_unreserved(lane, res, ptr), -EALREADY);
	ck_assert_uint_eq(entries(3), 0);
	reclaim();
	fixture_expect_used(&fix, 0);
	ptr = must_alloc(100);
	ck_assert_int_eq(lane_dealloc_unreserved(lane, res, ptr), 0);
}
END_TEST

START_TEST(by_another_thread)
{
	uint64_t ptr = must_reserve(lane, 64), root = must_alloc(8);
	struct publish_action actions[] = { commit(ptr), store(root, ptr) };
	size_t bad;

	ck_assert_int_eq(publish_by(other, actions, 2, &bad), 0);
	ck_assert_uint_eq(entries(3) + entries(4), 0);
	ck_assert_uint_eq(word(root), ptr);
	ck_assert_int_eq(lane_dealloc(other, ptr), 0);
	ck_assert_int_eq(lane_dealloc(other, root), 0);
}
END_TEST

/* Entries are the lane's: they stay when its thread ends, and the next one uses the others. */
START_TEST(stays_when_the_thread_ends)
{
	uint64_t ptr = must_reserve(lane, 64), next;
	struct publish_action actions[] = { commit(ptr) };
	size_t bad;

	lane_release(lane);
	ck_assert_uint_eq(entries(3), 1);
	next = must_reserve(lane, 64);
	ck_assert_uint_ne(next, ptr);
	ck_assert_uint_eq(entries(3), 2);
	ck_assert_int_eq(publish_by(other, actions, 1, &bad), 0);
	ck_assert_int_eq(cancel(other, next), 0);
	ck_assert_int_eq(lane_dealloc(other, ptr), 0);
	reclaim();
}
END_TEST

START_TEST(as_many_as_there_are_entries)
{
	uint64_t ptr[LANE_RESERVED], more;
	size_t bad;

	for (unsigned i = 0; i < LANE_RESERVED; i++)
		ptr[i] = must_reserve(lane, 48 + i);
	ck_assert_int_eq(lane_reserve(lane, res, 48, &more), -ENOBUFS);
	ck_assert_int_eq(lane_reserve(other, res, 48, &more), 0);
	ck_assert_int_eq(cancel(other, more), 0);
	ck_assert_int_eq(cancel(lane, ptr[77]), 0);
	ptr[77] = must_reserve(lane, 48);
	for (unsigned i = 0; i < LANE_RESERVED; i += LOG_ACTIONS) {
		struct publish_action actions[LOG_ACTIONS];

		for (unsigned k = 0; k < LOG_ACTIONS; k++)
			actions[k] = commit(ptr[i + k]);
		ck_assert_int_eq(publish(actions, LOG_ACTIONS, &bad), 0);
	}
	for (unsigned i = 0; i < LANE_RESERVED; i++)
		ck_assert_int_eq(lane_dealloc(lane, ptr[i]), 0);
	reclaim();
	fixture_expect_used(&fix, 0);
}
END_TEST

START_TEST(large_ones)
{
	uint64_t table = must_alloc(1 << 20), big = must_reserve(lane, 300000);
	struct publish_action actions[] = { commit(big), store(table + 800000, big),
					    store(table + 16, 1) };
	size_t bad;

	ck_assert_int_eq(publish(actions, 3, &bad), 0);
	ck_assert_uint_eq(word(table + 800000), big);
	actions[0] = release(big);
	actions[1] = store(table + 800000, 0);
	actions[2] = store(table + (8 << 20), 0);
	ck_assert_int_eq(publish(actions, 3, &bad), -EINVAL);
	ck_assert_uint_eq(bad, 2);
	ck_assert_int_eq(publish(actions, 2, &bad), 0);
	ck_assert_int_eq(lane_dealloc(lane, table), 0);
	reclaim();
	fixture_expect_used(&fix, 0);
}
END_TEST

/* One wrong action among good ones: nothing of it happens. */
struct wrong {
	const char *what;
	int error;
	struct publish_action (*make)(void);
};

static uint64_t root, live, reserved, freed;

static struct publish_action make_unaligned(void) { return store(root + 4, 1); }
static struct publish_action make_twice_word(void) { return store(root, 1); }
static struct publish_action make_twice_block(void) { return release(live); }
static struct publish_action make_free_word(void) { return store(freed, 1); }
static struct publish_action make_freed(void) { return release(freed); }
static struct publish_action make_inside(void) { return release(live + 16); }
static struct publish_action make_reserved(void) { return commit(live + 64); }
static struct publish_action make_busy(void) { return release(reserved + 0); }
static struct publish_action make_elsewhere(void) { return release(live ^ UINT64_C(1) << 50); }
static struct publish_action make_outside(void) { return store(root + (UINT64_C(900) << 20), 1); }
static struct publish_action make_no_kind(void) { return (struct publish_action){ .where = root }; }

static const struct wrong wrongs[] = {
	{ "a word that is not aligned", -EINVAL, make_unaligned },
	{ "a word twice", -EINVAL, make_twice_word },
	{ "a block twice", -EINVAL, make_twice_block },
	{ "a word of a free block", -EINVAL, make_free_word },
	{ "a free block", -EALREADY, make_freed },
	{ "no start of a block", -EINVAL, make_inside },
	{ "a block that is not reserved", -EINVAL, make_reserved },
	{ "a block that is reserved", -EBUSY, make_busy },
	{ "another heap's block", -EINVAL, make_elsewhere },
	{ "a word behind the heap", -EINVAL, make_outside },
	{ "no kind of action", -EINVAL, make_no_kind },
};

START_TEST(wrong_ones_change_nothing)
{
	const struct wrong *w = &wrongs[_i];
	uint64_t mine = must_reserve(lane, 64);
	struct publish_action actions[4];
	size_t bad = 99;

	root = must_alloc(64);
	live = must_alloc(64);
	freed = must_alloc(64);
	reserved = must_reserve(other, 64);
	ck_assert_int_eq(lane_dealloc(lane, freed), 0);
	actions[0] = commit(mine);
	actions[1] = store(root, 7);
	actions[2] = release(live);
	actions[3] = w->make();
	if (actions[3].word && actions[3].where == root + (UINT64_C(900) << 20))
		actions[3].word = fixture_at(&fix, root);
	ck_assert_msg(publish(actions, 4, &bad) == w->error, "%s", w->what);
	ck_assert_uint_eq(bad, 3);
	ck_assert_uint_eq(word(root), 0);
	ck_assert_uint_eq(entries(3), 1);
	expect_limbo(0);
	ck_assert_uint_eq(media_load64(&fix.heap.lanes->lane[3].log.commit), 0);
	/* The reservation can be committed still. */
	ck_assert_int_eq(publish(actions, 3, &bad), 0);
	ck_assert_uint_eq(word(root), 7);
	ck_assert_int_eq(cancel(lane, reserved), 0);
	ck_assert_int_eq(lane_dealloc(lane, mine), 0);
	ck_assert_int_eq(lane_dealloc(lane, root), 0);
	reclaim();
	fixture_expect_used(&fix, 0);
}
END_TEST

START_TEST(how_many_actions)
{
	uint64_t words = must_alloc(8 * (LOG_ACTIONS + 1));
	struct publish_action actions[LOG_ACTIONS + 1];
	size_t bad;

	for (unsigned i = 0; i <= LOG_ACTIONS; i++)
		actions[i] = store(words + 8 * i, i + 1);
	ck_assert_int_eq(publish(actions, 0, &bad), -EINVAL);
	ck_assert_int_eq(publish(actions, LOG_ACTIONS + 1, &bad), -EINVAL);
	ck_assert_int_eq(publish(actions, LOG_ACTIONS, &bad), 0);
	for (unsigned i = 0; i < LOG_ACTIONS; i++)
		ck_assert_uint_eq(word(words + 8 * i), i + 1);
	ck_assert_int_eq(lane_dealloc(lane, words), 0);
}
END_TEST

/* A log and entries that a client has scribbled lead nowhere. */
START_TEST(scribbled_log)
{
	struct lane_df *df = &fix.heap.lanes->lane[9];
	uint64_t seed = 88172645463325252u + (uint64_t)_i, keep = must_alloc(64);

	for (unsigned i = 0; i < sizeof(df->reserved) / 8 + sizeof(df->log) / 8; i++) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		media_store64(&df->reserved[0] + i, seed);
	}
	/* Valid by its CRC, wild in its actions; the block in use is not among them. */
	if (_i % 2) {
		struct log_copy copy = { .commit = LOG_COMMIT | LOG_ACTIONS, .n = LOG_ACTIONS };

		for (unsigned i = 0; i < LOG_ACTIONS; i++) {
			copy.action[i].where = media_load64(&df->log.action[i].where) &
					       ~(UINT64_C(0xfffc) << 48);
			copy.action[i].old = media_load64(&df->log.action[i].old);
			copy.action[i].value = media_load64(&df->log.action[i].value);
			media_store64(&df->log.action[i].where, copy.action[i].where);
		}
		media_store64(&df->log.commit, copy.commit);
		media_store32(&df->log.crc, log_crc(&copy));
	}
	ck_assert_int_eq(grant_settle(fix.grant, 9), 0);
	ck_assert_uint_eq(entries(9), 0);
	fixture_check(&fix);
	fixture_expect_used(&fix, 64);
	ck_assert_int_eq(lane_dealloc(lane, keep), 0);
}
END_TEST

/* Logs with one wrong thing each: nothing of them is done, and what is the living ones' stays theirs. */

static struct places {
	uint64_t words;    /* an allocated block of the living lane */
	uint64_t reserved; /* by it, in entry 0 */
	uint64_t gone;     /* a free block */
	uint64_t limbo;    /* one in limbo */
} places;

struct wrong_log {
	const char *what;
	enum log_kind kind;
	const uint64_t *base; /* NULL: `more` is the place */
	uint64_t more;
	unsigned n;           /* 0: one */
	uint32_t crc;         /* added to it */
};

static const struct wrong_log wrong_logs[] = {
	{ .what = "a word of no shelf", .kind = LOG_STORE, .more = UINT64_C(77) << 40 },
	{ .what = "a word behind the shelf", .kind = LOG_STORE, .more = UNITS * UNIT_SIZE },
	{ .what = "a word in a free unit", .kind = LOG_STORE, .more = (UNITS - 1) * UNIT_SIZE },
	{ .what = "half a word", .kind = LOG_STORE, .base = &places.words, .more = 4 },
	{ .what = "a word of a free block", .kind = LOG_STORE, .base = &places.gone },
	{ .what = "a word of a block in limbo", .kind = LOG_STORE, .base = &places.limbo },
	{ .what = "a living one's reservation", .kind = LOG_COMMIT_BLOCK, .base = &places.reserved },
	{ .what = "a free block", .kind = LOG_FREE_BLOCK, .base = &places.gone },
	{ .what = "the middle of a block", .kind = LOG_FREE_BLOCK,
	  .base = &places.words, .more = 8 },
	{ .what = "a block behind the shelf", .kind = LOG_FREE_BLOCK, .more = UNITS * UNIT_SIZE },
	{ .what = "no such kind", .kind = (enum log_kind)9, .base = &places.words },
	{ .what = "more actions than a log has", .kind = LOG_FREE_BLOCK,
	  .base = &places.words, .n = LOG_ACTIONS + 1 },
	{ .what = "as many as can be said", .kind = LOG_FREE_BLOCK,
	  .base = &places.words, .n = 255 },
	{ .what = "another CRC", .kind = LOG_FREE_BLOCK, .base = &places.words, .crc = 1 },
};

/* A valid log of lane 9, whose process is dead, with one action. */
static void log_put(enum log_kind kind, uint64_t where, unsigned n, uint32_t crc)
{
	struct log_df *log = &fix.heap.lanes->lane[9].log;
	struct log_copy copy = { .commit = LOG_COMMIT | (n ? n : 1), .n = 1 };

	copy.action[0].where = log_where(kind, where);
	copy.action[0].value = kind == LOG_COMMIT_BLOCK ? UINT64_C(3) << 8 : 0x77;
	media_copy(log->action, copy.action, sizeof(copy.action[0]));
	media_store32(&log->crc, log_crc(&copy) + crc);
	media_store64(&log->commit, copy.commit);
}

START_TEST(wrong_logs_do_nothing)
{
	const struct wrong_log *w = &wrong_logs[_i];
	char *before = malloc(UNITS * UNIT_SIZE);
	size_t bad;

	ck_assert_ptr_nonnull(before);
	places.words = must_alloc(64);
	places.reserved = must_reserve(lane, 64);
	places.gone = must_alloc(64);
	places.limbo = must_alloc(64);
	ck_assert_int_eq(lane_dealloc(lane, places.gone), 0);
	ck_assert_int_eq(publish((struct publish_action[]){ release(places.limbo) }, 1, &bad), 0);
	memcpy(before, fix.memory[0], UNITS * UNIT_SIZE);
	log_put(w->kind, (w->base ? *w->base : 0) + w->more, w->n, w->crc);
	ck_assert_int_eq(grant_settle(fix.grant, 9), 0);
	ck_assert_msg(memcmp(before, fix.memory[0], UNITS * UNIT_SIZE) == 0, "%s: stored", w->what);
	ck_assert_msg(entries(3) == 1, "%s: a living one's reservation is gone", w->what);
	expect_limbo(64);
	fixture_expect_used(&fix, 3 * 64);
	ck_assert_int_eq(cancel(lane, places.reserved), 0);
	ck_assert_int_eq(lane_dealloc(lane, places.words), 0);
	free(before);
}
END_TEST

/* Somebody goes on writing the log while it is settled: what was read first is done, nothing else. */
static int scribble_and_map(void *ctx, uint64_t place, m64 **ret)
{
	struct log_df *log = &fix.heap.lanes->lane[9].log;

	(void)ctx;
	for (unsigned i = 0; i < LOG_ACTIONS; i++)
		media_store64(&log->action[i].where, log_where(LOG_FREE_BLOCK, places.limbo));
	media_store64(&log->commit, LOG_COMMIT | LOG_ACTIONS);
	*ret = fixture_at(&fix, place);
	return 0;
}

START_TEST(log_changes_under_the_settler)
{
	places.words = must_alloc(64);
	places.limbo = must_alloc(64);
	memset(fixture_at(&fix, places.words), 0, 64);
	fix.words.map = scribble_and_map;
	log_put(LOG_STORE, places.words, 1, 0);
	ck_assert_int_eq(grant_settle(fix.grant, 9), 0);
	ck_assert_uint_eq(word(places.words), 0x77);
	expect_limbo(0);
	ck_assert_uint_eq(media_load64(&fix.heap.lanes->lane[9].log.commit) & LOG_COMMIT_MASK, 0);
	ck_assert_int_eq(lane_dealloc(lane, places.words), 0);
	ck_assert_int_eq(lane_dealloc(lane, places.limbo), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("publish");
	TCase *t = tcase_create("publish");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, one_of_each);
	tcase_add_test(t, a_reserved_block_is_not_freed);
	tcase_add_test(t, by_another_thread);
	tcase_add_test(t, stays_when_the_thread_ends);
	tcase_add_test(t, as_many_as_there_are_entries);
	tcase_add_test(t, large_ones);
	tcase_add_loop_test(t, wrong_ones_change_nothing, 0, (int)ARRAY_SIZE(wrongs));
	tcase_add_test(t, how_many_actions);
	tcase_add_loop_test(t, scribbled_log, 0, 20);
	tcase_add_loop_test(t, wrong_logs_do_nothing, 0, (int)ARRAY_SIZE(wrong_logs));
	tcase_add_test(t, log_changes_under_the_settler);
	suite_add_tcase(s, t);
	return suite_run(s);
}
