/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sparse heaps against the real daemon: as large as one likes, as much of the base as is granted, given back
 * when trimmed, and an error with a name when there is no more.
 *
 * NVMMD_TEST_LONG=1: more is written.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/raw.h"

#define MIB (UINT64_C(1) << 20)
#define TIB (UINT64_C(1) << 40)
#define BLOCK (4 * MIB)

static struct harness h;

static struct nvmm_heap *sparse_heap(struct nvmm_client *nvmm, nvmm_pool_id *id, uint64_t bytes)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .sparse = true };

	*id = 0;
	must(nvmm_heap_create(nvmm, id, bytes, &options) == 0, "create: %s", nvmm_errmsg(nvmm));
	return harness_open(nvmm, *id);
}

static uint64_t held(void)
{
	return harness_usage(h.base).bytes;
}

/* What the daemon says that the pool's files take. */
static uint64_t file_bytes(struct nvmm_client *nvmm, nvmm_pool_id id)
{
	struct nvmm_pool_info info = { .size = sizeof(info) };

	ck_assert_int_eq(nvmm_pool_stat(nvmm, id, &info), 0);
	ck_assert(info.sparse);
	return info.file_bytes;
}

/* Trims; bytes that the file system has back, or the error. */
static int64_t trim(nvmm_pool_id id)
{
	Nvmm__HeapTrim op = NVMM__HEAP_TRIM__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__Reply *reply;
	struct raw raw;
	int64_t r;

	raw_connect(&raw, &h);
	raw_hello(&raw);
	op.id = id;
	request.op_case = NVMM__REQUEST__OP_HEAP_TRIM;
	request.heap_trim = &op;
	reply = raw_ask(&raw, &request);
	ck_assert_ptr_nonnull(reply);
	r = reply->error ? reply->error : (int64_t)reply->heap_trimmed->returned;
	nvmm__reply__free_unpacked(reply, NULL);
	raw_close(&raw);
	return r;
}

static nvmm_ptr filled(struct nvmm_client *nvmm, struct nvmm_heap *heap, uint64_t size)
{
	nvmm_ptr ptr = nvmm_alloc(heap, size);

	must(ptr != NVMM_NULL, "alloc: %s", nvmm_errmsg(nvmm));
	memset(nvmm_local(nvmm, ptr), (int)(ptr >> 14 & 127), size);
	return ptr;
}

static void expect_filled(struct nvmm_client *nvmm, nvmm_ptr ptr, uint64_t size)
{
	const char *p = nvmm_local(nvmm, ptr);

	for (uint64_t i = 0; i < size; i += 4096)
		must(p[i] == (char)(ptr >> 14 & 127), "a byte of %llx changed",
		     (unsigned long long)ptr);
}

START_TEST(tebibyte)
{
	unsigned n = harness_seconds(1) > 1 ? 1024 : 64; /* 4 GiB or 256 MiB */
	nvmm_ptr *ptr = calloc(n, sizeof(*ptr)), small[1000];
	struct nvmm_heap_info info = { .size = sizeof(info) };
	uint64_t empty, before;
	struct nvmm_heap *heap;
	struct nvmm_client *nvmm;
	nvmm_pool_id id;

	harness_init(&h, NULL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	before = held();
	heap = sparse_heap(nvmm, &id, TIB + 64 * MIB);
	empty = held();
	/* meta, lanes, and for each of two shelves headers, a granule map and a granule. */
	ck_assert_uint_le(empty - before, 2 * MIB);
	for (unsigned i = 0; i < n; i++)
		ptr[i] = filled(nvmm, heap, BLOCK);
	for (unsigned i = 0; i < 1000; i++)
		small[i] = filled(nvmm, heap, 24 + i * 60);
	ck_assert_uint_ge(held(), n * BLOCK);
	ck_assert_uint_le(held(), n * BLOCK + 256 * MIB);
	ck_assert_uint_ge(file_bytes(nvmm, id), n * BLOCK);
	ck_assert_uint_le(file_bytes(nvmm, id), held());
	ck_assert_int_eq(nvmm_heap_stat(heap, &info), 0);
	ck_assert_uint_eq(info.bytes, TIB + 64 * MIB);
	ck_assert_uint_ge(info.used, n * BLOCK);
	ck_assert_uint_ge(info.largest, TIB / 2);
	for (unsigned i = 0; i < n; i++) {
		expect_filled(nvmm, ptr[i], BLOCK);
		ck_assert_int_eq(nvmm_free(heap, ptr[i]), 0);
	}
	for (unsigned i = 0; i < 1000; i += 2)
		ck_assert_int_eq(nvmm_free(heap, small[i]), 0);
	/* The daemon is killed; what is granted is found again. */
	harness_signal(&h, SIGKILL);
	harness_start(&h);
	ck_assert_uint_ne(nvmm_alloc(heap, 300000), NVMM_NULL);
	ck_assert_int_ge(trim(id), 0);
	ck_assert_uint_le(held(), empty + 300 * MIB);
	for (unsigned i = 1; i < 1000; i += 2)
		expect_filled(nvmm, small[i], 24 + i * 60);
	nvmm_heap_close(heap);
	ck_assert_int_eq(nvmm_heap_destroy(nvmm, id), 0);
	ck_assert_uint_eq(held(), before);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
	free(ptr);
}
END_TEST

/* A block that takes long to reserve, and others that ask meanwhile. */
static void ask_small(void *arg)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, *(nvmm_pool_id *)arg);

	for (unsigned i = 0; i < 40; i++)
		filled(nvmm, heap, 200000 + i * 1000);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

START_TEST(large_blocks)
{
	struct nvmm_heap *heap;
	struct nvmm_client *nvmm;
	nvmm_pool_id id;
	pid_t other[3];

	harness_init(&h, NULL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	heap = sparse_heap(nvmm, &id, TIB / 2);
	for (unsigned i = 0; i < 3; i++)
		other[i] = harness_fork(ask_small, &id);
	for (unsigned i = 0; i < 6; i++) {
		nvmm_ptr ptr = nvmm_alloc(heap, (40 + i * 20) * MIB);

		must(ptr != NVMM_NULL, "alloc: %s", nvmm_errmsg(nvmm));
		*(char *)nvmm_local(nvmm, ptr + (39 + i * 20) * MIB) = 1;
		ck_assert_int_eq(nvmm_free(heap, ptr), 0);
		ck_assert_int_ge(trim(id), 0);
	}
	for (unsigned i = 0; i < 3; i++)
		harness_join(other[i]);
	nvmm_heap_close(heap);
	/* Nobody has it: loaded for the count, it gives back all that is free. */
	ck_assert_int_ge(trim(id), 0);
	ck_assert_uint_le(file_bytes(nvmm, id), 80 * MIB);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

/* Fills until the error; then frees all, trims, and fills as far again. */
static void fill_and_trim(struct nvmm_client *nvmm, struct nvmm_heap *heap, nvmm_pool_id id, int error,
			  const char *text)
{
	static nvmm_ptr ptr[4096];
	size_t n = 0, again = 0;

	while (n < 4096 && (ptr[n] = nvmm_alloc(heap, 100000)) != NVMM_NULL)
		memset(nvmm_local(nvmm, ptr[n++]), 1, 100000);
	ck_assert_int_eq(errno, error);
	must(strstr(nvmm_errmsg(nvmm), text), "no '%s' in: %s", text, nvmm_errmsg(nvmm));
	ck_assert_uint_ge(n, 200);
	for (size_t i = 0; i < n; i++)
		ck_assert_int_eq(nvmm_free(heap, ptr[i]), 0);
	ck_assert_int_ge(trim(id), 0);
	while (again < n && (ptr[again] = nvmm_alloc(heap, 100000)) != NVMM_NULL)
		memset(nvmm_local(nvmm, ptr[again++]), 2, 100000);
	ck_assert_uint_ge(again, n * 9 / 10);
}

/* A heap may be far larger than what it can have by `limit`, of 48 MiB. */
static void expect_limit(const struct harness_options *limit, int error, const char *text)
{
	struct nvmm_heap *heap;
	struct nvmm_client *nvmm;
	nvmm_pool_id id;

	harness_init(&h, limit);
	harness_start(&h);
	nvmm = harness_connect(&h);
	heap = sparse_heap(nvmm, &id, TIB);
	fill_and_trim(nvmm, heap, id, error, text);
	ck_assert_uint_le(held(), 49 * MIB);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}

START_TEST(over_capacity)
{
	const struct harness_options options = { .capacity = "48MiB" };

	expect_limit(&options, ENOSPC, "shelves.capacity");
}
END_TEST

START_TEST(over_quota)
{
	const struct harness_options options = { .limits = "  bytes_per_user: 48MiB\n" };

	expect_limit(&options, EDQUOT, "bytes_per_user");
}
END_TEST

START_TEST(full_file_system)
{
	struct nvmm_heap *heap;
	struct nvmm_client *nvmm;
	nvmm_pool_id id;

	harness_init(&h, NULL);
	if (!harness_small_base(&h))
		return;
	harness_start(&h);
	nvmm = harness_connect(&h);
	heap = sparse_heap(nvmm, &id, TIB);
	fill_and_trim(nvmm, heap, id, ENOSPC, "shelf base has no room");
	/* Another heap's share is what this one gave back. */
	ck_assert_uint_eq(nvmm_alloc(heap, 100 * MIB), NVMM_NULL);
	ck_assert_int_eq(errno, ENOSPC);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

/*
 * What a program freed has pages still. A block that takes a thread to reserve is had from them when the file
 * system is full, without a trim.
 */
START_TEST(relieved_for_large)
{
	struct nvmm_heap *heap;
	nvmm_ptr ptr[64], large;
	struct nvmm_client *nvmm;
	nvmm_pool_id id;
	unsigned n = 0;

	harness_init(&h, NULL);
	if (!harness_small_base(&h))
		return;
	harness_start(&h);
	nvmm = harness_connect(&h);
	heap = sparse_heap(nvmm, &id, TIB);
	while (n < 64 && (ptr[n] = nvmm_alloc(heap, 3 * MIB)) != NVMM_NULL)
		memset(nvmm_local(nvmm, ptr[n++]), 1, 3 * MIB);
	ck_assert_uint_ge(n, 16);
	/* Two of three are free: no run is longer than 6 MiB but the heap's rest. */
	for (unsigned i = 0; i < n; i++)
		if (i % 3)
			ck_assert_int_eq(nvmm_free(heap, ptr[i]), 0);
	for (unsigned i = 0; i < 3; i++) {
		large = nvmm_alloc(heap, 24 * MIB);
		must(large != NVMM_NULL, "alloc: %s", nvmm_errmsg(nvmm));
		memset(nvmm_local(nvmm, large), 2, 24 * MIB);
		ck_assert_int_eq(nvmm_free(heap, large), 0);
		large = nvmm_alloc(heap, 14 * MIB);
		must(large != NVMM_NULL, "alloc: %s", nvmm_errmsg(nvmm));
		memset(nvmm_local(nvmm, large), 3, 14 * MIB);
		ck_assert_int_eq(nvmm_free(heap, large), 0);
	}
	for (unsigned i = 0; i < n; i += 3)
		must(*(char *)nvmm_local(nvmm, ptr[i] + MIB) == 1, "block %u was given back", i);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

/*
 * A heap grows while the space of a large block is being reserved that the base does not have: each is a thread
 * of the daemon's. The one that fails leaves what the other made longer alone.
 */
static void ask_for_too_much(void *arg)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, *(nvmm_pool_id *)arg);

	for (unsigned i = 0; i < 40; i++) {
		must(nvmm_alloc(heap, 60 * MIB) == NVMM_NULL && errno == ENOSPC, "%s", nvmm_errmsg(nvmm));
		must(strstr(nvmm_errmsg(nvmm), "shelf base has no room"), "%s", nvmm_errmsg(nvmm));
	}
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

static uint64_t shelf_length(nvmm_pool_id id)
{
	char path[256];
	struct stat st;

	snprintf(path, sizeof(path), "%s/pool-%u/shelf-0", h.base, id);
	ck_assert_int_eq(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

START_TEST(grown_beside_a_shortage)
{
	uint64_t size = TIB / 2;
	struct nvmm_heap *heap;
	struct nvmm_client *nvmm;
	nvmm_pool_id id;
	pid_t pid;
	int status;

	harness_init(&h, NULL);
	if (!harness_small_base(&h))
		return;
	harness_start(&h);
	nvmm = harness_connect(&h);
	heap = sparse_heap(nvmm, &id, size);
	filled(nvmm, heap, 10 * MIB);
	pid = harness_fork(ask_for_too_much, &id);
	while (waitpid(pid, &status, WNOHANG) == 0) {
		int r = nvmm_pool_resize(nvmm, id, size + 16384);

		must(r == 0 || r == -ENOSPC, "resize: %s", nvmm_errmsg(nvmm));
		size += r == 0 ? 16384 : 0;
		ck_assert_uint_ge(shelf_length(id), size);
	}
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x", (unsigned)status);
	ck_assert_uint_gt(size, TIB / 2);
	harness_signal(&h, SIGKILL);
	harness_start(&h);
	filled(nvmm, heap, 10 * MIB);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

START_TEST(resized)
{
	uint64_t size = 16 * MIB, got = 0;
	struct nvmm_heap *heap;
	struct nvmm_client *nvmm;
	nvmm_pool_id id;

	harness_init(&h, NULL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	heap = sparse_heap(nvmm, &id, size);
	for (unsigned i = 0; i < 12; i++) {
		while (nvmm_alloc(heap, MIB) != NVMM_NULL)
			got += MIB;
		ck_assert_int_eq(errno, ENOSPC);
		must(strstr(nvmm_errmsg(nvmm), "grow it with"), "%s", nvmm_errmsg(nvmm));
		ck_assert_uint_ge(got, size - 4 * MIB);
		size += 7 * MIB + 16384;
		must(nvmm_pool_resize(nvmm, id, size) == 0, "resize: %s", nvmm_errmsg(nvmm));
	}
	/* Over the end of the first shelf. */
	must(nvmm_pool_resize(nvmm, id, TIB) == 0, "resize: %s", nvmm_errmsg(nvmm));
	must(nvmm_pool_resize(nvmm, id, TIB + TIB / 2) == 0, "resize: %s", nvmm_errmsg(nvmm));
	for (unsigned i = 0; i < 20; i++)
		filled(nvmm, heap, MIB);
	nvmm_heap_close(heap);
	harness_signal(&h, SIGKILL);
	harness_start(&h);
	heap = harness_open(nvmm, id);
	filled(nvmm, heap, MIB);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

START_TEST(refused)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .sparse = true };
	struct nvmm_heap *heap;
	struct nvmm_client *nvmm;
	nvmm_pool_id id = 0;

	harness_init(&h, NULL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, MIB, &options), -EINVAL);
	ck_assert_int_eq(trim(77), -ENOENT);
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, MIB, NULL), 0);
	ck_assert_int_eq(trim(id), -EINVAL);
	/* A heap that is reserved in full gives nothing back. */
	heap = harness_heap(nvmm, &id, 4 * MIB, NULL, 0);
	ck_assert_int_eq(trim(id), 0);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

/* A picture of it: as text, as JSON, as a file. */
START_TEST(pictured)
{
	const char *text[] = { "ctl/nvmmctl", "map", "1", NULL };
	const char *json[] = { "ctl/nvmmctl", "map", "1", "--json", "--width", "4", NULL };
	char path[256], out[65536], line[64] = "";
	const char *svg[] = { "ctl/nvmmctl", "map", "1", "--svg", path, NULL };
	const char *show[] = { "ctl/nvmmctl", "pool", "show", "1", NULL };
	struct nvmm_heap_class classes[64];
	struct nvmm_heap *heap;
	struct nvmm_client *nvmm;
	nvmm_pool_id id;
	FILE *f;

	harness_init(&h, NULL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	heap = sparse_heap(nvmm, &id, TIB);
	ck_assert_uint_eq(id, 1);
	for (unsigned i = 0; i < 2000; i++)
		filled(nvmm, heap, i % 100 ? 1000 : 500000);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), text), 0);
	must(strstr(out, "large blocks") && strstr(out, "of 1.0 TiB allocated"), "%s", out);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), json), 0);
	must(strstr(out, "\"cells\"") && strstr(out, "\"large\""), "%s", out);
	snprintf(path, sizeof(path), "%s/map.svg", h.dir);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), svg), 0);
	f = fopen(path, "re");
	ck_assert_ptr_nonnull(f);
	ck_assert_ptr_nonnull(fgets(line, sizeof(line), f));
	fclose(f);
	ck_assert_int_eq(strncmp(line, "<svg ", 5), 0);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), show), 0);
	must(strstr(out, "BLOCKS OF"), "%s", out);
	ck_assert_int_eq(nvmm_heap_classes(heap, classes, 64), 2);
	ck_assert_uint_eq(classes[0].used, 1980);
	ck_assert_uint_eq(classes[1].block_size, 0);
	ck_assert_uint_eq(classes[1].used, 20);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sparse");
	TCase *tcase = harness_case(suite, "sparse", 120);

	tcase_add_test(tcase, tebibyte);
	tcase_add_test(tcase, large_blocks);
	tcase_add_test(tcase, over_capacity);
	tcase_add_test(tcase, over_quota);
	tcase_add_test(tcase, full_file_system);
	tcase_add_test(tcase, relieved_for_large);
	tcase_add_test(tcase, grown_beside_a_shortage);
	tcase_add_test(tcase, resized);
	tcase_add_test(tcase, refused);
	tcase_add_test(tcase, pictured);
	return harness_run(suite);
}
