/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Death at every media store of reserve, publish and cancel.
 *
 * A process with two lanes dies at its k-th store; another, which lives, then takes all the room that
 * there is, as hard as it can, while the dead one's pins still hold; then the dead lanes are settled, by the
 * living daemon or by loading the heap, and that is killed at each of its own stores too, with the other one
 * taking room again in between. The oracle: words and blocks are all as before or all as after; what
 * was reserved is free; what the other took is still its own; everything else can be had again.
 *
 * NVMMD_TEST_LONG=1 visits every point, and every point of every recovery; else a sample, another one each
 * time, from the seed that is printed: NVMMD_TEST_SEED=N has the same one again. NVMMD_TEST_OPERATION=TEXT: those
 * operations alone whose name has this text.
 */
#include <check.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "common/macro.h"
#include "media/limbo.h"
#include "media/publish.h"
#include "tests/crash/faults.h"
#include "tests/crash/killer.h"
#include "tests/crash/ledger.h"
#include "tests/unit/heap_fixture.h"
#include "tests/unit/suite.h"

#define UNITS 96u
#define ACTOR 5u
#define SECOND 6u /* another lane of the actor's process */
#define TAKER 7u  /* a process that lives */
#define TAKEN_MAX 32768u

struct scene {
	struct fixture fix;
	struct lane *actor, *second, *taker;
	struct reservations *res;
	uint64_t root;        /* a block of two words */
	uint64_t before;      /* what the first is until it happened */
	uint64_t fresh[2];    /* reserved blocks, reached by the words afterwards */
	uint64_t old[2];      /* blocks that are freed */
	uint64_t taken[TAKEN_MAX];
	size_t n_taken;
};

struct operation {
	const char *name;
	void (*prepare)(struct scene *s);
	void (*act)(struct scene *s); /* in the child */
	uint64_t size;                /* of the blocks */
};

static struct scene scene;
static const struct operation *op;

static long *points_met; /* shared with the child */

static void count_point(void)
{
	++*points_met;
}

static void run_job(void *arg)
{
	void (*const *fn)(struct scene *s) = arg;

	(*fn)(&scene);
}

/* Runs fn in a child that dies at its k-th point; whether it died there. */
static bool killed_at(long k, void (*fn)(struct scene *s))
{
	*points_met = 0;
	killer_watch = count_point;
	return killer_run(k, run_job, &fn);
}

/* Operations */

static uint64_t get(struct lane *lane, size_t size)
{
	uint64_t ptr = lane_alloc(lane, size);

	if (ptr == 0)
		abort();
	return ptr;
}

static uint64_t reserve(struct scene *s, struct lane *lane, size_t size)
{
	uint64_t ptr;

	if (lane_reserve(lane, s->res, size, &ptr) < 0)
		abort();
	return ptr;
}

static void prepare_nothing(struct scene *s)
{
	(void)s;
}

/* Its span has room: the reservation is all that the operation does. */
static void prepare_span(struct scene *s)
{
	s->old[0] = get(s->actor, op->size);
}

static void act_reserve(struct scene *s)
{
	(void)reserve(s, s->actor, op->size);
}

static void prepare_publish(struct scene *s)
{
	s->root = get(s->actor, 64);
	s->old[0] = get(s->actor, op->size);
	s->old[1] = get(s->taker, op->size);
	s->fresh[0] = reserve(s, s->actor, op->size);
	s->fresh[1] = reserve(s, s->second, op->size);
}

static struct publish_action store(struct scene *s, uint64_t ptr, uint64_t value)
{
	return (struct publish_action){ .kind = LOG_STORE, .where = ptr, .value = value,
					.word = fixture_at(&s->fix, ptr) };
}

static void act_publish(struct scene *s)
{
	struct publish_action actions[] = {
		{ .kind = LOG_COMMIT_BLOCK, .where = s->fresh[0] },
		{ .kind = LOG_COMMIT_BLOCK, .where = s->fresh[1] },
		store(s, s->root, s->fresh[0]),
		store(s, s->root + 8, s->fresh[1]),
		{ .kind = LOG_FREE_BLOCK, .where = s->old[0] },
		{ .kind = LOG_FREE_BLOCK, .where = s->old[1] },
	};
	uint64_t watch;
	size_t bad;
	bool wake;

	if (lane_publish(s->actor, s->res, actions, ARRAY_SIZE(actions), &bad, &wake, &watch) < 0)
		abort();
}

/* As nvmm_realloc_in(): the block that a word names moves, with its content. */
static void prepare_realloc(struct scene *s)
{
	s->root = get(s->actor, 64);
	s->before = s->old[0] = get(s->actor, op->size);
	memset(fixture_at(&s->fix, s->before), 0x5a, op->size);
	media_store64(fixture_at(&s->fix, s->root), s->before);
}

static void act_realloc(struct scene *s)
{
	uint64_t ptr = reserve(s, s->actor, op->size);
	struct publish_action actions[] = {
		{ .kind = LOG_COMMIT_BLOCK, .where = ptr },
		store(s, s->root, ptr),
		{ .kind = LOG_FREE_BLOCK, .where = s->before },
	};
	uint64_t watch;
	size_t bad;
	bool wake;

	memcpy(fixture_at(&s->fix, ptr), fixture_at(&s->fix, s->before), op->size);
	if (lane_publish(s->actor, s->res, actions, ARRAY_SIZE(actions), &bad, &wake, &watch) < 0)
		abort();
}

static void prepare_cancel(struct scene *s)
{
	s->fresh[0] = reserve(s, s->actor, op->size);
}

static void prepare_cancel_other(struct scene *s)
{
	s->fresh[0] = reserve(s, s->second, op->size);
}

static void act_cancel(struct scene *s)
{
	uint64_t watch;
	bool wake;

	if (lane_cancel(s->actor, s->res, s->fresh[0], &wake, &watch) < 0)
		abort();
}

/* Both tables are full; one lane is idle, its thread having ended. */
static void prepare_many(struct scene *s)
{
	for (unsigned i = 0; i < LANE_RESERVED; i++) {
		(void)reserve(s, s->actor, op->size);
		(void)reserve(s, s->second, op->size);
	}
	lane_release(s->second);
}

static void act_nothing(struct scene *s)
{
	(void)s;
}

static const struct operation operations[] = {
	{ "reserve, fresh span", prepare_nothing, act_reserve, 64 },
	{ "reserve, owned span", prepare_span, act_reserve, 64 },
	{ "reserve, large", prepare_nothing, act_reserve, 20 * UNIT_SIZE },
	{ "publish", prepare_publish, act_publish, 64 },
	{ "publish, large", prepare_publish, act_publish, 10 * UNIT_SIZE },
	{ "realloc", prepare_realloc, act_realloc, 256 },
	{ "realloc, large", prepare_realloc, act_realloc, 20 * UNIT_SIZE },
	{ "cancel", prepare_cancel, act_cancel, 64 },
	{ "cancel, another lane's", prepare_cancel_other, act_cancel, 64 },
	{ "cancel, large", prepare_cancel, act_cancel, 20 * UNIT_SIZE },
	{ "full tables", prepare_many, act_nothing, 64 },
};

/* Recovery */

static void scene_init(enum durability durability)
{
	memset(&scene, 0, sizeof(scene));
	fixture_init(&scene.fix, UNITS, 16);
	scene.fix.heap.durability = durability;
	scene.actor = fixture_lane(&scene.fix, ACTOR);
	scene.second = fixture_lane(&scene.fix, SECOND);
	scene.taker = fixture_lane(&scene.fix, TAKER);
	ck_assert_int_eq(reservations_new(&scene.res), 0);
	op->prepare(&scene);
}

static void scene_deinit(void)
{
	lane_forget(scene.actor);
	lane_forget(scene.second);
	lane_free(scene.taker);
	reservations_free(scene.res);
	fixture_deinit(&scene.fix);
}

static void set_alive(struct scene *s, bool alive)
{
	s->fix.alive[ACTOR] = s->fix.alive[SECOND] = alive;
}

/* The daemon died as well: all is loaded anew. */
static void recover_loading(struct scene *s)
{
	set_alive(s, false);
	fixture_reload(&s->fix);
}

/* The daemon that loaded while the client lived sees it die. */
static void recover_settling(struct scene *s)
{
	static const uint32_t lanes[] = { ACTOR, SECOND };

	set_alive(s, true);
	fixture_reload(&s->fix);
	set_alive(s, false);
	ck_assert_int_eq(grant_settle_lanes(s->fix.grant, lanes, 2), 0);
}

static void (*const recoveries[])(struct scene *s) = { recover_loading, recover_settling };

/* The living one takes all that it finds without the daemon: by hints, of spans that the dead left. */
static void pressure(void)
{
	uint64_t ptr;

	scene.fix.away = true;
	while ((ptr = lane_alloc(scene.taker, 64))) {
		ck_assert_uint_lt(scene.n_taken, TAKEN_MAX);
		scene.taken[scene.n_taken++] = ptr;
	}
	scene.fix.away = false;
}

static bool block_live(uint64_t ptr)
{
	struct span_at at;
	uint32_t index;

	return ptr && heap_block(&scene.fix.heap, ptr, &at, &index) == 0 &&
	       span_block_live(&scene.fix.heap, &at, index);
}

/* The dead one's pins have fallen: what is in limbo comes back. */
static void reclaim(void)
{
	struct limbo *limbo;
	int r;

	ck_assert_int_eq(limbo_new(&limbo, &scene.fix.heap), 0);
	while ((r = limbo_snapshot(limbo, 1000)) > 0)
		;
	ck_assert_int_eq(r, 0);
	while ((r = limbo_release(limbo, 1000)) > 0)
		;
	ck_assert_int_eq(r, 0);
	limbo_free(limbo);
}

static uint64_t word(uint64_t ptr)
{
	return media_load64(fixture_at(&scene.fix, ptr));
}

/* The word names a block with the content; which it is now, only the dead one knew. */
static void verify_moved(long k)
{
	const unsigned char *p = fixture_at(&scene.fix, word(scene.root));

	if (word(scene.root) != scene.before)
		scene.fresh[0] = word(scene.root);
	for (uint64_t i = 0; i < op->size; i++)
		if (p[i] != 0x5a)
			ck_abort_msg("%s, point %ld: byte %llu was lost", op->name, k,
				     (unsigned long long)i);
}

/* All or nothing; returns the bytes that are in use by it. */
static uint64_t verify_blocks(long k)
{
	uint64_t used = 0;
	bool happened = scene.root && word(scene.root) != scene.before;

	if (op->act == act_realloc)
		verify_moved(k);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t before = i == 0 ? scene.before : 0;

		if (scene.root)
			ck_assert_msg(word(scene.root + 8 * i) == (happened ? scene.fresh[i] : before),
				      "%s, point %ld: word %u is torn from the rest", op->name, k, i);
		if (scene.fresh[i])
			ck_assert_msg(block_live(scene.fresh[i]) == happened,
				      "%s, point %ld: reserved block %u, published %d", op->name, k,
				      i, happened);
		if (scene.old[i])
			ck_assert_msg(block_live(scene.old[i]) == !happened,
				      "%s, point %ld: freed block %u, published %d", op->name, k, i,
				      happened);
		used += op->size * (block_live(scene.fresh[i]) + block_live(scene.old[i]));
	}
	return used + (scene.root ? 64 : 0);
}

static void verify_lanes(void)
{
	for (unsigned lane = ACTOR; lane <= SECOND; lane++) {
		const struct lane_df *df = &scene.fix.heap.lanes->lane[lane];

		for (unsigned i = 0; i < LANE_RESERVED; i++)
			ck_assert_uint_eq(media_load64(&df->reserved[i]), 0);
		ck_assert_uint_eq(media_load64(&df->log.commit) & LOG_COMMIT_MASK, 0);
	}
}

/* Frees all that is left and takes the whole heap in units. */
static void verify_rest(long k)
{
	const uint64_t left[] = { scene.root, scene.fresh[0], scene.fresh[1], scene.old[0],
				  scene.old[1] };
	uint64_t ref, got = 0;

	for (size_t i = 0; i < scene.n_taken; i++)
		ck_assert_msg(lane_dealloc(scene.taker, scene.taken[i]) == 0,
			      "%s, point %ld: a block of the living was freed", op->name, k);
	for (unsigned i = 0; i < ARRAY_SIZE(left); i++)
		if (left[i] && block_live(left[i]))
			ck_assert_int_eq(lane_dealloc(scene.taker, left[i]), 0);
	fixture_expect_used(&scene.fix, 0);
	lane_release(scene.taker);
	ck_assert_int_ge(grant_trim(scene.fix.grant), 0);
	while (grant_run(scene.fix.grant, 1, 1, &ref) == 0) {
		struct span_at at;

		got++;
		ck_assert_int_eq(heap_span(&scene.fix.heap, ref, &at), 0);
		ck_assert(span_claim(&scene.fix.heap, &at, owner_lane(1, TAKER, 0)));
	}
	ck_assert_msg(got == UNITS, "%s, point %ld: %llu units of %u", op->name, k,
		      (unsigned long long)got, UNITS);
}

static void verify(long k)
{
	uint64_t used;

	fixture_check(&scene.fix);
	reclaim();
	used = verify_blocks(k);
	verify_lanes();
	fixture_expect_used(&scene.fix, used + scene.n_taken * 64);
	verify_rest(k);
}

/* Kills the operation at k and, for j >= 0, the first recovery at j. Whether anything was killed. */
static bool run_once(enum durability durability, unsigned recovery, long k, long j)
{
	bool killed, again = false;

	scene_init(durability);
	killed = killed_at(k, op->act);
	pressure();
	if (j >= 0) {
		again = killed_at(j, recoveries[recovery]);
		pressure();
	}
	recoveries[recovery](&scene);
	verify(k);
	scene_deinit();
	return j >= 0 ? again : killed;
}

#define NEVER LONG_MAX

static long points_of_operation(enum durability durability)
{
	scene_init(durability);
	ck_assert(!killed_at(NEVER, op->act));
	scene_deinit();
	return *points_met;
}

/* Of the recovery from a death at k. */
static long points_of_recovery(enum durability durability, unsigned recovery, long k)
{
	scene_init(durability);
	killed_at(k, op->act);
	pressure();
	ck_assert(!killed_at(NEVER, recoveries[recovery]));
	scene_deinit();
	return *points_met;
}

/* Sampling */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) /* a fork takes many times as long */
#define VISITS 6u
#define RECOVERIES 1u
#define INNER_VISITS 3u
#else
#define VISITS 20u      /* of an operation's points */
#define RECOVERIES 4u   /* of those have the recovery killed, too, */
#define INNER_VISITS 8u /* at so many of its points */
#endif

static uint64_t seed;

static uint64_t next_random(void)
{
	seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return seed >> 33;
}

/*
 * Points that are visited: one of each `step`, at a place that each run chooses anew, so that all are come to, and
 * the last. With NVMMD_TEST_LONG=1 all of them.
 */
struct sample {
	long points, step, k;
};

static struct sample sample_of(long points, unsigned visits)
{
	long step = ledger_whole() ? 1 : (long)DIV_UP((unsigned long)MAX(points, 1L), visits);

	return (struct sample){ .points = points, .step = step,
				.k = (long)(next_random() % (unsigned long)step) };
}

/* The point to visit now; -1: that was all. */
static long sample_next(struct sample *s)
{
	long k = s->k;

	if (k >= s->points)
		return -1;
	s->k = k < s->points - 1 ? MIN(k + s->step, s->points - 1) : s->points;
	return k;
}

struct visited {
	uint64_t points, of;
	uint64_t inner, of_inner;
};

/* Kills the operation at k, and of the recoveries from that some or all. */
static void visit(enum durability durability, unsigned recovery, long k, bool recoveries_too,
		  struct visited *v)
{
	struct sample inner;

	ck_assert_msg(run_once(durability, recovery, k, -1), "%s has no point %ld", op->name, k);
	v->points++;
	if (!recoveries_too)
		return;
	inner = sample_of(points_of_recovery(durability, recovery, k), INNER_VISITS);
	v->of_inner += (uint64_t)inner.points;
	for (long j; (j = sample_next(&inner)) >= 0; v->inner++)
		ck_assert_msg(run_once(durability, recovery, k, j), "no point %ld of recovery", j);
}

/* An operation's points with one way to recover; and that it gets through, and what then remains to recover. */
static void sweep(enum durability durability, unsigned recovery, struct visited *v)
{
	long points = points_of_operation(durability);
	struct sample s = sample_of(points, VISITS);
	uint64_t every = ledger_whole() ? 1 : VISITS / RECOVERIES, n = next_random() % every;
	long inner;

	v->of = (uint64_t)points;
	for (long k; (k = sample_next(&s)) >= 0; n++)
		visit(durability, recovery, k, n % every == 0, v);
	ck_assert(!run_once(durability, recovery, points, -1));
	s = sample_of(points_of_recovery(durability, recovery, points), 2 * INNER_VISITS);
	v->of_inner += (uint64_t)s.points;
	while ((inner = sample_next(&s)) >= 0) {
		run_once(durability, recovery, points, inner);
		v->inner++;
	}
}

static void try_operation(enum durability durability, const char *name)
{
	struct ledger l = { .suite = "publish", .operation = op->name, .durability = name };
	struct visited v = { 0 };

	ledger_begin(&l);
	for (unsigned r = 0; r < ARRAY_SIZE(recoveries); r++)
		sweep(durability, r, &v);
	l.points = v.of;
	l.inner = v.inner;
	l.images = v.points + v.inner + ARRAY_SIZE(recoveries);
	ledger_end(&l);
	printf("  visited: %llu of %llu points, and %llu of %llu of the recoveries from %s of them\n",
	       (unsigned long long)v.points, (unsigned long long)(v.of * ARRAY_SIZE(recoveries)),
	       (unsigned long long)v.inner, (unsigned long long)v.of_inner,
	       ledger_whole() ? "all" : "some");
}

START_TEST(every_point)
{
	const char *only = getenv("NVMMD_TEST_OPERATION");

	op = &operations[_i / 2];
	if (only && !strstr(op->name, only))
		return;
	/* Each its own, whoever runs first. */
	seed += (uint64_t)_i * UINT64_C(0x9e3779b97f4a7c15);
	try_operation(_i % 2 ? DURABILITY_POWER : DURABILITY_PROCESS, _i % 2 ? "power" : "process");
}
END_TEST

/* What is visited, from NVMMD_TEST_SEED or the time. */
static void choose(void)
{
	const char *text = getenv("NVMMD_TEST_SEED");
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	seed = text ? strtoull(text, NULL, 0) :
		      (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	if (!ledger_whole())
		printf("a sample: NVMMD_TEST_SEED=%llu for the same again, NVMMD_TEST_LONG=1 for all\n",
		       (unsigned long long)seed);
	fflush(stdout);
}

int main(void)
{
	Suite *s = suite_create("publish kill");
	TCase *t = tcase_create("publish kill");

	points_met = mmap(NULL, sizeof(*points_met), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (points_met == MAP_FAILED)
		return EXIT_FAILURE;
	fault_plant();
	choose();
	tcase_set_timeout(t, ledger_whole() ? 7200 : 300);
	tcase_add_loop_test(t, every_point, 0, 2 * (int)ARRAY_SIZE(operations));
	suite_add_tcase(s, t);
	return suite_run(s);
}
