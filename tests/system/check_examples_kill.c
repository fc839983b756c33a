/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The queue and the map of the examples, several processes at once, killed again and again: each is whole
 * afterwards, and after all of it the heap holds what they hold.
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

static struct harness h;
static const char *const names[] = { "queue", "map" };

static void churn(void *arg)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/examples/%s", BUILD_DIR, (const char *)arg);
	setenv("NVMM_SOCKET", h.socket, 1);
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
	char key[32];

	for (unsigned i = 0; i < 512; i++) {
		snprintf(key, sizeof(key), "%u", i);
		if (name[0] == 'q' && i > 120)
			break;
		ck_assert_int_eq(run(name, name[0] == 'q' ? "take" : "remove", key), 0);
	}
}

START_TEST(killed_again_and_again)
{
	const char *name = names[_i];
	pid_t pid[PROCESSES];
	struct nvmm *nvmm;
	nvmm_pool_id id;

	harness_init(&h, NULL);
	harness_start(&h);
	setenv("TMPDIR", h.dir, 1);
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
	nvmm = harness_connect(&h);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, name, &id), 0);
	{
		struct nvmm_heap *heap = harness_open(nvmm, id);

		harness_until(emptied, heap, 10000);
		nvmm_heap_close(heap);
	}
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("examples killed");
	TCase *t = harness_case(s, "examples killed", 240);

	tcase_add_loop_test(t, killed_again_and_again, 0, 2);
	return harness_run(s);
}
