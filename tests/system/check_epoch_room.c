/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Epochs where there is no room: a runtime directory that is full holds up nobody who has slots, which are not
 * in it, but a daemon that starts.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
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

#define THREADS 300u /* so that the daemon has to grant more slots than at first, twice */

static _Atomic unsigned entered;
static _Atomic bool leave;

static void *enter_and_stay(void *arg)
{
	must(nvmm_epoch_enter(arg) == 0, "%s", nvmm_errmsg(arg));
	atomic_fetch_add(&entered, 1);
	while (!atomic_load(&leave))
		usleep(1000);
	nvmm_epoch_exit(arg);
	return NULL;
}

START_TEST(full_when_a_thread_enters)
{
	pthread_t threads[THREADS];
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
	for (unsigned i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, enter_and_stay, v.nvmm), 0);
	while (atomic_load(&entered) < THREADS)
		harness_sleep_ms(1);
	view_defer(&v, 1000, 64);
	harness_sleep_ms(100);
	ck_assert_uint_eq(view_limbo(&v), 64000);
	atomic_store(&leave, true);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
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
	tcase_add_test(tc, full_when_a_thread_enters);
	tcase_add_loop_test(tc, full_when_the_daemon_starts, 0, 2);
	return harness_run(suite);
}
