/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names that may be given to new pools and roots.
 */
#include <string.h>

#include "common/macro.h"
#include "daemon/names.h"
#include "media/format.h"
#include "tests/unit/tempdir.h"

static const char *const good[] = {
	"a", "words", "...", "a b.c-d_\xc3\xa9", "42a", "a42", "0x2a", "+42", "4 2", "4.2",
	"\xd8\xb9\xd8\xb1\xd8\xa8", /* Arabic letters alone need no controls */
	"\xe6\x97\xa5\xe6\x9c\xac", "\xf0\x9f\x92\xbe",
};

START_TEST(good_names)
{
	ck_assert_ptr_null(name_refused(good[_i], POOL_NAME_MAX));
	ck_assert_ptr_null(pool_name_refused(good[_i]));
}
END_TEST

/* Of pools and roots alike. */
static const char *const bad[] = {
	"", ".", "..", "a/b", "/", "a\x1b", "a\x7f", "a\n", "a\xc2\x85",
	"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", /* overlong */
	"\xc3", "\xff", "\xed\xa0\x80", "\xf4\x90\x80\x80", "a\x80",
	"a\xe2\x80\xaa" "b", "a\xe2\x80\xab" "b", "a\xe2\x80\xac" "b", "a\xe2\x80\xad" "b",
	"a\xe2\x80\xae" "b",                               /* U+202A to U+202E */
	"a\xe2\x81\xa6" "b", "a\xe2\x81\xa7" "b", "a\xe2\x81\xa8" "b", "a\xe2\x81\xa9" "b",
	"a\xe2\x80\x8e" "b", "a\xe2\x80\x8f" "b", "a\xd8\x9c" "b", /* marks */
	"a\xe2\x80\x8b" "b", "a\xe2\x80\x8c" "b", "a\xe2\x80\x8d" "b", /* zero width */
	"a\xef\xbb\xbf", "\xef\xbb\xbf" "a",                       /* byte order mark */
	"a\xe2\x80\xa8" "b", "a\xe2\x80\xa9" "b",                  /* separators */
	"a\xe2\x81\xa0" "b", "a\xc2\xad" "b", "a\xef\xb8\x8f", "a\xe3\x85\xa4" "b",
	"a\xf3\xa0\x81\x81" "b",                                   /* a tag */
	"a\xef\xbf\xbe", "a\xef\xb7\x90",                          /* noncharacters */
	" a", "a ", " ", "\xc2\xa0" "a", "a\xe3\x80\x80", "\xe2\x80\x83",
	"-a", "--force", "--socket=/tmp/s",
};

START_TEST(bad_names)
{
	const char *why = name_refused(bad[_i], ROOT_NAME_MAX);

	ck_assert_msg(why != NULL, "'%s' is taken", bad[_i]);
	ck_assert_ptr_nonnull(pool_name_refused(bad[_i]));
}
END_TEST

/* What nvmmctl takes for an id. */
START_TEST(digits_are_ids)
{
	static const char *const digits[] = { "0", "42", "042", "65535", "99999999999999999999999" };

	for (size_t i = 0; i < ARRAY_SIZE(digits); i++) {
		ck_assert_ptr_nonnull(pool_name_refused(digits[i]));
		ck_assert_ptr_null(name_refused(digits[i], ROOT_NAME_MAX));
	}
}
END_TEST

START_TEST(lengths)
{
	char name[POOL_NAME_MAX + 2] = "";

	memset(name, 'n', POOL_NAME_MAX);
	ck_assert_ptr_null(pool_name_refused(name));
	ck_assert_ptr_nonnull(name_refused(name, ROOT_NAME_MAX));
	name[POOL_NAME_MAX] = 'n';
	ck_assert_ptr_nonnull(pool_name_refused(name));
	/* A character that the limit cuts in two. */
	memset(name, 'n', sizeof(name));
	memcpy(name + POOL_NAME_MAX - 1, "\xc3\xa9", 3);
	ck_assert_ptr_nonnull(pool_name_refused(name));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("names");
	TCase *tc = tcase_create("names");

	tcase_add_loop_test(tc, good_names, 0, (int)ARRAY_SIZE(good));
	tcase_add_loop_test(tc, bad_names, 0, (int)ARRAY_SIZE(bad));
	tcase_add_test(tc, digits_are_ids);
	tcase_add_test(tc, lengths);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
