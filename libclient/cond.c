/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Conditions in shared memory.
 *
 * A waiter notes the number `seq` while it has the mutex, gives the mutex up, and sleeps until the number is
 * another. Who signals raises the number, then wakes one or all. A wake-up that dies with its sender or receiver is
 * made up for, since each sleeper looks at the number when the daemon calls and at the end of each slice: it goes on
 * for no reason then, as it may. What a crash leaves is a number and no sleeper.
 *
 * `waited` is 1 once anybody has waited: before, signals are no system calls. It is stored before `seq` is read, and
 * read after `seq` was raised: one of the two is seen.
 * 2^32 signals between a waiter's note and its sleep would be taken for none.
 */
#include <errno.h>
#include <limits.h>

#include "libclient/lock.h"

static uint32_t seq_of(const struct nvmm_cond *cond)
{
	/* ordering: sequentially consistent; after `waited` was stored. */
	return __atomic_load_n(&cond->seq, __ATOMIC_SEQ_CST);
}

static int wait_until(struct nvmm_client *nvmm, struct nvmm_cond *cond, struct nvmm_mutex *mutex, uint64_t until)
{
	struct lock_wait wait;
	uint32_t seq;
	int r, slept = 0;

	r = lock_check(nvmm, cond);
	if (r < 0)
		return r;
	/* ordering: sequentially consistent; before seq is read. */
	__atomic_store_n(&cond->waited, 1, __ATOMIC_SEQ_CST);
	seq = seq_of(cond);
	lock_wait_init(&wait, nvmm, until);
	r = mutex_give(nvmm, mutex, 1);
	if (r < 0)
		return r;
	while (slept >= 0 && seq_of(cond) == seq && lock_me(nvmm))
		slept = lock_sleep(&wait, &cond->seq, seq);
	r = mutex_take(nvmm, mutex, LOCK_EVER);
	if (r < 0 || slept >= 0)
		return r;
	return nvmm_fail(nvmm, slept, "nobody signalled the condition in time");
}

static int wake(struct nvmm_client *nvmm, struct nvmm_cond *cond, int n)
{
	int r = lock_check(nvmm, cond);

	if (r < 0)
		return r;
	/* ordering: sequentially consistent; before `waited` is read. */
	__atomic_add_fetch(&cond->seq, 1, __ATOMIC_SEQ_CST);
	/* ordering: sequentially consistent; as said above. */
	if (__atomic_load_n(&cond->waited, __ATOMIC_SEQ_CST))
		lock_wake(&cond->seq, n);
	return 0;
}

_public int nvmm_cond_wait(struct nvmm_client *nvmm, struct nvmm_cond *cond, struct nvmm_mutex *mutex)
{
	return wait_until(nvmm, cond, mutex, LOCK_EVER);
}

_public int nvmm_cond_timedwait(struct nvmm_client *nvmm, struct nvmm_cond *cond, struct nvmm_mutex *mutex,
				const struct timespec *deadline)
{
	uint64_t until;
	int r = lock_until(nvmm, &until, deadline);

	return r < 0 ? r : wait_until(nvmm, cond, mutex, until);
}

_public int nvmm_cond_signal(struct nvmm_client *nvmm, struct nvmm_cond *cond)
{
	return wake(nvmm, cond, 1);
}

_public int nvmm_cond_broadcast(struct nvmm_client *nvmm, struct nvmm_cond *cond)
{
	return wake(nvmm, cond, INT_MAX);
}
