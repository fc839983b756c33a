/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power cuts at every store, flush and drain of the heap's operations, in durability `power`.
 *
 * Each operation runs in a child that stops just before its k-th point, for every k; then, for each
 * image that the medium may have (all subsets of the undrained words, or a sample), the heap is loaded
 * as after a power cut, and for some that loading is cut itself. The oracle, from claims that are written when calls
 * return: no rule is broken; what was allocated is; suspects are in spans that were open; when a
 * sweep has freed the suspects that are not claimed, what is used is exactly what is claimed,
 * but for the call under way, and all the rest can be had.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/macro.h"
#include "media/limbo.h"
#include "media/mark.h"
#include "media/marks.h"
#include "tests/crash/cut.h"
#include "tests/crash/faults.h"
#include "tests/crash/ledger.h"
#include "tests/unit/heap_fixture.h"
#include "tests/unit/suite.h"

#define UNITS 48u
#define CLAIMS_MAX 4096u
#define ACTOR 5u
#define OTHER 6u
#define IMAGES 24u
#define IMAGES_LONG 256u
#define INNER_IMAGES 6u

enum held { FREED, HELD, MAYBE };

/* What calls have returned, in memory that a child shares with the test. */
struct claims {
	uint64_t under_way; /* bytes that a call may have allocated */
	unsigned n;
	uint64_t ptr[CLAIMS_MAX];
	uint8_t state[CLAIMS_MAX];
};

/* As ck_assert_msg(), which writes a line each time; these run by the million. */
#define must(cond, ...)                            \
	do {                                       \
		if (!(cond))                       \
			ck_abort_msg(__VA_ARGS__); \
	} while (0)

struct scene {
	struct fixture fix;
	struct cut *cut;
	struct claims *claims;
	struct lane *actor, *other;
	struct limbo *limbo;
};

struct operation {
	const char *name;
	void (*prepare)(struct scene *s);
	void (*act)(struct scene *s);
	unsigned stride; /* every how many points power is cut; with NVMMD_TEST_LONG=1 more often */
};

static struct scene scene;

/* Calls, and what they make the program's */

static unsigned get(struct scene *s, struct lane *lane, size_t size)
{
	struct claims *l = s->claims;
	uint64_t ptr;

	l->under_way = size > CLASS_SIZE_MAX ? ALIGN_UP((uint64_t)size, UNIT_SIZE) :
					       size_classes[class_of(size)].size;
	ptr = lane_alloc(lane, size);
	if (ptr == 0 || l->n == CLAIMS_MAX)
		abort();
	l->ptr[l->n] = ptr;
	l->state[l->n] = HELD;
	l->under_way = 0;
	return l->n++;
}

static void put(struct scene *s, struct lane *lane, unsigned i)
{
	s->claims->state[i] = MAYBE;
	if (lane_dealloc(lane, s->claims->ptr[i]) < 0)
		abort();
	s->claims->state[i] = FREED;
}

static void defer(struct scene *s, struct lane *lane, unsigned i)
{
	uint64_t watch;
	bool wake;

	s->claims->state[i] = MAYBE;
	if (lane_defer(lane, s->claims->ptr[i], &wake, &watch) < 0)
		abort();
	if (wake)
		lane_deferred(lane);
	s->claims->state[i] = FREED;
}

/* What the daemon does when no reader is left. */
static void reclaim(struct scene *s)
{
	if (limbo_snapshot(s->limbo, UINT32_MAX) != 0 || limbo_release(s->limbo, UINT32_MAX) != 0)
		abort();
}

static void end_other(struct scene *s)
{
	lane_free(s->other);
	s->other = fixture_lane(&s->fix, OTHER);
}

/* Operations */

static void nothing(struct scene *s)
{
	(void)s;
}

static void act_alloc(struct scene *s)
{
	(void)get(s, s->actor, 64);
}

static void prepare_one(struct scene *s)
{
	(void)get(s, s->actor, 64);
}

static void act_free(struct scene *s)
{
	put(s, s->actor, 0);
}

static void act_defer(struct scene *s)
{
	defer(s, s->actor, 0);
}

static void prepare_foreign(struct scene *s)
{
	(void)get(s, s->other, 64);
	(void)get(s, s->other, 64);
}

static void prepare_unowned(struct scene *s)
{
	prepare_foreign(s);
	end_other(s);
}

/* A free that opens a closed span, another into the open one, then its next owner. */
static void act_unowned(struct scene *s)
{
	put(s, s->other, 0);
	put(s, s->other, 1);
	(void)get(s, s->actor, 64);
}

static void act_disown(struct scene *s)
{
	lane_free(s->actor);
	s->actor = fixture_lane(&s->fix, ACTOR);
}

static void prepare_disown(struct scene *s)
{
	for (size_t size = 16; size <= 2048; size *= 4)
		(void)get(s, s->actor, size);
}

static void prepare_collect(struct scene *s)
{
	for (unsigned i = 0; i < 256; i++)
		(void)get(s, s->actor, 64);
	for (unsigned i = 0; i < 256; i += 3)
		put(s, s->other, i);
}

/* Blocks freed with delay in a span that is open, reclaimed, and given again. */
static void prepare_limbo(struct scene *s)
{
	for (unsigned i = 0; i < 8; i++)
		(void)get(s, s->actor, 4096);
	for (unsigned i = 0; i < 6; i++)
		defer(s, i % 2 ? s->actor : s->other, i);
}

static void act_limbo(struct scene *s)
{
	reclaim(s);
	for (unsigned i = 0; i < 5; i++)
		(void)get(s, s->actor, 4096);
}

/* The same of a span that is closed: the daemon retires it. */
static void prepare_limbo_unowned(struct scene *s)
{
	for (unsigned i = 0; i < 3; i++)
		(void)get(s, s->other, 4096);
	end_other(s);
	for (unsigned i = 0; i < 3; i++)
		defer(s, s->actor, i);
	if (marks_close(&s->fix.heap) < 0)
		abort();
}

static void act_limbo_unowned(struct scene *s)
{
	reclaim(s);
	if (grant_trim(s->fix.grant) < 0)
		abort();
	(void)get(s, s->actor, 4096);
}

static void act_large(struct scene *s)
{
	(void)get(s, s->actor, 20 * UNIT_SIZE);
}

static void prepare_large(struct scene *s)
{
	(void)get(s, s->actor, 20 * UNIT_SIZE);
}

static void act_large_defer(struct scene *s)
{
	defer(s, s->other, 0);
	reclaim(s);
	(void)get(s, s->actor, 40 * UNIT_SIZE);
}

/* The heap is full of empty spans that are open or closed. */
static void prepare_retire(struct scene *s)
{
	for (unsigned i = 0; i < 40; i++)
		(void)get(s, s->other, 16384);
	for (unsigned i = 0; i < 20; i++)
		put(s, s->other, i);
	end_other(s);
	for (unsigned i = 20; i < 40; i++)
		put(s, s->actor, i);
}

static void act_retire(struct scene *s)
{
	(void)get(s, s->actor, 40 * UNIT_SIZE);
}

static void act_settle(struct scene *s)
{
	s->fix.alive[ACTOR] = false;
	if (grant_settle(s->fix.grant, ACTOR) < 0)
		abort();
}

static void act_close(struct scene *s)
{
	act_disown(s);
	end_other(s);
	if (marks_close(&s->fix.heap) < 0)
		abort();
}

/* Everything in turn. */
static void act_mixture(struct scene *s)
{
	uint64_t random = 88172645463325252u;

	for (unsigned i = 0; i < 1200; i++) {
		struct lane *lane;
		unsigned n = s->claims->n, which;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		which = n ? (unsigned)(random >> 20) % n : 0;
		lane = random >> 60 & 1 ? s->actor : s->other;
		if (i % 97 == 96)
			reclaim(s);
		else if (i % 193 == 192)
			end_other(s);
		else if (n == 0 || s->claims->state[which] != HELD || random >> 57 & 1)
			(void)get(s, lane, (size_t)16 << (random >> 30) % 8);
		else if (random >> 58 & 1)
			put(s, lane, which);
		else
			defer(s, lane, which);
	}
}

static const struct operation operations[] = {
	{ "alloc, fresh span", nothing, act_alloc, 1 },
	{ "alloc, owned span", prepare_one, act_alloc, 1 },
	{ "free by the owner", prepare_one, act_free, 1 },
	{ "deferred free by the owner", prepare_one, act_defer, 1 },
	{ "free of another's", prepare_foreign, act_free, 1 },
	{ "deferred free of another's", prepare_foreign, act_defer, 1 },
	{ "free, closed span", prepare_unowned, act_unowned, 1 },
	{ "deferred free, closed span", prepare_unowned, act_defer, 1 },
	{ "alloc, collecting", prepare_collect, act_alloc, 1 },
	{ "reclaim, and give again", prepare_limbo, act_limbo, 1 },
	{ "reclaim, and retire", prepare_limbo_unowned, act_limbo_unowned, 1 },
	{ "alloc, large", nothing, act_large, 1 },
	{ "free, large", prepare_large, act_free, 1 },
	{ "deferred free, large", prepare_large, act_large_defer, 1 },
	{ "alloc, retiring", prepare_retire, act_retire, 5 },
	{ "lane ends", prepare_disown, act_disown, 1 },
	{ "settle", prepare_disown, act_settle, 1 },
	{ "heap is closed", prepare_disown, act_close, 1 },
	{ "mixture", nothing, act_mixture, 23 },
};

/* The scene */

static void watch(void *metadata, size_t len)
{
	scene.cut = cut_new(metadata, len);
}

static void scene_init(const struct operation *op)
{
	memset(scene.claims, 0, sizeof(*scene.claims));
	fixture_init_power(&scene.fix, UNITS, 16, watch);
	scene.actor = fixture_lane(&scene.fix, ACTOR);
	scene.other = fixture_lane(&scene.fix, OTHER);
	ck_assert_int_eq(limbo_new(&scene.limbo, &scene.fix.heap), 0);
	op->prepare(&scene);
}

static void scene_deinit(void)
{
	lane_forget(scene.actor);
	lane_forget(scene.other);
	limbo_free(scene.limbo);
	fixture_deinit(&scene.fix);
	cut_free(scene.cut);
}

static void run_job(void *arg)
{
	void (*const *fn)(struct scene *s) = arg;

	(*fn)(&scene);
}

/* Runs fn in a child that stops before its k-th point; whether it stopped there. */
static bool stopped_at(long k, void (*fn)(struct scene *s))
{
	return cut_run(scene.cut, k, run_job, &fn);
}

/* After the cut */

static bool claimed(uint64_t ptr, enum held *state)
{
	const struct claims *l = scene.claims;

	/* The last entry counts: a pointer is given again after it was freed. */
	for (unsigned i = l->n; i-- > 0;)
		if (l->ptr[i] == ptr) {
			*state = l->state[i];
			return true;
		}
	return false;
}

static bool allocated(const struct span_at *at, uint32_t index)
{
	const struct state_layout *l = &scene.fix.heap.layout;
	uint64_t bits = media_load64(&state_alloc(at->record)[index / 64]) &
			~media_load64(&state_remote(l, at->record)[index / 64]) &
			~media_load64(&state_limbo(l, at->record)[index / 64]);

	return bits >> (index % 64) & 1;
}

/* What is held, and what may be; asserts that the first is allocated. */
static void count_held(uint64_t *held, uint64_t *maybe, const char *name, long k)
{
	const struct claims *l = scene.claims;

	*held = 0;
	*maybe = l->under_way;
	for (unsigned i = 0; i < l->n; i++) {
		struct span_at at;
		uint32_t index;

		if (l->state[i] == FREED)
			continue;
		if (heap_block(&scene.fix.heap, l->ptr[i], &at, &index) < 0) {
			must(l->state[i] == MAYBE, "%s, point %ld: a block is gone", name, k);
			continue;
		}
		if (l->state[i] == MAYBE)
			*maybe += at.block_size;
		else
			*held += at.block_size;
		must(l->state[i] == MAYBE || allocated(&at, index),
			      "%s, point %ld: a block that is held is free", name, k);
	}
}

/* Frees the suspects that nobody claims. */
static void sweep_span(const struct span_at *at)
{
	struct heap *heap = &scene.fix.heap;

	for (uint32_t i = 0; i < at->blocks; i++) {
		uint64_t ptr = (uint64_t)heap->pool << 48 |
			       (((at->ref & REF_MASK) << UNIT_SHIFT) + i * at->block_size);
		enum held state = FREED;

		if (allocated(at, i) && !(claimed(ptr, &state) && state == HELD))
			must(span_free_remote(heap, at, i) == 0, "a suspect cannot be freed");
	}
	span_suspect_clear(heap, at);
	heap_hint(heap, at);
}

/* Sweeps, or counts the units of spans that hold a block. */
static unsigned walk(bool sweep)
{
	unsigned held = 0;
	struct span_at at;

	for (uint32_t u = 0; u < UNITS; u += at.span.length) {
		uint64_t word = media_load64(&scene.fix.shelf[0].table[u]);

		at.span = span_unpack(word);
		if (at.span.kind == SPAN_FREE)
			continue;
		must(heap_span(&scene.fix.heap, ref_make(0, u), &at) == 0, "no span at %u", u);
		if (sweep && span_suspect(&scene.fix.heap, &at))
			sweep_span(&at);
		else if (!sweep && span_used(&scene.fix.heap, &at) > 0)
			held += at.span.length;
	}
	return held;
}

static void expect_all_free(const char *name, long k)
{
	unsigned held, got = 0;
	uint64_t ref;

	ck_assert_int_ge(grant_trim(scene.fix.grant), 0);
	held = walk(false);
	while (grant_run(scene.fix.grant, 1, 1, &ref) == 0) {
		struct span_at at;

		got++;
		must(heap_span(&scene.fix.heap, ref, &at) == 0 &&
		     span_claim(&scene.fix.heap, &at, owner_lane(1, OTHER, 0)),
		     "a run that was granted cannot be had");
	}
	must(got + held == UNITS, "%s, point %ld: %u units free and %u held of %u", name, k,
		      got, held, UNITS);
}

/* The heap has been loaded after a cut. `open`: spans with a mark in the image. */
static void verify(const char *name, long k, unsigned open)
{
	struct heap_totals t;
	uint64_t held, maybe;
	unsigned suspects = 0;
	struct span_at at;

	fixture_check(&scene.fix);
	count_held(&held, &maybe, name, k);
	for (uint32_t u = 0; u < UNITS; u++)
		suspects += heap_span(&scene.fix.heap, ref_make(0, u), &at) == 0 &&
			    span_suspect(&scene.fix.heap, &at);
	must(suspects <= open, "%s, point %ld: %u spans are suspect, %u were open", name, k,
		      suspects, open);
	(void)walk(true);
	ck_assert_int_eq(heap_count(&scene.fix.heap, &t), 0);
	ck_assert_uint_eq(t.suspects, 0);
	must(t.used >= held && t.used <= held + maybe,
		      "%s, point %ld: %llu bytes used, not %llu to %llu", name, k,
		      (unsigned long long)t.used, (unsigned long long)held,
		      (unsigned long long)(held + maybe));
	expect_all_free(name, k);
	fixture_check(&scene.fix);
}

static unsigned count_open(void)
{
	unsigned open = 0;
	struct span_at at;

	for (uint32_t u = 0; u < UNITS; u++)
		open += heap_span(&scene.fix.heap, ref_make(0, u), &at) == 0 &&
			(media_load64(span_open_word(&scene.fix.heap, &at)) & OPEN_MARK);
	return open;
}

static void load(struct scene *s)
{
	fixture_reload_cut(&s->fix);
}

/* Loads once in a child that is cut at j, then each image of that. */
static bool cut_loading(const char *name, long k, long j, unsigned open, uint64_t *images)
{
	bool stopped = stopped_at(j, load);
	struct cut_images *m = cut_images_new(scene.cut, (uint64_t)(k * 1000 + j), INNER_IMAGES);

	while (cut_images_next(m)) {
		++*images;
		fixture_reload_cut(&scene.fix);
		verify(name, k, open);
	}
	cut_images_free(m);
	return stopped;
}

/* Cuts the operation at its k-th point; false: it got through. */
static bool cut_at(const struct operation *op, long k, struct ledger *l)
{
	struct cut_images *m;
	bool stopped;

	scene_init(op);
	stopped = stopped_at(k, op->act);
	m = cut_images_new(scene.cut, (uint64_t)k, ledger_whole() ? IMAGES_LONG : IMAGES);
	for (unsigned i = 0; cut_images_next(m); i++) {
		unsigned open = count_open();

		l->images++;
		if (k % 7 == 0 && i % 13 == 0) {
			/* Its loading is cut at a few points too. */
			if (!cut_loading(op->name, k, (k + i) % 41, open, &l->inner))
				continue;
		} else {
			fixture_reload_cut(&scene.fix);
			verify(op->name, k, open);
		}
	}
	cut_images_free(m);
	scene_deinit();
	l->points = (uint64_t)k; /* visited or not */
	return stopped;
}

/* Under a sanitizer, where a fork takes many times as long, a sample. */
static long step(const struct operation *op, long k)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return (long)op->stride * 5 + k / 8;
#else
	(void)k;
	return ledger_whole() ? (long)DIV_UP(op->stride, 8u) : (long)op->stride;
#endif
}

START_TEST(every_point)
{
	const struct operation *op = &operations[_i];
	struct ledger l = { .suite = "power cut", .operation = op->name, .durability = "power" };
	const char *only = getenv("NVMMD_TEST_OPERATION");

	if (only && !strstr(op->name, only))
		return;

	ledger_begin(&l);
	for (long k = 0; cut_at(op, k, &l); k += step(op, k))
		;
	ledger_end(&l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("heap power");
	TCase *t = tcase_create("heap power");

	scene.claims = mmap(NULL, sizeof(*scene.claims), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (scene.claims == MAP_FAILED)
		return EXIT_FAILURE;
	fault_plant();
	tcase_set_timeout(t, ledger_whole() ? 3600 : 300);
	tcase_add_loop_test(t, every_point, 0, (int)ARRAY_SIZE(operations));
	suite_add_tcase(s, t);
	return suite_run(s);
}
