/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Epochs where there is no room: a runtime directory that is full, and slots of living sessions that a
 * daemon which was started again cannot map. A directory in the place of a session's file stands for
 * the want of descriptors or memory: it cannot be opened, but nobody says that it is not there.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/view.h"

#define MIB (UINT64_C(1) << 20)

static struct harness h;

static void start(void)
{
	harness_init(&h, NULL);
}

static void stop(void)
{
	if (h.daemon)
		harness_stop(&h);
}

static void path_of(char path[256], const char *name)
{
	snprintf(path, 256, "%s/%s", h.runtime, name);
}

/* A process that has the pool open, in an epoch or not. */
struct reader {
	nvmm_pool_id id;
	bool enter;
	_Atomic bool there;
	_Atomic bool leave;
};

static void read_on(void *arg)
{
	struct reader *r = arg;
	struct nvmm_client *nvmm = harness_connect(&h);

	harness_open(nvmm, r->id);
	if (r->enter)
		must(nvmm_epoch_enter(nvmm) == 0, "%s", nvmm_errmsg(nvmm));
	atomic_store(&r->there, true);
	while (!atomic_load(&r->leave))
		usleep(1000);
	if (r->enter)
		nvmm_epoch_exit(nvmm);
	nvmm_disconnect(nvmm);
}

static bool is_there(void *arg)
{
	return atomic_load(&((struct reader *)arg)->there);
}

static pid_t reader_start(struct reader *r, nvmm_pool_id id, bool enter)
{
	pid_t pid;

	r->id = id;
	r->enter = enter;
	pid = harness_fork(read_on, r);
	harness_until(is_there, r, 10000);
	return pid;
}

/* The path of the slots of a process's session. */
static void slots_of(char path[256], pid_t pid)
{
	static char out[1 << 16];
	const char *const argv[] = { "ctl/nvmmctl", "clients", "--json", NULL };
	char text[64], *end, *at = NULL;
	uint64_t id = 0;

	ck_assert_int_eq(harness_command(&h, out, sizeof(out), argv), 0);
	snprintf(text, sizeof(text), "\"pid\": %d,", (int)pid);
	end = strstr(out, text);
	ck_assert_msg(end != NULL, "process %d is no client:\n%s", (int)pid, out);
	*end = '\0';
	for (char *p = out; (p = strstr(p, "\"session\":")); p++)
		at = p;
	ck_assert(at && sscanf(at, "\"session\": %" SCNu64, &id) == 1);
	snprintf(text, sizeof(text), "epochs/slots-%" PRIu64, id);
	path_of(path, text);
}

/* The reader's slots cannot be read by the next daemon, then can: what it could see waits until it
 * has left. */
START_TEST(slots_that_cannot_be_mapped)
{
	struct reader *r = harness_shared(sizeof(*r));
	char path[256], aside[256];
	nvmm_pool_id id;
	struct view v;
	pid_t pid;

	harness_start(&h);
	v = view_new(&h, &id, 16 * MIB);
	view_defer(&v, 10, 64); /* has slots by now */
	pid = reader_start(r, id, true);
	slots_of(path, pid);
	path_of(aside, "aside");
	harness_signal(&h, SIGKILL);
	ck_assert_int_eq(rename(path, aside), 0);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	harness_start(&h);
	ck_assert(harness_logged(&h, "its epochs cannot be read"));
	view_defer(&v, 1000, 64);
	harness_sleep_ms(200);
	ck_assert_uint_ge(view_limbo(&v), 64000);
	ck_assert_int_eq(rmdir(path), 0);
	ck_assert_int_eq(rename(aside, path), 0);
	harness_sleep_ms(200);
	ck_assert_uint_ge(view_limbo(&v), 64000);
	atomic_store(&r->leave, true);
	harness_until(view_no_limbo, &v, 5000);
	harness_join(pid);
	nvmm_disconnect(v.nvmm);
}
END_TEST

/* Of one that never was in an epoch there is nothing to read: it holds nothing up once that is seen. */
START_TEST(slots_that_never_were)
{
	struct reader *r = harness_shared(sizeof(*r));
	char path[256];
	nvmm_pool_id id;
	struct view v;
	pid_t pid;

	harness_start(&h);
	v = view_new(&h, &id, 16 * MIB);
	view_defer(&v, 10, 64);
	pid = reader_start(r, id, false);
	slots_of(path, pid);
	harness_signal(&h, SIGKILL);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	harness_start(&h);
	ck_assert(harness_logged(&h, "its epochs cannot be read"));
	view_defer(&v, 1000, 64);
	harness_sleep_ms(100);
	ck_assert_uint_ge(view_limbo(&v), 64000);
	ck_assert_int_eq(rmdir(path), 0);
	harness_until(view_no_limbo, &v, 5000);
	atomic_store(&r->leave, true);
	harness_join(pid);
	nvmm_disconnect(v.nvmm);
}
END_TEST

/* A file system of its own, in a mount namespace that ends with this test. */
static bool mount_small_runtime(void)
{
	if ((mkdir(h.runtime, 0700) < 0 && errno != EEXIST) || geteuid() != 0 ||
	    unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", h.runtime, "tmpfs", 0, "size=1m,mode=0700") < 0) {
		fprintf(stderr, "full runtime directory: skipped: mounting is not allowed here\n");
		return false;
	}
	return true;
}

/* Takes all that is left, but for some pages. */
static void fill(const char *path, unsigned pages)
{
	static const char page[4096];
	struct stat st;
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	while (write(fd, page, sizeof(page)) > 0)
		;
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(ftruncate(fd, st.st_size - (off_t)(pages * sizeof(page))), 0);
	close(fd);
}

START_TEST(full_when_a_thread_enters)
{
	char path[256];
	nvmm_pool_id id;
	struct view v;

	if (!mount_small_runtime())
		return;
	path_of(path, "filler");
	harness_start(&h);
	v = view_new(&h, &id, 16 * MIB);
	view_defer(&v, 10, 64);
	harness_until(view_no_limbo, &v, 5000);
	fill(path, 0);
	ck_assert_int_eq(nvmm_epoch_enter(v.nvmm), -ENOSPC);
	ck_assert_int_eq(nvmm_epoch_enter(v.nvmm), -ENOSPC);
	/* What has its place goes on. */
	view_defer(&v, 1000, 64);
	harness_until(view_no_limbo, &v, 5000);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(nvmm_epoch_enter(v.nvmm), 0);
	view_defer(&v, 10, 64);
	harness_sleep_ms(50);
	ck_assert_uint_gt(view_limbo(&v), 0);
	nvmm_epoch_exit(v.nvmm);
	harness_until(view_no_limbo, &v, 5000);
	nvmm_disconnect(v.nvmm);
}
END_TEST

/* It is refused in order, and named: for want of a page for its lock, or for its epochs. */
START_TEST(full_when_the_daemon_starts)
{
	char path[256];
	int status;

	if (!mount_small_runtime())
		return;
	path_of(path, "filler");
	fill(path, (unsigned)_i);
	harness_spawn(&h);
	status = harness_wait_daemon(&h);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) != 0, "nvmmd ended with 0x%x", status);
	ck_assert(harness_logged(&h, "No space left"));
	ck_assert_int_eq(unlink(path), 0);
	harness_start(&h);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("epoch_room");
	TCase *tc = harness_case(suite, "epoch_room", 60);

	tcase_add_checked_fixture(tc, start, stop);
	tcase_add_test(tc, slots_that_cannot_be_mapped);
	tcase_add_test(tc, slots_that_never_were);
	tcase_add_test(tc, full_when_a_thread_enters);
	tcase_add_loop_test(tc, full_when_the_daemon_starts, 0, 2);
	return harness_run(suite);
}
