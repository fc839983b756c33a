/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Between rounds workers sleep on a futex, so that the others' rounds have the CPUs to themselves.
 * A round starts with a meeting on a spinning barrier: all run when the clock starts.
 *
 * The ball is a word that is thrown to and fro: odd, it is worker 1's. The fastest of several
 * batches counts; the distance of two CPUs is not what disturbs a batch.
 */
#include "bench/team.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BATCHES 5
#define THROWS 100u

void *team_memory(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* As it was before anything was pinned. */
static const cpu_set_t *cpus(void)
{
	static cpu_set_t set;

	if (CPU_COUNT(&set) == 0 && sched_getaffinity(0, sizeof(set), &set) < 0)
		CPU_SET(0, &set);
	return &set;
}

unsigned team_cpus(void)
{
	return (unsigned)CPU_COUNT(cpus());
}

void team_pin(unsigned n)
{
	cpu_set_t one;

	n %= team_cpus();
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, cpus()) || n-- > 0)
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		sched_setaffinity(0, sizeof(one), &one);
		return;
	}
}

void team_favour(void)
{
	(void)setpriority(PRIO_PROCESS, (id_t)gettid(), -10);
}

uint64_t team_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void wake(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void sleep_on(uint32_t *word, uint32_t seen, const struct timespec *most)
{
	syscall(SYS_futex, word, FUTEX_WAIT, seen, most, NULL, 0);
}

/* Others may need the CPU to get here: after a while it is left to them. */
static void spin(unsigned *turns)
{
	if (++*turns % 1024 == 0)
		sched_yield();
	else
		__builtin_ia32_pause();
}

bool team_await(struct team *team, uint32_t *round)
{
	uint32_t now;

	/* ordering: acquire; pairs with team_start() and team_stop(). */
	while ((now = __atomic_load_n(&team->round, __ATOMIC_ACQUIRE)) == *round)
		sleep_on(&team->round, now, NULL);
	*round = now;
	return now != TEAM_STOP;
}

void team_meet(struct team *team, uint32_t *meetings)
{
	uint32_t all = ++*meetings * team->workers;
	unsigned turns = 0;

	/* ordering: acquire and release; what each did before is seen by all behind. */
	__atomic_add_fetch(&team->arrived, 1, __ATOMIC_ACQ_REL);
	/* ordering: acquire; pairs with the release above. */
	while ((int32_t)(__atomic_load_n(&team->arrived, __ATOMIC_ACQUIRE) - all) < 0)
		spin(&turns);
}

static void throw_ball(struct team *team, unsigned worker, uint32_t n)
{
	unsigned turns = 0;

	/* ordering: acquire, release; it is the round trip itself. */
	while (__atomic_load_n(&team->ball, __ATOMIC_ACQUIRE) != 2 * n + worker)
		spin(&turns);
	/* ordering: release, as above. */
	__atomic_store_n(&team->ball, 2 * n + worker + 1, __ATOMIC_RELEASE);
}

void team_round_trip(struct team *team, unsigned worker)
{
	uint64_t best = UINT64_MAX, start, took;

	for (uint32_t batch = 0; batch < BATCHES; batch++) {
		start = team_now_ns();
		for (uint32_t i = 0; i < THROWS; i++)
			throw_ball(team, worker, batch * THROWS + i);
		took = team_now_ns() - start;
		best = took < best ? took : best;
	}
	if (worker == 0)
		team->round_trip_ps = best * 1000 / THROWS;
}

static void count(uint32_t *counter)
{
	/* ordering: release; pairs with the acquire in team_wait(): outcomes are there. */
	__atomic_add_fetch(counter, 1, __ATOMIC_RELEASE);
	wake(counter);
}

void team_ready(struct team *team)
{
	count(&team->opened);
}

void team_finish(struct team *team)
{
	count(&team->finished);
}

void team_start(struct team *team)
{
	team->finished = 0;
	team->ball = 0;
	/* ordering: release; pairs with team_await(): the words above are set. */
	__atomic_add_fetch(&team->round, 1, __ATOMIC_RELEASE);
	wake(&team->round);
}

void team_stop(struct team *team)
{
	/* ordering: release; pairs with team_await(). */
	__atomic_store_n(&team->round, TEAM_STOP, __ATOMIC_RELEASE);
	wake(&team->round);
}

bool team_wait(uint32_t *counter, uint32_t n)
{
	const struct timespec most = { .tv_nsec = 100000000 };
	uint64_t end = team_now_ns() + 100000000;
	uint32_t now;

	do {
		/* ordering: acquire; pairs with count(). */
		now = __atomic_load_n(counter, __ATOMIC_ACQUIRE);
		if (now == n)
			return true;
		sleep_on(counter, now, &most);
	} while (team_now_ns() < end);
	return false;
}
