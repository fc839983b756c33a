/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Words of shelves, as the settler of a log has them: the right one, in any shelf, however many; and what is
 * said where a client has spoiled the file.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "daemon/heap_words.h"
#include "daemon/pool_files.h"
#include "tests/unit/tempdir.h"

#define MIB (UINT64_C(1) << 20)
#define SHELVES 2u
#define PLACE(shelf, offset) ((uint64_t)(shelf) << 40 | (offset))

static struct pool_record heap = {
	.pool = 9, .kind = POOL_HEAP, .home = 1, .incarnation = 4, .min_block = 64
};

static struct heap_words words;
static int base, dir;

static void setup(void)
{
	struct pool_shelves shelves = {
		.n = SHELVES, .shelf = { { .size = MIB, .limit = MIB }, { .size = MIB, .limit = MIB } },
	};

	base = tempdir_new(NULL);
	ck_assert_int_eq(pool_files_make(base, &heap, &shelves), 0);
	ck_assert_int_eq(pool_files_dir(&dir, base, heap.pool), 0);
	ck_assert_int_eq(heap_words_init(&words, dir, heap.home), 0);
}

static void teardown(void)
{
	heap_words_deinit(&words);
	close(dir);
	close(base);
}

static int map(uint64_t place, m64 **ret)
{
	return words.words.map(words.words.ctx, place, ret);
}

static void done(void)
{
	words.words.done(words.words.ctx);
}

static int shelf_open(uint32_t shelf)
{
	int fd;

	ck_assert_int_eq(pool_files_open(&fd, dir, heap.home, POOL_FILE_SHELF, shelf, O_RDWR), 0);
	return fd;
}

static uint64_t file_word(uint32_t shelf, uint64_t offset)
{
	uint64_t value = 0;
	int fd = shelf_open(shelf);

	ck_assert_int_eq(pread(fd, &value, sizeof(value), (off_t)offset), sizeof(value));
	close(fd);
	return value;
}

static void shelf_cut(uint32_t shelf, uint64_t len)
{
	int fd = shelf_open(shelf);

	ck_assert_int_eq(ftruncate(fd, (off_t)len), 0);
	close(fd);
}

START_TEST(the_right_word)
{
	for (uint32_t shelf = 0; shelf < SHELVES; shelf++)
		for (uint64_t offset = 0; offset < MIB; offset += MIB / 16 - 8) {
			uint64_t value = PLACE(shelf + 1, offset);
			m64 *word;

			ck_assert_int_eq(map(PLACE(shelf, offset), &word), 0);
			media_store64(word, value);
			ck_assert_uint_eq(file_word(shelf, offset), value);
		}
	done();
}
END_TEST

/* A dead client's logs may have a quarter of a million: mappings and descriptors stay as few as shelves. */
START_TEST(one_mapping_a_shelf)
{
	m64 *first[SHELVES], *word;
	int fd = dup(dir), again;

	close(fd);
	for (uint32_t shelf = 0; shelf < SHELVES; shelf++)
		ck_assert_int_eq(map(PLACE(shelf, 0), &first[shelf]), 0);
	for (uint64_t i = 0; i < 2 * 262144; i++) {
		uint64_t offset = i * 4096 % MIB + i % 512 * 8;

		ck_assert_int_eq(map(PLACE(i % SHELVES, offset), &word), 0);
		ck_assert_ptr_eq(word, first[i % SHELVES] + offset / 8);
	}
	again = dup(dir);
	ck_assert_int_eq(again, fd);
	close(again);
	done();
}
END_TEST

/* The daemon has no descriptor left: what the dead had begun is settled all the same, in each shelf. */
START_TEST(without_descriptors)
{
	struct rlimit before, none;
	m64 *word;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = (rlim_t)dup(dir);
	close((int)none.rlim_cur);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	ck_assert_int_eq(dup(dir), -1);
	for (unsigned i = 0; i < 2; i++, done())
		for (uint32_t shelf = 0; shelf < SHELVES; shelf++)
			ck_assert_int_eq(map(PLACE(shelf, 0), &word), 0);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
}
END_TEST

/* What the file became since the last settlement is seen. */
START_TEST(a_file_that_changes)
{
	m64 *word;

	ck_assert_int_eq(map(PLACE(1, MIB - 8), &word), 0);
	done();
	shelf_cut(1, MIB / 2);
	ck_assert_int_eq(map(PLACE(1, MIB - 8), &word), -EIO);
	ck_assert_int_eq(map(PLACE(1, MIB / 2 - 8), &word), 0);
	done();
	shelf_cut(1, 0);
	ck_assert_int_eq(map(PLACE(1, 0), &word), -EIO);
	done();
	/* Longer than any place says; a page that is not whole. */
	shelf_cut(1, (UINT64_C(1) << 41) + 5);
	ck_assert_int_eq(map(PLACE(1, SHELF_SIZE_MAX - 8), &word), 0);
	ck_assert_uint_eq(media_load64(word), 0);
	done();
	shelf_cut(1, MIB);
	ck_assert_int_eq(map(PLACE(1, MIB - 8), &word), 0);
	done();
	ck_assert_int_eq(map(PLACE(7, 0), &word), -ENOENT);
	done();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("heap words");
	TCase *t = tcase_create("heap words");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, the_right_word);
	tcase_add_test(t, one_mapping_a_shelf);
	tcase_add_test(t, without_descriptors);
	tcase_add_test(t, a_file_that_changes);
	suite_add_tcase(s, t);
	return tempdir_run_suite(s);
}
