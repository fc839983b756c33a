/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What others do between any two media stores of an operation.
 *
 * An operation of one lane is interrupted at its k-th store, for every k, and another lane or the daemon
 * does something there: frees a block of the very span, allocates, retires what is empty. Then the heap
 * is filled to the end by the interrupted lane. The oracle: it ends, no block is given twice, no rule is
 * broken, and when all is free the heap is there in one piece.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/macro.h"
#include "tests/unit/heap_fixture.h"
#include "tests/unit/suite.h"

#define UNITS 24u
#define SIZE 1024u
#define PER_SPAN 16u
#define ACTOR 5u
#define OTHER 6u
#define LARGE (4 * UNIT_SIZE)

struct scene {
	struct fixture fix;
	struct lane *actor;
	struct lane *other;
	uint64_t ptr[4096]; /* allocated blocks; the first is the victim */
	unsigned n;
};

struct operation {
	const char *name;
	void (*prepare)(struct scene *s);
	void (*act)(struct scene *s);
};

struct intrusion {
	const char *name;
	bool asks; /* the daemon: not while the actor itself is asking it */
	void (*act)(struct scene *s);
};

static struct scene scene;

/* The intruder */

static long points_left = -1;
static void (*intrude)(struct scene *s);
static bool intrude_asks;

static void point(enum media_point kind, const void *addr, size_t len)
{
	void (*act)(struct scene *s) = intrude;

	(void)kind;
	(void)addr;
	(void)len;
	if (points_left < 0 || points_left-- > 0)
		return;
	if (intrude_asks && pthread_mutex_trylock(&scene.fix.lock) != 0) {
		points_left = 0; /* as soon as it can be */
		return;
	}
	if (intrude_asks)
		pthread_mutex_unlock(&scene.fix.lock);
	intrude = NULL;
	act(&scene);
}

static void flush(const void *addr, size_t len)
{
	(void)addr;
	(void)len;
}

static void drain(void)
{
}

static const struct media_backend intruder = { .flush = flush, .drain = drain, .point = point };

/* Steps */

/* Allocates and notes a block, if there is room. */
static bool try_get(struct scene *s, struct lane *lane, size_t size)
{
	uint64_t ptr = lane_alloc(lane, size);

	ck_assert_msg(ptr != 0 || lane_error(lane) == -ENOSPC, "alloc of %zu: %d", size,
		      lane_error(lane));
	ck_assert_uint_lt(s->n, ARRAY_SIZE(s->ptr));
	if (ptr != 0)
		s->ptr[s->n++] = ptr;
	return ptr != 0;
}

static void get(struct scene *s, struct lane *lane, size_t size)
{
	ck_assert_msg(try_get(s, lane, size), "no room for %zu", size);
}

/* Frees the i-th block; the last one takes its place, before the intruder looks. */
static void put(struct scene *s, struct lane *lane, unsigned i)
{
	uint64_t ptr = s->ptr[i];
	int r;

	s->ptr[i] = s->ptr[--s->n];
	r = lane_dealloc(lane, ptr);
	ck_assert_msg(r == 0, "free: %d", r);
}

/* Operations. In all but the last the victim stands in the span that the actor works on. */

static void prepare_adopt(struct scene *s)
{
	for (unsigned i = 0; i < 2 * PER_SPAN; i++)
		get(s, s->other, SIZE);
	lane_release(s->other);
	put(s, s->other, 1);
}

static void act_alloc(struct scene *s)
{
	get(s, s->actor, SIZE);
}

static void prepare_exhausted(struct scene *s)
{
	for (unsigned i = 0; i < PER_SPAN; i++)
		get(s, s->actor, SIZE);
}

static void prepare_nearly(struct scene *s)
{
	for (unsigned i = 0; i < PER_SPAN - 1; i++)
		get(s, s->actor, SIZE);
}

static void act_release(struct scene *s)
{
	lane_release(s->actor);
}

static void act_free(struct scene *s)
{
	put(s, s->actor, s->n - 1);
}

static void act_free_last(struct scene *s)
{
	while (s->n > 1)
		put(s, s->actor, s->n - 1);
}

static void prepare_full(struct scene *s)
{
	while (try_get(s, s->other, SIZE))
		;
	lane_release(s->other);
}

static void act_try(struct scene *s)
{
	(void)try_get(s, s->actor, SIZE);
}

static void prepare_large(struct scene *s)
{
	get(s, s->other, LARGE);
}

static void act_large(struct scene *s)
{
	get(s, s->actor, LARGE);
}

static const struct operation operations[] = {
	{ "adopt and allocate", prepare_adopt, act_alloc },
	{ "allocate behind an exhausted span", prepare_exhausted, act_alloc },
	{ "give up an exhausted span", prepare_exhausted, act_release },
	{ "give up a span with room", prepare_nearly, act_release },
	{ "free an own block", prepare_exhausted, act_free },
	{ "free all own blocks but one", prepare_exhausted, act_free_last },
	{ "free a foreign block", prepare_adopt, act_free },
	{ "allocate in a full heap", prepare_full, act_try },
	{ "allocate a large block", prepare_large, act_large },
};

/* Intrusions */

static void free_victim(struct scene *s)
{
	put(s, s->other, 0);
}

static void free_and_alloc(struct scene *s)
{
	free_victim(s);
	(void)try_get(s, s->other, SIZE);
}

static void alloc_and_release(struct scene *s)
{
	(void)try_get(s, s->other, SIZE);
	lane_release(s->other);
}

static void trim(struct scene *s)
{
	ck_assert_int_ge(grant_trim(s->fix.grant), 0);
}

static void free_and_trim(struct scene *s)
{
	free_victim(s);
	trim(s);
}

static const struct intrusion intrusions[] = {
	{ "another frees", false, free_victim },
	{ "another frees and allocates", true, free_and_alloc },
	{ "another allocates and gives up", true, alloc_and_release },
	{ "the daemon retires", true, trim },
	{ "another frees, the daemon retires", true, free_and_trim },
};

/* The oracle */

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void check_all(struct scene *s)
{
	uint64_t ref;

	while (try_get(s, s->actor, SIZE))
		;
	qsort(s->ptr, s->n, sizeof(s->ptr[0]), compare);
	for (unsigned i = 1; i < s->n; i++)
		ck_assert_msg(s->ptr[i] != s->ptr[i - 1], "a block was given twice");
	while (s->n > 0)
		put(s, s->n % 2 ? s->actor : s->other, s->n - 1);
	lane_free(s->actor);
	lane_free(s->other);
	fixture_check(&s->fix);
	fixture_expect_used(&s->fix, 0);
	ck_assert_int_eq(grant_run(s->fix.grant, UNITS, 1, &ref), 0);
}

/* One intrusion at the k-th store; whether the operation had so many. */
static bool intrude_at(const struct operation *o, const struct intrusion *i, long k)
{
	bool done;

	scene.n = 0;
	fixture_init(&scene.fix, UNITS, 64);
	scene.actor = fixture_lane(&scene.fix, ACTOR);
	scene.other = fixture_lane(&scene.fix, OTHER);
	o->prepare(&scene);
	intrude = i->act;
	intrude_asks = i->asks;
	points_left = k;
	media_backend = &intruder;
	o->act(&scene);
	media_backend = &media_backend_pmem;
	points_left = -1;
	done = intrude == NULL;
	check_all(&scene);
	fixture_deinit(&scene.fix);
	return done;
}

START_TEST(between_any_two_stores)
{
	const struct operation *o = &operations[_i];
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(intrusions); i++)
		for (long k = 0; intrude_at(o, &intrusions[i], k); k++)
			n++;
	printf("%s: %u intrusions\n", o->name, n);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("between");
	TCase *tc = tcase_create("stores");

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, between_any_two_stores, 0, ARRAY_SIZE(operations));
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
