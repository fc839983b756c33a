/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Epochs: slots and threads.
 *
 * The daemon makes a connection's slots at its first need. It looks at as many as it granted, and grants
 * more when it is asked; they are mapped in chunks that stay where they are, since threads have pointers
 * to them. A thread gets a slot when it first
 * enters and keeps it until it ends; the list `mine` has a place for each connection that it has a slot
 * of, and `nvmm_epoch_place` leads the inline functions to the last one used. Where the kernel has no
 * membarrier it leads to no place, so each entry comes here and fences. NVMM_NO_MEMBARRIER in the
 * environment makes it so: it is for tests.
 *
 * A signal handler may enter and leave at any instruction of this, and of the inline functions, on
 * another connection too. So which place is used changes by the store of one pointer, which who was
 * interrupted has loaded, or loads afterwards; a place's memory stays a place until its thread ends;
 * one of a connection that is no more is used again, its id being stored last; and a handler leaves a
 * slot's word as it found it.
 *
 * Connections come and go while threads hold slots of them: ids are never used twice, and a thread's
 * end gives a slot back only if its connection is found in the registry, under the process lock. In a
 * forked child the slots are the parent's: they are not mapped there (MADV_DONTFORK), and the thread's
 * places are emptied.
 */
#include "libclient/epochs.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "media/barrier.h"
#include "media/epoch.h"

#define SYNC_MS_MAX 8u
#define FRONTIER_NS UINT64_C(1000000) /* between rings for the frontier */

/* Chunk 0 has the first slots; each further one as many as all before it. */
#define CHUNKS 12u
_Static_assert(EPOCH_SLOTS_FIRST << (CHUNKS - 1) == EPOCH_SLOTS_MAX, "all slots are in chunks");

struct epochs {
	uint64_t id;
	struct epochs *next; /* registry; process lock */
	const struct epoch_page *page;
	int memory; /* of the slots; atomic, for the forked child */
	int bell;   /* an eventfd, to wake the daemon by; atomic likewise */
	bool fence; /* entering pays for a full barrier */
	uint64_t rung; /* time_now() when the frontier was asked for; atomic */
	/* The connection's open_lock. */
	uint32_t granted;
	/* Process lock. */
	struct epoch_slot *chunk[CHUNKS]; /* NULL: not mapped; in a forked child: the parent's */
	uint32_t mapped; /* slots below it can be used */
	uint32_t used;
	uint32_t *idle; /* slots of threads that ended; room for `mapped` */
	uint32_t n_idle;
};

/* A slot of the thread's. */
struct my_slot {
	struct nvmm_epoch_place place;
	struct my_slot *next;
	uint32_t number;
	bool fence;
};

_Static_assert(NVMM_EPOCH_NEST_MASK == EPOCH_NEST_MASK, "the header's and media's are one");

static const struct nvmm_epoch_place nowhere;
_public __thread const struct nvmm_epoch_place *nvmm_epoch_place = &nowhere;
static __thread struct my_slot *mine;

static struct epochs *registry;
static pthread_key_t thread_end;

static unsigned chunk_of(uint32_t number)
{
	unsigned i = 0;

	while (number >= EPOCH_SLOTS_FIRST << i)
		i++;
	return i;
}

/* The first slot of a chunk, and how many it has. */
static uint32_t chunk_first(unsigned i)
{
	return i == 0 ? 0 : EPOCH_SLOTS_FIRST << (i - 1);
}

static uint32_t chunk_slots(unsigned i)
{
	return i == 0 ? EPOCH_SLOTS_FIRST : chunk_first(i);
}

static struct epoch_slot *slot_at(const struct epochs *e, uint32_t number)
{
	unsigned i = chunk_of(number);

	return e->chunk[i] + (number - chunk_first(i));
}

static struct epochs *registry_find(uint64_t id)
{
	struct epochs *e;

	for (e = registry; e && e->id != id; e = e->next)
		;
	return e;
}

static void compiler_fence(void)
{
	/* ordering: of this thread and its signal handlers. */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static void place_set(const struct nvmm_epoch_place *place)
{
	/* ordering: relaxed, of this thread and its signal handlers: one store. */
	__atomic_store_n(&nvmm_epoch_place, place, __ATOMIC_RELAXED);
}

/* The end of a thread: whatever it was in ends, its slots are for the next ones. */
static void give_back(void *arg)
{
	struct my_slot *list = take(mine), *s;

	(void)arg;
	place_set(&nowhere);
	process_lock();
	for (s = list; s; s = s->next) {
		struct epochs *e = registry_find(s->place.id);

		if (!e)
			continue;
		epoch_slot_clear(slot_at(e, s->number));
		e->idle[e->n_idle++] = s->number;
	}
	process_unlock();
	while ((s = list)) {
		list = s->next;
		free(s);
	}
}

int epochs_init(void)
{
	return -pthread_key_create(&thread_end, give_back);
}

static void close_in_child(int *fd)
{
	/* ordering: relaxed; this is the only thread. */
	int was = __atomic_exchange_n(fd, -1, __ATOMIC_RELAXED);

	if (was >= 0)
		close(was);
}

void epochs_fork_child(void)
{
	place_set(&nowhere);
	for (struct my_slot *s = mine; s; s = s->next)
		s->place.id = 0;
	for (struct epochs *e = registry; e; e = e->next) {
		close_in_child(&e->memory);
		close_in_child(&e->bell);
		/* Whatever is mapped there from now on is the child's, and not to be unmapped. */
		memset(e->chunk, 0, sizeof(e->chunk));
	}
}

/* The connection's memory */

static void epochs_unmap(struct epochs *e)
{
	if (e->page)
		munmap((void *)(uintptr_t)e->page, sizeof(*e->page));
	for (unsigned i = 0; i < CHUNKS; i++)
		if (e->chunk[i])
			munmap(e->chunk[i], chunk_slots(i) * sizeof(struct epoch_slot));
	if (e->memory >= 0)
		close(e->memory);
	if (e->bell >= 0)
		close(e->bell);
	free(e->idle);
	free(e);
}
DEFINE_AUTO(struct epochs, epochs_unmap)

static int check_length(int fd, uint64_t len)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	return (uint64_t)st.st_size < len ? -EPROTO : 0;
}

/*
 * Maps a chunk. Its pages are reserved first: a store for which there is no memory would be a SIGBUS. They are
 * this process's memory. A child must not store into its parent's slots: there they are not mapped.
 */
static int map_chunk(struct epoch_slot **ret, const struct epochs *e, unsigned i)
{
	off_t at = (off_t)(chunk_first(i) * sizeof(struct epoch_slot));
	size_t len = chunk_slots(i) * sizeof(struct epoch_slot);
	void *addr;
	int r;

	do
		r = fallocate(e->memory, FALLOC_FL_KEEP_SIZE, at, (off_t)len);
	while (r < 0 && errno == EINTR);
	if (r < 0 && errno != EOPNOTSUPP && errno != ENOSYS)
		return -errno;
	addr = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, e->memory, at);
	if (addr == MAP_FAILED)
		return -errno;
	(void)madvise(addr, len, MADV_DONTFORK);
	*ret = addr;
	return 0;
}

/* Takes what the daemon sent. */
static int epochs_map(struct epochs *e, struct nvmm_reply *reply)
{
	void *page;
	int r;

	e->memory = take(reply->fds[1]);
	e->bell = take(reply->fds[2]);
	reply->fds[1] = reply->fds[2] = -1;
	e->granted = MIN(reply->msg->epoch_opened->slots, EPOCH_SLOTS_MAX);
	r = check_length(reply->fds[0], sizeof(struct epoch_page));
	if (r == 0)
		r = check_length(e->memory, EPOCH_SLOTS_BYTES);
	if (r < 0)
		return r;
	/* That a child reads the page does no harm. */
	page = mmap(NULL, sizeof(struct epoch_page), PROT_READ, MAP_SHARED, reply->fds[0], 0);
	if (page == MAP_FAILED)
		return -errno;
	e->page = page;
	return 0;
}

static int epochs_ask(struct nvmm_client *nvmm, struct epochs **ret)
{
	_auto(epochs_unmap) struct epochs *e = calloc(1, sizeof(*e));
	_reply reply = NVMM_REPLY_INIT;
	Nvmm__EpochOpen op = NVMM__EPOCH_OPEN__INIT;
	Nvmm__Request request = NVMM_REQUEST(EPOCH_OPEN, epoch_open, &op);
	int r;

	if (!e)
		return nvmm_fail(nvmm, -ENOMEM, "no memory");
	e->memory = e->bell = -1;
	e->id = nvmm->id;
	e->fence = secure_getenv("NVMM_NO_MEMBARRIER") || !barrier_register();
	r = call_daemon(nvmm, &request, NVMM__REPLY__RESULT_EPOCH_OPENED, 3, &reply);
	if (r < 0)
		return r;
	r = epochs_map(e, &reply);
	if (r < 0)
		return nvmm_fail(nvmm, r, "cannot map this process's epochs: %s", strerror(-r));
	*ret = take(e);
	return 0;
}

/* Entered. */
static int epochs_get(struct nvmm_client *nvmm, struct epochs **ret)
{
	_gate *locked = NULL;
	struct epochs *e;
	int r;

	r = gate_enter(&nvmm->open_lock, deadline());
	if (r < 0)
		return nvmm_fail(nvmm, r, "the daemon did not answer another thread's call in time");
	locked = &nvmm->open_lock;
	e = epochs_of(nvmm);
	if (!e) {
		r = epochs_ask(nvmm, &e);
		if (r < 0)
			return r;
		process_lock();
		e->next = registry;
		registry = e;
		process_unlock();
		/* ordering: release; pairs with epochs_of(). */
		__atomic_store_n(&nvmm->epochs, e, __ATOMIC_RELEASE);
	}
	*ret = e;
	return 0;
}

int epochs_need(struct nvmm_client *nvmm, struct epochs **ret)
{
	_entry entry = ENTRY_NONE;
	int r;

	r = enter(&entry, nvmm);
	return r < 0 ? r : epochs_get(nvmm, ret);
}

void epochs_free(struct nvmm_client *nvmm)
{
	struct epochs *e = take(nvmm->epochs);

	if (!e)
		return;
	process_lock();
	for (struct epochs **p = &registry; *p; p = &(*p)->next)
		if (*p == e) {
			*p = e->next;
			break;
		}
	process_unlock();
	epochs_unmap(e);
}

const struct epoch_page *epochs_page(const struct epochs *e)
{
	return e->page;
}

void epochs_wake(struct epochs *e)
{
	const uint64_t any = 1;
	int state;
	ssize_t n;

	/* A thread that vanished here would leave its lane busy. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	/* It fails only if this process has filled it up; a look at pressure finds what there is. */
	do
		n = write(e->bell, &any, sizeof(any));
	while (n < 0 && errno == EINTR);
	pthread_setcancelstate(state, NULL);
}

/* A thread's slots */

static struct my_slot *find_mine(uint64_t id)
{
	struct my_slot *s;

	for (s = mine; s && s->place.id != id; s = s->next)
		;
	return s;
}

/* A place of a connection that is no more, or of none. */
static struct my_slot *find_unused(void)
{
	struct my_slot *s;

	process_lock();
	for (s = mine; s && registry_find(s->place.id); s = s->next)
		;
	process_unlock();
	return s;
}

/* A place in the list that is no connection's. */
static int place_new(struct my_slot **ret)
{
	struct my_slot *s = find_unused();

	if (!s) {
		s = calloc(1, sizeof(*s));
		if (!s)
			return -ENOMEM;
		if (pthread_setspecific(thread_end, s) != 0) {
			free(s);
			return -ENOMEM;
		}
		s->next = mine;
		compiler_fence();
		mine = s;
	}
	*ret = s;
	return 0;
}

static void place_fill(struct my_slot *s, const struct epochs *e, uint32_t number)
{
	s->place.id = 0;
	compiler_fence();
	s->place.slot = &slot_at(e, number)->word;
	s->place.current = &e->page->current;
	s->number = number;
	s->fence = e->fence;
	compiler_fence();
	s->place.id = e->id;
}

/* Takes a slot; false: all that are mapped are in use. */
static bool take_slot(struct epochs *e, uint32_t *ret)
{
	bool found = true;

	process_lock();
	if (e->n_idle > 0)
		*ret = e->idle[--e->n_idle];
	else if (e->used < e->mapped)
		*ret = e->used++;
	else
		found = false;
	process_unlock();
	return found;
}

static bool slots_left(const struct epochs *e)
{
	bool left;

	process_lock();
	left = e->n_idle > 0 || e->used < e->mapped;
	process_unlock();
	return left;
}

/* Has the daemon look at more slots: at `want`, or more. open_lock held. */
static int ask_grant(struct nvmm_client *nvmm, struct epochs *e, uint32_t want)
{
	_reply reply = NVMM_REPLY_INIT;
	Nvmm__EpochGrow op = NVMM__EPOCH_GROW__INIT;
	Nvmm__Request request = NVMM_REQUEST(EPOCH_GROW, epoch_grow, &op);
	int r;

	op.slots = want;
	r = call_daemon(nvmm, &request, NVMM__REPLY__RESULT_EPOCH_OPENED, 0, &reply);
	if (r < 0)
		return r;
	e->granted = MIN(reply.msg->epoch_opened->slots, EPOCH_SLOTS_MAX);
	return e->granted >= want ? 0 : nvmm_fail(nvmm, -EPROTO, "the daemon grants too few slots");
}

/* Lets the slots below the grant, of chunks that are mapped, be used. open_lock held. */
static int map_granted(struct nvmm_client *nvmm, struct epochs *e)
{
	unsigned i = chunk_of(e->mapped);
	uint32_t mapped = MIN(e->granted, chunk_first(i) + chunk_slots(i));
	uint32_t *idle = malloc(mapped * sizeof(*idle)), *old;
	struct epoch_slot *chunk = e->chunk[i];
	int r = 0;

	if (!idle)
		return nvmm_fail(nvmm, -ENOMEM, "no memory for threads' epochs");
	if (!chunk)
		r = map_chunk(&chunk, e, i);
	if (r < 0) {
		free(idle);
		return nvmm_fail(nvmm, r, "no memory for threads' epochs: %s", strerror(-r));
	}
	process_lock();
	for (uint32_t n = 0; n < e->n_idle; n++)
		idle[n] = e->idle[n];
	old = e->idle;
	e->idle = idle;
	e->chunk[i] = chunk;
	e->mapped = mapped;
	process_unlock();
	free(old);
	return 0;
}

/* Makes more slots usable. Entered. */
static int more_slots(struct nvmm_client *nvmm, struct epochs *e)
{
	_gate *locked = NULL;
	int r;

	r = gate_enter(&nvmm->open_lock, deadline());
	if (r < 0)
		return nvmm_fail(nvmm, r, "the daemon did not answer another thread's call in time");
	locked = &nvmm->open_lock;
	/* Another thread may have been here. */
	if (slots_left(e))
		return 0;
	if (e->mapped == EPOCH_SLOTS_MAX)
		return nvmm_fail(nvmm, -EUSERS, "%u threads of this process are in epochs",
				 EPOCH_SLOTS_MAX);
	if (e->mapped == e->granted)
		r = ask_grant(nvmm, e, e->granted + 1);
	return r < 0 ? r : map_granted(nvmm, e);
}

/* Gives the thread a slot. */
static int acquire(struct nvmm_client *nvmm, struct my_slot **ret)
{
	_entry entry = ENTRY_NONE;
	struct my_slot *s;
	struct epochs *e;
	uint32_t number = 0;
	int r;

	r = enter(&entry, nvmm);
	if (r == 0)
		r = epochs_get(nvmm, &e);
	if (r < 0)
		return r;
	if (place_new(&s) < 0)
		return nvmm_fail(nvmm, -ENOMEM, "no memory for a thread's epoch");
	while (!take_slot(e, &number)) {
		r = more_slots(nvmm, e);
		if (r < 0)
			return r;
	}
	epoch_slot_give(slot_at(e, number), (uint32_t)syscall(SYS_gettid));
	place_fill(s, e, number);
	*ret = s;
	return 0;
}

_public int nvmm_epoch_enter_slow(struct nvmm_client *nvmm)
{
	struct my_slot *s = find_mine(nvmm->id);
	int r;

	if (!s) {
		r = acquire(nvmm, &s);
		if (r < 0)
			return r;
	}
	nvmm_epoch_pin(s->place.slot, s->place.current);
	if (s->fence)
		/* ordering: the daemon's membarrier does not reach this process. */
		barrier_full();
	else
		place_set(&s->place);
	return 0;
}

_public void nvmm_epoch_exit_slow(struct nvmm_client *nvmm)
{
	const struct my_slot *s = find_mine(nvmm->id);

	if (s)
		nvmm_epoch_unpin(s->place.slot);
}

/* Waiting */

static int ask_sync(struct nvmm_client *nvmm, uint64_t *stamp)
{
	_reply reply = NVMM_REPLY_INIT;
	Nvmm__EpochSync op = NVMM__EPOCH_SYNC__INIT;
	Nvmm__Request request = NVMM_REQUEST(EPOCH_SYNC, epoch_sync, &op);
	int r;

	op.stamp = *stamp;
	r = call_daemon(nvmm, &request, NVMM__REPLY__RESULT_EPOCH_SYNCED, 0, &reply);
	if (r < 0)
		return r;
	*stamp = reply.msg->epoch_synced->stamp;
	return reply.msg->epoch_synced->done;
}

static bool inside(struct nvmm_client *nvmm)
{
	const struct my_slot *s = find_mine(nvmm->id);

	/* ordering: relaxed; the thread's own. */
	return s && __atomic_load_n(s->place.slot, __ATOMIC_RELAXED) != 0;
}

_public int nvmm_epoch_synchronize(struct nvmm_client *nvmm)
{
	uint64_t stamp = 0, when = time_after_ms(nvmm->timeout_ms);
	unsigned ms = 1;

	if (nvmm->generation == process_generation() && inside(nvmm))
		return nvmm_fail(nvmm, -EDEADLK, "this thread is in an epoch itself");
	for (;;) {
		_entry entry = ENTRY_NONE;
		int r;

		r = enter(&entry, nvmm);
		if (r == 0)
			r = ask_sync(nvmm, &stamp);
		if (r != 0)
			return r < 0 ? r : 0;
		leave(&entry);
		if (time_now() >= when)
			return nvmm_fail(nvmm, -ETIMEDOUT, "a reader stays in its epoch: `nvmmctl "
					 "epochs` names it");
		usleep(ms * 1000);
		ms = MIN(ms * 2, SYNC_MS_MAX);
	}
}

_public uint64_t nvmm_epoch_current(struct nvmm_client *nvmm)
{
	struct epochs *e = epochs_of(nvmm);
	int r = e ? 0 : epochs_need(nvmm, &e);

	if (r == 0)
		return epoch_now(e->page);
	errno = -r;
	return 0;
}

/* Has the daemon look how far readers are, unless it was asked just now. Does not wait for it. */
static void ask_frontier(struct epochs *e)
{
	uint64_t now = time_now();
	/* ordering: relaxed, both; a ring too many does no harm. */
	uint64_t rung = __atomic_load_n(&e->rung, __ATOMIC_RELAXED);

	if (now - rung >= FRONTIER_NS &&
	    __atomic_compare_exchange_n(&e->rung, &rung, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		epochs_wake(e);
}

_public uint64_t nvmm_epoch_frontier(struct nvmm_client *nvmm)
{
	struct epochs *e = epochs_of(nvmm);
	int r = e ? 0 : epochs_need(nvmm, &e);
	uint64_t frontier;

	if (r < 0) {
		errno = -r;
		return 0;
	}
	frontier = epoch_frontier(e->page);
	if (frontier < epoch_now(e->page))
		ask_frontier(e);
	return frontier;
}
