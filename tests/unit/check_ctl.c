/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nvmmctl over a library that answers from memory: arguments, exit codes, what each command asks
 * for and shows.
 */
#include "ctl/ctl.h"
#include "ctl/mapview.h"

#include <check.h>
#include <jansson.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/fake_client.h"
#include "tests/unit/suite.h"

#define WORDS_MAX 16

static char *out, *err;

/* Runs `nvmmctl LINE`; words are split at blanks. */
static int run(const char *line)
{
	char *copy = strdup(line), *save = NULL, *argv[WORDS_MAX + 1] = { (char *)"nvmmctl" };
	size_t out_len, err_len;
	FILE *out_file, *err_file;
	int argc = 1, code;

	free(out);
	free(err);
	out_file = open_memstream(&out, &out_len);
	err_file = open_memstream(&err, &err_len);
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		ck_assert_int_lt(argc, WORDS_MAX);
		argv[argc++] = word;
	}
	argv[argc] = NULL;
	code = (int)ctl_main(argc, argv, out_file, err_file);
	fclose(out_file);
	fclose(err_file);
	free(copy);
	ck_assert_msg(!fake.connected, "%s: still connected", line);
	return code;
}

static json_t *run_json(const char *line, int code)
{
	json_t *root;

	ck_assert_msg(run(line) == code, "%s: %s", line, err);
	root = json_loads(out, JSON_REJECT_DUPLICATES, NULL);
	ck_assert_msg(root != NULL, "%s: %s", line, out);
	return root;
}

static int64_t number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static const char *string(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static void teardown(void)
{
	free(out);
	free(err);
	out = err = NULL;
}

static const struct {
	const char *line;
	int code;
	const char *says; /* on stderr, or on stdout if the code is 0 */
} usages[] = {
	{ "", CTL_USAGE, "which command?" },
	{ "frobnicate", CTL_USAGE, "'frobnicate' is no command" },
	{ "stat", CTL_USAGE, "no command" },
	{ "statuses", CTL_USAGE, "no command" },
	{ "pool", CTL_USAGE, "'pool' needs create" },
	{ "pool --json", CTL_USAGE, "'pool' needs create" },
	{ "pool rename a", CTL_USAGE, "'pool rename' is no command" },
	{ "--bogus", CTL_USAGE, "'--bogus'" },
	{ "status --bogus", CTL_USAGE, "status: '--bogus'" },
	{ "status --json=1", CTL_USAGE, "takes no value" },
	{ "status --window 0", CTL_USAGE, "expected 1 to 60 seconds" },
	{ "status --window 61", CTL_USAGE, "expected 1 to 60 seconds" },
	{ "status extra", CTL_USAGE, "unexpected argument 'extra'" },
	{ "--socket", CTL_USAGE, "needs a value" },
	{ "pool show", CTL_USAGE, "too few arguments, expected POOL" },
	{ "pool show a b", CTL_USAGE, "unexpected argument 'b'" },
	{ "pool show 0", CTL_USAGE, "no pool's id" },
	{ "pool show 65536", CTL_USAGE, "no pool's id" },
	{ "pool create a", CTL_USAGE, "--size is needed" },
	{ "pool create a --size", CTL_USAGE, "needs a value" },
	{ "pool create a --size lots", CTL_USAGE, "size 'lots'" },
	{ "pool create a --size 0", CTL_USAGE, "more than 0" },
	{ "pool create a --size -1", CTL_USAGE, "size '-1'" },
	{ "pool create a --size 9223372036854775808", CTL_USAGE, "256TiB" },
	{ "pool create a --size 257TiB", CTL_USAGE, "256TiB" },
	{ "pool create a/b --size 1M", CTL_USAGE, "'a/b' is no name" },
	{ "pool create 12 --size 1M", CTL_USAGE, "taken for an id" },
	{ "pool create a --size 1M --kind pile", CTL_USAGE, "kind 'pile'" },
	{ "pool create a --size 1M --id 0", CTL_USAGE, "id '0'" },
	{ "pool create a --size 1M --id 65536", CTL_USAGE, "id '65536'" },
	{ "pool create a --size 1M --mode 0777", CTL_USAGE, "mode '0777'" },
	{ "pool create a --size 1M --mode 0000", CTL_USAGE, "nobody could open it" },
	{ "pool create a --size 1M --smallest-block 24", CTL_USAGE, "16, 32, 64, 128 or 256" },
	{ "pool create a --size 1M --smallest-block 512", CTL_USAGE, "16, 32, 64, 128 or 256" },
	{ "pool create a --size 1M --kind region --smallest-block 64", CTL_USAGE, "no blocks" },
	{ "pool create a --size 1M --durability maybe", CTL_USAGE, "process or power" },
	{ "pool resize a", CTL_USAGE, "expected POOL SIZE" },
	{ "pool resize a +", CTL_USAGE, "size ''" },
	{ "pool chmod a rw", CTL_USAGE, "mode 'rw'" },
	{ "pool chown a no-such-user", CTL_USAGE, "there is no user 'no-such-user'" },
	{ "pool chown a :no-such-group", CTL_USAGE, "there is no group 'no-such-group'" },
	{ "pool chown a :", CTL_USAGE, "expected USER" },
	{ "pool chown a 4294967295", CTL_USAGE, "there is no user" },
	{ "--version", CTL_DONE, "nvmmctl " },
	{ "--help", CTL_DONE, "Exit status:" },
	{ "help", CTL_DONE, "Exit status:" },
	{ "pool create --help", CTL_DONE, "Examples:" },
	{ "help pool create", CTL_DONE, "--smallest-block BYTES" },
	{ "pool show -h", CTL_DONE, "Usage: nvmmctl pool show POOL" },
};

START_TEST(colour_needs_a_terminal_that_wants_it)
{
	ck_assert(mapview_wants_colour(true, NULL, "xterm"));
	ck_assert(mapview_wants_colour(true, "", "xterm"));
	ck_assert(!mapview_wants_colour(false, NULL, "xterm"));
	ck_assert(!mapview_wants_colour(true, "1", "xterm"));
	ck_assert(!mapview_wants_colour(true, NULL, "dumb"));
	ck_assert(!mapview_wants_colour(true, NULL, ""));
	ck_assert(!mapview_wants_colour(true, NULL, NULL));
}
END_TEST

/* Wrong arguments are found before the daemon is asked. */
START_TEST(test_usage)
{
	int code;

	fake.connect_error = -ECONNREFUSED;
	code = run(usages[_i].line);
	ck_assert_msg(code == usages[_i].code || code == CTL_UNREACHABLE, "%s: %d", usages[_i].line,
		      code);
	if (code == CTL_UNREACHABLE) { /* right but for a pool that it names */
		fake.connect_error = 0;
		code = run(usages[_i].line);
	}
	ck_assert_int_eq(code, usages[_i].code);
	ck_assert_msg(strstr(code ? err : out, usages[_i].says) != NULL, "%s: %s%s",
		      usages[_i].line, out, err);
	ck_assert_msg(*(code ? out : err) == 0, "%s: %s%s", usages[_i].line, out, err);
	ck_assert_msg(code == 0 || strstr(err, "--help`\n") != NULL, "%s", err);
}
END_TEST

static const struct {
	int connect_error, error;
	int code;
} failures[] = {
	{ -ENOENT, 0, CTL_UNREACHABLE },
	{ -ECONNREFUSED, 0, CTL_UNREACHABLE },
	{ -ETIMEDOUT, 0, CTL_UNREACHABLE },
	{ -EACCES, 0, CTL_NOT_PERMITTED },
	{ -EPROTO, 0, CTL_FAILED },
	{ 0, -ECONNRESET, CTL_UNREACHABLE },
	{ 0, -ETIMEDOUT, CTL_UNREACHABLE },
	{ 0, -EPERM, CTL_NOT_PERMITTED },
	{ 0, -EACCES, CTL_NOT_PERMITTED },
	{ 0, -EUCLEAN, CTL_DAMAGED },
	{ 0, -ENOENT, CTL_FAILED },
	{ 0, -ENOSPC, CTL_FAILED },
};

START_TEST(test_exit_codes)
{
	static const char *const lines[] = {
		"status", "pools --json", "clients", "pool show words", "pool create x --size 1M",
		"pool destroy words", "pool chmod 1 0600", "pool chown 1 0:0", "pool resize 1 1G",
	};

	fake.connect_error = failures[_i].connect_error;
	fake.error = failures[_i].error;
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		ck_assert_msg(run(lines[i]) == failures[_i].code, "%s", lines[i]);
		ck_assert_ptr_nonnull(strstr(err, "the daemon says no\n"));
		ck_assert_str_eq(out, "");
	}
}
END_TEST

START_TEST(test_socket)
{
	ck_assert_int_eq(run("--socket /a/b clients"), CTL_DONE);
	ck_assert_str_eq(fake.socket, "/a/b");
	ck_assert_int_eq(run("clients --socket=/c"), CTL_DONE);
	ck_assert_str_eq(fake.socket, "/c");
}
END_TEST

START_TEST(test_pools)
{
	json_t *root, *pool;

	ck_assert_int_eq(run("pools"), CTL_DAMAGED);
	ck_assert_ptr_nonnull(strstr(out, "ID  NAME    KIND         SIZE    USED  OWNER"));
	ck_assert_ptr_nonnull(strstr(out, " 1  words   heap    128.0 MiB  25.0 %  root:root"));
	ck_assert_ptr_nonnull(strstr(out, "4242424:4242425"));
	ck_assert_ptr_nonnull(strstr(out, "DAMAGED"));

	root = run_json("--json pools", CTL_DAMAGED);
	ck_assert_uint_eq(json_array_size(json_object_get(root, "pools")), 3);
	pool = json_array_get(json_object_get(root, "pools"), 0);
	ck_assert_int_eq(number(pool, "id"), 1);
	ck_assert_str_eq(string(pool, "kind"), "heap");
	ck_assert_int_eq(number(pool, "size"), 128 << 20);
	ck_assert_int_eq(number(pool, "heap_used"), 32 << 20);
	ck_assert_str_eq(string(pool, "mode"), "0640");
	ck_assert_str_eq(string(pool, "owner"), "root");
	pool = json_array_get(json_object_get(root, "pools"), 1);
	ck_assert(json_is_null(json_object_get(pool, "heap_used")));
	ck_assert(json_is_null(json_object_get(pool, "heap_used_percent")));
	ck_assert_int_eq(number(pool, "uid"), 4242424);
	json_decref(root);

	fake.pools[2].id = 0; /* the damaged one is gone */
	ck_assert_int_eq(run("pools"), CTL_DONE);
	fake.pools[0].id = fake.pools[1].id = 0;
	ck_assert_int_eq(run("pools"), CTL_DONE);
	ck_assert_ptr_nonnull(strstr(out, "No pools"));
}
END_TEST

/* A heap that goes, or that this user may not see into, is listed without its usage. */
START_TEST(test_usage_unknown)
{
	json_t *root;

	fake.pools[2].id = 0;
	fake.heap_stat_error = -EACCES;
	ck_assert_int_eq(run("pools"), CTL_DONE);
	ck_assert_ptr_null(strstr(out, "25.0 %"));
	root = run_json("pool show 1 --json", CTL_DONE);
	ck_assert(json_is_null(json_object_get(root, "heap_used")));
	json_decref(root);
	fake.heap_stat_error = -ECONNRESET;
	ck_assert_int_eq(run("pools"), CTL_UNREACHABLE);
	ck_assert_str_eq(out, "");
}
END_TEST

START_TEST(test_show)
{
	json_t *root;

	ck_assert_int_eq(run("pool show words"), CTL_DONE);
	ck_assert_ptr_nonnull(strstr(out, "smallest block  16 B\n"));
	ck_assert_ptr_nonnull(strstr(out, "used            32.0 MiB\n"));
	ck_assert_ptr_null(strstr(out, "damage"));
	root = run_json("pool show 7 --json", CTL_DAMAGED);
	ck_assert_str_eq(string(root, "damage"), "shelf record 0: checksum");
	ck_assert(json_is_true(json_object_get(root, "damaged")));
	json_decref(root);
	ck_assert_int_eq(run("pool show nobody"), CTL_FAILED);
	ck_assert_int_eq(run("pool show 2"), CTL_DONE);
	ck_assert_ptr_null(strstr(out, "smallest block"));
}
END_TEST

START_TEST(test_roots)
{
	json_t *root, *roots;

	fake.roots = 3;
	ck_assert_int_eq(run("pool show words"), CTL_DONE);
	ck_assert_ptr_nonnull(strstr(out, "root2  0x0001000000004002\n"));
	ck_assert_int_eq(run("pools"), CTL_DAMAGED);
	ck_assert_ptr_null(strstr(out, "root2"));
	root = run_json("pool show 1 --json", CTL_DONE);
	roots = json_object_get(root, "roots");
	ck_assert_uint_eq(json_array_size(roots), 3);
	ck_assert_str_eq(string(json_array_get(roots, 1), "name"), "root1");
	ck_assert_str_eq(string(json_array_get(roots, 1), "ptr"), "0x0001000000004001");
	json_decref(root);
	fake.roots = 0;
	ck_assert_int_eq(run("pool show 1"), CTL_DONE);
	ck_assert_ptr_nonnull(strstr(out, "No root is set"));
	/* Unknown is not none. */
	fake.heap_open_error = -EACCES;
	root = run_json("pool show 1 --json", CTL_DONE);
	ck_assert(json_is_null(json_object_get(root, "roots")));
	json_decref(root);
	root = run_json("pool show 7 --json", CTL_DAMAGED);
	ck_assert_ptr_null(json_object_get(root, "roots"));
	json_decref(root);
	ck_assert_int_eq(fake.heaps_open, 0);
}
END_TEST

START_TEST(test_map)
{
	json_t *root;

	ck_assert_ptr_nonnull(setlocale(LC_CTYPE, "C"));
	ck_assert_int_eq(run("map words"), CTL_DONE);
	ck_assert_msg(strstr(out, "0 B .+x##@~!\n"), "%s", out);
	for (const char *p = out; *p; p++)
		ck_assert_msg(*p == '\n' || (*p >= ' ' && *p <= '~'), "%s", out);
	ck_assert_int_eq(run("map words --width 4"), CTL_DONE);
	ck_assert_ptr_nonnull(strstr(out, "0 B .+x#\n"));
	ck_assert_ptr_nonnull(strstr(out, "64.0 KiB #@~!\n"));
	root = run_json("map 1 --json", CTL_DONE);
	ck_assert_uint_eq(json_array_size(json_object_get(root, "cells")), 8);
	json_decref(root);
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		return;
	ck_assert_int_eq(run("map words"), CTL_DONE);
	ck_assert_msg(strstr(out, "0 B ·▒▓██▇~!\n"), "%s", out);
}
END_TEST

START_TEST(test_status)
{
	json_t *root, *counter;

	ck_assert_int_eq(run("status"), CTL_DAMAGED);
	ck_assert_ptr_nonnull(strstr(out, "node                 3\n"));
	ck_assert_ptr_nonnull(strstr(out, " words "));
	ck_assert_ptr_null(strstr(out, "requests served"));
	ck_assert_int_eq(run("status --counters"), CTL_DAMAGED);
	ck_assert_ptr_nonnull(strstr(out, "requests     77  requests served"));
	fake.pools[2].id = 0;
	fake.pools[2].damaged = false;
	root = run_json("status --json", CTL_DONE);
	ck_assert_str_eq(string(root, "node_name"), "here");
	ck_assert_uint_eq(json_array_size(json_object_get(root, "pools")), 2);
	counter = json_array_get(json_object_get(root, "counters"), 0);
	ck_assert_int_eq(number(counter, "value"), 77);
	json_decref(root);
}
END_TEST

START_TEST(a_heap_that_is_not_recovered_is_not_good)
{
	json_t *root;

	fake.pools[2].id = 0;
	fake.pools[2].damaged = false;
	fake.pools[0].recovery = NVMM_POOL_RECOVERY_HELD;
	ck_assert_int_eq(run("pools"), CTL_DAMAGED);
	ck_assert_ptr_nonnull(strstr(out, "HELD, not recovered"));
	ck_assert_int_eq(run("status"), CTL_DAMAGED);
	ck_assert_int_eq(run("pool show 1"), CTL_DAMAGED);
	ck_assert_ptr_nonnull(strstr(out, "HELD, not recovered"));
	root = run_json("pool show 1 --json", CTL_DAMAGED);
	ck_assert_str_eq(string(root, "recovery"), "held");
	json_decref(root);
	fake.pools[0].recovery = NVMM_POOL_RECOVERY_FAILED;
	ck_assert_int_eq(run("pools"), CTL_DAMAGED);
	ck_assert_ptr_nonnull(strstr(out, "RECOVERY FAILED"));
	fake.pools[0].recovery = NVMM_POOL_RECOVERY_RUNNING;
	ck_assert_int_eq(run("pools"), CTL_DONE);
	ck_assert_ptr_nonnull(strstr(out, "recovering"));
}
END_TEST

START_TEST(status_shows_loop_turns)
{
	json_t *root;

	ck_assert_int_eq(run("status"), CTL_DAMAGED);
	ck_assert_ptr_nonnull(strstr(out, "longest turn, us"));
	ck_assert_ptr_nonnull(strstr(out, " 5321\n"));
	ck_assert_ptr_nonnull(strstr(out, "in last 10 s, us"));
	root = run_json("status --json --window 7", CTL_DAMAGED);
	ck_assert_int_eq(number(root, "loop_longest_us"), 5321);
	ck_assert_int_eq(number(root, "loop_recent_us"), 123);
	ck_assert_int_eq(number(root, "loop_window"), 7);
	ck_assert_int_eq(number(root, "loop_turns"), 99);
	json_decref(root);
}
END_TEST

START_TEST(timeout_is_passed_on)
{
	ck_assert_int_eq(run("pools"), CTL_DAMAGED);
	ck_assert_int_eq(fake.timeout_ms, 0);
	ck_assert_int_eq(run("--timeout 3 pools"), CTL_DAMAGED);
	ck_assert_int_eq(fake.timeout_ms, 3000);
	ck_assert_int_eq(run("pools --timeout 0"), CTL_DAMAGED);
	ck_assert_int_eq(fake.timeout_ms, -1);
	ck_assert_int_eq(run("pools --timeout -1"), CTL_USAGE);
	ck_assert_int_eq(run("pools --timeout 86401"), CTL_USAGE);
	ck_assert_int_eq(run("pools --timeout soon"), CTL_USAGE);
	fake.connect_error = -ETIMEDOUT;
	ck_assert_int_eq(run("pools --timeout 1"), CTL_UNREACHABLE);
}
END_TEST

START_TEST(status_shows_jobs)
{
	json_t *root, *job;

	ck_assert_int_eq(run("status"), CTL_DAMAGED);
	ck_assert_ptr_null(strstr(out, "LONGEST WAIT, MS"));
	ck_assert_int_eq(run("status --counters"), CTL_DAMAGED);
	ck_assert_ptr_nonnull(strstr(out, "LONGEST WAIT, MS"));
	root = run_json("status --json", CTL_DAMAGED);
	job = json_array_get(json_object_get(root, "jobs"), 0);
	ck_assert_str_eq(string(job, "class"), "look");
	ck_assert_int_eq(number(job, "places"), 3);
	ck_assert_int_eq(number(job, "waiting"), 41);
	ck_assert_int_eq(number(job, "longest_wait_ms"), 78);
	json_decref(root);
}
END_TEST

START_TEST(test_clients)
{
	json_t *root, *client;

	ck_assert_int_eq(run("clients"), CTL_DONE);
	ck_assert_ptr_nonnull(strstr(out, "word?[31mindex"));
	ck_assert_ptr_nonnull(strstr(out, "1,7\n"));
	ck_assert_ptr_nonnull(strstr(out, "detached"));
	root = run_json("clients --json", CTL_DONE);
	ck_assert_uint_eq(json_array_size(json_object_get(root, "clients")), 2);
	client = json_array_get(json_object_get(root, "clients"), 0);
	ck_assert_int_eq(number(client, "session"), 5);
	ck_assert_uint_eq(json_array_size(json_object_get(client, "pools")), 2);
	json_decref(root);
}
END_TEST

START_TEST(test_create)
{
	json_t *root;

	ck_assert_int_eq(run("pool create bag --size 1.5M"), CTL_DONE);
	ck_assert_uint_eq(fake.bytes, 3u << 19);
	ck_assert_int_eq(fake.pools[3].kind, NVMM_POOL_HEAP);
	ck_assert_str_eq(fake.pools[3].name, "bag");
	ck_assert_uint_eq(fake.options.mode, 0);
	ck_assert_uint_eq(fake.options.smallest_block, 0);
	ck_assert_int_eq(fake.options.durability, NVMM_DURABILITY_DEFAULT);

	ck_assert_int_eq(run("pool create --size 4096 --kind region --id 77 --mode 0644"
			     " --durability power"), CTL_DONE);
	ck_assert_int_eq(fake.pools[3].id, 77);
	ck_assert_int_eq(fake.pools[3].kind, NVMM_POOL_REGION);
	ck_assert_ptr_null(fake.options.name);
	ck_assert_uint_eq(fake.options.mode, 0644);
	ck_assert_int_eq(fake.options.durability, NVMM_DURABILITY_POWER);

	root = run_json("--json pool create --smallest-block 64 --size 1G", CTL_DONE);
	ck_assert_int_eq(number(root, "id"), 9);
	ck_assert_uint_eq(fake.options.smallest_block, 64);
	json_decref(root);
}
END_TEST

START_TEST(test_change)
{
	ck_assert_int_eq(run("pool resize words 256MiB"), CTL_DONE);
	ck_assert_uint_eq(fake.bytes, 256u << 20);
	ck_assert_int_eq(run("pool resize 1 +256MiB"), CTL_DONE);
	ck_assert_uint_eq(fake.bytes, 512u << 20);
	ck_assert_int_eq(run("pool chmod words 666"), CTL_DONE);
	ck_assert_uint_eq(fake.pools[0].mode, 0666);
	ck_assert_int_eq(run("pool chown words root:root"), CTL_DONE);
	ck_assert_uint_eq(fake.uid, 0);
	ck_assert_uint_eq(fake.gid, 0);
	ck_assert_int_eq(run("pool chown words :17"), CTL_DONE);
	ck_assert_uint_eq(fake.uid, (uid_t)-1);
	ck_assert_uint_eq(fake.gid, 17);
	ck_assert_int_eq(run("pool chown words 4711"), CTL_DONE);
	ck_assert_uint_eq(fake.uid, 4711);
	ck_assert_uint_eq(fake.gid, (gid_t)-1);
	ck_assert_int_eq(run("pool chmod rotten 0600"), CTL_DONE);
}
END_TEST

START_TEST(test_destroy)
{
	json_t *root;

	ck_assert_int_eq(run("pool destroy words"), CTL_FAILED);
	ck_assert(!fake.forced);
	root = run_json("pool destroy words --force --json", CTL_DONE);
	ck_assert(fake.forced);
	ck_assert_int_eq(number(root, "id"), 1);
	ck_assert(json_is_true(json_object_get(root, "destroyed")));
	json_decref(root);
	ck_assert_int_eq(run("pool destroy words"), CTL_FAILED);
	ck_assert_int_eq(run("pool destroy rotten"), CTL_DONE);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ctl");
	TCase *tcase = tcase_create("ctl");

	suite_add_tcase(suite, tcase);
	tcase_add_checked_fixture(tcase, fake_reset, teardown);
	tcase_add_test(tcase, a_heap_that_is_not_recovered_is_not_good);
	tcase_add_test(tcase, colour_needs_a_terminal_that_wants_it);
	tcase_add_loop_test(tcase, test_usage, 0, ARRAY_SIZE(usages));
	tcase_add_loop_test(tcase, test_exit_codes, 0, ARRAY_SIZE(failures));
	tcase_add_test(tcase, test_socket);
	tcase_add_test(tcase, test_pools);
	tcase_add_test(tcase, test_usage_unknown);
	tcase_add_test(tcase, test_show);
	tcase_add_test(tcase, test_roots);
	tcase_add_test(tcase, test_map);
	tcase_add_test(tcase, test_status);
	tcase_add_test(tcase, status_shows_loop_turns);
	tcase_add_test(tcase, status_shows_jobs);
	tcase_add_test(tcase, timeout_is_passed_on);
	tcase_add_test(tcase, test_clients);
	tcase_add_test(tcase, test_create);
	tcase_add_test(tcase, test_change);
	tcase_add_test(tcase, test_destroy);
	return suite_run(suite);
}
