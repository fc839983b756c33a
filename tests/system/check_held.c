/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pools that were destroyed by force while sessions have them open: the daemon takes none of them for damaged, not
 * after a restart and not when it tells of deaths.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/raw.h"

#define MIB (UINT64_C(1) << 20)

static struct harness h;

static struct {
	atomic_uint ready;
	nvmm_pool_id heap, region;
} *shared;

static atomic_uint told;

static void start(void)
{
	harness_init(&h, NULL);
	harness_start(&h);
	shared = harness_shared(sizeof(*shared));
	atomic_store(&told, 0);
}

static void status(uint32_t *pools, uint32_t *damaged, uint32_t *held)
{
	Nvmm__Status op = NVMM__STATUS__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__Reply *reply;
	struct raw raw;

	raw_connect(&raw, &h);
	raw_hello(&raw);
	request.op_case = NVMM__REQUEST__OP_STATUS;
	request.status = &op;
	reply = raw_ask(&raw, &request);
	ck_assert_ptr_nonnull(reply);
	ck_assert_int_eq(reply->error, 0);
	*pools = reply->status->pools;
	*damaged = reply->status->pools_damaged;
	*held = reply->status->pools_held;
	nvmm__reply__free_unpacked(reply, NULL);
	raw_close(&raw);
}

static void none_damaged(void)
{
	uint32_t pools, damaged, held;

	status(&pools, &damaged, &held);
	ck_assert_uint_eq(damaged, 0);
	ck_assert(!harness_logged(&h, "is damaged"));
}

/* Has the heap and the region open until it is killed. */
static void hold(void *arg)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_region *region;
	struct nvmm_heap *heap = harness_open(nvmm, shared->heap);

	(void)arg;
	must(heap && nvmm_alloc(heap, 100), "%s", nvmm_errmsg(nvmm));
	must(nvmm_region_open(&region, nvmm, shared->region, O_RDWR) == 0, "%s", nvmm_errmsg(nvmm));
	atomic_fetch_add(&shared->ready, 1);
	while (true)
		pause();
}

static bool is_ready(void *arg)
{
	return atomic_load(&shared->ready) >= *(unsigned *)arg;
}

static pid_t holder(unsigned n)
{
	pid_t pid = harness_fork(hold, NULL);

	harness_until(is_ready, &n, 20000);
	return pid;
}

static void make(struct nvmm_client *nvmm)
{
	shared->heap = shared->region = 0;
	ck_assert_int_eq(nvmm_heap_create(nvmm, &shared->heap, 4 * MIB, NULL), 0);
	ck_assert_int_eq(nvmm_region_create(nvmm, &shared->region, MIB, NULL), 0);
}

static void force(uint32_t id)
{
	Nvmm__PoolDestroy op = NVMM__POOL_DESTROY__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	struct raw raw;

	raw_connect(&raw, &h);
	raw_hello(&raw);
	op.id = id;
	op.force = true;
	request.op_case = NVMM__REQUEST__OP_POOL_DESTROY;
	request.pool_destroy = &op;
	ck_assert_int_eq(raw_error(&raw, &request), 0);
	raw_close(&raw);
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

START_TEST(restarted)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	pid_t pid;

	make(nvmm);
	pid = holder(1);
	force(shared->heap);
	force(shared->region);
	none_damaged();
	for (unsigned i = 0; i < 2; i++) {
		harness_signal(&h, SIGKILL);
		harness_start(&h);
		none_damaged();
	}
	end(pid);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

static void note(const struct nvmm_failure *failure, void *arg)
{
	(void)arg;
	if (failure->pid != 0)
		atomic_fetch_add(&told, 1);
}

static bool is_told(void *arg)
{
	(void)arg;
	return atomic_load(&told) >= 2;
}

/* Another one that has them open is told of the death, which loads no heap that is gone. */
START_TEST(told_of_a_death)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_region *region;
	struct nvmm_heap *heap;
	pid_t pid;

	make(nvmm);
	heap = harness_open(nvmm, shared->heap);
	ck_assert_ptr_nonnull(heap);
	ck_assert_int_eq(nvmm_region_open(&region, nvmm, shared->region, O_RDWR), 0);
	ck_assert_int_eq(nvmm_on_failure(nvmm, note, NULL), 0);
	pid = holder(1);
	force(shared->heap);
	force(shared->region);
	end(pid);
	harness_until(is_told, NULL, 20000);
	none_damaged();
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

static bool none_held(void *arg)
{
	uint32_t pools, damaged, held;

	(void)arg;
	status(&pools, &damaged, &held);
	return held == 0;
}

static void two_held(void)
{
	uint32_t pools, damaged, held;

	status(&pools, &damaged, &held);
	ck_assert_uint_eq(pools, 2);
	ck_assert_uint_eq(held, 2);
}

/* Their ids are taken: they count as long as they are open, also after a restart. */
START_TEST(counted)
{
	static const struct harness_options few = { .limits = "  pools_per_user: 2\n" };
	struct nvmm_client *nvmm;
	nvmm_pool_id id = 0;
	pid_t pid;

	harness_stop(&h);
	harness_init(&h, &few);
	harness_start(&h);
	nvmm = harness_connect(&h);
	make(nvmm);
	pid = holder(1);
	force(shared->heap);
	force(shared->region);
	two_held();
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, MIB, NULL), -EDQUOT);
	harness_signal(&h, SIGKILL);
	harness_start(&h);
	two_held();
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, MIB, NULL), -EDQUOT);
	end(pid);
	harness_until(none_held, NULL, 20000);
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, MIB, NULL), 0);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("held pools");
	TCase *tc = harness_case(suite, "destroyed while open", 60);

	tcase_add_checked_fixture(tc, start, NULL);
	tcase_add_test(tc, restarted);
	tcase_add_test(tc, told_of_a_death);
	tcase_add_test(tc, counted);
	return harness_run(suite);
}
