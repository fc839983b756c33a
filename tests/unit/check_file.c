/* SPDX-License-Identifier: BSD-3-Clause */
#include "media/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "tests/unit/tempdir.h"

#define MIB (UINT64_C(1) << 20)

START_TEST(created_whole)
{
	int dir = tempdir_new(NULL), fd = -1;
	struct stat st;
	mode_t mask = umask(0277);

	ck_assert_int_eq(file_create(&fd, dir, "f", 3 * MIB), 0);
	umask(mask);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_size, 3 * MIB);
	ck_assert_uint_ge((uint64_t)st.st_blocks * 512, 3 * MIB);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_int_ne(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
	close(fd);
	fd = -1;
	ck_assert_int_eq(file_create(&fd, dir, "f", MIB), -EEXIST);
	ck_assert_int_eq(fd, -1);
	ck_assert_int_eq(file_create(&fd, dir, "empty", 0), 0);
	close(fd);
}
END_TEST

START_TEST(opened_if_regular)
{
	int dir = tempdir_new(NULL), fd = -1;

	ck_assert_int_eq(file_open(&fd, dir, "f", O_RDWR), -ENOENT);
	ck_assert_int_eq(mkdirat(dir, "d", 0700), 0);
	ck_assert_int_eq(mkfifoat(dir, "p", 0600), 0);
	ck_assert_int_eq(file_create(&fd, dir, "f", 1), 0);
	close(fd);
	fd = -1;
	ck_assert_int_eq(symlinkat("f", dir, "l"), 0);
	ck_assert_int_eq(file_open(&fd, dir, "l", O_RDWR), -ELOOP);
	ck_assert_int_eq(file_open(&fd, dir, "d", O_RDWR), -EINVAL);
	ck_assert_int_eq(file_open(&fd, dir, "d", O_RDONLY), -EINVAL);
	ck_assert_int_eq(file_open(&fd, dir, "p", O_RDONLY), -EINVAL);
	ck_assert_int_eq(file_open(&fd, dir, "p", O_RDWR), -EINVAL);
	ck_assert_int_eq(fd, -1);
	ck_assert_int_eq(file_open(&fd, dir, "f", O_RDONLY), 0);
	ck_assert_int_eq(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	close(fd);
}
END_TEST

START_TEST(no_space_leaves_nothing)
{
	int dir = tempdir_small(MIB), fd = -1;
	struct stat st;

	if (dir < 0) {
		printf("SKIP: no_space_leaves_nothing: may not mount: %s\n", strerror(-dir));
		return;
	}
	ck_assert_int_eq(file_create(&fd, dir, "f", 2 * MIB), -ENOSPC);
	ck_assert_int_eq(fd, -1);
	ck_assert_uint_eq(tempdir_count(dir), 0);
	ck_assert_int_eq(file_create(&fd, dir, "f", MIB / 2), 0);
	ck_assert_int_eq(file_reserve(fd, MIB / 2, 2 * MIB), -ENOSPC);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_size, MIB / 2);
	ck_assert_int_eq(file_reserve(fd, MIB / 2, MIB), 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_size, MIB);
	close(fd);
}
END_TEST

START_TEST(reserve_checks_its_range)
{
	int dir = tempdir_new(NULL), fd = -1;

	ck_assert_int_eq(file_create(&fd, dir, "f", 4096), 0);
	ck_assert_int_eq(file_reserve(fd, 2, 1), -EINVAL);
	ck_assert_int_eq(file_reserve(fd, 0, UINT64_MAX), -EFBIG);
	ck_assert_int_eq(file_reserve(fd, 9, 9), 0);
	close(fd);
}
END_TEST

START_TEST(mapping_serves_the_grown_file)
{
	int dir = tempdir_new(NULL), fd = -1;
	void *p = NULL;
	char *map, *other;

	ck_assert_int_eq(file_create(&fd, dir, "f", MIB), 0);
	ck_assert_int_eq(file_map(&p, fd, MIB, UINT64_C(64) << 30, true), 0);
	map = p;
	ck_assert_uint_eq((uintptr_t)map % (2 * MIB), 0);
	map[MIB - 1] = 'a';
	ck_assert_int_eq(file_reserve(fd, MIB, 16 * MIB), 0);
	ck_assert_int_eq(map[16 * MIB - 1], 0);
	map[16 * MIB - 1] = 'b';
	ck_assert_int_eq(file_map(&p, fd, 16 * MIB, 0, false), 0);
	other = p;
	ck_assert_int_eq(other[MIB - 1], 'a');
	ck_assert_int_eq(other[16 * MIB - 1], 'b');
	file_unmap(other, 16 * MIB);
	file_unmap(map, UINT64_C(64) << 30);
	file_unmap(NULL, 1);
	close(fd);
}
END_TEST

START_TEST(mapping_needs_its_file)
{
	int dir = tempdir_new(NULL), fd = -1;
	void *p = NULL;

	ck_assert_int_eq(file_create(&fd, dir, "f", 4096), 0);
	ck_assert_int_eq(file_map(&p, fd, 4097, 0, true), -ENODATA);
	ck_assert_int_eq(file_map(&p, fd, 0, 4096, true), -EINVAL);
	ck_assert_int_eq(file_map(&p, fd, 4096, UINT64_MAX, true), -EINVAL);
	ck_assert_ptr_null(p);
	ck_assert_int_eq(file_map(&p, fd, 1, 0, true), 0);
	ck_assert(!file_is_pmem(p, 1));
	file_unmap(p, 1);
	close(fd);
}
END_TEST

union header {
	uint8_t byte[sizeof(struct file_header_df)];
	uint64_t word[8];
	struct file_header_df df;
};

START_TEST(header_is_checked)
{
	union header h = { .word = { 0 } };
	const char *why = NULL;

	file_header_seal(&h.df, FILE_MAGIC_TABLE, 3, 9, 77, 2, 64, 4096);
	ck_assert_int_eq(file_header_check(&h.df, FILE_MAGIC_TABLE, 9, 77, 2, &why), 0);
	ck_assert_ptr_null(why);
	ck_assert_uint_eq(h.df.node.raw, 3);
	ck_assert_uint_eq(h.df.min_block.raw, 64);
	ck_assert_uint_eq(h.df.limit.raw, 4096);
	ck_assert_int_eq(file_header_check(&h.df, FILE_MAGIC_STATE, 9, 77, 2, &why), -EUCLEAN);
	ck_assert_ptr_nonnull(why);
	ck_assert_int_eq(file_header_check(&h.df, FILE_MAGIC_TABLE, 8, 77, 2, &why), -EUCLEAN);
	ck_assert_int_eq(file_header_check(&h.df, FILE_MAGIC_TABLE, 9, 76, 2, &why), -EUCLEAN);
	ck_assert_int_eq(file_header_check(&h.df, FILE_MAGIC_TABLE, 9, 77, 1, &why), -EUCLEAN);
	for (size_t i = 0; i < 8 * sizeof(h); i++) {
		h.byte[i / 8] ^= (uint8_t)(1 << i % 8);
		ck_assert_int_eq(file_header_check(&h.df, FILE_MAGIC_TABLE, 9, 77, 2, &why),
				 -EUCLEAN);
		h.byte[i / 8] ^= (uint8_t)(1 << i % 8);
	}
}
END_TEST

/* A header as a newer release would write it, its CRC right. */
static int check_with(size_t offset, uint32_t value)
{
	union header h = { .word = { 0 } };
	const char *why = NULL;
	uint32_t crc = 0;

	file_header_seal(&h.df, FILE_MAGIC_TABLE, 3, 9, 77, 2, 64, 4096);
	memcpy(h.byte + offset, &value, sizeof(value));
	memcpy(h.byte + offsetof(struct file_header_df, crc), &crc, sizeof(crc));
	crc = (uint32_t)crc32(0, h.byte, sizeof(h));
	memcpy(h.byte + offsetof(struct file_header_df, crc), &crc, sizeof(crc));
	return file_header_check(&h.df, FILE_MAGIC_TABLE, 9, 77, 2, &why);
}

START_TEST(features_are_respected)
{
	ck_assert_int_eq(check_with(offsetof(struct file_header_df, compat), 1), 0);
	ck_assert_int_eq(check_with(offsetof(struct file_header_df, ro_compat), 1), -EUCLEAN);
	ck_assert_int_eq(check_with(offsetof(struct file_header_df, incompat), 1), -EUCLEAN);
	ck_assert_int_eq(check_with(offsetof(struct file_header_df, version), 2), -EUCLEAN);
}
END_TEST

/* What a gate is asked; it refuses from call `refuse` on. */
struct gate {
	unsigned calls, refuse;
	uint64_t bytes;
};

static int gate_admit(void *arg, uint64_t bytes)
{
	struct gate *gate = arg;

	if (gate->calls++ >= gate->refuse)
		return -ENOSPC;
	gate->bytes += bytes;
	return 0;
}

/* Each slice is asked for; one that is refused leaves the file as long as it was. */
START_TEST(gate_is_asked)
{
	struct gate gate = { .refuse = UINT_MAX };
	int dir = tempdir_new(NULL), fd;
	struct stat st;

	ck_assert_int_eq(file_create(&fd, dir, "f", 4096), 0);
	file_gate_set(gate_admit, &gate);
	ck_assert_int_eq(file_reserve(fd, 4096, 2 * FILE_SLICE + 4096), 0);
	ck_assert_uint_eq(gate.calls, 3);
	ck_assert_uint_eq(gate.bytes, 2 * FILE_SLICE);
	gate = (struct gate){ .refuse = 1 };
	ck_assert_int_eq(file_reserve(fd, 2 * FILE_SLICE + 4096, 4 * FILE_SLICE), -ENOSPC);
	file_gate_set(NULL, NULL);
	ck_assert_uint_eq(gate.calls, 2);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_uint_eq((uint64_t)st.st_size, 2 * FILE_SLICE + 4096);
	ck_assert_uint_le((uint64_t)st.st_blocks * 512, 2 * FILE_SLICE + 8192);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("file");
	TCase *tc = tcase_create("file");

	tcase_add_test(tc, gate_is_asked);
	tcase_add_test(tc, created_whole);
	tcase_add_test(tc, opened_if_regular);
	tcase_add_test(tc, no_space_leaves_nothing);
	tcase_add_test(tc, reserve_checks_its_range);
	tcase_add_test(tc, mapping_serves_the_grown_file);
	tcase_add_test(tc, mapping_needs_its_file);
	tcase_add_test(tc, header_is_checked);
	tcase_add_test(tc, features_are_respected);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
