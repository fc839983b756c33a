/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How much memory may still be reserved: from figures of a test's own, and beside what others reserve.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/macro.h"
#include "daemon/memory.h"
#include "tests/unit/tempdir.h"

#define KIB UINT64_C(1024)
#define MIB (KIB * KIB)

static const char *dir;

static void put(const char *name, const char *text)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "we");
	ck_assert_msg(f != NULL, "%s", path);
	fputs(text, f);
	ck_assert_int_eq(fclose(f), 0);
}

static void make_dir(const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	ck_assert_int_eq(mkdir(path, 0700), 0);
}

static void setup(void)
{
	close(tempdir_new(&dir));
	make_dir("self");
	put("meminfo", "MemTotal:     1024000 kB\nMemFree:    100 kB\nMemAvailable:  512000 kB\nSwapFree: 99999999 kB\n");
}

/* Control groups of a version, mounted below the directory, and this process in /a/b. */
static void make_groups(const char *type, const char *root, const char *group)
{
	char text[1024];

	snprintf(text, sizeof(text),
		 "20 1 0:5 / /proc rw - proc proc rw\n"
		 "30 1 0:26 %s %s/cg rw,nosuid shared:9 - %s none rw,%s\n",
		 root, dir, type, strcmp(type, "cgroup") == 0 ? "memory" : "nsdelegate");
	put("self/mountinfo", text);
	snprintf(text, sizeof(text), "9:name=systemd:/x\n4:memory:%s\n0::%s\n", group, group);
	put("self/cgroup", text);
	make_dir("cg");
	make_dir("cg/a");
	make_dir("cg/a/b");
}

START_TEST(machine_alone)
{
	struct memory_room room;

	memory_read(&room, dir, 0);
	ck_assert_uint_eq(room.bytes, 512000 * KIB);
	ck_assert_str_eq(room.where, "this machine");
	memory_read(&room, dir, 10);
	ck_assert_uint_eq(room.available, 512000 * KIB);
	ck_assert_uint_eq(room.bytes, 512000 * KIB - 102400 * KIB);
	memory_read(&room, dir, 60);
	ck_assert_uint_eq(room.bytes, 0);
	memory_read(&room, "/nonexistent", 5);
	ck_assert_uint_eq(room.bytes, UINT64_MAX);
}
END_TEST

/* The tightest of all groups up to the root counts; inactive page cache is as good as free. */
START_TEST(groups_of_version_2)
{
	struct memory_room room;

	make_groups("cgroup2", "/", "/a/b");
	put("cg/a/b/memory.max", "max\n");
	put("cg/a/b/memory.current", "1000000\n");
	memory_read(&room, dir, 0);
	ck_assert_uint_eq(room.bytes, 512000 * KIB);
	put("cg/a/memory.max", "104857600\n");
	put("cg/a/memory.current", "94371840\n");
	memory_read(&room, dir, 0);
	ck_assert_uint_eq(room.bytes, 10 * MIB);
	ck_assert_str_eq(room.where, "memory.max of control group /a");
	put("cg/a/memory.stat", "anon 5\ninactive_file 20971520\n");
	memory_read(&room, dir, 0);
	ck_assert_uint_eq(room.bytes, 30 * MIB);
	memory_read(&room, dir, 10);
	ck_assert_uint_eq(room.bytes, 20 * MIB);
	put("cg/a/b/memory.max", "2097152\n");
	memory_read(&room, dir, 0);
	ck_assert_uint_eq(room.bytes, 2097152 - 1000000);
	ck_assert_str_eq(room.where, "memory.max of control group /a/b");
	/* Beyond its limit, which was lowered. */
	put("cg/a/b/memory.current", "4000000\n");
	memory_read(&room, dir, 0);
	ck_assert_uint_eq(room.bytes, 0);
}
END_TEST

START_TEST(groups_of_version_1)
{
	struct memory_room room;

	make_groups("cgroup", "/", "/a/b");
	put("cg/a/b/memory.limit_in_bytes", "9223372036854771712\n");
	put("cg/a/b/memory.usage_in_bytes", "1000000\n");
	put("cg/memory.limit_in_bytes", "104857600\n");
	put("cg/memory.usage_in_bytes", "94371840\n");
	put("cg/memory.stat", "inactive_file 7\ntotal_inactive_file 1048576\n");
	memory_read(&room, dir, 0);
	ck_assert_uint_eq(room.bytes, 11 * MIB);
	ck_assert_str_eq(room.where, "memory.limit_in_bytes of control group /");
}
END_TEST

/* In a container the mount may be of one group, and the path as seen from outside, or from elsewhere. */
START_TEST(groups_of_a_container)
{
	static const char *const groups[] = { "/docker/x/a", "/docker/x", "/elsewhere" };
	struct memory_room room;

	make_groups("cgroup2", "/docker/x", groups[_i]);
	put("cg/memory.max", "1048576\n");
	put("cg/memory.current", "0\n");
	memory_read(&room, dir, 0);
	ck_assert_uint_eq(room.bytes, MIB);
}
END_TEST

static struct memory memory;

static void setup_memory(void)
{
	int fd = tempdir_new(NULL);

	setup();
	memory_init(&memory, fd, 0);
	memory.proc = dir;
	memory.counts = true; /* wherever the test's files are */
	close(fd);
}

/* What one was promised is not another's, though nothing of it is touched yet. */
START_TEST(two_at_once)
{
	struct reservation first, second;
	struct memory_room room;

	ck_assert_int_eq(memory_check(&memory, 400 * MIB, &room), 0);
	reservation_begin(&first, &memory, 400 * MIB, NULL);
	ck_assert_int_eq(memory_check(&memory, 400 * MIB, &room), -ENOSPC);
	ck_assert_uint_eq(room.bytes, 500 * MIB - 400 * MIB);
	ck_assert_int_eq(memory_check(&memory, 100 * MIB, &room), 0);
	reservation_begin(&second, &memory, 100 * MIB, NULL);
	ck_assert_uint_eq(memory_left(&memory), 0);
	/* Nor does a grant of a sparse heap take it. */
	ck_assert_int_eq(memory_admit(&memory, MIB), -ENOSPC);
	/* The first reserves: the kernel counts it then. */
	reservation_enter(&first);
	for (uint64_t done = 0; done < 400; done += 50) {
		char text[128];

		ck_assert_int_eq(memory_admit(&memory, 50 * MIB), 0);
		snprintf(text, sizeof(text), "MemTotal: 1024000 kB\nMemAvailable: %llu kB\n",
			 (unsigned long long)(512000 - (done + 50) * KIB));
		put("meminfo", text);
	}
	reservation_leave(&first);
	reservation_end(&first);
	reservation_end(&first);
	ck_assert_uint_eq(memory_left(&memory), 0);
	reservation_end(&second);
	ck_assert_uint_eq(memory_left(&memory), 100 * MIB);
	ck_assert(!first.refused);
}
END_TEST

/* Other programs take memory while a reservation is made: it ends. */
START_TEST(taken_meanwhile)
{
	struct reservation own;

	reservation_begin(&own, &memory, 300 * MIB, NULL);
	reservation_enter(&own);
	ck_assert_int_eq(memory_admit(&memory, 100 * MIB), 0);
	put("meminfo", "MemTotal: 1024000 kB\nMemAvailable: 100 kB\n");
	ck_assert_int_eq(memory_admit(&memory, 100 * MIB), -ENOSPC);
	ck_assert(own.refused);
	reservation_leave(&own);
	reservation_end(&own);
	ck_assert_uint_eq(memory.pending, 0);
}
END_TEST

/* Small grants live on a credit, which never exceeds the room. */
START_TEST(credit_is_bounded)
{
	uint64_t got = 0;

	put("meminfo", "MemTotal: 1024000 kB\nMemAvailable: 1024 kB\n");
	/* The figures stay: each reading allows the room again. Between two, the credit is used up. */
	while (memory_admit(&memory, 4 * KIB) == 0 && got < 64 * MIB && memory.credit > 0)
		got += 4 * KIB;
	ck_assert_uint_le(got, MIB / 8 + 4 * KIB);
	ck_assert_int_eq(memory_admit(&memory, 2 * MIB), -ENOSPC);
}
END_TEST

START_TEST(stop_and_death_end_it)
{
	struct reservation own;
	int gone = 0;

	reservation_begin(&own, &memory, 100 * MIB, &gone);
	reservation_enter(&own);
	ck_assert_int_eq(memory_admit(&memory, MIB), 0);
	gone = 1;
	ck_assert_int_eq(memory_admit(&memory, MIB), -ECANCELED);
	reservation_leave(&own);
	ck_assert_int_eq(memory_admit(&memory, MIB), 0);
	memory_stop(&memory);
	ck_assert_int_eq(memory_admit(&memory, MIB), -ECANCELED);
	memory.counts = false;
	ck_assert_int_eq(memory_admit(&memory, MIB), -ECANCELED);
	reservation_end(&own);
	ck_assert(!own.refused);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("memory");
	TCase *tc = tcase_create("figures"), *tc2 = tcase_create("reservations");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, machine_alone);
	tcase_add_test(tc, groups_of_version_2);
	tcase_add_test(tc, groups_of_version_1);
	tcase_add_loop_test(tc, groups_of_a_container, 0, 3);
	suite_add_tcase(suite, tc);
	tcase_add_checked_fixture(tc2, setup_memory, NULL);
	tcase_add_test(tc2, two_at_once);
	tcase_add_test(tc2, taken_meanwhile);
	tcase_add_test(tc2, credit_is_bounded);
	tcase_add_test(tc2, stop_and_death_end_it);
	suite_add_tcase(suite, tc2);
	return tempdir_run_suite(suite);
}
