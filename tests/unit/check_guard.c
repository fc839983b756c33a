/* SPDX-License-Identifier: BSD-3-Clause */
#include "media/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/crash/doomed.h"
#include "tests/unit/tempdir.h"

#define PAGE 4096

/* Two pages of a file that has one. */
static char *short_map(void)
{
	int dir = tempdir_new(NULL), fd;
	void *p;

	fd = openat(dir, "f", O_RDWR | O_CREAT, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, PAGE), 0);
	p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne(p, MAP_FAILED);
	close(fd);
	close(dir);
	return p;
}

static int touch(void *arg)
{
	volatile char *p = arg;

	*p = 1;
	return 7;
}

START_TEST(fault_is_an_error)
{
	char *map = short_map();
	const void *fault = NULL;
	sigset_t before, after;

	ck_assert_int_eq(guard_init(), 0);
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(guard_run(touch, map, &fault), 7);
		ck_assert_ptr_null(fault);
		ck_assert_int_eq(guard_run(touch, map + PAGE + 5, &fault), -EIO);
		ck_assert_ptr_eq(fault, map + PAGE + 5);
		ck_assert_int_eq(guard_run(touch, map + PAGE, NULL), -EIO);
		fault = NULL;
		pthread_sigmask(SIG_SETMASK, NULL, &after);
		for (int sig = 1; sig < SIGRTMAX; sig++)
			ck_assert_int_eq(sigismember(&after, sig), sigismember(&before, sig));
	}
}
END_TEST

static int touch_twice(void *arg)
{
	char *map = arg;
	const void *fault = NULL;

	ck_assert_int_eq(guard_run(touch, map + PAGE, &fault), -EIO);
	ck_assert_ptr_eq(fault, map + PAGE);
	touch(map + PAGE + 1);
	return 0;
}

START_TEST(guards_nest)
{
	char *map = short_map();
	const void *fault = NULL;

	ck_assert_int_eq(guard_init(), 0);
	ck_assert_int_eq(guard_run(touch_twice, map, &fault), -EIO);
	ck_assert_ptr_eq(fault, map + PAGE + 1);
}
END_TEST

static void *guarded_thread(void *arg)
{
	char *map = arg;
	const void *fault;
	intptr_t bad = 0;

	for (int i = 0; i < 500; i++) {
		bad += guard_run(touch, map, NULL) != 7;
		bad += guard_run(touch, map + PAGE + i, &fault) != -EIO;
		bad += fault != map + PAGE + i;
	}
	return (void *)bad;
}

START_TEST(threads_have_their_own)
{
	pthread_t threads[4];
	void *bad;

	ck_assert_int_eq(guard_init(), 0);
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, guarded_thread,
						short_map()), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], &bad);
		ck_assert_ptr_null(bad);
	}
}
END_TEST

static void touch_unguarded(void *arg)
{
	char *map = arg;

	guard_init();
	guard_run(touch, map + PAGE, NULL);
	touch(map + PAGE);
}

static int send_bus(void *arg)
{
	kill(getpid(), SIGBUS);
	return 0;
}

static void sent_in_guard(void *arg)
{
	guard_init();
	guard_run(send_bus, NULL, NULL);
}

static void sent_unguarded(void *arg)
{
	guard_init();
	send_bus(NULL);
}

START_TEST(others_die_as_ever)
{
	char *map = short_map();
	int status;

	status = doomed_status(touch_unguarded, map);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	status = doomed_status(sent_in_guard, NULL);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	status = doomed_status(sent_unguarded, NULL);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("guard");
	TCase *tc = tcase_create("guard");

	tcase_add_test(tc, fault_is_an_error);
	tcase_add_test(tc, guards_nest);
	tcase_add_test(tc, threads_have_their_own);
	tcase_add_test(tc, others_die_as_ever);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
