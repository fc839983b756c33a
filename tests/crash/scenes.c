/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The operations. Each one's before and after are the bytes in blocks once all that was in limbo is free.
 */
#include "tests/crash/scenes.h"

#include <check.h>
#include <stdlib.h>

#include "common/macro.h"
#include "media/limbo.h"
#include "tests/crash/scenes_private.h"

/* Steps, in parent or child */

static uint64_t get(struct lane *lane, size_t size)
{
	uint64_t ptr = lane_alloc(lane, size);

	if (ptr == 0)
		abort();
	return ptr;
}

/* At a multiple of two units. */
static uint64_t get_aligned(struct lane *lane, size_t size)
{
	uint64_t ptr = lane_alloc_aligned(lane, 2 * UNIT_SIZE, size);

	if (ptr == 0)
		abort();
	return ptr;
}

static void put(struct lane *lane, uint64_t ptr)
{
	if (lane_dealloc(lane, ptr) < 0)
		abort();
}

static void defer(struct lane *lane, uint64_t ptr)
{
	uint64_t watch;
	bool wake;

	if (lane_defer(lane, ptr, &wake, &watch) < 0)
		abort();
	lane_deferred(lane);
}

/* The other's spans are nobody's from now on. */
static void other_leaves(struct scene *s)
{
	lane_free(s->other);
	s->other = fixture_lane(&s->fix, SCENE_OTHER);
}

/* Allocating */

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

/* The actor's span is exhausted and all of it was freed by another: the next alloc collects. */
static void prepare_collect(struct scene *s)
{
	for (int i = 0; i < 256; i++)
		s->ptr[s->n++] = get(s->actor, 64);
	while (s->n > 0)
		put(s->other, s->ptr[--s->n]);
	s->after = 64;
}

/* The same, but they were freed with delay, which is over. */
static void prepare_collect_limbo(struct scene *s)
{
	for (int i = 0; i < 256; i++)
		s->ptr[s->n++] = get(s->actor, 64);
	while (s->n > 0)
		defer(s->other, s->ptr[--s->n]);
	scene_reclaim(s);
	s->after = 64;
}

/* Adopted from another lane by its hint. */
static void prepare_adopt(struct scene *s)
{
	for (int i = 0; i < 256; i++)
		s->ptr[s->n++] = get(s->other, 64);
	other_leaves(s);
	for (; s->n > 100; s->n--)
		put(s->other, s->ptr[s->n - 1]);
	s->before = 100 * 64;
	s->after = 101 * 64;
}

/* The actor's span is full; the next one was granted with it, and is adopted without asking. */
static void prepare_next(struct scene *s)
{
	struct span_at at;

	s->ptr[s->n++] = get(s->actor, 64);
	ck_assert_int_eq(heap_span(&s->fix.heap, ref_of_ptr(s->ptr[0]), &at), 0);
	while (s->n < at.blocks)
		s->ptr[s->n++] = get(s->actor, 64);
	s->before = s->n * 64;
	s->after = s->before + 64;
}

static void prepare_large(struct scene *s)
{
	s->after = 20 * UNIT_SIZE;
}

static void act_large(struct scene *s)
{
	(void)get(s->actor, 20 * UNIT_SIZE);
}

/* The heap is full of empty small spans: a large block makes the daemon retire them. */
static void prepare_retire(struct scene *s)
{
	uint64_t ptr;

	while ((ptr = lane_alloc(s->other, 1024)))
		s->ptr[s->n++] = ptr;
	while (s->n > 0)
		put(s->other, s->ptr[--s->n]);
	other_leaves(s);
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

	for (unsigned i = 0; i < SCENE_UNITS; i++)
		ck_assert_int_eq(grant_run(s->fix.grant, 1, 1, &ref), 0);
	ck_assert_int_eq(grant_trim(s->fix.grant), SCENE_UNITS * UNIT_SIZE);
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

/* An idle thread holds empty spans, and there is hardly other room: they are taken back. */
static void prepare_revoke(struct scene *s)
{
	uint64_t ptr = get(s->actor, 10 * UNIT_SIZE);

	while (lane_alloc(s->actor, 10000))
		;
	put(s->actor, ptr);
	for (size_t size = 1024; size <= 8192; size *= 2)
		s->ptr[s->n++] = get(s->other, size);
	while (s->n > 0)
		put(s->other, s->ptr[--s->n]);
	s->range = true;
	s->after = SCENE_UNITS * UNIT_SIZE;
}

static void act_revoke(struct scene *s)
{
	while (lane_alloc(s->actor, 16384))
		;
}

/* Freeing */

static void prepare_free(struct scene *s)
{
	prepare_one(s);
	s->after = 0;
}

static void act_free(struct scene *s)
{
	put(s->actor, s->ptr[0]);
}

static void act_defer(struct scene *s)
{
	defer(s->actor, s->ptr[0]);
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
	other_leaves(s);
}

static void prepare_large_free(struct scene *s)
{
	s->ptr[s->n++] = get(s->actor, 20 * UNIT_SIZE);
	s->before = 20 * UNIT_SIZE;
}

/* A large block was freed and its span is kept. */
static void prepare_kept(struct scene *s)
{
	put(s->actor, get_aligned(s->actor, 2 * UNIT_SIZE));
	s->after = 2 * UNIT_SIZE;
}

static void act_kept(struct scene *s)
{
	(void)get_aligned(s->actor, 2 * UNIT_SIZE);
}

/* As many bytes are kept as may be in so small a heap, three units: the oldest goes for the next. */
static void prepare_kept_full(struct scene *s)
{
	uint64_t a = get_aligned(s->actor, UNIT_SIZE), b = get_aligned(s->actor, 2 * UNIT_SIZE);

	s->ptr[s->n++] = get_aligned(s->actor, 2 * UNIT_SIZE);
	put(s->actor, a);
	put(s->actor, b);
	s->before = 2 * UNIT_SIZE;
}

/* Giving up */

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

/* The daemon's own */

static void prepare_reclaim(struct scene *s)
{
	for (int i = 0; i < 100; i++)
		s->ptr[s->n++] = get(s->actor, 64);
	for (int i = 0; i < 50; i++)
		s->ptr[s->n++] = get(s->other, 1024);
	other_leaves(s);
	while (s->n > 0)
		defer(s->other, s->ptr[--s->n]);
}

/* The dead one's spans have blocks, blocks freed by others, and blocks in limbo. */
static void prepare_settle(struct scene *s)
{
	for (size_t size = 16; size <= 2048; size *= 2)
		for (int i = 0; i < 3; i++)
			s->ptr[s->n++] = get(s->actor, size);
	for (unsigned i = 0; i < s->n; i++) {
		if (i % 3 == 1)
			put(s->other, s->ptr[i]);
		else if (i % 3 == 2)
			defer(s->other, s->ptr[i]);
	}
	s->before = s->after = 4080;
}

static void act_settle(struct scene *s)
{
	s->fix.alive[SCENE_ACTOR] = false;
	if (grant_settle(s->fix.grant, SCENE_ACTOR) < 0)
		abort();
}

static void act_load(struct scene *s)
{
	s->fix.alive[SCENE_ACTOR] = false;
	fixture_reload(&s->fix);
}

static void prepare_trim(struct scene *s)
{
	prepare_retire(s);
	s->after = 0;
}

static void act_trim(struct scene *s)
{
	if (grant_trim(s->fix.grant) < 0)
		abort();
}

static void prepare_grow(struct scene *s)
{
	prepare_one(s);
	s->after = s->before;
}

static void act_grow(struct scene *s)
{
	fixture_second_shelf(&s->fix, SCENE_UNITS);
}

const struct scene_operation scene_operations[N_SCENES] = {
	{ "alloc, fresh span", prepare_nothing, act_alloc, false, NULL },
	{ "alloc, owned span", prepare_one, act_alloc, false, NULL },
	{ "alloc, collecting", prepare_collect, act_alloc, false, NULL },
	{ "alloc, collecting what was in limbo", prepare_collect_limbo, act_alloc, false, NULL },
	{ "alloc, adopting", prepare_adopt, act_alloc, false, NULL },
	{ "alloc, adopting what was granted", prepare_next, act_alloc, false, NULL },
	{ "alloc, large", prepare_large, act_large, false, NULL },
	{ "alloc, kept run", prepare_kept, act_kept, false, NULL },
	{ "alloc, retiring", prepare_retire, act_retire, false, NULL },
	{ "alloc, joined runs", prepare_join, act_join, false, NULL },
	{ "alloc, aligned", prepare_aligned, act_aligned, false, NULL },
	{ "alloc, revoking idle spans", prepare_revoke, act_revoke, false, NULL },
	{ "free by the owner", prepare_free, act_free, false, NULL },
	{ "free of another's", prepare_foreign, act_free, false, NULL },
	{ "free, unowned span", prepare_unowned, act_free, false, NULL },
	{ "free, large", prepare_large_free, act_free, false, NULL },
	{ "free, kept runs", prepare_kept_full, act_free, false, NULL },
	{ "free deferred, by the owner", prepare_free, act_defer, false, NULL },
	{ "free deferred, of another's", prepare_foreign, act_defer, false, NULL },
	{ "free deferred, unowned span", prepare_unowned, act_defer, false, NULL },
	{ "free deferred, large", prepare_large_free, act_defer, false, NULL },
	{ "lane ends: disown", prepare_disown, act_disown, false, NULL },
	{ "reclaim", prepare_reclaim, scene_reclaim, true, NULL },
	{ "lane settled", prepare_settle, act_settle, true, NULL },
	{ "heap loaded: recover", prepare_settle, act_load, true, NULL },
	{ "trim: retire", prepare_trim, act_trim, true, NULL },
	{ "shelf added", prepare_grow, act_grow, true, act_grow },
};
