/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Recovery as a program sees it: walk, check, recover, sweep.
 *
 * Walk and sweep read the mapped metadata themselves. The program's callbacks run with no lock held and
 * nothing entered, so that they may use the heap. A sweep frees by nvmm_free(), each one crash-safe
 * for itself; a suspect span is cleared when all its blocks were asked about, so that a sweep that
 * was cut short asks about the rest again.
 */
#include <errno.h>
#include <time.h>

#include "libclient/heap.h"
#include "libclient/options.h"
#include "libclient/pools.h"
#include "media/mark.h"
#include "media/walk.h"

#define POLL_FIRST_US 1000L
#define POLL_MOST_US 50000L

/* Makes all of the heap visible to this process. */
static int look(struct nvmm_heap *heap)
{
	_entry entry = ENTRY_NONE;
	int r = enter(&entry, heap->handle.nvmm);

	return r < 0 ? r : heap_map_all(heap->handle.pool);
}

static int walked(struct nvmm_heap *heap, int r)
{
	if (r != -EUCLEAN && r != -ENOMEM)
		return r;
	return nvmm_fail(heap->handle.nvmm, r,
			 r == -ENOMEM ? "no memory" :
					"heap %u is damaged: its span table cannot be walked",
			 heap->handle.pool->id);
}

/* Walk */

struct walking {
	struct heap *heap;
	int (*fn)(nvmm_ptr ptr, size_t size, enum nvmm_block_state state, void *arg);
	void *arg;
};

static nvmm_ptr block_ptr(const struct heap *heap, const struct span_at *at, uint32_t index)
{
	return (nvmm_ptr)heap->pool << 48 | (nvmm_ptr)ref_shelf(at->ref) << 40 |
	       (((nvmm_ptr)ref_unit(at->ref) << UNIT_SHIFT) + index * at->block_size);
}

static int walk_word(struct walking *w, const struct span_at *at, uint32_t word)
{
	const struct state_layout *l = &w->heap->layout;
	uint64_t limbo = media_load64(&state_limbo(l, at->record)[word]);
	uint64_t bits = media_load64(&state_alloc(at->record)[word]) &
			~media_load64(&state_remote(l, at->record)[word]) & span_valid(at, word);
	bool suspect = span_suspect(w->heap, at);
	int r = 0;

	for (; bits && r == 0; bits &= bits - 1) {
		uint32_t i = (uint32_t)__builtin_ctzll(bits);

		r = w->fn(block_ptr(w->heap, at, word * 64 + i), at->block_size,
			  limbo >> i & 1 ? NVMM_BLOCK_LIMBO :
			  suspect	 ? NVMM_BLOCK_SUSPECT :
					   NVMM_BLOCK_ALLOCATED,
			  w->arg);
	}
	return r;
}

static int walk_span(const struct span_at *at, void *arg)
{
	int r = 0;

	for (uint32_t word = 0; word < span_words(at) && r == 0; word++)
		r = walk_word(arg, at, word);
	return r;
}

_public int nvmm_heap_walk(struct nvmm_heap *heap,
			   int (*fn)(nvmm_ptr ptr, size_t size, enum nvmm_block_state state,
				     void *arg),
			   void *arg)
{
	struct walking w = { .heap = &heap->handle.pool->heap, .fn = fn, .arg = arg };
	int r = look(heap);

	return r < 0 ? r : walked(heap, heap_walk(w.heap, walk_span, &w));
}

/* Check */

static void report_findings(const struct nvmm_heap_report *report, const Nvmm__CheckReply *reply)
{
	for (size_t i = 0; report->found && i < reply->n_findings; i++) {
		const Nvmm__Finding *from = reply->findings[i];
		struct nvmm_finding finding = { .file = from->file, .offset = from->offset,
						.what = from->what, .so = from->so };

		report->found(&finding, report->arg);
	}
}

static int check_call(struct nvmm_heap *heap, struct nvmm_reply *reply)
{
	Nvmm__Check op = NVMM__CHECK__INIT;
	Nvmm__Request request = NVMM_REQUEST(CHECK, check, &op);
	_entry entry = ENTRY_NONE;
	int r = enter(&entry, heap->handle.nvmm);

	op.id = heap->handle.pool->id;
	return r < 0 ? r : call_daemon(heap->handle.nvmm, &request, NVMM__REPLY__RESULT_CHECK, 0,
				       reply);
}

_public int nvmm_heap_check(struct nvmm_heap *heap, struct nvmm_heap_report *report)
{
	struct nvmm_heap_report full = { .size = sizeof(full) };
	_reply reply = NVMM_REPLY_INIT;
	int r;

	if (options_read(&full, sizeof(full), report, report->size) < 0)
		return nvmm_fail(heap->handle.nvmm, -EINVAL,
				 "set nvmm_heap_report.size before the call");
	r = check_call(heap, &reply);
	if (r < 0)
		return r;
	full.blocks = reply.msg->check->blocks;
	full.used = reply.msg->check->used;
	full.limbo = reply.msg->check->limbo;
	full.suspects = reply.msg->check->suspects;
	full.violations = reply.msg->check->violations;
	report_findings(&full, reply.msg->check);
	info_write(report, report->size, &full, sizeof(full));
	return 0;
}

/* Recover */

static int recover_begin(struct nvmm_heap *heap, enum nvmm_recover_mode mode)
{
	Nvmm__Recover op = NVMM__RECOVER__INIT;
	Nvmm__Request request = NVMM_REQUEST(RECOVER, recover, &op);
	_reply reply = NVMM_REPLY_INIT;
	_entry entry = ENTRY_NONE;
	int r = enter(&entry, heap->handle.nvmm);

	op.id = heap->handle.pool->id;
	op.offline = mode == NVMM_RECOVER_OFFLINE;
	return r < 0 ? r : call_daemon(heap->handle.nvmm, &request, NVMM__REPLY__RESULT__NOT_SET, 0,
				       &reply);
}

/* Asks how far it is: 1 while it goes on. */
static int recover_ask(struct nvmm_heap *heap, uint64_t *done, uint64_t *total)
{
	Nvmm__RecoverStatus op = NVMM__RECOVER_STATUS__INIT;
	Nvmm__Request request = NVMM_REQUEST(RECOVER_STATUS, recover_status, &op);
	struct nvmm_client *nvmm = heap->handle.nvmm;
	_reply reply = NVMM_REPLY_INIT;
	_entry entry = ENTRY_NONE;
	const Nvmm__RecoverPool *p;
	int r = enter(&entry, nvmm);

	op.id = heap->handle.pool->id;
	if (r == 0)
		r = call_daemon(nvmm, &request, NVMM__REPLY__RESULT_RECOVER_STATUS, 0, &reply);
	if (r < 0)
		return r;
	if (reply.msg->recover_status->n_pools != 1)
		return nvmm_fail(nvmm, -EPROTO, "the daemon tells of a recovery wrongly");
	p = reply.msg->recover_status->pools[0];
	*done = p->bytes_done;
	*total = p->bytes;
	if (p->state == 5) /* RECOVERY_FAILED */
		return nvmm_fail(nvmm, -EUCLEAN, "heap %u is damaged: %s", op.id, p->text);
	return p->state == 1 || p->state == 2;
}

_public int nvmm_heap_recover(struct nvmm_heap *heap, enum nvmm_recover_mode mode,
			      void (*progress)(uint64_t done, uint64_t total, void *arg), void *arg)
{
	struct nvmm_client *nvmm = heap->handle.nvmm;
	long wait = POLL_FIRST_US;
	uint64_t done = 0, total = 0;
	int r;

	if (mode != NVMM_RECOVER_ONLINE && mode != NVMM_RECOVER_OFFLINE)
		return nvmm_fail(nvmm, -EINVAL, "a recovery of mode %d: NVMM_RECOVER_ONLINE or NVMM_RECOVER_OFFLINE", (int)mode);
	if (!heap->handle.write)
		return nvmm_fail(nvmm, -EROFS, "heap %u is open read-only", heap->handle.pool->id);
	r = recover_begin(heap, mode);
	if (r < 0)
		return r;
	while ((r = recover_ask(heap, &done, &total)) > 0) {
		if (progress)
			progress(done, total, arg);
		nanosleep(&(struct timespec){ .tv_nsec = wait * 1000 }, NULL);
		wait = MIN(wait * 2, POLL_MOST_US);
	}
	if (r == 0 && progress)
		progress(total, total, arg);
	return r;
}

/* Sweep */

struct sweeping {
	struct nvmm_heap *handle;
	struct heap *heap;
	bool all;
	bool (*is_live)(nvmm_ptr ptr, size_t size, void *arg);
	void *arg;
	struct nvmm_sweep_info info;
};

static int sweep_block(nvmm_ptr ptr, size_t size, enum nvmm_block_state state, void *arg)
{
	struct sweeping *s = arg;
	int r;

	if (state == NVMM_BLOCK_LIMBO)
		return 0;
	s->info.asked++;
	if (s->is_live(ptr, size, s->arg))
		return 0;
	r = nvmm_free(s->handle, ptr);
	if (r == -EBUSY || r == -EALREADY)
		return 0; /* reserved by this process; freed by the callback */
	if (r < 0)
		return r;
	s->info.freed++;
	s->info.bytes += size;
	return 0;
}

static int sweep_span(const struct span_at *at, void *arg)
{
	struct sweeping *s = arg;
	struct walking w = { .heap = s->heap, .fn = sweep_block, .arg = s };
	bool suspect = span_suspect(s->heap, at);
	int r;

	if (!s->all && !suspect)
		return 0;
	r = walk_span(at, &w);
	if (r == 0 && suspect) {
		span_suspect_clear(s->heap, at);
		heap_hint(s->heap, at);
	}
	return r;
}

static int have_alone(struct nvmm_heap *heap, bool on)
{
	Nvmm__Exclusive op = NVMM__EXCLUSIVE__INIT;
	Nvmm__Request request = NVMM_REQUEST(EXCLUSIVE, exclusive, &op);
	_reply reply = NVMM_REPLY_INIT;
	_entry entry = ENTRY_NONE;
	int r = enter(&entry, heap->handle.nvmm);

	op.id = heap->handle.pool->id;
	op.on = on;
	return r < 0 ? r : call_daemon(heap->handle.nvmm, &request, NVMM__REPLY__RESULT__NOT_SET, 0,
				       &reply);
}

_public int nvmm_heap_sweep(struct nvmm_heap *heap, unsigned flags,
			    bool (*is_live)(nvmm_ptr ptr, size_t size, void *arg), void *arg,
			    struct nvmm_sweep_info *ret)
{
	struct nvmm_client *nvmm = heap->handle.nvmm;
	struct sweeping s = { .handle = heap, .heap = &heap->handle.pool->heap,
			      .all = flags & NVMM_SWEEP_ALL, .is_live = is_live, .arg = arg,
			      .info.size = sizeof(s.info) };
	int r;

	if ((flags & ~NVMM_SWEEP_ALL) != 0)
		return nvmm_fail(nvmm, -EINVAL, "a sweep with flags 0x%x: NVMM_SWEEP_ALL (0x%x) or 0", flags,
				 (unsigned)NVMM_SWEEP_ALL);
	if (ret && !info_size_ok(ret->size))
		return nvmm_fail(nvmm, -EINVAL, "set nvmm_sweep_info.size before the call");
	if (!heap->handle.write)
		return nvmm_fail(nvmm, -EROFS, "heap %u is open read-only", heap->handle.pool->id);
	r = s.all ? have_alone(heap, true) : 0;
	if (r < 0)
		return r;
	r = look(heap);
	if (r == 0)
		r = walked(heap, heap_walk(s.heap, sweep_span, &s));
	if (s.all)
		have_alone(heap, false);
	if (ret)
		info_write(ret, ret->size, &s.info, sizeof(s.info));
	return r;
}
