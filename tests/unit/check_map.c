/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mappings and translation, over shelves that the test makes.
 */
#include <nvmm/client.h>

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/unit/fake_daemon.h"
#include "tests/unit/suite.h"

#define SIZE (UINT64_C(1) << 20)
#define LIMIT (UINT64_C(100) << 20)
#define READ_ONLY_POOL 7u

static struct fake fake;
static struct nvmm_client *nvmm;
static int shelf[2]; /* pool 5 has two shelves */
static uint64_t sizes[2];
static unsigned opened[2], closed[2];

static enum fake_action answer_opened(const Nvmm__Request *request, Nvmm__Reply *reply)
{
	static __thread Nvmm__PoolOpened result;
	static __thread Nvmm__PoolInfo pool;
	static __thread Nvmm__Shelf last;

	if (request->pool_open->id == READ_ONLY_POOL && request->pool_open->write) {
		reply->error = -EACCES;
		return FAKE_REPLY;
	}
	opened[request->pool_open->write]++;
	nvmm__pool_info__init(&pool);
	pool.id = request->pool_open->id;
	pool.kind = NVMM_POOL_REGION;
	pool.incarnation = 3;
	pool.shelves = 2;
	nvmm__shelf__init(&last);
	last.index = 1;
	nvmm__pool_opened__init(&result);
	result.pool = &pool;
	result.last = &last;
	reply->result_case = NVMM__REPLY__RESULT_OPENED;
	reply->opened = &result;
	return FAKE_REPLY;
}

static enum fake_action answer_shelf(const Nvmm__Request *request, Nvmm__Reply *reply, int *fds,
				     size_t *n_fds)
{
	static __thread Nvmm__Shelf s;
	static __thread int fd = -1;
	char path[64];

	if (request->shelf_open->index > 1) {
		reply->error = -ENXIO;
		return FAKE_REPLY;
	}
	nvmm__shelf__init(&s);
	s.index = request->shelf_open->index;
	s.size = sizes[s.index];
	s.limit = LIMIT;
	reply->result_case = NVMM__REPLY__RESULT_SHELF;
	reply->shelf = &s;
	if (fd >= 0)
		close(fd);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", shelf[s.index]);
	fd = open(path, request->shelf_open->write ? O_RDWR : O_RDONLY);
	fds[0] = fd;
	*n_fds = 1;
	return FAKE_REPLY;
}

static enum fake_action serve(struct fake *f, int conn, const Nvmm__Request *request,
			      Nvmm__Reply *reply, int *fds, size_t *n_fds)
{
	switch (request->op_case) {
	case NVMM__REQUEST__OP_POOL_OPEN:
		return answer_opened(request, reply);
	case NVMM__REQUEST__OP_POOL_CLOSE:
		closed[request->pool_close->write]++;
		return FAKE_REPLY;
	case NVMM__REQUEST__OP_SHELF_OPEN:
		return answer_shelf(request, reply, fds, n_fds);
	default:
		ck_abort_msg("request %d", request->op_case);
	}
}

static void setup(void)
{
	struct nvmm_options options = { .size = sizeof(options), .timeout_ms = 5000 };

	for (int i = 0; i < 2; i++) {
		shelf[i] = memfd_create("shelf", MFD_CLOEXEC);
		sizes[i] = SIZE;
		ck_assert_int_eq(ftruncate(shelf[i], SIZE), 0);
		ck_assert_int_eq(pwrite(shelf[i], i ? "second" : "first", 6, 0), 6);
	}
	fake_init(&fake);
	fake.serve = serve;
	fake_start(&fake);
	options.socket = fake.path;
	ck_assert_int_eq(nvmm_connect(&nvmm, &options), 0);
}

static void teardown(void)
{
	nvmm_disconnect(nvmm);
	fake_stop(&fake);
	close(shelf[0]);
	close(shelf[1]);
}

static nvmm_ptr at(nvmm_pool_id pool, uint8_t index, uint64_t offset)
{
	return (nvmm_ptr)pool << 48 | (nvmm_ptr)index << 40 | offset;
}

START_TEST(test_translate)
{
	char *p, *q, *r;

	ck_assert_ptr_null(nvmm_local(nvmm, NVMM_NULL));
	p = nvmm_local(nvmm, at(5, 0, 0));
	ck_assert_ptr_nonnull(p);
	ck_assert_str_eq(p, "first");
	ck_assert_uint_eq((uintptr_t)p % (64 << 20), 0);
	q = nvmm_local(nvmm, at(5, 0, 12345));
	ck_assert_ptr_eq(q, p + 12345);
	r = nvmm_local(nvmm, at(5, 1, 0));
	ck_assert_str_eq(r, "second");
	ck_assert_uint_eq(nvmm_global(nvmm, q), at(5, 0, 12345));
	ck_assert_uint_eq(nvmm_global(nvmm, r + 1), at(5, 1, 1));
	ck_assert_uint_eq(nvmm_global(nvmm, &p), NVMM_NULL);
	ck_assert_uint_eq(nvmm_global(nvmm, NULL), NVMM_NULL);
	ck_assert_uint_eq(nvmm_global(nvmm, (void *)-1L), NVMM_NULL);
	ck_assert_uint_eq(nvmm_global(nvmm, p + LIMIT), NVMM_NULL);
	/* Opened once, for writing. */
	ck_assert_uint_eq(opened[1], 1);
	ck_assert_uint_eq(opened[0], 0);
	*q = 1;
}
END_TEST

START_TEST(test_translate_refused)
{
	errno = 0;
	ck_assert_ptr_null(nvmm_local(nvmm, at(0, 0, 64)));
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_ptr_null(nvmm_local(nvmm, at(5, 2, 0)));
	ck_assert_int_eq(errno, ENXIO);
	ck_assert_ptr_null(nvmm_local(nvmm, at(5, 0, LIMIT)));
	ck_assert_int_eq(errno, ERANGE);
}
END_TEST

/* What the user may not write is mapped for reading. */
START_TEST(test_translate_read_only)
{
	char *p = nvmm_local(nvmm, at(READ_ONLY_POOL, 0, 0));
	void *q;

	ck_assert_str_eq(p, "first");
	ck_assert_uint_eq(opened[0], 1);
	ck_assert_int_eq(nvmm_map(nvmm, at(READ_ONLY_POOL, 0, 0), 4096, NULL, PROT_READ, 0, &q), 0);
	ck_assert_int_eq(nvmm_map(nvmm, at(READ_ONLY_POOL, 0, 0), 4096, NULL,
				  PROT_READ | PROT_WRITE, 0, &q), -EACCES);
}
END_TEST

/* A shelf that grows in place needs no new mapping. */
START_TEST(test_growth)
{
	char *p = nvmm_local(nvmm, at(5, 0, 0));

	ck_assert_int_eq(ftruncate(shelf[0], 2 * SIZE), 0);
	sizes[0] = 2 * SIZE;
	ck_assert_int_eq(pwrite(shelf[0], "grown", 6, SIZE), 6);
	ck_assert_str_eq(nvmm_local(nvmm, at(5, 0, SIZE)), "grown");
	ck_assert_uint_eq(nvmm_global(nvmm, p + SIZE), at(5, 0, SIZE));
}
END_TEST

/* Opening for writing what is mapped for reading keeps its address. */
START_TEST(test_upgrade)
{
	struct nvmm_region *ro, *rw;
	char *p;

	ck_assert_int_eq(nvmm_region_open(&ro, nvmm, 5, O_RDONLY), 0);
	p = nvmm_local(nvmm, at(5, 0, 0));
	ck_assert_uint_eq(opened[1], 0);
	ck_assert_int_eq(nvmm_region_open(&rw, nvmm, 5, O_RDWR), 0);
	ck_assert_uint_eq(opened[1], 1);
	ck_assert_ptr_eq(nvmm_local(nvmm, at(5, 0, 0)), p);
	p[0] = 'F';
	ck_assert_str_eq(p, "First");
	nvmm_region_close(ro);
	nvmm_region_close(rw);
	/* Addresses are good as long as a handle is there, */
	ck_assert_uint_eq(closed[0], 1);
	ck_assert_uint_eq(closed[1], 1);
	ck_assert_uint_eq(nvmm_global(nvmm, p), NVMM_NULL);
	/* or until the end, if there was none. */
	p = nvmm_local(nvmm, at(5, 0, 0));
	ck_assert_str_eq(p, "First");
	ck_assert_int_eq(nvmm_region_open(&rw, nvmm, 5, O_RDWR), 0);
	nvmm_region_close(rw);
	ck_assert_uint_eq(closed[1], 1);
	ck_assert_str_eq(p, "First");
}
END_TEST

START_TEST(test_close)
{
	struct nvmm_region *a, *b;

	ck_assert_int_eq(nvmm_region_open(&a, nvmm, 5, O_RDWR), 0);
	ck_assert_int_eq(nvmm_region_open(&b, nvmm, 5, O_RDONLY), 0);
	ck_assert_uint_eq(opened[1], 1);
	ck_assert_uint_eq(opened[0], 0);
	nvmm_region_close(a);
	ck_assert_uint_eq(closed[1], 0);
	nvmm_region_close(b);
	ck_assert_uint_eq(closed[1], 1);
	nvmm_region_close(NULL);
	ck_assert_int_eq(nvmm_region_open(&a, nvmm, 5, O_WRONLY), -EINVAL);
}
END_TEST

START_TEST(test_region_map)
{
	struct nvmm_region *region;
	void *hint = mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *p, *q;
	unsigned before = open_fds();

	ck_assert_int_eq(nvmm_region_open(&region, nvmm, 5, O_RDWR), 0);
	ck_assert_int_eq(nvmm_region_map(region, hint, 8192, PROT_READ | PROT_WRITE,
					 MAP_FIXED_NOREPLACE, 0, &p), -EEXIST);
	ck_assert_int_eq(nvmm_region_map(region, hint, 8192, PROT_READ | PROT_WRITE, MAP_FIXED, 0,
					 &p), 0);
	ck_assert_ptr_eq(p, hint);
	ck_assert_str_eq(p, "first");
	/* Over the border of two shelves. */
	ck_assert_int_eq(nvmm_region_map(region, NULL, 8192, PROT_READ, 0, SIZE - 4096, &q), 0);
	ck_assert_str_eq((char *)q + 4096, "second");
	/* One descriptor is the fake's own. */
	ck_assert_uint_le(open_fds(), before + 1);
	ck_assert_int_eq(nvmm_region_unmap(region, q, 8192), 0);
	ck_assert_int_eq(nvmm_region_unmap(region, q, 8192), -EINVAL);
	nvmm_region_close(region);
	/* Stays mapped. */
	ck_assert_str_eq(p, "first");
	ck_assert_int_eq(nvmm_unmap(nvmm, p, 8192), 0);
}
END_TEST

START_TEST(test_region_map_refused)
{
	struct nvmm_region *region;
	void *p;

	ck_assert_int_eq(nvmm_region_open(&region, nvmm, 5, O_RDONLY), 0);
#define MAP(len, prot, flags, offset) nvmm_region_map(region, NULL, len, prot, flags, offset, &p)
	ck_assert_int_eq(MAP(4096, PROT_READ | PROT_WRITE, 0, 0), -EACCES);
	ck_assert_int_eq(MAP(0, PROT_READ, 0, 0), -EINVAL);
	ck_assert_int_eq(MAP(4096, PROT_NONE, 0, 0), -EINVAL);
	ck_assert_int_eq(MAP(4096, PROT_READ | PROT_EXEC, 0, 0), -EINVAL);
	ck_assert_int_eq(MAP(4096, PROT_READ, MAP_PRIVATE, 0), -EINVAL);
	ck_assert_int_eq(MAP(4096, PROT_READ, 0, 1), -EINVAL);
	ck_assert_int_eq(MAP(4096, PROT_READ, 0, 2 * SIZE), -EINVAL);
	ck_assert_int_eq(MAP(2 * SIZE + 1, PROT_READ, 0, 0), -EINVAL);
	ck_assert_int_eq(MAP(SIZE_MAX, PROT_READ, 0, 0), -EINVAL);
	ck_assert_int_eq(MAP(2 * SIZE, PROT_READ, 0, 0), 0);
#undef MAP
	nvmm_region_close(region);
}
END_TEST

/* Parts of ranges, and ranges mapped over ranges. */
START_TEST(test_ranges)
{
	char *p, *q;
	void *v;

	ck_assert_int_eq(nvmm_map(nvmm, at(5, 0, 0), 5 * 4096, NULL, PROT_READ, 0, &v), 0);
	p = v;
	ck_assert_int_eq(nvmm_unmap(nvmm, p + 2 * 4096, 4096), 0);
	ck_assert_int_eq(nvmm_unmap(nvmm, p, 5 * 4096), -EINVAL);
	ck_assert_int_eq(nvmm_map(nvmm, at(5, 1, 0), 4096, p + 4096, PROT_READ, MAP_FIXED, &v), 0);
	q = v;
	ck_assert_ptr_eq(q, p + 4096);
	ck_assert_str_eq(q, "second");
	ck_assert_str_eq(p, "first");
	ck_assert_int_eq(nvmm_unmap(nvmm, p, 2 * 4096), 0);
	ck_assert_int_eq(nvmm_unmap(nvmm, p + 3 * 4096, 2 * 4096), 0);
	ck_assert_int_eq(nvmm_unmap(nvmm, p + 4 * 4096, 4096), -EINVAL);
	ck_assert_int_eq(nvmm_unmap(nvmm, p + 1, 4096), -EINVAL);
	ck_assert_int_eq(nvmm_unmap(nvmm, &fake, 4096), -EINVAL);
	ck_assert_int_eq(nvmm_map(nvmm, at(5, 0, SIZE - 4096), 8192, NULL, PROT_READ, 0, &v), -EINVAL);
	ck_assert_int_eq(nvmm_map(nvmm, at(5, 0, 1), 4096, NULL, PROT_READ, 0, &v), -EINVAL);
}
END_TEST

/* Sanitizers have more address space than this allows. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define LIMITED_ADDRESS_SPACE
START_TEST(test_address_space)
{
	struct rlimit old, little;

	ck_assert_int_eq(getrlimit(RLIMIT_AS, &old), 0);
	little = old;
	little.rlim_cur = 64 << 20;
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &little), 0);
	errno = 0;
	ck_assert_ptr_null(nvmm_local(nvmm, at(5, 0, 0)));
	ck_assert_int_eq(errno, ENOMEM);
	ck_assert_ptr_nonnull(strstr(nvmm_errmsg(nvmm), "ulimit -v"));
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &old), 0);
	ck_assert_ptr_nonnull(nvmm_local(nvmm, at(5, 0, 0)));
}
END_TEST
#endif

START_TEST(test_persist)
{
	char *p = nvmm_local(nvmm, at(5, 0, 0));

	nvmm_memcpy_persist(p + 100, "hello", 6);
	ck_assert_str_eq(p + 100, "hello");
	nvmm_memset_persist(p + 100, 'x', 3);
	ck_assert_str_eq(p + 100, "xxxlo");
	nvmm_flush(p, 4096);
	nvmm_drain();
	nvmm_persist(p + 1, 7);
	nvmm_invalidate(p + 3, 200);
	nvmm_invalidate(p, 0);
	ck_assert_str_eq(p + 100, "xxxlo");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("map");
	TCase *tc = tcase_create("map");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, test_translate);
	tcase_add_test(tc, test_translate_refused);
	tcase_add_test(tc, test_translate_read_only);
	tcase_add_test(tc, test_growth);
	tcase_add_test(tc, test_upgrade);
	tcase_add_test(tc, test_close);
	tcase_add_test(tc, test_region_map);
	tcase_add_test(tc, test_region_map_refused);
	tcase_add_test(tc, test_ranges);
#ifdef LIMITED_ADDRESS_SPACE
	tcase_add_test(tc, test_address_space);
#endif
	tcase_add_test(tc, test_persist);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
