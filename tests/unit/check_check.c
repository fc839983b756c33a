/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The audit of a heap, of one that is whole and of one that is spoilt at one place: what it says, of which
 * file and byte, and that it goes on behind it. And the walk, which goes over every block or refuses.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"
#include "media/walk.h"
#include "tests/unit/heap_fixture.h"
#include "tests/unit/suite.h"

#define UNITS 160u
#define BLOCKS 200u

static struct fixture fix;
static struct lane *lane;
static uint64_t ptr[BLOCKS];
static struct check_report report;

static void setup(void)
{
	fixture_init(&fix, UNITS, 16);
	lane = fixture_lane(&fix, 1);
	for (unsigned i = 0; i < BLOCKS; i++)
		ck_assert((ptr[i] = lane_alloc(lane, 16 + i * 31 % 2000)) != 0);
	ck_assert(lane_alloc(lane, 200000) != 0);
	memset(&report, 0, sizeof(report));
}

static void teardown(void)
{
	lane_forget(lane);
	fixture_deinit(&fix);
}

static m64 *word(uint64_t unit)
{
	return &fix.shelf[0].table[unit];
}

static char *record(uint64_t unit)
{
	return fix.shelf[0].state + unit * fix.heap.layout.stride;
}

/* The n-th unit that is a head of this kind, from 0. */
static uint64_t head(enum span_kind kind, unsigned n)
{
	for (uint64_t u = 0; u < UNITS; u++)
		if (span_unpack(media_load64(word(u))).kind == kind && n-- == 0)
			return u;
	ck_abort_msg("there is no such head");
	return 0;
}

static void audit(void)
{
	ck_assert_uint_eq(heap_audit(&fix.heap, false, &report), report.violations);
}

static void expect_finding(const char *file, uint64_t offset)
{
	for (uint32_t i = 0; i < report.n_findings; i++)
		if (strcmp(report.finding[i].file, file) == 0 && report.finding[i].offset == offset) {
			ck_assert_str_ne(report.finding[i].what, "");
			ck_assert_str_ne(report.finding[i].so, "");
			return;
		}
	ck_abort_msg("nothing is said of %s at byte %llu, of %llu findings", file,
		     (unsigned long long)offset, (unsigned long long)report.violations);
}

static uint64_t word_at(uint64_t unit)
{
	return sizeof(struct table_file_df) + unit * sizeof(m64);
}

static uint64_t record_at(uint64_t unit)
{
	return state_records_offset(UNITS) + unit * fix.heap.layout.stride;
}

START_TEST(whole)
{
	audit();
	ck_assert_uint_eq(report.violations, 0);
	ck_assert_uint_eq(report.blocks, BLOCKS + 1);
	ck_assert_uint_eq(report.units, UNITS);
	memset(&report, 0, sizeof(report));
	ck_assert_uint_eq(heap_audit(&fix.heap, true, &report), 0);
	ck_assert_uint_eq(report.blocks, BLOCKS + 1);
}
END_TEST

/* A word that is nothing: it is named, and spans behind it are counted still. */
START_TEST(rotten_word)
{
	uint64_t unit = head(SPAN_SMALL, 1);

	media_store64(word(unit), 0x7);
	audit();
	expect_finding("table-0.1", word_at(unit));
	ck_assert_uint_gt(report.spans, 2);
	ck_assert_uint_gt(report.blocks, BLOCKS / 2);
}
END_TEST

/* A word that is a span's, but not this one's: the record vouches for another. */
START_TEST(other_word)
{
	uint64_t unit = head(SPAN_SMALL, 1);
	struct span s = span_unpack(media_load64(word(unit)));

	s.generation++;
	media_store64(word(unit), span_pack(s));
	audit();
	expect_finding("table-0.1", word_at(unit));
}
END_TEST

START_TEST(rotten_seal)
{
	uint64_t unit = head(SPAN_SMALL, 1);
	struct state_tail_df *tail = state_tail(&fix.heap.layout, record(unit));

	media_store64(&tail->seal, media_load64(&tail->seal) ^ 1);
	audit();
	expect_finding("state-0", record_at(unit));
	ck_assert_uint_eq(report.violations, 1);
}
END_TEST

START_TEST(contradicting_bits)
{
	uint64_t unit = head(SPAN_LARGE, 0);

	media_store64(state_alloc(record(unit)), 0);
	media_store64(state_limbo(&fix.heap.layout, record(unit)), 1);
	audit();
	expect_finding("state-0", record_at(unit));
}
END_TEST

START_TEST(bit_of_no_block)
{
	uint64_t unit = head(SPAN_LARGE, 0);

	media_store64(state_alloc(record(unit)), 3);
	audit();
	expect_finding("state-0", record_at(unit));
}
END_TEST

START_TEST(owner_of_no_head)
{
	uint64_t unit = UNITS - 1;

	media_store64(&state_tail(&fix.heap.layout, record(unit))->owner, OWNER_NONE);
	audit();
	expect_finding("state-0", record_at(unit));
	ck_assert_uint_eq(report.violations, 1);
}
END_TEST

START_TEST(owner_of_another_node)
{
	uint64_t unit = head(SPAN_SMALL, 1);

	media_store64(&state_tail(&fix.heap.layout, record(unit))->owner, owner_lane(77, 1, 0));
	audit();
	expect_finding("state-0", record_at(unit));
}
END_TEST

/* More than a report has room for: all are counted. */
START_TEST(many)
{
	for (uint64_t u = head(SPAN_FREE, 0); u < UNITS; u++)
		media_store64(&state_tail(&fix.heap.layout, record(u))->owner, OWNER_NONE);
	audit();
	ck_assert_uint_eq(report.violations, UNITS - head(SPAN_FREE, 0));
	ck_assert_uint_eq(report.n_findings, MIN(report.violations, (uint64_t)CHECK_FINDINGS));
}
END_TEST

/* Walks */

static unsigned visited;

static int visit(const struct span_at *at, void *arg)
{
	ck_assert_ptr_eq(arg, &visited);
	visited += span_used(&fix.heap, at);
	return 0;
}

static int stop(const struct span_at *at, void *arg)
{
	(void)at;
	(void)arg;
	return ++visited == 2 ? -ECANCELED : 0;
}

START_TEST(walked)
{
	fixture_second_shelf(&fix, UNITS);
	visited = 0;
	ck_assert_int_eq(heap_walk(&fix.heap, visit, &visited), 0);
	ck_assert_uint_eq(visited, BLOCKS + 1);
	visited = 0;
	ck_assert_int_eq(heap_walk(&fix.heap, stop, NULL), -ECANCELED);
	ck_assert_uint_eq(visited, 2);
}
END_TEST

START_TEST(not_walked)
{
	media_store64(word(head(SPAN_SMALL, 1)), 0x7);
	visited = 0;
	ck_assert_int_eq(heap_walk(&fix.heap, visit, &visited), -EUCLEAN);
	ck_assert_uint_eq(visited, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("check");
	TCase *t = tcase_create("check");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, whole);
	tcase_add_test(t, rotten_word);
	tcase_add_test(t, other_word);
	tcase_add_test(t, rotten_seal);
	tcase_add_test(t, contradicting_bits);
	tcase_add_test(t, bit_of_no_block);
	tcase_add_test(t, owner_of_no_head);
	tcase_add_test(t, owner_of_another_node);
	tcase_add_test(t, many);
	tcase_add_test(t, walked);
	tcase_add_test(t, not_walked);
	suite_add_tcase(s, t);
	return suite_run(s);
}
