/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Built with NVMM_MEDIA_POINTS: children are killed at each store of what they do, and the file
 * that they leave is opened anew. check_registry_power.sh runs the same with the file taken for
 * persistent memory.
 */
#include "media/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/macro.h"
#include "tests/crash/killer.h"
#include "tests/unit/tempdir.h"

static int dir;

static struct registry *open_registry(void)
{
	struct registry *registry = NULL;
	const char *why = "";
	int r = registry_new(&registry, dir, 1, &why);

	ck_assert_msg(r == 0, "%s: %s", strerror(-r), why);
	return registry;
}

static struct pool_record sample(uint16_t id, uint64_t incarnation)
{
	struct pool_record record = {
		.pool = id,
		.kind = POOL_HEAP,
		.state = POOL_LIVE,
		.home = 1,
		.durability = DURABILITY_POWER,
		.flags = POOL_SPARSE,
		.incarnation = incarnation,
		.uid = 1000,
		.gid = 1001,
		.mode = 0640,
		.min_block = 64,
		.size = 123456789,
		.created = 1700000000,
		.op_seq = 5,
	};

	memset(record.cookie, 0x5a, sizeof(record.cookie));
	snprintf(record.name, sizeof(record.name), "pool \xc3\xa9 %u", (unsigned)id);
	return record;
}

static void expect(struct registry *registry, uint16_t id, uint64_t incarnation)
{
	struct pool_record want = sample(id, incarnation), got;
	const char *why = "";

	memset(&got, 0, sizeof(got));
	ck_assert_int_eq(registry_get(registry, id, &got, &why), 1);
	ck_assert_uint_eq(got.pool, want.pool);
	ck_assert_int_eq(got.kind, want.kind);
	ck_assert_int_eq(got.state, want.state);
	ck_assert_uint_eq(got.home, want.home);
	ck_assert_int_eq(got.durability, want.durability);
	ck_assert_uint_eq(got.flags, want.flags);
	ck_assert_uint_eq(got.incarnation, want.incarnation);
	ck_assert_uint_eq(got.uid, want.uid);
	ck_assert_uint_eq(got.gid, want.gid);
	ck_assert_uint_eq(got.mode, want.mode);
	ck_assert_uint_eq(got.min_block, want.min_block);
	ck_assert_uint_eq(got.size, want.size);
	ck_assert_uint_eq(got.created, want.created);
	ck_assert_uint_eq(got.op_seq, want.op_seq);
	ck_assert_mem_eq(got.cookie, want.cookie, sizeof(want.cookie));
	ck_assert_mem_eq(got.name, want.name, sizeof(want.name));
}

START_TEST(records_last)
{
	static const uint16_t ids[] = { 1, 2, 119, 120, 121, 247, 248, 30000, POOL_ID_MAX };
	struct pool_record record;
	struct registry *registry;
	const char *why = "";

	dir = _i == 0 ? tempdir_new(NULL) : tempdir_on_disk();
	registry = open_registry();
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		ck_assert_int_eq(registry_get(registry, ids[i], &record, &why), 0);
		for (uint64_t n = 1; n <= 3; n++) {
			record = sample(ids[i], n);
			ck_assert_int_eq(registry_put(registry, &record), 0);
			expect(registry, ids[i], n);
		}
	}
	registry_free(registry);
	registry = open_registry();
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		expect(registry, ids[i], 3);
	ck_assert_int_eq(registry_get(registry, 3, &record, &why), 0);
	ck_assert_int_eq(registry_get(registry, 40000, &record, &why), 0);
	ck_assert_int_eq(registry_get(registry, 0, &record, &why), -EINVAL);
	ck_assert_uint_eq(registry_last(registry), POOL_ID_MAX);
	registry_free(registry);
	registry_free(NULL);
}
END_TEST

START_TEST(last_follows_the_chunks)
{
	struct registry *registry;
	struct pool_record record = sample(1, 1);

	dir = tempdir_new(NULL);
	registry = open_registry();
	ck_assert_uint_eq(registry_last(registry), 119);
	ck_assert_int_eq(registry_put(registry, &record), 0);
	ck_assert_uint_eq(registry_last(registry), 119);
	record = sample(120, 1);
	ck_assert_int_eq(registry_put(registry, &record), 0);
	ck_assert_uint_eq(registry_last(registry), 247);
	registry_free(registry);
	registry = open_registry();
	ck_assert_uint_eq(registry_last(registry), 247);
	registry_free(registry);
}
END_TEST

START_TEST(ids_far_apart_take_two_chunks)
{
	struct pool_record record = sample(POOL_ID_MAX, 1);
	struct registry *registry;
	const char *why;
	struct stat st;

	dir = tempdir_new(NULL);
	registry = open_registry();
	ck_assert_int_eq(registry_put(registry, &record), 0);
	for (uint32_t id = 1; id <= registry_last(registry); id++)
		ck_assert_int_eq(registry_get(registry, (uint16_t)id, &record, &why),
				 id == POOL_ID_MAX);
	ck_assert_int_eq(fstatat(dir, "registry", &st, 0), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_uint_le((uint64_t)st.st_blocks * 512, 2 * REGISTRY_CHUNK);
	registry_free(registry);
}
END_TEST

/* Puts a sample that `spoil` has changed; it must be refused. */
#define REFUSED(spoil)                                                              \
	do {                                                                        \
		struct pool_record p = sample(1, 2);                                \
		spoil;                                                              \
		ck_assert_int_eq(registry_put(registry, &p), -EINVAL);              \
		expect(registry, 1, 1);                                             \
	} while (0)

START_TEST(wrong_values_are_refused)
{
	struct pool_record record = sample(1, 1);
	struct registry *registry;

	dir = tempdir_new(NULL);
	registry = open_registry();
	ck_assert_int_eq(registry_put(registry, &record), 0);
	REFUSED(p.pool = 0);
	REFUSED(p.kind = 3);
	REFUSED(p.state = 5);
	REFUSED(p.home = 0);
	REFUSED(p.home = 256);
	REFUSED(p.durability = DURABILITY_SYNC);
	REFUSED(p.flags = 2);
	REFUSED(p.mode = 01640);
	REFUSED(p.min_block = 48);
	REFUSED(p.min_block = 512);
	REFUSED(p.kind = POOL_REGION);
	REFUSED(p.size = 0);
	REFUSED(p.size = UINT64_MAX);
	REFUSED(p.name[0] = '/');
	REFUSED(p.name[0] = '\n');
	REFUSED(p.name[0] = (char)0xff);
	REFUSED(p.name[20] = 'x');
	REFUSED(memset(p.name, 'x', sizeof(p.name)));
	REFUSED(strcpy(p.name, ".."));
	registry_free(registry);
}
END_TEST

START_TEST(tombstones_keep_the_incarnation)
{
	struct pool_record record = { .pool = 7, .state = POOL_FREE, .incarnation = 9 }, got;
	struct registry *registry;
	const char *why;

	dir = tempdir_new(NULL);
	registry = open_registry();
	ck_assert_int_eq(registry_put(registry, &record), 0);
	ck_assert_int_eq(registry_get(registry, 7, &got, &why), 1);
	ck_assert_int_eq(got.state, POOL_FREE);
	ck_assert_uint_eq(got.incarnation, 9);
	registry_free(registry);
}
END_TEST

START_TEST(names)
{
	char longest[POOL_NAME_MAX + 2];

	memset(longest, 'n', sizeof(longest));
	ck_assert(registry_name_ok("a", 1));
	ck_assert(registry_name_ok("...", 3));
	ck_assert(registry_name_ok("a b.c-d_\xc3\xa9", 10));
	ck_assert(registry_name_ok(longest, POOL_NAME_MAX));
	ck_assert(!registry_name_ok(longest, POOL_NAME_MAX + 1));
	ck_assert(!registry_name_ok("", 0));
	ck_assert(!registry_name_ok(".", 1));
	ck_assert(!registry_name_ok("..", 2));
	ck_assert(!registry_name_ok("a/b", 3));
	ck_assert(!registry_name_ok("a\0b", 3));
	ck_assert(!registry_name_ok("a\x1b", 2));
	ck_assert(!registry_name_ok("a\x7f", 2));
	ck_assert(!registry_name_ok("a\xc2\x85", 3));
	ck_assert(!registry_name_ok("\xc0\xaf", 2));
	ck_assert(!registry_name_ok("\xc3", 1));
}
END_TEST

/* Opening must fail, with a reason, and change nothing. */
static void expect_refused(void)
{
	struct registry *registry = NULL;
	const char *why = NULL;
	size_t before_len, after_len;
	char *before = tempdir_read(dir, "registry", &before_len), *after;

	ck_assert_int_eq(registry_new(&registry, dir, 1, &why), -EUCLEAN);
	ck_assert_ptr_null(registry);
	ck_assert_ptr_nonnull(why);
	after = tempdir_read(dir, "registry", &after_len);
	ck_assert_uint_eq(before_len, after_len);
	ck_assert_mem_eq(before, after, before_len);
	free(before);
	free(after);
}

START_TEST(damaged_header_is_refused)
{
	struct pool_record record = sample(1, 1);
	struct registry *registry;

	dir = tempdir_new(NULL);
	registry = open_registry();
	ck_assert_int_eq(registry_put(registry, &record), 0);
	registry_free(registry);
	for (size_t i = 0; i < MEDIA_PAGE; i += i < sizeof(struct file_header_df) ? 1 : 37) {
		tempdir_flip(dir, "registry", i);
		expect_refused();
		tempdir_flip(dir, "registry", i);
	}
	registry = open_registry();
	expect(registry, 1, 1);
	registry_free(registry);
}
END_TEST

static void truncate_to(off_t len)
{
	int fd = openat(dir, "registry", O_RDWR);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, len), 0);
	close(fd);
}

START_TEST(short_file_is_refused)
{
	struct pool_record record = sample(200, 1);
	struct registry *registry;

	dir = tempdir_new(NULL);
	registry = open_registry();
	ck_assert_int_eq(registry_put(registry, &record), 0);
	registry_free(registry);
	truncate_to(REGISTRY_CHUNK + 50000);
	expect_refused();
	truncate_to(REGISTRY_CHUNK - 1);
	expect_refused();
	truncate_to(4096);
	expect_refused();
	truncate_to(10);
	expect_refused();
	truncate_to(0);
	expect_refused();
}
END_TEST

/* A reservation that was cut short has no data: completed by the next put. */
START_TEST(half_a_chunk_without_data_is_none)
{
	struct pool_record record = sample(200, 1);
	struct registry *registry;

	dir = tempdir_new(NULL);
	registry_free(open_registry());
	truncate_to(REGISTRY_CHUNK + 50000);
	registry = open_registry();
	ck_assert_uint_eq(registry_last(registry), 119);
	ck_assert_int_eq(registry_put(registry, &record), 0);
	expect(registry, 200, 1);
	registry_free(registry);
}
END_TEST

START_TEST(flipped_byte_of_a_record)
{
	size_t at = offsetof(struct registry_file_df, entry) + sizeof(struct registry_entry_df);
	struct pool_record record = sample(1, 1), got;
	struct registry *registry;
	const char *why;
	bool blank = _i == 1;
	int r;

	dir = tempdir_new(NULL);
	registry = open_registry();
	for (int i = 0; i < _i; i++)
		ck_assert_int_eq(registry_put(registry, &record), 0);
	record = sample(2, 1);
	ck_assert_int_eq(registry_put(registry, &record), 0);
	for (size_t i = 0; i < sizeof(struct registry_entry_df); i++) {
		tempdir_flip(dir, "registry", at + i);
		why = NULL;
		r = registry_get(registry, 1, &got, &why);
		if (blank && i >= 256 + 8) {
			ck_assert_int_eq(r, 1);
		} else {
			ck_assert_int_eq(r, -EUCLEAN);
			ck_assert_ptr_nonnull(why);
			record = sample(1, 2);
			ck_assert_int_eq(registry_put(registry, &record), -EUCLEAN);
		}
		expect(registry, 2, 1); /* the others serve */
		tempdir_flip(dir, "registry", at + i);
	}
	expect(registry, 1, 1);
	registry_free(registry);
}
END_TEST

START_TEST(no_space_leaves_it_as_it_was)
{
	struct pool_record record;
	struct registry *registry;
	struct stat st;
	const char *why;

	dir = tempdir_small(2 * REGISTRY_CHUNK);
	if (dir < 0) {
		printf("SKIP: no_space_leaves_it_as_it_was: may not mount: %s\n", strerror(-dir));
		return;
	}
	registry = open_registry();
	record = sample(300, 1);
	ck_assert_int_eq(registry_put(registry, &record), 0);
	record = sample(1000, 1);
	ck_assert_int_eq(registry_put(registry, &record), -ENOSPC);
	ck_assert_int_eq(registry_get(registry, 1000, &record, &why), 0);
	ck_assert_uint_eq(registry_last(registry), 375);
	ck_assert_int_eq(fstatat(dir, "registry", &st, 0), 0);
	ck_assert_int_eq(st.st_size, 3 * REGISTRY_CHUNK);
	record = sample(1, 1);
	ck_assert_int_eq(registry_put(registry, &record), 0);
	expect(registry, 1, 1);
	expect(registry, 300, 1);
	registry_free(registry);
}
END_TEST

START_TEST(no_space_for_a_registry)
{
	struct registry *registry = NULL;
	const char *why;

	dir = tempdir_small(REGISTRY_CHUNK / 2);
	if (dir < 0) {
		printf("SKIP: no_space_for_a_registry: may not mount: %s\n", strerror(-dir));
		return;
	}
	ck_assert_int_eq(registry_new(&registry, dir, 1, &why), -ENOSPC);
	ck_assert_ptr_null(registry);
	ck_assert_uint_eq(tempdir_count(dir), 0);
}
END_TEST

/* Children that die */

static void child_create(void *arg)
{
	struct registry *registry = NULL;
	const char *why;

	if (registry_new(&registry, dir, 1, &why) < 0)
		_exit(1);
	registry_free(registry);
}

START_TEST(killed_while_creating)
{
	bool done = false;
	unsigned k;

	for (k = 0; !done; k++) {
		dir = tempdir_new(NULL);
		done = !killer_run(k, child_create, NULL);
		/* the stores are all to the draft */
		if (k < sizeof(struct file_header_df) / 8)
			ck_assert_int_ne(faccessat(dir, "registry", F_OK, 0), 0);
		registry_free(open_registry());
		ck_assert_uint_eq(tempdir_count(dir), 1);
		close(dir);
	}
	ck_assert_uint_ge(k, 8);
	printf("registry_new: killed at %u points\n", k - 1);
}
END_TEST

static void child_put(void *arg)
{
	const struct pool_record *record = arg;
	struct registry *registry = NULL;
	const char *why;

	if (registry_new(&registry, dir, 1, &why) < 0 || registry_put(registry, record) < 0)
		_exit(1);
	registry_free(registry);
}

/* `_i` records were put before; the next one's writer is killed at each store. */
START_TEST(killed_while_putting)
{
	struct pool_record record, got;
	struct registry *registry;
	const char *why = NULL;
	unsigned k, seen_new = 0;
	bool done = false;
	int r;

	for (k = 0; !done; k++) {
		dir = tempdir_new(NULL);
		registry = open_registry();
		for (int i = 1; i <= _i; i++) {
			record = sample(150, (uint64_t)i);
			ck_assert_int_eq(registry_put(registry, &record), 0);
		}
		registry_free(registry);
		record = sample(150, (uint64_t)_i + 1);
		done = !killer_run(k, child_put, &record);
		registry = open_registry();
		r = registry_get(registry, 150, &got, &why);
		if (r == 1 && got.incarnation == (uint64_t)_i + 1)
			seen_new++;
		else
			ck_assert_int_eq(r, _i > 0);
		ck_assert(seen_new > 0 || !done);
		if (r == 1)
			expect(registry, 150, (uint64_t)_i + (seen_new > 0));
		record = sample(150, 50);
		ck_assert_int_eq(registry_put(registry, &record), 0);
		expect(registry, 150, 50);
		registry_free(registry);
		close(dir);
	}
	ck_assert_uint_ge(k, sizeof(struct pool_record_df) / 8);
	printf("registry_put after %d: killed at %u points\n", _i, k - 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("registry");
	TCase *tc = tcase_create("registry");

	tcase_add_loop_test(tc, records_last, 0, 2);
	tcase_add_test(tc, last_follows_the_chunks);
	tcase_add_test(tc, ids_far_apart_take_two_chunks);
	tcase_add_test(tc, wrong_values_are_refused);
	tcase_add_test(tc, tombstones_keep_the_incarnation);
	tcase_add_test(tc, names);
	tcase_add_test(tc, damaged_header_is_refused);
	tcase_add_test(tc, short_file_is_refused);
	tcase_add_test(tc, half_a_chunk_without_data_is_none);
	tcase_add_loop_test(tc, flipped_byte_of_a_record, 1, 2);
	tcase_add_test(tc, no_space_leaves_it_as_it_was);
	tcase_add_test(tc, no_space_for_a_registry);
	tcase_add_test(tc, killed_while_creating);
	tcase_add_loop_test(tc, killed_while_putting, 0, 3);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
