/* SPDX-License-Identifier: BSD-3-Clause */
/* daemon/fair.c: users in turn, and what happens to items meanwhile. */
#include "daemon/fair.h"

#include "common/macro.h"
#include "tests/unit/suite.h"

#define ITEMS 100u

struct thing {
	struct fair_item item;
	uid_t uid;
	unsigned runs;
	unsigned again; /* how often it queues itself anew */
};

static struct fair fair;
static uv_loop_t loop;
static uid_t order[4 * ITEMS];
static unsigned served;

static void run(struct fair_item *item)
{
	struct thing *thing = container_of(item, struct thing, item);

	order[served++ % ARRAY_SIZE(order)] = thing->uid;
	thing->runs++;
	if (thing->again > 0) {
		thing->again--;
		fair_push(&fair, item, thing->uid);
	}
}

static void run_slowly(struct fair_item *item)
{
	uint64_t until = uv_hrtime() + FAIR_BUDGET_NS / 4;

	while (uv_hrtime() < until)
		;
	run(item);
}

static void begin(void)
{
	served = 0;
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_int_eq(fair_start(&fair, &loop), 0);
}

static void end(void)
{
	ck_assert_uint_eq(fair.items, 0);
	fair_stop(&fair);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}

static void push(struct thing *things, unsigned n, uid_t uid)
{
	for (unsigned i = 0; i < n; i++) {
		things[i] = (struct thing){ .item.run = run, .uid = uid };
		fair_push(&fair, &things[i].item, uid);
	}
}

START_TEST(one_item_of_each_user_a_round)
{
	static struct thing many[ITEMS], few[2], one[1];

	begin();
	push(many, ITEMS, 1);
	push(few, 2, 2);
	push(one, 1, 3);
	while (fair_serve(&fair))
		;
	ck_assert_uint_eq(served, ITEMS + 3);
	/* Whoever comes after a hundred of another is served after one of them. */
	ck_assert_uint_eq(order[0], 1);
	ck_assert_uint_eq(order[1], 2);
	ck_assert_uint_eq(order[2], 3);
	ck_assert_uint_eq(order[3], 1);
	ck_assert_uint_eq(order[4], 2);
	for (unsigned i = 5; i < served; i++)
		ck_assert_uint_eq(order[i], 1);
	end();
}
END_TEST

START_TEST(a_user_who_never_ends_does_not_delay_others)
{
	static struct thing endless[1], other[1];

	begin();
	push(endless, 1, 1);
	endless[0].again = 3 * ITEMS;
	ck_assert(fair_serve(&fair));
	push(other, 1, 2);
	for (unsigned i = 0; i < 2; i++)
		ck_assert(fair_serve(&fair));
	ck_assert_uint_eq(other[0].runs, 1);
	while (fair_serve(&fair))
		;
	ck_assert_uint_eq(endless[0].runs, 3 * ITEMS + 1);
	end();
}
END_TEST

START_TEST(what_is_taken_out_is_not_run)
{
	static struct thing things[3];

	begin();
	push(things, 3, 1);
	/* Queued twice, it is there once. */
	fair_push(&fair, &things[0].item, 1);
	ck_assert_uint_eq(fair.items, 3);
	fair_remove(&fair, &things[1].item);
	fair_remove(&fair, &things[1].item);
	while (fair_serve(&fair))
		;
	ck_assert_uint_eq(things[0].runs, 1);
	ck_assert_uint_eq(things[1].runs, 0);
	ck_assert_uint_eq(things[2].runs, 1);
	push(things, 1, 2);
	fair_remove(&fair, &things[0].item);
	ck_assert(!fair_serve(&fair));
	end();
}
END_TEST

/* The loop looks for events again before all is served, and does not wait while something is left. */
START_TEST(a_turn_of_the_loop_is_bounded)
{
	static struct thing things[ITEMS];
	unsigned turns = 0;

	begin();
	push(things, ITEMS, 1);
	for (unsigned i = 0; i < ITEMS; i++)
		things[i].item.run = run_slowly;
	while (fair.items > 0) {
		unsigned before = served;

		uv_run(&loop, UV_RUN_NOWAIT);
		turns++;
		ck_assert_uint_gt(served, before);
		ck_assert_uint_le(served - before, 5);
		ck_assert_int_eq(uv_is_active((uv_handle_t *)&fair.idle), fair.items > 0);
	}
	ck_assert_uint_ge(turns, ITEMS / 5);
	end();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fair");
	TCase *tc = tcase_create("users in turn");

	tcase_add_test(tc, one_item_of_each_user_a_round);
	tcase_add_test(tc, a_user_who_never_ends_does_not_delay_others);
	tcase_add_test(tc, what_is_taken_out_is_not_run);
	tcase_add_test(tc, a_turn_of_the_loop_is_bounded);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
