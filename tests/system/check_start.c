/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Starting: one daemon on a base and runtime directory; a registry that cannot be trusted is
 * refused with a reason and left as it is; a configuration that is wrong is refused before
 * anything starts.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "media/format.h"
#include "tests/system/harness.h"

#define MIB (UINT64_C(1) << 20)

static void expect_refusal(struct harness *h, const char *reason)
{
	int status = harness_wait_daemon(h);

	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) != 0, "status 0x%x", status);
	ck_assert_msg(harness_logged(h, reason), "the log does not say \"%s\"", reason);
}

START_TEST(second_on_one_base)
{
	struct harness first, second;
	struct harness_options options = { .node = _i ? 2 : 1 };

	harness_init(&first, NULL);
	harness_start(&first);
	options.base = first.base;
	harness_init(&second, &options);
	harness_spawn(&second);
	expect_refusal(&second, first.base);
	harness_alive(&first);
	harness_stop(&first);
	harness_start(&second);
	harness_stop(&second);
}
END_TEST

START_TEST(second_on_one_runtime)
{
	struct harness first, second;
	struct harness_options options = { .node = 1 };

	harness_init(&first, NULL);
	harness_start(&first);
	options.runtime = first.runtime;
	harness_init(&second, &options);
	harness_spawn(&second);
	expect_refusal(&second, first.runtime);
	harness_alive(&first);
	harness_stop(&first);
}
END_TEST

/* Waits until one of two has ended; which. It ended by itself, with an error. */
static int wait_for_loser(struct harness h[2])
{
	int status, loser;
	pid_t ended = waitpid(-1, &status, 0);

	ck_assert(ended == h[0].daemon || ended == h[1].daemon);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) != 0, "0x%x", status);
	loser = ended == h[1].daemon;
	h[loser].daemon = 0;
	return loser;
}

/* Both started at once, again and again: one serves, the other says why not. */
START_TEST(race_for_one_base)
{
	for (int round = 0; round < 10; round++) {
		struct harness_options options = { .node = 1 };
		struct harness h[2];
		int loser;

		harness_init(&h[0], NULL);
		options.base = h[0].base;
		harness_init(&h[1], &options);
		harness_spawn(&h[0]);
		harness_spawn(&h[1]);
		loser = wait_for_loser(h);
		ck_assert(harness_logged(&h[loser], h[0].base));
		harness_await(&h[!loser]);
		harness_signal(&h[!loser], SIGKILL);
	}
}
END_TEST

/* Damage */

static void make_three_pools(struct harness *h)
{
	struct nvmm_client *nvmm = harness_connect(h);

	for (unsigned i = 1; i <= 3; i++) {
		nvmm_pool_id id = (nvmm_pool_id)i;

		ck_assert_int_eq(nvmm_region_create(nvmm, &id, MIB, NULL), 0);
	}
	nvmm_disconnect(nvmm);
}

static int open_registry(struct harness *h, int flags)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/registry", h->base);
	fd = open(path, flags | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static void flip(struct harness *h, off_t at)
{
	int fd = open_registry(h, O_RDWR);
	uint8_t byte;

	ck_assert_int_eq(pread(fd, &byte, 1, at), 1);
	byte ^= 0x55;
	ck_assert_int_eq(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

static uint8_t *registry_bytes(struct harness *h, size_t *len)
{
	int fd = open_registry(h, O_RDONLY);
	struct stat st;
	uint8_t *bytes;

	ck_assert_int_eq(fstat(fd, &st), 0);
	*len = (size_t)st.st_size;
	bytes = malloc(*len);
	ck_assert_ptr_nonnull(bytes);
	ck_assert_int_eq(pread(fd, bytes, *len, 0), (ssize_t)*len);
	close(fd);
	return bytes;
}

/* Each byte of the header that its CRC covers. */
START_TEST(registry_header_flipped)
{
	static const off_t places[] = { 0, 7, 8, 12, 16, 24, 26, 63 };
	uint8_t *before, *after;
	size_t len, len_after;
	struct harness h;

	harness_init(&h, NULL);
	harness_start(&h);
	make_three_pools(&h);
	harness_stop(&h);
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		flip(&h, places[i]);
		before = registry_bytes(&h, &len);
		harness_spawn(&h);
		expect_refusal(&h, "registry");
		after = registry_bytes(&h, &len_after);
		ck_assert_uint_eq(len, len_after);
		ck_assert_mem_eq(before, after, len);
		free(before);
		free(after);
		flip(&h, places[i]);
	}
	harness_start(&h);
	harness_stop(&h);
}
END_TEST

/* A rotten record costs its pool; the others are served, and the record stays for inspection. */
START_TEST(registry_record_flipped)
{
	off_t record = (off_t)offsetof(struct registry_file_df, entry) +
		       2 * (off_t)sizeof(struct registry_entry_df);
	static const off_t places[] = { 8, 16, 40, 100 }; /* one a turn */
	struct nvmm_pool_info info = { .size = sizeof(info) };
	struct nvmm_region *region;
	struct harness h;
	struct nvmm_client *nvmm;
	int r;

	harness_init(&h, NULL);
	harness_start(&h);
	make_three_pools(&h);
	harness_stop(&h);
	/* Both slots, since the older one alone would be no loss. */
	flip(&h, record + places[_i]);
	flip(&h, record + (off_t)sizeof(struct pool_record_df) + places[_i]);

	harness_start(&h);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(nvmm_region_open(&region, nvmm, 1, O_RDWR), 0);
	nvmm_region_close(region);
	ck_assert_int_eq(nvmm_region_open(&region, nvmm, 3, O_RDWR), 0);
	nvmm_region_close(region);
	r = nvmm_region_open(&region, nvmm, 2, O_RDWR);
	ck_assert_msg(r == -EUCLEAN, "open: %d", r);
	ck_assert_str_ne(nvmm_errmsg(nvmm), "");
	ck_assert_int_eq(nvmm_pool_stat(nvmm, 2, &info), 0);
	ck_assert(info.damaged);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

/* Configuration */

static int check_config(struct harness *h, char *out, size_t room, const char *text)
{
	char path[512];
	const char *const argv[] = { "daemon/nvmmd", "--check-config",
			       "--config", path, NULL };
	FILE *f;

	snprintf(path, sizeof(path), "%s/wrong.yaml", h->dir);
	f = fopen(path, "we");
	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	ck_assert_int_eq(fclose(f), 0);
	return harness_command(h, out, room, argv);
}

START_TEST(wrong_configuration)
{
	static const char *const wrong[] = {
		"node:\n  id: 0\n",	  "node:\n  id: 256\n",	    "node:\n  id: many\n",
		"nodes:\n  id: 1\n",	  "node:\n  ident: 1\n",    "node: 1\n",
		"shelves:\n  base: x\n",  "durability: perhaps\n",  "limits:\n  pools: 65536\n",
		"log:\n  level: loud\n",  "node:\n  id: 1\n  id: 2\n", "node:\n  id: [1]\n",
		"node:\n\tid: 1\n",	  "socket:\n  mode: 999\n", "- node\n",
	};
	static char out[65536];
	struct harness h;

	harness_init(&h, NULL);
	if (geteuid() == 0) /* who may make the default directories */
		ck_assert_int_eq(check_config(&h, out, sizeof(out), "node:\n  id: 1\n"), 0);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		int r = check_config(&h, out, sizeof(out), wrong[i]);

		ck_assert_msg(r != 0, "accepted: %s", wrong[i]);
	}
}
END_TEST

/* Each with a text, of a configuration in which $ is the test's directory, and @ a name that
 * makes a path of 105 bytes, and of what the daemon says to it. */
static const char *const unusable[][2] = {
	{ "shelves: {base: $/b}\nruntime: $/r\nsocket: {path: $/s, group: nosuchgroup}\n",
	  "socket.group: there is no group 'nosuchgroup'" },
	{ "shelves: {base: $/b}\nruntime: $/r\nsocket: {path: $/s, admin_group: nosuchgroup}\n",
	  "socket.admin_group: there is no group 'nosuchgroup'" },
	{ "shelves: {base: $/none/b}\nruntime: $/r\nsocket: {path: $/s}\n", "shelves.base: $/none/b is not there" },
	{ "shelves: {base: $/b}\nruntime: $/none/r\nsocket: {path: $/s}\n", "runtime: $/none/r is not there" },
	{ "shelves: {base: $/wrong.yaml}\nruntime: $/r\nsocket: {path: $/s}\n", "is no directory" },
	{ "shelves: {base: $/b}\nruntime: $/b\nsocket: {path: $/s}\n", "runtime: it is the same directory" },
	{ "shelves: {base: $/b}\nruntime: $/r\nsocket: {path: $/@/s}\n", "socket.path: its directory has" },
	{ "shelves: {base: $/b}\nruntime: $/r\nsocket: {path: $/none/s}\n", "socket.path: no socket can be made in" },
	{ "shelves: {base: $/b}\nruntime: $/r\nsocket: {path: $/wrong.yaml}\n", "is there and is no socket" },
	{ "shelves: {base: $/b}\nruntime: $/r\nsocket: {path: $/s}\nlimits: {clients: 10, clients_per_user: 100}\n",
	  "limits.clients_per_user: 100 is more than limits.clients, 10" },
	{ "shelves: {base: $/b}\nruntime: $/r\nsocket: {path: $/s}\nlimits: {pools: 10, pools_per_user: 11}\n",
	  "limits.pools_per_user: 11 is more than limits.pools, 10" },
};

static void put_directory(char *ret, size_t room, const char *text, const char *dir)
{
	int name = 105 - (int)strlen(dir) - (int)strlen("//s");
	size_t n = 0;

	ck_assert_int_gt(name, 0);
	for (; *text; text++) {
		if (*text == '@')
			n += (size_t)snprintf(ret + n, room - n, "%0*d", name, 0);
		else
			n += (size_t)snprintf(ret + n, room - n, *text == '$' ? "%s" : "%.1s",
					      *text == '$' ? dir : text);
	}
}

/* What --check-config refuses, a start refuses, and leaves nothing behind. */
START_TEST(unusable_configuration)
{
	static char out[65536];
	char text[4096], said[4096];
	struct harness_usage before;
	struct harness h;
	int status;

	harness_init(&h, NULL);
	put_directory(text, sizeof(text), unusable[_i][0], h.dir);
	put_directory(said, sizeof(said), unusable[_i][1], h.dir);
	ck_assert_int_eq(check_config(&h, out, sizeof(out), text), 2);
	before = harness_usage(h.dir);
	snprintf(h.config, sizeof(h.config), "%s/wrong.yaml", h.dir);
	harness_spawn(&h);
	status = harness_wait_daemon(&h);
	ck_assert_int_ne(status, 0);
	ck_assert_msg(harness_logged(&h, said), "it does not say: %s", said);
	ck_assert_uint_le(harness_usage(h.dir).files, before.files + 1); /* the log */
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("start");
	TCase *tcase = harness_case(suite, "start", 120);

	tcase_add_loop_test(tcase, second_on_one_base, 0, 2);
	tcase_add_test(tcase, second_on_one_runtime);
	tcase_add_test(tcase, race_for_one_base);
	tcase_add_test(tcase, registry_header_flipped);
	tcase_add_loop_test(tcase, registry_record_flipped, 0, 4);
	tcase_add_test(tcase, wrong_configuration);
	tcase_add_loop_test(tcase, unusable_configuration, 0, sizeof(unusable) / sizeof(unusable[0]));
	return harness_run(suite);
}
