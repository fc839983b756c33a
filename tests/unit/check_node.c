/* SPDX-License-Identifier: BSD-3-Clause */
#include "media/node.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/tempdir.h"

static int dir;

static struct node_file *open_node(struct node_record *ret, uint16_t node)
{
	struct node_file *file = NULL;
	const char *why = "";
	int r;

	memset(ret, 0xff, sizeof(*ret));
	r = node_file_new(&file, ret, dir, node, &why);
	ck_assert_msg(r == 0, "%s: %s", strerror(-r), why);
	return file;
}

START_TEST(record_lasts)
{
	struct node_record record;
	struct node_file *file;

	dir = tempdir_new(NULL);
	file = open_node(&record, 3);
	ck_assert_uint_eq(record.node, 3);
	ck_assert_uint_eq(record.starts, 0);
	ck_assert(!record.clean);
	ck_assert_str_eq(record.name, "");
	record.starts = 8;
	record.clean = true;
	record.last_stop = 1700000000;
	memset(record.boot_id, 0xb0, sizeof(record.boot_id));
	snprintf(record.name, sizeof(record.name), "host");
	ck_assert_int_eq(node_file_put(file, &record), 0);
	node_file_free(file);

	file = open_node(&record, 3);
	ck_assert_uint_eq(record.starts, 8);
	ck_assert(record.clean);
	ck_assert_uint_eq(record.last_stop, 1700000000);
	ck_assert_uint_eq(record.boot_id[15], 0xb0);
	ck_assert_str_eq(record.name, "host");
	record.clean = false;
	ck_assert_int_eq(node_file_put(file, &record), 0);
	record.node = 4;
	ck_assert_int_eq(node_file_put(file, &record), -EINVAL);
	record.node = 3;
	memset(record.name, 'x', sizeof(record.name));
	ck_assert_int_eq(node_file_put(file, &record), -EINVAL);
	node_file_free(file);

	file = open_node(&record, 3);
	ck_assert(!record.clean);
	node_file_free(file);
	file = open_node(&record, 4);
	ck_assert_uint_eq(record.starts, 0);
	node_file_free(file);
	node_file_free(NULL);
}
END_TEST

START_TEST(damage_is_refused)
{
	struct node_file *file = NULL;
	struct node_record record;
	const char *why;

	dir = tempdir_new(NULL);
	file = open_node(&record, 3);
	ck_assert_int_eq(node_file_put(file, &record), 0);
	node_file_free(file);
	file = NULL;
	for (size_t i = 0; i < offsetof(struct node_file_df, slot[1]); i++) {
		if (i == sizeof(struct file_header_df))
			i = offsetof(struct node_file_df, slot);
		tempdir_flip(dir, "node-3", i);
		why = NULL;
		ck_assert_int_eq(node_file_new(&file, &record, dir, 3, &why), -EUCLEAN);
		ck_assert_ptr_nonnull(why);
		ck_assert_ptr_null(file);
		tempdir_flip(dir, "node-3", i);
	}
	ck_assert_int_eq(renameat(dir, "node-3", dir, "node-4"), 0);
	ck_assert_int_eq(node_file_new(&file, &record, dir, 4, &why), -EUCLEAN);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("node");
	TCase *tc = tcase_create("node");

	tcase_add_test(tc, record_lasts);
	tcase_add_test(tc, damage_is_refused);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
