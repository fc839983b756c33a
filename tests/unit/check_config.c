/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Configuration: defaults, each way of being wrong with its line and column, printing and reading
 * again, and files that were damaged at random.
 */
#include "daemon/config.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/macro.h"
#include "daemon/config_key.h"
#include "tests/unit/suite.h"

#define SAMPLE TOP_SRCDIR "/conf/nvmmd.yaml"
#define MANUAL TOP_SRCDIR "/conf/nvmmd.yaml.5"

static struct config config;
static char *error;
static char path[256];

static void setup(void)
{
	const char *dir = getenv("TMPDIR");
	int fd;

	snprintf(path, sizeof(path), "%s/nvmmd-test-XXXXXX", dir ? dir : "/tmp");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	close(fd);
	error = NULL;
	ck_assert_int_eq(config_init(&config), 0);
}

static void teardown(void)
{
	config_deinit(&config);
	free(error);
	unlink(path);
}

static int load(const char *text, size_t len)
{
	FILE *file = fopen(path, "w");

	ck_assert_ptr_nonnull(file);
	ck_assert_uint_eq(fwrite(text, 1, len, file), len);
	ck_assert_int_eq(fclose(file), 0);
	return config_load(&config, path, &error);
}

static char *read_all(const char *name, size_t *len)
{
	FILE *file = fopen(name, "r");
	char *text = calloc(1, 65536);

	ck_assert_ptr_nonnull(file);
	ck_assert_ptr_nonnull(text);
	*len = fread(text, 1, 65535, file);
	fclose(file);
	return text;
}

static char *print(void)
{
	char *text;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	ck_assert_ptr_nonnull(out);
	config_print(&config, out);
	ck_assert_int_eq(fclose(out), 0);
	return text;
}

START_TEST(test_defaults)
{
	char host[64] = "";

	gethostname(host, sizeof(host) - 1);
	ck_assert_uint_eq(config.node.id, 1);
	ck_assert_str_eq(config.node.name, host);
	ck_assert_str_eq(config.shelves.base, "/var/lib/nvmmd");
	ck_assert_uint_eq(config.shelves.capacity, 0);
	ck_assert_str_eq(config.socket.path, "/run/nvmmd/nvmmd.sock");
	ck_assert_uint_eq(config.socket.mode, 0666);
	ck_assert_str_eq(config.socket.group, "");
	ck_assert_str_eq(config.socket.admin_group, "");
	ck_assert_str_eq(config.runtime, "/run/nvmmd");
	ck_assert_int_eq(config.durability, DURABILITY_CHOICE_AUTO);
	ck_assert_uint_eq(config.limits.clients, 4096);
	ck_assert_uint_eq(config.limits.clients_per_user, 0);
	ck_assert_uint_eq(config.limits.bytes_per_user, 0);
	ck_assert_uint_eq(config.limits.pools, 4096);
	ck_assert_uint_eq(config.limits.pools_per_user, 0);
	ck_assert_uint_eq(config.limits.lanes_per_client, 4096);
	ck_assert_int_eq(config.log.level, LOG_LEVEL_INFO);
	ck_assert_int_eq(config.log.target, LOG_TARGET_STDERR);
}
END_TEST

/* The installed file is what is printed of the defaults, so it has each key, and loads as them. */
START_TEST(test_sample)
{
	char *before, *after, *sample, *printed;
	size_t len;

	before = print();
	ck_assert_int_eq(config_load(&config, SAMPLE, &error), 0);
	after = print();
	ck_assert_str_eq(before, after);
	config.node.name[0] = 0; /* which the sample leaves to the host */
	printed = print();
	sample = read_all(SAMPLE, &len);
	ck_assert_str_eq(sample, printed);
	free(before);
	free(after);
	free(sample);
	free(printed);
}
END_TEST

START_TEST(test_manual)
{
	char *manual, needle[80];
	size_t len;

	manual = read_all(MANUAL, &len);
	for (size_t i = 0; i < N_KEYS; i++) {
		snprintf(needle, sizeof(needle), "\n%s %s\n",
			 config_keys[i].section == SECTION_NONE ? ".Ss" : ".It Cm",
			 config_keys[i].name);
		ck_assert_msg(strstr(manual, needle) != NULL, "%s is not explained",
			      config_keys[i].name);
	}
	free(manual);
}
END_TEST

static const char full[] =
	"# every key, none at its default\n"
	"node: {id: 255, name: 'nœud \"7\" \\ here'}\n"
	"shelves:\n"
	"  base: /mnt/pmem0\n"
	"  capacity: 1.5TiB\n"
	"socket:\n"
	"  path: /tmp/s\n"
	"  mode: 660\n"
	"  group: daemon\n"
	"  admin_group: \"adm\"\n"
	"runtime: /run/user/1000/nvmmd\n"
	"durability: power\n"
	"limits:\n"
	"  clients: 65536\n"
	"  clients_per_user: 12\n"
	"  bytes_per_user: 64GiB\n"
	"  pools: 65535\n"
	"  pools_per_user: 7\n"
	"  lanes_per_client: 1\n"
	"log:\n"
	"  level: debug\n"
	"  target: syslog\n";

START_TEST(test_full_and_round_trip)
{
	char *first, *second;

	ck_assert_int_eq(load(full, strlen(full)), 0);
	ck_assert_uint_eq(config.node.id, 255);
	ck_assert_str_eq(config.node.name, "nœud \"7\" \\ here");
	ck_assert_str_eq(config.shelves.base, "/mnt/pmem0");
	ck_assert_uint_eq(config.shelves.capacity, UINT64_C(1536) << 30);
	ck_assert_str_eq(config.socket.path, "/tmp/s");
	ck_assert_uint_eq(config.socket.mode, 0660);
	ck_assert_str_eq(config.socket.group, "daemon");
	ck_assert_str_eq(config.socket.admin_group, "adm");
	ck_assert_str_eq(config.runtime, "/run/user/1000/nvmmd");
	ck_assert_int_eq(config.durability, DURABILITY_CHOICE_POWER);
	ck_assert_uint_eq(config.limits.clients, 65536);
	ck_assert_uint_eq(config.limits.clients_per_user, 12);
	ck_assert_uint_eq(config.limits.bytes_per_user, UINT64_C(64) << 30);
	ck_assert_uint_eq(config.limits.pools, 65535);
	ck_assert_uint_eq(config.limits.pools_per_user, 7);
	ck_assert_uint_eq(config.limits.lanes_per_client, 1);
	ck_assert_int_eq(config.log.level, LOG_LEVEL_DEBUG);
	ck_assert_int_eq(config.log.target, LOG_TARGET_SYSLOG);

	first = print();
	ck_assert_int_eq(load(first, strlen(first)), 0);
	second = print();
	ck_assert_str_eq(first, second);
	ck_assert_str_eq(config.node.name, "nœud \"7\" \\ here");
	free(first);
	free(second);
}
END_TEST

/* A key that a file leaves out has its default again, whatever was loaded before. */
START_TEST(test_load_replaces)
{
	char *before, *after;

	before = print();
	ck_assert_int_eq(load(full, strlen(full)), 0);
	ck_assert_int_eq(load("", 0), 0);
	after = print();
	ck_assert_str_eq(before, after);
	free(before);
	free(after);
}
END_TEST

static const char *const empty[] = {
	"", "\n\n", "# nothing\n", "---\n", "---\n...\n", "{}\n", "node:\n", "node: {}\nlog: ~\n",
	"\xef\xbb\xbfnode:\n  id: 1\n",
};

START_TEST(test_empty)
{
	ck_assert_msg(load(empty[_i], strlen(empty[_i])) == 0, "%s", error);
	ck_assert_uint_eq(config.node.id, 1);
}
END_TEST

#define TEXT_63 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static const struct wrong {
	const char *text;
	unsigned line, column;
	const char *says;
} wrongs[] = {
	/* keys */
	{ "nodes:\n  id: 1\n", 1, 1, "unknown key 'nodes'" },
	{ "node:\n  id: 1\n  nam: x\n", 3, 3, "unknown key 'nam' in `node`, expected one of id" },
	{ "id: 1\n", 1, 1, "unknown key 'id' at the top level" },
	{ "<<: {}\n", 1, 1, "unknown key '<<'" },
	{ "node:\n  id: 1\n  id: 2\n", 3, 3, "'id' is given twice" },
	{ "log:\n  level: info\nlog:\n  level: info\n", 3, 1, "'log' is given twice" },
	{ "runtime: /a\n\nruntime: /a\n", 3, 1, "line 1 has it" },
	{ "? [a]\n: 1\n", 1, 3, "a list instead of a key" },
	{ "? {a: b}\n: 1\n", 1, 3, "a mapping instead of a key" },
	/* types */
	{ "node:\n  id: one\n", 2, 7, "'one' cannot be node.id, expected a whole number" },
	{ "node:\n  id: \"1\"\n", 2, 7, "without quotes" },
	{ "node:\n  id: 1.5\n", 2, 7, "whole number" },
	{ "node:\n  id: 0x10\n", 2, 7, "whole number" },
	{ "node:\n  id: [1]\n", 2, 7, "a list cannot be node.id" },
	{ "node:\n  id:\n    x: 1\n", 3, 5, "a mapping cannot be node.id" },
	{ "node:\n  id: ~\n", 2, 7, "no value cannot be node.id" },
	{ "node:\n  id:\n  name: x\n", 2, 6, "no value" },
	{ "node:\n  name: null\n", 2, 9, "no value" },
	{ "node: 3\n", 1, 7, "a single value cannot be `node`" },
	{ "log:\n- level\n", 2, 1, "a list cannot be `log`" },
	{ "- node\n", 1, 1, "a list is not a configuration" },
	{ "node\n", 1, 1, "a single value is not a configuration" },
	{ "shelves:\n  capacity: lots\n", 2, 13, "'lots' cannot be shelves.capacity" },
	{ "shelves:\n  base: {a: 1}\n", 2, 9, "an absolute path" },
	{ "socket:\n  mode: rw\n", 2, 9, "an octal mode" },
	{ "durability: maybe\n", 1, 13, "expected auto, process or power" },
	{ "log:\n  level: loud\n", 2, 10, "expected error, warning, info or debug" },
	{ "log: {target: file}\n", 1, 15, "expected stderr or syslog" },
	{ "log: {level: INFO}\n", 1, 14, "expected error" },
	/* ranges */
	{ "node:\n  id: 0\n", 2, 7, "from 1 to 255" },
	{ "node:\n  id: 256\n", 2, 7, "from 1 to 255" },
	{ "node:\n  id: -1\n", 2, 7, "from 1 to 255" },
	{ "node:\n  id: 99999999999999999999999\n", 2, 7, "from 1 to 255" },
	{ "limits:\n  clients: 0\n", 2, 12, "from 1 to 65536" },
	{ "limits:\n  clients_per_user: 65537\n", 2, 21, "from 0 to 65536" },
	{ "limits:\n  pools: 65536\n", 2, 10, "from 1 to 65535" },
	{ "limits:\n  pools_per_user: 65536\n", 2, 19, "from 0 to 65535" },
	{ "limits:\n  lanes_per_client: 0\n", 2, 21, "from 1 to 65536" },
	{ "limits:\n  bytes_per_user: -1\n", 2, 19, "a size" },
	{ "shelves:\n  capacity: 8388608TiB\n", 2, 13, "a size" },
	{ "socket:\n  mode: 0777\n", 2, 9, "read and write bits" },
	{ "socket:\n  mode: 0888\n", 2, 9, "read and write bits" },
	{ "socket:\n  path: /" TEXT_63 "/" TEXT_63 "\n", 2, 9, "at most 107 bytes" },
	{ "socket:\n  path: run/sock\n", 2, 9, "an absolute path" },
	{ "socket:\n  path: ''\n", 2, 9, "an absolute path" },
	{ "node:\n  name: b" TEXT_63 "\n", 2, 9, "at most 63 bytes" },
	{ "socket:\n  group: " TEXT_63 "\n", 2, 10, "at most 31 bytes" },
	{ "node:\n  name: \"a\\eb\"\n", 2, 9, "'a?b' cannot be node.name" },
	{ "node:\n  name: \"a\\0b\"\n", 2, 9, "a zero byte" },
	{ "node:\n  name: \"a\\N\"\n", 2, 9, "a printable text" },
	/* what YAML has beyond it */
	{ "runtime: &a /run/x\n", 1, 10, "an anchor" },
	{ "runtime: *a\n", 1, 10, "an alias" },
	{ "node: &n\n  id: 1\n", 1, 7, "an anchor" },
	{ "runtime: !!str /run/x\n", 1, 10, "a tag" },
	{ "--- !conf\nnode:\n", 1, 5, "a tag" },
	{ "---\nruntime: /r\n---\nruntime: /s\n", 3, 1, "a second document" },
	{ "---\n---\n", 2, 1, "a second document" },
	/* no YAML */
	{ "node:\n\tid: 1\n", 2, 1, "not YAML" },
	{ "node: {id: 1\n", 2, 1, "not YAML" },
	{ "node:\n  name: \"x\n", 3, 1, "not YAML" },
	{ "node:\n  id: 1\n name: x\n", 3, 2, "not YAML" },
	{ "node:\n  name: \xff\xfe\n", 2, 9, "not a text file" },
	{ "node:\n  name: \x01\n", 2, 9, "not a text file" },
};

START_TEST(test_wrong)
{
	const struct wrong *wrong = &wrongs[_i];
	char where[300], *before, *after;

	before = print();
	ck_assert_msg(load(wrong->text, strlen(wrong->text)) == -EINVAL, "%s", wrong->text);
	ck_assert_ptr_nonnull(error);
	snprintf(where, sizeof(where), "%s:%u:%u: ", path, wrong->line, wrong->column);
	ck_assert_msg(!strncmp(error, where, strlen(where)), "%s%s -> %s", where, wrong->text,
		      error);
	ck_assert_msg(strstr(error, wrong->says) != NULL, "%s -> %s", wrong->says, error);
	ck_assert_msg(strstr(error, "expected ") != NULL, "%s", error);
	after = print();
	ck_assert_str_eq(before, after);
	free(before);
	free(after);
}
END_TEST

START_TEST(test_limits_are_inclusive)
{
	static const char *const right[] = {
		"socket:\n  path: /" TEXT_63 "/abcdefghijklmnopqrstuvwxyz0123456789abcdef\n",
		"node:\n  name: " TEXT_63 "\n",
		"limits: {clients: 1, pools: 1, lanes_per_client: 65536}\n",
		"socket: {mode: '0000'}\n",
	};

	for (size_t i = 0; i < ARRAY_SIZE(right); i++)
		ck_assert_msg(load(right[i], strlen(right[i])) == 0, "%s", error);
}
END_TEST

START_TEST(test_unreadable)
{
	static char large[300 * 1024];

	ck_assert_int_eq(config_load(&config, "/nonexistent/nvmmd.yaml", &error), -ENOENT);
	ck_assert_ptr_nonnull(strstr(error, "/nonexistent/nvmmd.yaml: cannot be read"));
	ck_assert_int_eq(config_load(&config, "/", &error), -EISDIR);
	memset(large, '#', sizeof(large));
	ck_assert_int_eq(load(large, sizeof(large)), -EFBIG);
	ck_assert_ptr_nonnull(strstr(error, "too long"));
}
END_TEST

/* Random damage */

static uint64_t random_state;

static size_t pick(size_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return n ? (size_t)(random_state % n) : 0;
}

/* One change somewhere in text[0..len), which has room for 64 bytes more; the new length. */
static size_t mutate(char *text, size_t len)
{
	static const char special[] = "&*!|>{}[],:?-#'\"%@`~\\\n\t \0\xff\xc3";
	size_t at = pick(len), n = MIN(pick(32), len - at);

	switch (pick(5)) {
	case 0:
		text[at] = (char)pick(256);
		return len;
	case 1:
		text[at] = special[pick(sizeof(special) - 1)];
		return len;
	case 2:
		memmove(text + at, text + at + n, len - at - n);
		return len - n;
	case 3:
		memmove(text + at + n, text + at, len - at);
		return len + n;
	default:
		memmove(text + at + 1, text + at, len - at);
		text[at] = special[pick(sizeof(special) - 1)];
		return len + 1;
	}
}

START_TEST(test_mutations)
{
	enum { ROUNDS = 3000, CHANGES = 12 };
	const char *seed = getenv("NVMM_TEST_SEED");
	size_t len, sample_len, refused = 0;
	char *sample, *text;

	random_state = seed ? strtoull(seed, NULL, 10) : 20240229;
	random_state |= 1;
	sample = read_all(SAMPLE, &sample_len);
	text = malloc(sample_len + 64 * CHANGES);
	ck_assert_ptr_nonnull(text);
	for (int round = 0; round < ROUNDS; round++) {
		unsigned line, column;
		int r;

		memcpy(text, sample, sample_len);
		len = sample_len;
		for (size_t i = 1 + pick(CHANGES - 1); i > 0; i--)
			len = mutate(text, len);
		r = load(text, len);
		if (r == 0)
			continue;
		refused++;
		ck_assert_int_eq(r, -EINVAL);
		ck_assert_msg(sscanf(error + strlen(path), ":%u:%u: ", &line, &column) == 2, "%s",
			      error);
		ck_assert_uint_gt(line, 0);
		ck_assert_uint_gt(column, 0);
	}
	ck_assert_uint_gt(refused, ROUNDS / 4);
	ck_assert_uint_lt(refused, ROUNDS);
	free(text);
	free(sample);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("config");
	TCase *tcase = tcase_create("config");

	suite_add_tcase(suite, tcase);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, test_defaults);
	tcase_add_test(tcase, test_sample);
	tcase_add_test(tcase, test_manual);
	tcase_add_test(tcase, test_full_and_round_trip);
	tcase_add_test(tcase, test_load_replaces);
	tcase_add_loop_test(tcase, test_empty, 0, ARRAY_SIZE(empty));
	tcase_add_loop_test(tcase, test_wrong, 0, ARRAY_SIZE(wrongs));
	tcase_add_test(tcase, test_limits_are_inclusive);
	tcase_add_test(tcase, test_unreadable);
	tcase_add_test(tcase, test_mutations);
	return suite_run(suite);
}
