/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A shelf base in memory: what is asked for beyond the memory there is ends with -ENOSPC, naming it, before
 * the kernel has to kill anybody. The limit of a control group counts as well.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include "tests/system/harness.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define GROUP_MIB 320

static struct harness h;

static bool base_is_memory(void)
{
	struct statfs fs;

	if (statfs(h.base, &fs) == 0 && fs.f_type == TMPFS_MAGIC)
		return true;
	fprintf(stderr, "a test is skipped: its files are not on tmpfs\n");
	return false;
}

/* A figure of /proc/meminfo, in bytes. */
static uint64_t meminfo(const char *key)
{
	unsigned long long kib = 0;
	char line[128];
	FILE *f = fopen("/proc/meminfo", "re");

	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, key, strlen(key)) == 0)
			sscanf(line + strlen(key), ": %llu", &kib);
	fclose(f);
	return kib * 1024;
}

static void expect_no_memory(struct nvmm_client *nvmm, int r, const char *what)
{
	ck_assert_int_eq(r, -ENOSPC);
	ck_assert_msg(strstr(nvmm_errmsg(nvmm), what) != NULL, "%s", nvmm_errmsg(nvmm));
	harness_alive(&h);
}

START_TEST(more_than_memory)
{
	struct nvmm_pool_options sparse = { .size = sizeof(sparse), .sparse = true };
	uint64_t bytes = meminfo("MemTotal") + GIB;
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	nvmm_pool_id id = 0;

	harness_init(&h, NULL);
	if (!base_is_memory())
		return;
	harness_start(&h);
	nvmm = harness_connect(&h);
	expect_no_memory(nvmm, nvmm_region_create(nvmm, &id, bytes, NULL), "memory_margin");
	id = 0;
	expect_no_memory(nvmm, nvmm_heap_create(nvmm, &id, bytes, NULL), "this machine");
	id = 0;
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, MIB, NULL), 0);
	expect_no_memory(nvmm, nvmm_pool_resize(nvmm, id, bytes), "memory_margin");
	/* A sparse heap may be that large, but not what is granted of it. */
	id = 0;
	ck_assert_int_eq(nvmm_heap_create(nvmm, &id, 4 * bytes, &sparse), 0);
	heap = harness_open(nvmm, id);
	ck_assert_uint_eq(nvmm_alloc(heap, bytes), NVMM_NULL);
	expect_no_memory(nvmm, -errno, "memory_margin");
	ck_assert_uint_ne(nvmm_alloc(heap, MIB), NVMM_NULL);
	ck_assert_uint_lt(harness_usage(h.base).bytes, 64 * MIB);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

/* A control group of the daemon's, with a limit, in whichever version there is. */
static char group[256];

static bool group_put(const char *name, const char *text)
{
	char path[320];
	bool done;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", group, name);
	f = fopen(path, "we");
	if (!f)
		return false;
	done = fputs(text, f) >= 0;
	return fclose(f) == 0 && done;
}

static bool group_has(const char *name)
{
	char path[320];

	snprintf(path, sizeof(path), "%s/%s", group, name);
	return access(path, W_OK) == 0;
}

static bool group_make(void)
{
	static const char *const roots[][2] = { { "/sys/fs/cgroup", "memory.max" },
						{ "/sys/fs/cgroup/memory", "memory.limit_in_bytes" } };
	char limit[32];

	snprintf(limit, sizeof(limit), "%llu", (unsigned long long)(GROUP_MIB * MIB));
	for (size_t i = 0; geteuid() == 0 && i < 2; i++) {
		snprintf(group, sizeof(group), "%s/nvmmd-test-%d", roots[i][0], (int)getpid());
		if (mkdir(group, 0755) < 0)
			continue;
		/* Where no control groups are mounted, it is an empty directory. */
		if (group_has(roots[i][1]) && group_put(roots[i][1], limit))
			return true;
		rmdir(group);
	}
	fprintf(stderr, "a test is skipped: no control group can be made here\n");
	return false;
}

static void group_enter(void)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	if (!group_put("cgroup.procs", pid))
		_exit(125);
}

static bool group_removed(void *arg)
{
	return rmdir(group) == 0 || errno == ENOENT;
}

START_TEST(limit_of_a_control_group)
{
	struct nvmm_client *nvmm;
	nvmm_pool_id id = 0;

	harness_init(&h, NULL);
	if (!base_is_memory() || !group_make())
		return;
	h.prepare = group_enter;
	harness_start(&h);
	nvmm = harness_connect(&h);
	expect_no_memory(nvmm, nvmm_region_create(nvmm, &id, 400 * MIB, NULL), "nvmmd-test-");
	id = 0;
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, 160 * MIB, NULL), 0);
	id = 0;
	expect_no_memory(nvmm, nvmm_region_create(nvmm, &id, 160 * MIB, NULL), "control group");
	id = 0;
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, 32 * MIB, NULL), 0);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
	harness_until(group_removed, NULL, 10000);
}
END_TEST

static void creates(void *arg)
{
	uint64_t bytes = *(const uint64_t *)arg;
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id id = 0;

	nvmm_region_create(nvmm, &id, bytes, NULL);
	for (;;)
		pause();
}

static bool has_begun(void *arg)
{
	return harness_usage(h.base).bytes > 64 * MIB;
}

static bool has_no_pool(void *arg)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/pool-1", h.base);
	return access(path, F_OK) < 0;
}

/* A large reservation ends with the client or with the daemon, and all of it is taken back. */
START_TEST(large_reservation_ends)
{
	uint64_t bytes = meminfo("MemAvailable") / 8;
	bool client = _i == 0;
	pid_t pid;

	harness_init(&h, NULL);
	if (!base_is_memory() || bytes < GIB)
		return;
	harness_start(&h);
	pid = harness_fork(creates, &bytes);
	harness_until(has_begun, NULL, 30000);
	if (client) {
		kill(pid, SIGKILL);
		harness_until(has_no_pool, NULL, 30000);
		harness_alive(&h);
		harness_stop(&h);
	} else {
		harness_stop(&h);
		ck_assert(has_no_pool(NULL));
		/* Its client asks the next daemon, which makes the pool. */
		kill(pid, SIGKILL);
		harness_start(&h);
		harness_stop(&h);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("memory");
	TCase *tcase = harness_case(suite, "memory", 120);

	tcase_add_test(tcase, more_than_memory);
	tcase_add_test(tcase, limit_of_a_control_group);
	tcase_add_loop_test(tcase, large_reservation_ends, 0, 2);
	return harness_run(suite);
}
