/* SPDX-License-Identifier: BSD-3-Clause */
/* daemon/owner.c: no number is given out twice, whatever the node file and the clock say. */
#include "daemon/owner.h"

#include <errno.h>
#include <string.h>

#include "daemon/nvmmd.h"
#include "tests/unit/tempdir.h"

#define NODE 3u
#define CHUNK 4096u
#define COUNT_BITS 40
#define COUNT_MASK ((UINT64_C(1) << COUNT_BITS) - 1)
#define A_SECOND 64u
#define FAR (UINT64_C(1) << 39) /* a bound that no clock of this century asks for */

static struct nvmmd nvmmd;
static int dir;

static void open_file(void)
{
	const char *why = "";

	ck_assert_int_eq(node_file_new(&nvmmd.node_file, &nvmmd.node, dir, NODE, &why), 0);
	nvmmd.node.node = NODE;
}

/* What the daemon does at its start, with the node file that is there. */
static void begin(void)
{
	memset(&nvmmd, 0, sizeof(nvmmd));
	open_file();
	owner_begin(&nvmmd);
	ck_assert_int_eq(node_file_put(nvmmd.node_file, &nvmmd.node), 0);
}

/* Killed: nothing is written any more. */
static void end(void)
{
	node_file_free(nvmmd.node_file);
}

/* The bound as a daemon would find it that starts now. */
static uint64_t bound_in_file(void)
{
	struct node_file *file = NULL;
	struct node_record record;
	const char *why = "";

	ck_assert_int_eq(node_file_new(&file, &record, dir, NODE, &why), 0);
	node_file_free(file);
	return record.owners;
}

static void set_bound(uint64_t bound)
{
	memset(&nvmmd, 0, sizeof(nvmmd));
	open_file();
	nvmmd.node.owners = bound;
	ck_assert_int_eq(node_file_put(nvmmd.node_file, &nvmmd.node), 0);
	end();
}

/* The next count; the number names this node. */
static uint64_t next(void)
{
	uint64_t owner = 0;

	ck_assert_int_eq(owner_next(&owner, &nvmmd), 0);
	ck_assert_uint_eq(owner >> COUNT_BITS, NODE);
	return owner & COUNT_MASK;
}

static void setup(void)
{
	dir = tempdir_new(NULL);
}

START_TEST(a_start_without_a_file_takes_the_clock)
{
	uint64_t clock = (uint64_t)nvmmd_now() * A_SECOND, count;

	begin();
	count = next();
	ck_assert_uint_ge(count, clock);
	ck_assert_uint_le(count, (uint64_t)nvmmd_now() * A_SECOND);
	end();
}
END_TEST

START_TEST(each_number_is_below_the_durable_bound)
{
	uint64_t last = 0;

	begin();
	for (unsigned i = 0; i < 2 * CHUNK + 2; i++) {
		uint64_t count = next();

		ck_assert(i == 0 || count == last + 1);
		if (i % CHUNK < 2 || i % CHUNK == CHUNK - 1)
			ck_assert_uint_lt(count, bound_in_file());
		last = count;
	}
	end();
}
END_TEST

/* Also when the clock stands, or goes back: the bound is far ahead of it. */
START_TEST(a_start_after_a_kill_gives_none_again)
{
	uint64_t last;

	set_bound(FAR);
	begin();
	ck_assert_uint_eq(next(), FAR);
	last = next();
	end();
	begin();
	ck_assert_uint_gt(next(), last);
	ck_assert_uint_gt(bound_in_file(), FAR + CHUNK);
	end();
}
END_TEST

START_TEST(numbers_of_sessions_from_before_are_known)
{
	uint64_t count;

	begin();
	count = next();
	owner_known(&nvmmd, (uint64_t)NODE << COUNT_BITS | (count + 7));
	ck_assert_uint_eq(next(), count + 8);
	/* A lower one, and another node's, change nothing. */
	owner_known(&nvmmd, (uint64_t)NODE << COUNT_BITS | 5);
	owner_known(&nvmmd, (uint64_t)(NODE + 1) << COUNT_BITS | (count + 1000));
	ck_assert_uint_eq(next(), count + 9);
	/* Beyond the bound: it is raised first. */
	owner_known(&nvmmd, (uint64_t)NODE << COUNT_BITS | (count + 3 * CHUNK));
	ck_assert_uint_eq(next(), count + 3 * CHUNK + 1);
	ck_assert_uint_gt(bound_in_file(), count + 3 * CHUNK + 1);
	end();
}
END_TEST

START_TEST(a_bound_that_cannot_be_written_gives_no_number)
{
	uint64_t owner = 77, bound;

	begin();
	bound = nvmmd.node.owners;
	while (nvmmd.owner_count < bound)
		next();
	/* A record that node_file_put() refuses stands in for a file that cannot be written. */
	memset(nvmmd.node.name, 'x', sizeof(nvmmd.node.name));
	ck_assert_int_eq(owner_next(&owner, &nvmmd), -EINVAL);
	ck_assert_uint_eq(owner, 77);
	ck_assert_uint_eq(bound_in_file(), bound);
	memset(nvmmd.node.name, 0, sizeof(nvmmd.node.name));
	ck_assert_uint_eq(next(), bound);
	ck_assert_uint_eq(bound_in_file(), bound + CHUNK);
	end();
}
END_TEST

START_TEST(all_given_out)
{
	uint64_t owner = 77;

	set_bound(COUNT_MASK);
	begin();
	ck_assert_uint_eq(next(), COUNT_MASK);
	ck_assert_int_eq(owner_next(&owner, &nvmmd), -ENOSPC);
	ck_assert_uint_eq(owner, 77);
	end();
	/* And no start begins anew. */
	begin();
	ck_assert_int_eq(owner_next(&owner, &nvmmd), -ENOSPC);
	end();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("owner");
	TCase *tc = tcase_create("owner");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, a_start_without_a_file_takes_the_clock);
	tcase_add_test(tc, each_number_is_below_the_durable_bound);
	tcase_add_test(tc, a_start_after_a_kill_gives_none_again);
	tcase_add_test(tc, numbers_of_sessions_from_before_are_known);
	tcase_add_test(tc, a_bound_that_cannot_be_written_gives_no_number);
	tcase_add_test(tc, all_given_out);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
