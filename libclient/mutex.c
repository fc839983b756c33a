/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mutexes in shared memory.
 *
 *   word                      state
 *   0                         unlocked
 *   TURN | WAITERS            unlocked, and left for those that have slept
 *   owner | flags             locked by a thread of the session with this owner number
 *   owner of a dead | flags   the next one takes it from there, when the daemon says that the dead is settled
 *   LOCK_LOST                 unlocked with what it guards not repaired: nobody has it any more
 *
 * Who may write what: `word` changes by compare-and-swap alone. No owner -> owner: whoever wants it. owner -> no
 * owner and flag DEAD: the owning thread. Flags WAITERS and TURN: who waits. dead owner -> owner: who was told by the daemon. `thread` is written
 * by the owning thread: its number after it took the lock, 0 before it gives it up; so a thread that finds its own
 * number and its session's has the lock itself.
 *
 * Linearisation: lock at the compare-and-swap to the own number, unlock at the one to no owner.
 * The way of sleeping is the second mutex of U. Drepper, "Futexes are tricky": who has slept takes the lock with WAITERS
 * set, since others may sleep, too.
 */
#include <errno.h>
#include <limits.h>

#include "libclient/lock.h"

static uint64_t look(const uint64_t *word)
{
	/* ordering: relaxed; a compare-and-swap decides. */
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static bool swap(uint64_t *word, uint64_t *old, uint64_t new)
{
	/* ordering: acquire and release: what the owners before did is seen, what this one did is seen by the
	 * next; sequentially consistent for the look at readers' words that follows in rwlock.c. */
	return __atomic_compare_exchange_n(word, old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

static uint32_t thread_of(const struct nvmm_mutex *mutex)
{
	/* ordering: relaxed; means something to the thread that wrote it alone. */
	return __atomic_load_n(&mutex->thread, __ATOMIC_RELAXED);
}

static void thread_set(struct nvmm_mutex *mutex, uint32_t thread)
{
	/* ordering: relaxed; the swaps of the word order it for the other owners. */
	__atomic_store_n(&mutex->thread, thread, __ATOMIC_RELAXED);
}

bool mutex_mine(const struct nvmm_client *nvmm, const struct nvmm_mutex *mutex)
{
	uint64_t me = lock_me(nvmm);

	return me && LOCK_OWNER(look(&mutex->word)) == me && thread_of(mutex) == lock_thread();
}

static int lost(struct nvmm_client *nvmm)
{
	return nvmm_fail(nvmm, -ENOTRECOVERABLE,
			 "the lock was given up without repair after an owner's death: make it anew");
}

/* Takes it from an owner whom the daemon calls dead. 1: done. */
static int take_over(struct lock_wait *wait, struct nvmm_mutex *mutex, uint64_t from)
{
	uint64_t dead, word;
	int r;

	if (LOCK_OWNER(from) == lock_me(wait->nvmm))
		return 0; /* another thread of this process */
	r = lock_ask(wait, mutex, &from, 1, &dead);
	if (r < 0 || !dead)
		return r;
	word = look(&mutex->word);
	/*
	 * COMMIT: the swap makes the dead owner's lock this thread's.
	 *   crash before: the next one asks and takes it.
	 *   crash after:  this session is the dead owner.
	 *   ordering:     a dead owner's number comes back to no word, so the one who swaps first has it alone.
	 */
	while (LOCK_OWNER(word) == LOCK_OWNER(from))
		if (swap(&mutex->word, &word, lock_me(wait->nvmm) | LOCK_DEAD | LOCK_WAITERS)) {
			thread_set(mutex, lock_thread());
			return 1;
		}
	return 0;
}

/*
 * Sleeps until the owner of `word`, or those it is left for, may have gone. 1: the owner was dead, and the lock is the
 * caller's now.
 */
static int wait_for_owner(struct lock_wait *wait, struct nvmm_mutex *mutex, uint64_t word)
{
	uint64_t flagged = word | LOCK_WAITERS | wait->turn;
	int taken, r;

	if (flagged != word && !swap(&mutex->word, &word, flagged))
		return 0;
	r = lock_sleep(wait, lock_half(&mutex->word), (uint32_t)flagged);
	if (r == LOCK_LOOK || LOCK_OWNER(word) == 0)
		return 0;
	taken = take_over(wait, mutex, word);
	if (taken == 0 && r == -ETIMEDOUT)
		return nvmm_fail(wait->nvmm, r, "the lock is held by another");
	return taken;
}

/* Who only tries takes it also when it is left for others: they may all have died. */
static bool may_take(const struct lock_wait *wait, uint64_t word)
{
	return LOCK_OWNER(word) == 0 &&
	       (!(word & LOCK_TURN) || wait->sleeps > 0 || wait->until == LOCK_TRY);
}

/* Who has slept had its turn, and others may sleep. Who only tries leaves the flags to those that have slept. */
static uint64_t flags_for(const struct lock_wait *wait, uint64_t word)
{
	return wait->sleeps > 0 ? LOCK_WAITERS : word & (LOCK_WAITERS | LOCK_TURN);
}

static int mutex_wait(struct nvmm_client *nvmm, struct nvmm_mutex *mutex, uint64_t until)
{
	uint64_t me = lock_me(nvmm);
	struct lock_wait wait;
	int r;

	lock_wait_init(&wait, nvmm, until);
	for (;;) {
		uint64_t word = look(&mutex->word);

		if (word == LOCK_LOST)
			return lost(nvmm);
		if (may_take(&wait, word)) {
			if (!swap(&mutex->word, &word, me | flags_for(&wait, word)))
				continue;
			thread_set(mutex, lock_thread());
			return 0;
		}
		if (LOCK_OWNER(word) == me && thread_of(mutex) == lock_thread())
			return nvmm_fail(nvmm, -EDEADLK, "this thread has the lock already");
		if (until == LOCK_TRY)
			return nvmm_fail(nvmm, -EBUSY, "the lock is held by another");
		r = wait_for_owner(&wait, mutex, word);
		if (r != 0)
			return r < 0 ? r :
				       nvmm_fail(nvmm, -EOWNERDEAD,
						 "an owner of the lock died with it: repair what it guards");
	}
}

int mutex_take(struct nvmm_client *nvmm, struct nvmm_mutex *mutex, uint64_t until)
{
	uint64_t me = lock_me(nvmm), word = 0;
	int r;

	r = lock_check(nvmm, mutex);
	if (r < 0)
		return r;
	if (__builtin_expect(me == 0, 0))
		return lock_refuse(nvmm);
	if (__builtin_expect(!swap(&mutex->word, &word, me), 0))
		return mutex_wait(nvmm, mutex, until);
	thread_set(mutex, lock_thread());
	return 0;
}

int mutex_give(struct nvmm_client *nvmm, struct nvmm_mutex *mutex, int wake)
{
	uint64_t word, to;

	if (!mutex_mine(nvmm, mutex))
		return lock_me(nvmm) ? nvmm_fail(nvmm, -EPERM, "this thread does not have the lock") :
				       lock_refuse(nvmm);
	word = look(&mutex->word);
	if (word & LOCK_DEAD)
		wake = INT_MAX;
	thread_set(mutex, 0);
	/*
	 * COMMIT: the swap gives the lock up.
	 *   crash before: the lock is a dead owner's.
	 *   crash after:  it is unlocked, or left for sleepers. Who sleeps is not woken, but hears of the death and looks.
	 *   ordering:     see swap().
	 */
	do {
		if (LOCK_OWNER(word) != lock_me(nvmm))
			return nvmm_fail(nvmm, -EPERM, "the lock is another's");
		if (word & LOCK_DEAD)
			to = LOCK_LOST;
		else
			to = word & LOCK_TURN ? LOCK_TURN | LOCK_WAITERS : 0;
	} while (!swap(&mutex->word, &word, to));
	if (word & LOCK_WAITERS)
		lock_wake(lock_half(&mutex->word), wake);
	return 0;
}

_public int nvmm_mutex_lock(struct nvmm_client *nvmm, struct nvmm_mutex *mutex)
{
	return mutex_take(nvmm, mutex, LOCK_EVER);
}

_public int nvmm_mutex_trylock(struct nvmm_client *nvmm, struct nvmm_mutex *mutex)
{
	return mutex_take(nvmm, mutex, LOCK_TRY);
}

_public int nvmm_mutex_timedlock(struct nvmm_client *nvmm, struct nvmm_mutex *mutex,
				 const struct timespec *deadline)
{
	uint64_t until;
	int r;

	r = lock_until(nvmm, &until, deadline);
	return r < 0 ? r : mutex_take(nvmm, mutex, until);
}

_public int nvmm_mutex_unlock(struct nvmm_client *nvmm, struct nvmm_mutex *mutex)
{
	return mutex_give(nvmm, mutex, 1);
}

_public int nvmm_mutex_consistent(struct nvmm_client *nvmm, struct nvmm_mutex *mutex)
{
	uint64_t word = look(&mutex->word);

	if (!mutex_mine(nvmm, mutex) || !(word & LOCK_DEAD))
		return nvmm_fail(nvmm, -EINVAL, "this thread has not got the lock from a dead owner");
	while (LOCK_OWNER(word) == lock_me(nvmm))
		if (swap(&mutex->word, &word, word & ~LOCK_DEAD))
			return 0;
	return nvmm_fail(nvmm, -EINVAL, "the lock is another's");
}
