/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Blocks of every size and alignment, beside a real daemon: aligned ones, those that change their size,
 * zeroed ones, large ones.
 */
#include <errno.h>
#include <fcntl.h>
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

int main(void)
{
	Suite *suite = suite_create("sizes");
	TCase *tcase = harness_case(suite, "sizes", 120);

	tcase_add_checked_fixture(tcase, start, stop);
	tcase_add_test(tcase, aligned);
	tcase_add_test(tcase, realloc_sizes);
	tcase_add_test(tcase, realloc_errors);
	return harness_run(suite);
}
