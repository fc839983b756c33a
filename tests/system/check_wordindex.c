/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The word index example on files of its own: what is indexed and removed again is as if it had never
 * been, blocks included; queries beside it are right; and so are they after its processes were killed.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/harness.h"

#define STAY_FILES 5
#define GO_FILES 8
#define WORDS 4000
#define TEXT_MAX (1u << 20)

static struct harness h;
static char stay[256], go[256]; /* directories of files that stay, and that go */

/* Words "common0" and on are in all files; the others are told by their file. */
static void write_files(const char *dir, const char *name, unsigned n)
{
	char path[300];

	ck_assert_int_eq(mkdir(dir, 0700), 0);
	for (unsigned i = 0; i < n; i++) {
		FILE *f;

		snprintf(path, sizeof(path), "%s/%u", dir, i);
		f = fopen(path, "we");
		ck_assert_ptr_nonnull(f);
		for (unsigned k = 0; k < WORDS; k++)
			fprintf(f, "common%u %s%u %s_%u_%u\n", k % 50, name, k % 300, name, i, k);
		ck_assert_int_eq(fclose(f), 0);
	}
}

static void start(void)
{
	harness_init(&h, NULL);
	harness_start(&h);
	snprintf(stay, sizeof(stay), "%s/stay", h.dir);
	snprintf(go, sizeof(go), "%s/go", h.dir);
	write_files(stay, "stay", STAY_FILES);
	write_files(go, "go", GO_FILES);
}

static void stop(void)
{
	harness_stop(&h);
}

static int wordindex(char *out, const char *command, const char *a, const char *b, const char *c)
{
	const char *const argv[] = { "examples/wordindex", "--heap", "words", command, a, b, c, NULL };

	return harness_command(&h, out, TEXT_MAX, argv);
}

static int by_line(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The dump, its lines sorted. */
static char *dump(void)
{
	char *out = malloc(TEXT_MAX), *sorted = malloc(TEXT_MAX), **lines, *p = sorted;
	size_t n = 0;

	lines = malloc(TEXT_MAX / 2 * sizeof(*lines));
	ck_assert(out && sorted && lines);
	ck_assert_int_eq(wordindex(out, "dump", NULL, NULL, NULL), 0);
	for (char *s = strtok(out, "\n"); s; s = strtok(NULL, "\n"))
		lines[n++] = s;
	qsort(lines, n, sizeof(*lines), by_line);
	*p = '\0';
	for (size_t i = 0; i < n; i++)
		p = stpcpy(stpcpy(p, lines[i]), "\n");
	free(lines);
	free(out);
	return sorted;
}

struct view {
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
};

static struct view view_new(void)
{
	struct view v = { .nvmm = harness_connect(&h) };
	nvmm_pool_id id;

	ck_assert_int_eq(nvmm_pool_lookup(v.nvmm, "words", &id), 0);
	v.heap = harness_open(v.nvmm, id);
	return v;
}

static struct nvmm_heap_info info_of(const struct view *v)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };

	must(nvmm_heap_stat(v->heap, &info) == 0, "%s", nvmm_errmsg(v->nvmm));
	return info;
}

static bool no_limbo(void *arg)
{
	return info_of(arg).limbo == 0;
}

static uint64_t settled_blocks(void)
{
	struct view v = view_new();
	uint64_t blocks;

	harness_until(no_limbo, &v, 5000);
	blocks = info_of(&v).blocks;
	nvmm_disconnect(v.nvmm);
	return blocks;
}

/* Two that stay, and one of which only the count of those that stay is sure. */
static void ask(void)
{
	static char out[TEXT_MAX];

	ck_assert_int_eq(wordindex(out, "query", "stay7", "stay_0_1", "nosuchword"), 0);
	ck_assert_str_eq(out, "70 stay7\n1 stay_0_1\n0 nosuchword\n");
}

static pid_t churn(const char *times)
{
	pid_t pid = fork();

	if (pid == 0) {
		static char out[TEXT_MAX];
		const char *const argv[] = { "examples/wordindex", "--heap", "words", "churn", "-j", "3",
					     "-n", times, go, NULL };

		setpgid(0, 0);
		_exit(harness_command(&h, out, sizeof(out), argv));
	}
	ck_assert_int_gt(pid, 0);
	setpgid(pid, pid);
	return pid;
}

START_TEST(removed_is_as_if_never_there)
{
	static char out[TEXT_MAX];
	char *before, *after;
	uint64_t blocks;

	ck_assert_int_eq(wordindex(out, "index", "-j2", stay, NULL), 0);
	before = dump();
	blocks = settled_blocks();
	ck_assert_int_eq(wordindex(out, "index", "-j3", go, NULL), 0);
	ck_assert_uint_gt(settled_blocks(), blocks + GO_FILES * WORDS / 2);
	ck_assert_int_eq(wordindex(out, "remove", "-j3", go, NULL), 0);
	after = dump();
	ck_assert_msg(strcmp(before, after) == 0, "the counts differ");
	ck_assert_uint_eq(settled_blocks(), blocks);
	/* What was never counted takes nothing away. */
	ck_assert_int_eq(wordindex(out, "remove", "-j3", go, NULL), 0);
	ask();
	ck_assert_int_eq(wordindex(out, "remove", "-j3", stay, NULL), 0);
	free(after);
	after = dump();
	ck_assert_str_eq(after, "");
	free(before);
	free(after);
}
END_TEST

START_TEST(queries_beside_churn)
{
	static char out[TEXT_MAX];
	char *before, *after;
	int status = 0;
	uint64_t blocks;
	unsigned asked = 0;
	pid_t pid;

	ck_assert_int_eq(wordindex(out, "index", "-j2", stay, NULL), 0);
	before = dump();
	blocks = settled_blocks();
	pid = churn("25");
	for (; waitpid(pid, &status, WNOHANG) == 0; asked++) {
		char *beside = dump();

		ck_assert_ptr_nonnull(strstr(beside, "70 stay7\n"));
		free(beside);
		ask();
	}
	ck_assert_int_eq(status, 0);
	ck_assert_uint_gt(asked, 0);
	after = dump();
	ck_assert_msg(strcmp(before, after) == 0, "the counts differ");
	ck_assert_uint_eq(settled_blocks(), blocks);
	free(before);
	free(after);
}
END_TEST

START_TEST(killed_anywhere)
{
	static char out[TEXT_MAX];
	int status;

	ck_assert_int_eq(wordindex(out, "index", "-j2", stay, NULL), 0);
	for (unsigned i = 0; i < 15; i++) {
		pid_t pid = churn("1000");

		harness_sleep_ms(60 + i * 7);
		kill(-pid, SIGKILL);
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_msg(WIFSIGNALED(status), "churn ended by itself with 0x%x", status);
		ask();
	}
	/* Nobody is kept from anything by those that were killed. */
	pid_t pid = churn("1");
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ask();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("wordindex");
	TCase *tc = harness_case(suite, "wordindex", 120);

	tcase_add_checked_fixture(tc, start, stop);
	tcase_add_test(tc, removed_is_as_if_never_there);
	tcase_add_test(tc, queries_beside_churn);
	tcase_add_test(tc, killed_anywhere);
	return harness_run(suite);
}
