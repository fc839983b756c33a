/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The course of a scene. Its heap stands in memory that children share, so the child's death is all that
 * happens to it: stores are there, in the order in which they were made.
 */
#include <check.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "media/limbo.h"
#include "tests/crash/killer.h"
#include "tests/crash/scenes_private.h"

struct scene scene;

static unsigned *calls; /* of the child to its daemon; shared */

static void note_calls(void)
{
	*calls = scene.fix.calls;
}

/* Course */

void scene_init(const struct scene_operation *op, enum durability durability)
{
	if (!calls)
		calls = mmap(NULL, sizeof(*calls), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			     0);
	ck_assert_ptr_ne(calls, MAP_FAILED);
	scene.n = 0;
	scene.before = scene.after = 0;
	scene.range = false;
	media_backend = &killer_backend;
	fixture_init(&scene.fix, SCENE_UNITS, 16);
	scene.fix.heap.durability = durability;
	scene.actor = fixture_lane(&scene.fix, SCENE_ACTOR);
	scene.other = fixture_lane(&scene.fix, SCENE_OTHER);
	op->prepare(&scene);
	*calls = scene.fix.calls;
}

void scene_deinit(void)
{
	lane_forget(scene.actor);
	if (scene.other)
		lane_forget(scene.other);
	fixture_deinit(&scene.fix);
}

static void act(void *arg)
{
	killer_watch = note_calls;
	((const struct scene_operation *)arg)->act(&scene);
}

bool scene_killed(const struct scene_operation *op, long k)
{
	return killer_run(k, act, (void *)(uintptr_t)op);
}

bool scene_allows(const struct scene_operation *op, enum scene_recovery how)
{
	if (op->daemon)
		return how == SCENE_LOADS;
	return how != SCENE_LIVES || *calls == scene.fix.calls;
}

struct recovery {
	const struct scene_operation *op;
	enum scene_recovery how;
};

static void recover(void *arg)
{
	const struct recovery *r = arg;

	scene.fix.alive[SCENE_ACTOR] = r->how == SCENE_SETTLES;
	if (r->how != SCENE_LIVES)
		fixture_reload(&scene.fix);
	scene.fix.alive[SCENE_ACTOR] = false;
	if (r->how != SCENE_LOADS)
		ck_assert_int_eq(grant_settle(scene.fix.grant, SCENE_ACTOR), 0);
	if (r->op->again)
		r->op->again(&scene);
}

void scene_recover(const struct scene_operation *op, enum scene_recovery how)
{
	struct recovery r = { op, how };

	recover(&r);
}

bool scene_recover_killed(const struct scene_operation *op, enum scene_recovery how, long j)
{
	struct recovery r = { op, how };

	return killer_run(j, recover, &r);
}

void scene_reclaim(struct scene *s)
{
	struct limbo *limbo = NULL;
	int r = limbo_new(&limbo, &s->fix.heap);

	if (r < 0)
		abort();
	while ((r = limbo_snapshot(limbo, 1000)) > 0)
		;
	while (r == 0 && (r = limbo_release(limbo, 1000)) > 0)
		;
	if (r < 0)
		abort();
	limbo_free(limbo);
}

/* Verification */

/* Takes every free run, unit by unit. */
static uint64_t take_units(void)
{
	uint64_t ref, got = 0;
	struct span_at at;

	for (; grant_run(scene.fix.grant, 1, 1, &ref) == 0; got++) {
		ck_assert_int_eq(heap_span(&scene.fix.heap, ref, &at), 0);
		ck_assert(span_claim(&scene.fix.heap, &at, owner_lane(1, SCENE_OTHER, 0)));
	}
	return got;
}

/* Units of spans that hold a block. */
static uint64_t held_units(uint32_t shelf)
{
	uint64_t held = 0;
	struct span_at at;

	for (uint64_t u = 0; u < scene.fix.shelf[shelf].units; u += at.span.length) {
		ck_assert_int_eq(heap_span(&scene.fix.heap, ref_make(shelf, (uint32_t)u), &at), 0);
		if (span_used(&scene.fix.heap, &at) > 0)
			held += at.span.length;
	}
	return held;
}

/* Invariant H of doc/architecture.md: an unowned span with room has its hint. */
static void verify_hints(const struct scene_operation *op, long k, uint32_t shelf)
{
	struct heap *heap = &scene.fix.heap;
	struct span_at at;

	for (uint64_t u = 0; u < scene.fix.shelf[shelf].units; u += at.span.length) {
		struct span s = span_unpack(media_load64(&scene.fix.shelf[shelf].table[u]));
		bool hinted = media_load64(&scene.fix.shelf[shelf].hints[u / 64]) >> (u % 64) & 1;

		at.span = s;
		if (s.kind == SPAN_FREE)
			continue;
		ck_assert_int_eq(heap_span(heap, ref_make(shelf, (uint32_t)u), &at), 0);
		if (media_load64(&state_tail(&heap->layout, at.record)->owner) == OWNER_NONE)
			ck_assert_msg(hinted || span_used(heap, &at) == at.blocks,
				      "%s, point %ld: unit %llu has room and no hint", op->name, k,
				      (unsigned long long)u);
	}
}

static void verify_room(const struct scene_operation *op, long k)
{
	uint64_t got, held = 0, units = 0;

	lane_free(scene.other);
	scene.other = NULL;
	ck_assert_int_ge(grant_trim(scene.fix.grant), 0);
	for (uint32_t i = 0; i < 2; i++)
		if (scene.fix.heap.shelf[i])
			verify_hints(op, k, i);
	got = take_units();
	for (uint32_t i = 0; i < 2; i++) {
		if (!scene.fix.heap.shelf[i])
			continue;
		held += held_units(i);
		units += scene.fix.shelf[i].units;
	}
	ck_assert_msg(got + held == units, "%s, point %ld: %llu units free and %llu held of %llu",
		      op->name, k, (unsigned long long)got, (unsigned long long)held,
		      (unsigned long long)units);
}

void scene_verify(const struct scene_operation *op, long k)
{
	struct heap_totals t;

	fixture_check(&scene.fix);
	/* Its hint leads the daemon to every block in limbo. */
	scene_reclaim(&scene);
	ck_assert_int_eq(heap_count(&scene.fix.heap, &t), 0);
	ck_assert_msg(t.used == scene.before || t.used == scene.after ||
			      (scene.range && t.used > scene.before && t.used < scene.after),
		      "%s, point %ld: %llu bytes used, not %llu or %llu", op->name, k,
		      (unsigned long long)t.used, (unsigned long long)scene.before,
		      (unsigned long long)scene.after);
	ck_assert_msg(t.limbo == 0, "%s, point %ld: %llu bytes stay in limbo", op->name, k,
		      (unsigned long long)t.limbo);
	verify_room(op, k);
}
