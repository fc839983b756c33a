/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Each call is made by a process of one thread. Blocks are filled with a pattern, so that whoever finds one knows
 * whether it has the content.
 */
#include "tests/crash/client_calls.h"

#include <errno.h>

#include "tests/system/harness.h"

#define SMALL 64u
#define GROWN 5000u
#define LARGE (40u << 10)
#define LARGE_GROWN (200u << 10)

static nvmm_ptr need(struct caller *c, nvmm_ptr ptr)
{
	must(ptr != NVMM_NULL, "a block: %s", nvmm_errmsg(c->nvmm));
	return ptr;
}

static void well(struct caller *c, int r)
{
	must(r >= 0, "the call: %s", nvmm_errmsg(c->nvmm));
}

static nvmm_ptr fill(struct caller *c, nvmm_ptr ptr, size_t size)
{
	uint64_t *words = nvmm_local(c->nvmm, need(c, ptr));

	for (size_t i = 0; i < size / sizeof(*words); i++)
		words[i] = i ^ UINT64_C(0xa5a5a5a5a5a5);
	nvmm_persist(words, size);
	return ptr;
}

static bool is_filled(struct caller *c, nvmm_ptr ptr, size_t size)
{
	const uint64_t *words = nvmm_local(c->nvmm, ptr);

	for (size_t i = 0; i < size / sizeof(*words); i++)
		if (words[i] != (i ^ UINT64_C(0xa5a5a5a5a5a5)))
			return false;
	return true;
}

bool call_live(struct caller *c, nvmm_ptr ptr)
{
	return ptr != NVMM_NULL && nvmm_usable_size(c->heap, ptr) > 0;
}

bool call_known(const struct caller *c, nvmm_ptr ptr)
{
	for (unsigned i = 0; i < CALL_PTRS; i++)
		if (c->stage->ptr[i] == ptr)
			return true;
	return false;
}

/* Plain allocation */

static void act_alloc(struct caller *c)
{
	c->stage->ptr[1] = need(c, nvmm_alloc(c->heap, SMALL));
}

static void act_zalloc(struct caller *c)
{
	c->stage->ptr[1] = need(c, nvmm_zalloc(c->heap, LARGE));
}

static void verify_alloc(struct caller *c)
{
	ck_assert(!c->stage->returned || call_live(c, c->stage->ptr[1]));
	ck_assert(c->stage->ptr[0] == NVMM_NULL || call_live(c, c->stage->ptr[0]));
}

static void prepare_block(struct caller *c)
{
	c->stage->ptr[0] = need(c, nvmm_alloc(c->heap, SMALL));
}

static void prepare_large(struct caller *c)
{
	c->stage->ptr[0] = need(c, nvmm_alloc(c->heap, LARGE));
}

static void act_free(struct caller *c)
{
	well(c, nvmm_free(c->heap, c->stage->ptr[0]));
}

static void act_defer(struct caller *c)
{
	well(c, nvmm_free_deferred(c->heap, c->stage->ptr[0]));
}

/* It is not there any more, at the latest when it returned. */
static void verify_gone(struct caller *c)
{
	ck_assert(!c->stage->returned || !call_live(c, c->stage->ptr[0]));
}

static void prepare_filled(struct caller *c)
{
	c->stage->ptr[0] = fill(c, nvmm_alloc(c->heap, SMALL), SMALL);
}

static void act_realloc(struct caller *c)
{
	c->stage->ptr[1] = need(c, nvmm_realloc(c->heap, c->stage->ptr[0], GROWN));
}

static int find_filled(nvmm_ptr ptr, size_t size, enum nvmm_block_state state, void *arg)
{
	struct caller *c = arg;

	return ptr != c->stage->at && size >= SMALL && state == NVMM_BLOCK_ALLOCATED &&
	       is_filled(c, ptr, SMALL);
}

/* Both may be left; never neither. */
static void verify_realloc(struct caller *c)
{
	ck_assert_int_eq(nvmm_heap_walk(c->heap, find_filled, c), 1);
	ck_assert(!c->stage->returned || !call_live(c, c->stage->ptr[0]));
}

/* Crash-atomic */

static void act_reserve(struct caller *c)
{
	c->stage->ptr[0] = need(c, nvmm_reserve(c->heap, SMALL));
}

static void act_reserve_large(struct caller *c)
{
	c->stage->ptr[0] = need(c, nvmm_reserve(c->heap, LARGE));
}

static void verify_free(struct caller *c)
{
	ck_assert(!call_live(c, c->stage->ptr[0]));
}

static void prepare_publish(struct caller *c)
{
	c->stage->ptr[0] = fill(c, nvmm_reserve(c->heap, SMALL), SMALL);
	c->stage->ptr[1] = need(c, nvmm_alloc(c->heap, SMALL));
}

static void prepare_publish_large(struct caller *c)
{
	c->stage->ptr[0] = fill(c, nvmm_reserve(c->heap, LARGE), LARGE);
	c->stage->ptr[1] = need(c, nvmm_alloc(c->heap, LARGE));
}

static void act_publish(struct caller *c)
{
	const struct nvmm_action actions[] = {
		NVMM_COMMIT(c->stage->ptr[0]),
		NVMM_STORE(c->stage->at, c->stage->ptr[0]),
		NVMM_STORE(c->stage->at + 8, 7),
		NVMM_FREE(c->stage->ptr[1]),
	};

	well(c, nvmm_publish(c->heap, actions, 4));
}

static void verify_publish(struct caller *c)
{
	bool done = c->word[0] != 0;

	ck_assert(done || !c->stage->returned);
	ck_assert_uint_eq(c->word[0], done ? c->stage->ptr[0] : NVMM_NULL);
	ck_assert_uint_eq(c->word[1], done ? 7 : 0);
	ck_assert(call_live(c, c->stage->ptr[0]) == done);
	ck_assert(call_live(c, c->stage->ptr[1]) != done);
	ck_assert(!done || is_filled(c, c->stage->ptr[0], SMALL));
}

static void act_cancel(struct caller *c)
{
	well(c, nvmm_cancel(c->heap, c->stage->ptr[0]));
}

/* The word names the block, as a publish would have left it. */
static void prepare_word(struct caller *c)
{
	prepare_filled(c);
	c->word[0] = c->stage->ptr[0];
	nvmm_persist(c->word, sizeof(*c->word));
}

static void prepare_word_large(struct caller *c)
{
	c->stage->ptr[0] = fill(c, nvmm_alloc(c->heap, LARGE), LARGE);
	c->word[0] = c->stage->ptr[0];
	nvmm_persist(c->word, sizeof(*c->word));
}

static void act_realloc_in(struct caller *c)
{
	need(c, nvmm_realloc_in(c->heap, c->stage->at, GROWN));
}

static void act_realloc_in_large(struct caller *c)
{
	need(c, nvmm_realloc_in(c->heap, c->stage->at, LARGE_GROWN));
}

/* What the word names is there, filled, and nothing else is. */
static void verify_realloc_in(struct caller *c)
{
	bool done = c->word[0] != c->stage->ptr[0];
	size_t size = c->stage->ptr[0] == NVMM_NULL ? 0 : SMALL;

	ck_assert(done || !c->stage->returned);
	ck_assert(c->word[0] == NVMM_NULL || call_live(c, c->word[0]));
	ck_assert(!done || nvmm_usable_size(c->heap, c->word[0]) >= GROWN);
	ck_assert(!done || !call_live(c, c->stage->ptr[0]));
	ck_assert(size == 0 || is_filled(c, c->word[0], size));
	c->stage->ptr[1] = c->word[0];
}

/* What is left to the end */

static void act_close(struct caller *c)
{
	nvmm_heap_close(c->heap);
}

static void verify_close(struct caller *c)
{
	ck_assert(!call_live(c, c->stage->ptr[0]));
	ck_assert(call_live(c, c->stage->ptr[1]));
}

const struct call calls[N_CALLS] = {
	{ "alloc, the first", NULL, NULL, act_alloc, verify_alloc, 1 },
	{ "alloc", NULL, prepare_block, act_alloc, verify_alloc, 1 },
	{ "zalloc, large", NULL, NULL, act_zalloc, verify_alloc, 1 },
	{ "free", NULL, prepare_block, act_free, verify_gone, 0 },
	{ "free of another's", prepare_block, NULL, act_free, verify_gone, 0 },
	{ "free, large", NULL, prepare_large, act_free, verify_gone, 0 },
	{ "free deferred", NULL, prepare_block, act_defer, verify_gone, 0 },
	{ "free deferred of another's", prepare_block, NULL, act_defer, verify_gone, 0 },
	{ "realloc", NULL, prepare_filled, act_realloc, verify_realloc, 1 },
	{ "reserve", NULL, NULL, act_reserve, verify_free, 0 },
	{ "reserve, large", NULL, NULL, act_reserve_large, verify_free, 0 },
	{ "publish", NULL, prepare_publish, act_publish, verify_publish, 0 },
	{ "publish, large", NULL, prepare_publish_large, act_publish, verify_publish, 0 },
	{ "cancel", NULL, act_reserve, act_cancel, verify_free, 0 },
	{ "realloc in", NULL, prepare_word, act_realloc_in, verify_realloc_in, 0 },
	{ "realloc in, large", NULL, prepare_word_large, act_realloc_in_large, verify_realloc_in, 0 },
	{ "close", NULL, prepare_publish, act_close, verify_close, 0 },
};
