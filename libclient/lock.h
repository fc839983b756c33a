/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What mutexes, read-write locks and conditions share: lock words, sleeping, and asking the daemon
 * whether an owner is dead. doc/locks.md has the argument.
 *
 * A lock word is an owner number in its upper 48 bits, and below it flags (mutexes and writers) or a count (readers).
 * Its low half is what waiters sleep on.
 */
#pragma once

#include "libclient/connection.h"

#define LOCK_OWNER_SHIFT 16
#define LOCK_LOW UINT64_C(0xffff)
#define LOCK_WAITERS UINT64_C(1) /* somebody may sleep: who unlocks wakes */
#define LOCK_DEAD UINT64_C(2)    /* an owner died with it, and what it guards is not repaired */
/* With an owner: a sleeper lost too often. Without: the lock is left for those that have slept. WAITERS is set, too. */
#define LOCK_TURN UINT64_C(4)
#define LOCK_OWNER(word) ((word) & ~LOCK_LOW)
/* Nobody can have it any more. */
#define LOCK_LOST (~LOCK_LOW | LOCK_DEAD)
/* Of a number that no session has: the next one who wants it is told of a death. */
#define LOCK_NOBODY (UINT64_C(1) << LOCK_OWNER_SHIFT | LOCK_DEAD | LOCK_WAITERS)

#define LOCK_TRY UINT64_C(0) /* as a time: do not wait at all */
#define LOCK_EVER UINT64_MAX

/* Results of lock_sleep(). */
#define LOCK_LOOK 0 /* look again */
#define LOCK_ASK 1  /* look again, and ask whether the owner is dead */

struct lock_wait {
	struct nvmm_client *nvmm;
	uint64_t until; /* monotonic ns; LOCK_EVER */
	unsigned slice; /* ms of the next sleep */
	uint32_t calls; /* of the daemon, that were seen */
	unsigned sleeps;
	uint64_t since; /* of the first sleep */
	uint64_t turn;  /* LOCK_TURN, when it is to be asked for */
};

/* The thread's number in its process, from 1. */
uint32_t lock_thread(void);
void lock_fork_child(void);

/* The connection's owner number as a lock word; 0: it can hold no locks, lock_refuse() says why. */
static inline uint64_t lock_me(const struct nvmm_client *nvmm)
{
	/* ordering: relaxed; set before the connection is handed out, cleared once. */
	return __atomic_load_n(&nvmm->lock_word, __ATOMIC_RELAXED);
}
int lock_refuse(struct nvmm_client *nvmm);

/* -EINVAL: not aligned to 8; -EROFS: in a shelf that is mapped read-only; 0 also where nobody can tell. Text set. */
int lock_check(struct nvmm_client *nvmm, const void *lock);

/* A deadline as a time: NULL is LOCK_EVER. -EINVAL. Text set. */
int lock_until(struct nvmm_client *nvmm, uint64_t *ret, const struct timespec *deadline);

static inline uint32_t *lock_half(uint64_t *word)
{
	return (uint32_t *)(void *)word + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
}

void lock_wait_init(struct lock_wait *wait, struct nvmm_client *nvmm, uint64_t until);
/*
 * Sleeps while *futex is `expected`, at most until it is time to look again. LOCK_LOOK, LOCK_ASK; -ETIMEDOUT: it is
 * late, ask for the last time.
 */
int lock_sleep(struct lock_wait *wait, uint32_t *futex, uint32_t expected);
/* Wakes up to `n` who sleep there. */
void lock_wake(uint32_t *futex, int n);

/*
 * Asks the daemon which of `n` (at most 64) owners of words of the lock are dead and settled: bits of *ret. Keeps it
 * short: with no answer, none are. 0; -ECONNRESET, -ENOTCONN: there will be no answer ever, text set.
 */
int lock_ask(struct lock_wait *wait, const void *lock, const uint64_t *words, unsigned n, uint64_t *ret);

/* A mutex until a time. LOCK_TRY: -EBUSY instead of waiting. Errors as nvmm_mutex_lock(). Text set. */
int mutex_take(struct nvmm_client *nvmm, struct nvmm_mutex *mutex, uint64_t until);
/* Unlocks, waking up to `wake`. -EPERM. Text set. */
int mutex_give(struct nvmm_client *nvmm, struct nvmm_mutex *mutex, int wake);
/* Whether the calling thread has it. */
bool mutex_mine(const struct nvmm_client *nvmm, const struct nvmm_mutex *mutex);
