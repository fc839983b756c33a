/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is done to pools, for the daemon to be killed in. Each operation knows what it works on, what
 * the client does, and how to tell from outside whether it was done: done() finds it so or not so,
 * and fails the test over anything in between.
 */
#include "tests/crash/operations.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/macro.h"
#include "libclient/call.h"
#include "tests/crash/leavings.h"
#include "tests/crash/op_repair.h"
#include "tests/crash/op_root.h"

#define SMALL (256u << 10)  /* a heap, a region */
#define IN_PLACE (512u << 10) /* within the first shelf's limit, which is 1 MiB */
#define FULL (1024u << 10)
#define FURTHER (1536u << 10)

#define MIB (1u << 20)
#define SPARSE (12 * MIB) /* two granules of metadata */
#define SPARSE_IN_PLACE (24 * MIB)
#define SPARSE_FURTHER (56 * MIB)

/* What is asked of several operations */

void op_check(struct nvmm_client *nvmm, int r)
{
	ck_assert_msg(r == 0, "%d: %s", r, nvmm_errmsg(nvmm));
}

static void prepare_region(struct arena *a, struct nvmm_client *nvmm)
{
	op_check(nvmm, nvmm_region_create(nvmm, &a->stage->id, SMALL, NULL));
}

void op_prepare_heap(struct arena *a, struct nvmm_client *nvmm)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .name = "target",
					     .durability = a->durability };

	op_check(nvmm, nvmm_heap_create(nvmm, &a->stage->id, SMALL, &options));
}

static void enter_heap(struct arena *a, struct nvmm_client *nvmm)
{
	a->client_heap = harness_open(nvmm, a->stage->id);
}

/* The same, with a lane and a span of its own. */
static void enter_user(struct arena *a, struct nvmm_client *nvmm)
{
	enter_heap(a, nvmm);
	ck_assert(nvmm_alloc(a->client_heap, 64) != NVMM_NULL);
}

struct nvmm_pool_info op_target(struct arena *a, struct nvmm_client *nvmm)
{
	struct nvmm_pool_info info;

	ck_assert_msg(arena_target(a, nvmm, &info), "%s", "the target is gone");
	ck_assert_uint_eq(arena_pools(nvmm), a->stage->pools);
	return info;
}

/* Nothing but the common verification. */
static bool done_always(struct arena *a, struct nvmm_client *nvmm)
{
	op_target(a, nvmm);
	return true;
}

/* Creation */

static int act_region_create(struct arena *a, struct nvmm_client *nvmm)
{
	return nvmm_region_create(nvmm, &a->stage->id, SMALL, NULL);
}

static int act_heap_create(struct arena *a, struct nvmm_client *nvmm)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .name = "target", .mode = 0640 };

	return nvmm_heap_create(nvmm, &a->stage->id, SMALL, &options);
}

/* One pool more, or none; under the lowest id, whoever knows of it. */
static bool done_create(struct arena *a, struct nvmm_client *nvmm)
{
	unsigned pools = arena_pools(nvmm);
	struct nvmm_pool_info info;

	if (pools == a->stage->pools)
		return false;
	ck_assert_uint_eq(pools, a->stage->pools + 1);
	ck_assert(a->stage->id == 0 || a->stage->id == a->stage->next);
	a->stage->id = a->stage->next;
	ck_assert(arena_target(a, nvmm, &info));
	ck_assert_uint_eq(info.bytes, SMALL);
	ck_assert_uint_eq(info.shelves, 1);
	ck_assert_uint_eq(info.uid, geteuid());
	return true;
}

static bool done_create_named(struct arena *a, struct nvmm_client *nvmm)
{
	bool done = done_create(a, nvmm);
	nvmm_pool_id id = 0;

	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "target", &id), done ? 0 : -ENOENT);
	ck_assert_uint_eq(id, a->stage->id);
	return done;
}

/* Size */

static int act_resize_in_place(struct arena *a, struct nvmm_client *nvmm)
{
	return nvmm_pool_resize(nvmm, a->stage->id, IN_PLACE);
}

static int act_resize_further(struct arena *a, struct nvmm_client *nvmm)
{
	return nvmm_pool_resize(nvmm, a->stage->id, FURTHER);
}

static bool done_resize(struct arena *a, struct nvmm_client *nvmm, uint64_t before, uint64_t after,
			unsigned shelves_before, unsigned shelves_after)
{
	struct nvmm_pool_info info = op_target(a, nvmm);
	bool done = info.bytes == after;

	ck_assert_msg(done || info.bytes == before, "%llu bytes", (unsigned long long)info.bytes);
	ck_assert_uint_eq(info.shelves, done ? shelves_after : shelves_before);
	return done;
}

static bool done_resize_in_place(struct arena *a, struct nvmm_client *nvmm)
{
	return done_resize(a, nvmm, SMALL, IN_PLACE, 1, 1);
}

static bool done_resize_further(struct arena *a, struct nvmm_client *nvmm)
{
	return done_resize(a, nvmm, SMALL, FURTHER, 1, 2);
}

/* The only shelf is as long as it may become. */
static void prepare_full(struct arena *a, struct nvmm_client *nvmm)
{
	op_prepare_heap(a, nvmm);
	op_check(nvmm, nvmm_pool_resize(nvmm, a->stage->id, FULL));
}

static bool done_resize_full(struct arena *a, struct nvmm_client *nvmm)
{
	return done_resize(a, nvmm, FULL, FURTHER, 1, 2);
}

/* Rights */

static int act_chmod(struct arena *a, struct nvmm_client *nvmm)
{
	return nvmm_pool_chmod(nvmm, a->stage->id, 0644);
}

static bool done_chmod(struct arena *a, struct nvmm_client *nvmm)
{
	struct nvmm_pool_info info = op_target(a, nvmm);

	ck_assert(info.mode == 0600 || info.mode == 0644);
	return info.mode == 0644;
}

/* Who may give a pool away gives it to nobody, others to themselves. */
static uid_t other_uid(void)
{
	return geteuid() == 0 ? 65534 : geteuid();
}

static int act_chown(struct arena *a, struct nvmm_client *nvmm)
{
	return nvmm_pool_chown(nvmm, a->stage->id, other_uid(), (gid_t)-1);
}

static bool done_chown(struct arena *a, struct nvmm_client *nvmm)
{
	struct nvmm_pool_info info = op_target(a, nvmm);

	ck_assert(info.uid == geteuid() || info.uid == other_uid());
	return info.uid == other_uid();
}

/* Destruction */

static int act_region_destroy(struct arena *a, struct nvmm_client *nvmm)
{
	return nvmm_region_destroy(nvmm, a->stage->id);
}

static int act_heap_destroy(struct arena *a, struct nvmm_client *nvmm)
{
	return nvmm_heap_destroy(nvmm, a->stage->id);
}

static int act_destroy_forced(struct arena *a, struct nvmm_client *nvmm)
{
	_reply reply = NVMM_REPLY_INIT;
	Nvmm__PoolDestroy op = NVMM__POOL_DESTROY__INIT;
	Nvmm__Request request = NVMM_REQUEST(POOL_DESTROY, pool_destroy, &op);

	op.id = a->stage->id;
	op.force = true;
	return nvmm_call(nvmm, &request, NVMM__REPLY__RESULT__NOT_SET, 0, &reply);
}

static bool done_destroy(struct arena *a, struct nvmm_client *nvmm)
{
	struct nvmm_pool_info info;
	bool there = arena_target(a, nvmm, &info);

	ck_assert_uint_eq(arena_pools(nvmm), a->stage->pools - !there);
	return !there;
}

/* The id in the holder's pointers must not come to mean another pool. */
static bool done_destroy_held(struct arena *a, struct nvmm_client *nvmm)
{
	bool done = done_destroy(a, nvmm);
	nvmm_pool_id id = a->stage->id;

	ck_assert_int_eq(nvmm_region_create(nvmm, &id, 4096, NULL), done ? -EBUSY : -EEXIST);
	if (!done)
		op_check(nvmm, act_destroy_forced(a, nvmm));
	return done;
}

/* Others come first */

static void overtake_mode(struct arena *a, struct nvmm_client *nvmm, bool done)
{
	if (done)
		op_check(nvmm, nvmm_pool_chmod(nvmm, a->stage->id, 0666));
}

/* The pool that was made is still the only one. */
static void overtaken_create(struct arena *a, struct nvmm_client *nvmm, bool done)
{
	ck_assert_int_eq(a->stage->result, 0);
	ck_assert(done_create(a, nvmm));
}

/* What came later stays. */
static void overtaken_mode(struct arena *a, struct nvmm_client *nvmm, bool done)
{
	ck_assert_int_eq(a->stage->result, 0);
	ck_assert_uint_eq(op_target(a, nvmm).mode, done ? 0666 : 0644);
}

/* Somebody gets the id for a pool of his. */
static void overtake_id(struct arena *a, struct nvmm_client *nvmm, bool done)
{
	if (done)
		op_check(nvmm, nvmm_region_create(nvmm, &a->stage->id, SMALL, NULL));
}

static void overtaken_id(struct arena *a, struct nvmm_client *nvmm, bool done)
{
	struct nvmm_pool_info info;

	ck_assert_int_eq(a->stage->result, 0);
	ck_assert_int_eq(arena_target(a, nvmm, &info), done);
}

/* Use of heaps */

static int act_open(struct arena *a, struct nvmm_client *nvmm)
{
	return nvmm_heap_open(&a->client_heap, nvmm, a->stage->id, O_RDWR);
}

static void repeated_open(struct arena *a, struct nvmm_client *nvmm)
{
	ck_assert_uint_eq(op_target(a, nvmm).openers, 1);
}

static int act_close(struct arena *a, struct nvmm_client *nvmm)
{
	(void)nvmm;
	nvmm_heap_close(a->client_heap);
	a->client_heap = NULL;
	return 0;
}

static void repeated_close(struct arena *a, struct nvmm_client *nvmm)
{
	ck_assert_uint_eq(op_target(a, nvmm).openers, 0);
}

#define LANES 64u /* more than the file has at first, twice over */

static int act_lanes(struct arena *a, struct nvmm_client *nvmm)
{
	_reply reply = NVMM_REPLY_INIT;
	Nvmm__LaneTake op = NVMM__LANE_TAKE__INIT;
	Nvmm__Request request = NVMM_REQUEST(LANE_TAKE, lane_take, &op);

	op.id = a->stage->id;
	op.count = LANES;
	return nvmm_call(nvmm, &request, NVMM__REPLY__RESULT_LANES, 0, &reply);
}

static void repeated_lanes(struct arena *a, struct nvmm_client *nvmm)
{
	_reply reply = NVMM_REPLY_INIT;
	Nvmm__HeapStat op = NVMM__HEAP_STAT__INIT;
	Nvmm__Request request = NVMM_REQUEST(HEAP_STAT, heap_stat, &op);

	op.id = a->stage->id;
	op_check(nvmm, nvmm_call(nvmm, &request, NVMM__REPLY__RESULT_HEAP, 0, &reply));
	ck_assert_uint_eq(reply.msg->heap->lanes, LANES);
}

static int act_alloc(struct arena *a, struct nvmm_client *nvmm, size_t size)
{
	(void)nvmm;
	return nvmm_alloc(a->client_heap, size) == NVMM_NULL ? -errno : 0;
}

static int act_alloc_small(struct arena *a, struct nvmm_client *nvmm)
{
	return act_alloc(a, nvmm, 100);
}

static int act_alloc_large(struct arena *a, struct nvmm_client *nvmm)
{
	return act_alloc(a, nvmm, 160u << 10);
}

/* Sparse heaps */

static int sparse_create(struct arena *a, struct nvmm_client *nvmm)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .name = "target", .sparse = true };

	return nvmm_heap_create(nvmm, &a->stage->id, SPARSE, &options);
}

static bool done_sparse_create(struct arena *a, struct nvmm_client *nvmm)
{
	struct nvmm_pool_info info;
	nvmm_pool_id id = 0;

	if (arena_pools(nvmm) == a->stage->pools)
		return false;
	ck_assert_uint_eq(arena_pools(nvmm), a->stage->pools + 1);
	op_check(nvmm, nvmm_pool_lookup(nvmm, "target", &id));
	ck_assert(a->stage->id == 0 || a->stage->id == id);
	a->stage->id = id;
	ck_assert(arena_target(a, nvmm, &info));
	ck_assert_uint_eq(info.bytes, SPARSE);
	ck_assert(info.sparse);
	return true;
}

static void prepare_sparse(struct arena *a, struct nvmm_client *nvmm)
{
	op_check(nvmm, sparse_create(a, nvmm));
}

static int act_sparse_in_place(struct arena *a, struct nvmm_client *nvmm)
{
	return nvmm_pool_resize(nvmm, a->stage->id, SPARSE_IN_PLACE);
}

static bool done_sparse_in_place(struct arena *a, struct nvmm_client *nvmm)
{
	return done_resize(a, nvmm, SPARSE, SPARSE_IN_PLACE, 1, 1);
}

static int act_sparse_further(struct arena *a, struct nvmm_client *nvmm)
{
	return nvmm_pool_resize(nvmm, a->stage->id, SPARSE_FURTHER);
}

static bool done_sparse_further(struct arena *a, struct nvmm_client *nvmm)
{
	return done_resize(a, nvmm, SPARSE, SPARSE_FURTHER, 1, 2);
}

/* The rest of the free run begins in a granule without metadata. */
static int act_alloc_granule(struct arena *a, struct nvmm_client *nvmm)
{
	return act_alloc(a, nvmm, 9 * MIB);
}

/* Blocks that were freed have pages: their run is granted to many and punched. */
static void enter_spent_sparse(struct arena *a, struct nvmm_client *nvmm)
{
	nvmm_ptr ptr[8];

	enter_heap(a, nvmm);
	for (unsigned i = 0; i < ARRAY_SIZE(ptr); i++)
		ck_assert((ptr[i] = nvmm_alloc(a->client_heap, MIB)) != NVMM_NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(ptr); i++)
		op_check(nvmm, nvmm_free(a->client_heap, ptr[i]));
}

static int act_trim(struct arena *a, struct nvmm_client *nvmm)
{
	int64_t r = nvmm_heap_trim(a->client_heap);

	(void)nvmm;
	return r < 0 ? (int)r : 0;
}

/* Every unit is of an empty span of small blocks: a large one has them retired. */
static void prepare_spent(struct arena *a, struct nvmm_client *nvmm)
{
	nvmm_ptr ptr[SMALL / 1024];
	struct nvmm_heap *heap;
	unsigned n = 0;

	op_prepare_heap(a, nvmm);
	heap = harness_open(nvmm, a->stage->id);
	while (n < ARRAY_SIZE(ptr) && (ptr[n] = nvmm_alloc(heap, 1024)) != NVMM_NULL)
		n++;
	while (n > 0)
		op_check(nvmm, nvmm_free(heap, ptr[--n]));
	nvmm_heap_close(heap);
}

static struct nvmm_heap_info heap_figures(struct arena *a, struct nvmm_client *nvmm)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };
	struct nvmm_heap *heap;

	op_target(a, nvmm);
	op_check(nvmm, nvmm_heap_open(&heap, nvmm, a->stage->id, O_RDONLY));
	op_check(nvmm, nvmm_heap_stat(heap, &info));
	nvmm_heap_close(heap);
	return info;
}

/* A block whose allocator died before it was told may be there or not, but never two. */
static bool done_alloc(struct arena *a, struct nvmm_client *nvmm)
{
	struct nvmm_heap_info info = heap_figures(a, nvmm);

	ck_assert_uint_le(info.blocks, 1);
	return info.blocks == 1;
}

#define HELD 6u /* blocks of a client that is killed, each in a span of its own */
#define ROOMY (8u << 20) /* small heaps let a lane keep few spans */

static void prepare_roomy(struct arena *a, struct nvmm_client *nvmm)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .durability = a->durability };

	op_check(nvmm, nvmm_heap_create(nvmm, &a->stage->id, ROOMY, &options));
}

static void enter_holding(struct arena *a, struct nvmm_client *nvmm)
{
	static const size_t size[HELD] = { 16, 64, 300, 1000, 5000, 30000 };
	nvmm_ptr ptr;

	enter_heap(a, nvmm);
	for (unsigned i = 0; i < HELD; i++) {
		ck_assert(nvmm_alloc(a->client_heap, size[i]) != NVMM_NULL);
		ptr = nvmm_alloc(a->client_heap, size[i]);
		op_check(nvmm, nvmm_free(a->client_heap, ptr));
	}
}

static bool done_settle(struct arena *a, struct nvmm_client *nvmm)
{
	ck_assert_uint_eq(heap_figures(a, nvmm).blocks, HELD);
	return true;
}

/* The list */

const struct operation operations[N_OPERATIONS] = {
	{ .name = "region create",
	  .act = act_region_create, .done = done_create, .overtake = overtake_mode,
	  .overtaken = overtaken_create },
	{ .name = "heap create",
	  .act = act_heap_create, .done = done_create_named },
	{ .name = "region resize in place",
	  .prepare = prepare_region, .act = act_resize_in_place, .done = done_resize_in_place },
	{ .name = "region resize, further shelf",
	  .prepare = prepare_region, .act = act_resize_further, .done = done_resize_further },
	{ .name = "heap resize in place",
	  .prepare = op_prepare_heap, .enter = enter_user, .act = act_resize_in_place,
	  .done = done_resize_in_place },
	{ .name = "heap resize, further shelf",
	  .prepare = op_prepare_heap, .enter = enter_user, .act = act_resize_further,
	  .done = done_resize_further },
	{ .name = "heap resize, full shelf",
	  .prepare = prepare_full, .act = act_resize_further, .done = done_resize_full },
	{ .name = "chmod",
	  .prepare = prepare_region, .act = act_chmod, .done = done_chmod,
	  .overtake = overtake_mode, .overtaken = overtaken_mode },
	{ .name = "chown",
	  .prepare = op_prepare_heap, .act = act_chown, .done = done_chown },
	{ .name = "region destroy",
	  .prepare = prepare_region, .act = act_region_destroy, .done = done_destroy,
	  .overtake = overtake_id, .overtaken = overtaken_id },
	{ .name = "heap destroy",
	  .prepare = op_prepare_heap, .act = act_heap_destroy, .done = done_destroy },
	{ .name = "heap destroy by force",
	  .prepare = op_prepare_heap, .act = act_destroy_forced, .done = done_destroy_held,
	  .held = true },
	{ .name = "root set", .power = true,
	  .prepare = root_prepare, .enter = enter_heap, .act = root_act_set, .done = root_done,
	  .overtake = root_overtake, .overtaken = root_overtaken_set },
	{ .name = "root set, new", .power = true,
	  .prepare = op_prepare_heap, .enter = enter_heap, .act = root_act_set,
	  .done = root_done_new, .overtake = root_overtake,
	  .overtaken = root_overtaken_set },
	{ .name = "root cas", .power = true,
	  .prepare = root_prepare, .enter = enter_heap, .act = root_act_cas, .done = root_done,
	  .overtake = root_overtake, .overtaken = root_overtaken_cas },
	{ .name = "root cas, new", .power = true,
	  .prepare = op_prepare_heap, .enter = enter_heap, .act = root_act_cas_new,
	  .done = root_done_new, .overtake = root_overtake,
	  .overtaken = root_overtaken_cas },
	{ .name = "root remove", .power = true,
	  .prepare = root_prepare, .enter = enter_heap, .act = root_act_remove,
	  .done = root_done_remove, .overtake = root_overtake,
	  .overtaken = root_overtaken_remove },
	{ .name = "heap open",
	  .prepare = op_prepare_heap, .act = act_open, .done = done_always,
	  .repeated = repeated_open },
	{ .name = "heap close",
	  .prepare = op_prepare_heap, .enter = enter_user, .act = act_close, .done = done_always,
	  .repeated = repeated_close },
	{ .name = "lanes taken",
	  .prepare = op_prepare_heap, .enter = enter_heap, .act = act_lanes, .done = done_always,
	  .repeated = repeated_lanes },
	{ .name = "span granted",
	  .prepare = op_prepare_heap, .enter = enter_heap, .act = act_alloc_small,
	  .done = done_alloc },
	{ .name = "large block granted",
	  .prepare = op_prepare_heap, .enter = enter_heap, .act = act_alloc_large,
	  .done = done_alloc },
	{ .name = "spans retired",
	  .prepare = prepare_spent, .enter = enter_heap, .act = act_alloc_large,
	  .done = done_alloc },
	{ .name = "sparse heap create",
	  .act = sparse_create, .done = done_sparse_create },
	{ .name = "sparse heap resize in place",
	  .prepare = prepare_sparse, .enter = enter_user, .act = act_sparse_in_place,
	  .done = done_sparse_in_place },
	{ .name = "sparse heap resize, further shelf",
	  .prepare = prepare_sparse, .enter = enter_user, .act = act_sparse_further,
	  .done = done_sparse_further },
	{ .name = "sparse heap, span granted",
	  .prepare = prepare_sparse, .enter = enter_heap, .act = act_alloc_small,
	  .done = done_alloc },
	{ .name = "sparse heap, large block granted",
	  .prepare = prepare_sparse, .enter = enter_heap, .act = act_alloc_granule,
	  .done = done_alloc },
	{ .name = "sparse heap trimmed",
	  .prepare = prepare_sparse, .enter = enter_spent_sparse, .act = act_trim,
	  .done = done_always },
	{ .name = "heap repaired",
	  .prepare = repair_prepare, .act = repair_act, .done = repair_done },
	{ .name = "client settled",
	  .prepare = prepare_roomy, .enter = enter_holding, .done = done_settle, .power = true },
	{ .name = "client's publish settled",
	  .prepare = prepare_roomy, .enter = leavings_enter, .done = leavings_done, .power = true },
	{ .name = "settlement waited for",
	  .prepare = prepare_roomy, .enter = leavings_enter_waiting, .act = leavings_act_wait,
	  .done = leavings_done, .power = true },
};
