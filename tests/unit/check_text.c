/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/text.h"

#include <errno.h>
#include <string.h>

#include "common/macro.h"
#include "tests/unit/tempdir.h"

static const struct {
	const char *text;
	int r;
	uint64_t bytes;
} sizes[] = {
	{ "0", 0, 0 },
	{ "4096", 0, 4096 },
	{ "12B", 0, 12 },
	{ "1K", 0, 1024 },
	{ "1kB", 0, 1024 },
	{ "128MiB", 0, UINT64_C(128) << 20 },
	{ "128 MiB", 0, UINT64_C(128) << 20 },
	{ "1G", 0, UINT64_C(1) << 30 },
	{ "1.5TiB", 0, UINT64_C(3) << 39 },
	{ "0.001K", 0, 1 },
	{ "0.999999999T", 0, UINT64_C(1099511626676) },
	{ "9223372036854775807", 0, INT64_MAX },
	{ "9223372036854775808", -ERANGE, 0 },
	{ "8388608T", -ERANGE, 0 },
	{ "8388607.999999999T", 0, UINT64_C(9223372036854774708) },
	{ "99999999999999999999999", -ERANGE, 0 },
	{ "", -EINVAL, 0 },
	{ "-1", -EINVAL, 0 },
	{ "+1", -EINVAL, 0 },
	{ " 1", -EINVAL, 0 },
	{ "1 ", -EINVAL, 0 },
	{ "1  M", -EINVAL, 0 },
	{ "1.5", -EINVAL, 0 },
	{ "1.M", -EINVAL, 0 },
	{ ".5M", -EINVAL, 0 },
	{ "1iB", -EINVAL, 0 },
	{ "1X", -EINVAL, 0 },
	{ "1MM", -EINVAL, 0 },
	{ "1e3", -EINVAL, 0 },
	{ "0x10", -EINVAL, 0 },
	{ "1.0000000001K", -EINVAL, 0 },
};

START_TEST(size_is_parsed)
{
	uint64_t bytes = 7;

	ck_assert_msg(text_parse_size(&bytes, sizes[_i].text) == sizes[_i].r, "'%s'",
		      sizes[_i].text);
	ck_assert_uint_eq(bytes, sizes[_i].r == 0 ? sizes[_i].bytes : 7);
}
END_TEST

static const struct {
	uint64_t bytes;
	const char *text;
} formats[] = {
	{ 0, "0 B" },
	{ 1023, "1023 B" },
	{ 1024, "1.0 KiB" },
	{ 1536, "1.5 KiB" },
	{ (UINT64_C(1) << 20) - 1, "1.0 MiB" },
	{ UINT64_C(128) << 20, "128.0 MiB" },
	{ UINT64_MAX, "16.0 EiB" },
};

START_TEST(size_is_formatted)
{
	char buf[32];

	ck_assert_str_eq(text_format_size(buf, sizeof(buf), formats[_i].bytes), formats[_i].text);
}
END_TEST

START_TEST(numbers)
{
	uint64_t v = 7;

	ck_assert_int_eq(text_parse_u64(&v, "65535", 65535), 0);
	ck_assert_uint_eq(v, 65535);
	ck_assert_int_eq(text_parse_u64(&v, "65536", 65535), -ERANGE);
	ck_assert_int_eq(text_parse_u64(&v, "5", 3), -ERANGE);
	ck_assert_int_eq(text_parse_u64(&v, "18446744073709551615", UINT64_MAX), 0);
	ck_assert_uint_eq(v, UINT64_MAX);
	ck_assert_int_eq(text_parse_u64(&v, "18446744073709551616", UINT64_MAX), -ERANGE);
	ck_assert_int_eq(text_parse_u64(&v, "", 9), -EINVAL);
	ck_assert_int_eq(text_parse_u64(&v, "1 ", 9), -EINVAL);
	ck_assert_int_eq(text_parse_u64(&v, "-1", 9), -EINVAL);
	ck_assert_uint_eq(v, UINT64_MAX);
}
END_TEST

START_TEST(modes)
{
	uint32_t mode = 7;

	ck_assert_int_eq(text_parse_mode(&mode, "0640"), 0);
	ck_assert_uint_eq(mode, 0640);
	ck_assert_int_eq(text_parse_mode(&mode, "600"), 0);
	ck_assert_uint_eq(mode, 0600);
	ck_assert_int_eq(text_parse_mode(&mode, "0750"), -EINVAL);
	ck_assert_int_eq(text_parse_mode(&mode, "1666"), -EINVAL);
	ck_assert_int_eq(text_parse_mode(&mode, "0680"), -EINVAL);
	ck_assert_int_eq(text_parse_mode(&mode, "6"), -EINVAL);
	ck_assert_int_eq(text_parse_mode(&mode, ""), -EINVAL);
	ck_assert_int_eq(text_parse_mode(&mode, "rw-r-----"), -EINVAL);
	ck_assert_int_eq(text_parse_mode(&mode, "00640"), -EINVAL);
	ck_assert_uint_eq(mode, 0600);
}
END_TEST

START_TEST(copies_are_padded)
{
	char field[6] = "xxxxx";

	ck_assert_int_eq(text_copy(field, sizeof(field), "ab"), 0);
	ck_assert_mem_eq(field, "ab\0\0\0\0", 6);
	ck_assert_int_eq(text_copy(field, sizeof(field), "abcde"), 0);
	ck_assert_int_eq(text_copy(field, sizeof(field), "abcdef"), -ENAMETOOLONG);
	ck_assert_str_eq(field, "abcde");
}
END_TEST

static const struct {
	const char *text;
	size_t n;
	uint32_t c;
} characters[] = {
	{ "a", 1, 'a' },
	{ "\xc3\xa9", 2, 0xe9 },
	{ "\xe2\x82\xac", 3, 0x20ac },
	{ "\xf0\x9f\x92\xbe", 4, 0x1f4be },
	{ "\x80", 0, 0 },             /* a continuation first */
	{ "\xc3", 0, 0 },             /* cut short */
	{ "\xc0\xaf", 0, 0 },         /* '/' overlong */
	{ "\xe0\x80\xaf", 0, 0 },     /* the same */
	{ "\xed\xa0\x80", 0, 0 },     /* a surrogate */
	{ "\xf4\x90\x80\x80", 0, 0 }, /* over U+10FFFF */
	{ "\xff", 0, 0 },
	{ "", 0, 0 },
};

START_TEST(utf8)
{
	const char *text = characters[_i].text;
	uint32_t c = 0;

	ck_assert_uint_eq(text_utf8(&c, text, strlen(text)), characters[_i].n);
	ck_assert_uint_eq(c, characters[_i].c);
}
END_TEST

START_TEST(controls)
{
	ck_assert(text_is_control('\n'));
	ck_assert(text_is_control(0x1b));
	ck_assert(text_is_control(0x7f));
	ck_assert(text_is_control(0x9b));
	ck_assert(!text_is_control(' '));
	ck_assert(!text_is_control(0xa0));
}
END_TEST

START_TEST(unseen)
{
	static const uint32_t seen[] = { ' ', 'a', 0xa0, 0xac, 0xae, 0x34e, 0x350, 0x202f, 0x2027, 0x2070,
					 0xfffd, 0x1f4be, 0xdfffd, 0xe1000, 0x10fffd };
	static const uint32_t not[] = { 0, '\n', 0x7f, 0x85, 0xad, 0x61c, 0x200b, 0x200e, 0x200f, 0x2028, 0x2029,
					0x202a, 0x202e, 0x2060, 0x2066, 0x2069, 0xfe0f, 0xfeff, 0xfffe,
					0xffff, 0xe0001, 0xe01ef, 0x10ffff };

	for (size_t i = 0; i < ARRAY_SIZE(seen); i++)
		ck_assert_msg(text_is_shown(seen[i]), "U+%04X", seen[i]);
	for (size_t i = 0; i < ARRAY_SIZE(not); i++)
		ck_assert_msg(!text_is_shown(not[i]), "U+%04X", not[i]);
	ck_assert(text_is_blank(' ') && text_is_blank(0xa0) && text_is_blank(0x3000));
	ck_assert(!text_is_blank('a') && !text_is_blank('\t'));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("text");
	TCase *tc = tcase_create("text");

	tcase_add_loop_test(tc, size_is_parsed, 0, (int)ARRAY_SIZE(sizes));
	tcase_add_loop_test(tc, size_is_formatted, 0, (int)ARRAY_SIZE(formats));
	tcase_add_test(tc, numbers);
	tcase_add_test(tc, modes);
	tcase_add_test(tc, copies_are_padded);
	tcase_add_loop_test(tc, utf8, 0, (int)ARRAY_SIZE(characters));
	tcase_add_test(tc, controls);
	tcase_add_test(tc, unseen);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
