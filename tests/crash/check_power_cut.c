/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A heap of durability `power` after the machine went down, with a real daemon and client: both are killed, the
 * file that tells the boot gets another id, the daemon is started again. What was allocated is, and is not given
 * twice; the suspects are told, and a sweep ends them. Nothing is suspect in the same boot, nor when the last
 * writer had left. What the medium lost of what was not drained is not played here: check_heap_power.c does.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/macro.h"
#include "tests/crash/ledger.h"
#include "tests/crash/points.h"
#include "tests/system/harness.h"

#define HEAP_BYTES (UINT64_C(16) << 20)
#define BLOCKS 1000u
#define BLOCK 64u
#define AGAIN 20000u

static struct harness h;
static char boot_file[256];
/* Of the present test: it goes down at one place of its own, and each boot after it is an image. */
static struct ledger row;

static struct shared {
	nvmm_pool_id id;
	nvmm_ptr held[BLOCKS]; /* 0: freed */
	bool ready;            /* atomic */
} *shared;

static void boot(unsigned number)
{
	FILE *f = fopen(boot_file, "w");

	ck_assert_ptr_nonnull(f);
	ck_assert_int_gt(fprintf(f, "%08x-0000-4000-8000-000000000000\n", number), 0);
	ck_assert_int_eq(fclose(f), 0);
}

static void start(void)
{
	struct nvmm_pool_options options = { .size = sizeof(options),
					     .durability = NVMM_DURABILITY_POWER };
	struct nvmm_client *nvmm;
	int r;

	ck_assert_int_eq(setenv("PMEM_IS_PMEM_FORCE", "1", 1), 0);
	shared = harness_shared(sizeof(*shared));
	harness_init(&h, NULL);
	h.program = NVMMD_POINTS_PATH;
	snprintf(boot_file, sizeof(boot_file), "%s/boot_id", h.dir);
	ck_assert_int_eq(setenv(POINTS_BOOT_ENV, boot_file, 1), 0);
	boot(1);
	harness_start(&h);
	nvmm = harness_connect(&h);
	r = nvmm_heap_create(nvmm, &shared->id, HEAP_BYTES, &options);
	ck_assert_msg(r == 0, "create: %s", nvmm_errmsg(nvmm));
	nvmm_disconnect(nvmm);
}

static void stop(void)
{
	if (h.daemon)
		harness_stop(&h);
}

/* Clients */

static void work(struct nvmm_heap *heap)
{
	for (unsigned i = 0; i < BLOCKS; i++)
		must((shared->held[i] = nvmm_alloc(heap, BLOCK)) != NVMM_NULL, "alloc %u", i);
	for (unsigned i = 0; i < BLOCKS; i += 3) {
		must(nvmm_free(heap, shared->held[i]) == 0, "free %u", i);
		shared->held[i] = NVMM_NULL;
	}
}

static void client_stays(void *arg)
{
	(void)arg;
	work(harness_open(harness_connect(&h), shared->id));
	/* ordering: release; what was allocated is seen by who sees it. */
	__atomic_store_n(&shared->ready, true, __ATOMIC_RELEASE);
	for (;;)
		pause();
}

static void client_leaves(void *arg)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, shared->id);

	(void)arg;
	work(heap);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

/* Frees into spans that are nobody's: marks that no lane takes away. */
static void client_frees(void *arg)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, shared->id);

	(void)arg;
	for (unsigned i = 1; i < BLOCKS; i += 3) {
		must(nvmm_free(heap, shared->held[i]) == 0, "free %u", i);
		shared->held[i] = NVMM_NULL;
	}
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

static bool is_ready(void *arg)
{
	(void)arg;
	/* ordering: acquire; as above. */
	return __atomic_load_n(&shared->ready, __ATOMIC_ACQUIRE);
}

/* The client works and is killed, after the daemon or before. */
static void kill_all(bool client_first)
{
	pid_t pid = harness_fork(client_stays, NULL);

	harness_until(is_ready, NULL, 30000);
	if (!client_first)
		harness_signal(&h, SIGKILL);
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	if (client_first)
		harness_signal(&h, SIGKILL);
}

/* After it */

static bool is_held(nvmm_ptr ptr)
{
	for (unsigned i = 0; i < BLOCKS; i++)
		if (shared->held[i] == ptr)
			return true;
	return false;
}

static bool held_is_live(nvmm_ptr ptr, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	return is_held(ptr);
}

static unsigned n_held(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < BLOCKS; i++)
		n += shared->held[i] != NVMM_NULL;
	return n;
}

static struct nvmm_heap_info stat_of(struct nvmm_heap *heap)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };

	ck_assert_int_eq(nvmm_heap_stat(heap, &info), 0);
	return info;
}

/* What is held is allocated, and nothing of it is given; all that is given can be freed again. */
static void expect_given_once(struct nvmm_heap *heap)
{
	static nvmm_ptr got[AGAIN];

	for (unsigned i = 0; i < BLOCKS; i++)
		must(!shared->held[i] || nvmm_usable_size(heap, shared->held[i]) == BLOCK,
		     "block %u is lost", i);
	for (unsigned i = 0; i < AGAIN; i++) {
		got[i] = nvmm_alloc(heap, BLOCK);
		must(got[i] != NVMM_NULL && !is_held(got[i]), "alloc %u gave %llx", i,
		     (unsigned long long)got[i]);
	}
	for (unsigned i = 0; i < AGAIN; i++)
		must(nvmm_free(heap, got[i]) == 0, "free %u", i);
}

/* Loads the heap; how many are suspect, before a sweep has ended that. */
static uint64_t suspects_found(void)
{
	struct nvmm_sweep_info swept = { .size = sizeof(swept) };
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	struct nvmm_heap_info info;
	uint64_t suspects;

	harness_start(&h);
	row.images++;
	nvmm = harness_connect(&h);
	heap = harness_open(nvmm, shared->id);
	info = stat_of(heap);
	suspects = info.suspects;
	must(info.used >= (uint64_t)n_held() * BLOCK, "%llu bytes used",
	     (unsigned long long)info.used);
	expect_given_once(heap);
	must(stat_of(heap).suspects == suspects, "suspects were given or forgotten");
	ck_assert_int_eq(nvmm_heap_sweep(heap, 0, held_is_live, NULL, &swept), 0);
	ck_assert_uint_eq(swept.asked, suspects);
	info = stat_of(heap);
	ck_assert_uint_eq(info.suspects, 0);
	ck_assert_uint_eq(info.used, (uint64_t)n_held() * BLOCK);
	expect_given_once(heap);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	return suspects;
}

static void begin(const char *operation)
{
	row = (struct ledger){ .suite = "machine down", .operation = operation, .durability = "power",
			       .points = 1, .sampled = true };
	ledger_begin(&row);
}

START_TEST(in_use_in_another_boot)
{
	uint64_t suspects;

	begin("heap in use");
	kill_all(_i);
	boot(2);
	suspects = suspects_found();
	/* The daemon may have settled a client that died before it, and drained the heap. */
	ck_assert(_i == 1 || suspects >= n_held());
	ledger_end(&row);
}
END_TEST

START_TEST(in_use_in_the_same_boot)
{
	begin("heap in use, same boot");
	kill_all(_i);
	ck_assert_uint_eq(suspects_found(), 0);
	ledger_end(&row);
}
END_TEST

/* The heap rests when its last writer has left; then it is drained, and says so. */
START_TEST(closed)
{
	begin("heap closed");
	harness_join(harness_fork(client_leaves, NULL));
	harness_join(harness_fork(client_frees, NULL));
	/* The daemon has dealt with who left before it answers another, and unloads with the last. */
	harness_alive(&h);
	harness_stop(&h);
	boot(2);
	ck_assert_uint_eq(suspects_found(), 0);
	harness_signal(&h, SIGKILL);
	boot(3);
	ck_assert_uint_eq(suspects_found(), 0);
	ledger_end(&row);
}
END_TEST

/* A reboot before the suspects were dealt with makes no more of them, and forgets none. */
START_TEST(again)
{
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	uint64_t first;

	begin("heap in use, twice");
	kill_all(false);
	boot(2);
	harness_start(&h);
	row.images++;
	nvmm = harness_connect(&h);
	heap = harness_open(nvmm, shared->id);
	first = stat_of(heap).suspects;
	ck_assert_uint_ge(first, n_held());
	harness_signal(&h, SIGKILL);
	boot(3);
	ck_assert_uint_eq(suspects_found(), first);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	ledger_end(&row);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("power cut");
	TCase *t = harness_case(s, "power cut", 60);

	tcase_add_checked_fixture(t, start, stop);
	tcase_add_loop_test(t, in_use_in_another_boot, 0, 2);
	tcase_add_loop_test(t, in_use_in_the_same_boot, 0, 2);
	tcase_add_test(t, closed);
	tcase_add_test(t, again);
	return harness_run(s);
}
