/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files of pools: made with the modes and lengths they have to have, lengthened whole or not at
 * all, cut back, removed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/macro.h"
#include "daemon/pool_files.h"
#include "media/span.h"
#include "tests/unit/tempdir.h"

#define MIB (UINT64_C(1) << 20)

static struct pool_record heap = {
	.pool = 9, .kind = POOL_HEAP, .home = 1, .incarnation = 4, .min_block = 64
};

static off_t file_size(int dir, const char *name)
{
	struct stat st;

	return fstatat(dir, name, &st, 0) < 0 ? -1 : st.st_size;
}

static int make_heap(int base, struct pool_shelves *shelves, uint64_t bytes)
{
	int dir;

	pool_layout_create(shelves, bytes);
	ck_assert_int_eq(pool_files_make(base, &heap, shelves), 0);
	ck_assert_int_eq(pool_files_dir(&dir, base, heap.pool), 0);
	return dir;
}

START_TEST(modes_whatever_the_umask)
{
	static const char *const names[] = { "meta.1", "shelf-0", "table-0.1", "state-0",
					     "lanes.1" };
	int base = tempdir_new(NULL), dir;
	struct pool_shelves s;
	struct stat st;

	umask(0);
	dir = make_heap(base, &s, MIB);
	ck_assert_int_eq(fstat(dir, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0700);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		ck_assert_int_eq(fstatat(dir, names[i], &st, 0), 0);
		ck_assert_uint_eq(st.st_mode & 07777, 0600);
		/* Reserved, not merely long. */
		ck_assert_int_ge(st.st_blocks * 512, st.st_size);
	}
	ck_assert_uint_eq(tempdir_count(dir), ARRAY_SIZE(names));
	close(dir);
}
END_TEST

START_TEST(audit_sees_short_files)
{
	int base = tempdir_new(NULL), dir, fd;
	struct pool_shelves s;
	char what[64];
	uint32_t lanes;

	dir = make_heap(base, &s, MIB);
	ck_assert_int_eq(pool_files_audit(dir, &heap, &s, what), 0);
	ck_assert_int_eq(pool_files_lanes(&lanes, dir, 1), 0);
	ck_assert_uint_eq(lanes, LANES_FIRST);
	ck_assert_int_eq(pool_files_open(&fd, dir, 1, POOL_FILE_STATE, 0, O_RDWR), 0);
	ck_assert_int_eq(ftruncate(fd, file_size(dir, "state-0") - 1), 0);
	close(fd);
	ck_assert_int_eq(pool_files_audit(dir, &heap, &s, what), -EIO);
	ck_assert_str_eq(what, "state-0");
	close(dir);
}
END_TEST

START_TEST(grow_and_cut)
{
	int base = tempdir_new(NULL), dir;
	struct pool_shelves s, t;
	uint32_t first;
	off_t state;
	char what[64];

	dir = make_heap(base, &s, MIB);
	state = file_size(dir, "state-0");
	ck_assert_int_eq(pool_layout_grow(&t, &first, &s, (UINT64_C(1) << 30) + MIB), 0);
	t.shelf[0].size = 4 * MIB; /* less to reserve; the layout is not what is tested here */
	ck_assert_uint_eq(t.n, 2);
	ck_assert_int_eq(pool_files_grow(dir, &heap, &s, &t), 0);
	ck_assert_int_eq(pool_files_audit(dir, &heap, &t, what), 0);
	ck_assert_int_eq(file_size(dir, "shelf-0"), (off_t)(4 * MIB));
	ck_assert_int_eq(file_size(dir, "shelf-1"), (off_t)MIB);
	ck_assert_int_eq(pool_files_cut(dir, &heap, &s), 0);
	ck_assert_int_eq(file_size(dir, "shelf-0"), (off_t)MIB);
	ck_assert_int_eq(file_size(dir, "state-0"), state);
	ck_assert_int_eq(file_size(dir, "shelf-1"), -1);
	ck_assert_int_eq(file_size(dir, "table-1.1"), -1);
	ck_assert_int_eq(pool_files_cut(dir, &heap, &s), 0);
	close(dir);
	ck_assert_int_eq(pool_files_remove(base, heap.pool), 0);
	ck_assert_int_eq(pool_files_remove(base, heap.pool), 0);
	ck_assert_uint_eq(tempdir_count(base), 0);
}
END_TEST

START_TEST(full_file_system)
{
	int base = tempdir_small(8 * MIB), dir;
	struct pool_shelves s, t;
	uint32_t first;

	if (base < 0)
		return;
	dir = make_heap(base, &s, MIB);
	ck_assert_int_eq(pool_layout_grow(&t, &first, &s, 32 * MIB), 0);
	ck_assert_int_eq(pool_files_grow(dir, &heap, &s, &t), -ENOSPC);
	ck_assert_int_eq(file_size(dir, "shelf-0"), (off_t)MIB);
	close(dir);
	heap.pool = 10;
	pool_layout_create(&s, 32 * MIB);
	ck_assert_int_eq(pool_files_make(base, &heap, &s), -ENOSPC);
	ck_assert_int_eq(pool_files_remove(base, heap.pool), 0);
	ck_assert_uint_eq(tempdir_count(base), 1);
}
END_TEST

START_TEST(a_directory_in_the_way)
{
	int base = tempdir_new(NULL);
	struct pool_shelves s;

	ck_assert_int_eq(mkdirat(base, "pool-9", 0700), 0);
	pool_layout_create(&s, MIB);
	ck_assert_int_eq(pool_files_make(base, &heap, &s), -EEXIST);
	ck_assert_uint_eq(tempdir_count(base), 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("pool files");
	TCase *tc = tcase_create("pool files");

	tcase_add_test(tc, modes_whatever_the_umask);
	tcase_add_test(tc, audit_sees_short_files);
	tcase_add_test(tc, grow_and_cut);
	tcase_add_test(tc, full_file_system);
	tcase_add_test(tc, a_directory_in_the_way);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
