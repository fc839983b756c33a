/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Death at every step of a sparse heap's grants and of giving space back: each store, and each call that
 * reserves or punches.
 *
 * The operation runs in a child that is killed just before its k-th point, for every k until it gets through.
 * Then the heap is loaded anew, as after a death of daemon and client, and loading is killed too. The oracle:
 * whatever the table leads to is reserved, nothing else of the metadata is, no rule is broken, blocks that
 * were there keep their bytes, and all that is free can be had and written to.
 *
 * NVMMD_TEST_LONG=1: loading is killed at every point, not at a sample.
 */
#include <check.h>
#include <stdlib.h>

#include "common/macro.h"
#include "tests/crash/killer.h"
#include "tests/crash/ledger.h"
#include "tests/unit/sparse_fixture.h"
#include "tests/unit/suite.h"

#define MIB (UINT64_C(1) << 20)
#define UNITS 2048u /* 32 MiB, four granules */
#define KEPT 40u

struct operation {
	const char *name;
	void (*prepare)(void);
	void (*act)(void *unused); /* in the child */
};

static struct sparse sparse;
static uint64_t kept[KEPT];
static uint64_t ptr[64];

/* Operations */

static uint64_t get(uint64_t size)
{
	uint64_t p = sparse_alloc(&sparse, size);

	if (p == 0)
		abort();
	return p;
}

static void put_all(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(ptr); i++)
		if (ptr[i] && lane_dealloc(sparse.lane, ptr[i]) < 0)
			abort();
	lane_release(sparse.lane);
}

static void prepare_none(void)
{
}

/* Freed and given back: what is granted next is a hole. */
static void prepare_trimmed(void)
{
	for (unsigned i = 0; i < 5; i++)
		ptr[i] = get(3 * MIB);
	put_all();
	sparse_trim(&sparse);
}

static void prepare_freed(void)
{
	for (unsigned i = 0; i < 20; i++)
		ptr[i] = get(i % 2 ? MIB : 50000);
	put_all();
}

static void act_small(void *unused)
{
	(void)unused;
	(void)get(5000);
}

static void act_run(void *unused)
{
	(void)unused;
	(void)get(9 * MIB);
}

static void act_wish(void *unused)
{
	(void)unused;
	(void)get(20 * MIB);
}

static void act_trim(void *unused)
{
	(void)unused;
	sparse_trim(&sparse);
}

static const struct operation operations[] = {
	{ "a fresh span", prepare_none, act_small },
	{ "a span where space was given back", prepare_trimmed, act_small },
	{ "a run over granules", prepare_none, act_run },
	{ "a run where space was given back", prepare_trimmed, act_run },
	{ "a run by a wish", prepare_trimmed, act_wish },
	{ "a trim", prepare_freed, act_trim },
};

/* Recovery */

static void load(void *unused)
{
	(void)unused;
	sparse_reload(&sparse, true);
	if (grant_space_clear(sparse.grant) < 0)
		abort();
}

static void verify(void)
{
	sparse_check(&sparse);
	for (unsigned i = 0; i < KEPT; i++)
		ck_assert_int_eq(*(char *)sparse_at(&sparse, kept[i]), 1);
	while (sparse_alloc(&sparse, 2 * MIB) != 0)
		;
	while (sparse_alloc(&sparse, 10000) != 0)
		;
	while (sparse_alloc(&sparse, 16) != 0)
		;
	sparse_check(&sparse);
}

static void scene_init(const struct operation *op)
{
	for (unsigned i = 0; i < ARRAY_SIZE(ptr); i++)
		ptr[i] = 0;
	sparse_init(&sparse, UNITS, UNITS);
	for (unsigned i = 0; i < KEPT; i++)
		kept[i] = get(100 + i * 700);
	op->prepare();
}

/* One death of the operation at k, then deaths of loading at every `step`-th point; whether it died. */
static bool run_once(const struct operation *op, long k, struct ledger *l)
{
	long step = ledger_whole() ? 1 : 11;
	bool died;

	scene_init(op);
	died = killer_run(k, op->act, NULL);
	sparse.torn = died;
	for (long j = k % MIN(step, 7); killer_run(j, load, NULL); j += step)
		l->inner++;
	l->images++;
	load(NULL);
	verify();
	sparse_deinit(&sparse);
	return died;
}

START_TEST(every_point)
{
	const struct operation *op = &operations[_i];
	struct ledger l = { .suite = "sparse heap", .operation = op->name, .durability = "process" };

	ledger_begin(&l);
	while (run_once(op, (long)l.points, &l))
		l.points++;
	ck_assert_uint_gt(l.points, 1);
	l.points++;
	ledger_end(&l);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sparse kill");
	TCase *tcase = tcase_create("points");

	tcase_set_timeout(tcase, ledger_whole() ? 3600 : 180);
	tcase_add_loop_test(tcase, every_point, 0, ARRAY_SIZE(operations));
	suite_add_tcase(suite, tcase);
	return suite_run(suite);
}
