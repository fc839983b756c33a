/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Death at every media store of the heap's operations.
 *
 * Each operation runs in a child that is killed just before its k-th store, for every k until it gets
 * through; then the lane is settled, either with the daemon alive or by loading the heap anew, and that
 * recovery is killed at its own stores too. The oracle: no rule is broken, the operation happened or did
 * not, and what is not allocated can all be had again in one piece or in blocks.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/macro.h"
#include "tests/unit/heap_fixture.h"

#define UNITS 96u
#define ACTOR 5u
#define OTHER 6u

/* What an operation works on; prepared before the child starts. */
struct scene {
	struct fixture fix;
	struct lane *actor;
	struct lane *other;
	uint64_t ptr[4096];
	unsigned n;
	uint64_t before, after; /* bytes used, either way */
};

struct operation {
	const char *name;
	void (*prepare)(struct scene *s);
	void (*act)(struct scene *s); /* in the child */
};

static struct scene scene;

/* The killer */

static long points_left;

static void point(enum media_point kind, const void *addr, size_t len)
{
	(void)kind;
	(void)addr;
	(void)len;
	if (points_left-- == 0)
		_exit(99);
}

static void nothing(const void *addr, size_t len)
{
	(void)addr;
	(void)len;
}

static void nothing_either(void)
{
}

static const struct media_backend killer = {
	.flush = nothing,
	.drain = nothing_either,
	.point = point,
};

/* Runs fn in a child that dies at its k-th store; whether it died there. */
static bool killed_at(long k, void (*fn)(struct scene *s))
{
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		points_left = k;
		media_backend = &killer;
		fn(&scene);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	ck_assert_msg(WEXITSTATUS(status) == 99 || WEXITSTATUS(status) == 0,
		      "the child failed: %d", WEXITSTATUS(status));
	return WEXITSTATUS(status) == 99;
}

/* Operations */

static uint64_t get(struct lane *lane, size_t size)
{
	uint64_t ptr = lane_alloc(lane, size);

	if (ptr == 0)
		abort();
	return ptr;
}

static void put(struct lane *lane, uint64_t ptr)
{
	if (lane_dealloc(lane, ptr) < 0)
		abort();
}

static void prepare_nothing(struct scene *s)
{
	s->after = 64;
}

static void act_alloc(struct scene *s)
{
	(void)get(s->actor, 64);
}

static void prepare_one(struct scene *s)
{
	s->ptr[s->n++] = get(s->actor, 64);
	s->before = 64;
	s->after = 128;
}

static void prepare_free(struct scene *s)
{
	prepare_one(s);
	s->after = 0;
}

static void act_free(struct scene *s)
{
	put(s->actor, s->ptr[0]);
}

static void prepare_foreign(struct scene *s)
{
	s->ptr[s->n++] = get(s->other, 64);
	s->before = 64;
	s->after = 0;
}

/* The foreign block's span is nobody's, so the free alone makes it empty. */
static void prepare_unowned(struct scene *s)
{
	prepare_foreign(s);
	lane_free(s->other);
	s->other = fixture_lane(&s->fix, OTHER);
}

/* The actor's span is exhausted and all of it was freed by another: the next alloc collects. */
static void prepare_collect(struct scene *s)
{
	for (int i = 0; i < 256; i++)
		s->ptr[s->n++] = get(s->actor, 64);
	while (s->n > 0)
		put(s->other, s->ptr[--s->n]);
	s->after = 64;
}

/* The same, adopted from another lane by its hint. */
static void prepare_adopt(struct scene *s)
{
	for (int i = 0; i < 256; i++)
		s->ptr[s->n++] = get(s->other, 64);
	lane_free(s->other);
	s->other = fixture_lane(&s->fix, OTHER);
	for (; s->n > 100; s->n--)
		put(s->other, s->ptr[s->n - 1]);
	s->before = 100 * 64;
	s->after = 101 * 64;
}

static void prepare_large(struct scene *s)
{
	s->after = 20 * UNIT_SIZE;
}

static void act_large(struct scene *s)
{
	(void)get(s->actor, 20 * UNIT_SIZE);
}

static void prepare_large_free(struct scene *s)
{
	s->ptr[s->n++] = get(s->actor, 20 * UNIT_SIZE);
	s->before = 20 * UNIT_SIZE;
}

/* A large block was freed and its span is kept. */
static void prepare_kept(struct scene *s)
{
	uint64_t ptr = lane_alloc_aligned(s->actor, 2 * UNIT_SIZE, 2 * UNIT_SIZE);

	if (ptr == 0)
		abort();
	put(s->actor, ptr);
	s->after = 2 * UNIT_SIZE;
}

static void act_kept(struct scene *s)
{
	if (lane_alloc_aligned(s->actor, 2 * UNIT_SIZE, 2 * UNIT_SIZE) == 0)
		abort();
}

/* As many bytes are kept as may be in so small a heap, three units: the oldest goes for the next. */
static void prepare_kept_full(struct scene *s)
{
	uint64_t a = lane_alloc_aligned(s->actor, 2 * UNIT_SIZE, UNIT_SIZE);
	uint64_t b = lane_alloc_aligned(s->actor, 2 * UNIT_SIZE, 2 * UNIT_SIZE);

	s->ptr[s->n++] = lane_alloc_aligned(s->actor, 2 * UNIT_SIZE, 2 * UNIT_SIZE);
	put(s->actor, a);
	put(s->actor, b);
	s->before = 2 * UNIT_SIZE;
}

/* The heap is full of empty small spans: a large block makes the daemon retire them. */
static void prepare_retire(struct scene *s)
{
	uint64_t ptr;

	while ((ptr = lane_alloc(s->other, 1024)))
		s->ptr[s->n++] = ptr;
	while (s->n > 0)
		put(s->other, s->ptr[--s->n]);
	lane_free(s->other);
	s->other = fixture_lane(&s->fix, OTHER);
	s->after = 80 * UNIT_SIZE;
}

static void act_retire(struct scene *s)
{
	(void)get(s->actor, 80 * UNIT_SIZE);
}

/* All is free, but each unit is a run of its own in the table: a span of more is cut from several. */
static void prepare_join(struct scene *s)
{
	uint64_t ref;

	for (unsigned i = 0; i < UNITS; i++)
		ck_assert_int_eq(grant_run(s->fix.grant, 1, 1, &ref), 0);
	ck_assert_int_eq(grant_trim(s->fix.grant), UNITS * UNIT_SIZE);
	s->after = 65536;
}

static void act_join(struct scene *s)
{
	(void)get(s->actor, 65536);
}

/* Likewise, and the span begins inside of the run: what is before it stays free. */
static void prepare_aligned(struct scene *s)
{
	uint64_t ref;

	prepare_join(s);
	ck_assert_int_eq(grant_run(s->fix.grant, 1, 1, &ref), 0);
	s->ptr[s->n++] = get(s->actor, 20 * UNIT_SIZE);
	s->before = 20 * UNIT_SIZE;
	s->after = 23 * UNIT_SIZE;
}

static void act_aligned(struct scene *s)
{
	if (lane_alloc_aligned(s->actor, 32 * UNIT_SIZE, 3 * UNIT_SIZE) == 0)
		abort();
}

/* A lane that holds spans of several classes ends. */
static void prepare_disown(struct scene *s)
{
	for (size_t size = 16; size <= 2048; size *= 2)
		s->ptr[s->n++] = get(s->actor, size);
	s->before = s->after = 4080;
}

static void act_disown(struct scene *s)
{
	lane_free(s->actor);
}

static const struct operation operations[] = {
	{ "alloc, fresh span", prepare_nothing, act_alloc },
	{ "alloc, owned span", prepare_one, act_alloc },
	{ "free by the owner", prepare_free, act_free },
	{ "free of another's", prepare_foreign, act_free },
	{ "free, unowned span", prepare_unowned, act_free },
	{ "alloc, collecting", prepare_collect, act_alloc },
	{ "alloc, adopting", prepare_adopt, act_alloc },
	{ "alloc, large", prepare_large, act_large },
	{ "free, large", prepare_large_free, act_free },
	{ "alloc, kept run", prepare_kept, act_kept },
	{ "free, kept runs", prepare_kept_full, act_free },
	{ "alloc, retiring", prepare_retire, act_retire },
	{ "alloc, joined runs", prepare_join, act_join },
	{ "alloc, aligned", prepare_aligned, act_aligned },
	{ "lane ends", prepare_disown, act_disown },
};

/* Recovery */

static void scene_init(const struct operation *op)
{
	scene.n = 0;
	scene.before = scene.after = 0;
	fixture_init(&scene.fix, UNITS, 16);
	scene.actor = fixture_lane(&scene.fix, ACTOR);
	scene.other = fixture_lane(&scene.fix, OTHER);
	op->prepare(&scene);
}

/* The daemon died as well: all is loaded anew. */
static void recover_loading(struct scene *s)
{
	s->fix.alive[ACTOR] = false;
	fixture_reload(&s->fix);
}

/* The daemon that loaded while the client lived sees it die. */
static void recover_settling(struct scene *s)
{
	s->fix.alive[ACTOR] = true;
	fixture_reload(&s->fix);
	s->fix.alive[ACTOR] = false;
	ck_assert_int_eq(grant_settle(s->fix.grant, ACTOR), 0);
}

static void (*const recoveries[])(struct scene *s) = { recover_loading, recover_settling };

/* What is left is whole: counts, rules, and every free byte can be had. */
static void verify(const struct operation *op, long k)
{
	struct heap_totals t;
	uint64_t ref, got = 0;
	unsigned held = 0;

	fixture_check(&scene.fix);
	ck_assert_int_eq(heap_count(&scene.fix.heap, &t), 0);
	ck_assert_msg(t.used == scene.before || t.used == scene.after,
		      "%s, store %ld: %llu bytes used, not %llu or %llu", op->name, k,
		      (unsigned long long)t.used, (unsigned long long)scene.before,
		      (unsigned long long)scene.after);
	lane_free(scene.other);
	scene.other = NULL;
	ck_assert_int_ge(grant_trim(scene.fix.grant), 0);
	ck_assert_int_eq(heap_count(&scene.fix.heap, &t), 0);
	for (; grant_run(scene.fix.grant, 1, 1, &ref) == 0; got++) {
		struct span_at at;

		ck_assert_int_eq(heap_span(&scene.fix.heap, ref, &at), 0);
		ck_assert(span_claim(&scene.fix.heap, &at, owner_lane(1, OTHER, 0)));
	}
	/* All units but those of spans that hold a block. */
	for (uint64_t u = 0; u < UNITS;) {
		struct span_at at;

		ck_assert_int_eq(heap_span(&scene.fix.heap, ref_make(0, (uint32_t)u), &at), 0);
		if (span_used(&scene.fix.heap, &at) > 0)
			held += at.span.length;
		u += at.span.length;
	}
	ck_assert_msg(got + held == UNITS, "%s, store %ld: %llu units free and %u held of %u",
		      op->name, k, (unsigned long long)got, held, UNITS);
}

static void scene_deinit(void)
{
	lane_forget(scene.actor);
	if (scene.other)
		lane_forget(scene.other);
	fixture_deinit(&scene.fix);
}

/* Kills the operation at k and, for j >= 0, the first recovery at j. Whether anything was killed. */
static bool run_once(const struct operation *op, unsigned recovery, long k, long j)
{
	bool killed, again = false;

	scene_init(op);
	killed = killed_at(k, op->act);
	if (j >= 0)
		again = killed_at(j, recoveries[recovery]);
	recoveries[recovery](&scene);
	verify(op, k);
	scene_deinit();
	return j >= 0 ? again : killed;
}

/*
 * The store behind k that is visited next. All of them are, but under a sanitizer, where a fork takes
 * many times as long: there the first ones, then a sample that thins out. The ordinary build of the same
 * test run visits the others.
 */
static long next_point(long k)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return k + 1 + k / 16;
#else
	return k + 1;
#endif
}

START_TEST(every_store)
{
	const struct operation *op = &operations[_i];
	long points = 0, inner = 0;

	for (unsigned r = 0; r < ARRAY_SIZE(recoveries); r++)
		for (long k = 0, n = 0; run_once(op, r, k, -1); k = next_point(k), n++, points++)
			/* Recovery is killed at each of its own stores for a sample of the k. */
			for (long j = 0; n % 5 == 0 && run_once(op, r, k, j); j = next_point(j))
				inner++;
	ck_assert_int_gt(points, 0);
	printf("%s: %ld points, %ld inside recovery, 0 failures\n", op->name, points, inner);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("heap kill");
	TCase *t = tcase_create("heap kill");
	SRunner *r = srunner_create(s);
	int failed;

	tcase_set_timeout(t, 300);
	tcase_add_loop_test(t, every_store, 0, (int)ARRAY_SIZE(operations));
	suite_add_tcase(s, t);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
