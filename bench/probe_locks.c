/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Both mutexes lie in shared memory, are robust, and are nobody else's. Each round times both, in turns, and the ratio
 * is that of the round: a machine that is slower for a while is slower for both.
 */
#include "bench/probe_locks.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/gauge.h"
#include "bench/team.h"

#define ROUNDS 101u
#define PAIRS 20000u

struct ours {
	struct nvmm_mutex mutex;
	struct nvmm_rwlock rwlock;
};

struct theirs {
	pthread_mutex_t mutex;
	pthread_rwlock_t rwlock;
};

static int make_theirs(struct theirs **ret)
{
	struct theirs *t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_rwlockattr_t rw;
	pthread_mutexattr_t m;
	int r;

	if (t == MAP_FAILED)
		return -errno;
	pthread_mutexattr_init(&m);
	pthread_mutexattr_setpshared(&m, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&m, PTHREAD_MUTEX_ROBUST);
	r = pthread_mutex_init(&t->mutex, &m);
	pthread_mutexattr_destroy(&m);
	pthread_rwlockattr_init(&rw);
	pthread_rwlockattr_setpshared(&rw, PTHREAD_PROCESS_SHARED);
	if (r == 0)
		r = pthread_rwlock_init(&t->rwlock, &rw);
	pthread_rwlockattr_destroy(&rw);
	*ret = t;
	return -r;
}

static double per_pair(uint64_t start)
{
	return (double)(team_now_ns() - start) / PAIRS;
}

static double our_mutex(struct nvmm_client *nvmm, struct ours *o, int *error)
{
	uint64_t start = team_now_ns();

	for (unsigned i = 0; i < PAIRS; i++) {
		*error |= nvmm_mutex_lock(nvmm, &o->mutex);
		*error |= nvmm_mutex_unlock(nvmm, &o->mutex);
	}
	return per_pair(start);
}

static double their_mutex(struct theirs *t, int *error)
{
	uint64_t start = team_now_ns();

	for (unsigned i = 0; i < PAIRS; i++) {
		*error |= pthread_mutex_lock(&t->mutex);
		*error |= pthread_mutex_unlock(&t->mutex);
	}
	return per_pair(start);
}

static double our_readers(struct nvmm_client *nvmm, struct ours *o, int *error)
{
	uint64_t start = team_now_ns();

	for (unsigned i = 0; i < PAIRS; i++) {
		*error |= nvmm_rwlock_rdlock(nvmm, &o->rwlock);
		*error |= nvmm_rwlock_unlock(nvmm, &o->rwlock);
	}
	return per_pair(start);
}

static double their_readers(struct theirs *t, int *error)
{
	uint64_t start = team_now_ns();

	for (unsigned i = 0; i < PAIRS; i++) {
		*error |= pthread_rwlock_rdlock(&t->rwlock);
		*error |= pthread_rwlock_unlock(&t->rwlock);
	}
	return per_pair(start);
}

static void tell(const char *name, double *value)
{
	gauge_tell(name, gauge_median(value, ROUNDS));
}

int probe_locks(struct nvmm_client *nvmm, struct nvmm_heap *heap)
{
	double ours[ROUNDS], theirs[ROUNDS], ratio[ROUNDS], readers[ROUNDS], others[ROUNDS];
	nvmm_ptr ptr = nvmm_zalloc(heap, sizeof(struct ours));
	struct theirs *t = NULL;
	struct ours *o;
	int error = 0, r;

	if (ptr == NVMM_NULL)
		return -errno;
	r = make_theirs(&t);
	if (r < 0)
		return r;
	o = nvmm_local(nvmm, ptr);
	for (unsigned i = 0; i < ROUNDS; i++) {
		ours[i] = our_mutex(nvmm, o, &error);
		theirs[i] = their_mutex(t, &error);
		ratio[i] = ours[i] / theirs[i];
		readers[i] = our_readers(nvmm, o, &error);
		others[i] = their_readers(t, &error);
	}
	munmap(t, sizeof(*t));
	nvmm_free(heap, ptr);
	if (error)
		return -EIO;
	tell("lock_pair", ours);
	tell("lock_pthread", theirs);
	tell("lock_ratio", ratio);
	tell("read_pair", readers);
	tell("read_pthread", others);
	return 0;
}
