/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power cuts at every store, flush and drain of reserve, publish and cancel, in durability `power`.
 *
 * As in check_heap_power.c: a child stops just before its k-th point, and the heap is loaded from each image that
 * the medium may have then. The words that are published stand in watched memory too, and what the program had
 * stored there before by itself was not drained. The oracle: all of a publish has happened or nothing; all,
 * if it returned; what was reserved and not published is free; what is held is allocated; what a published
 * block was filled with and had flushed, without a drain, is in it.
 *
 * Settling: the process is killed at a point of its publish, its stores stay pending, and power is cut while the
 * daemon settles it. Loading: the daemon is killed as it grants or retires spans, the next one serves what it
 * finds, a client publishes in it, and power is cut.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/macro.h"
#include "media/limbo.h"
#include "media/publish.h"
#include "tests/crash/cut.h"
#include "tests/crash/faults.h"
#include "tests/crash/ledger.h"
#include "tests/unit/heap_fixture.h"
#include "tests/unit/suite.h"

#define UNITS 48u
#define ACTOR 5u
#define OTHER 6u
#define WORDS 3u /* two that are published; and what the fresh block was filled with */
#ifdef __SANITIZE_ADDRESS__
#define IMAGES 8u
#else
#define IMAGES (ledger_whole() ? 64u : 16u)
#endif

struct scene {
	struct fixture fix;
	struct cut *cut;
	struct lane *actor, *other;
	struct reservations *res;
	uint64_t root;  /* the block of the words */
	uint64_t held;  /* a block that nobody touches */
	uint64_t old;   /* it is freed */
	uint64_t fresh; /* it is reserved */
	uint64_t *told; /* by a child: the fresh block that it reserved */
};

struct operation {
	const char *name;
	void (*act)(struct scene *s);
	size_t size; /* of the blocks */
	bool publishes;
	bool fills;   /* the fresh block, before */
	bool settles; /* what was killed in act() */
	size_t loads; /* act() is the daemon's; of a block that is published after the next one's start */
};

/* Words: on the medium, as the program left them, published; in the fresh block. */
enum { DRAINED = 0, PLAIN = 1, PUBLISHED = 2, FILLED = 3 };

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

static uint64_t reserve(struct scene *s, size_t size)
{
	uint64_t ptr;

	if (lane_reserve(s->actor, s->res, size, &ptr) < 0)
		abort();
	return ptr;
}

static void act_reserve(struct scene *s)
{
	(void)reserve(s, 64);
}

static void act_reserve_fresh(struct scene *s)
{
	(void)reserve(s, 1000);
}

static void act_reserve_large(struct scene *s)
{
	(void)reserve(s, 2 * UNIT_SIZE);
}

static void cancel_by(struct scene *s, struct lane *lane)
{
	uint64_t watch;
	bool wake;

	if (lane_cancel(lane, s->res, s->fresh, &wake, &watch) < 0)
		abort();
	if (wake)
		lane_deferred(lane);
}

static void act_cancel(struct scene *s)
{
	cancel_by(s, s->actor);
}

static void act_cancel_others(struct scene *s)
{
	cancel_by(s, s->other);
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

/* As nvmm_realloc_in() does with the new block. */
static void act_fill_and_publish(struct scene *s)
{
	media_store64(word_at(s, 2), FILLED);
	media_flush(DURABILITY_POWER, word_at(s, 2), sizeof(m64));
	act_publish(s);
}

static void act_settle(struct scene *s)
{
	uint32_t lane = ACTOR;

	s->fix.alive[ACTOR] = false;
	if (grant_settle_lanes(s->fix.grant, &lane, 1) < 0)
		abort();
}

static void act_grant(struct scene *s)
{
	uint64_t refs[4];

	if (grant_spans(s->fix.grant, class_of(1000), 4, refs) < 0)
		abort();
}

static void act_retire(struct scene *s)
{
	lane_release(s->other);
	if (grant_trim(s->fix.grant) < 0)
		abort();
}

/* The next daemon serves, and a client publishes in what it gives. */
static size_t served;

static void act_serve(struct scene *s)
{
	fixture_reload(&s->fix);
	s->fresh = *s->told = reserve(s, served);
	act_publish(s);
}

static const struct operation operations[] = {
	{ .name = "load what was granted", .act = act_grant, .size = 64, .publishes = true,
	  .loads = 1000 },
	{ .name = "load what was granted, large", .act = act_grant, .size = 64, .publishes = true,
	  .loads = 2 * UNIT_SIZE },
	{ .name = "load what was retired", .act = act_retire, .size = 64, .publishes = true,
	  .loads = 1000 },
	{ .name = "load what was retired, large", .act = act_retire, .size = 64,
	  .publishes = true, .loads = 8 * UNIT_SIZE },
	{ .name = "reserve", .act = act_reserve, .size = 64 },
	{ .name = "reserve, fresh span", .act = act_reserve_fresh, .size = 64 },
	{ .name = "reserve, large", .act = act_reserve_large, .size = 64 },
	{ .name = "cancel", .act = act_cancel, .size = 64 },
	{ .name = "cancel, another lane's", .act = act_cancel_others, .size = 64 },
	{ .name = "cancel, large", .act = act_cancel, .size = 2 * UNIT_SIZE },
	{ .name = "publish", .act = act_publish, .size = 64, .publishes = true },
	{ .name = "publish, large", .act = act_publish, .size = 2 * UNIT_SIZE, .publishes = true },
	{ .name = "realloc in", .act = act_fill_and_publish, .size = 64, .publishes = true,
	  .fills = true },
	{ .name = "settle a reserve", .act = act_reserve, .size = 64, .settles = true },
	{ .name = "settle a cancel", .act = act_cancel, .size = 64, .settles = true },
	{ .name = "settle a cancel, large", .act = act_cancel, .size = 2 * UNIT_SIZE,
	  .settles = true },
	{ .name = "settle a publish", .act = act_publish, .size = 64, .publishes = true,
	  .settles = true },
	{ .name = "settle a publish, large", .act = act_publish, .size = 2 * UNIT_SIZE,
	  .publishes = true, .settles = true },
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

/* Spans that are empty, for whoever retires them. */
static void spend(size_t size)
{
	uint64_t ptr[64];

	for (unsigned i = 0; i < ARRAY_SIZE(ptr); i++)
		ptr[i] = get(scene.other, 500);
	for (unsigned i = 0; i < ARRAY_SIZE(ptr); i++)
		ck_assert_int_eq(lane_dealloc(scene.other, ptr[i]), 0);
	served = size;
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
	if (op->loads)
		spend(op->loads);
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

static void run_job(void *arg)
{
	void (*const *fn)(struct scene *s) = arg;

	(*fn)(&scene);
}

static bool stopped_at(long k, void (*fn)(struct scene *s))
{
	return cut_run(scene.cut, k, run_job, &fn);
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
	ck_assert_msg(!returned || done || !op->publishes || op->settles, "%s, point %ld: it returned and is undone",
		      op->name, k);
	ck_assert_msg(live(scene.fresh) == done, "%s, point %ld: reserved block live: %d, published: %d",
		      op->name, k, live(scene.fresh), done);
	ck_assert_msg(live(scene.old) != done, "%s, point %ld: old block live: %d, published: %d",
		      op->name, k, live(scene.old), done);
	ck_assert_msg((first == PUBLISHED) == done && (second == PUBLISHED) == done,
		      "%s, point %ld: words %llu %llu, published: %d", op->name, k,
		      (unsigned long long)first, (unsigned long long)second, done);
	ck_assert_msg(!op->fills || !done || media_load64(word_at(&scene, 2)) == FILLED,
		      "%s, point %ld: it is published and not filled", op->name, k);
}

/* The dead's pins fall now: what it freed may become others', and no later start may free it again. */
static void expect_nothing_left(const struct operation *op, long k)
{
	const struct lane_df *df = &scene.fix.heap.lanes->lane[ACTOR];
	bool left = (media_load64(&df->log.commit) & LOG_COMMIT_MASK) == LOG_COMMIT;

	for (unsigned i = 0; i < LANE_RESERVED; i++)
		left |= media_load64(&df->reserved[i]) != 0;
	ck_assert_msg(!left, "%s, point %ld: a log or an entry comes back", op->name, k);
}

/* Loads every image that the medium may have now. */
static void try_images(const struct operation *op, long k, bool returned, struct ledger *l)
{
	struct cut_images *m = cut_images_new(scene.cut, (uint64_t)k, IMAGES);

	while (cut_images_next(m)) {
		l->images++;
		if (op->settles && returned)
			expect_nothing_left(op, k);
		fixture_reload_cut(&scene.fix);
		verify(op, k, returned);
	}
	cut_images_free(m);
}

/* Cuts the operation at its k-th point; false: it got through. */
static bool cut_at(const struct operation *op, long k, struct ledger *l)
{
	bool stopped;

	scene_init(op);
	stopped = stopped_at(k, op->act);
	try_images(op, k, !stopped, l);
	scene_deinit();
	return stopped;
}

/* The process dies at its j-th point, power is cut at the k-th of who settles it; false: that one got through. */
static bool settler_cut_at(const struct operation *op, long j, long k, struct ledger *l)
{
	bool stopped;

	scene_init(op);
	if (!stopped_at(j, op->act))
		abort();
	stopped = stopped_at(k, act_settle);
	try_images(op, k, !stopped, l);
	scene_deinit();
	return stopped;
}

/* The daemon dies at its j-th point. Whether it did. */
static bool loader_cut_at(const struct operation *op, long j, struct ledger *l)
{
	bool stopped;

	scene_init(op);
	stopped = stopped_at(j, op->act);
	ck_assert(!stopped_at(-1, act_serve));
	scene.fresh = *scene.told;
	try_images(op, j, true, l);
	scene_deinit();
	return stopped;
}

static void sweep_loader(const struct operation *op, struct ledger *l)
{
	while (loader_cut_at(op, (long)l->points, l))
		l->points++;
	l->points++;
}

/* How many points the process has. */
static long points_of(const struct operation *op)
{
	long n = 0;
	bool stopped = true;

	while (stopped) {
		scene_init(op);
		stopped = stopped_at(n, op->act);
		scene_deinit();
		n += stopped;
	}
	return n;
}

/* Each death; power is cut at each point of the settling, or at every fourth, and after it. */
static void sweep_settler(const struct operation *op, struct ledger *l)
{
	long n = points_of(op), step = ledger_whole() ? 1 : 4;

	for (long j = 0; j < n; j++) {
		long k = j % step;

		while (settler_cut_at(op, j, k, l)) {
			k += step;
			l->points++;
		}
		l->points++;
	}
}

static void sweep(const struct operation *op, struct ledger *l)
{
	while (cut_at(op, (long)l->points, l))
		l->points++;
	l->points++;
}

START_TEST(every_point)
{
	const struct operation *op = &operations[_i];
	const char *only = getenv("NVMMD_TEST_OPERATION");
	struct ledger l = { .suite = "publish, power cut", .operation = op->name,
			    .durability = "power" };

	if (only && !strstr(op->name, only))
		return;
	ledger_begin(&l);
	if (op->settles)
		sweep_settler(op, &l);
	else if (op->loads)
		sweep_loader(op, &l);
	else
		sweep(op, &l);
	ledger_end(&l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("publish power");
	TCase *t = tcase_create("publish power");

	fault_plant();
	scene.told = mmap(NULL, sizeof(*scene.told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			  -1, 0);
	if (scene.told == MAP_FAILED)
		return EXIT_FAILURE;
	tcase_set_timeout(t, ledger_whole() ? 3600 : 120);
	tcase_add_loop_test(t, every_point, 0, (int)ARRAY_SIZE(operations));
	suite_add_tcase(s, t);
	return suite_run(s);
}
