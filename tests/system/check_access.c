/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Access: who may open what is decided by the kernel's word on the peer against the pool's owner,
 * group and mode; and who may only read gets descriptors that stay so. Needs root, to become
 * others.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/system/harness.h"
#include "tests/system/raw.h"

#define MIB (UINT64_C(1) << 20)
#define OTHER_UID 65533
#define OTHER_GID 65533
#define TEAM_GID 65432

static struct harness h;
static nvmm_pool_id region_id, heap_id;

/* Becomes the second user, member of the team or not. */
static void become(bool member)
{
	gid_t team = TEAM_GID;

	ck_assert_int_eq(setgroups(member ? 1 : 0, &team), 0);
	ck_assert_int_eq(setresgid(OTHER_GID, OTHER_GID, OTHER_GID), 0);
	ck_assert_int_eq(setresuid(OTHER_UID, OTHER_UID, OTHER_UID), 0);
	/* Both were lost with the uid. Without the second, /proc/self would be root's, and refuse
	 * for another reason than the one to be shown. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_DUMPABLE, 1);
}

/* A region and a heap of root's with this mode and the team's group. */
static void make_pools(mode_t mode)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_pool_options options = { .size = sizeof(options), .mode = mode };

	region_id = heap_id = 0;
	ck_assert_int_eq(nvmm_region_create(nvmm, &region_id, MIB, &options), 0);
	ck_assert_int_eq(nvmm_heap_create(nvmm, &heap_id, MIB, &options), 0);
	ck_assert_int_eq(nvmm_pool_chown(nvmm, region_id, (uid_t)-1, TEAM_GID), 0);
	ck_assert_int_eq(nvmm_pool_chown(nvmm, heap_id, (uid_t)-1, TEAM_GID), 0);
	nvmm_disconnect(nvmm);
}

static void expect_refused(struct nvmm_client *nvmm, int flags)
{
	struct nvmm_region *region;
	struct nvmm_heap *heap;

	ck_assert_int_eq(nvmm_region_open(&region, nvmm, region_id, flags), -EACCES);
	ck_assert_str_ne(nvmm_errmsg(nvmm), "");
	ck_assert_int_eq(nvmm_heap_open(&heap, nvmm, heap_id, flags), -EACCES);
}

static void stranger(void *arg)
{
	struct nvmm_client *nvmm;

	become(false);
	nvmm = harness_connect(&h);
	expect_refused(nvmm, O_RDONLY);
	expect_refused(nvmm, O_RDWR);
	ck_assert_ptr_null(nvmm_local(nvmm, (nvmm_ptr)heap_id << 48));
	ck_assert_int_eq(nvmm_region_destroy(nvmm, region_id), -EPERM);
	ck_assert_int_eq(nvmm_heap_destroy(nvmm, heap_id), -EPERM);
	ck_assert_int_eq(nvmm_pool_chmod(nvmm, region_id, 0666), -EPERM);
	ck_assert_int_eq(nvmm_pool_chown(nvmm, region_id, OTHER_UID, (gid_t)-1), -EPERM);
	ck_assert_int_eq(nvmm_pool_resize(nvmm, region_id, 2 * MIB), -EPERM);
	nvmm_disconnect(nvmm);
}

START_TEST(owner_only)
{
	make_pools(0600);
	harness_join(harness_fork(stranger, NULL));
}
END_TEST

START_TEST(group_but_no_member)
{
	make_pools(0640);
	harness_join(harness_fork(stranger, NULL));
}
END_TEST

static void reader(void *arg)
{
	struct nvmm_region *region;
	struct nvmm_heap *heap;
	struct nvmm_client *nvmm;
	void *addr;

	become(true);
	nvmm = harness_connect(&h);
	expect_refused(nvmm, O_RDWR);
	ck_assert_int_eq(nvmm_region_open(&region, nvmm, region_id, O_RDONLY), 0);
	ck_assert_int_eq(nvmm_region_map(region, NULL, MIB, PROT_READ | PROT_WRITE, 0, 0, &addr),
			 -EACCES);
	ck_assert_int_eq(nvmm_region_map(region, NULL, MIB, PROT_READ, 0, 0, &addr), 0);
	ck_assert_int_eq(mprotect(addr, MIB, PROT_READ | PROT_WRITE), -1);
	ck_assert_int_eq(errno, EACCES);
	nvmm_region_close(region);

	ck_assert_int_eq(nvmm_heap_open(&heap, nvmm, heap_id, O_RDONLY), 0);
	ck_assert_uint_eq(nvmm_alloc(heap, 16), NVMM_NULL);
	ck_assert_int_eq(errno, EROFS);
	ck_assert_int_lt(nvmm_root_set(heap, "mine", 0), 0);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

START_TEST(group_reads)
{
	make_pools(0640);
	harness_join(harness_fork(reader, NULL));
}
END_TEST

/* Tries all ways to get write access to what a reader was given. */
static void expect_read_only(int fd)
{
	static const int ways[] = { O_RDWR, O_WRONLY, O_RDWR | O_TRUNC };
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ck_assert_int_eq(access(path, F_OK), 0);
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		ck_assert_int_eq(open(path, ways[i]), -1);
		ck_assert_int_eq(errno, EACCES);
	}
	ck_assert_int_eq(fchmod(fd, 0666), -1);
	ck_assert_int_eq(pwrite(fd, "x", 1, 0), -1);
	ck_assert_int_eq(ftruncate(fd, 0), -1);
	ck_assert_int_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
	ck_assert_ptr_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
}

static int open_pool(struct raw *raw, nvmm_pool_id id, bool write)
{
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__PoolOpen op = NVMM__POOL_OPEN__INIT;

	op.id = id;
	op.write = write;
	request.op_case = NVMM__REQUEST__OP_POOL_OPEN;
	request.pool_open = &op;
	return raw_error(raw, &request);
}

/* Leaves the reply's descriptors in raw->frame. */
static int open_shelf(struct raw *raw, nvmm_pool_id id, bool write)
{
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__ShelfOpen op = NVMM__SHELF_OPEN__INIT;
	Nvmm__Reply *reply;
	int error;

	op.id = id;
	op.write = write;
	request.op_case = NVMM__REQUEST__OP_SHELF_OPEN;
	request.shelf_open = &op;
	reply = raw_ask(raw, &request);
	ck_assert_ptr_nonnull(reply);
	error = reply->error;
	nvmm__reply__free_unpacked(reply, NULL);
	return error;
}

static void prying_reader(void *arg)
{
	struct raw raw;

	become(true);
	raw_connect(&raw, &h);
	raw_hello(&raw);
	ck_assert_int_eq(open_shelf(&raw, region_id, false) < 0, 1);
	ck_assert_int_eq(open_pool(&raw, region_id, true), -EACCES);
	ck_assert_int_eq(open_pool(&raw, region_id, false), 0);
	ck_assert_int_lt(open_shelf(&raw, region_id, true), 0);
	ck_assert_int_eq(open_shelf(&raw, region_id, false), 0);
	ck_assert_uint_eq(raw.frame.n_fds, 1);
	expect_read_only(raw.frame.fds[0]);

	ck_assert_int_eq(open_pool(&raw, heap_id, false), 0);
	ck_assert_int_eq(open_shelf(&raw, heap_id, false), 0);
	ck_assert_uint_eq(raw.frame.n_fds, 3);
	for (size_t i = 0; i < raw.frame.n_fds; i++)
		expect_read_only(raw.frame.fds[i]);
	raw_close(&raw);
}

START_TEST(no_way_to_write)
{
	make_pools(0640);
	harness_join(harness_fork(prying_reader, NULL));
}
END_TEST

/* Even one who may write the heap does not get the span table for writing. */
static void writer(void *arg)
{
	struct raw raw;

	become(true);
	raw_connect(&raw, &h);
	raw_hello(&raw);
	ck_assert_int_eq(open_pool(&raw, heap_id, true), 0);
	ck_assert_int_eq(open_shelf(&raw, heap_id, true), 0);
	ck_assert_uint_eq(raw.frame.n_fds, 3);
	ck_assert_int_eq(fcntl(raw.frame.fds[0], F_GETFL) & O_ACCMODE, O_RDWR);
	expect_read_only(raw.frame.fds[1]);
	raw_close(&raw);
}

START_TEST(span_table_is_the_daemons)
{
	make_pools(0660);
	harness_join(harness_fork(writer, NULL));
}
END_TEST

/* A change of mode is for opens from then on. */
static void opens_for_reading(void *arg)
{
	struct nvmm_region *region;
	struct nvmm_client *nvmm;

	become(false);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(nvmm_region_open(&region, nvmm, region_id, O_RDONLY), 0);
	nvmm_region_close(region);
	nvmm_disconnect(nvmm);
}

START_TEST(mode_changes)
{
	struct nvmm_client *nvmm;

	make_pools(0600);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(nvmm_pool_chmod(nvmm, region_id, 0604), 0);
	harness_join(harness_fork(opens_for_reading, NULL));
	ck_assert_int_eq(nvmm_pool_chmod(nvmm, region_id, 0600), 0);
	harness_join(harness_fork(stranger, NULL));
	ck_assert_int_eq(nvmm_pool_chown(nvmm, region_id, OTHER_UID, (gid_t)-1), 0);
	harness_join(harness_fork(opens_for_reading, NULL));
	nvmm_disconnect(nvmm);
}
END_TEST

/* Shelf files are the daemon's alone, whatever the pool's mode. */
START_TEST(files_are_private)
{
	char path[512];
	struct stat st;

	make_pools(0666);
	snprintf(path, sizeof(path), "%s/pool-%u/shelf-0", h.base, region_id);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_uint_eq(st.st_uid, getuid());
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("access");
	TCase *tcase = harness_case_served(suite, "access", 60, &h);

	tcase_add_test(tcase, files_are_private);
	if (geteuid() != 0) {
		fprintf(stderr, "access as a second user: skipped: needs root\n");
		return harness_run(suite);
	}
	tcase_add_test(tcase, owner_only);
	tcase_add_test(tcase, group_but_no_member);
	tcase_add_test(tcase, group_reads);
	tcase_add_test(tcase, no_way_to_write);
	tcase_add_test(tcase, span_table_is_the_daemons);
	tcase_add_test(tcase, mode_changes);
	return harness_run(suite);
}
