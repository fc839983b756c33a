/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lanes and threads.
 *
 * A thread gets a lane at its first allocation in a heap and keeps it until it ends; then the
 * lane's spans are given up and it waits, idle, for the next new thread. Numbers of lanes are
 * asked of the daemon a few at a time, as many as are in use already.
 *
 * Who may touch what. A lane is its thread's alone. The lists below are guarded by the process
 * lock. A thread finds its lanes in thread-local storage: `lane_cache`, by the heap's id, and
 * behind it `mine`, which has all of them. Entries of heaps that were closed stay there and are
 * harmless: ids are never used twice, and a thread's end gives a lane back only if its heap is
 * found in the registry under the lock. Closing takes the heap out of the registry first, so lanes
 * go either to the idle list or to who closes, never to both.
 *
 * In a forked child all lanes are the parent's: the thread's tables are emptied.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "libclient/lanes.h"
#include "libclient/pool.h"
#include "libclient/source.h"

#define TAKE_MAX 16u

struct place {
	struct lane *lane;
	struct place *next; /* of all */
	bool idle;
};

struct lanes {
	uint64_t id;
	struct lanes *next; /* registry */
	struct pool *pool;
	struct reservations *reservations; /* of all lanes */
	struct place *places;
	uint32_t in_use; /* places */
	uint32_t ending; /* threads that end and give a lane back just now */
	uint32_t *numbers; /* of no lane yet */
	size_t n_numbers;
	size_t room;
};

struct holding {
	uint64_t id;
	struct place *place;
};

struct holdings {
	size_t n;
	size_t room;
	struct holding v[];
};

__thread struct lane_ref lane_cache[LANE_CACHE] _initial_exec;
static __thread struct holdings *mine;

static struct lanes *registry;
static uint64_t ids;
static pthread_key_t thread_end;

static struct lanes *registry_find(uint64_t id)
{
	struct lanes *l;

	for (l = registry; l && l->id != id; l = l->next)
		;
	return l;
}

/*
 * Gives up the lane's spans; it may wait for the daemon, so no lock is held, and whoever closes the
 * heap waits for it. A lane of a lost session may be another's by now: it is left alone.
 */
static void give_back_one(struct holding *h)
{
	struct lanes *l;

	process_lock();
	l = registry_find(h->id);
	if (l)
		l->ending++;
	process_unlock();
	if (!l)
		return;
	if (!connection_lost(l->pool->nvmm))
		lane_release(h->place->lane);
	process_lock();
	h->place->idle = true;
	l->ending--;
	process_wake();
	process_unlock();
}

/* The end of a thread: its lanes wait for the next one. */
static void give_back(void *arg)
{
	struct holdings *h = arg;

	memset(lane_cache, 0, sizeof(lane_cache));
	mine = NULL;
	for (size_t i = 0; i < h->n; i++)
		give_back_one(&h->v[i]);
	free(h);
}

int lanes_init(void)
{
	return -pthread_key_create(&thread_end, give_back);
}

void lanes_fork_child(void)
{
	memset(lane_cache, 0, sizeof(lane_cache));
	if (mine)
		mine->n = 0;
	/* Those threads are the parent's. */
	for (struct lanes *l = registry; l; l = l->next)
		l->ending = 0;
}

int lanes_new(struct lanes **ret, struct pool *pool)
{
	struct lanes *l = calloc(1, sizeof(*l));

	if (!l || reservations_new(&l->reservations) < 0) {
		free(l);
		return -ENOMEM;
	}
	l->pool = pool;
	process_lock();
	if (ids + 1 == RESERVATION) {
		process_unlock();
		reservations_free(l->reservations);
		free(l);
		return -EOVERFLOW;
	}
	l->id = ++ids;
	reservations_set_tag(l->reservations, l->id);
	l->next = registry;
	registry = l;
	process_unlock();
	*ret = l;
	return 0;
}

uint64_t lanes_id(const struct lanes *lanes)
{
	return lanes->id;
}

struct reservations *lanes_reservations(const struct lanes *lanes)
{
	return lanes->reservations;
}

/* Room for n more numbers. Process lock held. */
static bool numbers_room(struct lanes *l, size_t n)
{
	size_t room = MAX(l->room * 2, l->n_numbers + n);
	uint32_t *v;

	if (l->n_numbers + n <= l->room)
		return true;
	v = realloc(l->numbers, room * sizeof(*v));
	if (!v)
		return false;
	l->numbers = v;
	l->room = room;
	return true;
}

void lanes_add_numbers(struct lanes *l, const uint32_t *numbers, size_t n)
{
	if (n == 0 || !numbers_room(l, n))
		return; /* without memory: the daemon has them back when the heap is closed */
	memcpy(l->numbers + l->n_numbers, numbers, n * sizeof(*numbers));
	l->n_numbers += n;
}

/* Gives a lane up: its spans to others, unless they are not this process's any more. */
static void lane_drop(struct lanes *l, struct lane *lane)
{
	if (connection_lost(l->pool->nvmm))
		lane_forget(lane);
	else
		lane_free(lane);
}

void lanes_stop(struct lanes *l)
{
	struct place *p;
	uint32_t number;

	process_lock();
	for (struct lanes **q = &registry; *q; q = &(*q)->next)
		if (*q == l) {
			*q = l->next;
			break;
		}
	while (l->ending > 0)
		process_wait();
	process_unlock();
	while ((p = l->places)) {
		l->places = p->next;
		number = lane_number(p->lane);
		lane_drop(l, p->lane);
		lanes_add_numbers(l, &number, 1);
		free(p);
	}
}

size_t lanes_numbers(struct lanes *l, uint32_t *ret, size_t max)
{
	size_t n;

	for (n = 0; n < max && l->n_numbers > 0; n++)
		ret[n] = l->numbers[--l->n_numbers];
	return n;
}

void lanes_free(struct lanes *l)
{
	if (!l)
		return;
	reservations_free(l->reservations);
	free(l->numbers);
	free(l);
}

/* Drops what the thread holds of closed heaps. Process lock held. */
static void holdings_tidy(struct holdings *h)
{
	size_t n = 0;

	for (size_t i = 0; i < h->n; i++)
		if (registry_find(h->v[i].id))
			h->v[n++] = h->v[i];
	h->n = n;
}

/* Room for one more lane of this thread. */
static int holdings_room(void)
{
	struct holdings *h;
	size_t room;

	if (mine && mine->n == mine->room) {
		process_lock();
		holdings_tidy(mine);
		process_unlock();
	}
	if (mine && mine->n < mine->room)
		return 0;
	room = mine ? mine->room * 2 : LANE_CACHE;
	h = realloc(mine, sizeof(*h) + room * sizeof(h->v[0]));
	if (!h)
		return -ENOMEM;
	if (!mine)
		h->n = 0;
	h->room = room;
	mine = h;
	/* Set again each time: the destructor gets the address that is set. */
	return -pthread_setspecific(thread_end, h);
}

static struct lane *cache_put(uint64_t id, struct lane *lane)
{
	struct lane_ref *c = &lane_cache[id % LANE_CACHE];

	c->id = 0;
	/* ordering: the compiler's; a signal handler finds no heap's id beside another's lane. */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	c->lane = lane;
	/* ordering: the compiler's; as above. */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	c->id = id;
	return lane;
}

/* The thread has it, but the cache does not: two heaps share a place there. */
static struct lane *find_mine(uint64_t id)
{
	for (size_t i = 0; mine && i < mine->n; i++)
		if (mine->v[i].id == id)
			return cache_put(id, mine->v[i].place->lane);
	return NULL;
}

static struct place *take_idle(struct lanes *l)
{
	struct place *p;

	process_lock();
	for (p = l->places; p && !p->idle; p = p->next)
		;
	if (p)
		p->idle = false;
	process_unlock();
	return p;
}

/* Takes a number that is there. -EAGAIN: there is none; *more is how many to ask for. */
static int take_number(struct lanes *l, uint32_t *ret, uint32_t *more)
{
	int r = -EAGAIN;

	process_lock();
	if (l->n_numbers > 0) {
		*ret = l->numbers[--l->n_numbers];
		r = 0;
	}
	*more = l->in_use < 1 ? 1 : MIN(l->in_use, TAKE_MAX);
	process_unlock();
	return r;
}

static int ask_numbers(struct lanes *l, uint32_t count)
{
	_reply reply = NVMM_REPLY_INIT;
	Nvmm__LaneTake op = NVMM__LANE_TAKE__INIT;
	Nvmm__Request request = NVMM_REQUEST(LANE_TAKE, lane_take, &op);
	const Nvmm__Lanes *lanes;
	int r;

	op.id = l->pool->id;
	op.count = count;
	r = call_daemon(l->pool->nvmm, &request, NVMM__REPLY__RESULT_LANES, 0, &reply);
	if (r < 0)
		return r;
	lanes = reply.msg->lanes;
	for (size_t i = 0; i < lanes->n_lanes; i++)
		if (lanes->lanes[i] >= LANES_MAX)
			return nvmm_fail(l->pool->nvmm, -EPROTO, "the daemon names a lane of none");
	if (lanes->n_lanes == 0)
		return nvmm_fail(l->pool->nvmm, -EPROTO, "the daemon gave no lane");
	process_lock();
	lanes_add_numbers(l, lanes->lanes, lanes->n_lanes);
	process_unlock();
	return 0;
}

static int get_number(struct lanes *l, uint32_t *ret)
{
	uint32_t more;
	int r;

	/* Another thread may take what this one asked for; a late reply may bring what is wanted. */
	while ((r = take_number(l, ret, &more)) == -EAGAIN) {
		r = call_settle(l->pool->nvmm);
		if (r == 0)
			r = ask_numbers(l, more);
		/* Near the daemon's limit the last ones come one by one. */
		if (r < 0 && more > 1 && (r == -EDQUOT || r == -EUSERS || r == -ENOSPC))
			r = ask_numbers(l, 1);
		if (r < 0)
			return r;
	}
	return r;
}

static int place_new(struct lanes *l, struct place **ret)
{
	struct place *p;
	uint32_t number;
	int r;

	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	r = get_number(l, &number);
	if (r < 0) {
		free(p);
		return r;
	}
	r = lane_new(&p->lane, &l->pool->heap, number, &lane_source, l->pool);
	process_lock();
	if (r < 0) {
		lanes_add_numbers(l, &number, 1);
	} else {
		p->next = l->places;
		l->places = p;
		l->in_use++;
	}
	process_unlock();
	if (r < 0) {
		free(p);
		return r;
	}
	*ret = p;
	return 0;
}

int lanes_acquire(struct lanes *l, struct lane **ret)
{
	struct lane *lane = find_mine(l->id);
	struct place *p;
	int r;

	if (lane) {
		*ret = lane;
		return 0;
	}
	r = holdings_room();
	if (r < 0)
		return nvmm_fail(l->pool->nvmm, r, "no memory for a thread's lane");
	p = take_idle(l);
	if (!p) {
		r = place_new(l, &p);
		if (r == -ENOMEM)
			return nvmm_fail(l->pool->nvmm, r, "no memory for a thread's lane");
		if (r < 0)
			return r;
	}
	mine->v[mine->n++] = (struct holding){ .id = l->id, .place = p };
	*ret = cache_put(l->id, p->lane);
	return 0;
}
