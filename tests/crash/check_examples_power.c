/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Deaths and power cuts at every store, flush and drain of the worked examples: queue and map as users copy them, on the
 * real library and daemon, in durability `power`. What memory has then, or what the medium may, the programs' own bytes
 * among it, is put into a second machine, whose daemon recovers it (tests/crash/machine.h).
 *
 * The oracle: the structure is whole, and has in it what it had before the change that was cut short or after it,
 * and after it if that returned; the heap holds the root and what the structure reaches, nothing else: after a death at
 * once, after a power cut when the suspects have been swept; no rule of the heap is broken; the structure can be used
 * and emptied. What a plain allocation leaves, that of the root, is let pass.
 *
 * NVMMD_TEST_LONG=1 visits every point; else a sample, another one each time, from the seed that is printed:
 * NVMMD_TEST_SEED=N has the same one again. NVMMD_TEST_OPERATION=TEXT: those alone whose name has this text.
 * NVMMD_TEST_FAULT=1: the programs forget to make durable what they put into blocks, which must be found.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/macro.h"
#include "examples/map.h"
#include "examples/queue.h"
#include "tests/crash/ledger.h"
#include "tests/crash/machine.h"

#define NAME "example"
#define HEAP_BYTES (UINT64_C(512) << 10)
#define ITEMS 16u
#define STEPS 6u
#ifdef __SANITIZE_ADDRESS__
#define STEP 29u
#else
#define STEP 11u
#endif
#define IMAGES (ledger_whole() ? 64u : 4u)

enum kind { KIND_NONE, KIND_PUT, KIND_TAKE, KIND_SET, KIND_REMOVE, KIND_OPEN };

struct step {
	enum kind kind;
	uint64_t key, value; /* of a queue: `value` alone */
};

#define PUT(v) { KIND_PUT, 0, v }
#define TAKE { KIND_TAKE, 0, 0 }
#define SET(k, v) { KIND_SET, k, v }
#define REMOVE(k) { KIND_REMOVE, k, 0 }
#define OPEN { KIND_OPEN, 0, 0 }

struct script {
	const char *name;
	bool map;
	struct step before[STEPS]; /* not cut short */
	struct step step[STEPS];
};

/* What must be there: items in their order, or keys in any. */
struct model {
	unsigned n;
	struct step item[ITEMS];
};

static struct machine machine;
static const struct script *script;
static uint64_t seed;
/* Shared with the program: steps that returned. */
static unsigned *done;
static bool forgets;

/* Stands for the i-th key of a bucket: see key_of(). */
#define K(i) (1000u + (i))

static const struct script scripts[] = {
	{ .name = "queue, put", .step = { PUT(11), PUT(12), PUT(13) } },
	{ .name = "queue, take",
	  .before = { PUT(11), PUT(12), PUT(13) },
	  .step = { TAKE, TAKE, TAKE } },
	{ .name = "queue, put and take",
	  .before = { PUT(11) },
	  .step = { PUT(12), TAKE, TAKE, PUT(13) } },
	{ .name = "queue, open, new", .step = { OPEN } },
	{ .name = "map, set, new",
	  .map = true,
	  .step = { SET(K(0), 1), SET(K(1), 2), SET(7, 3) } },
	{ .name = "map, set, known",
	  .map = true,
	  .before = { SET(K(0), 1), SET(K(1), 2), SET(K(2), 3) },
	  .step = { SET(K(1), 4), SET(K(0), 5), SET(K(2), 6) } },
	{ .name = "map, remove",
	  .map = true,
	  .before = { SET(K(0), 1), SET(K(1), 2), SET(K(2), 3), SET(7, 4) },
	  .step = { REMOVE(K(1)), REMOVE(K(0)), REMOVE(7), REMOVE(K(2)) } },
};

static uint64_t key_of(uint64_t key)
{
	unsigned left = (unsigned)(key - K(0));
	uint64_t k;

	if (key < K(0))
		return key;
	for (k = 100; left > 0 || map_bucket(k) != 5; k++)
		left -= map_bucket(k) == 5;
	return k;
}

/* The fault: calls of the examples come here (--wrap), those of the library to itself do not. */
void __real_nvmm_persist(const void *addr, size_t len);
void __wrap_nvmm_persist(const void *addr, size_t len);

void __wrap_nvmm_persist(const void *addr, size_t len)
{
	if (!forgets)
		__real_nvmm_persist(addr, len);
}

/* The model */

static unsigned model_find(const struct model *m, uint64_t key)
{
	unsigned i = 0;

	while (i < m->n && m->item[i].key != key)
		i++;
	return i;
}

static void model_apply(struct model *m, const struct step *s)
{
	unsigned i = model_find(m, key_of(s->key));

	switch (s->kind) {
	case KIND_SET:
		if (i < m->n) {
			m->item[i].value = s->value;
			break;
		}
		/* fall through */
	case KIND_PUT:
		m->item[m->n++] = (struct step){ s->kind, key_of(s->key), s->value };
		break;
	case KIND_TAKE:
		i = 0;
		/* fall through */
	case KIND_REMOVE:
		m->n--;
		memmove(&m->item[i], &m->item[i + 1], (m->n - i) * sizeof(m->item[0]));
		break;
	default:
		break;
	}
}

/* After so many steps. */
static struct model model_after(unsigned n)
{
	struct model m = { 0 };

	for (unsigned i = 0; i < STEPS; i++)
		model_apply(&m, &script->before[i]);
	for (unsigned i = 0; i < n && i < STEPS; i++)
		model_apply(&m, &script->step[i]);
	return m;
}

/* The program */

static void step(struct shared *s, const struct step *what)
{
	uint64_t item;
	int r = 0;

	if (what->kind == KIND_NONE)
		return;
	r = shared_lock(s);
	if (what->kind == KIND_PUT)
		r |= queue_put(s, what->value);
	else if (what->kind == KIND_TAKE)
		r |= queue_take(s, &item) - 1;
	else if (what->kind == KIND_SET)
		r |= map_set(s, key_of(what->key), what->value);
	else if (what->kind == KIND_REMOVE)
		r |= map_remove(s, key_of(what->key));
	shared_unlock(s);
	must(r == 0, "%s: a step failed", script->name);
}

static void open_here(struct shared *s, const struct harness *h)
{
	size_t size = script->map ? sizeof(struct map) : sizeof(struct queue);

	ck_assert_int_eq(setenv("NVMM_SOCKET", h->socket, 1), 0);
	must(shared_open(s, NAME, size) == 0, "%s: open failed", script->name);
}

/* So that it needs no daemon from now on: the thread has a span, and has been in an epoch. */
static void warm_up(struct shared *s)
{
	static const struct step queue[] = { PUT(99), TAKE };
	static const struct step map[] = { SET(99, 99), REMOVE(99) };

	for (unsigned i = 0; i < 2; i++)
		step(s, script->map ? &map[i] : &queue[i]);
}

static void program(void *arg)
{
	bool opens = script->step[0].kind == KIND_OPEN;
	struct shared s;

	(void)arg;
	if (!opens) {
		open_here(&s, &machine.here);
		warm_up(&s);
		for (unsigned i = 0; i < STEPS; i++)
			step(&s, &script->before[i]);
	}
	machine_begin(&machine);
	if (opens)
		open_here(&s, &machine.here);
	for (unsigned i = 0; i < STEPS && !opens; i++) {
		step(&s, &script->step[i]);
		*done = i + 1;
	}
	machine_end(&machine);
	shared_close(&s);
}

/* After the cut */

struct found {
	struct model model;
	nvmm_ptr reached[ITEMS + 1]; /* the root and the nodes */
	unsigned n;
};

static void found_add(struct found *f, nvmm_ptr node, uint64_t key, uint64_t value)
{
	must(f->model.n < ITEMS, "%s: too much is in it", script->name);
	f->reached[f->n++] = node;
	f->model.item[f->model.n++] = (struct step){ KIND_NONE, key, value };
}

static void found_item(uint64_t item, nvmm_ptr node, void *arg)
{
	found_add(arg, node, 0, item);
}

static void found_key(uint64_t key, uint64_t value, nvmm_ptr node, void *arg)
{
	found_add(arg, node, key, value);
}

static struct found find(struct shared *s)
{
	struct found f = { .reached = { s->at }, .n = 1 };
	int r = script->map ? map_walk(s, found_key, &f) : queue_walk(s, found_item, &f);

	must(r == 0, "%s, point %llu: it is broken", script->name,
	     (unsigned long long)machine.state->points);
	return f;
}

static bool same(const struct model *found, const struct model *wanted)
{
	for (unsigned i = 0; i < wanted->n && found->n == wanted->n; i++) {
		/* A map's are in another order. */
		unsigned k = script->map ? model_find(found, wanted->item[i].key) : i;

		if (k == found->n || found->item[k].value != wanted->item[i].value)
			return false;
	}
	return found->n == wanted->n;
}

static bool is_reached(nvmm_ptr ptr, size_t size, void *arg)
{
	const struct found *f = arg;

	(void)size;
	for (unsigned i = 0; i < f->n; i++)
		if (f->reached[i] == ptr)
			return true;
	return false;
}

static int count_allocated(nvmm_ptr ptr, size_t size, enum nvmm_block_state state, void *arg)
{
	unsigned *n = arg;

	(void)ptr;
	(void)size;
	*n += state == NVMM_BLOCK_ALLOCATED;
	return 0;
}

/* Of the root, which is no more than allocated for a while. */
static unsigned leavings(void)
{
	return machine.same_boot && !machine.alone && !machine.state->ended;
}

/* No rule is broken; after the suspects are swept all that is allocated is reached, and the other way round. */
static void expect_nothing_lost(struct shared *s, struct found *f)
{
	struct nvmm_heap_report report = { .size = sizeof(report) };
	struct nvmm_sweep_info swept = { .size = sizeof(swept) };
	unsigned long long point = machine.state->points;
	unsigned allocated = 0;

	must(nvmm_heap_check(s->heap, &report) == 0 && report.violations == 0,
	     "%s, point %llu: %llu rules of the heap are broken", script->name, point,
	     (unsigned long long)report.violations);
	for (unsigned i = 0; i < f->n; i++)
		must(nvmm_usable_size(s->heap, f->reached[i]) > 0, "%s, point %llu: what is reached is free",
		     script->name, point);
	must(!machine.same_boot || report.suspects == 0, "%s: suspects without a power cut", script->name);
	must(nvmm_heap_sweep(s->heap, 0, is_reached, f, &swept) == 0 && swept.asked == report.suspects,
	     "%s, point %llu: asked about %llu of %llu suspects", script->name, point,
	     (unsigned long long)swept.asked, (unsigned long long)report.suspects);
	must(nvmm_heap_walk(s->heap, count_allocated, &allocated) == 0, "walk");
	must(allocated >= f->n && allocated <= f->n + leavings(),
	     "%s, point %llu: %u blocks are allocated, %u reached", script->name, point, allocated, f->n);
}

/* It goes on: what is put is there, and it can be emptied. */
static void use(struct shared *s, const struct model *m)
{
	static const struct step more[] = { PUT(77), SET(77, 77) };
	static const struct step take = TAKE;
	struct found f;

	step(s, &more[script->map]);
	for (unsigned i = 0; i < m->n; i++) {
		struct step remove = REMOVE(m->item[i].key);

		step(s, script->map ? &remove : &take);
	}
	f = find(s);
	must(f.model.n == 1 && f.model.item[0].value == 77, "%s: it cannot be used", script->name);
}

static void try(void *arg)
{
	struct model before = model_after(*done), after = model_after(*done + !machine.state->ended);
	struct found f;
	struct shared s;

	(void)arg;
	open_here(&s, &machine.there);
	ck_assert_int_eq(shared_lock(&s), 0);
	f = find(&s);
	must(same(&f.model, &before) || same(&f.model, &after),
	     "%s, point %llu: it holds %u items, and neither those before nor those after step %u", script->name,
	     (unsigned long long)machine.state->points, f.model.n, *done + 1);
	expect_nothing_lost(&s, &f);
	shared_unlock(&s);
	use(&s, &f.model);
	shared_close(&s);
}

static uint64_t tell(void *arg)
{
	(void)arg;
	return *done * 2 + machine.state->ended;
}

/* A heap; for who is to open it as a new one with bytes in its blocks that are not zero. */
static nvmm_pool_id make_heap(bool dirty)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .name = NAME };
	struct nvmm_pool_info info = { .size = sizeof(info) };
	static nvmm_ptr ptr[HEAP_BYTES / sizeof(struct queue)];
	struct nvmm_client *nvmm = harness_connect(&machine.here);
	struct nvmm_heap *heap;
	nvmm_pool_id id = 0;
	unsigned n = 0;

	ck_assert_int_eq(nvmm_heap_create(nvmm, &id, HEAP_BYTES, &options), 0);
	ck_assert_int_eq(nvmm_pool_stat(nvmm, id, &info), 0);
	ck_assert_uint_eq(info.durability, NVMM_DURABILITY_POWER);
	heap = harness_open(nvmm, id);
	for (; dirty && (ptr[n] = nvmm_alloc(heap, sizeof(struct queue))) != NVMM_NULL; n++)
		memset(nvmm_local(nvmm, ptr[n]), 0xee, sizeof(struct queue));
	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(nvmm_free(heap, ptr[i]), 0);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	return id;
}

START_TEST(every_point)
{
	const char *only = getenv("NVMMD_TEST_OPERATION"), *fault = getenv("NVMMD_TEST_FAULT");
	struct ledger l = { .suite = "examples", .durability = "power" };
	struct machine_run run = { .program = program, .try = try, .tell = tell, .most = IMAGES };

	script = &scripts[_i];
	l.operation = script->name;
	if (only && !strstr(script->name, only))
		return;
	ledger_begin(&l);
	forgets = fault && strcmp(fault, "0") != 0;
	done = harness_shared(sizeof(*done));
	machine_init(&machine);
	machine.alone = script->step[0].kind != KIND_OPEN;
	machine_watch(&machine, make_heap(!machine.alone));
	run.step = ledger_whole() ? 1 : STEP;
	run.offset = seed % run.step;
	l.images = machine_run(&machine, &run);
	l.points = machine.state->points;
	machine_deinit(&machine);
	ledger_end(&l);
}
END_TEST

int main(void)
{
	const char *text = getenv("NVMMD_TEST_SEED");
	Suite *s = suite_create("examples");
	TCase *t = harness_case(s, "examples", ledger_whole() ? 3600 : 120);

	seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
	if (!ledger_whole())
		printf("a sample: NVMMD_TEST_SEED=%llu for the same again, NVMMD_TEST_LONG=1 for all\n",
		       (unsigned long long)seed);
	fflush(stdout);
	tcase_add_loop_test(t, every_point, 0, (int)ARRAY_SIZE(scripts));
	return harness_run(s);
}
