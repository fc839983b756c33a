/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Death at every media store, flush and drain of the heap's operations, in both durabilities.
 *
 * Each operation runs in a child that is killed just before its k-th point, for every k (of a long one's
 * later points a sample) until it gets through; then the lane is settled, by the daemon that served it or a
 * later one, or by loading the heap anew, and that recovery is killed at its own points too. The oracle: no
 * rule is broken, the operation happened or did not, room that is nobody's is hinted, and what is not
 * allocated can all be had again in one piece or in blocks.
 *
 * NVMMD_TEST_LONG=1: no sampling, of points or of those of recovery.
 * NVMMD_TEST_OPERATION=TEXT: those alone whose name has this text.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"
#include "tests/crash/faults.h"
#include "tests/crash/ledger.h"
#include "tests/crash/scenes.h"
#include "tests/unit/suite.h"

/*
 * The point behind k that is visited next: with NVMMD_TEST_LONG=1 the next one. Else the first ones are
 * visited, then a sample that thins out; earlier under a sanitizer, where a fork takes many times as long.
 */
static long next_point(long k)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	long from = 16;
#else
	long from = 64;
#endif

	return ledger_whole() ? k + 1 : k + 1 + k / from;
}

/* Whether the recovery from the n-th visited point is killed too, at its own points. */
static bool kills_recovery(long n)
{
	return ledger_whole() || n % (n < 40 ? 5 : 40) == 0;
}

struct course {
	const struct scene_operation *op;
	enum durability durability;
	enum scene_recovery recovery;
};

/* Kills the operation at k and, for j >= 0, the first recovery at j. Whether the last of them died; not
 * if it cannot be recovered from so. */
static bool run_once(const struct course *c, long k, long j)
{
	bool died;

	scene_init(c->op, c->durability);
	died = scene_killed(c->op, k);
	if (!scene_allows(c->op, c->recovery)) {
		scene_deinit();
		return false;
	}
	if (j >= 0)
		died = scene_recover_killed(c->op, c->recovery, j);
	scene_recover(c->op, c->recovery);
	scene_verify(c->op, k);
	scene_deinit();
	return died;
}

/* Every point with one way to recover. */
static void sweep(const struct course *c, struct ledger *l)
{
	long k, n = 0;

	for (k = 0; run_once(c, k, -1); k = next_point(k), n++) {
		l->images++;
		if (!kills_recovery(n))
			continue;
		for (long j = 0; run_once(c, k, j); j = next_point(j)) {
			l->images++;
			l->inner++;
		}
	}
	l->points = MAX(l->points, (uint64_t)k); /* visited or not */
}

static void try_operation(const struct scene_operation *op, enum durability durability)
{
	struct ledger l = {
		.suite = "heap",
		.operation = op->name,
		.durability = durability == DURABILITY_POWER ? "power" : "process",
	};
	struct course c = { .op = op, .durability = durability };

	ledger_begin(&l);
	for (c.recovery = 0; c.recovery < N_SCENE_RECOVERIES; c.recovery++)
		sweep(&c, &l);
	ck_assert_uint_gt(l.points, 0);
	ledger_end(&l);
}

START_TEST(every_point)
{
	const struct scene_operation *op = &scene_operations[_i / 2];
	const char *only = getenv("NVMMD_TEST_OPERATION");

	if (!only || strstr(op->name, only))
		try_operation(op, _i % 2 ? DURABILITY_POWER : DURABILITY_PROCESS);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("heap kill");
	TCase *t = tcase_create("heap kill");

	fault_plant();
	tcase_set_timeout(t, ledger_whole() ? 3600 : 300);
	tcase_add_loop_test(t, every_point, 0, 2 * (int)N_SCENES);
	suite_add_tcase(s, t);
	return suite_run(s);
}
