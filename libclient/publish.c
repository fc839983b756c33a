/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Crash-atomic changes: reserve, publish, cancel; and waiting for those of the dead.
 *
 * Publish and cancel run in an epoch of the caller's, from before anything is changed until all is
 * cleared: what media/publish.c needs so that a settler may repeat them.
 */
#include <errno.h>
#include <time.h>

#include "libclient/block.h"
#include "libclient/epochs.h"
#include "media/limbo.h"
#include "media/publish.h"

_Static_assert(NVMM_PUBLISH_MAX == LOG_ACTIONS, "what a log holds");
_Static_assert((int)NVMM_ACTION_COMMIT == LOG_COMMIT_BLOCK && (int)NVMM_ACTION_FREE == LOG_FREE_BLOCK &&
		       (int)NVMM_ACTION_STORE == LOG_STORE,
	       "the kinds of actions are those of the log");

static struct reservations *reservations_of(const struct nvmm_heap *heap)
{
	return lanes_reservations(heap->handle.pool->lanes);
}

/* The thread's lane. */
static int lane_of(struct nvmm_heap *heap, struct lane **ret)
{
	*ret = lanes_find(&heap->lanes);
	return *ret ? 0 : block_lane(heap, ret);
}

_public nvmm_ptr nvmm_reserve(struct nvmm_heap *heap, size_t size)
{
	struct lane *lane;
	nvmm_ptr ptr;
	int r = size == 0 ? -EINVAL : lane_of(heap, &lane);

	if (r == 0)
		r = lane_reserve(lane, reservations_of(heap), size, &ptr);
	if (r == 0)
		return ptr;
	if (r == -ENOBUFS)
		nvmm_fail(heap->handle.nvmm, r,
			  "heap %u: this thread has %u blocks reserved, which is all that it can: publish "
			  "or cancel some",
			  heap->handle.pool->id, LANE_RESERVED);
	return block_failed(heap, size, r);
}

/* Enters the epoch in which `act` runs. */
static int begin(struct nvmm_heap *heap, struct lane **lane)
{
	int r = lane_of(heap, lane);

	return r < 0 ? r : nvmm_epoch_enter(heap->handle.nvmm);
}

/* Wakes the daemon if blocks went to limbo while it does not look, and leaves the epoch. */
static void end(struct nvmm_heap *heap, struct lane *lane, bool wake, uint64_t watch)
{
	struct nvmm_client *nvmm = heap->handle.nvmm;

	if (wake) {
		epochs_wake(epochs_of(nvmm));
		limbo_woken(&heap->handle.pool->heap, watch);
		lane_deferred(lane);
	}
	nvmm_epoch_exit(nvmm);
}

/* Publishing */

static const char *const kinds[] = {
	[NVMM_ACTION_COMMIT] = "commit",
	[NVMM_ACTION_FREE] = "free",
	[NVMM_ACTION_STORE] = "store",
};

/* Says what is wrong with action `bad` of n. */
static int publish_text(struct nvmm_heap *heap, const struct nvmm_action *actions, size_t n,
			size_t bad, int r)
{
	const struct nvmm_action *a = &actions[bad];
	const char *why = "it is named twice, is not a block's start, or not what the action needs";

	if (bad >= n)
		return free_text(heap->handle.pool, NVMM_NULL, r);
	if (r == -EALREADY)
		why = "the block is free already";
	else if (r == -EBUSY)
		why = "the block is reserved, or being published or cancelled by another thread";
	else if (r != -EINVAL)
		return r;
	else if (a->kind == NVMM_ACTION_COMMIT)
		why = "the block is not reserved, or named twice";
	else if (a->kind == NVMM_ACTION_STORE)
		why = "it is no aligned word of an allocated block of this heap, or named twice";
	return nvmm_fail(heap->handle.nvmm, r, "heap %u: action %zu (%s %#llx): %s",
			 heap->handle.pool->id, bad,
			 a->kind < ARRAY_SIZE(kinds) && kinds[a->kind] ? kinds[a->kind] : "unknown",
			 (unsigned long long)a->ptr, why);
}

/* Finds the words. A pointer that is none has no address, or one that is judged later. */
static void translate(struct nvmm_heap *heap, struct publish_action *to,
		      const struct nvmm_action *from, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bool word = from[i].kind == NVMM_ACTION_STORE &&
			    nvmm_ptr_pool(from[i].ptr) == heap->handle.pool->id;

		to[i] = (struct publish_action){
			.kind = (enum log_kind)from[i].kind,
			.where = from[i].ptr,
			.value = from[i].value,
			.word = word ? nvmm_local(heap->handle.nvmm, from[i].ptr) : NULL,
		};
	}
}

_public int nvmm_publish(struct nvmm_heap *heap, const struct nvmm_action *actions, size_t n)
{
	struct publish_action to[LOG_ACTIONS];
	struct lane *lane;
	uint64_t watch;
	size_t bad;
	bool wake;
	int r;

	if (n > LOG_ACTIONS)
		return nvmm_fail(heap->handle.nvmm, -E2BIG, "%zu actions at once: at most %u", n,
				 LOG_ACTIONS);
	if (n == 0)
		return 0;
	r = begin(heap, &lane);
	if (r < 0)
		return r;
	translate(heap, to, actions, n);
	r = lane_publish(lane, reservations_of(heap), to, n, &bad, &wake, &watch);
	end(heap, lane, wake, watch);
	return r < 0 ? publish_text(heap, actions, n, bad, r) : 0;
}

_public int nvmm_cancel(struct nvmm_heap *heap, nvmm_ptr ptr)
{
	struct lane *lane;
	uint64_t watch;
	bool wake;
	int r;

	if (ptr == NVMM_NULL)
		return 0;
	r = begin(heap, &lane);
	if (r < 0)
		return r;
	r = lane_cancel(lane, reservations_of(heap), ptr, &wake, &watch);
	end(heap, lane, wake, watch);
	if (r == -EINVAL)
		return nvmm_fail(heap->handle.nvmm, r, "%#llx is not a reserved block of heap %u",
				 (unsigned long long)ptr, heap->handle.pool->id);
	return r < 0 ? free_text(heap->handle.pool, ptr, r) : 0;
}

/* The dead */

static int ask_settled(struct nvmm_heap *heap)
{
	_reply reply = NVMM_REPLY_INIT;
	Nvmm__SettleWait op = NVMM__SETTLE_WAIT__INIT;
	Nvmm__Request request = NVMM_REQUEST(SETTLE_WAIT, settle_wait, &op);

	op.id = heap->handle.pool->id;
	return call_daemon(heap->handle.nvmm, &request, NVMM__REPLY__RESULT__NOT_SET, 0, &reply);
}

_public int nvmm_wait_settled(struct nvmm_heap *heap)
{
	static const struct timespec step = { .tv_nsec = 500000 };
	_entry entry = ENTRY_NONE;
	int r = enter(&entry, heap->handle.nvmm);

	if (r < 0)
		return r;
	while ((r = ask_settled(heap)) == -EINPROGRESS) {
		if (time_now() >= deadline())
			return nvmm_fail(heap->handle.nvmm, -ETIMEDOUT,
					 "heap %u: a process that has it open is dying and does not end",
					 heap->handle.pool->id);
		nanosleep(&step, NULL);
	}
	return r;
}
