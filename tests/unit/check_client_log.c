/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rates of lines that clients provoke: by kind, by user, in sum. Counts decide.
 */
#include "daemon/client_log.h"
#include "tests/unit/suite.h"

static unsigned written_of(struct line_limit *limit, enum client_line kind, uid_t uid, uint64_t second, unsigned n)
{
	unsigned written = 0;

	while (n-- > 0)
		written += line_limit_take(limit, kind, uid, second);
	return written;
}

START_TEST(a_user_has_a_part)
{
	struct line_limit limit = { 0 };
	unsigned user = line_limit_user(_i), sum = line_limit_sum(_i);

	ck_assert_uint_lt(user, sum);
	ck_assert_uint_eq(written_of(&limit, _i, 1000, 5, 20000), user);
	ck_assert_uint_eq(line_limit_dropped(&limit), 20000 - user);
	ck_assert_uint_eq(line_limit_noisiest(&limit), 1000);
	/* Another one is heard. */
	ck_assert_uint_eq(written_of(&limit, _i, 1001, 5, 1), 1);
	/* All together have the sum. */
	for (uid_t uid = 2000; uid < 2100; uid++)
		written_of(&limit, _i, uid, 5, 1000);
	ck_assert_uint_eq(limit.written[_i], sum);
	line_limit_told(&limit);
	ck_assert_uint_eq(line_limit_dropped(&limit), 0);
	ck_assert_uint_eq(written_of(&limit, _i, 1000, 5, 100), 0);
	/* The next second. */
	ck_assert_uint_eq(written_of(&limit, _i, 1000, 6, 20000), user);
}
END_TEST

START_TEST(kinds_are_apart)
{
	struct line_limit limit = { 0 };

	for (uid_t uid = 0; uid < 100; uid++) {
		written_of(&limit, CLIENT_EVENT, uid, 7, 100);
		written_of(&limit, CLIENT_COMPLAINT, uid, 7, 100);
	}
	ck_assert_uint_eq(written_of(&limit, CLIENT_DAMAGE, 0, 7, 1), 1);
	ck_assert_uint_eq(limit.written[CLIENT_EVENT], line_limit_sum(CLIENT_EVENT));
}
END_TEST

/* More users than are told apart share what one has. */
START_TEST(many_users)
{
	struct line_limit limit = { 0 };
	unsigned written = 0;

	for (uid_t uid = 0; uid < CLIENT_LOG_USERS; uid++)
		written += written_of(&limit, CLIENT_EVENT, uid, 8, 1);
	ck_assert_uint_eq(written, CLIENT_LOG_USERS);
	written = 0;
	for (uid_t uid = 500; uid < 600; uid++)
		written += written_of(&limit, CLIENT_EVENT, uid, 8, 1);
	ck_assert_uint_eq(written, line_limit_user(CLIENT_EVENT));
	ck_assert_uint_eq(line_limit_noisiest(&limit), CLIENT_LOG_NOBODY);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("client log");
	TCase *tc = tcase_create("rates");

	tcase_add_loop_test(tc, a_user_has_a_part, 0, CLIENT_LINES);
	tcase_add_test(tc, kinds_are_apart);
	tcase_add_test(tc, many_users);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
