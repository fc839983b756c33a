/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The queue and the map of the examples, several processes at once, killed again and again, in a heap of either
 * durability: each is whole afterwards, and after all of it the heap holds what they hold.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/harness.h"

#define PROCESSES 3
#define ROUNDS 30
#define KEYS 512u /* that `map churn` uses */

static struct harness h;
static const char *const names[] = { "queue", "map" };

static void churn(void *arg)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/examples/%s", BUILD_DIR, (const char *)arg);
	setenv("NVMM_SOCKET", h.socket, 1);
	/* Each has another directory for its files, which the lock must not depend on. */
	setenv("TMPDIR", getpid() % 2 ? h.dir : h.base, 1);
	execl(path, path, arg, "churn", "100000000", (char *)NULL);
	_exit(1);
}

static int run(const char *name, const char *command, const char *a)
{
	char path[64], out[4096];
	const char *const argv[] = { path, name, command, a, NULL };

	snprintf(path, sizeof(path), "examples/%s", name);
	return harness_command(&h, out, sizeof(out), argv);
}

static bool emptied(void *arg)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };

	ck_assert_int_eq(nvmm_heap_stat(arg, &info), 0);
	return info.blocks == 1; /* the root */
}

static void empty(const char *name)
{
	char path[64], out[4096], keys[KEYS][8];
	const char *argv[KEYS + 4] = { path, name, "remove" };

	if (name[0] == 'q') {
		ck_assert_int_eq(run(name, "take", "1000"), 0);
		return;
	}
	snprintf(path, sizeof(path), "examples/%s", name);
	for (unsigned i = 0; i < KEYS; i++) {
		snprintf(keys[i], sizeof(keys[i]), "%u", i);
		argv[3 + i] = keys[i];
	}
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), argv), 0);
}

/* The heap is of the durability that was meant, with nothing but the root in it. */
static void expect_empty(const char *name, bool power)
{
	struct nvmm_pool_info info = { .size = sizeof(info) };
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap;
	nvmm_pool_id id;

	ck_assert_int_eq(nvmm_pool_lookup(nvmm, name, &id), 0);
	ck_assert_int_eq(nvmm_pool_stat(nvmm, id, &info), 0);
	ck_assert_uint_eq(info.durability, power ? NVMM_DURABILITY_POWER : NVMM_DURABILITY_PROCESS);
	heap = harness_open(nvmm, id);
	harness_until(emptied, heap, 10000);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

START_TEST(killed_again_and_again)
{
	const char *name = names[_i / 2];
	bool power = _i % 2;
	pid_t pid[PROCESSES];

	/* The programs leave the durability to the daemon, which goes by what the memory is. */
	ck_assert_int_eq(setenv("PMEM_IS_PMEM_FORCE", power ? "1" : "0", 1), 0);
	harness_init(&h, NULL);
	harness_start(&h);
	/* Makes heap and root: a process that dies in that may leave a block. */
	ck_assert_int_eq(run(name, "check", NULL), 0);
	for (unsigned i = 0; i < PROCESSES; i++)
		pid[i] = harness_fork(churn, (void *)(uintptr_t)name);
	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned k = i % PROCESSES;

		harness_sleep_ms(10 + i * 7 % 30);
		kill(pid[k], SIGKILL);
		ck_assert_int_eq(run(name, "check", NULL), 0);
		ck_assert_int_eq(waitpid(pid[k], NULL, 0), pid[k]);
		pid[k] = harness_fork(churn, (void *)(uintptr_t)name);
	}
	for (unsigned i = 0; i < PROCESSES; i++) {
		kill(pid[i], SIGKILL);
		ck_assert_int_eq(waitpid(pid[i], NULL, 0), pid[i]);
	}
	ck_assert_int_eq(run(name, "check", NULL), 0);
	empty(name);
	expect_empty(name, power);
	harness_stop(&h);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("examples killed");
	TCase *t = harness_case(s, "examples killed", 240);

	tcase_add_loop_test(t, killed_again_and_again, 0, 4);
	return harness_run(s);
}
