/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A session's file is lost while no daemon runs, and its process lives: the next daemon takes it for dead.
 *
 * Whatever the process calls first says so, and what it calls afterwards; what needs neither lane nor daemon goes
 * on. Connected anew, it has every block that it had, each once; what it had reserved is free. Others have not noticed:
 * its lanes are nobody's as long as it lives, since its first call touches the one that it had.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/macro.h"
#include "media/span.h"
#include "tests/system/harness.h"

#define MIB (UINT64_C(1) << 20)
#define BLOCKS 200u
#define RESERVED 3u
#define HELD 32u

static struct harness h;

struct shared {
	int stage;
	uint64_t steps; /* of the other processes */
	nvmm_pool_id id;
	int first; /* which call is the first */
	nvmm_ptr word;
};
static volatile struct shared *shared;

static void stage_wait(int which)
{
	while (shared->stage < which)
		harness_sleep_ms(1);
}

static bool stage_reached(void *arg)
{
	return shared->stage >= *(int *)arg;
}

static void stage_until(int which)
{
	harness_until(stage_reached, &which, 30000);
}

/* Processes that notice nothing: one that is there before, one that comes afterwards */

static void other(void *arg)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, shared->id);
	nvmm_ptr held[HELD] = { NVMM_NULL };
	unsigned seed = 1;

	while (shared->stage < 9) {
		unsigned i = (unsigned)rand_r(&seed) % HELD;
		uint64_t *p;

		if (held[i]) {
			p = nvmm_local(nvmm, held[i]);
			must(*p == held[i], "block %u was written to", i);
			must(nvmm_free(heap, held[i]) == 0, "%s", nvmm_errmsg(nvmm));
		}
		held[i] = nvmm_alloc(heap, 16 + (size_t)rand_r(&seed) % 500);
		must(held[i], "%s", nvmm_errmsg(nvmm));
		p = nvmm_local(nvmm, held[i]);
		*p = held[i];
		shared->steps++;
	}
	for (unsigned i = 0; i < HELD; i++)
		must(nvmm_free(heap, held[i]) == 0, "%s", nvmm_errmsg(nvmm));
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

static bool steps_beyond(void *arg)
{
	return shared->steps >= *(uint64_t *)arg;
}

static void other_goes_on(void)
{
	uint64_t to = shared->steps + 1000;

	harness_until(steps_beyond, &to, 30000);
}

/* The process whose session is lost */

struct user {
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	nvmm_ptr block[BLOCKS];
	nvmm_ptr reserved[RESERVED];
};

static int call_alloc(struct user *u)
{
	return nvmm_alloc(u->heap, 16) == NVMM_NULL ? -errno : 0;
}

static int call_alloc_large(struct user *u)
{
	return nvmm_alloc(u->heap, 5 * MIB) == NVMM_NULL ? -errno : 0;
}

static int call_free(struct user *u)
{
	return nvmm_free(u->heap, u->block[0]);
}

static int call_free_deferred(struct user *u)
{
	return nvmm_free_deferred(u->heap, u->block[1]);
}

static int call_reserve(struct user *u)
{
	return nvmm_reserve(u->heap, 16) == NVMM_NULL ? -errno : 0;
}

static int call_cancel(struct user *u)
{
	return nvmm_cancel(u->heap, u->reserved[0]);
}

static int call_publish(struct user *u)
{
	struct nvmm_action actions[] = {
		NVMM_COMMIT(u->reserved[1]),
		NVMM_STORE(shared->word, u->reserved[1]),
	};

	return nvmm_publish(u->heap, actions, 2);
}

static int call_realloc(struct user *u)
{
	return nvmm_realloc(u->heap, u->block[2], 3000) == NVMM_NULL ? -errno : 0;
}

static int call_root(struct user *u)
{
	return nvmm_root_set(u->heap, "root", u->block[0]);
}

static int call_stat(struct user *u)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };

	return nvmm_heap_stat(u->heap, &info);
}

static int call_synchronize(struct user *u)
{
	return nvmm_epoch_synchronize(u->nvmm);
}

/* Its own thread's place in its own file. */
static int call_epoch(struct user *u)
{
	int r = nvmm_epoch_enter(u->nvmm);

	if (r == 0)
		nvmm_epoch_exit(u->nvmm);
	return r;
}

static int call_local(struct user *u)
{
	const uint64_t *p = nvmm_local(u->nvmm, u->block[0]);

	return p && *p == 0 ? 0 : -EFAULT;
}

static const struct {
	const char *name;
	int (*call)(struct user *u);
	bool goes_on;
} calls[] = {
	{ "alloc", call_alloc, false },
	{ "alloc of 5 MiB", call_alloc_large, false },
	{ "free", call_free, false },
	{ "free_deferred", call_free_deferred, false },
	{ "reserve", call_reserve, false },
	{ "cancel", call_cancel, false },
	{ "publish", call_publish, false },
	{ "realloc", call_realloc, false },
	{ "root_set", call_root, false },
	{ "heap_stat", call_stat, false },
	{ "epoch_synchronize", call_synchronize, false },
	{ "epoch_enter", call_epoch, true },
	{ "local", call_local, true },
};

static void user_call(struct user *u, unsigned i)
{
	int r = calls[i].call(u);

	must(r == (calls[i].goes_on ? 0 : -ECONNRESET), "%s: %d: %s", calls[i].name, r,
	     nvmm_errmsg(u->nvmm));
}

static void user_fill(struct user *u)
{
	u->nvmm = harness_connect(&h);
	u->heap = harness_open(u->nvmm, shared->id);
	for (unsigned i = 0; i < BLOCKS; i++) {
		uint64_t *p;

		u->block[i] = nvmm_alloc(u->heap, 16 + i);
		must(u->block[i], "%s", nvmm_errmsg(u->nvmm));
		p = nvmm_local(u->nvmm, u->block[i]);
		*p = i;
	}
	for (unsigned i = 0; i < RESERVED; i++)
		must((u->reserved[i] = nvmm_reserve(u->heap, 100)), "%s", nvmm_errmsg(u->nvmm));
	must(call_epoch(u) == 0, "%s", nvmm_errmsg(u->nvmm));
}

/* What it had is there, once: all of it can be freed, and not again. */
static void user_empty(struct user *u)
{
	for (unsigned i = 0; i < BLOCKS; i++) {
		const uint64_t *p = nvmm_local(u->nvmm, u->block[i]);

		must(p && *p == i, "block %u was written to", i);
		must(nvmm_free(u->heap, u->block[i]) == 0, "block %u: %s", i, nvmm_errmsg(u->nvmm));
		must(nvmm_free(u->heap, u->block[i]) == -EALREADY, "block %u is free once more", i);
	}
}

static void user(void *arg)
{
	struct user u;

	stage_wait(1);
	user_fill(&u);
	shared->stage = 2;
	stage_wait(3);
	user_call(&u, (unsigned)shared->first);
	for (unsigned i = 0; i < ARRAY_SIZE(calls); i++)
		user_call(&u, i);
	nvmm_heap_close(u.heap);
	nvmm_disconnect(u.nvmm);
	u.nvmm = harness_connect(&h);
	u.heap = harness_open(u.nvmm, shared->id);
	user_empty(&u);
	nvmm_heap_close(u.heap);
	nvmm_disconnect(u.nvmm);
	shared->stage = 4;
	stage_wait(9);
}

/* The session's file */

/* The newest one. */
static void session_path(char path[300])
{
	unsigned long last = 0;
	struct dirent *e;
	DIR *dir = opendir(h.runtime);

	ck_assert_ptr_nonnull(dir);
	while ((e = readdir(dir)))
		if (strncmp(e->d_name, "session-", 8) == 0) {
			unsigned long id = strtoul(e->d_name + 8, NULL, 10);

			last = MAX(last, id);
		}
	closedir(dir);
	ck_assert_uint_gt(last, 0);
	snprintf(path, 300, "%s/session-%lu", h.runtime, last);
}

enum { REMOVED, FLIPPED, EMPTY, WAYS };

static void session_lose(int how)
{
	char path[300], byte;
	int fd;

	session_path(path);
	if (how == REMOVED) {
		ck_assert_int_eq(unlink(path), 0);
		return;
	}
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	if (how == EMPTY) {
		ck_assert_int_eq(ftruncate(fd, 0), 0);
	} else {
		ck_assert_int_eq(pread(fd, &byte, 1, 100), 1);
		byte ^= 1;
		ck_assert_int_eq(pwrite(fd, &byte, 1, 100), 1);
	}
	close(fd);
}

/* Lanes */

/* How many lanes name the process. */
static unsigned lanes_of(pid_t pid)
{
	const struct lanes_file_df *file;
	char path[300];
	struct stat st;
	unsigned n = 0;
	int fd;

	snprintf(path, sizeof(path), "%s/pool-%u/lanes.1", h.base, shared->id);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne(file, MAP_FAILED);
	for (size_t i = 0; i < ((size_t)st.st_size - sizeof(*file)) / sizeof(file->lane[0]); i++)
		n += file->lane[i].holder.raw >> 42 == (uint64_t)pid;
	munmap((void *)(uintptr_t)file, (size_t)st.st_size);
	close(fd);
	return n;
}

static bool has_lanes(void *arg)
{
	return lanes_of(*(pid_t *)arg) > 0;
}

static bool emptied(void *arg)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };

	ck_assert_int_eq(nvmm_heap_stat(arg, &info), 0);
	return info.blocks == 1 && info.limbo == 0;
}

START_TEST(session_lost)
{
	struct nvmm_heap_report report = { .size = sizeof(report) };
	/* Each call, by one of the ways, and the first by the others too. */
	int calls_n = (int)ARRAY_SIZE(calls), call = _i < calls_n ? _i : 0;
	int how = (_i < calls_n ? _i : _i - calls_n + 1) % WAYS;
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	pid_t pids[3];
	unsigned had;

	harness_init(&h, NULL);
	harness_start(&h);
	shared = harness_shared(sizeof(*shared));
	shared->first = call;
	nvmm = harness_connect(&h);
	heap = harness_heap(nvmm, (nvmm_pool_id *)(uintptr_t)&shared->id, 64 * MIB, NULL, 0);
	shared->word = nvmm_alloc(heap, 16);
	pids[0] = harness_fork(other, NULL);
	pids[1] = harness_fork(user, NULL);
	other_goes_on();
	shared->stage = 1;
	stage_until(2);
	had = lanes_of(pids[1]);
	ck_assert_uint_gt(had, 0);

	harness_signal(&h, SIGKILL);
	other_goes_on();
	session_lose(how);
	harness_start(&h);
	pids[2] = harness_fork(other, NULL);
	harness_until(has_lanes, &pids[2], 30000);
	ck_assert_uint_eq(lanes_of(pids[1]), had);
	shared->stage = 3;
	stage_until(4);
	ck_assert_int_eq(nvmm_free(heap, nvmm_alloc(heap, 16)), 0);
	other_goes_on();

	shared->stage = 9;
	for (unsigned i = 0; i < ARRAY_SIZE(pids); i++)
		harness_join(pids[i]);
	harness_until(emptied, heap, 30000);
	ck_assert_int_eq(nvmm_heap_check(heap, &report), 0);
	ck_assert_uint_eq(report.violations, 0);
	/* Its lanes are anybody's when it is gone. */
	harness_signal(&h, SIGKILL);
	harness_start(&h);
	ck_assert_int_eq(nvmm_free(heap, nvmm_alloc(heap, MIB)), 0);
	ck_assert_uint_eq(lanes_of(pids[1]), 0);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("lost");
	TCase *tcase = harness_case(suite, "session", 120);

	tcase_add_loop_test(tcase, session_lost, 0, (int)ARRAY_SIZE(calls) + WAYS - 1);
	return harness_run(suite);
}
