/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ids that a user namespace maps, and the number that it shows for all others.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/macro.h"
#include "daemon/access.h"
#include "daemon/identity.h"
#include "tests/unit/tempdir.h"

static const struct {
	const char *map;
	bool whole;
} maps[] = {
	{ "         0          0 4294967295\n", true },
	{ "0 0 1000\n1000 1000 4294966295\n", true },
	{ "0 0 1000\n1000 1000 4294966294\n", false },
	{ "         0       1000          1\n", false },
	{ "0 100000 65536\n", false },
	{ "0 1000 1\n1 100000 65536\n", false },
	{ "", false },
	{ "rubbish", false },
};

START_TEST(map_covers_all_or_not)
{
	ck_assert_int_eq(identity_map_whole(maps[_i].map), maps[_i].whole);
}
END_TEST

static void put(const char *dir, const char *name, const char *text)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "we");
	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	ck_assert_int_eq(fclose(f), 0);
}

static void make_dir(const char *dir, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	ck_assert_int_eq(mkdir(path, 0700), 0);
}

static const char *make_proc(const char *uids, const char *gids)
{
	const char *dir;

	close(tempdir_new(&dir));
	make_dir(dir, "self");
	make_dir(dir, "sys");
	make_dir(dir, "sys/kernel");
	put(dir, "self/uid_map", uids);
	put(dir, "self/gid_map", gids);
	return dir;
}

START_TEST(partial_by_kind)
{
	const char *proc = make_proc("0 0 4294967295\n", "0 0 1\n");
	struct identity identity;

	put(proc, "sys/kernel/overflowuid", "60000\n");
	put(proc, "sys/kernel/overflowgid", "60001\n");
	ck_assert_int_eq(identity_read(&identity, proc), 0);
	ck_assert(!identity.uids_partial);
	ck_assert(identity.gids_partial);
	/* A complete map: the number is a user like others. */
	ck_assert(!identity_uid_unknown(&identity, 60000));
	ck_assert(identity_gid_unknown(&identity, 60001));
	ck_assert(!identity_gid_unknown(&identity, 65534));
}
END_TEST

START_TEST(defaults_without_files)
{
	const char *proc = make_proc("0 0 1\n", "0 0 1\n");
	struct identity identity;

	ck_assert_int_eq(identity_read(&identity, proc), 0);
	ck_assert(identity_uid_unknown(&identity, 65534));
	ck_assert(identity_gid_unknown(&identity, 65534));
	ck_assert(!identity_uid_unknown(&identity, 0));
	/* No maps at all: a kernel without user namespaces. */
	ck_assert_int_eq(identity_read(&identity, "/nonexistent"), 0);
	ck_assert(!identity_uid_unknown(&identity, 65534));
}
END_TEST

START_TEST(unknown_groups_grant_nothing)
{
	const struct identity identity = { .overflow_uid = 65534, .overflow_gid = 65534,
					   .gids_partial = true };
	gid_t groups[] = { 7, 65534, 8, 65534 };
	struct peer peer = { .uid = 5, .gid = 65534, .groups = groups, .n_groups = 4 };
	const struct pool_record pool = { .uid = 6, .gid = 65534, .mode = 0660 };
	const struct pool_record none = { .uid = 6, .gid = ACCESS_NO_GROUP, .mode = 0660 };
	const struct access_admin admin = { .uid = 1, .gid = 65534 };

	ck_assert_int_eq(access_open(&admin, &peer, &pool, ACCESS_READ), 0);
	identity_strip_groups(&identity, &peer);
	ck_assert_uint_eq(peer.n_groups, 2);
	ck_assert(peer_in_group(&peer, 7));
	ck_assert(peer_in_group(&peer, 8));
	ck_assert(!peer_in_group(&peer, 65534));
	ck_assert_int_eq(access_open(&admin, &peer, &pool, ACCESS_READ), -EACCES);
	/* Nor does having no group make a member of pools without one. */
	ck_assert_int_eq(access_open(&admin, &peer, &none, ACCESS_READ), -EACCES);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("identity");
	TCase *tc = tcase_create("identity");

	tcase_add_loop_test(tc, map_covers_all_or_not, 0, (int)ARRAY_SIZE(maps));
	tcase_add_test(tc, partial_by_kind);
	tcase_add_test(tc, defaults_without_files);
	tcase_add_test(tc, unknown_groups_grant_nothing);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
