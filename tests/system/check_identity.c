/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A daemon in a user namespace that maps some users only: the kernel shows it all others as one number,
 * so it refuses them, saying why, and a group that it does not know grants nothing. Where all users
 * are mapped, that number is a user like others. Needs root, to become others and to write maps.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/harness.h"

#define MIB (UINT64_C(1) << 20)
#define NOBODY 65534
#define MAPPED 64000   /* has a number in the namespace */
#define UNMAPPED 64100 /* has none */

static struct harness h;
static const char *map_text;

/* Writes a map of the daemon's process; from outside of its namespace. */
static bool write_map(pid_t pid, const char *name)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = write(fd, map_text, strlen(map_text));
	close(fd);
	return n == (ssize_t)strlen(map_text);
}

/* In the daemon's process, before it starts: a new user namespace, with the map or without. */
static void enter_namespace(void)
{
	pid_t self = getpid(), writer;
	int ready[2], status;
	char c;

	if (pipe2(ready, O_CLOEXEC) < 0)
		_exit(125);
	writer = fork();
	if (writer == 0) {
		close(ready[1]);
		_exit(read(ready[0], &c, 1) != 1 ||
		      (map_text && (!write_map(self, "uid_map") || !write_map(self, "gid_map"))));
	}
	if (unshare(CLONE_NEWUSER) < 0 || write(ready[1], "", 1) != 1 ||
	    waitpid(writer, &status, 0) != writer || status != 0)
		_exit(125);
	close(ready[0]);
	close(ready[1]);
}

static bool may_unshare(void)
{
	pid_t pid = fork();
	int status = 1;

	if (pid == 0)
		_exit(geteuid() != 0 || unshare(CLONE_NEWUSER) < 0);
	waitpid(pid, &status, 0);
	if (status != 0)
		fprintf(stderr, "a test is skipped: user namespaces are not allowed here\n");
	return status == 0;
}

static void become(uid_t uid, gid_t group)
{
	ck_assert_int_eq(setgroups(1, &group), 0);
	ck_assert_int_eq(setresgid(uid, uid, uid), 0);
	ck_assert_int_eq(setresuid(uid, uid, uid), 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static int try_connect(void)
{
	struct nvmm_options options = { .size = sizeof(options), .socket = h.socket };
	struct nvmm_client *nvmm;
	int r = nvmm_connect(&nvmm, &options);

	if (r == 0)
		nvmm_disconnect(nvmm);
	return r;
}

static void refused(void *arg)
{
	become(*(const uid_t *)arg, *(const uid_t *)arg);
	ck_assert_int_eq(try_connect(), -EACCES);
	ck_assert_msg(strstr(nvmm_errmsg(NULL), "does not map your user") != NULL, "%s",
		      nvmm_errmsg(NULL));
}

static void expect_refused(uid_t uid)
{
	harness_join(harness_fork(refused, &uid));
}

static void harness_begin(const char *map)
{
	harness_init(&h, NULL);
	map_text = map;
	h.prepare = enter_namespace;
}

START_TEST(unmapped_users_are_nobody)
{
	static const char *const argv[] = { "ctl/nvmmctl", "status", "--json", NULL };
	struct nvmm_pool_options options = { .size = sizeof(options), .mode = 0600 };
	nvmm_pool_id id = 0;
	struct nvmm_client *nvmm;
	char out[16384];

	if (!may_unshare())
		return;
	harness_begin("0 0 1\n");
	harness_start(&h);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, MIB, &options), 0);
	expect_refused(UNMAPPED);
	expect_refused(UNMAPPED + 1);
	expect_refused(NOBODY);
	ck_assert_int_eq(nvmm_pool_chown(nvmm, id, NOBODY, (gid_t)-1), -EINVAL);
	ck_assert_int_eq(nvmm_pool_chown(nvmm, id, (uid_t)-1, NOBODY), -EINVAL);
	ck_assert_msg(strstr(nvmm_errmsg(nvmm), "does not map") != NULL, "%s", nvmm_errmsg(nvmm));
	ck_assert_int_eq(nvmm_pool_chown(nvmm, id, UNMAPPED, (gid_t)-1), 0);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), argv), 0);
	ck_assert_msg(strstr(out, "\"uids_partial\": true") != NULL, "%s", out);
	ck_assert_msg(strstr(out, "\"overflow_uid\": 65534") != NULL, "%s", out);
	ck_assert(harness_logged(&h, "does not map all ids"));
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

/* What a member of a group that is not mapped finds closed, which is open to others of that number outside. */
static nvmm_pool_id team_pool;

static void member(void *arg)
{
	struct nvmm_region *region;
	struct nvmm_client *nvmm;
	nvmm_pool_id id = 0;
	int want = *(const int *)arg;

	become(MAPPED, NOBODY);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(nvmm_region_open(&region, nvmm, team_pool, O_RDWR), want);
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, MIB, NULL), 0);
	nvmm_disconnect(nvmm);
}

START_TEST(unmapped_groups_grant_nothing)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .mode = 0660 };
	struct nvmm_client *nvmm;
	int open = 0, closed = -EACCES;

	if (!may_unshare())
		return;
	harness_begin("0 0 1\n64000 64000 10\n");
	h.prepare = NULL;
	harness_start(&h);
	nvmm = harness_connect(&h);
	team_pool = 0;
	ck_assert_int_eq(nvmm_region_create(nvmm, &team_pool, MIB, &options), 0);
	ck_assert_int_eq(nvmm_pool_chown(nvmm, team_pool, (uid_t)-1, NOBODY), 0);
	nvmm_disconnect(nvmm);
	harness_join(harness_fork(member, &open));
	harness_stop(&h);
	h.prepare = enter_namespace;
	harness_start(&h);
	harness_join(harness_fork(member, &closed));
	expect_refused(UNMAPPED);
	harness_stop(&h);
}
END_TEST

/* A map that has the overflow number does not make one user of it. */
START_TEST(mapped_number_is_ambiguous)
{
	if (!may_unshare())
		return;
	harness_begin("0 0 1\n65534 65534 1\n");
	harness_start(&h);
	expect_refused(NOBODY);
	expect_refused(UNMAPPED);
	harness_stop(&h);
}
END_TEST

static bool says_unmapped(void *arg)
{
	return access(((struct harness *)arg)->log, F_OK) == 0 &&
	       harness_logged(arg, "does not map the daemon's own user");
}

static bool is_refused(void *arg)
{
	return try_connect() == -EACCES;
}

/* Without a map the daemon itself is nobody, and so would be all of its administrators. */
START_TEST(no_map_at_all)
{
	if (!may_unshare())
		return;
	harness_begin(NULL);
	ck_assert_int_eq(chmod(h.base, 0777), 0);
	ck_assert_int_eq(chmod(h.runtime, 0777), 0);
	ck_assert_int_eq(chmod(h.dir, 0777), 0);
	harness_spawn(&h);
	harness_until(says_unmapped, &h, 30000);
	harness_until(is_refused, NULL, 30000);
	expect_refused(UNMAPPED);
	harness_stop(&h);
}
END_TEST

static void served_as_nobody(void *arg)
{
	struct nvmm_client *nvmm;
	nvmm_pool_id id = 0;

	become(NOBODY, NOBODY);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, MIB, NULL), 0);
	ck_assert_int_eq(nvmm_region_destroy(nvmm, id), 0);
	nvmm_disconnect(nvmm);
}

/* In the initial namespace, and in a child that maps all of it. */
START_TEST(nobody_is_a_user_of_a_whole_map)
{
	if (!may_unshare())
		return;
	harness_begin("0 0 4294967295\n");
	h.prepare = _i == 0 ? NULL : enter_namespace;
	harness_start(&h);
	harness_join(harness_fork(served_as_nobody, NULL));
	harness_stop(&h);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("identity");
	TCase *tcase = harness_case(suite, "identity", 60);

	tcase_add_test(tcase, unmapped_users_are_nobody);
	tcase_add_test(tcase, unmapped_groups_grant_nothing);
	tcase_add_test(tcase, mapped_number_is_ambiguous);
	tcase_add_test(tcase, no_map_at_all);
	tcase_add_loop_test(tcase, nobody_is_a_user_of_a_whole_map, 0, 2);
	return harness_run(suite);
}
