/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power cuts at every store, flush and drain of reserve, publish and cancel, in durability `power`.
 *
 * As in check_heap_power.c: a child stops just before its k-th point, and the heap is loaded from each image that
 * the medium may have then. The words that are published stand in watched memory too, and what the program had
 * stored there before by itself was not drained. The oracle: all of a publish has happened or nothing; all,
 * if it returned; what was reserved and not published is free; what is held is allocated.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/macro.h"
#include "media/limbo.h"
#include "media/publish.h"
#include "tests/crash/cut.h"
#include "tests/crash/faults.h"
#include "tests/crash/ledger.h"
#include "tests/unit/heap_fixture.h"

#define UNITS 48u
#define ACTOR 5u
#define OTHER 6u
#define WORDS 2u
#define IMAGES 64u

struct scene {
	struct fixture fix;
	struct cut *cut;
	struct lane *actor, *other;
	struct reservations *res;
	uint64_t root;  /* the block of the words */
	uint64_t held;  /* a block that nobody touches */
	uint64_t old;   /* it is freed */
	uint64_t fresh; /* it is reserved */
};

struct operation {
	const char *name;
	void (*act)(struct scene *s);
	size_t size; /* of the blocks */
	bool publishes;
};

/* Words: on the medium, as the program left them, published. */
enum { DRAINED = 0, PLAIN = 1, PUBLISHED = 2 };

static struct scene scene;

/* The table of a shelf that is not in service. */
static m64 *word_at(struct scene *s, unsigned i)
{
	return &s->fix.shelf[1].table[i * 16];
}

static int word_map(void *ctx, uint64_t place, m64 **ret)
{
	struct scene *s = ctx;

	*ret = word_at(s, (unsigned)((place & (UNIT_SIZE - 1)) - (s->root & (UNIT_SIZE - 1))) / 8);
	return 0;
}

static void words_done(void *ctx)
{
	(void)ctx;
}

/* Operations */

static void act_reserve(struct scene *s)
{
	uint64_t ptr;

	if (lane_reserve(s->actor, s->res, 64, &ptr) < 0)
		abort();
}

static void act_cancel(struct scene *s)
{
	uint64_t watch;
	bool wake;

	if (lane_cancel(s->actor, s->res, s->fresh, &wake, &watch) < 0)
		abort();
	if (wake)
		lane_deferred(s->actor);
}

static void act_publish(struct scene *s)
{
	const struct publish_action actions[] = {
		{ .kind = LOG_COMMIT_BLOCK, .where = s->fresh },
		{ .kind = LOG_STORE, .where = s->root, .value = PUBLISHED, .word = word_at(s, 0) },
		{ .kind = LOG_STORE, .where = s->root + 8, .value = PUBLISHED,
		  .word = word_at(s, 1) },
		{ .kind = LOG_FREE_BLOCK, .where = s->old },
	};
	uint64_t watch;
	size_t bad;
	bool wake;

	if (lane_publish(s->actor, s->res, actions, ARRAY_SIZE(actions), &bad, &wake, &watch) < 0)
		abort();
	if (wake)
		lane_deferred(s->actor);
}

static const struct operation operations[] = {
	{ "reserve", act_reserve, 64, false },
	{ "cancel", act_cancel, 64, false },
	{ "cancel, large", act_cancel, 2 * UNIT_SIZE, false },
	{ "publish", act_publish, 64, true },
	{ "publish, large blocks", act_publish, 2 * UNIT_SIZE, true },
};

/* The scene */

static void watch(void *metadata, size_t len)
{
	scene.cut = cut_new(metadata, len);
}

static uint64_t get(struct lane *lane, size_t size)
{
	uint64_t ptr = lane_alloc(lane, size);

	ck_assert_uint_ne(ptr, 0);
	return ptr;
}

static void scene_init(const struct operation *op)
{
	fixture_init_power(&scene.fix, UNITS, 16, watch);
	scene.fix.words = (struct grant_words){ .map = word_map, .done = words_done, .ctx = &scene };
	scene.actor = fixture_lane(&scene.fix, ACTOR);
	scene.other = fixture_lane(&scene.fix, OTHER);
	ck_assert_int_eq(reservations_new(&scene.res), 0);
	scene.root = get(scene.actor, 64);
	scene.held = get(scene.actor, op->size);
	scene.old = get(scene.other, op->size);
	ck_assert_int_eq(lane_reserve(scene.actor, scene.res, op->size, &scene.fresh), 0);
	for (unsigned i = 0; i < WORDS; i++)
		media_store64(word_at(&scene, i), PLAIN);
}

static void scene_deinit(void)
{
	for (unsigned i = 0; i < WORDS; i++)
		media_store64(word_at(&scene, i), 0);
	reservations_free(scene.res);
	lane_forget(scene.actor);
	lane_forget(scene.other);
	fixture_deinit(&scene.fix);
	cut_free(scene.cut);
}

static bool stopped_at(long k, void (*fn)(struct scene *s))
{
	int status;
	pid_t pid;

	cut_arm(scene.cut, k);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		fn(&scene);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status) &&
			      (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == CUT_STATUS),
		      "the child failed: %x", (unsigned)status);
	cut_arm(scene.cut, -1);
	return WEXITSTATUS(status) == CUT_STATUS;
}

/* After the cut */

static bool live(uint64_t ptr)
{
	struct span_at at;
	uint32_t index;

	return heap_block(&scene.fix.heap, ptr, &at, &index) == 0 &&
	       span_block_live(&scene.fix.heap, &at, index);
}

static void verify(const struct operation *op, long k, bool returned)
{
	uint64_t first = media_load64(word_at(&scene, 0)), second = media_load64(word_at(&scene, 1));
	bool done = op->publishes && (live(scene.fresh) || first == PUBLISHED);

	fixture_check(&scene.fix);
	ck_assert_msg(live(scene.root) && live(scene.held), "%s, point %ld: a held block is free",
		      op->name, k);
	ck_assert_msg(!returned || done || !op->publishes, "%s, point %ld: it returned and is undone",
		      op->name, k);
	ck_assert_msg(live(scene.fresh) == done, "%s, point %ld: reserved block live: %d, published: %d",
		      op->name, k, live(scene.fresh), done);
	ck_assert_msg(live(scene.old) != done, "%s, point %ld: old block live: %d, published: %d",
		      op->name, k, live(scene.old), done);
	ck_assert_msg((first == PUBLISHED) == done && (second == PUBLISHED) == done,
		      "%s, point %ld: words %llu %llu, published: %d", op->name, k,
		      (unsigned long long)first, (unsigned long long)second, done);
}

/* Cuts the operation at its k-th point; false: it got through. */
static bool cut_at(const struct operation *op, long k, uint64_t *covered)
{
	struct cut_images *m;
	bool stopped;

	scene_init(op);
	stopped = stopped_at(k, op->act);
	m = cut_images_new(scene.cut, (uint64_t)k, IMAGES);
	while (cut_images_next(m)) {
		++*covered;
		fixture_reload_cut(&scene.fix);
		verify(op, k, !stopped);
	}
	cut_images_free(m);
	scene_deinit();
	return stopped;
}

START_TEST(every_point)
{
	const struct operation *op = &operations[_i];
	const char *only = getenv("NVMMD_TEST_OPERATION");
	struct ledger l = { .suite = "publish, power cut", .operation = op->name, .durability = "power" };
	long k = 0;

	if (only && !strstr(op->name, only))
		return;
	ledger_begin(&l);
	while (cut_at(op, k, &l.images))
		k++;
	l.points = (uint64_t)k;
	ledger_end(&l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("publish power");
	TCase *t = tcase_create("publish power");
	SRunner *r = srunner_create(s);
	int failed;

	fault_plant();
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, every_point, 0, (int)ARRAY_SIZE(operations));
	suite_add_tcase(s, t);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
