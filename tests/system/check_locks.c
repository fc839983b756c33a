/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Locks in shared memory: their states, owners that are killed at any instruction, stopped and restarted daemons, words
 * that another life of the node left, and a count that a lock protects while its holders are killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/system/harness.h"

#define NAME "locks"
#define HEAP_BYTES (UINT64_C(1) << 20)
/* A sanitizer's code has many more instructions for each of the program's: few of them are visited. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPS_MAX 60000u
#define STRIDE 173u
#define ONE_BY_ONE 20u
#else
#define STEPS_MAX 3000u
#define STRIDE 7u
#define ONE_BY_ONE 300u
#endif
#define LEFT_FOR_SLEEPERS UINT64_C(5)
#define STRANGER (UINT64_C(0x7fff12345678) << 16) /* a number that nobody was given */

static struct harness h;

struct shared_locks {
	struct nvmm_mutex mutex;
	struct nvmm_rwlock rwlock;
	struct nvmm_cond cond;
	uint64_t a, b; /* equal whenever the mutex is free and whole */
	uint32_t ready, done;
};

struct view {
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	struct shared_locks *l;
};

static struct view look_at(int flags)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .name = NAME };
	struct view v = { .nvmm = harness_connect(&h) };
	nvmm_ptr expected = NVMM_NULL, at;
	nvmm_pool_id id = 0;

	if (nvmm_pool_lookup(v.nvmm, NAME, &id) < 0)
		ck_assert_int_eq(nvmm_heap_create(v.nvmm, &id, HEAP_BYTES, &options), 0);
	ck_assert_int_eq(nvmm_heap_open(&v.heap, v.nvmm, id, flags), 0);
	if (nvmm_root_get(v.heap, "locks", &at) == -ENOENT) {
		at = nvmm_zalloc(v.heap, sizeof(struct shared_locks));
		ck_assert_int_eq(nvmm_root_cas(v.heap, "locks", &expected, at), 0);
	}
	v.l = nvmm_local(v.nvmm, at);
	ck_assert_ptr_nonnull(v.l);
	return v;
}

static void look_away(struct view *v)
{
	nvmm_heap_close(v->heap);
	nvmm_disconnect(v->nvmm);
}

static struct timespec in_ms(unsigned ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += (long)(ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

static int lock_in(struct view *v, unsigned ms)
{
	struct timespec t = in_ms(ms);

	return nvmm_mutex_timedlock(v->nvmm, &v->l->mutex, &t);
}

static void set(uint32_t *word)
{
	__atomic_store_n(word, 1, __ATOMIC_SEQ_CST);
}

static bool is_set(void *word)
{
	return __atomic_load_n((uint32_t *)word, __ATOMIC_SEQ_CST) != 0;
}

static void kill_and_wait(pid_t pid)
{
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

/* Clients */

static void hold_mutex(void *arg)
{
	struct view v = look_at(O_RDWR);
	int r = nvmm_mutex_lock(v.nvmm, &v.l->mutex);

	(void)arg;
	ck_assert_int_eq(r, 0);
	set(&v.l->ready);
	pause();
}

static void hold_read(void *arg)
{
	struct view v = look_at(O_RDWR);

	(void)arg;
	ck_assert_int_eq(nvmm_rwlock_rdlock(v.nvmm, &v.l->rwlock), 0);
	set(&v.l->ready);
	pause();
}

static void hold_write(void *arg)
{
	struct view v = look_at(O_RDWR);

	(void)arg;
	ck_assert_int_eq(nvmm_rwlock_wrlock(v.nvmm, &v.l->rwlock), 0);
	set(&v.l->ready);
	pause();
}

static pid_t start(struct view *v, void (*fn)(void *arg))
{
	pid_t pid;

	v->l->ready = 0;
	pid = harness_fork(fn, NULL);
	harness_until(is_set, &v->l->ready, 20000);
	return pid;
}

START_TEST(states)
{
	struct view v = look_at(O_RDWR), ro;
	struct nvmm_mutex *m = &v.l->mutex;
	struct timespec bad = { .tv_nsec = 1000000000 };

	ck_assert_int_eq(nvmm_mutex_unlock(v.nvmm, m), -EPERM);
	ck_assert_int_eq(nvmm_mutex_lock(v.nvmm, m), 0);
	ck_assert_int_eq(nvmm_mutex_lock(v.nvmm, m), -EDEADLK);
	ck_assert_int_eq(nvmm_mutex_consistent(v.nvmm, m), -EINVAL);
	ro = look_at(O_RDONLY);
	ck_assert_int_eq(nvmm_mutex_trylock(ro.nvmm, &ro.l->mutex), -EROFS);
	ck_assert_int_eq(nvmm_rwlock_rdlock(ro.nvmm, &ro.l->rwlock), -EROFS);
	look_away(&ro);
	ro = look_at(O_RDWR);
	ck_assert_int_eq(nvmm_mutex_trylock(ro.nvmm, &ro.l->mutex), -EBUSY);
	ck_assert_int_eq(nvmm_mutex_unlock(ro.nvmm, &ro.l->mutex), -EPERM);
	ck_assert_int_eq(lock_in(&ro, 30), -ETIMEDOUT);
	ck_assert_int_eq(nvmm_mutex_unlock(v.nvmm, m), 0);
	ck_assert_int_eq(lock_in(&ro, 30), 0);
	ck_assert_int_eq(nvmm_mutex_timedlock(v.nvmm, m, &bad), -EINVAL);
	ck_assert_int_eq(nvmm_mutex_lock(v.nvmm, (void *)((char *)m + 4)), -EINVAL);
	/* It goes with the lock: as a death. */
	look_away(&ro);
	ck_assert_int_eq(lock_in(&v, 20000), -EOWNERDEAD);
	ck_assert_int_eq(nvmm_mutex_consistent(v.nvmm, m), 0);
	ck_assert_int_eq(nvmm_mutex_consistent(v.nvmm, m), -EINVAL);
	ck_assert_int_eq(nvmm_mutex_unlock(v.nvmm, m), 0);
	look_away(&v);
}
END_TEST

START_TEST(holder_killed)
{
	struct view v = look_at(O_RDWR);

	for (unsigned i = 0; i < 3; i++) {
		kill_and_wait(start(&v, hold_mutex));
		ck_assert_int_eq(nvmm_mutex_lock(v.nvmm, &v.l->mutex), -EOWNERDEAD);
		ck_assert_int_eq(nvmm_mutex_consistent(v.nvmm, &v.l->mutex), 0);
		ck_assert_int_eq(nvmm_mutex_unlock(v.nvmm, &v.l->mutex), 0);
	}
	kill_and_wait(start(&v, hold_mutex));
	ck_assert_int_eq(nvmm_mutex_lock(v.nvmm, &v.l->mutex), -EOWNERDEAD);
	ck_assert_int_eq(nvmm_mutex_unlock(v.nvmm, &v.l->mutex), 0);
	ck_assert_int_eq(nvmm_mutex_lock(v.nvmm, &v.l->mutex), -ENOTRECOVERABLE);
	ck_assert_int_eq(nvmm_mutex_trylock(v.nvmm, &v.l->mutex), -ENOTRECOVERABLE);
	look_away(&v);
}
END_TEST

/* What a reboot, a copy of the base or a power cut leaves. */
START_TEST(left_by_another_life)
{
	struct view v = look_at(O_RDWR);

	for (unsigned flags = 0; flags < 8; flags++) {
		v.l->mutex = (struct nvmm_mutex){ .word = STRANGER | flags, .thread = (uint32_t)gettid() };
		ck_assert_int_eq(nvmm_mutex_lock(v.nvmm, &v.l->mutex), -EOWNERDEAD);
		ck_assert_int_eq(nvmm_mutex_consistent(v.nvmm, &v.l->mutex), 0);
		ck_assert_int_eq(nvmm_mutex_unlock(v.nvmm, &v.l->mutex), 0);
	}
	/* Left for sleepers, who have all died: to lock, to try, to read. */
	v.l->mutex.word = LEFT_FOR_SLEEPERS;
	ck_assert_int_eq(lock_in(&v, 20000), 0);
	ck_assert_int_eq(nvmm_mutex_unlock(v.nvmm, &v.l->mutex), 0);
	v.l->mutex.word = LEFT_FOR_SLEEPERS;
	ck_assert_int_eq(lock_in(&v, 0), 0);
	ck_assert_int_eq(nvmm_mutex_unlock(v.nvmm, &v.l->mutex), 0);
	v.l->mutex.word = LEFT_FOR_SLEEPERS;
	ck_assert_int_eq(nvmm_mutex_trylock(v.nvmm, &v.l->mutex), 0);
	ck_assert_int_eq(nvmm_mutex_unlock(v.nvmm, &v.l->mutex), 0);
	v.l->rwlock.writer.word = LEFT_FOR_SLEEPERS;
	ck_assert_int_eq(nvmm_rwlock_tryrdlock(v.nvmm, &v.l->rwlock), 0);
	ck_assert_int_eq(nvmm_rwlock_unlock(v.nvmm, &v.l->rwlock), 0);
	for (unsigned i = 0; i < NVMM_RWLOCK_READERS; i++)
		v.l->rwlock.readers[i] = (STRANGER + (i << 16)) | 3;
	ck_assert_int_eq(nvmm_rwlock_rdlock(v.nvmm, &v.l->rwlock), 0);
	ck_assert_int_eq(nvmm_rwlock_unlock(v.nvmm, &v.l->rwlock), 0);
	for (unsigned i = 0; i < NVMM_RWLOCK_READERS; i++)
		v.l->rwlock.readers[i] = (STRANGER + (i << 16)) | 3;
	ck_assert_int_eq(nvmm_rwlock_wrlock(v.nvmm, &v.l->rwlock), 0);
	ck_assert_int_eq(nvmm_rwlock_unlock(v.nvmm, &v.l->rwlock), 0);
	ck_assert_int_eq(nvmm_rwlock_unlock(v.nvmm, &v.l->rwlock), -EPERM);
	look_away(&v);
}
END_TEST

START_TEST(daemon_away)
{
	struct view v = look_at(O_RDWR), w;
	pid_t pid;

	w = look_at(O_RDWR);
	harness_signal(&h, SIGSTOP);
	for (unsigned i = 0; i < 1000; i++) {
		ck_assert_int_eq(nvmm_mutex_lock(v.nvmm, &v.l->mutex), 0);
		ck_assert_int_eq(nvmm_mutex_trylock(w.nvmm, &w.l->mutex), -EBUSY);
		ck_assert_int_eq(nvmm_mutex_unlock(v.nvmm, &v.l->mutex), 0);
	}
	ck_assert_int_eq(nvmm_mutex_lock(v.nvmm, &v.l->mutex), 0);
	ck_assert_int_eq(lock_in(&w, 100), -ETIMEDOUT);
	ck_assert_int_eq(nvmm_mutex_unlock(v.nvmm, &v.l->mutex), 0);
	harness_signal(&h, SIGCONT);
	/* A holder over the daemon's death and restart: nobody takes its lock while it lives. */
	pid = start(&v, hold_mutex);
	harness_signal(&h, SIGKILL);
	ck_assert_int_eq(lock_in(&v, 100), -ETIMEDOUT);
	harness_start(&h);
	ck_assert_int_eq(lock_in(&v, 300), -ETIMEDOUT);
	kill_and_wait(pid);
	ck_assert_int_eq(lock_in(&v, 20000), -EOWNERDEAD);
	ck_assert_int_eq(nvmm_mutex_consistent(v.nvmm, &v.l->mutex), 0);
	ck_assert_int_eq(nvmm_mutex_unlock(v.nvmm, &v.l->mutex), 0);
	/* One that dies while there is no daemon. */
	pid = start(&v, hold_mutex);
	harness_signal(&h, SIGKILL);
	kill_and_wait(pid);
	ck_assert_int_eq(lock_in(&v, 100), -ETIMEDOUT);
	harness_start(&h);
	ck_assert_int_eq(lock_in(&v, 20000), -EOWNERDEAD);
	look_away(&w);
	look_away(&v);
}
END_TEST

START_TEST(forked)
{
	struct view v = look_at(O_RDWR);
	int status;
	pid_t pid;

	ck_assert_int_eq(nvmm_mutex_lock(v.nvmm, &v.l->mutex), 0);
	pid = fork();
	if (pid == 0)
		_exit(nvmm_mutex_unlock(v.nvmm, &v.l->mutex) == -ENOTCONN &&
		      nvmm_mutex_lock(v.nvmm, &v.l->mutex) == -ENOTCONN ? 0 : 1);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(nvmm_mutex_unlock(v.nvmm, &v.l->mutex), 0);
	look_away(&v);
}
END_TEST

START_TEST(readers_and_writers)
{
	struct view v = look_at(O_RDWR), w = look_at(O_RDWR);
	struct nvmm_rwlock *rw = &v.l->rwlock;
	struct timespec t;
	uint32_t drain;
	pid_t pid;

	ck_assert_int_eq(nvmm_rwlock_rdlock(v.nvmm, rw), 0);
	ck_assert_int_eq(nvmm_rwlock_rdlock(w.nvmm, &w.l->rwlock), 0);
	ck_assert_int_eq(nvmm_rwlock_trywrlock(w.nvmm, &w.l->rwlock), -EBUSY);
	ck_assert_int_eq(nvmm_rwlock_unlock(w.nvmm, &w.l->rwlock), 0);
	t = in_ms(30);
	ck_assert_int_eq(nvmm_rwlock_timedwrlock(w.nvmm, &w.l->rwlock, &t), -ETIMEDOUT);
	ck_assert_int_eq(nvmm_rwlock_unlock(v.nvmm, rw), 0);
	ck_assert_int_eq(nvmm_rwlock_wrlock(w.nvmm, &w.l->rwlock), 0);
	ck_assert_int_eq(nvmm_rwlock_rdlock(w.nvmm, &w.l->rwlock), -EDEADLK);
	ck_assert_int_eq(nvmm_rwlock_tryrdlock(v.nvmm, rw), -EBUSY);
	t = in_ms(30);
	ck_assert_int_eq(nvmm_rwlock_timedrdlock(v.nvmm, rw, &t), -ETIMEDOUT);
	ck_assert_int_eq(nvmm_rwlock_unlock(w.nvmm, &w.l->rwlock), 0);
	/* A dead reader keeps nobody out, and who clears its word tells those that are about to sleep. */
	kill_and_wait(start(&v, hold_read));
	drain = rw->drain;
	ck_assert_int_eq(nvmm_rwlock_wrlock(v.nvmm, rw), 0);
	ck_assert_uint_ne(rw->drain, drain);
	ck_assert_int_eq(nvmm_rwlock_unlock(v.nvmm, rw), 0);
	/* A dead writer is told to readers, and taken over by a writer. */
	pid = start(&v, hold_write);
	t = in_ms(50);
	ck_assert_int_eq(nvmm_rwlock_timedrdlock(v.nvmm, rw, &t), -ETIMEDOUT);
	kill_and_wait(pid);
	ck_assert_int_eq(nvmm_rwlock_rdlock(v.nvmm, rw), -EOWNERDEAD);
	ck_assert_int_eq(nvmm_rwlock_wrlock(v.nvmm, rw), -EOWNERDEAD);
	ck_assert_int_eq(nvmm_rwlock_consistent(v.nvmm, rw), 0);
	ck_assert_int_eq(nvmm_rwlock_unlock(v.nvmm, rw), 0);
	ck_assert_int_eq(nvmm_rwlock_rdlock(v.nvmm, rw), 0);
	ck_assert_int_eq(nvmm_rwlock_unlock(v.nvmm, rw), 0);
	look_away(&w);
	look_away(&v);
}
END_TEST

static void wait_cond(void *arg)
{
	struct view v = look_at(O_RDWR);
	int r;

	(void)arg;
	r = nvmm_mutex_lock(v.nvmm, &v.l->mutex);
	must(r == 0, "lock: %d", r);
	set(&v.l->ready);
	while (v.l->a == v.l->b) {
		r = nvmm_cond_wait(v.nvmm, &v.l->cond, &v.l->mutex);
		if (r == -EOWNERDEAD)
			r = nvmm_mutex_consistent(v.nvmm, &v.l->mutex);
		must(r == 0, "wait: %d", r);
	}
	v.l->b++;
	r = nvmm_mutex_unlock(v.nvmm, &v.l->mutex);
	must(r == 0, "unlock: %d", r);
	look_away(&v);
}

START_TEST(condition)
{
	struct view v = look_at(O_RDWR);
	struct timespec t = in_ms(30);
	pid_t dead, pid;
	int r;

	ck_assert_int_eq(nvmm_cond_wait(v.nvmm, &v.l->cond, &v.l->mutex), -EPERM);
	ck_assert_int_eq(nvmm_mutex_lock(v.nvmm, &v.l->mutex), 0);
	ck_assert_int_eq(nvmm_cond_timedwait(v.nvmm, &v.l->cond, &v.l->mutex, &t), -ETIMEDOUT);
	ck_assert_int_eq(nvmm_mutex_unlock(v.nvmm, &v.l->mutex), 0);
	/* A stopped waiter, first in turn, takes the wake-up and dies: the other one goes on. */
	dead = start(&v, wait_cond);
	pid = start(&v, wait_cond);
	kill(dead, SIGSTOP);
	harness_sleep_ms(20);
	r = nvmm_mutex_lock(v.nvmm, &v.l->mutex);
	must(r == 0, "lock: %d", r);
	v.l->a++;
	ck_assert_int_eq(nvmm_cond_signal(v.nvmm, &v.l->cond), 0);
	ck_assert_int_eq(nvmm_mutex_unlock(v.nvmm, &v.l->mutex), 0);
	kill_and_wait(dead);
	harness_join(pid);
	ck_assert_uint_eq(v.l->a, v.l->b);
	look_away(&v);
}
END_TEST

/* A waiter beside a thread that locks again at once */

#define ROUNDS 60u
#define TURNS 56u /* without turns, 32 to 53 were seen */
#define TURN 4u /* of the word */

/* `b` is the round that has begun, `a` the last one in which the waiter had the lock. */
static void take_turns(void *arg)
{
	struct view v = look_at(O_RDWR);

	set(&v.l->ready);
	for (uint64_t i = 1; i <= ROUNDS; i++) {
		while (__atomic_load_n(&v.l->b, __ATOMIC_SEQ_CST) < i)
			harness_sleep_ms(1);
		must((arg ? nvmm_rwlock_rdlock(v.nvmm, &v.l->rwlock) :
			    nvmm_mutex_lock(v.nvmm, &v.l->mutex)) == 0, "lock");
		__atomic_store_n(&v.l->a, i, __ATOMIC_SEQ_CST);
		must((arg ? nvmm_rwlock_unlock(v.nvmm, &v.l->rwlock) :
			    nvmm_mutex_unlock(v.nvmm, &v.l->mutex)) == 0, "unlock");
	}
	look_away(&v);
}

static bool asks_for_turn(void *word)
{
	return (__atomic_load_n((uint64_t *)word, __ATOMIC_SEQ_CST) & TURN) != 0;
}

static int relock(struct view *v, bool rw, bool unlock)
{
	if (unlock)
		ck_assert_int_eq(rw ? nvmm_rwlock_unlock(v->nvmm, &v->l->rwlock) :
				      nvmm_mutex_unlock(v->nvmm, &v->l->mutex), 0);
	return rw ? nvmm_rwlock_wrlock(v->nvmm, &v->l->rwlock) :
		    nvmm_mutex_lock(v->nvmm, &v->l->mutex);
}

/* Not in each round: a waiter that does not run for a whole slice is overtaken. */
START_TEST(waiter_has_its_turn)
{
	struct view v = look_at(O_RDWR);
	bool rw = _i;
	unsigned turns = 0;
	pid_t pid = harness_fork(take_turns, rw ? &v : NULL);

	harness_until(is_set, &v.l->ready, 20000);
	ck_assert_int_eq(relock(&v, rw, false), 0);
	for (uint64_t i = 1; i <= ROUNDS; i++) {
		__atomic_store_n(&v.l->b, i, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&v.l->a, __ATOMIC_SEQ_CST) == i - 1)
			harness_until(asks_for_turn, rw ? &v.l->rwlock.writer.word : &v.l->mutex.word, 20000);
		ck_assert_int_eq(relock(&v, rw, true), 0);
		turns += __atomic_load_n(&v.l->a, __ATOMIC_SEQ_CST) == i;
		while (__atomic_load_n(&v.l->a, __ATOMIC_SEQ_CST) < i)
			ck_assert_int_eq(relock(&v, rw, true), 0);
	}
	printf("%u turns in %u rounds\n", turns, ROUNDS);
	ck_assert_uint_ge(turns, TURNS);
	ck_assert_int_eq(rw ? nvmm_rwlock_unlock(v.nvmm, &v.l->rwlock) :
			      nvmm_mutex_unlock(v.nvmm, &v.l->mutex), 0);
	harness_join(pid);
	look_away(&v);
}
END_TEST

/* Kills at each instruction */

static void stepped(bool contended)
{
	struct view v = look_at(O_RDWR);

	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	if (contended)
		nvmm_mutex_lock(v.nvmm, &v.l->mutex);
	raise(SIGSTOP);
	if (!contended)
		nvmm_mutex_lock(v.nvmm, &v.l->mutex);
	nvmm_mutex_unlock(v.nvmm, &v.l->mutex);
	_exit(0);
}

static void stepped_free(void *arg)
{
	(void)arg;
	stepped(false);
}

static void stepped_contended(void *arg)
{
	(void)arg;
	stepped(true);
}

static void *wait_here(void *arg)
{
	struct view *v = arg;

	return (void *)(intptr_t)nvmm_mutex_lock(v->nvmm, &v->l->mutex);
}

/* Single-steps until `k` steps or the end. True: it ended by itself. */
static bool step_and_kill(pid_t pid, unsigned k)
{
	int status;

	for (unsigned i = 0; i < k; i++) {
		ck_assert_int_eq(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		if (WIFEXITED(status))
			return true;
	}
	kill_and_wait(pid);
	return false;
}

START_TEST(killed_at_each_instruction)
{
	struct view v = look_at(O_RDWR);
	bool contended = _i, ended = false;
	unsigned k, deaths = 0;
	pthread_t thread;
	int status, r;
	void *got;

	for (k = 0; !ended && k < STEPS_MAX; k += k < ONE_BY_ONE ? 1 : STRIDE) {
		pid_t pid = harness_fork(contended ? stepped_contended : stepped_free, NULL);

		must(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status), "it did not stop");
		if (contended) {
			ck_assert_int_eq(pthread_create(&thread, NULL, wait_here, &v), 0);
			while (!(__atomic_load_n(&v.l->mutex.word, __ATOMIC_RELAXED) & 1))
				sched_yield();
			ended = step_and_kill(pid, k);
			ck_assert_int_eq(pthread_join(thread, &got), 0);
			r = (int)(intptr_t)got;
		} else {
			ended = step_and_kill(pid, k);
			r = lock_in(&v, 20000);
		}
		must(r == 0 || r == -EOWNERDEAD, "step %u: %d", k, r);
		deaths += r != 0;
		/* The waiter's thread has ended, with the lock. */
		memset(&v.l->mutex, 0, sizeof(v.l->mutex));
	}
	ck_assert(ended);
	ck_assert_uint_gt(deaths, 3);
	printf("killed at %u instructions, %u times with the lock\n", k, deaths);
	look_away(&v);
}
END_TEST

/* A count, under kills */

#define WORKERS 4u
#define KILLS 60u

static uint64_t *acknowledged; /* by worker: increments that it has counted itself */

static void count(void *arg)
{
	uint64_t *mine = arg;
	struct view v = look_at(O_RDWR);

	for (;;) {
		int r = nvmm_mutex_lock(v.nvmm, &v.l->mutex);

		if (r == -EOWNERDEAD) {
			/* Repair: the first half decides. */
			v.l->b = v.l->a;
			r = nvmm_mutex_consistent(v.nvmm, &v.l->mutex);
		}
		must(r == 0, "lock: %d", r);
		must(v.l->a == v.l->b, "half an increment");
		__atomic_store_n(&v.l->a, v.l->a + 1, __ATOMIC_RELEASE);
		__atomic_store_n(&v.l->b, v.l->b + 1, __ATOMIC_RELEASE);
		__atomic_store_n(mine, *mine + 1, __ATOMIC_RELEASE);
		r = nvmm_mutex_unlock(v.nvmm, &v.l->mutex);
		must(r == 0, "unlock: %d", r);
	}
}

START_TEST(no_increment_is_lost)
{
	struct view v = look_at(O_RDWR);
	const char *given = getenv("NVMMD_TEST_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
	uint64_t sum = 0, before = 0;
	pid_t pid[WORKERS];
	int r;

	printf("seed %u\n", seed);
	srand(seed);
	acknowledged = harness_shared(WORKERS * 64);
	for (unsigned i = 0; i < WORKERS; i++)
		pid[i] = harness_fork(count, &acknowledged[8 * i]);
	for (unsigned i = 0; i < KILLS; i++) {
		unsigned k = (unsigned)rand() % WORKERS;

		harness_sleep_ms((unsigned)rand() % 20);
		if (rand() % 4 == 0) {
			kill(pid[(k + 1) % WORKERS], SIGSTOP);
			harness_sleep_ms(5);
			kill(pid[(k + 1) % WORKERS], SIGCONT);
		}
		kill_and_wait(pid[k]);
		pid[k] = harness_fork(count, &acknowledged[8 * k]);
	}
	before = v.l->a;
	while (__atomic_load_n(&v.l->a, __ATOMIC_ACQUIRE) < before + 1000)
		harness_sleep_ms(1);
	for (unsigned i = 0; i < WORKERS; i++)
		kill_and_wait(pid[i]);
	r = nvmm_mutex_lock(v.nvmm, &v.l->mutex);
	ck_assert(r == 0 || r == -EOWNERDEAD);
	for (unsigned i = 0; i < WORKERS; i++)
		sum += acknowledged[8 * i];
	/* Each death may have come between the count and its acknowledgement. */
	printf("%lu increments, %lu acknowledged\n", (unsigned long)v.l->a, (unsigned long)sum);
	ck_assert_uint_ge(v.l->a, sum);
	ck_assert_uint_le(v.l->a, sum + KILLS + WORKERS);
	look_away(&v);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("locks");
	TCase *t = harness_case_served(s, "locks", 120, &h);

	tcase_add_test(t, states);
	tcase_add_test(t, holder_killed);
	tcase_add_test(t, left_by_another_life);
	tcase_add_test(t, daemon_away);
	tcase_add_test(t, forked);
	tcase_add_test(t, readers_and_writers);
	tcase_add_test(t, condition);
#ifndef __SANITIZE_THREAD__
	tcase_add_loop_test(t, killed_at_each_instruction, 0, 2);
#else
	(void)killed_at_each_instruction; /* it steps through the runtime of TSan for minutes */
#endif
	tcase_add_test(t, no_increment_is_lost);
	t = harness_case_served(s, "turns", 120, &h);
	tcase_add_loop_test(t, waiter_has_its_turn, 0, 2);
	return harness_run(s);
}
