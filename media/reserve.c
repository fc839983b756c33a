/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reserving and cancelling.
 *
 * Reserve. The thread picks an empty entry of its lane, finds the block that it is about to allocate, writes
 * it there, then sets its alloc bit. A death before the bit leaves an entry of a free block, which nobody
 * else can have got: its span is the dead lane's until the entries are settled.
 *
 * Cancel. The block goes to limbo, then the entry is cleared. Were it freed at once, the block could be
 * given again before the entry is cleared, and a death in between would make the settler free what is
 * somebody else's by then. In limbo it stays while the caller's epoch lasts; so the entry's clearing is
 * made durable inside of it.
 *
 * The table of the process: stripes by a hash of the block, each a list under a lock. A lock is taken by a
 * thread inside of its lane alone, so a signal handler that interrupted it is refused by the lane, and
 * no two are held at once.
 */
#include "media/reserve.h"

#include <bsd/sys/queue.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/macro.h"
#include "media/lane_private.h"
#include "media/limbo.h"

#define STRIPES 256u

struct reservation {
	uint64_t ptr;
	m64 *entry;
	bool taken;
	LIST_ENTRY(reservation) link;
};

LIST_HEAD(reservation_list, reservation);

struct stripe {
	pthread_mutex_t lock;
	struct reservation_list list;
} __attribute__((__aligned__(MEDIA_LINE)));

struct reservations {
	uint64_t word; /* atomic: the tag, and RESERVATION for each there is */
	struct stripe stripe[STRIPES];
};

/* The table */

int reservations_new(struct reservations **ret)
{
	struct reservations *res = aligned_alloc(MEDIA_LINE, sizeof(*res));

	if (!res)
		return -ENOMEM;
	res->word = 0;
	for (unsigned i = 0; i < STRIPES; i++) {
		pthread_mutex_init(&res->stripe[i].lock, NULL);
		LIST_INIT(&res->stripe[i].list);
	}
	*ret = res;
	return 0;
}

void reservations_free(struct reservations *res)
{
	struct reservation *r;

	if (!res)
		return;
	for (unsigned i = 0; i < STRIPES; i++) {
		while ((r = LIST_FIRST(&res->stripe[i].list))) {
			LIST_REMOVE(r, link);
			free(r);
		}
		pthread_mutex_destroy(&res->stripe[i].lock);
	}
	free(res);
}

void reservations_set_tag(struct reservations *res, uint64_t tag)
{
	/* ordering: relaxed; no other thread has the table yet. */
	__atomic_store_n(&res->word, tag, __ATOMIC_RELAXED);
}

const uint64_t *reservations_word(const struct reservations *res)
{
	return &res->word;
}

static struct stripe *stripe_of(struct reservations *res, uint64_t ptr)
{
	return &res->stripe[ptr * UINT64_C(0x9e3779b97f4a7c15) >> 56];
}
_Static_assert(STRIPES == 256, "the hash has eight bits");

static struct reservation *stripe_find(const struct stripe *stripe, uint64_t ptr)
{
	struct reservation *r;

	LIST_FOREACH (r, &stripe->list, link)
		if (r->ptr == ptr)
			return r;
	return NULL;
}

static void table_add(struct reservations *res, struct reservation *r)
{
	struct stripe *stripe = stripe_of(res, r->ptr);

	pthread_mutex_lock(&stripe->lock);
	LIST_INSERT_HEAD(&stripe->list, r, link);
	pthread_mutex_unlock(&stripe->lock);
	/* ordering: relaxed; who frees the block got its pointer from us, by what orders this, too. */
	__atomic_fetch_add(&res->word, RESERVATION, __ATOMIC_RELAXED);
}

bool reservations_have(struct reservations *res, uint64_t ptr)
{
	struct stripe *stripe = stripe_of(res, ptr);
	bool have;

	pthread_mutex_lock(&stripe->lock);
	have = stripe_find(stripe, ptr) != NULL;
	pthread_mutex_unlock(&stripe->lock);
	return have;
}

int reservation_take(struct reservations *res, uint64_t ptr, struct reservation **ret)
{
	struct stripe *stripe = stripe_of(res, ptr);
	struct reservation *r;
	int error = 0;

	pthread_mutex_lock(&stripe->lock);
	r = stripe_find(stripe, ptr);
	if (!r)
		error = -EINVAL;
	else if (r->taken)
		error = -EBUSY;
	else
		r->taken = true;
	pthread_mutex_unlock(&stripe->lock);
	if (error == 0)
		*ret = r;
	return error;
}

void reservation_put(struct reservations *res, struct reservation *r)
{
	struct stripe *stripe = stripe_of(res, r->ptr);

	pthread_mutex_lock(&stripe->lock);
	r->taken = false;
	pthread_mutex_unlock(&stripe->lock);
}

void reservation_drop(struct reservations *res, struct reservation *r)
{
	struct stripe *stripe = stripe_of(res, r->ptr);

	pthread_mutex_lock(&stripe->lock);
	LIST_REMOVE(r, link);
	pthread_mutex_unlock(&stripe->lock);
	/* ordering: relaxed; as in table_add(). */
	__atomic_fetch_sub(&res->word, RESERVATION, __ATOMIC_RELAXED);
	free(r);
}

m64 *reservation_entry(const struct reservation *r)
{
	return r->entry;
}

/* Reserving */

/* An empty entry of the lane: where the last one was found, or behind. */
static m64 *entry_get(struct lane *lane)
{
	for (unsigned i = 0; i < LANE_RESERVED; i++) {
		m64 *entry = &lane->df->reserved[(lane->reserve_next + i) % LANE_RESERVED];

		/* ordering: acquire; pairs with the release that cleared it, by any thread. */
		if (media_load_acquire(entry) == 0) {
			lane->reserve_next = (lane->reserve_next + i) % LANE_RESERVED;
			return entry;
		}
	}
	return NULL;
}

static int reserve_entered(struct lane *lane, struct reservation *r, size_t size)
{
	int error;

	r->entry = entry_get(lane);
	if (!r->entry)
		return -ENOBUFS;
	lane->entry = r->entry;
	error = lane_alloc_entered(lane, size, &r->ptr);
	lane->entry = NULL;
	return error;
}

int lane_reserve(struct lane *lane, struct reservations *res, size_t size, uint64_t *ret)
{
	struct reservation *r;
	int error;

	if (size - 1 >= SHELF_SIZE_MAX)
		return -EINVAL;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	error = lane_enter(lane);
	if (error < 0) {
		free(r);
		return error;
	}
	error = reserve_entered(lane, r, size);
	if (error == 0) {
		*ret = r->ptr;
		table_add(res, take(r));
	}
	lane_leave(lane);
	free(r);
	return error;
}

/* 0; -EBUSY: the block is reserved; else as lane_enter(). */
static int unreserved(struct lane *lane, struct reservations *res, uint64_t ptr)
{
	bool reserved;
	int r = lane_enter(lane);

	if (r < 0)
		return r;
	reserved = reservations_have(res, ptr);
	lane_leave(lane);
	return reserved ? -EBUSY : 0;
}

int lane_dealloc_unreserved(struct lane *lane, struct reservations *res, uint64_t ptr)
{
	int r = unreserved(lane, res, ptr);

	return r < 0 ? r : lane_dealloc(lane, ptr);
}

int lane_defer_unreserved(struct lane *lane, struct reservations *res, uint64_t ptr, bool *wake,
			  uint64_t *watch)
{
	int r = unreserved(lane, res, ptr);

	return r < 0 ? r : lane_defer(lane, ptr, wake, watch);
}

/* Cancelling */

static int cancel_entered(struct lane *lane, uint64_t ptr, m64 *entry)
{
	struct heap *heap = lane->heap;
	struct span_at at;
	uint32_t index;
	int r = lane_find_block(lane, ptr, &at, &index);

	if (r < 0)
		return r;
	/* ordering: release, and the OR is a full barrier: the settler of a lane whose OR was done finds
	 * the span here and sets its limbo hint. */
	media_store_release(&lane->df->freeing, at.ref);
	r = span_defer(heap, &at, index);
	if (r < 0)
		return r;
	span_limbo_persist(heap, &at, index);
	/*
	 * COMMIT: the block is not reserved any more.
	 *   crash before: it is in limbo and reserved; the settler finds it in limbo and does nothing.
	 *   crash after:  it is in limbo.
	 *   ordering:     release; pairs with the acquire of who finds the entry empty. The limbo bit,
	 *                 set by a full barrier, comes before.
	 *   durable:      the limbo bit before it, and this before the caller leaves its epoch: the
	 *                 block may be another's afterwards.
	 */
	media_store_release(entry, 0);
	media_persist(heap->durability, entry, sizeof(*entry));
	return 0;
}

int lane_cancel(struct lane *lane, struct reservations *res, uint64_t ptr, bool *wake,
		uint64_t *watch)
{
	struct reservation *reservation;
	int r;

	*wake = false;
	r = lane_enter(lane);
	if (r < 0)
		return r;
	r = reservation_take(res, ptr, &reservation);
	if (r < 0) {
		lane_leave(lane);
		return r;
	}
	r = cancel_entered(lane, ptr, reservation->entry);
	if (r < 0) {
		reservation_put(res, reservation);
		lane_deferred(lane);
		return r;
	}
	reservation_drop(res, reservation);
	lane_defer_done(lane, wake, watch);
	return 0;
}
