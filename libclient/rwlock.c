/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Read-write locks in shared memory.
 *
 * A writer takes the mutex `writer`, then waits until no reader is left. A reader counts itself in a word of its
 * process's, then looks for a writer; if there is one it counts itself out again and waits. Both stores are
 * sequentially consistent and come before both looks: one of the two sees the other.
 *
 *   readers[i]   owner number and count. Changes by compare-and-swap alone: its owner changes the count; anybody takes a
 *                word whose count is 0 for himself; a writer, or a reader that finds no room, clears a word whose
 *                owner the daemon calls dead.
 *   drain        raised by a reader that leaves where somebody may wait for that, who sleeps on it;
 *                and by who cleared a dead one's word.
 *   crowd        1: a reader may wait for a word.
 *
 * Linearisation: a reader has the lock when it finds no writer; a writer when it has seen each word without readers.
 * A reader that dies leaves its count, for the daemon's word; a writer that dies leaves the mutex to the next one.
 */
#include <errno.h>
#include <limits.h>

#include "libclient/lock.h"

_Static_assert(sizeof(struct nvmm_mutex) == 64, "a line");
_Static_assert(sizeof(struct nvmm_rwlock) == 384, "six lines");
_Static_assert(sizeof(struct nvmm_cond) == 64, "a line");

#define COUNT(word) ((word) & LOCK_LOW)

static uint64_t look(const uint64_t *word)
{
	/* ordering: sequentially consistent; see above. */
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static uint32_t look32(const uint32_t *word)
{
	/* ordering: sequentially consistent; before the words of readers are looked at. */
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static bool swap(uint64_t *word, uint64_t *old, uint64_t new)
{
	/* ordering: sequentially consistent; see above. */
	return __atomic_compare_exchange_n(word, old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Where a process begins to look for its word, so that they do not all meet. */
static unsigned first_word(uint64_t me)
{
	return (unsigned)(me >> LOCK_OWNER_SHIFT) * 8 % NVMM_RWLOCK_READERS;
}

/* Counts the caller in, in its process's word, else in one that nobody needs. 1; 0: there is none; -EAGAIN. */
static int reader_enter(struct nvmm_rwlock *rwlock, uint64_t me)
{
	unsigned first = first_word(me);

	for (unsigned pass = 0; pass < 2; pass++)
		for (unsigned i = 0; i < NVMM_RWLOCK_READERS; i++) {
			uint64_t *at = &rwlock->readers[(first + i) % NVMM_RWLOCK_READERS];
			uint64_t word = look(at);

			while (LOCK_OWNER(word) == me || (pass == 1 && COUNT(word) == 0)) {
				if (LOCK_OWNER(word) == me && COUNT(word) == LOCK_LOW)
					return -EAGAIN;
				if (swap(at, &word, (LOCK_OWNER(word) == me ? word : me) + 1))
					return 1;
			}
		}
	return 0;
}

/* A word has no readers any more: who waits for that looks again. */
static void tell_waiters(struct nvmm_rwlock *rwlock)
{
	/* ordering: sequentially consistent; after the count, before the wake-up. */
	__atomic_store_n(&rwlock->crowd, 0, __ATOMIC_SEQ_CST);
	/* ordering: sequentially consistent; likewise. */
	__atomic_add_fetch(&rwlock->drain, 1, __ATOMIC_SEQ_CST);
	lock_wake(&rwlock->drain, INT_MAX);
}

/* Counts a reader of this process out. False: there is none. */
static bool reader_leave(struct nvmm_rwlock *rwlock, uint64_t me)
{
	unsigned first = first_word(me);
	bool found = false;

	for (unsigned i = 0; i < NVMM_RWLOCK_READERS && !found; i++) {
		uint64_t *at = &rwlock->readers[(first + i) % NVMM_RWLOCK_READERS];
		uint64_t word = look(at);

		while (!found && LOCK_OWNER(word) == me && COUNT(word) > 0)
			found = swap(at, &word, word - 1);
	}
	if (found && (look(&rwlock->writer.word) != 0 || look32(&rwlock->crowd) != 0))
		tell_waiters(rwlock);
	return found;
}

/* The words with readers in them. */
static unsigned find_readers(struct nvmm_rwlock *rwlock, uint64_t words[NVMM_RWLOCK_READERS])
{
	unsigned n = 0;

	for (unsigned i = 0; i < NVMM_RWLOCK_READERS; i++) {
		uint64_t word = look(&rwlock->readers[i]);

		if (COUNT(word) > 0)
			words[n++] = word;
	}
	return n;
}

/*
 * Clears the words of readers whom the daemon calls dead. Others may have looked before, and be
 * about to sleep.
 */
static int bury_readers(struct lock_wait *wait, struct nvmm_rwlock *rwlock)
{
	uint64_t words[NVMM_RWLOCK_READERS], dead;
	unsigned n = find_readers(rwlock, words);
	bool cleared = false;
	int r;

	r = lock_ask(wait, rwlock, words, n, &dead);
	for (unsigned k = 0; k < n; k++)
		for (unsigned i = 0; (dead >> k & 1) && i < NVMM_RWLOCK_READERS; i++) {
			uint64_t word = look(&rwlock->readers[i]);

			while (LOCK_OWNER(word) == LOCK_OWNER(words[k]))
				if (swap(&rwlock->readers[i], &word, 0)) {
					cleared = true;
					break;
				}
		}
	if (cleared)
		tell_waiters(rwlock);
	return r;
}

/* Sleeps until a reader has left, or a dead one was found. `seen`: of drain. */
static int wait_for_readers(struct lock_wait *wait, struct nvmm_rwlock *rwlock, uint32_t seen)
{
	int r = lock_sleep(wait, &rwlock->drain, seen), asked = 0;

	if (r != LOCK_LOOK)
		asked = bury_readers(wait, rwlock);
	if (asked < 0)
		return asked;
	return r == -ETIMEDOUT ? nvmm_fail(wait->nvmm, r, "the lock is held by readers") : 0;
}

/* The readers' words are all others'. */
static int wait_for_room(struct lock_wait *wait, struct nvmm_rwlock *rwlock)
{
	uint64_t words[NVMM_RWLOCK_READERS];
	uint32_t seen;

	/* ordering: sequentially consistent; before the words are looked at again. */
	__atomic_store_n(&rwlock->crowd, 1, __ATOMIC_SEQ_CST);
	seen = look32(&rwlock->drain);
	if (find_readers(rwlock, words) < NVMM_RWLOCK_READERS)
		return 0;
	return wait_for_readers(wait, rwlock, seen);
}

/* A writer has the lock, or is about to. */
static int wait_for_writer(struct lock_wait *wait, struct nvmm_rwlock *rwlock, uint64_t word)
{
	uint64_t *at = &rwlock->writer.word, dead = 0;
	uint64_t flagged = word | LOCK_WAITERS | wait->turn;
	int r, asked;

	if (mutex_mine(wait->nvmm, &rwlock->writer))
		return nvmm_fail(wait->nvmm, -EDEADLK, "this thread has the lock for writing");
	if (flagged != word && !swap(at, &word, flagged))
		return 0;
	r = lock_sleep(wait, lock_half(at), (uint32_t)flagged);
	if (r == LOCK_LOOK)
		return 0;
	asked = LOCK_OWNER(word) == lock_me(wait->nvmm) ? 0 :
							   lock_ask(wait, rwlock, &word, 1, &dead);
	if (asked < 0)
		return asked;
	if (dead && LOCK_OWNER(look(at)) == LOCK_OWNER(word))
		return nvmm_fail(wait->nvmm, -EOWNERDEAD,
				 "a writer died with the lock: take it for writing, and repair");
	return r == -ETIMEDOUT ? nvmm_fail(wait->nvmm, r, "the lock is held by a writer") : 0;
}

/* A reader that had its turn lets the writers on, who slept for it. */
static void end_turn(struct lock_wait *wait, struct nvmm_rwlock *rwlock, uint64_t word)
{
	if (!(word & LOCK_TURN) || wait->sleeps == 0)
		return;
	if (swap(&rwlock->writer.word, &word, 0))
		lock_wake(lock_half(&rwlock->writer.word), INT_MAX);
}

/* One try. 1: the lock is had; 0: try again. */
static int read_once(struct lock_wait *wait, struct nvmm_rwlock *rwlock)
{
	uint64_t me = lock_me(wait->nvmm), word = look(&rwlock->writer.word);
	int r = 0;

	if (word == LOCK_LOST)
		return nvmm_fail(wait->nvmm, -ENOTRECOVERABLE,
				 "the lock was given up without repair after a writer's death");
	if (LOCK_OWNER(word) == 0) {
		r = reader_enter(rwlock, me);
		if (r < 0)
			return nvmm_fail(wait->nvmm, r, "65535 threads of this process read");
		word = look(&rwlock->writer.word);
		if (r == 1 && LOCK_OWNER(word) == 0) {
			end_turn(wait, rwlock, word);
			return 1;
		}
		if (r == 1)
			reader_leave(rwlock, me);
	}
	if (wait->until == LOCK_TRY)
		return nvmm_fail(wait->nvmm, -EBUSY, "the lock is held by others");
	if (word == LOCK_LOST)
		return 0;
	return LOCK_OWNER(word) != 0 ? wait_for_writer(wait, rwlock, word) : wait_for_room(wait, rwlock);
}

static int read_lock(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock, uint64_t until)
{
	struct lock_wait wait;
	int r;

	r = lock_check(nvmm, rwlock);
	if (r < 0)
		return r;
	lock_wait_init(&wait, nvmm, until);
	do
		r = lock_me(nvmm) ? read_once(&wait, rwlock) : lock_refuse(nvmm);
	while (r == 0);
	return r < 0 ? r : 0;
}

/* Gives the writers' mutex up again: who comes next learns of the death that this one was told of. */
static void write_undo(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock, bool dead)
{
	uint64_t *at = &rwlock->writer.word, word = look(at);

	if (!dead) {
		(void)mutex_give(nvmm, &rwlock->writer, INT_MAX);
		return;
	}
	while (LOCK_OWNER(word) == lock_me(nvmm) && !swap(at, &word, LOCK_NOBODY))
		;
	lock_wake(lock_half(at), INT_MAX);
}

/* Waits until the readers have left. */
static int write_drain(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock, uint64_t until)
{
	uint64_t words[NVMM_RWLOCK_READERS];
	struct lock_wait wait;
	int r = 0;

	lock_wait_init(&wait, nvmm, until);
	while (r == 0) {
		uint32_t seen = look32(&rwlock->drain);

		if (find_readers(rwlock, words) == 0)
			return 0;
		r = until == LOCK_TRY ? -EBUSY : wait_for_readers(&wait, rwlock, seen);
	}
	return r;
}

static int write_lock(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock, uint64_t until)
{
	int had = mutex_take(nvmm, &rwlock->writer, until), r;

	if (had < 0 && had != -EOWNERDEAD)
		return had;
	r = write_drain(nvmm, rwlock, until);
	if (r < 0)
		write_undo(nvmm, rwlock, had < 0);
	if (r == -EBUSY)
		return nvmm_fail(nvmm, r, "the lock is held by readers");
	return r < 0 ? r : had;
}

_public int nvmm_rwlock_rdlock(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock)
{
	return read_lock(nvmm, rwlock, LOCK_EVER);
}

_public int nvmm_rwlock_tryrdlock(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock)
{
	return read_lock(nvmm, rwlock, LOCK_TRY);
}

_public int nvmm_rwlock_timedrdlock(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock,
				    const struct timespec *deadline)
{
	uint64_t until;
	int r = lock_until(nvmm, &until, deadline);

	return r < 0 ? r : read_lock(nvmm, rwlock, until);
}

_public int nvmm_rwlock_wrlock(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock)
{
	return write_lock(nvmm, rwlock, LOCK_EVER);
}

_public int nvmm_rwlock_trywrlock(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock)
{
	return write_lock(nvmm, rwlock, LOCK_TRY);
}

_public int nvmm_rwlock_timedwrlock(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock,
				    const struct timespec *deadline)
{
	uint64_t until;
	int r = lock_until(nvmm, &until, deadline);

	return r < 0 ? r : write_lock(nvmm, rwlock, until);
}

_public int nvmm_rwlock_unlock(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock)
{
	int r = lock_check(nvmm, rwlock);

	if (r < 0)
		return r;
	if (mutex_mine(nvmm, &rwlock->writer))
		return mutex_give(nvmm, &rwlock->writer, INT_MAX);
	if (!lock_me(nvmm))
		return lock_refuse(nvmm);
	if (reader_leave(rwlock, lock_me(nvmm)))
		return 0;
	return nvmm_fail(nvmm, -EPERM, "this process does not have the lock");
}

_public int nvmm_rwlock_consistent(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock)
{
	return nvmm_mutex_consistent(nvmm, &rwlock->writer);
}
