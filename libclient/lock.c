/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sleeping on locks, and asking about their owners.
 *
 * A sleeper is woken by who unlocks. It also sleeps on the word of the epoch page that the daemon raises
 * after it settled a death (futex_waitv(2)), and never longer than a slice. So a wake-up that died with its
 * sender or receiver is made up for: by the daemon's call, or at the slice's end. Where the kernel has no
 * futex_waitv, or the page is not mapped, slices do it alone.
 *
 * The daemon is asked at the end of a slice and when it has called. It has ASK_MS to answer: a lock whose
 * owner lives must not be missed for long because the daemon is stopped.
 */
#include "libclient/lock.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "libclient/epochs.h"
#include "libclient/shelf.h"
#include "media/epoch.h"

#define SLICE_MS 10u
#define SLICE_MS_MAX 500u
#define ASK_MS 20
#define OWNERS_MAX 64u
/* A waiter asks for its turn after so many sleeps, or so long after the first. */
#define TURN_SLEEPS 4u
#define TURN_NS UINT64_C(1000000)

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

/* Of the kernel's struct futex_waitv, which older headers do not have. */
struct wait_word {
	uint64_t value;
	uint64_t address;
	uint32_t flags;
	uint32_t zero;
};
#define WORD_OF_32_BITS 2u

static __thread uint32_t thread_number __attribute__((__tls_model__("initial-exec")));
static bool no_waitv;

uint32_t lock_thread(void)
{
	if (thread_number == 0)
		thread_number = (uint32_t)syscall(SYS_gettid);
	return thread_number;
}

void lock_fork_child(void)
{
	thread_number = 0;
}

int lock_refuse(struct nvmm_client *nvmm)
{
	if (nvmm->generation != process_generation())
		return nvmm_fail(nvmm, -ENOTCONN,
				 "this process was forked after nvmm_connect(); connect anew");
	return nvmm_fail(nvmm, -ECONNRESET,
			 "the session is lost, and its locks are others'; disconnect and connect anew");
}

int lock_check(struct nvmm_client *nvmm, const void *lock)
{
	uintptr_t granule = (uintptr_t)lock >> SHELF_GRANULE_SHIFT;
	const struct shelf_map *map = NULL;

	if ((uintptr_t)lock % sizeof(uint64_t) != 0)
		return nvmm_fail(nvmm, -EINVAL, "a lock's address must be a multiple of 8");
	if (!(granule >> (ADDRESS_BITS - SHELF_GRANULE_SHIFT)))
		/* ordering: acquire; pairs with the release in set_granules(). */
		map = __atomic_load_n(&nvmm->shelf_at[granule], __ATOMIC_ACQUIRE);
	if (map && !map->write)
		return nvmm_fail(nvmm, -EROFS,
				 "the lock is in a pool that is open read-only: open it with O_RDWR");
	return 0;
}

int lock_until(struct nvmm_client *nvmm, uint64_t *ret, const struct timespec *deadline)
{
	uint64_t ns;

	*ret = LOCK_EVER;
	if (!deadline)
		return 0;
	if (deadline->tv_nsec < 0 || deadline->tv_nsec > 999999999)
		return nvmm_fail(nvmm, -EINVAL, "a deadline's nanoseconds must be below 1000000000");
	if (deadline->tv_sec < 0)
		ns = 1;
	else if (__builtin_mul_overflow((uint64_t)deadline->tv_sec, UINT64_C(1000000000), &ns) ||
		 __builtin_add_overflow(ns, (uint64_t)deadline->tv_nsec, &ns))
		return 0;
	*ret = MAX(ns, UINT64_C(1)); /* 0 is LOCK_TRY */
	return 0;
}

static uint32_t calls_of(struct nvmm_client *nvmm)
{
	struct epochs *epochs = epochs_of(nvmm);

	return epochs ? epoch_page_calls(epochs_page(epochs)) : 0;
}

void lock_wait_init(struct lock_wait *wait, struct nvmm_client *nvmm, uint64_t until)
{
	*wait = (struct lock_wait){
		.nvmm = nvmm,
		.until = until,
		.slice = SLICE_MS,
		.calls = calls_of(nvmm),
	};
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / 1000000000u),
				  .tv_nsec = (long)(ns % 1000000000u) };
}

/* Sleeps on both words. False: the kernel cannot. */
static bool sleep_on_two(const struct lock_wait *wait, const uint32_t *futex, uint32_t expected, uint64_t when)
{
	const struct epochs *epochs = epochs_of(wait->nvmm);
	struct timespec until = timespec_of(when);
	struct wait_word words[2];

	/* ordering: relaxed; it only saves calls. */
	if (!epochs || __atomic_load_n(&no_waitv, __ATOMIC_RELAXED))
		return false;
	words[0] = (struct wait_word){ expected, (uintptr_t)futex, WORD_OF_32_BITS, 0 };
	words[1] = (struct wait_word){ wait->calls, (uintptr_t)&epochs_page(epochs)->calls,
				       WORD_OF_32_BITS, 0 };
	if (syscall(SYS_futex_waitv, words, 2, 0, &until, CLOCK_MONOTONIC) >= 0 || errno == EAGAIN ||
	    errno == EINTR || errno == ETIMEDOUT)
		return true;
	/* ordering: relaxed; as above. */
	__atomic_store_n(&no_waitv, true, __ATOMIC_RELAXED);
	return false;
}

static void sleep_on_one(const uint32_t *futex, uint32_t expected, uint64_t when)
{
	struct timespec until = timespec_of(when);

	syscall(SYS_futex, futex, FUTEX_WAIT_BITSET, expected, &until, NULL, FUTEX_BITSET_MATCH_ANY);
}

static void count_sleep(struct lock_wait *wait, uint64_t now)
{
	if (wait->sleeps == 0)
		wait->since = now;
	wait->sleeps++;
	if (wait->sleeps > TURN_SLEEPS || now - wait->since >= TURN_NS)
		wait->turn = LOCK_TURN;
}

int lock_sleep(struct lock_wait *wait, uint32_t *futex, uint32_t expected)
{
	uint64_t now = time_now(), slice_end = now + (uint64_t)wait->slice * 1000000u;
	uint64_t when = MIN(slice_end, wait->until);
	uint32_t calls;

	count_sleep(wait, now);
	if (now >= wait->until)
		return -ETIMEDOUT;
	if (!sleep_on_two(wait, futex, expected, when))
		sleep_on_one(futex, expected, when);
	calls = calls_of(wait->nvmm);
	if (calls != wait->calls) {
		wait->calls = calls;
		return LOCK_ASK;
	}
	now = time_now();
	if (now < slice_end)
		return LOCK_LOOK; /* woken, or late, which the next call says */
	wait->slice = MIN(wait->slice * 2, SLICE_MS_MAX);
	return LOCK_ASK;
}

void lock_wake(uint32_t *futex, int n)
{
	syscall(SYS_futex, futex, FUTEX_WAKE, n, NULL, NULL, 0);
}

/* Which of the words are of none of the living: all but those that the daemon names. */
static uint64_t dead_of(const uint64_t *words, unsigned n, const Nvmm__OwnersReply *reply)
{
	uint64_t dead = 0;

	for (unsigned i = 0; i < n; i++) {
		bool lives = false;

		for (size_t k = 0; k < reply->n_living; k++)
			lives |= reply->living[k] == words[i] >> LOCK_OWNER_SHIFT;
		if (!lives)
			dead |= UINT64_C(1) << i;
	}
	return dead;
}

static int ask(struct lock_wait *wait, uint32_t pool, const uint64_t *words, unsigned n, uint64_t *ret)
{
	_reply reply = NVMM_REPLY_INIT;
	Nvmm__OwnerState op = NVMM__OWNER_STATE__INIT;
	Nvmm__Request request = NVMM_REQUEST(OWNER_STATE, owner_state, &op);
	uint64_t owners[OWNERS_MAX];
	_entry entry = ENTRY_NONE;
	struct epochs *epochs;
	int r;

	r = enter(&entry, wait->nvmm);
	if (r < 0)
		return r;
	deadline_set(MIN(deadline(), time_after_ms(ASK_MS)));
	if (!epochs_of(wait->nvmm) && epochs_get(wait->nvmm, &epochs) == 0)
		wait->calls = calls_of(wait->nvmm);
	for (unsigned i = 0; i < n; i++)
		owners[i] = words[i] >> LOCK_OWNER_SHIFT;
	op.id = pool;
	op.n_owners = n;
	op.owners = owners;
	r = call_daemon(wait->nvmm, &request, NVMM__REPLY__RESULT_OWNERS, 0, &reply);
	if (r == 0)
		*ret = dead_of(words, n, reply.msg->owners);
	return r;
}

int lock_ask(struct lock_wait *wait, const void *lock, const uint64_t *words, unsigned n, uint64_t *ret)
{
	nvmm_pool_id pool = nvmm_ptr_pool(nvmm_global(wait->nvmm, lock));

	*ret = 0;
	n = MIN(n, OWNERS_MAX);
	if (n > 0)
		(void)ask(wait, pool, words, n, ret);
	return lock_me(wait->nvmm) ? 0 : lock_refuse(wait->nvmm);
}
