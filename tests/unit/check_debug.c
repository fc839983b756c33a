/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The checks of a build with --enable-debug-checks can fail: each rule of a lane, of a span and of the free runs
 * is broken once, in a child, which is to end with that rule's name. Such a build gets there by an allocator's
 * call, so it is shown that the slow paths ask; others ask the check itself.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/macro.h"
#include "media/debug.h"
#include "media/grant_private.h"
#include "media/lane_private.h"
#include "tests/unit/heap_fixture.h"
#include "tests/unit/suite.h"

#define UNITS 1024u
#define LANE 3u
#define LARGE (200u << 10)

static struct fixture fix;

static void setup(void)
{
	fixture_init(&fix, UNITS, 16);
}

static void teardown(void)
{
	fixture_deinit(&fix);
}

/* A child's end */

/* Runs a step in a child: what it wrote to stderr; its wait status. */
static int ended(void (*step)(int i), int i, char *said, size_t len)
{
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	ck_assert_int_eq(pipe(fds), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		dup2(fds[1], STDERR_FILENO);
		step(i);
		_exit(0);
	}
	close(fds[1]);
	for (size_t at = 0; (n = read(fds[0], said + at, len - 1 - at)) > 0; at += (size_t)n)
		said[at + (size_t)n] = 0;
	close(fds[0]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

static void expect_rule(void (*step)(int i), int i, const char *rule)
{
	char said[4096] = "";
	int status = ended(step, i, said, sizeof(said));

	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "%s: status 0x%x, %s", rule,
		      (unsigned)status, said);
	ck_assert_msg(strstr(said, "debug check: unit 0x") && strstr(said, rule), "not '%s': %s", rule,
		      said);
}

/* Rules of a lane and of the spans that it owns */

/* A lane with one span of small blocks, which is current, and one run that it keeps. */
struct scene {
	struct lane *lane;
	struct owned *small;
	struct kept_run *run;
};

static struct scene make_scene(void)
{
	struct scene s = { .lane = fixture_lane(&fix, LANE) };
	uint64_t large = lane_alloc(s.lane, LARGE);

	ck_assert_uint_ne(large, 0);
	ck_assert_int_eq(lane_dealloc(s.lane, large), 0);
	ck_assert_uint_ne(lane_alloc(s.lane, 16), 0);
	ck_assert_uint_ne(lane_alloc(s.lane, 16), 0);
	ck_assert_uint_eq(s.lane->runs.n, 1);
	s.run = &s.lane->runs.run[0];
	s.small = s.lane->current[0].span;
	ck_assert_ptr_nonnull(s.small);
	return s;
}

static m64 *entry(struct scene *s, struct owned *o)
{
	return &s->lane->df->owned[place_of(s->lane, o)];
}

static m64 *head_word(const struct span_at *at)
{
	return &at->shelf->table[ref_unit(at->ref)];
}

static struct state_tail_df *tail(const struct span_at *at)
{
	return state_tail(&fix.heap.layout, at->record);
}

static void entry_lost(struct scene *s)
{
	media_store64(entry(s, s->small), 0);
}

static void run_entry_lost(struct scene *s)
{
	media_store64(entry(s, s->run->place), 0);
}

static void table_changed(struct scene *s)
{
	struct span span = s->small->at.span;

	span.generation++;
	media_store64(head_word(&s->small->at), span_pack(span));
}

static void table_not_a_head(struct scene *s)
{
	media_store64(head_word(&s->run->at), 0);
}

static void owned_by_another(struct scene *s)
{
	media_store64(&tail(&s->small->at)->owner,
		      owner_lane(fix.heap.node, LANE + 1, place_of(s->lane, s->small)));
}

static void run_owned_by_none(struct scene *s)
{
	media_store64(&tail(&s->run->at)->owner, OWNER_NONE);
}

static void current_of_nothing(struct scene *s)
{
	s->lane->current[7].valid = 1;
}

static void current_of_another_span(struct scene *s)
{
	s->small->current->word = s->small->last + 1;
}

static void current_wrong_bits(struct scene *s)
{
	s->small->current->valid ^= UINT64_C(1) << 63;
}

static void recents_without_top(struct scene *s)
{
	s->small->current->top = 1;
}

/* The scene's first block, as if it had been freed. */
static struct recent *recent_first(struct scene *s)
{
	struct recent *r = &s->small->current->recent[0];

	s->small->current->top = sizeof(*r);
	*r = (struct recent){ .ptr = s->small->base, .word = s->small->alloc, .bit = 1 };
	return r;
}

static void recent_nowhere(struct scene *s)
{
	recent_first(s)->ptr = 0;
}

static void recent_misplaced(struct scene *s)
{
	recent_first(s)->bit = 2;
}

static void recent_between_blocks(struct scene *s)
{
	recent_first(s)->ptr += 8;
}

static void recent_of_another_class(struct scene *s)
{
	s->lane->current[5].recent[0] = *recent_first(s);
	s->lane->current[5].top = sizeof(struct recent);
}

static void recent_of_an_empty_span(struct scene *s)
{
	recent_first(s);
	s->small->empty = true;
	s->lane->empty += UNIT_SIZE * s->small->at.span.length;
}

static void room_forgotten(struct scene *s)
{
	s->small->current->room[place_of(s->lane, s->small)] = 0;
}

static void unused_in_use(struct scene *s)
{
	s->lane->owned[LANE_OWNED - 1].bytes = 16;
}

static void unused_has_entry(struct scene *s)
{
	media_store64(&s->lane->df->owned[LANE_OWNED - 1], s->small->at.ref);
}

static void not_of_its_class(struct scene *s)
{
	place_unset(s->lane->class[s->small->at.span.class].places, place_of(s->lane, s->small));
}

static void held_wrong(struct scene *s)
{
	s->lane->held += UNIT_SIZE;
}

static void empty_wrong(struct scene *s)
{
	s->small->empty = true;
}

static void runs_wrong(struct scene *s)
{
	s->lane->runs.bytes -= UNIT_SIZE;
}

static void run_place_given(struct scene *s)
{
	place_set(s->lane->unused, place_of(s->lane, s->run->place));
	media_store64(entry(s, s->run->place), 0);
}

static void bit_of_no_block(struct scene *s)
{
	/* A span of 16 KiB and 16 bytes a block has as many as a record: of the next class there are fewer. */
	struct owned *o;

	ck_assert_uint_ne(lane_alloc(s->lane, 24), 0);
	o = s->lane->current[class_of(24)].span;
	ck_assert_uint_lt(o->at.blocks, fix.heap.layout.bits);
	media_store64(&state_alloc(o->at.record)[fix.heap.layout.words - 1], UINT64_C(1) << 63);
}

static void limbo_of_a_free_one(struct scene *s)
{
	media_store64(&state_limbo(&fix.heap.layout, s->small->at.record)[0], UINT64_C(1) << 60);
}

static void remote_of_a_free_one(struct scene *s)
{
	media_store64(&state_remote(&fix.heap.layout, s->small->at.record)[0], UINT64_C(1) << 60);
}

static void seal_broken(struct scene *s)
{
	media_store64(&tail(&s->small->at)->seal, 1);
}

static const struct {
	void (*do_break)(struct scene *s);
	const char *rule;
} lane_breaks[] = {
	{ entry_lost, "an owned span is not in the owned-span table" },
	{ run_entry_lost, "an owned span is not in the owned-span table" },
	{ table_changed, "the span table has another span where an owned one is" },
	{ table_not_a_head, "the span table has another span where an owned one is" },
	{ owned_by_another, "an owned span's owner word names somebody else" },
	{ run_owned_by_none, "an owned span's owner word names somebody else" },
	{ current_of_nothing, "a class without a current span has a current word" },
	{ current_of_another_span, "a class's current word is not of its current span" },
	{ current_wrong_bits, "a current word's valid bits are others" },
	{ recents_without_top, "the stack of a class's recent blocks ends between them" },
	{ recent_nowhere, "a recent block has no place" },
	{ recent_misplaced, "a recent block has another's place" },
	{ recent_between_blocks, "a recent block is of a span that is not the class's" },
	{ recent_of_another_class, "a recent block is of a span that is not the class's" },
	{ recent_of_an_empty_span, "a recent block is of a span that is not the class's" },
	{ room_forgotten, "a word with a free block is neither current nor marked to have room" },
	{ unused_in_use, "an unused place has a span" },
	{ unused_has_entry, "an unused place has a span" },
	{ not_of_its_class, "an owned span is not among those of its class" },
	{ held_wrong, "what a lane holds is not the sum of its spans" },
	{ empty_wrong, "what a lane holds is not the sum of its spans" },
	{ runs_wrong, "what a lane holds is not the sum of its spans" },
	{ run_place_given, "a kept run's place is not its own" },
	{ bit_of_no_block, "a bit stands for no block" },
	{ limbo_of_a_free_one, "a block is in limbo and not allocated" },
	{ remote_of_a_free_one, "a block is freed and not allocated" },
	{ seal_broken, "a state record and the span table do not speak of the same span" },
};

/* All places come in turn: one with a broken bit is among the first two. */
static void ask_lane(struct lane *lane)
{
	if (!DEBUG_CHECKS) {
		lane_check_now(lane);
		lane_check_now(lane);
		lane_check_now(lane);
		return;
	}
	/* A class that has nothing yet: each is a refill. */
	lane_alloc(lane, 1000);
	lane_alloc(lane, 2000);
	lane_alloc(lane, 4000);
}

static void break_lane(int i)
{
	struct scene s = make_scene();

	lane_breaks[i].do_break(&s);
	ask_lane(s.lane);
}

START_TEST(lane_rules)
{
	expect_rule(break_lane, _i, lane_breaks[_i].rule);
}
END_TEST

/* What is whole passes. */
static void break_nothing(int i)
{
	struct scene s = make_scene();

	(void)i;
	ask_lane(s.lane);
	lane_check_now(s.lane);
	lane_free(s.lane);
}

START_TEST(nothing_broken)
{
	char said[4096] = "";

	ck_assert_msg(ended(break_nothing, 0, said, sizeof(said)) == 0, "%s", said);
}
END_TEST

/* Rules of the span table and the index of free runs */

/* Two spans of large blocks, the rest is free. */
static void two_runs(uint64_t *first, uint64_t *second)
{
	ck_assert_int_eq(grant_run(fix.grant, 20, 1, first), 0);
	ck_assert_int_eq(grant_run(fix.grant, 20, 1, second), 0);
	ck_assert_uint_eq(ref_unit(*second), ref_unit(*first) + 20);
}

static void index_add(uint32_t unit, uint64_t length)
{
	ck_assert_int_eq(runs_add(fix.grant->runs, (struct run){ .unit = unit, .length = length }), 0);
}

static void run_over_the_end(void)
{
	uint64_t a;

	index_add(UNITS, 8);
	if (DEBUG_CHECKS)
		grant_run(fix.grant, 20, 1, &a);
	else
		grant_check_free(fix.grant, 0, UNITS - 1);
}

/* A span that is in use is in the index beside one that is retired. */
static void run_in_use(void)
{
	uint64_t a, b;

	two_runs(&a, &b);
	media_store64(&state_alloc(fix.shelf[0].state + (uint64_t)ref_unit(b) * fix.heap.layout.stride)[0],
		      1);
	index_add(ref_unit(b), 20);
	if (DEBUG_CHECKS)
		grant_trim(fix.grant);
	else
		grant_check_free(fix.grant, 0, ref_unit(b));
}

/* A granted span is in the index of free runs: what is left of a run is longer than it is. */
static void granted_twice(void)
{
	struct span span = { .kind = SPAN_LARGE, .class = CLASS_LARGE, .length = 20 };
	uint64_t a;

	ck_assert_int_eq(grant_run(fix.grant, 20, 1, &a), 0);
	index_add(ref_unit(a) + 10, 5);
	grant_check_span(fix.grant, a, &span);
}

static void granted_not_in_table(void)
{
	struct span span = { .kind = SPAN_LARGE, .class = CLASS_LARGE, .length = 20 };
	uint64_t a, b;

	two_runs(&a, &b);
	media_store64(&fix.shelf[0].table[ref_unit(b)], 0);
	grant_check_span(fix.grant, b, &span);
}

static void inside_leads_elsewhere(void)
{
	unsigned class = class_of(100000);
	struct span_at at;
	uint64_t a;

	ck_assert_int_eq(grant_spans(fix.grant, class, 1, &a), 1);
	ck_assert_int_eq(heap_span(&fix.heap, a, &at), 0);
	ck_assert_uint_gt(at.span.length, 2);
	media_store64(&fix.shelf[0].table[ref_unit(a) + 2],
		      span_pack((struct span){ .kind = SPAN_INTERIOR, .length = 1 }));
	grant_check_span(fix.grant, a, &at.span);
}

static const struct {
	void (*do_break)(void);
	const char *rule;
} grant_breaks[] = {
	{ run_over_the_end, "a free run of the index is not in the heap" },
	{ run_in_use, "a free run of the index is not one of the span table" },
	{ granted_twice, "a granted span is in the index of free runs" },
	{ granted_not_in_table, "a granted span is not in the span table" },
	{ inside_leads_elsewhere, "a word inside of a granted span does not lead to its head" },
};

static void break_grant(int i)
{
	grant_breaks[i].do_break();
}

START_TEST(grant_rules)
{
	expect_rule(break_grant, _i, grant_breaks[_i].rule);
}
END_TEST

/* Paths: where a build with the checks asks */

static void path_adopt(struct scene *s)
{
	uint64_t ref;
	struct span_at at;

	ck_assert_int_eq(grant_spans(fix.grant, class_of(3000), 1, &ref), 1);
	ck_assert_int_eq(heap_span(&fix.heap, ref, &at), 0);
	media_store64(&state_limbo(&fix.heap.layout, at.record)[0], 1);
	heap_hint(&fix.heap, &at);
	lane_alloc(s->lane, 3000);
}

static void path_release(struct scene *s)
{
	held_wrong(s);
	lane_release(s->lane);
}

static void path_trim(struct scene *s)
{
	held_wrong(s);
	lane_release_empty(s->lane);
}

static void path_keep(struct scene *s)
{
	uint64_t large = lane_alloc(s->lane, LARGE);

	runs_wrong(s);
	lane_dealloc(s->lane, large);
}

static void (*const paths[])(struct scene *s) = { path_adopt, path_release, path_trim, path_keep };

static void take_path(int i)
{
	struct scene s = make_scene();

	paths[i](&s);
}

START_TEST(slow_paths)
{
	char said[4096] = "";
	int status;

	if (!DEBUG_CHECKS) {
		printf("slow_paths: skipped: built without --enable-debug-checks\n");
		return;
	}
	status = ended(take_path, _i, said, sizeof(said));
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && strstr(said, "debug check: "),
		      "path %d: status 0x%x, %s", _i, (unsigned)status, said);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("debug");
	TCase *t = tcase_create("debug");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, nothing_broken);
	tcase_add_loop_test(t, lane_rules, 0, ARRAY_SIZE(lane_breaks));
	tcase_add_loop_test(t, grant_rules, 0, ARRAY_SIZE(grant_breaks));
	tcase_add_loop_test(t, slow_paths, 0, ARRAY_SIZE(paths));
	suite_add_tcase(s, t);
	return suite_run(s);
}
