/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Queues of jobs: users take turns, none has all places, and a class takes none of another's. Counts decide.
 */
#include "common/macro.h"
#include "daemon/job_queue.h"
#include "tests/unit/tempdir.h"

#define FLOOD 1000u

static struct job_queue queue;
static struct job_turn flood[FLOOD], few[4];

static void setup(void)
{
	job_queue_init(&queue);
	job_queue_limit(&queue, JOB_WORK, 4, 2);
	job_queue_limit(&queue, JOB_LOOK, 2, 1);
	for (unsigned i = 0; i < FLOOD; i++)
		job_queue_push(&queue, &flood[i], JOB_WORK, 1000, i);
}

/* Ends all that waits. */
static void teardown(void)
{
	struct job_turn *turn;

	for (unsigned class = 0; class < JOB_CLASSES; class++)
		while ((turn = job_queue_first(&queue, class)))
			job_queue_remove(&queue, turn);
	job_queue_deinit(&queue);
}

START_TEST(one_user_never_has_all_places)
{
	struct job_turn *a = job_queue_pop(&queue, JOB_WORK, 5), *b = job_queue_pop(&queue, JOB_WORK, 5);

	ck_assert_ptr_eq(a, &flood[0]);
	ck_assert_ptr_eq(b, &flood[1]);
	ck_assert_ptr_null(job_queue_pop(&queue, JOB_WORK, 5));
	/* Another user begins at once, with 998 jobs before its own. */
	job_queue_push(&queue, &few[0], JOB_WORK, 1001, 5);
	ck_assert_ptr_eq(job_queue_pop(&queue, JOB_WORK, 6), &few[0]);
	job_queue_end(&queue, a);
	ck_assert_ptr_eq(job_queue_pop(&queue, JOB_WORK, 6), &flood[2]);
	job_queue_end(&queue, b);
	job_queue_end(&queue, &flood[2]);
	job_queue_end(&queue, &few[0]);
	ck_assert_uint_eq(queue.class[JOB_WORK].running, 0);
	ck_assert_uint_eq(queue.class[JOB_WORK].waiting, FLOOD - 3);
	ck_assert_uint_eq(queue.class[JOB_WORK].longest, 5);
}
END_TEST

START_TEST(users_take_turns)
{
	struct job_turn *turn;

	job_queue_limit(&queue, JOB_WORK, 1, 1);
	for (unsigned i = 0; i < ARRAY_SIZE(few); i++)
		job_queue_push(&queue, &few[i], JOB_WORK, i % 2 ? 1001 : 1002, 0);
	/* Of the first six that begin, two are each user's, in the order of its own. */
	for (unsigned i = 0; i < 6; i++) {
		turn = job_queue_pop(&queue, JOB_WORK, 0);
		ck_assert_ptr_eq(turn, i % 3 == 0 ? &flood[i / 3] :
				       i % 3 == 1 ? &few[2 * (i / 3)] : &few[2 * (i / 3) + 1]);
		ck_assert_ptr_null(job_queue_pop(&queue, JOB_WORK, 0));
		job_queue_end(&queue, turn);
	}
}
END_TEST

START_TEST(classes_are_apart)
{
	job_queue_pop(&queue, JOB_WORK, 0);
	job_queue_pop(&queue, JOB_WORK, 0);
	job_queue_push(&queue, &few[0], JOB_LOOK, 1000, 0);
	ck_assert_ptr_eq(job_queue_pop(&queue, JOB_LOOK, 0), &few[0]);
	job_queue_end(&queue, &few[0]);
	job_queue_end(&queue, &flood[0]);
	job_queue_end(&queue, &flood[1]);
}
END_TEST

START_TEST(hastened_for_another_user)
{
	struct job_turn *turn;

	job_queue_hasten(&queue, &flood[FLOOD - 1], 1001);
	turn = job_queue_pop(&queue, JOB_WORK, 0);
	ck_assert_ptr_eq(turn, &flood[0]);
	ck_assert_ptr_eq(job_queue_pop(&queue, JOB_WORK, 0), &flood[FLOOD - 1]);
	job_queue_end(&queue, turn);
	job_queue_end(&queue, &flood[FLOOD - 1]);
	ck_assert_uint_eq(job_queue_oldest(&queue, JOB_WORK, 50), 49);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("job_queue");
	TCase *tc = tcase_create("job_queue");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, one_user_never_has_all_places);
	tcase_add_test(tc, users_take_turns);
	tcase_add_test(tc, classes_are_apart);
	tcase_add_test(tc, hastened_for_another_user);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
