/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Built with NVMM_MEDIA_POINTS: a writer is killed at each store.
 */
#include "media/meta.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/macro.h"
#include "tests/crash/killer.h"
#include "tests/unit/tempdir.h"

#define POOL 9
#define INCARNATION 4

static int dir;

static struct meta *open_meta(void)
{
	struct meta *meta = NULL;
	const char *why = "";
	int r = meta_open(&meta, dir, 1, POOL, INCARNATION, DURABILITY_PROCESS, &why);

	ck_assert_msg(r == 0, "%s: %s", strerror(-r), why);
	return meta;
}

static struct meta *new_meta(void)
{
	dir = tempdir_new(NULL);
	ck_assert_int_eq(meta_create(dir, 1, POOL, INCARNATION), 0);
	return open_meta();
}

START_TEST(created_once)
{
	struct meta *meta = new_meta();
	const char *why = NULL;

	meta_free(meta);
	meta = NULL;
	ck_assert_int_eq(meta_create(dir, 1, POOL, INCARNATION), -EEXIST);
	ck_assert_int_eq(meta_open(&meta, dir, 2, POOL, INCARNATION, DURABILITY_PROCESS, &why),
			 -ENOENT);
	ck_assert_int_eq(meta_open(&meta, dir, 1, POOL + 1, INCARNATION, DURABILITY_PROCESS, &why),
			 -EUCLEAN);
	ck_assert_int_eq(meta_open(&meta, dir, 1, POOL, INCARNATION + 1, DURABILITY_PROCESS, &why),
			 -EUCLEAN);
	ck_assert_int_eq(renameat(dir, "meta.1", dir, "meta.2"), 0);
	why = NULL;
	ck_assert_int_eq(meta_open(&meta, dir, 2, POOL, INCARNATION, DURABILITY_PROCESS, &why),
			 -EUCLEAN);
	ck_assert_ptr_nonnull(why);
	ck_assert_ptr_null(meta);
	meta_free(NULL);
}
END_TEST

START_TEST(shelves)
{
	struct shelf_record record = { .size = 8192, .limit = 65536 }, got;
	struct meta *meta = new_meta();

	ck_assert_int_eq(meta_shelf_get(meta, 0, &got), 0);
	ck_assert_uint_eq(got.size, 0);
	ck_assert_int_eq(meta_shelf_put(meta, 0, &record), 0);
	record.size = record.limit = SHELF_SIZE_MAX;
	ck_assert_int_eq(meta_shelf_put(meta, POOL_SHELVES_MAX - 1, &record), 0);
	meta_free(meta);
	meta = open_meta();
	ck_assert_int_eq(meta_shelf_get(meta, 0, &got), 0);
	ck_assert_uint_eq(got.size, 8192);
	ck_assert_uint_eq(got.limit, 65536);
	ck_assert_int_eq(meta_shelf_get(meta, POOL_SHELVES_MAX - 1, &got), 0);
	ck_assert_uint_eq(got.size, SHELF_SIZE_MAX);
	ck_assert_int_eq(meta_shelf_get(meta, POOL_SHELVES_MAX, &got), -EINVAL);
	ck_assert_int_eq(meta_shelf_put(meta, POOL_SHELVES_MAX, &record), -EINVAL);
	record.limit = 4096;
	ck_assert_int_eq(meta_shelf_put(meta, 0, &record), -EINVAL);
	record = (struct shelf_record){ .size = 4097, .limit = 8192 };
	ck_assert_int_eq(meta_shelf_put(meta, 0, &record), -EINVAL);
	record = (struct shelf_record){ .size = 4096, .limit = UINT64_C(1) << 40 };
	ck_assert_int_eq(meta_shelf_put(meta, 0, &record), -EINVAL);
	meta_free(meta);
}
END_TEST

static struct root_record root(const char *name, uint64_t ptr)
{
	struct root_record record = { .ptr = ptr, .op_seq = ptr + 1 };

	memset(record.cookie, 0x77, sizeof(record.cookie));
	snprintf(record.name, sizeof(record.name), "%s", name);
	return record;
}

START_TEST(roots)
{
	struct root_record record = root("head", 5), got;
	struct meta *meta = new_meta();
	int place = -2;

	ck_assert_int_eq(meta_root_find(meta, "head", &place), -ENOENT);
	ck_assert_int_eq(place, 0);
	ck_assert_int_eq(meta_root_put(meta, 0, &record), 0);
	record = root("tail/2", 6);
	ck_assert_int_eq(meta_root_put(meta, 1, &record), 0);
	meta_free(meta);
	meta = open_meta();
	ck_assert_int_eq(meta_root_get(meta, 0, &got), 1);
	ck_assert_str_eq(got.name, "head");
	ck_assert_uint_eq(got.ptr, 5);
	ck_assert_uint_eq(got.op_seq, 6);
	ck_assert_uint_eq(got.cookie[15], 0x77);
	ck_assert_int_eq(meta_root_find(meta, "tail/2", NULL), 1);
	ck_assert_int_eq(meta_root_find(meta, "tail", &place), -ENOENT);
	ck_assert_int_eq(place, 2);
	/* removed: the place is free, who removed it is still known */
	record = root("", 9);
	ck_assert_int_eq(meta_root_put(meta, 0, &record), 0);
	ck_assert_int_eq(meta_root_get(meta, 0, &got), 0);
	ck_assert_uint_eq(got.op_seq, 10);
	ck_assert_int_eq(meta_root_find(meta, "head", &place), -ENOENT);
	ck_assert_int_eq(place, 0);
	ck_assert_int_eq(meta_root_get(meta, POOL_ROOTS_MAX, &got), -EINVAL);
	memset(record.name, 'x', sizeof(record.name));
	ck_assert_int_eq(meta_root_put(meta, 0, &record), -EINVAL);
	meta_free(meta);
}
END_TEST

START_TEST(all_roots)
{
	struct meta *meta = new_meta();
	struct root_record record;
	char name[8];
	int place = -2;

	for (uint32_t i = 0; i < POOL_ROOTS_MAX; i++) {
		snprintf(name, sizeof(name), "r%u", i);
		record = root(name, i);
		ck_assert_int_eq(meta_root_put(meta, i, &record), 0);
	}
	ck_assert_int_eq(meta_root_find(meta, "r63", &place), 63);
	ck_assert_int_eq(meta_root_find(meta, "r64", &place), -ENOENT);
	ck_assert_int_eq(place, -1);
	meta_free(meta);
}
END_TEST

START_TEST(service)
{
	struct service_record record = { .in_use = true, .boot_id = { 1, 2 } }, got;
	struct meta *meta = new_meta();

	ck_assert_int_eq(meta_service_get(meta, &got), 0);
	ck_assert(!got.in_use);
	ck_assert_int_eq(meta_service_put(meta, &record), 0);
	ck_assert_int_eq(meta_service_put(meta, &record), 0);
	meta_free(meta);
	meta = open_meta();
	ck_assert_int_eq(meta_service_get(meta, &got), 0);
	ck_assert(got.in_use);
	ck_assert_int_eq(memcmp(got.boot_id, record.boot_id, sizeof(got.boot_id)), 0);
	for (size_t i = 0; i < sizeof(struct service_record_df); i++) {
		size_t at = offsetof(struct meta_file_df, service) + i;

		tempdir_flip(dir, "meta.1", at);
		ck_assert_int_eq(meta_service_get(meta, &got), -EUCLEAN);
		ck_assert_int_eq(meta_service_put(meta, &record), -EUCLEAN);
		tempdir_flip(dir, "meta.1", at);
	}
	record.in_use = false;
	ck_assert_int_eq(meta_service_put(meta, &record), 0);
	ck_assert_int_eq(meta_service_get(meta, &got), 0);
	ck_assert(!got.in_use);
	meta_free(meta);
}
END_TEST

START_TEST(damage_is_found)
{
	struct shelf_record shelf = { .size = 4096, .limit = 4096 };
	struct root_record record = root("r", 1);
	struct meta *meta = new_meta(), *none = NULL;
	const char *why;

	ck_assert_int_eq(meta_shelf_put(meta, 3, &shelf), 0);
	ck_assert_int_eq(meta_root_put(meta, 3, &record), 0);
	for (size_t i = 0; i < sizeof(struct shelf_record_df); i++) {
		size_t at = offsetof(struct meta_file_df, shelf[3]) + i;

		tempdir_flip(dir, "meta.1", at);
		ck_assert_int_eq(meta_shelf_get(meta, 3, &shelf), -EUCLEAN);
		tempdir_flip(dir, "meta.1", at);
	}
	for (size_t i = 0; i < sizeof(struct root_record_df); i++) {
		size_t at = offsetof(struct meta_file_df, root[3]) + i;

		tempdir_flip(dir, "meta.1", at);
		ck_assert_int_eq(meta_root_get(meta, 3, &record), -EUCLEAN);
		ck_assert_int_eq(meta_root_find(meta, "r", NULL), -EUCLEAN);
		tempdir_flip(dir, "meta.1", at);
	}
	for (size_t i = 0; i < sizeof(struct file_header_df); i++) {
		tempdir_flip(dir, "meta.1", i);
		why = NULL;
		ck_assert_int_eq(meta_open(&none, dir, 1, POOL, INCARNATION, DURABILITY_PROCESS,
					   &why), -EUCLEAN);
		ck_assert_ptr_nonnull(why);
		tempdir_flip(dir, "meta.1", i);
	}
	ck_assert_int_eq(meta_root_find(meta, "r", NULL), 3);
	meta_free(meta);
}
END_TEST

static void child_create(void *arg)
{
	if (meta_create(dir, 1, POOL, INCARNATION) < 0)
		_exit(1);
}

START_TEST(killed_while_creating)
{
	struct meta *meta = NULL;
	bool there = false;
	const char *why;
	unsigned k = 0;
	bool died;
	int r;

	do {
		dir = tempdir_new(NULL);
		died = killer_run(k++, child_create, NULL);
		if (died) {
			r = meta_open(&meta, dir, 1, POOL, INCARNATION, DURABILITY_PROCESS, &why);
			/* It is not there, or whole; and whole from the rename on. */
			ck_assert(r == 0 || (r == -ENOENT && !there));
			there = r == 0;
			ck_assert_uint_eq(tempdir_count(dir), there);
			meta_free(take(meta));
			ck_assert_int_eq(meta_create(dir, 1, POOL, INCARNATION),
					 there ? -EEXIST : 0);
		}
		meta_free(open_meta());
		close(dir);
	} while (died);
	ck_assert(there);
	ck_assert_uint_ge(k, 8);
}
END_TEST

static void child_put(void *arg)
{
	struct shelf_record shelf = { .size = 8192, .limit = 8192 };
	struct root_record record = root("new", 2);
	struct meta *meta = open_meta();

	if (meta_shelf_put(meta, 0, &shelf) < 0 || meta_root_put(meta, 0, &record) < 0)
		_exit(1);
}

START_TEST(killed_while_putting)
{
	struct shelf_record shelf = { .size = 4096, .limit = 8192 };
	struct root_record record = root("old", 1), got;
	struct meta *meta;
	bool done, changed, was = false;
	unsigned k = 0;

	do {
		meta = new_meta();
		ck_assert_int_eq(meta_shelf_put(meta, 0, &shelf), 0);
		ck_assert_int_eq(meta_root_put(meta, 0, &record), 0);
		meta_free(meta);
		done = !killer_run(k++, child_put, NULL);
		meta = open_meta();
		ck_assert_int_eq(meta_root_get(meta, 0, &got), 1);
		/* Killed behind the commit, it is the new one too; never a mixture, never back. */
		changed = strcmp(got.name, "new") == 0;
		ck_assert(changed || (!done && !was && strcmp(got.name, "old") == 0));
		ck_assert_uint_eq(got.ptr, changed ? 2 : 1);
		was = changed;
		ck_assert_int_eq(meta_shelf_get(meta, 0, &shelf), 0);
		ck_assert(shelf.size == 8192 || (!done && shelf.size == 4096));
		shelf.size = 4096;
		meta_free(meta);
		close(dir);
	} while (!done);
	ck_assert_uint_ge(k, (64 + 128) / 8);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("meta");
	TCase *tc = tcase_create("meta");

	tcase_add_test(tc, created_once);
	tcase_add_test(tc, shelves);
	tcase_add_test(tc, roots);
	tcase_add_test(tc, all_roots);
	tcase_add_test(tc, service);
	tcase_add_test(tc, damage_is_found);
	tcase_add_test(tc, killed_while_creating);
	tcase_add_test(tc, killed_while_putting);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
