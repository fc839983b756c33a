/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Blocks of every size and alignment, beside a real daemon: aligned ones, those that change their size,
 * zeroed ones, large ones.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "tests/system/harness.h"

#define MIB (UINT64_C(1) << 20)

static struct harness h;
static struct nvmm *nvmm;
static struct nvmm_heap *heap;

static void start(void)
{
	nvmm_pool_id id;

	harness_init(&h, NULL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	heap = harness_heap(nvmm, &id, 256 * MIB, NULL, 0);
}

static void stop(void)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };

	ck_assert_int_eq(nvmm_heap_stat(heap, &info), 0);
	ck_assert_uint_eq(info.blocks, 0);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}

static void fill(nvmm_ptr ptr, size_t size, unsigned char first)
{
	unsigned char *p = nvmm_local(nvmm, ptr);

	for (size_t i = 0; i < size; i++)
		p[i] = (unsigned char)(first + i % 251);
}

static void expect(nvmm_ptr ptr, size_t size, unsigned char first)
{
	const unsigned char *p = nvmm_local(nvmm, ptr);

	for (size_t i = 0; i < size; i++)
		must(p[i] == (unsigned char)(first + i % 251), "byte %zu is %u", i, p[i]);
}

START_TEST(aligned)
{
	static const size_t sizes[] = { 1, 100, 4096, 20000, 200000, 3 * MIB };

	for (size_t align = 1; align <= 2 * MIB; align *= 2)
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			nvmm_ptr ptr = nvmm_alloc_aligned(heap, align, sizes[i]);

			must(ptr != NVMM_NULL, "align %zu: %s", align, nvmm_errmsg(nvmm));
			must((uintptr_t)nvmm_local(nvmm, ptr) % align == 0, "align %zu: %llx", align,
			     (unsigned long long)ptr);
			must(nvmm_usable_size(heap, ptr) >= sizes[i], "size %zu", sizes[i]);
			memset(nvmm_local(nvmm, ptr), 1, sizes[i]);
			must(nvmm_free(heap, ptr) == 0, "%s", nvmm_errmsg(nvmm));
		}
	ck_assert_uint_eq(nvmm_alloc_aligned(heap, 4 * MIB, 1), NVMM_NULL);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_uint_eq(nvmm_alloc_aligned(heap, 24, 1), NVMM_NULL);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_uint_eq(nvmm_alloc_aligned(heap, 64, 0), NVMM_NULL);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_uint_eq(nvmm_alloc_aligned(heap, 2 * MIB, 300 * MIB), NVMM_NULL);
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_str_ne(nvmm_errmsg(nvmm), "");
}
END_TEST

START_TEST(realloc_sizes)
{
	nvmm_ptr ptr = nvmm_realloc(heap, NVMM_NULL, 1), moved;
	size_t old = 1;

	ck_assert_uint_ne(ptr, NVMM_NULL);
	fill(ptr, 1, 1);
	for (size_t size = 2; size < 8 * MIB; size += 1 + size / 5) {
		ptr = nvmm_realloc(heap, ptr, size);
		must(ptr != NVMM_NULL, "%zu: %s", size, nvmm_errmsg(nvmm));
		expect(ptr, old, 1);
		fill(ptr, size, 1);
		old = size;
	}
	for (size_t size = old; size > 1; size -= 1 + size / 5) {
		ptr = nvmm_realloc(heap, ptr, size);
		must(ptr != NVMM_NULL, "%zu: %s", size, nvmm_errmsg(nvmm));
		expect(ptr, size, 1);
		/* No more than a quarter lost, or the smallest block. */
		must(nvmm_usable_size(heap, ptr) <= 16 ||
			     nvmm_usable_size(heap, ptr) * 9 <= size * 16, "%zu", size);
	}
	moved = nvmm_realloc(heap, ptr, 16);
	ck_assert_uint_eq(moved, nvmm_realloc(heap, moved, 9));
	ck_assert_int_eq(nvmm_free(heap, moved), 0);
}
END_TEST

START_TEST(realloc_errors)
{
	nvmm_ptr ptr = nvmm_alloc(heap, 1000);

	fill(ptr, 1000, 3);
	ck_assert_uint_eq(nvmm_realloc(heap, ptr, 0), NVMM_NULL);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_uint_eq(nvmm_realloc(heap, ptr, 300 * MIB), NVMM_NULL);
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_uint_eq(nvmm_realloc(heap, ptr, SIZE_MAX), NVMM_NULL);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_uint_eq(nvmm_realloc(heap, ptr + 16, 10), NVMM_NULL);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_str_ne(nvmm_errmsg(nvmm), "");
	expect(ptr, 1000, 3);
	ck_assert_int_eq(nvmm_free(heap, ptr), 0);
	ck_assert_uint_eq(nvmm_realloc(heap, ptr, 10), NVMM_NULL);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_uint_eq(nvmm_realloc(heap, NVMM_NULL, 0), NVMM_NULL);
	ck_assert_int_eq(errno, EINVAL);
}
END_TEST

static void *hoard(void *arg)
{
	nvmm_ptr *kept = arg;
	nvmm_ptr ptr[200];

	for (unsigned i = 0; i < 200; i++) {
		ptr[i] = nvmm_alloc(heap, 16 + i * 100);
		must(ptr[i] != NVMM_NULL, "%s", nvmm_errmsg(nvmm));
	}
	for (unsigned i = 1; i < 200; i++)
		must(nvmm_free(heap, ptr[i]) == 0, "%s", nvmm_errmsg(nvmm));
	*kept = ptr[0];
	must(nvmm_free(heap, nvmm_alloc(heap, MIB)) == 0, "%s", nvmm_errmsg(nvmm));
	return NULL;
}

/* What threads hold of large blocks and empty spans is free for a block of nearly all after it. */
START_TEST(trim)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };
	nvmm_ptr kept[2], deferred = nvmm_alloc(heap, 2 * MIB);
	pthread_t thread;
	int64_t bytes;

	hoard(&kept[0]);
	ck_assert_int_eq(pthread_create(&thread, NULL, hoard, &kept[1]), 0);
	pthread_join(thread, NULL);
	ck_assert_int_eq(nvmm_free_deferred(heap, deferred), 0);
	bytes = nvmm_heap_trim(heap);
	ck_assert_msg(bytes >= (int64_t)(3 * MIB), "%lld: %s", (long long)bytes, nvmm_errmsg(nvmm));
	ck_assert_int_eq(nvmm_heap_stat(heap, &info), 0);
	ck_assert_uint_eq(info.limbo, 0);
	ck_assert_uint_eq(info.blocks, 2);
	/* Only the spans of the two blocks are not free runs. */
	ck_assert_uint_le(info.spans, 2);
	ck_assert_int_eq(nvmm_heap_trim(heap), 0);
	ck_assert_int_eq(nvmm_free(heap, kept[0]), 0);
	ck_assert_int_eq(nvmm_free(heap, kept[1]), 0);
	ck_assert_uint_ne(kept[0] = nvmm_alloc(heap, 16), NVMM_NULL);
	ck_assert_int_eq(nvmm_free(heap, kept[0]), 0);
}
END_TEST

START_TEST(shelves)
{
	struct nvmm_shelf shelf[2], again[2];
	nvmm_ptr ptr = nvmm_alloc(heap, 100);
	char *p = nvmm_local(nvmm, ptr);

	ck_assert_int_eq(nvmm_heap_shelves(heap, NULL, 0), 1);
	ck_assert_int_eq(nvmm_heap_shelves(heap, shelf, 2), 1);
	ck_assert_uint_eq(shelf[0].index, 0);
	ck_assert_uint_eq(shelf[0].len, 256 * MIB);
	ck_assert(p >= (char *)shelf[0].addr && p < (char *)shelf[0].addr + shelf[0].len);
	ck_assert_int_eq(nvmm_pool_resize(nvmm, nvmm_ptr_pool(ptr), 257 * MIB), 0);
	ck_assert_int_eq(nvmm_heap_shelves(heap, again, 2), 1);
	ck_assert_ptr_eq(again[0].addr, shelf[0].addr);
	ck_assert_uint_eq(again[0].len, 257 * MIB);
	ck_assert_int_eq(nvmm_free(heap, ptr), 0);
}
END_TEST

/* Whoever has it open keeps what he has; it is gone for all others. */
START_TEST(destroyed_by_force)
{
	struct nvmm *other = harness_connect(&h);
	struct nvmm_heap *doomed, *again;
	nvmm_pool_id id;
	nvmm_ptr ptr;
	char *p;

	doomed = harness_heap(other, &id, MIB, NULL, 0);
	ptr = nvmm_alloc(doomed, 100);
	p = nvmm_local(other, ptr);
	ck_assert_ptr_nonnull(p);
	ck_assert_int_eq(nvmm_heap_destroy(nvmm, id), -EBUSY);
	ck_assert_int_eq(nvmm_heap_destroy_forced(nvmm, id), 0);
	strcpy(p, "still there");
	ck_assert_int_eq(nvmm_heap_open(&again, nvmm, id, O_RDONLY), -ENOENT);
	ck_assert_int_eq(nvmm_heap_destroy_forced(nvmm, id), -ENOENT);
	ck_assert_str_eq(p, "still there");
	nvmm_heap_close(doomed);
	nvmm_disconnect(other);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sizes");
	TCase *tcase = harness_case(suite, "sizes", 120);

	tcase_add_checked_fixture(tcase, start, stop);
	tcase_add_test(tcase, aligned);
	tcase_add_test(tcase, realloc_sizes);
	tcase_add_test(tcase, realloc_errors);
	tcase_add_test(tcase, trim);
	tcase_add_test(tcase, shelves);
	tcase_add_test(tcase, destroyed_by_force);
	return harness_run(suite);
}
