/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What meets the fast paths: a signal handler or the daemon at any instruction, a lane that is another's by now, a
 * span that changed before it was claimed, spans whose guesses fall on each other.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/macro.h"
#include "media/lane_private.h"
#include "media/limbo.h"
#include "media/mark.h"
#include "tests/unit/heap_fixture.h"
#include "tests/unit/suite.h"

static struct fixture fix;

static uint64_t must_alloc(struct lane *lane, size_t size)
{
	uint64_t ptr = lane_alloc(lane, size);

	ck_assert_msg(ptr != 0, "alloc of %zu: %d", size, lane_error(lane));
	return ptr;
}

/* Who has lost a lane does not touch it any more: it is another's. */
START_TEST(lost_lane_is_left_alone)
{
	struct lane_df *df;
	struct lane *old;
	uint64_t a, watch;
	bool wake;

	fixture_init(&fix, 1024, 16);
	df = &fix.heap.lanes->lane[1];
	old = fixture_lane(&fix, 1);
	a = must_alloc(old, 64);
	ck_assert_int_eq(grant_settle(fix.grant, 1), 0);
	ck_assert_uint_eq(lane_alloc(old, 64), 0);
	ck_assert_int_eq(lane_error(old), -ESTALE);
	ck_assert_uint_eq(media_load64(&df->busy), 0);
	/* A store ends the test. */
	ck_assert_int_eq(mprotect(df, sizeof(*df), PROT_READ), 0);
	for (int i = 0; i < 2; i++) {
		ck_assert_uint_eq(lane_alloc(old, 64), 0);
		ck_assert_int_eq(lane_error(old), -ESTALE);
		ck_assert_uint_eq(lane_alloc(old, CLASS_SIZE_MAX + 1), 0);
		ck_assert_int_eq(lane_dealloc(old, a), -ESTALE);
		ck_assert_int_eq(lane_defer(old, a, &wake, &watch), -ESTALE);
	}
	lane_free(old);
	ck_assert_int_eq(mprotect(df, sizeof(*df), PROT_READ | PROT_WRITE), 0);
	fixture_deinit(&fix);
}
END_TEST

/* A claim that comes too late: of what the span is by now the bits are not drained, and its mark says so. */
START_TEST(late_claim_closes_nothing)
{
	struct lane *late, *other;
	struct span_at stale, now;
	uint64_t ref, word, ptr;
	struct owned *o;

	fixture_init_power(&fix, 1024, 16, NULL);
	late = fixture_lane(&fix, 1);
	other = fixture_lane(&fix, 2);
	ck_assert_int_eq(grant_spans(fix.grant, class_of(16384), 1, &ref), 1);
	ck_assert_int_eq(heap_span(&fix.heap, ref, &stale), 0);
	ck_assert_int_gt(grant_trim(fix.grant), 0);
	ptr = must_alloc(other, 16);
	for (int i = 0; i < 500; i++)
		ptr = must_alloc(other, 16);
	ck_assert_int_eq(lane_enter(other), 0);
	owned_release(other, owned_near(other, ptr));
	lane_leave(other);
	ck_assert_int_eq(heap_span(&fix.heap, ref, &now), 0);
	ck_assert_uint_ne(now.span.class, stale.span.class);
	word = media_load64(span_open_word(&fix.heap, &now));
	ck_assert_uint_ne(word & OPEN_MARK, 0);
	ck_assert_int_eq(lane_enter(late), 0);
	o = place_get(late, stale.span.class);
	ck_assert(!place_claim(late, o, &stale));
	place_clear(late, o);
	lane_leave(late);
	ck_assert_uint_eq(media_load64(span_open_word(&fix.heap, &now)), word);
	ck_assert_uint_eq(media_load64(&state_tail(&fix.heap.layout, now.record)->owner), OWNER_NONE);
	lane_free(late);
	lane_free(other);
	fixture_check(&fix);
	fixture_deinit(&fix);
}
END_TEST

/* Blocks that are allocated, by any lane. */
#define HELD_MAX 4096u

static struct held {
	uint64_t ptr[HELD_MAX];
	size_t size[HELD_MAX];
	unsigned n;
} held;

static uint32_t seed;

static uint32_t any(uint32_t n)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % n;
}

static void held_check(void)
{
	for (unsigned i = 0; i < held.n; i++)
		for (unsigned k = 0; k < i; k++)
			if (held.ptr[i] == held.ptr[k])
				ck_abort_msg("%llx was given twice", (unsigned long long)held.ptr[i]);
}

static void held_add(uint64_t ptr, size_t size)
{
	ck_assert_uint_lt(held.n, HELD_MAX);
	held.ptr[held.n] = ptr;
	held.size[held.n++] = size;
}

static uint64_t held_take(void)
{
	unsigned i = any(held.n);
	uint64_t ptr = held.ptr[i];

	held.ptr[i] = held.ptr[--held.n];
	held.size[i] = held.size[held.n];
	return ptr;
}

static uint64_t held_bytes(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < held.n; i++) {
		struct span_at at;
		uint32_t index;

		ck_assert_int_eq(heap_block(&fix.heap, held.ptr[i], &at, &index), 0);
		ck_assert_uint_ge(at.block_size, held.size[i]);
		sum += at.block_size;
	}
	return sum;
}

static void expect_rules(struct lane *lane)
{
	uint64_t where;
	const char *why = NULL;

	ck_assert_int_eq(lane_enter(lane), 0);
	for (unsigned i = 0; i < LANE_OWNED && !why; i++)
		why = lane_check(lane, i, &where);
	lane_leave(lane);
	ck_assert_msg(!why, "unit %llx: %s", (unsigned long long)where, why);
}

/* All that is held is freed: the heap is whole. */
static void expect_whole(struct lane *lane, struct lane *other)
{
	uint64_t big;

	held_check();
	expect_rules(lane);
	expect_rules(other);
	fixture_check(&fix);
	fixture_expect_used(&fix, held_bytes());
	while (held.n > 0)
		ck_assert_int_eq(lane_dealloc(held.n % 2 ? lane : other, held_take()), 0);
	fixture_expect_used(&fix, 0);
	big = must_alloc(lane, fix.shelf[0].units << UNIT_SHIFT);
	ck_assert_int_eq(lane_dealloc(other, big), 0);
	lane_free(lane);
	lane_free(other);
	fixture_check(&fix);
	fixture_deinit(&fix);
}

/* A small block comes from a span that the lane owns. */
static void expect_owned(struct lane *lane, uint64_t ptr)
{
	struct span_at at;
	uint32_t index;
	uint64_t owner;

	ck_assert_int_eq(heap_block(&fix.heap, ptr, &at, &index), 0);
	owner = media_load64(&state_tail(&fix.heap.layout, at.record)->owner);
	ck_assert_uint_eq(owner & OWNER_WHO_MASK, owner_lane(fix.heap.node, lane_number(lane), 0));
}

static size_t any_size(void)
{
	static const size_t sizes[] = { 1, 16, 64, 72, 1000, 1024, 1025, 5000, 40000, CLASS_SIZE_MAX };

	return sizes[any(any(4) ? 4 : ARRAY_SIZE(sizes))];
}

/* Two lanes, all ways of freeing, guesses that collide, revocation; every smallest block. */
START_TEST(two_lanes_at_random)
{
	static const uint32_t mins[] = { 16, 32, 64, 128, 256 };
	struct lane *lane[2];
	uint64_t low, big;

	seed = (uint32_t)_i + 1;
	fixture_init(&fix, 2 * NEAR_UNITS, mins[_i]);
	lane[0] = fixture_lane(&fix, 1);
	lane[1] = fixture_lane(&fix, 2);
	/* What does not fit into the first units comes NEAR_UNITS behind: guesses fall on each other. */
	low = must_alloc(lane[0], 600 * UNIT_SIZE);
	big = must_alloc(lane[0], (NEAR_UNITS - 600) * UNIT_SIZE);
	ck_assert_int_eq(lane_dealloc(lane[1], low), 0);
	ck_assert_int_gt(grant_trim(fix.grant), 0);
	for (int i = 0; i < 100000; i++) {
		struct lane *l = lane[i / 20000 % 2 ? 0 : any(2)];

		/* Many blocks and few by turns: spans become empty. */
		if (any(i / 5000 % 2 ? 50 : HELD_MAX) >= held.n && held.n + 2 < HELD_MAX) {
			size_t size = any_size();

			held_add(must_alloc(l, size), size);
			expect_owned(l, held.ptr[held.n - 1]);
		} else if (held.n > 0) {
			uint64_t ptr = held_take();

			ck_assert_int_eq(lane_dealloc(l, ptr + 8), -EINVAL);
			ck_assert_int_eq(lane_dealloc(l, ptr), 0);
			ck_assert_int_eq(lane_dealloc(lane[any(2)], ptr), -EALREADY);
		}
		if (any(500) == 0)
			held_add(must_alloc(l, (9 + any(20)) << UNIT_SHIFT), 1);
		if (any(1000) == 0)
			lane_release(l);
		if (any(3000) == 0)
			ck_assert_int_ge(grant_revoke_lanes(fix.grant, (uint32_t[]){ 1, 2 }, 2), 0);
		if (i % 50 == 0)
			expect_rules(l);
		if (i % 10000 == 0) {
			held_check();
			fixture_expect_used(&fix, held_bytes() + (NEAR_UNITS - 600) * UNIT_SIZE);
		}
	}
	held_add(big, 1);
	expect_whole(lane[0], lane[1]);
}
END_TEST

/* At every instruction */

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define STEPS

static struct lane *victim, *intruder;
static unsigned long nested, refused, taken;

/* A handler that allocates and frees in the lane that it interrupted. */
static void nest(void)
{
	size_t size = any_size();
	uint64_t ptr;
	int r;

	if (any(2) && held.n > 0) {
		ptr = held_take();
		r = lane_dealloc(victim, ptr);
		if (r != 0)
			held_add(ptr, 1);
	} else {
		ptr = lane_alloc(victim, size);
		r = ptr ? 0 : lane_error(victim);
		if (ptr)
			held_add(ptr, size);
	}
	ck_assert_msg(r == 0 || r == -EDEADLK, "nested: %d", r);
	nested++;
	refused += r != 0;
}

/* Another thread, and the daemon that takes the lane's spans for it. */
static void intrude(void)
{
	int r = any(8) == 0 ? grant_revoke_lanes(fix.grant, (uint32_t[]){ 1 }, 1) : 0;
	size_t size = any_size();

	ck_assert_int_ge(r, 0);
	taken += (unsigned)r;
	if (any(2) && held.n > 0)
		ck_assert_int_eq(lane_dealloc(intruder, held_take()), 0);
	else
		held_add(must_alloc(intruder, size), size);
}

static bool handling;

static void on_step(int sig)
{
	uint32_t kind = any(64);

	(void)sig;
	handling = true;
	if (kind < 8)
		nest();
	else if (kind == 8)
		intrude();
	handling = false;
}

/* The trap flag, behind the red zone. */
static _noinline void stepping(bool on)
{
	if (on)
		__asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; orq $0x100, (%%rsp); popfq; lea 128(%%rsp), %%rsp"
				 ::: "memory", "cc");
	else
		__asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; andq $~0x100, (%%rsp); popfq; "
				 "lea 128(%%rsp), %%rsp" ::: "memory", "cc");
}

/* The daemon's own instructions are not looked at. */
static const struct lane_source *asked;

static int spans_at_once(void *ctx, unsigned class, uint32_t want, uint64_t *refs)
{
	int r;

	if (handling)
		return asked->spans(ctx, class, want, refs);
	stepping(false);
	r = asked->spans(ctx, class, want, refs);
	stepping(true);
	return r;
}

static int run_at_once(void *ctx, uint64_t units, uint64_t align, uint64_t *ref)
{
	int r;

	if (handling)
		return asked->run(ctx, units, align, ref);
	stepping(false);
	r = asked->run(ctx, units, align, ref);
	stepping(true);
	return r;
}

START_TEST(at_every_instruction)
{
	static struct lane_source source;
	struct sigaction action = { .sa_handler = on_step };

	seed = (uint32_t)_i + 1;
	fixture_init(&fix, 4096, 16);
	victim = fixture_lane(&fix, 1);
	source = *(asked = victim->source);
	source.spans = spans_at_once;
	source.run = run_at_once;
	victim->source = &source;
	intruder = fixture_lane(&fix, 2);
	ck_assert_int_eq(sigaction(SIGTRAP, &action, NULL), 0);
	for (int i = 0; i < 700; i++) {
		bool more = held.n == 0 || (held.n < 300 && any(5) < (held.n < 150 ? 3 : 2));
		size_t size = any_size();
		uint64_t ptr = more ? 0 : held_take();
		int r = 0;

		stepping(true);
		if (more)
			ptr = lane_alloc(victim, size);
		else
			r = lane_dealloc(victim, ptr);
		stepping(false);
		ck_assert_msg(r == 0 && ptr != 0, "%d %d", r, lane_error(victim));
		ck_assert_uint_eq(media_load64(&fix.heap.lanes->lane[1].busy), 0);
		if (more)
			held_add(ptr, size);
		if (i % 100 == 0) {
			held_check();
			expect_rules(victim);
		}
	}
	ck_assert_uint_gt(nested, 1000);
	ck_assert_uint_gt(refused, 100);
	ck_assert_uint_gt(nested - refused, 100);
	ck_assert_uint_gt(taken, 5);
	victim->source = asked;
	expect_whole(victim, intruder);
}
END_TEST

#endif

int main(void)
{
	Suite *s = suite_create("lane_quick");
	TCase *t = tcase_create("lane_quick");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, lost_lane_is_left_alone);
	tcase_add_test(t, late_claim_closes_nothing);
	suite_add_tcase(s, t);
	t = tcase_create("at random");
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, two_lanes_at_random, 0, 5);
	suite_add_tcase(s, t);
#ifdef STEPS
	t = tcase_create("steps");
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, at_every_instruction, 0, 4);
	suite_add_tcase(s, t);
#endif
	return suite_run(s);
}
