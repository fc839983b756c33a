/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Locks in other places than a heap that lives: a region, a heap of durability `power`, a pool that was destroyed under
 * them; over a reboot; and more readers than a lock has places.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/macro.h"
#include "tests/system/harness.h"

#define MIB (UINT64_C(1) << 20)
#define AT_ONCE (NVMM_RWLOCK_READERS + 1)

enum place { IN_HEAP, IN_POWER_HEAP, IN_REGION };

struct locks {
	struct nvmm_mutex mutex;
	struct nvmm_rwlock rwlock;
	uint32_t ready;
	uint32_t leave;
};

static struct harness h;
static enum place place;
static nvmm_pool_id pool;

/* The locks of the pool, in a connection of one's own that stays. */
static struct locks *look(struct nvmm_client **ret)
{
	struct nvmm_client *nvmm = *ret = harness_connect(&h);
	struct nvmm_region *region;
	struct nvmm_heap *heap;
	nvmm_ptr expected = NVMM_NULL, at;
	void *addr;

	if (place == IN_REGION) {
		must(nvmm_region_open(&region, nvmm, pool, O_RDWR) == 0, "open: %s", nvmm_errmsg(nvmm));
		must(nvmm_region_map(region, NULL, 4096, PROT_READ | PROT_WRITE, 0, 0, &addr) == 0, "map");
		return addr;
	}
	must(nvmm_heap_open(&heap, nvmm, pool, O_RDWR) == 0, "open: %s", nvmm_errmsg(nvmm));
	if (nvmm_root_get(heap, "locks", &at) == -ENOENT) {
		at = nvmm_zalloc(heap, sizeof(struct locks));
		must(nvmm_root_cas(heap, "locks", &expected, at) == 0, "root");
	}
	return nvmm_local(nvmm, at);
}

static void make_pool(void)
{
	struct nvmm_pool_options options = { .size = sizeof(options) };
	struct nvmm_client *nvmm = harness_connect(&h);

	pool = 0;
	if (place == IN_POWER_HEAP)
		options.durability = NVMM_DURABILITY_POWER;
	ck_assert_int_eq((place == IN_REGION ? nvmm_region_create : nvmm_heap_create)(nvmm, &pool, MIB, &options), 0);
	nvmm_disconnect(nvmm);
}

static bool is_ready(void *arg)
{
	/* ordering: sequential; a flag between processes. */
	return __atomic_load_n((uint32_t *)arg, __ATOMIC_SEQ_CST) != 0;
}

static void tell(uint32_t *flag)
{
	/* ordering: sequential; likewise. */
	__atomic_add_fetch(flag, 1, __ATOMIC_SEQ_CST);
}

static void hold(void *arg)
{
	struct nvmm_client *nvmm;
	struct locks *l = look(&nvmm);

	(void)arg;
	must(nvmm_mutex_lock(nvmm, &l->mutex) == 0, "lock");
	tell(&l->ready);
	pause();
}

static pid_t holder(struct locks *l)
{
	pid_t pid;

	l->ready = 0;
	pid = harness_fork(hold, NULL);
	harness_until(is_ready, &l->ready, 20000);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

static void expect_owner_dead(struct nvmm_client *nvmm, struct locks *l)
{
	ck_assert_int_eq(nvmm_mutex_lock(nvmm, &l->mutex), -EOWNERDEAD);
	ck_assert_int_eq(nvmm_mutex_consistent(nvmm, &l->mutex), 0);
	ck_assert_int_eq(nvmm_mutex_unlock(nvmm, &l->mutex), 0);
}

static void serve(void)
{
	/* The tests' memory passes for persistent. */
	setenv("PMEM_IS_PMEM_FORCE", "1", 1);
	harness_init(&h, NULL);
	harness_start(&h);
}

START_TEST(owner_dies)
{
	struct nvmm_client *nvmm;
	struct locks *l;
	pid_t pid;

	place = (enum place)_i;
	serve();
	make_pool();
	l = look(&nvmm);
	ck_assert_int_eq(nvmm_mutex_lock(nvmm, &l->mutex), 0);
	ck_assert_int_eq(nvmm_mutex_unlock(nvmm, &l->mutex), 0);
	for (unsigned i = 0; i < 3; i++) {
		pid = holder(l);
		ck_assert_int_eq(nvmm_mutex_trylock(nvmm, &l->mutex), -EBUSY);
		end(pid);
		expect_owner_dead(nvmm, l);
	}
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

/* Who has the pool open goes on with what is in it; a death there is told as elsewhere. */
START_TEST(destroyed_pool)
{
	struct nvmm_client *nvmm, *other;
	struct locks *l;
	pid_t pid;

	place = (enum place)_i;
	serve();
	make_pool();
	l = look(&nvmm);
	pid = holder(l);
	other = harness_connect(&h);
	ck_assert_int_eq(nvmm_pool_destroy(other, pool, NVMM_DESTROY_FORCED), 0);
	nvmm_disconnect(other);
	ck_assert_int_eq(nvmm_mutex_trylock(nvmm, &l->mutex), -EBUSY);
	end(pid);
	expect_owner_dead(nvmm, l);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return ftw->level > 0 ? remove(path) : 0;
}

/* All processes end, and the runtime directory is empty afterwards. */
START_TEST(rebooted)
{
	struct nvmm_client *nvmm;
	struct locks *l;
	pid_t pid;

	place = (enum place)_i;
	serve();
	make_pool();
	l = look(&nvmm);
	pid = holder(l);
	nvmm_disconnect(nvmm);
	harness_signal(&h, SIGKILL);
	end(pid);
	ck_assert_int_eq(nftw(h.runtime, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	harness_start(&h);
	l = look(&nvmm);
	expect_owner_dead(nvmm, l);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

static void read_until_told(void *arg)
{
	struct nvmm_client *nvmm;
	struct locks *l = look(&nvmm);

	(void)arg;
	must(nvmm_rwlock_rdlock(nvmm, &l->rwlock) == 0, "rdlock");
	tell(&l->ready);
	while (!is_ready(&l->leave))
		harness_sleep_ms(1);
	must(nvmm_rwlock_unlock(nvmm, &l->rwlock) == 0, "unlock");
	nvmm_disconnect(nvmm);
}

static bool all_places_taken(void *arg)
{
	/* ordering: sequential; likewise. */
	return __atomic_load_n((uint32_t *)arg, __ATOMIC_SEQ_CST) >= NVMM_RWLOCK_READERS;
}

static bool all_have_read(void *arg)
{
	/* ordering: sequential; likewise. */
	return __atomic_load_n((uint32_t *)arg, __ATOMIC_SEQ_CST) == AT_ONCE;
}

START_TEST(more_readers_than_places)
{
	struct nvmm_client *nvmm;
	struct timespec now;
	struct locks *l;
	pid_t pid[AT_ONCE];

	place = IN_HEAP;
	serve();
	make_pool();
	l = look(&nvmm);
	for (unsigned i = 0; i < AT_ONCE; i++)
		pid[i] = harness_fork(read_until_told, NULL);
	harness_until(all_places_taken, &l->ready, 20000);
	harness_sleep_ms(50);
	ck_assert_uint_eq(l->ready, NVMM_RWLOCK_READERS);
	clock_gettime(CLOCK_MONOTONIC, &now);
	ck_assert_int_eq(nvmm_rwlock_timedrdlock(nvmm, &l->rwlock, &now), -ETIMEDOUT);
	ck_assert_int_eq(nvmm_rwlock_trywrlock(nvmm, &l->rwlock), -EBUSY);
	tell(&l->leave);
	harness_until(all_have_read, &l->ready, 20000);
	for (unsigned i = 0; i < AT_ONCE; i++)
		harness_join(pid[i]);
	ck_assert_int_eq(nvmm_rwlock_wrlock(nvmm, &l->rwlock), 0);
	ck_assert_int_eq(nvmm_rwlock_unlock(nvmm, &l->rwlock), 0);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("lock places");
	TCase *tcase = harness_case(suite, "lock places", 120);

	tcase_add_loop_test(tcase, owner_dies, 0, IN_REGION + 1);
	tcase_add_loop_test(tcase, destroyed_pool, 0, IN_REGION + 1);
	tcase_add_loop_test(tcase, rebooted, 0, IN_REGION + 1);
	tcase_add_test(tcase, more_readers_than_places);
	return harness_run(suite);
}
