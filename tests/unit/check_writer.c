/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The writer: alignment, both formats of one description, hostile texts, failures.
 */
#include "ctl/writer.h"

#include <check.h>
#include <errno.h>
#include <jansson.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/unit/suite.h"

static char *text;
static size_t len;
static FILE *out;
static struct writer *writer;

static void begin(enum writer_format format)
{
	out = open_memstream(&text, &len);
	ck_assert_ptr_nonnull(out);
	ck_assert_int_eq(writer_new(&writer, format, out), 0);
}

static void end(void)
{
	ck_assert_int_eq(writer_finish(writer), 0);
	writer_free(writer);
	fclose(out);
}

static void describe(void)
{
	static const uint32_t pools[] = { 1, 22 };

	writer_count(writer, "node", "node", 3);
	writer_text(writer, "base", "shelf base", "/base");
	writer_bytes(writer, "reserved", NULL, 4096);
	writer_list(writer, "pools");
	writer_item(writer);
	writer_count(writer, "id", "id", 7);
	writer_text(writer, "name", "name", "wörter");
	writer_bytes(writer, "size", "size", 128 << 20);
	writer_share(writer, "part", "part", 1, 3);
	writer_mode(writer, "mode", "mode", 0640);
	writer_flag(writer, "good", "good", true);
	writer_item(writer);
	writer_count(writer, "id", "id", 12345);
	writer_text(writer, "name", "name", "");
	writer_none(writer, "size", "size");
	writer_share(writer, "part", "part", 0, 0);
	writer_mode(writer, "mode", "mode", 07777);
	writer_flag(writer, "good", "good", false);
	writer_list_end(writer, "none");
	writer_numbers(writer, "open", "open", pools, 2);
	writer_numbers(writer, "shut", "shut", pools, 0);
}

START_TEST(test_text)
{
	begin(WRITER_TEXT);
	describe();
	end();
	ck_assert_str_eq(text, "node        3\n"
			       "shelf base  /base\n"
			       "\n"
			       "   ID  NAME         SIZE    PART  MODE       GOOD\n"
			       "    7  wörter  128.0 MiB  33.3 %  rw-r-----  yes\n"
			       "12345  -               -       -  rwxrwxrwx  no\n"
			       "\n"
			       "open  1,22\n"
			       "shut  -\n");
	free(text);
}
END_TEST

START_TEST(test_json)
{
	json_t *root, *item;

	begin(WRITER_JSON);
	describe();
	end();
	root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	ck_assert_ptr_nonnull(root);
	ck_assert_int_eq(json_integer_value(json_object_get(root, "node")), 3);
	ck_assert_str_eq(json_string_value(json_object_get(root, "base")), "/base");
	ck_assert_int_eq(json_integer_value(json_object_get(root, "reserved")), 4096);
	ck_assert_uint_eq(json_array_size(json_object_get(root, "pools")), 2);
	item = json_array_get(json_object_get(root, "pools"), 0);
	ck_assert_str_eq(json_string_value(json_object_get(item, "name")), "wörter");
	ck_assert_int_eq(json_integer_value(json_object_get(item, "size")), 128 << 20);
	ck_assert_double_eq_tol(json_real_value(json_object_get(item, "part")), 33.3, 0.1);
	ck_assert_str_eq(json_string_value(json_object_get(item, "mode")), "0640");
	ck_assert(json_is_true(json_object_get(item, "good")));
	item = json_array_get(json_object_get(root, "pools"), 1);
	ck_assert_str_eq(json_string_value(json_object_get(item, "name")), "");
	ck_assert(json_is_null(json_object_get(item, "size")));
	ck_assert(json_is_null(json_object_get(item, "part")));
	ck_assert_uint_eq(json_array_size(json_object_get(root, "open")), 2);
	ck_assert_uint_eq(json_array_size(json_object_get(root, "shut")), 0);
	json_decref(root);
	free(text);
}
END_TEST

START_TEST(test_empty_list)
{
	begin(WRITER_TEXT);
	writer_list(writer, "pools");
	writer_list_end(writer, "No pools.");
	end();
	ck_assert_str_eq(text, "No pools.\n");
	free(text);
	begin(WRITER_JSON);
	writer_list(writer, "pools");
	writer_list_end(writer, "No pools.");
	end();
	ck_assert_str_eq(text, "{\n  \"pools\": []\n}\n");
	free(text);
}
END_TEST

START_TEST(test_time)
{
	begin(WRITER_JSON);
	writer_time(writer, "at", "at", 1700000000);
	writer_time(writer, "never", "never", 0);
	end();
	ck_assert_str_eq(text, "{\n  \"at\": \"2023-11-14T22:13:20Z\",\n  \"never\": null\n}\n");
	free(text);
	setenv("TZ", "UTC", 1);
	tzset();
	begin(WRITER_TEXT);
	writer_time(writer, "at", "at", 1700000000);
	writer_time(writer, "never", "never", 0);
	end();
	ck_assert_str_eq(text, "at     2023-11-14 22:13:20\nnever  -\n");
	free(text);
}
END_TEST

/* A name cannot move the cursor, begin a line, or make the JSON unreadable. */
START_TEST(test_hostile)
{
	static const char hostile[] = "a\033[2Jb\nc\x7f\xff\xc2\x9b" "d\xc3";
	json_t *root;

	begin(WRITER_TEXT);
	writer_text(writer, "name", "name", hostile);
	end();
	ck_assert_str_eq(text, "name  a?[2Jb?c???d?\n");
	free(text);
	begin(WRITER_JSON);
	writer_text(writer, "name", "name", hostile);
	writer_text(writer, "fine", "fine", "a\"b\\c\n");
	writer_count(writer, "large", "large", UINT64_MAX);
	end();
	root = json_loads(text, 0, NULL);
	ck_assert_ptr_nonnull(root);
	ck_assert_str_eq(json_string_value(json_object_get(root, "fine")), "a\"b\\c\n");
	ck_assert_str_eq(json_string_value(json_object_get(root, "large")), "18446744073709551615");
	json_decref(root);
	free(text);
}
END_TEST

/* Nor turn around what follows it, in text or in JSON, which has it nevertheless. */
START_TEST(test_unseen)
{
	static const char name[] = "a\xe2\x80\xae" "b\xf3\xa0\x81\x81\xc3\xa9";
	json_t *root;

	begin(WRITER_TEXT);
	writer_text(writer, "name", "name", name);
	end();
	ck_assert_ptr_nonnull(strstr(text, "a?b?"));
	free(text);
	begin(WRITER_JSON);
	writer_text(writer, "name", "name", name);
	end();
	ck_assert_ptr_nonnull(strstr(text, "a\\u202eb\\udb40\\udc41\xc3\xa9"));
	root = json_loads(text, 0, NULL);
	ck_assert_str_eq(json_string_value(json_object_get(root, "name")), name);
	json_decref(root);
	free(text);
}
END_TEST

START_TEST(test_many_rows)
{
	size_t lines = 0;

	begin(WRITER_TEXT);
	writer_list(writer, "rows");
	for (uint64_t i = 0; i < 5000; i++) {
		writer_item(writer);
		writer_count(writer, "i", "i", i);
		writer_count(writer, "j", "j", i * i);
	}
	writer_list_end(writer, "none");
	end();
	for (const char *c = text; *c; c++)
		lines += *c == '\n';
	ck_assert_uint_eq(lines, 5001);
	free(text);
}
END_TEST

START_TEST(test_full_disk)
{
	FILE *full = fopen("/dev/full", "w");

	if (!full)
		return;
	ck_assert_int_eq(writer_new(&writer, _i ? WRITER_JSON : WRITER_TEXT, full), 0);
	writer_count(writer, "a", "a", 1);
	ck_assert_int_lt(writer_finish(writer), 0);
	writer_free(writer);
	fclose(full);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("writer");
	TCase *tcase = tcase_create("writer");

	setlocale(LC_CTYPE, "C.UTF-8");
	suite_add_tcase(suite, tcase);
	tcase_add_test(tcase, test_text);
	tcase_add_test(tcase, test_json);
	tcase_add_test(tcase, test_empty_list);
	tcase_add_test(tcase, test_time);
	tcase_add_test(tcase, test_hostile);
	tcase_add_test(tcase, test_unseen);
	tcase_add_test(tcase, test_many_rows);
	tcase_add_loop_test(tcase, test_full_disk, 0, 2);
	return suite_run(suite);
}
