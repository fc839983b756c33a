/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nvmmctl recover --watch on a terminal, with more pools than one answer of the daemon holds: a line that is written
 * over and gone before anything else is written; then every pool, once, in order.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/harness.h"

#define KIB (UINT64_C(1) << 10)
#define POOLS 150u /* an answer holds 128 */
#define WIDTH 40 /* columns that progress is written over with blanks, and left at their begin */

static struct harness h;
static char out[1 << 20];

/* A terminal */

static void exec_on(const char *terminal, const char *const argv[])
{
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsid();
	fd = open(terminal, O_RDWR);
	if (fd < 0 || dup2(fd, 0) < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0 ||
	    setenv("NVMM_SOCKET", h.socket, 1) < 0)
		_exit(126);
	execv(BUILD_DIR "/ctl/nvmmctl", (char *const *)(uintptr_t)argv);
	_exit(127);
}

/* Runs nvmmctl with all of its output on a terminal: its exit code. */
static int on_terminal(const char *const argv[])
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), status;
	char terminal[64];
	size_t length = 0;
	ssize_t n;
	pid_t pid;

	ck_assert_int_ge(master, 0);
	ck_assert_int_eq(grantpt(master) + unlockpt(master), 0);
	ck_assert_int_eq(ptsname_r(master, terminal, sizeof(terminal)), 0);
	fflush(NULL);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		exec_on(terminal, argv);
	/* Its end is EIO; before it has opened the terminal, too. */
	while (length < sizeof(out) - 1) {
		n = read(master, out + length, sizeof(out) - 1 - length);
		if (n > 0)
			length += (size_t)n;
		else if (waitpid(pid, &status, WNOHANG) == pid)
			break;
		else
			harness_sleep_ms(1);
	}
	while (length < sizeof(out) - 1 && (n = read(master, out + length, sizeof(out) - 1 - length)) > 0)
		length += (size_t)n;
	out[length] = '\0';
	close(master);
	ck_assert_msg(WIFEXITED(status), "status 0x%x", status);
	return WEXITSTATUS(status);
}

/* What it shows */

/* Of a line of WIDTH columns, those before the blanks at its end; -1: it is none. */
static int took(const char *line)
{
	int n = WIDTH;

	if (strnlen(line, WIDTH) < WIDTH || memchr(line, '\r', WIDTH) || memchr(line, '\n', WIDTH))
		return -1;
	while (n > 0 && line[n - 1] == ' ')
		n--;
	return n;
}

/* Passes progress: lines that follow each other in place, none less than the one before, and are erased. How many. */
static unsigned progress(const char **text, bool grows)
{
	double percent, size, last = 0;
	unsigned n = 0;
	int length = 0;

	while (sscanf(*text, "\r%lf %% of %lf GiB%n", &percent, &size, &length) == 2 && length == 1 + took(*text + 1)) {
		ck_assert_msg(percent <= 100.0 && (!grows || percent >= last), "%f after %f", percent, last);
		last = percent;
		*text += 1 + WIDTH;
		length = 0;
		n++;
	}
	if (n > 0) {
		ck_assert_msg(**text == '\r' && strspn(*text + 1, " ") == WIDTH && (*text)[1 + WIDTH] == '\r',
			      "not erased: %.60s", *text);
		*text += 2 + WIDTH;
	}
	return n;
}

/* A table without a trace of it, of every pool, in order. */
static void expect_table(const char *text)
{
	unsigned expected = 1, id;
	char state[16];

	ck_assert_msg(!strstr(text, "% of"), "progress in the table");
	ck_assert_msg(strncmp(text, "pool", 4) == 0 || strncmp(text, "POOL", 4) == 0, "%.60s", text);
	while ((text = strchr(text, '\n')) && *++text) {
		ck_assert_msg(sscanf(text, "%u %*[a-z-] %15s", &id, state) >= 1, "%.60s", text);
		ck_assert_uint_eq(id, expected);
		expected++;
	}
	ck_assert_uint_eq(expected, POOLS + 1);
}

/* Small heaps, all in use when client and daemon are killed. */
static volatile int *ready;

static void client(void *arg)
{
	struct nvmm_client *nvmm = harness_connect(&h);

	for (unsigned i = 0; i < POOLS; i++) {
		nvmm_pool_id id = 0;

		harness_heap(nvmm, &id, 256 * KIB, NULL, 0);
	}
	*ready = 1;
	for (;;)
		pause();
}

static bool is_ready(void *arg)
{
	return *ready != 0;
}

static void crash(const char *recovery)
{
	struct harness_options options = { .limits = recovery };
	pid_t pid;

	harness_init(&h, &options);
	harness_start(&h);
	ready = harness_shared(sizeof(*ready));
	pid = harness_fork(client, NULL);
	harness_until(is_ready, NULL, 60000);
	harness_signal(&h, SIGKILL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

START_TEST(watches_a_start)
{
	static const char *const argv[] = { "nvmmctl", "recover", "--watch", NULL };
	const char *text = out;

	crash("  clients: 100\nrecovery:\n  parallel: 1\n");
	harness_start(&h);
	ck_assert_int_eq(on_terminal(argv), 0);
	ck_assert_uint_gt(progress(&text, true), 0);
	expect_table(text);
	/* All of them were done when it ended. */
	ck_assert_ptr_null(strstr(text, "waits"));
	ck_assert_ptr_null(strstr(text, "runs"));
	harness_stop(&h);
}
END_TEST

START_TEST(watches_a_command)
{
	static const char *const argv[] = { "nvmmctl", "recover", "--all", "--watch", NULL };
	const char *text = out;

	crash("  clients: 100\nrecovery:\n  on_start: manual\n");
	harness_start(&h);
	ck_assert_int_eq(on_terminal(argv), 0);
	for (unsigned i = 0; i < POOLS; i++)
		ck_assert_msg(progress(&text, true) > 0, "%.60s", text);
	expect_table(text);
	harness_stop(&h);
}
END_TEST

/* What goes wrong is said on a line of its own. */
START_TEST(watches_one_that_ends)
{
	static const char *const argv[] = { "nvmmctl", "recover", "--watch", "1", "999", NULL };
	const char *text = out;

	crash("  clients: 100\nrecovery:\n  on_start: manual\n");
	harness_start(&h);
	ck_assert_int_ne(on_terminal(argv), 0);
	ck_assert_uint_gt(progress(&text, true), 0);
	ck_assert_msg(strncmp(text, "nvmmctl: ", 9) == 0, "%.60s", text);
	harness_stop(&h);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("watch");
	TCase *tcase = harness_case(suite, "terminal", 120);

	tcase_add_test(tcase, watches_a_start);
	tcase_add_test(tcase, watches_a_command);
	tcase_add_test(tcase, watches_one_that_ends);
	return harness_run(suite);
}
