/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/tempdir.h"

static int dir;

/* Sends stderr to a file of its own; says whether the environment calls it the journal. */
static void redirect(bool journal)
{
	char stream[64];
	struct stat st;
	int fd;

	dir = tempdir_new(NULL);
	fd = openat(dir, "log", O_RDWR | O_CREAT | O_APPEND, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(dup2(fd, STDERR_FILENO), STDERR_FILENO);
	ck_assert_int_eq(fstat(fd, &st), 0);
	snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev,
		 (uintmax_t)st.st_ino + !journal);
	setenv("JOURNAL_STREAM", stream, 1);
}

static void expect(const char *text)
{
	size_t len;
	char *data = tempdir_read(dir, "log", &len);

	data[len] = '\0';
	ck_assert_str_eq(data, text);
	free(data);
}

START_TEST(levels)
{
	redirect(false);
	log_setup("prog", LOG_LEVEL_WARNING, LOG_TARGET_STDERR);
	errno = ENOENT;
	log_error("e %d", 1);
	ck_assert_int_eq(errno, ENOENT);
	log_warning("w");
	log_info("i");
	log_setup("prog", LOG_LEVEL_DEBUG, LOG_TARGET_STDERR);
	log_info("i");
	log_debug("d");
	expect("prog: error: e 1\nprog: warning: w\nprog: i\nprog: debug: d\n");
}
END_TEST

START_TEST(journal_priorities)
{
	redirect(true);
	log_setup("prog", LOG_LEVEL_DEBUG, LOG_TARGET_STDERR);
	log_error("e");
	log_warning("w");
	log_info("i");
	log_debug("d");
	expect("<3>e\n<4>w\n<6>i\n<7>d\n");
}
END_TEST

START_TEST(control_bytes_are_escaped)
{
	redirect(false);
	log_setup("p", LOG_LEVEL_INFO, LOG_TARGET_STDERR);
	log_info("a\nb\x1b[31m \xc3\xa9 \xc2\x9b \xff %s", "\x7f\r");
	expect("p: a\\x0ab\\x1b[31m \xc3\xa9 \\xc2\\x9b \\xff \\x7f\\x0d\n");
	redirect(false);
	log_info("a\xe2\x80\xae" "b");
	expect("p: a\\xe2\\x80\\xae" "b\n");
}
END_TEST

START_TEST(long_messages_are_cut)
{
	char *text = malloc(10001), *data;
	size_t len;

	memset(text, '\1', 10000);
	text[10000] = '\0';
	redirect(false);
	log_setup("p", LOG_LEVEL_INFO, LOG_TARGET_STDERR);
	log_info("%s", text);
	data = tempdir_read(dir, "log", &len);
	ck_assert_uint_gt(len, 2000);
	ck_assert_uint_lt(len, 10000);
	ck_assert_mem_eq(data + len - 8, "\\x01...\n", 8);
	free(data);
	free(text);
}
END_TEST

static void *chatter(void *arg)
{
	for (int i = 0; i < 200; i++)
		log_info("%s", (const char *)arg);
	return NULL;
}

START_TEST(lines_of_threads_do_not_mix)
{
	static char words[4][256];
	pthread_t threads[4];
	size_t len, lines = 0;
	char *data, *next;

	redirect(false);
	log_setup("p", LOG_LEVEL_INFO, LOG_TARGET_STDERR);
	for (int i = 0; i < 4; i++) {
		memset(words[i], 'a' + i, sizeof(words[i]) - 1);
		ck_assert_int_eq(pthread_create(&threads[i], NULL, chatter, words[i]), 0);
	}
	log_setup("p", LOG_LEVEL_INFO, LOG_TARGET_STDERR);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	data = tempdir_read(dir, "log", &len);
	data[len] = '\0';
	for (char *line = data; *line; line = next + 1, lines++) {
		next = strchr(line, '\n');
		ck_assert_ptr_nonnull(next);
		ck_assert_int_eq(next - line, 3 + 255);
		ck_assert_uint_eq(strspn(line + 3, (char[]){ line[3], '\0' }), 255);
	}
	ck_assert_uint_eq(lines, 800);
	free(data);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("log");
	TCase *tc = tcase_create("log");

	tcase_add_test(tc, levels);
	tcase_add_test(tc, journal_priorities);
	tcase_add_test(tc, control_bytes_are_escaped);
	tcase_add_test(tc, long_messages_are_cut);
	tcase_add_test(tc, lines_of_threads_do_not_mix);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
