/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Clients that make a pool's files longer by the descriptors they have: open or closed, live or destroyed, with the
 * daemon alive or dead meanwhile. The daemon cuts them back, and others find room.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/system/raw.h"

#define MIB (UINT64_C(1) << 20)
#define PAGE 4096u
#define WAIT_MS 60000u

static struct harness h;
static struct nvmm_client *nvmm;

/* A client with a descriptor for writing of one of a pool's files. */
static struct raw raw;
static nvmm_pool_id pool;

static int open_pool(bool write)
{
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__PoolOpen op = NVMM__POOL_OPEN__INIT;
	Nvmm__Reply *reply;
	int lanes = -1;

	op.id = pool;
	op.write = write;
	request.op_case = NVMM__REQUEST__OP_POOL_OPEN;
	request.pool_open = &op;
	reply = raw_ask(&raw, &request);
	ck_assert_ptr_nonnull(reply);
	ck_assert_int_eq(reply->error, 0);
	nvmm__reply__free_unpacked(reply, NULL);
	if (raw.frame.n_fds > 0)
		lanes = dup(raw.frame.fds[0]);
	frame_close_fds(&raw.frame);
	return lanes;
}

static void close_pool(void)
{
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__PoolClose op = NVMM__POOL_CLOSE__INIT;

	op.id = pool;
	op.write = true;
	request.op_case = NVMM__REQUEST__OP_POOL_CLOSE;
	request.pool_close = &op;
	ck_assert_int_eq(raw_error(&raw, &request), 0);
}

static void destroy_by_force(void)
{
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__PoolDestroy op = NVMM__POOL_DESTROY__INIT;

	op.id = pool;
	op.force = true;
	request.op_case = NVMM__REQUEST__OP_POOL_DESTROY;
	request.pool_destroy = &op;
	ck_assert_int_eq(raw_error(&raw, &request), 0);
}

/* A descriptor of shelf 0's n-th file. */
static int open_shelf(size_t n)
{
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__ShelfOpen op = NVMM__SHELF_OPEN__INIT;
	Nvmm__Reply *reply;
	int fd;

	op.id = pool;
	op.write = true;
	request.op_case = NVMM__REQUEST__OP_SHELF_OPEN;
	request.shelf_open = &op;
	reply = raw_ask(&raw, &request);
	ck_assert_ptr_nonnull(reply);
	ck_assert_int_eq(reply->error, 0);
	ck_assert_uint_gt(raw.frame.n_fds, n);
	fd = dup(raw.frame.fds[n]);
	nvmm__reply__free_unpacked(reply, NULL);
	frame_close_fds(&raw.frame);
	return fd;
}

static void serve(void)
{
	harness_start(&h);
	nvmm = harness_connect(&h);
	raw_connect(&raw, &h);
	raw_hello(&raw);
}

static void begin(void)
{
	harness_init(&h, NULL);
	serve();
}

static void end(void)
{
	harness_alive(&h);
	raw_close(&raw);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}

/* A region of one page, open for writing. */
static int region_fd(void)
{
	pool = 0;
	ck_assert_int_eq(nvmm_region_create(nvmm, &pool, PAGE, NULL), 0);
	open_pool(true);
	return open_shelf(0);
}

/* What is waited for: that a file has at most these bytes, as length and as blocks. */
struct want {
	int fd;
	uint64_t length, blocks;
};

static bool is_cut(void *arg)
{
	const struct want *want = arg;
	struct stat st;

	ck_assert_int_eq(fstat(want->fd, &st), 0);
	return (uint64_t)st.st_size <= want->length && (uint64_t)st.st_blocks * 512 <= want->blocks;
}

static void expect_cut(int fd, uint64_t length)
{
	struct want want = { fd, length, length + 128 * 1024 };

	harness_until(is_cut, &want, WAIT_MS);
}

static void grow(int fd, uint64_t from, uint64_t bytes, int flags)
{
	ck_assert_msg(fallocate(fd, flags, (off_t)from, (off_t)bytes) == 0, "fallocate: %s", strerror(errno));
}

static bool is_counted(void *arg)
{
	struct nvmm_pool_info info = { .size = sizeof(info) };

	ck_assert_int_eq(nvmm_pool_stat(nvmm, pool, &info), 0);
	return info.cuts >= *(const uint64_t *)arg && info.overgrown == 0;
}

static int victim(void)
{
	nvmm_pool_id id = 0;
	int r = nvmm_region_create(nvmm, &id, MIB, NULL);

	return r < 0 ? r : nvmm_region_destroy(nvmm, id);
}

START_TEST(longer_region)
{
	uint64_t cuts = 1;
	int fd;

	begin();
	fd = region_fd();
	grow(fd, 8 * MIB, 64 * MIB, 0);
	expect_cut(fd, PAGE);
	harness_until(is_counted, &cuts, WAIT_MS);
	/* Blocks behind the end, with the length kept. */
	cuts = 2;
	grow(fd, 8 * MIB, 64 * MIB, FALLOC_FL_KEEP_SIZE);
	expect_cut(fd, PAGE);
	harness_until(is_counted, &cuts, WAIT_MS);
	/* Length without blocks, and a write beyond. */
	ck_assert_int_eq(ftruncate(fd, 1 << 30), 0);
	expect_cut(fd, PAGE);
	ck_assert_int_eq(pwrite(fd, "x", 1, 32 << 20), 1);
	expect_cut(fd, PAGE);
	ck_assert(harness_logged(&h, "alone has it open for writing"));
	ck_assert_int_eq(victim(), 0);
	close(fd);
	end();
}
END_TEST

static uint64_t length_of(int fd)
{
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	return (uint64_t)st.st_size;
}

/* All files of a heap that a client may write; it goes on serving. */
START_TEST(longer_heap)
{
	struct nvmm_heap *heap;
	int fds[3];

	begin();
	heap = harness_heap(nvmm, &pool, 4 * MIB, NULL, 0);
	fds[0] = open_pool(true);
	fds[1] = open_shelf(0);
	fds[2] = open_shelf(2);
	for (size_t i = 0; i < 3; i++) {
		uint64_t length = length_of(fds[i]);

		grow(fds[i], length, 16 * MIB, 0);
		expect_cut(fds[i], length);
		ck_assert_uint_eq(length_of(fds[i]), length);
		for (unsigned n = 0; n < 20; n++)
			ck_assert_uint_ne(nvmm_alloc(heap, 100 << n % 8), NVMM_NULL);
		close(fds[i]);
	}
	nvmm_heap_close(heap);
	end();
}
END_TEST

/* The first request after a file system was filled finds room. */
START_TEST(full_base)
{
	uint64_t step = 32 * MIB, at = 8 * MIB;
	int fd;

	harness_init(&h, NULL);
	if (!harness_small_base(&h))
		return;
	serve();
	fd = region_fd();
	for (unsigned round = 0; round < 3; round++) {
		for (step = 32 * MIB; step >= PAGE;)
			if (fallocate(fd, 0, (off_t)at, (off_t)step) == 0)
				at += step;
			else
				step /= 2;
		ck_assert_msg(victim() == 0, "round %u: %s", round, nvmm_errmsg(nvmm));
	}
	expect_cut(fd, PAGE);
	close(fd);
	end();
}
END_TEST

/* A descriptor outlives the close, and the session's hold on the pool. */
START_TEST(after_the_close)
{
	int fd;

	begin();
	fd = region_fd();
	close_pool();
	grow(fd, PAGE, 32 * MIB, 0);
	expect_cut(fd, PAGE);
	close(fd);
	end();
}
END_TEST

/* Unlinked while a session has it open: it stays as long as it was, and goes with that session's hold. */
START_TEST(after_the_destruction)
{
	char c = 0;
	int fd;

	begin();
	fd = region_fd();
	ck_assert_int_eq(pwrite(fd, "x", 1, 7), 1);
	destroy_by_force();
	grow(fd, PAGE, 100 * MIB, 0);
	expect_cut(fd, PAGE);
	ck_assert_int_eq(pread(fd, &c, 1, 7), 1);
	ck_assert_int_eq(c, 'x');
	close_pool();
	expect_cut(fd, 0);
	grow(fd, PAGE, 100 * MIB, 0);
	expect_cut(fd, 0);
	close(fd);
	end();
}
END_TEST

/* Closed, then destroyed: what is held of it holds no space. */
START_TEST(destroyed_after_the_close)
{
	int fd;

	begin();
	fd = region_fd();
	close_pool();
	ck_assert_int_eq(nvmm_region_destroy(nvmm, pool), 0);
	expect_cut(fd, 0);
	grow(fd, 0, 100 * MIB, 0);
	expect_cut(fd, 0);
	close(fd);
	end();
}
END_TEST

/* While no daemon runs nobody cuts; the next one does. */
START_TEST(without_a_daemon)
{
	int fd;

	begin();
	fd = region_fd();
	harness_signal(&h, SIGKILL);
	grow(fd, PAGE, 64 * MIB, 0);
	harness_start(&h);
	expect_cut(fd, PAGE);
	grow(fd, PAGE, 64 * MIB, 0);
	expect_cut(fd, PAGE);
	close(fd);
	raw_close(&raw);
	harness_stop(&h);
}
END_TEST

/* Lanes that a client added while no daemon ran are nobody's. */
START_TEST(lanes_without_a_daemon)
{
	struct nvmm_heap *heap;
	uint64_t length;
	int fd;

	begin();
	heap = harness_heap(nvmm, &pool, 4 * MIB, NULL, 0);
	nvmm_heap_close(heap);
	fd = open_pool(true);
	length = length_of(fd);
	harness_signal(&h, SIGKILL);
	grow(fd, length, 64 * MIB, 0);
	raw_close(&raw);
	nvmm_disconnect(nvmm);
	serve();
	heap = harness_open(nvmm, pool);
	ck_assert_uint_ne(nvmm_alloc(heap, 64), NVMM_NULL);
	expect_cut(fd, length);
	ck_assert_uint_eq(length_of(fd), length);
	ck_assert_uint_ne(nvmm_alloc(heap, 64), NVMM_NULL);
	nvmm_heap_close(heap);
	close(fd);
	end();
}
END_TEST

static void repeats(void *arg)
{
	int fd = *(const int *)arg;

	for (;;)
		(void)!fallocate(fd, 0, 8 << 20, 8 << 20);
}

/* Again and again: others are served, and at the end it is cut. */
START_TEST(again_and_again)
{
	uint64_t cuts = 1;
	pid_t pid;
	int fd;

	begin();
	fd = region_fd();
	pid = harness_fork(repeats, &fd);
	for (unsigned i = 0; i < 50; i++)
		ck_assert_msg(victim() == 0, "%u: %s", i, nvmm_errmsg(nvmm));
	kill(pid, SIGKILL);
	harness_until(is_counted, &cuts, WAIT_MS);
	expect_cut(fd, PAGE);
	close(fd);
	end();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("overgrown");
	TCase *tcase = harness_case(suite, "overgrown", 120);

	tcase_add_test(tcase, longer_region);
	tcase_add_test(tcase, longer_heap);
	tcase_add_test(tcase, full_base);
	tcase_add_test(tcase, after_the_close);
	tcase_add_test(tcase, after_the_destruction);
	tcase_add_test(tcase, destroyed_after_the_close);
	tcase_add_test(tcase, without_a_daemon);
	tcase_add_test(tcase, lanes_without_a_daemon);
	tcase_add_test(tcase, again_and_again);
	return harness_run(suite);
}
