/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Death of the daemon at every store, flush and change of a file, in everything that it does to pools.
 *
 * Each operation is run again and again, the daemon dying one point later each time, until it gets
 * through. Then a daemon is started on what is left, which may itself die at points of its start.
 * In one half of the runs the client lives, and repeats its request by itself; in the other it is
 * killed as well. The oracle: the operation was done once or not at all, and was done if the client was
 * told so; no file, id or byte is lost; the other pools know nothing of it; and the next creation
 * and destruction go well.
 *
 * NVMMD_TEST_OPERATION=TEXT: those alone whose name has this text. NVMMD_TEST_LONG=1 visits every point;
 * else about PER_OPERATION of each operation, the first and the last among them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"
#include "tests/crash/ledger.h"
#include "tests/crash/operations.h"

#ifdef __SANITIZE_ADDRESS__ /* it is for what the daemon does, not for when it dies */
#define PER_OPERATION 6u
#define PER_RECOVERY 2u
#else
#define PER_OPERATION 16u
#define PER_RECOVERY 5u
#endif

/* The sweep */

static uint64_t stride(uint64_t points, unsigned visits)
{
	return ledger_whole() ? 1 : DIV_UP(points + !points, visits);
}

static bool run(struct arena *a, const struct operation *op, struct ledger *l, uint64_t k,
		enum fate fate, const uint64_t *starts, unsigned n)
{
	static const char *const fates[] = { "repeats", "dies", "is overtaken" };
	unsigned deaths = 0;
	bool died;

	arena_log(a, "%s: dies at point %lld, the client %s, %u more starts die, from point %lld", op->name,
		  (long long)k, fates[fate], n,
		  n ? (long long)starts[0] : 0);
	died = arena_run(a, op, k, fate, starts, n, &deaths);
	l->images += died;
	l->inner += deaths;
	l->images += deaths;
	return died;
}

/* Every point, or some of them, and the last one; and on until it gets through. */
static void sweep(struct arena *a, const struct operation *op, struct ledger *l, enum fate fate)
{
	uint64_t points = l->points, step = stride(points, PER_OPERATION), k;

	run(a, op, l, 0, fate, NULL, 0);
	for (k = step / (fate == FATE_DIES ? 2 : 1); k + 1 < points; k += step + !step)
		if (k > 0)
			run(a, op, l, k, fate, NULL, 0);
	for (k = points - 1; run(a, op, l, k, fate, NULL, 0); k++)
		;
}

/* The client is late: at the last points the operation is done, at the others it is not yet. */
static void sweep_overtaken(struct arena *a, const struct operation *op, struct ledger *l)
{
	uint64_t step = stride(l->points, PER_RECOVERY), last = l->points - 1;

	for (uint64_t k = 0; k < last; k += step)
		run(a, op, l, k, FATE_OVERTAKEN, NULL, 0);
	run(a, op, l, last, FATE_OVERTAKEN, NULL, 0);
}

/* Starts that die too, of what a death at k left. */
static void sweep_starts(struct arena *a, const struct operation *op, struct ledger *l, uint64_t k)
{
	const uint64_t never = POINTS_NEVER;
	uint64_t starts[2], n;

	if (!run(a, op, l, k, FATE_REPEATS, &never, 1))
		return;
	n = a->passed;
	for (uint64_t j = 0; j < n; j += stride(n, PER_RECOVERY)) {
		starts[0] = j;
		starts[1] = j * 7 % n;
		run(a, op, l, k, j % 2 ? FATE_DIES : FATE_REPEATS, starts, 2);
	}
}

static bool is_asked_for(const char *name)
{
	const char *only = getenv("NVMMD_TEST_OPERATION");

	return !only || strstr(name, only) != NULL;
}

static struct ledger begin(const char *name, const char *durability)
{
	struct ledger l = { .suite = "daemon", .operation = name, .durability = durability };

	ledger_begin(&l);
	return l;
}

static void try_operation(const struct operation *op, bool power)
{
	struct ledger l;
	struct arena a;

	if (!is_asked_for(op->name))
		return;
	l = begin(op->name, power ? "power" : "process");
	if (power)
		arena_init_power(&a);
	else
		arena_init(&a);
	run(&a, op, &l, POINTS_NEVER, FATE_REPEATS, NULL, 0);
	l.points = a.passed;
	ck_assert_uint_gt(l.points, 0);
	sweep(&a, op, &l, FATE_REPEATS);
	sweep(&a, op, &l, FATE_DIES);
	if (op->overtake)
		sweep_overtaken(&a, op, &l);
	for (unsigned i = 1; i <= 3; i++)
		sweep_starts(&a, op, &l, i * l.points / 4);
	arena_deinit(&a);
	ledger_end(&l);
}

START_TEST(every_point)
{
	try_operation(&operations[_i], false);
}
END_TEST

/* Flushes and drains are points there, too. */
START_TEST(every_point_power)
{
	if (operations[_i].power)
		try_operation(&operations[_i], true);
}
END_TEST

/* A base that no daemon has served yet: whatever the first one leaves, the next one serves. */
START_TEST(first_start)
{
	struct ledger l;
	struct arena a;

	if (!is_asked_for("first start"))
		return;
	l = begin("first start", "process");
	arena_init_empty(&a);
	for (uint64_t k = 0; arena_first_start(&a, k); k += stride(l.points, 2 * PER_OPERATION)) {
		l.images++;
		l.points = k + 1;
	}
	ck_assert_uint_gt(l.images, 0);
	ledger_end(&l);
}
END_TEST

/* An orderly stop that is none after all: the next start knows, and finds all of it. */
START_TEST(every_stop)
{
	struct ledger l;
	struct arena a;

	if (!is_asked_for("orderly stop"))
		return;
	l = begin("orderly stop", "process");
	arena_init(&a);
	for (uint64_t k = 0; arena_stop_dying(&a, k); k++)
		l.images++;
	l.points = a.passed;
	ck_assert_uint_gt(l.images, 0);
	arena_deinit(&a);
	ledger_end(&l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("pool kill");
	TCase *t = harness_case(s, "operations", ledger_whole() ? 3600 : 600);

	tcase_add_test(t, first_start);
	tcase_add_test(t, every_stop);
	tcase_add_loop_test(t, every_point, 0, N_OPERATIONS);
	tcase_add_loop_test(t, every_point_power, 0, N_OPERATIONS);
	return harness_run(s);
}
