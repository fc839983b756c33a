/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The allocator of one thread: its fast paths.
 *
 * For each class there is a current span and the word of its map whose free bits are being handed out;
 * allocating takes the lowest and stores the word with that bit. A block of an owned span is freed by
 * a store too: whether the lane owns the unit is looked up in its own memory (`near`), so neither the
 * span table nor the owner word is read. lane_span.c does the rest.
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
 * lane.freeing covers a remote free: it names the span between the OR and the hint.
 */
#include "media/lane.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "media/barrier.h"
#include "media/lane_private.h"

#define HELD_MAX (UINT64_C(4) << 20)
#define WAIT_STEP_NS 50000

/* Lifecycle */

int lane_new(struct lane **ret, struct heap *heap, uint32_t number,
	     const struct lane_source *source, void *ctx)
{
	struct lane *lane = calloc(1, sizeof(*lane));

	if (!lane)
		return -ENOMEM;
	lane->heap = heap;
	lane->limbo = heap->layout.limbo;
	lane->remote = heap->layout.remote;
	lane->df = &heap->lanes->lane[number];
	lane->number = number;
	lane->source = source;
	lane->ctx = ctx;
	lane->fence = !barrier_register();
	lane->slow = lane->fence;
	/* ordering: relaxed; it is near enough while the heap grows. */
	lane->held_max = MIN(HELD_MAX, __atomic_load_n(&heap->bytes, __ATOMIC_RELAXED) / 64);
	for (unsigned i = 0; i < ARRAY_SIZE(lane->quick); i++) {
		unsigned class = class_of(MAX(i * 8, 1u));

		lane->quick[i] = (uint8_t)MAX(class, heap->first_class);
	}
	for (unsigned c = 0; c < CLASS_COUNT; c++)
		lane->class[c].grown = 1;
	lane->calm = media_load64(&lane->df->revoke) & ~REVOKE_STATE;
	lane_reset(lane);
	*ret = lane;
	return 0;
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
	lane->lost = lane->slow = true;
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
	for (unsigned i = 0; i < LANE_OWNED; i++)
		if (lane->owned[i].units > 0)
			owned_release(lane, &lane->owned[i]);
	lane_closings_end(lane);
	lane_leave(lane);
}

/* Allocation */

/* Hands out the lowest free block of the current span's word, which has one. */
static inline uint64_t alloc_bit(struct owned *o)
{
	unsigned bit = (unsigned)__builtin_ctzll(o->mask);
	m64 *word = o->word;

	o->mask &= o->mask - 1;
	/*
	 * COMMIT: the block is allocated. The owner is the word's only writer.
	 *   crash before: it is free.
	 *   crash after:  it is allocated; if the caller had not kept the pointer, nothing reaches it.
	 *   ordering:     release; pairs with the acquire of who adopts the span, and with whoever
	 *                 got the pointer from the caller.
	 *   durable:      the span is open (media/mark.h).
	 */
	media_store_release(word, media_load64(word) | UINT64_C(1) << bit);
	return o->here + bit * o->size;
}

/* The thread has entered. Any size; leaves. */
static _noinline uint64_t alloc_entered(struct lane *lane, size_t size)
{
	uint64_t ptr = 0;
	unsigned class;
	int r = 0;

	if (size > CLASS_SIZE_MAX) {
		r = lane_take_run(lane, DIV_UP((uint64_t)size, UNIT_SIZE), &ptr);
	} else {
		class = MAX(class_of(size), lane->heap->first_class);
		if (lane->current[class]->mask == 0)
			r = lane_refill(lane, class);
		if (r == 0)
			ptr = alloc_bit(lane->current[class]);
	}
	lane->error = r;
	lane_leave(lane);
	return ptr;
}

static _noinline uint64_t alloc_slow(struct lane *lane, size_t size)
{
	int r = size - 1 >= SHELF_SIZE_MAX ? -EINVAL : lane_enter(lane);

	if (r == 0)
		return alloc_entered(lane, size);
	lane->error = r;
	return 0;
}

/* The thread is marked busy and found the lane revoked, or no free bit at hand. */
static _noinline uint64_t alloc_refused(struct lane *lane, size_t size)
{
	int r = lane_entered(lane);

	if (r == 0)
		return alloc_entered(lane, size);
	lane->error = r;
	return 0;
}

uint64_t lane_alloc(struct lane *lane, size_t size)
{
	struct lane_df *df = lane->df;
	struct owned *o;
	uint64_t ptr;

	if (_unlikely(size - 1 >= QUICK_SIZE || lane->slow || media_load64(&df->busy) != 0))
		return alloc_slow(lane, size);
	media_store64(&df->busy, 1);
	/* ordering: the compiler's; as in lane_enter(). */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	o = lane->current[lane->quick[(size + 7) / 8]];
	if (_unlikely(media_load64(&df->revoke) != lane->calm || o->mask == 0))
		return alloc_refused(lane, size);
	lane->last = o;
	ptr = alloc_bit(o);
	/* ordering: release; as in lane_leave(). */
	media_store_release(&df->busy, 0);
	return ptr;
}

int lane_error(const struct lane *lane)
{
	return lane->error;
}

/* Freeing */

/* The word of another map that belongs to an alloc word. */
static inline uint64_t map_word(const m64 *word, size_t distance)
{
	return media_load64((const m64 *)(const void *)((const char *)word + distance));
}

/* Where a block of an owned span stands: its alloc word and bit. */
struct place {
	m64 *word;
	uint64_t bits; /* of the word */
	uint64_t bit;
};

/* False: ptr is not the start of a block of the span. */
static inline bool find_place(const struct owned *o, uint64_t ptr, struct place *ret)
{
	uint64_t offset = ptr - o->base;
	uint64_t index = (offset * o->recip) >> 40;

	ret->word = &o->alloc[index / 64];
	ret->bit = UINT64_C(1) << (index % 64);
	return index * o->size == offset && index < o->blocks;
}

/* Reads the maps; whether the block is allocated, and freed by nobody. */
static inline bool place_allocated(const struct lane *lane, struct place *p)
{
	p->bits = media_load64(p->word);
	return p->bits & ~map_word(p->word, lane->remote) & ~map_word(p->word, lane->limbo) & p->bit;
}

static inline void free_bit(const struct place *p)
{
	/*
	 * COMMIT: the block is free. The owner is the word's only writer.
	 *   crash before: it is allocated.
	 *   crash after:  it is free.
	 *   ordering:     release; the caller's last use of the block comes before.
	 *   durable:      the span is open (media/mark.h).
	 */
	media_store_release(p->word, p->bits & ~p->bit);
}

static int free_owned(struct lane *lane, struct owned *o, uint64_t ptr)
{
	struct place p;

	if (!find_place(o, ptr, &p))
		return -EINVAL;
	if (!place_allocated(lane, &p))
		return -EALREADY;
	free_bit(&p);
	if (p.word == o->word) {
		o->mask |= p.bit;
		return 0;
	}
	o->used--;
	if (o->exhausted || (o->used == 0 && !o->current))
		owned_freed(lane, o);
	return 0;
}

static int free_foreign(struct lane *lane, const struct span_at *at, uint32_t index)
{
	int r;

	/* ordering: release, and the OR is a full barrier: the settler of a lane whose OR was done
	 * finds the span here and sets its hint. */
	media_store_release(&lane->df->freeing, at->ref);
	r = span_free_remote(lane->heap, at, index);
	/* ordering: release; the hint was set before. */
	media_store_release(&lane->df->freeing, 0);
	return r;
}

/* A block of any span: owned, or another's. */
static int free_block(struct lane *lane, uint64_t ptr)
{
	struct heap *heap = lane->heap;
	struct span_at at;
	uint64_t owner;
	uint32_t index;
	int r = heap_block(heap, ptr, &at, &index);

	if (r == -ENXIO) {
		r = lane->source->resolve(lane->ctx, ref_of_ptr(ptr));
		if (r == 0)
			r = heap_block(heap, ptr, &at, &index);
	}
	if (r < 0)
		return r == -ENXIO ? -EINVAL : r;
	owner = media_load64(&state_tail(&heap->layout, at.record)->owner);
	if ((owner & OWNER_WHO_MASK) == owner_lane(heap->node, lane->number, 0)) {
		struct owned *o = &lane->owned[owner_place(owner)];

		if (o->units > 0 && o->at.ref == at.ref)
			return free_owned(lane, o, ptr);
	}
	return free_foreign(lane, &at, index);
}

/* The thread has entered. Any block; leaves. */
static int free_entered(struct lane *lane, uint64_t ptr)
{
	int r = -EINVAL;

	if (ptr >> 48 == lane->heap->pool)
		r = free_block(lane, ptr);
	lane_leave(lane);
	return r;
}

static _noinline int free_slow(struct lane *lane, uint64_t ptr)
{
	int r = lane_enter(lane);

	return r < 0 ? r : free_entered(lane, ptr);
}

/* The thread is marked busy and met what the fast path leaves to others. */
static _noinline int free_refused(struct lane *lane, uint64_t ptr)
{
	int r = lane_entered(lane);

	return r < 0 ? r : free_entered(lane, ptr);
}

int lane_dealloc(struct lane *lane, uint64_t ptr)
{
	uint64_t unit = ptr >> UNIT_SHIFT; /* and the pool */
	struct lane_df *df = lane->df;
	struct owned *o = lane->last;
	struct place p;

	/* A guess that needs nothing of ptr: the span of the last allocation. */
	if (unit - o->first >= o->units)
		o = &lane->owned[lane->near[unit % NEAR_UNITS]];
	if (_unlikely(lane->slow || media_load64(&df->busy) != 0))
		return free_slow(lane, ptr);
	media_store64(&df->busy, 1);
	/* ordering: the compiler's; as in lane_enter(). */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (_unlikely(media_load64(&df->revoke) != lane->calm || unit - o->first >= o->units ||
		      !find_place(o, ptr, &p) || !place_allocated(lane, &p)))
		return free_refused(lane, ptr);
	if (p.word == o->word)
		o->mask |= p.bit;
	else if (_likely(!o->exhausted && o->used > 1))
		o->used--;
	else
		return free_refused(lane, ptr);
	free_bit(&p);
	/* ordering: release; as in lane_leave(). */
	media_store_release(&df->busy, 0);
	return 0;
}
