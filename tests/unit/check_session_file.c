/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Session files: what is written is read; what is rotten is said to be.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/session_file.h"
#include "tests/unit/tempdir.h"

static uint32_t lanes[] = { 3, 1, 4095 };
static struct session_pool pools[] = {
	{ .pool = 7, .read = 1, .incarnation = 1 },
	{ .pool = 65535, .write = 1, .incarnation = UINT64_MAX, .n_lanes = 3, .lanes = lanes },
};
static struct session_image image = {
	.id = 42,
	.process = { .pid = 4711, .start = 123456789 },
	.boot_id = { 1, 2, 3 },
	.uid = 1000,
	.gid = 100,
	.cookie = { 9, 8, 7 },
	.name = "a program",
	.since = 1700000000,
	.owner = UINT64_C(3) << 40 | 99,
	.epochs = 1,
	.last_seq = 17,
	.n_pools = 2,
	.pools = pools,
};

START_TEST(round_trip)
{
	_auto(session_image_free) struct session_image *got = NULL;
	int dir = tempdir_new(NULL);

	ck_assert_int_eq(session_file_write(dir, &image), 0);
	ck_assert_int_eq(session_file_write(dir, &image), 0); /* over the one before */
	ck_assert_uint_eq(tempdir_count(dir), 1);
	ck_assert_int_eq(session_file_read(&got, dir, "session-42"), 0);
	ck_assert_uint_eq(got->id, image.id);
	ck_assert_int_eq(got->process.pid, image.process.pid);
	ck_assert_uint_eq(got->process.start, image.process.start);
	ck_assert_mem_eq(got->boot_id, image.boot_id, BOOT_ID_LEN);
	ck_assert_mem_eq(got->cookie, image.cookie, SESSION_COOKIE_LEN);
	ck_assert_uint_eq(got->uid, image.uid);
	ck_assert_uint_eq(got->gid, image.gid);
	ck_assert_str_eq(got->name, image.name);
	ck_assert_int_eq(got->since, image.since);
	ck_assert_uint_eq(got->owner, image.owner);
	ck_assert_uint_eq(got->epochs, 1);
	ck_assert_uint_eq(got->last_seq, image.last_seq);
	ck_assert_uint_eq(got->n_pools, 2);
	ck_assert_uint_eq(got->pools[0].pool, 7);
	ck_assert_uint_eq(got->pools[0].read, 1);
	ck_assert_uint_eq(got->pools[0].write, 0);
	ck_assert_uint_eq(got->pools[0].n_lanes, 0);
	ck_assert_uint_eq(got->pools[1].incarnation, UINT64_MAX);
	ck_assert_uint_eq(got->pools[1].n_lanes, 3);
	ck_assert_mem_eq(got->pools[1].lanes, lanes, sizeof(lanes));
	ck_assert_int_eq(session_file_remove(dir, 42), 0);
	ck_assert_int_eq(session_file_remove(dir, 42), 0);
	ck_assert_uint_eq(tempdir_count(dir), 0);
}
END_TEST

START_TEST(every_flipped_byte_is_seen)
{
	int dir = tempdir_new(NULL);
	size_t len;
	char *data;

	ck_assert_int_eq(session_file_write(dir, &image), 0);
	data = tempdir_read(dir, "session-42", &len);
	free(data);
	for (size_t i = 0; i < len; i++) {
		struct session_image *got = NULL;

		tempdir_flip(dir, "session-42", i);
		ck_assert_int_eq(session_file_read(&got, dir, "session-42"), -EUCLEAN);
		ck_assert_ptr_null(got);
		ck_assert_int_eq(session_file_write(dir, &image), 0);
	}
}
END_TEST

START_TEST(every_shorter_file_is_seen)
{
	int dir = tempdir_new(NULL), fd;
	size_t len;
	char *data;

	ck_assert_int_eq(session_file_write(dir, &image), 0);
	data = tempdir_read(dir, "session-42", &len);
	free(data);
	while (len-- > 0) {
		struct session_image *got = NULL;

		fd = openat(dir, "session-42", O_WRONLY);
		ck_assert_int_eq(ftruncate(fd, (off_t)len), 0);
		close(fd);
		ck_assert_int_eq(session_file_read(&got, dir, "session-42"), -EUCLEAN);
	}
}
END_TEST

START_TEST(other_things_in_the_way)
{
	struct session_image *got = NULL;
	int dir = tempdir_new(NULL);

	ck_assert_int_eq(session_file_read(&got, dir, "session-1"), -ENOENT);
	ck_assert_int_eq(symlinkat("/etc/passwd", dir, "session-1"), 0);
	ck_assert_int_eq(session_file_read(&got, dir, "session-1"), -ELOOP);
	ck_assert_int_eq(mkfifoat(dir, "session-2", 0600), 0);
	ck_assert_int_eq(session_file_read(&got, dir, "session-2"), -EUCLEAN);
}
END_TEST

START_TEST(names)
{
	uint64_t id;

	ck_assert_int_eq(session_file_id(&id, "session-42"), 0);
	ck_assert_uint_eq(id, 42);
	ck_assert_int_eq(session_file_id(&id, "session-0"), -EINVAL);
	ck_assert_int_eq(session_file_id(&id, "session-"), -EINVAL);
	ck_assert_int_eq(session_file_id(&id, "session-1x"), -EINVAL);
	ck_assert_int_eq(session_file_id(&id, ".session.new"), -EINVAL);
	ck_assert_int_eq(session_file_id(&id, "nvmmd.lock"), -EINVAL);
}
END_TEST

START_TEST(boot_id)
{
	static const uint8_t zero[BOOT_ID_LEN];
	uint8_t a[BOOT_ID_LEN], b[BOOT_ID_LEN];

	ck_assert_int_eq(boot_id_read(a), 0);
	ck_assert_int_eq(boot_id_read(b), 0);
	ck_assert_mem_eq(a, b, BOOT_ID_LEN);
	ck_assert_mem_ne(a, zero, BOOT_ID_LEN);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("session file");
	TCase *tc = tcase_create("session file");

	tcase_add_test(tc, round_trip);
	tcase_add_test(tc, every_flipped_byte_is_seen);
	tcase_add_test(tc, every_shorter_file_is_seen);
	tcase_add_test(tc, other_things_in_the_way);
	tcase_add_test(tc, names);
	tcase_add_test(tc, boot_id);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
