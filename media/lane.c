/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The allocator of one thread: entering it, and what lane_quick.h leaves over of allocating and freeing.
 *
 * A block of an owned span is freed by a store: whether the lane owns the unit is looked up in its own
 * memory (`near`), so neither the span table nor the owner word is read. A block of another's span is
 * freed by an OR; where its bit stands is remembered for units met lately, as long as the span word is
 * what it was. lane_span.c owns and finds spans.
 *
 * Entering. The thread marks itself busy, then looks whether the daemon, short of room, wants the spans
 * of idle lanes back (lane_df.revoke); the daemon marks that, then passes a barrier through all threads,
 * then looks whether the thread is busy. So one of the two sees the other:
 *
 *   revoke   daemon                                   thread, on entering
 *   0        -> WANTED, barrier; busy: -> 0           goes on
 *   WANTED   not busy: compare-and-swap -> TAKING     compare-and-swap -> 0, goes on
 *   TAKING   takes the spans, -> TAKEN                waits
 *   TAKEN    -                                        forgets its spans, -> 0, goes on
 *
 * Settling raises a number in the same word first. So a process whose session the daemon does not know
 * any more (its runtime directory was lost) finds at its next call that the lane is not its own.
 *
 * lane.freeing covers a remote free: it names the span from before the OR. It is not cleared: the next
 * such free into the same span saves the store, and who settles the lane may set a hint in vain.
 */
#include "media/lane.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "media/barrier.h"
#include "media/debug.h"
#include "media/lane_quick.h"

#define EMPTY_MAX (UINT64_C(32) << 20)
#define RUNS_BYTES_MAX (UINT64_C(32) << 20)
#define NEVER_QUIET UINT64_MAX /* nothing is settled that often */
#define WAIT_STEP_NS 50000

/* Lifecycle */

int lane_new(struct lane **ret, struct heap *heap, uint32_t number,
	     const struct lane_source *source, void *ctx)
{
	struct lane *lane = aligned_alloc(MEDIA_LINE, sizeof(*lane));
	uint64_t bytes;

	if (!lane)
		return -ENOMEM;
	memset(lane, 0, offsetof(struct lane, spare));
	lane->heap = heap;
	lane->limbo = heap->layout.limbo;
	lane->remote = heap->layout.remote;
	lane->df = &heap->lanes->lane[number];
	lane->number = number;
	lane->source = source;
	lane->ctx = ctx;
	lane->fence = !barrier_register();
	/* ordering: relaxed; it is near enough while the heap grows. */
	bytes = __atomic_load_n(&heap->bytes, __ATOMIC_RELAXED);
	lane->held_max = bytes / 8;
	lane->empty_max = MIN(EMPTY_MAX, bytes / 16);
	lane->runs.bytes_max = MIN(RUNS_BYTES_MAX, bytes / 32);
	media_store64(&lane->full, UINT64_MAX);
	lane->quick[0] = &lane->current[CLASS_COUNT];
	for (unsigned i = 1; i < ARRAY_SIZE(lane->quick); i++) {
		unsigned class = MAX(class_of(i * 8), heap->first_class);

		lane->quick[i] = &lane->current[class];
	}
	for (unsigned c = 0; c < CLASS_COUNT; c++)
		lane->class[c].grown = 1;
	for (unsigned i = 0; i < FOREIGN_UNITS; i++)
		lane->foreign[i].unit = FOREIGN_NONE;
	lane->calm = media_load64(&lane->df->revoke) & ~REVOKE_STATE;
	/* Where entering is more than a store the fast paths are left alone. */
	lane->quiet = lane->fence ? NEVER_QUIET : lane->calm;
	lane_reset(lane);
	*ret = lane;
	return 0;
}

void *lane_ctx(const struct lane *lane)
{
	return lane->ctx;
}

uint32_t lane_number(const struct lane *lane)
{
	return lane->number;
}

void lane_forget(struct lane *lane)
{
	free(lane);
}

void lane_free(struct lane *lane)
{
	if (!lane)
		return;
	lane_release(lane);
	free(lane);
}

/* Entering and leaving */

/* Cancellation is put off: a thread that vanished here would leave its lane busy for ever. */
static void sleep_a_little(void)
{
	int state;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	nanosleep(&(struct timespec){ .tv_nsec = WAIT_STEP_NS }, NULL);
	pthread_setcancelstate(state, NULL);
}

/* The lane was settled under us: its session is gone, and it may be another's. Nothing in it is ours. */
static int lane_lose(struct lane *lane)
{
	lane_reset(lane);
	lane->lost = true;
	lane->quiet = NEVER_QUIET;
	return -ESTALE;
}

/* The daemon wants the lane's spans, or has them. 0: the thread may go on; -ETIMEDOUT; -ESTALE. */
static int lane_revoked(struct lane *lane)
{
	long patience = lane->source->patience ? lane->source->patience(lane->ctx) : 30000;

	for (long waited = 0; patience < 0 || waited / 1000000 < patience;) {
		/* ordering: acquire; pairs with the daemon's release of TAKEN: the spans are given
		 * up. */
		uint64_t word = media_load_acquire(&lane->df->revoke);
		uint64_t state = word & REVOKE_STATE;

		if ((word ^ lane->calm) & ~REVOKE_STATE)
			return lane_lose(lane);
		if (state == REVOKE_TAKEN) {
			lane_reset(lane);
			media_store64(&lane->df->revoke, lane->calm);
			return 0;
		}
		/* ordering: full barrier; either the daemon gets to TAKING first, or it leaves us
		 * alone. */
		if (state == REVOKE_NONE ||
		    (state == REVOKE_WANTED && media_cas(&lane->df->revoke, word, lane->calm)))
			return 0;
		if (state == REVOKE_TAKING) {
			sleep_a_little();
			waited += WAIT_STEP_NS;
		}
	}
	return -ETIMEDOUT;
}

void lane_leave(struct lane *lane)
{
	/* ordering: release; who finds the mark gone sees all that was done under it. */
	media_store_release(&lane->df->busy, 0);
}

int lane_entered(struct lane *lane)
{
	int r = media_load64(&lane->df->revoke) != lane->calm ? lane_revoked(lane) : 0;

	if (r < 0)
		lane_leave(lane);
	/* The fast paths store `busy` before they look: another's mark would vanish, or stay for ever. */
	if (r == -ESTALE)
		lane->df = &lane->nowhere;
	return r;
}

int lane_enter(struct lane *lane)
{
	if (lane->lost)
		return -ESTALE;
	if (media_load64(&lane->df->busy) != 0)
		return -EDEADLK;
	/* ordering: this store comes before the load of `revoke`: by the daemon's barrier_all(), which
	 * needs the compiler's order here, or, where the kernel has none, by a full barrier. */
	if (lane->fence)
		media_swap(&lane->df->busy, 1);
	else
		media_store64(&lane->df->busy, 1);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	return lane_entered(lane);
}

void lane_release(struct lane *lane)
{
	if (lane_enter(lane) < 0)
		return; /* the daemon has the spans, or settles them with the process */
	if (DEBUG_CHECKS)
		lane_check_now(lane);
	for (unsigned i = 0; i < LANE_OWNED; i++)
		if (lane->owned[i].bytes > 0)
			owned_release(lane, &lane->owned[i]);
	lane_runs_release(lane);
	lane_closings_end(lane);
	lane_leave(lane);
}

/* Allocation */

/* From the current word: a recent block's place is known, but what this is for needs the entry before. */
static int alloc_small(struct lane *lane, unsigned class, uint64_t *ret)
{
	struct current *c = &lane->current[class];
	uint64_t bits;

	if (current_free(c, media_load64(c->word)) == 0) {
		int r = lane_refill(lane, class);

		if (r < 0)
			return r;
	}
	bits = current_free(c, media_load64(c->word));
	if (!FAULT(RESERVED_LATE))
		lane_reserving(lane, c->here + (unsigned)__builtin_ctzll(bits) * c->size);
	*ret = current_take(c);
	if (FAULT(RESERVED_LATE))
		lane_reserving(lane, *ret);
	return 0;
}

int lane_alloc_entered(struct lane *lane, size_t size, uint64_t *ret)
{
	if (size > CLASS_SIZE_MAX)
		return lane_take_run(lane, DIV_UP((uint64_t)size, UNIT_SIZE), 1, ret);
	return alloc_small(lane, MAX(class_of(size), lane->heap->first_class), ret);
}

uint64_t lane_alloc_more(struct lane *lane, size_t size)
{
	int r = size - 1 >= SHELF_SIZE_MAX ? -EINVAL : lane_enter(lane);
	uint64_t ptr = 0;

	if (r == 0) {
		r = lane_alloc_entered(lane, size, &ptr);
		lane_leave(lane);
	}
	/* Success changes nothing: a signal handler's may come before our caller has read our failure. */
	if (r < 0)
		lane->error = r;
	return ptr;
}

uint64_t lane_alloc(struct lane *lane, size_t size)
{
	uint64_t ptr = lane_alloc_quick(lane, size);

	return _likely(ptr != 0) ? ptr : lane_alloc_more(lane, size);
}

int lane_error(const struct lane *lane)
{
	return lane->error;
}

/* Freeing */

static int free_owned(struct lane *lane, struct owned *o, uint64_t ptr)
{
	struct place p;

	if (!find_place(o, ptr, &p))
		return -EINVAL;
	if (!place_allocated(lane, &p))
		return -EALREADY;
	place_store(p.word, place_rest(&p));
	if (p.word != o->current->word)
		owned_freed(lane, o, p.word);
	return 0;
}

int lane_find_block(struct lane *lane, uint64_t ptr, struct span_at *at, uint32_t *index)
{
	int r;

	if (ptr >> 48 != lane->heap->pool)
		return -EINVAL;
	r = heap_block(lane->heap, ptr, at, index);
	if (r == -ENXIO) {
		r = lane->source->resolve(lane->ctx, ref_of_ptr(ptr));
		if (r == 0)
			r = heap_block(lane->heap, ptr, at, index);
	}
	return r == -ENXIO ? -EINVAL : r;
}

/* Finds the block by the span table, and remembers its unit. */
static _noinline int foreign_fill(struct lane *lane, struct foreign *f, uint64_t ptr, uint32_t *index)
{
	struct span_at at;
	int r = lane_find_block(lane, ptr, &at, index);

	if (r < 0)
		return r;
	f->unit = ptr >> UNIT_SHIFT;
	f->head = &at.shelf->table[ref_unit(at.ref)];
	f->word = span_pack(at.span);
	f->base = lane_pool(lane) | (at.ref & REF_MASK) << UNIT_SHIFT;
	f->recip = at.span.kind == SPAN_SMALL ? size_classes[at.span.class].recip : 0;
	f->at = at;
	return 0;
}

static inline int foreign_block(struct lane *lane, uint64_t ptr, const struct span_at **ret,
				uint32_t *index)
{
	struct foreign *f = &lane->foreign[(ptr >> UNIT_SHIFT) % FOREIGN_UNITS];
	bool start;
	uint64_t i = recip_index(f->recip, ptr - f->base, &start);
	int r;

	/* ordering: acquire; as in heap_span(). */
	if (_unlikely(f->unit != ptr >> UNIT_SHIFT || media_load_acquire(f->head) != f->word)) {
		r = foreign_fill(lane, f, ptr, index);
		*ret = &f->at;
		return r;
	}
	*ret = &f->at;
	*index = (uint32_t)i;
	start = start || ptr == f->base;
	return i < f->at.blocks && start ? 0 : -EINVAL;
}

/* It may be the lane's own after all, its guess lost to another span's: then it is collected as from others. */
int lane_free_other(struct lane *lane, uint64_t ptr, lane_rest rest)
{
	struct foreign *f = &lane->foreign[(ptr >> UNIT_SHIFT) % FOREIGN_UNITS];
	bool start;
	uint64_t i = recip_index(f->recip, ptr - f->base, &start);

	/* ordering: acquire; as in heap_span(). */
	if (_unlikely(f->unit != ptr >> UNIT_SHIFT || media_load_acquire(f->head) != f->word ||
		      i >= f->at.blocks || !start))
		return free_refused(lane, ptr, rest);
	lane_freeing(lane, f->at.ref);
	if (_unlikely(span_free_remote(lane->heap, &f->at, (uint32_t)i) < 0))
		return free_refused(lane, ptr, rest);
	lane_leave(lane);
	return 0;
}

int lane_block(struct lane *lane, uint64_t ptr, const struct span_at **ret, uint32_t *index)
{
	const struct owned *o = owned_near(lane, ptr);
	bool start;
	uint64_t i = recip_index(o->recip, ptr - o->base, &start);

	if (ptr - o->base >= o->bytes)
		return foreign_block(lane, ptr, ret, index);
	*ret = &o->at;
	*index = (uint32_t)i;
	return start ? 0 : -EINVAL;
}

/* The place of the lane that owns the span; NULL: it is not the lane's. */
static struct owned *owner_of(struct lane *lane, const struct span_at *at)
{
	uint64_t owner = media_load64(&state_tail(&lane->heap->layout, at->record)->owner);
	struct owned *o = &lane->owned[owner_place(owner)];

	if (_likely((owner & OWNER_WHO_MASK) != owner_lane(lane->heap->node, lane->number, 0)))
		return NULL;
	return o->bytes > 0 && o->at.ref == at->ref ? o : NULL;
}

/* A block of any span: owned, or another's. */
static int free_block(struct lane *lane, uint64_t ptr)
{
	struct owned *o = owned_near(lane, ptr);
	const struct span_at *at;
	uint32_t index;
	int r;

	if (ptr - o->base < o->bytes)
		return free_owned(lane, o, ptr);
	r = foreign_block(lane, ptr, &at, &index);
	if (_unlikely(r < 0))
		return r;
	o = owner_of(lane, at);
	if (_unlikely(o != NULL))
		return free_owned(lane, o, ptr);
	if (_unlikely(at->span.kind == SPAN_LARGE)) {
		r = lane_free_run(lane, at);
		if (r != -EAGAIN)
			return r;
	}
	lane_freeing(lane, at->ref);
	return span_free_remote(lane->heap, at, index);
}

int lane_free_more(struct lane *lane, uint64_t ptr)
{
	int r = lane_enter(lane);

	if (_unlikely(r < 0))
		return r;
	r = free_block(lane, ptr);
	lane_leave(lane);
	return r;
}

int lane_dealloc(struct lane *lane, uint64_t ptr)
{
	return lane_free_quick(lane, ptr, lane_free_more);
}
