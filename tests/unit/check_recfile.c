/* SPDX-License-Identifier: BSD-3-Clause */
#include "media/recfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "tests/unit/tempdir.h"

static const struct recfile_id id = {
	.name = "meta.7",
	.magic = FILE_MAGIC_META,
	.node = 7,
	.pool = 3,
	.incarnation = 11,
	.size = 2 * MEDIA_PAGE,
};

static int dir;

static int open_as(const struct recfile_id *as)
{
	struct recfile file;
	const char *why = NULL;
	int r = recfile_open(&file, dir, as, &why);

	if (r == 0)
		recfile_deinit(&file);
	ck_assert_int_eq(r == -EUCLEAN, why != NULL);
	return r;
}

START_TEST(made_and_opened)
{
	struct recfile file;
	const char *why;

	dir = tempdir_new(NULL);
	ck_assert_int_eq(open_as(&id), -ENOENT);
	ck_assert_int_eq(recfile_create(dir, &id), 0);
	ck_assert_int_eq(recfile_create(dir, &id), -EEXIST);
	ck_assert_uint_eq(tempdir_count(dir), 1);
	ck_assert_int_eq(recfile_open(&file, dir, &id, &why), 0);
	ck_assert_uint_eq(file.length, 2 * MEDIA_PAGE);
	for (size_t i = sizeof(struct file_header_df); i < file.length; i++)
		ck_assert_int_eq(file.addr[i], 0);
	recfile_deinit(&file);
	recfile_deinit(&file);
}
END_TEST

START_TEST(another_file_is_refused)
{
	struct recfile_id other = id;

	dir = tempdir_new(NULL);
	ck_assert_int_eq(recfile_create(dir, &id), 0);
	other.magic = FILE_MAGIC_NODE;
	ck_assert_int_eq(open_as(&other), -EUCLEAN);
	other = id;
	other.pool = 4;
	ck_assert_int_eq(open_as(&other), -EUCLEAN);
	other = id;
	other.incarnation = 10;
	ck_assert_int_eq(open_as(&other), -EUCLEAN);
	other = id;
	other.size = 3 * MEDIA_PAGE;
	ck_assert_int_eq(open_as(&other), -EUCLEAN);
	other = id;
	other.node = 8;
	ck_assert_int_eq(open_as(&other), -EUCLEAN);
	other.any_node = true;
	ck_assert_int_eq(open_as(&other), 0);
	ck_assert_int_eq(open_as(&id), 0);
}
END_TEST

static void leave_draft(void)
{
	int fd = openat(dir, ".meta.7.new", O_CREAT | O_EXCL | O_WRONLY, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, "half", 4), 4);
	close(fd);
}

START_TEST(drafts_are_removed)
{
	dir = tempdir_new(NULL);
	leave_draft();
	ck_assert_int_eq(open_as(&id), -ENOENT);
	ck_assert_uint_eq(tempdir_count(dir), 0);
	leave_draft();
	ck_assert_int_eq(recfile_create(dir, &id), 0);
	ck_assert_uint_eq(tempdir_count(dir), 1);
	ck_assert_int_eq(open_as(&id), 0);
}
END_TEST

START_TEST(symlinks_are_refused)
{
	dir = tempdir_new(NULL);
	ck_assert_int_eq(recfile_create(dir, &id), 0);
	ck_assert_int_eq(renameat(dir, "meta.7", dir, "elsewhere"), 0);
	ck_assert_int_eq(symlinkat("elsewhere", dir, "meta.7"), 0);
	ck_assert_int_eq(open_as(&id), -ELOOP);
	ck_assert_int_eq(recfile_create(dir, &id), -EEXIST);
}
END_TEST

/* A compatible feature may use the rest of the header page; without one it must be zero. */
START_TEST(padding_belongs_to_features)
{
	uint32_t header[sizeof(struct file_header_df) / 4];
	int fd;

	dir = tempdir_new(NULL);
	ck_assert_int_eq(recfile_create(dir, &id), 0);
	tempdir_flip(dir, "meta.7", MEDIA_PAGE - 1);
	ck_assert_int_eq(open_as(&id), -EUCLEAN);
	fd = openat(dir, "meta.7", O_RDWR);
	ck_assert_int_eq(pread(fd, header, sizeof(header), 0), sizeof(header));
	header[offsetof(struct file_header_df, compat) / 4] = 1;
	header[offsetof(struct file_header_df, crc) / 4] = 0;
	header[offsetof(struct file_header_df, crc) / 4] =
		(uint32_t)crc32(0, (const Bytef *)header, sizeof(header));
	ck_assert_int_eq(pwrite(fd, header, sizeof(header), 0), sizeof(header));
	close(fd);
	ck_assert_int_eq(open_as(&id), 0);
}
END_TEST

START_TEST(durability_is_the_medium_s)
{
	struct recfile file;
	const char *why;

	dir = tempdir_on_disk();
	ck_assert_int_eq(recfile_create(dir, &id), 0);
	ck_assert_int_eq(recfile_open(&file, dir, &id, &why), 0);
	ck_assert_int_eq(file.durability, file_durability(file.fd, file.addr, id.size));
	recfile_deinit(&file);
	dir = tempdir_small(1 << 20);
	if (dir < 0) {
		printf("SKIP: durability_is_the_medium_s, tmpfs: may not mount: %s\n",
		       strerror(-dir));
		return;
	}
	ck_assert_int_eq(recfile_create(dir, &id), 0);
	ck_assert_int_eq(recfile_open(&file, dir, &id, &why), 0);
	ck_assert_int_eq(file.durability, getenv("PMEM_IS_PMEM_FORCE") ? DURABILITY_POWER :
								       DURABILITY_PROCESS);
	recfile_deinit(&file);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("recfile");
	TCase *tc = tcase_create("recfile");

	tcase_add_test(tc, made_and_opened);
	tcase_add_test(tc, another_file_is_refused);
	tcase_add_test(tc, drafts_are_removed);
	tcase_add_test(tc, symlinks_are_refused);
	tcase_add_test(tc, padding_belongs_to_features);
	tcase_add_test(tc, durability_is_the_medium_s);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
