/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Epochs: slots and threads.
 *
 * The daemon makes a connection's file of slots at its first need. A thread gets a slot when it first
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

#include "libclient/mapping.h"
#include "media/barrier.h"
#include "media/epoch.h"
#include "media/format.h"

#define SYNC_MS_MAX 8u

struct epochs {
	uint64_t id;
	struct epochs *next; /* registry; process lock */
	const struct epoch_page *page;
	struct epoch_slots *slots;
	int fd;     /* of the slots, to wake the daemon by; atomic, for the forked child */
	bool fence; /* entering pays for a full barrier */
	/* Process lock. */
	uint32_t used;
	uint32_t *idle; /* slots of threads that ended; room for `used` */
	uint32_t n_idle;
	uint32_t room;
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
		epoch_slot_clear(&e->slots->slot[s->number]);
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

void epochs_fork_child(void)
{
	place_set(&nowhere);
	for (struct my_slot *s = mine; s; s = s->next)
		s->place.id = 0;
	for (struct epochs *e = registry; e; e = e->next) {
		/* ordering: relaxed; this is the only thread. */
		int fd = __atomic_exchange_n(&e->fd, -1, __ATOMIC_RELAXED);

		if (fd >= 0)
			close(fd);
		/* Whatever is mapped there from now on is the child's, and not to be unmapped. */
		e->slots = NULL;
	}
}

/* The connection's files */

static void epochs_unmap(struct epochs *e)
{
	if (e->page)
		munmap((void *)(uintptr_t)e->page, sizeof(*e->page));
	if (e->slots)
		munmap(e->slots, EPOCH_SLOTS_BYTES);
	if (e->fd >= 0)
		close(e->fd);
	free(e->idle);
	free(e);
}
DEFINE_AUTO(struct epochs, epochs_unmap)

static int map_file(void **ret, int fd, uint64_t len, int prot)
{
	struct stat st;
	void *addr;

	if (fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size < len)
		return -EPROTO;
	addr = mapping_new(NULL, ALIGN_UP(len, (uint64_t)MEDIA_PAGE), prot, MAP_SHARED, fd);
	if (addr == MAP_FAILED)
		return -errno;
	/* A child must not store into its parent's slots; that it reads the page does no harm. */
	if (prot & PROT_WRITE)
		(void)madvise(addr, len, MADV_DONTFORK);
	*ret = addr;
	return 0;
}

/* Maps what the daemon sent. */
static int epochs_map(struct epochs *e, struct nvmm_reply *reply)
{
	void *page = NULL, *slots = NULL;
	int r;

	r = map_file(&page, reply->fds[0], sizeof(struct epoch_page), PROT_READ);
	e->page = page;
	if (r == 0)
		r = map_file(&slots, reply->fds[1], EPOCH_SLOTS_BYTES, PROT_READ | PROT_WRITE);
	e->slots = slots;
	if (r < 0)
		return r;
	e->fd = reply->fds[1];
	reply->fds[1] = -1;
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
	e->fd = -1;
	e->id = nvmm->id;
	e->fence = secure_getenv("NVMM_NO_MEMBARRIER") || !barrier_register();
	r = call_daemon(nvmm, &request, NVMM__REPLY__RESULT__NOT_SET, 2, &reply);
	if (r < 0)
		return r;
	r = epochs_map(e, &reply);
	if (r < 0)
		return nvmm_fail(nvmm, r, "cannot map this process's epochs: %s", strerror(-r));
	*ret = take(e);
	return 0;
}

int epochs_get(struct nvmm_client *nvmm, struct epochs **ret)
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
	/* It cannot fail for want of space; if it does, a look at pressure finds what there is. */
	do
		n = pwrite(e->fd, &any, sizeof(any), offsetof(struct epoch_slots, wake));
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
	s->place.slot = &e->slots->slot[number].word;
	s->place.current = &e->page->current;
	s->number = number;
	s->fence = e->fence;
	compiler_fence();
	s->place.id = e->id;
}

/* Room in the list of idle slots for one slot more. Process lock held. */
static int idle_room(struct epochs *e)
{
	uint32_t room = MAX(e->room * 2, 16u);
	uint32_t *idle;

	if (e->used < e->room)
		return 0;
	idle = realloc(e->idle, room * sizeof(*idle));
	if (!idle)
		return -ENOMEM;
	e->idle = idle;
	e->room = room;
	return 0;
}

/*
 * Has the file system give the next slot's page, so that storing to it does not end in SIGBUS where the
 * runtime directory is full. One that cannot tell gives it at the store.
 */
static int slot_room(const struct epochs *e)
{
	off_t at = offsetof(struct epoch_slots, slot) + e->used * sizeof(struct epoch_slot);
	int r;

	if (at % EPOCH_PAGE_SIZE != 0)
		return 0;
	do
		r = fallocate(e->fd, FALLOC_FL_KEEP_SIZE, at, EPOCH_PAGE_SIZE);
	while (r < 0 && errno == EINTR);
	return r == 0 || errno == EOPNOTSUPP || errno == ENOSYS ? 0 : -errno;
}

/* Takes a slot for the calling thread. Process lock held. */
static int take_slot(struct epochs *e, uint32_t *ret)
{
	int r;

	if (e->n_idle > 0) {
		*ret = e->idle[--e->n_idle];
		return 0;
	}
	if (e->used == EPOCH_SLOTS_MAX)
		return -EUSERS;
	if (idle_room(e) < 0)
		return -ENOMEM;
	r = slot_room(e);
	if (r < 0)
		return r;
	*ret = e->used++;
	epoch_slots_use(e->slots, e->used);
	return 0;
}

static int fail_slot(struct nvmm_client *nvmm, int r)
{
	if (r == -EUSERS)
		return nvmm_fail(nvmm, r, "%u threads of this process are in epochs",
				 EPOCH_SLOTS_MAX);
	if (r == -ENOMEM)
		return nvmm_fail(nvmm, r, "no memory for a thread's epoch");
	return nvmm_fail(nvmm, r, "no room for a thread's epoch in the daemon's runtime directory: "
			 "%s", strerror(-r));
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
	r = place_new(&s);
	if (r == 0) {
		process_lock();
		r = take_slot(e, &number);
		process_unlock();
	}
	if (r < 0)
		return fail_slot(nvmm, r);
	epoch_slot_give(&e->slots->slot[number], (uint32_t)syscall(SYS_gettid));
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
		return epoch_current(e->page);
	errno = -r;
	return 0;
}

_public uint64_t nvmm_epoch_frontier(struct nvmm_client *nvmm)
{
	struct epochs *e = epochs_of(nvmm);
	int r = e ? 0 : epochs_need(nvmm, &e);

	if (r == 0)
		return epoch_frontier(e->page);
	errno = -r;
	return 0;
}
