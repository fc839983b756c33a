/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who may open, change and give away a pool.
 */
#include <errno.h>

#include "common/macro.h"
#include "daemon/access.h"
#include "tests/unit/tempdir.h"

#define OWNER 1000
#define GROUP 2000
#define OTHER_GROUP 2001
#define ADMIN_GROUP 3000
#define DAEMON 500

static const struct access_admin admin = { .uid = DAEMON, .gid = ADMIN_GROUP };
static gid_t in_group[] = { 7, GROUP };
static gid_t in_admin[] = { ADMIN_GROUP };

static const struct peer owner = { .uid = OWNER, .gid = 1000 };
static const struct peer owner_in_group = { .uid = OWNER, .gid = GROUP };
static const struct peer primary = { .uid = 1001, .gid = GROUP };
static const struct peer member = { .uid = 1002, .gid = 9, .groups = in_group, .n_groups = 2 };
static const struct peer stranger = { .uid = 1003, .gid = 9 };
static const struct peer root = { .uid = 0, .gid = 0 };
static const struct peer self = { .uid = DAEMON, .gid = DAEMON };
static const struct peer administrator = {
	.uid = 1004, .gid = 9, .groups = in_admin, .n_groups = 1
};

static const struct {
	const struct peer *peer;
	uint32_t mode;
	int read;
	int write;
} cases[] = {
	{ &owner, 0600, 0, 0 },
	{ &owner, 0400, 0, -EACCES },
	{ &owner, 0066, -EACCES, -EACCES },
	{ &owner, 0200, -EACCES, -EACCES },	     /* writing needs reading too */
	{ &owner_in_group, 0060, -EACCES, -EACCES }, /* the owner's bits decide alone */
	{ &primary, 0640, 0, -EACCES },
	{ &primary, 0660, 0, 0 },
	{ &primary, 0606, -EACCES, -EACCES }, /* the group's bits decide alone */
	{ &member, 0640, 0, -EACCES },
	{ &member, 0600, -EACCES, -EACCES },
	{ &stranger, 0660, -EACCES, -EACCES },
	{ &stranger, 0664, 0, -EACCES },
	{ &stranger, 0666, 0, 0 },
	{ &root, 0000, 0, 0 },
	{ &self, 0000, 0, 0 },
	{ &administrator, 0000, 0, 0 },
};

START_TEST(open_by_mode)
{
	struct pool_record pool = { .uid = OWNER, .gid = GROUP, .mode = cases[_i].mode };

	ck_assert_int_eq(access_open(&admin, cases[_i].peer, &pool, ACCESS_READ), cases[_i].read);
	ck_assert_int_eq(access_open(&admin, cases[_i].peer, &pool, ACCESS_READ | ACCESS_WRITE),
			 cases[_i].write);
}
END_TEST

START_TEST(change_by_owner_and_admin)
{
	struct pool_record pool = { .uid = OWNER, .gid = GROUP, .mode = 0666 };

	ck_assert_int_eq(access_change(&admin, &owner, &pool), 0);
	ck_assert_int_eq(access_change(&admin, &root, &pool), 0);
	ck_assert_int_eq(access_change(&admin, &administrator, &pool), 0);
	ck_assert_int_eq(access_change(&admin, &primary, &pool), -EPERM);
	ck_assert_int_eq(access_change(&admin, &stranger, &pool), -EPERM);
}
END_TEST

START_TEST(chown_rules)
{
	struct pool_record pool = { .uid = OWNER, .gid = GROUP, .mode = 0600 };
	const struct peer in_both = { .uid = OWNER, .gid = 5, .groups = in_group, .n_groups = 1 };

	ck_assert_int_eq(access_chown(&admin, &root, &pool, 1, 1), 0);
	ck_assert_int_eq(access_chown(&admin, &administrator, &pool, 1, 1), 0);
	ck_assert_int_eq(access_chown(&admin, &in_both, &pool, UINT32_MAX, 5), 0);
	ck_assert_int_eq(access_chown(&admin, &in_both, &pool, OWNER, 7), 0);
	ck_assert_int_eq(access_chown(&admin, &in_both, &pool, UINT32_MAX, OTHER_GROUP), -EPERM);
	ck_assert_int_eq(access_chown(&admin, &in_both, &pool, 1001, UINT32_MAX), -EPERM);
	ck_assert_int_eq(access_chown(&admin, &stranger, &pool, UINT32_MAX, 9), -EPERM);
}
END_TEST

START_TEST(no_admin_group)
{
	struct access_admin none = { .uid = DAEMON, .gid = ACCESS_NO_GROUP };
	const struct peer odd = { .uid = 1005, .gid = ACCESS_NO_GROUP };

	ck_assert(!access_is_admin(&none, &administrator));
	ck_assert(!access_is_admin(&none, &odd));
	ck_assert(access_is_admin(&none, &root));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("access");
	TCase *tc = tcase_create("access");

	tcase_add_loop_test(tc, open_by_mode, 0, (int)ARRAY_SIZE(cases));
	tcase_add_test(tc, change_by_owner_and_admin);
	tcase_add_test(tc, chown_rules);
	tcase_add_test(tc, no_admin_group);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
