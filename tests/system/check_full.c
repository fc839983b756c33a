/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * No room: in a heap, under the configured capacity, and on the shelf base's file system. Each time
 * the caller is told ENOSPC at once, nothing is left behind, and what fits afterwards works.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/system/harness.h"

#define MIB (UINT64_C(1) << 20)
#define BLOCKS 600000u /* more than fit */

static struct harness h;

/* Allocates until there is no more; how many. */
static size_t fill(struct nvmm_heap *heap, size_t size, nvmm_ptr *blocks, size_t room)
{
	size_t n = 0;

	while (n < room && (blocks[n] = nvmm_alloc(heap, size)) != NVMM_NULL)
		n++;
	ck_assert_uint_lt(n, room);
	ck_assert_msg(errno == ENOSPC, "errno %d", errno);
	return n;
}

static void fill_and_go_on(size_t size)
{
	static nvmm_ptr blocks[BLOCKS];
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap_info info = { .size = sizeof(info) };
	nvmm_pool_id id;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, 4 * MIB, NULL, 0);
	size_t n = fill(heap, size, blocks, BLOCKS), again;

	ck_assert_str_ne(nvmm_errmsg(nvmm), "");
	for (size_t i = 0; i < n; i++)
		memset(nvmm_local(nvmm, blocks[i]), (int)i, size);
	ck_assert_int_eq(nvmm_free(heap, blocks[n / 2]), 0);
	blocks[n / 2] = nvmm_alloc(heap, size);
	ck_assert_uint_ne(blocks[n / 2], NVMM_NULL);
	ck_assert_uint_eq(nvmm_alloc(heap, size), NVMM_NULL);

	for (size_t i = 0; i < n; i++)
		must(nvmm_free(heap, blocks[i]) == 0, "free: %s", nvmm_errmsg(nvmm));
	again = fill(heap, size, blocks, BLOCKS);
	ck_assert_uint_eq(again, n);
	for (size_t i = 0; i < n; i++)
		must(nvmm_free(heap, blocks[i]) == 0, "free: %s", nvmm_errmsg(nvmm));
	ck_assert_int_eq(nvmm_heap_stat(heap, &info), 0);
	ck_assert_uint_eq(info.blocks, 0);
	ck_assert_uint_eq(info.used, 0);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

static const size_t sizes[] = { 16, 100, 1000, 5000, 131072, 300000, 2000000 };

START_TEST(full_heap)
{
	harness_init(&h, NULL);
	harness_start(&h);
	fill_and_go_on(sizes[_i]);
	harness_stop(&h);
}
END_TEST

/* A heap filled with one size, emptied, takes another: spans are given back when room is short. */
START_TEST(room_moves_between_sizes)
{
	static nvmm_ptr blocks[BLOCKS];
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	nvmm_pool_id id;

	harness_init(&h, NULL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	heap = harness_heap(nvmm, &id, 8 * MIB, NULL, 0);
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		size_t n = fill(heap, sizes[s], blocks, BLOCKS);

		ck_assert_msg(n * sizes[s] > 5 * MIB, "%zu blocks of %zu", n, sizes[s]);
		for (size_t i = 0; i < n; i++)
			must(nvmm_free(heap, blocks[i]) == 0, "free: %s", nvmm_errmsg(nvmm));
	}
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

static void no_room_then_room(uint64_t too_much, uint64_t enough)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct harness_usage before = harness_usage(h.base), after;
	struct nvmm_pool_options options = { .size = sizeof(options), .name = "tight" };
	struct nvmm_pool_info info;
	nvmm_pool_id id;

	for (int round = 0; round < 3; round++) {
		id = 0;
		ck_assert_int_eq(nvmm_heap_create(nvmm, &id, too_much, &options), -ENOSPC);
		ck_assert_str_ne(nvmm_errmsg(nvmm), "");
		ck_assert_int_eq(nvmm_region_create(nvmm, &id, too_much, &options), -ENOSPC);
		ck_assert_int_eq(nvmm_pool_list(nvmm, 0, &info, 1), 0);
		ck_assert_int_eq(nvmm_pool_lookup(nvmm, "tight", &id), -ENOENT);
		after = harness_usage(h.base);
		ck_assert_uint_eq(after.files, before.files);
	}
	id = 0;
	ck_assert_int_eq(nvmm_heap_create(nvmm, &id, enough, &options), 0);
	before = harness_usage(h.base);
	ck_assert_int_eq(nvmm_pool_resize(nvmm, id, too_much), -ENOSPC);
	after = harness_usage(h.base);
	ck_assert_uint_eq(after.files, before.files);
	ck_assert_uint_eq(after.bytes, before.bytes);
	ck_assert_int_eq(nvmm_heap_destroy(nvmm, id), 0);
	nvmm_disconnect(nvmm);
}

START_TEST(capacity)
{
	struct harness_options options = { .capacity = "16MiB" };

	harness_init(&h, &options);
	harness_start(&h);
	no_room_then_room(64 * MIB, 4 * MIB);
	harness_stop(&h);
}
END_TEST

START_TEST(no_room_on_file_system)
{
	harness_init(&h, NULL);
	if (!harness_small_base(&h))
		return;
	harness_start(&h);
	no_room_then_room(256 * MIB, 4 * MIB);
	harness_stop(&h);
}
END_TEST

/* Programs that keep offsets take 0 for none: whatever the size, and whoever asks, no block is there. */
static void expect_no_offset_0(nvmm_pool_id id, size_t size)
{
	static nvmm_ptr blocks[BLOCKS];
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, id);
	size_t n = fill(heap, size, blocks, BLOCKS);

	ck_assert_uint_gt(n, 0);
	for (size_t i = 0; i < n; i++)
		must(blocks[i] << 16 != 0, "a block of %zu bytes is at offset 0", size);
	for (size_t i = 0; i < n; i++)
		must(nvmm_free(heap, blocks[i]) == 0, "free: %s", nvmm_errmsg(nvmm));
	ck_assert_int_ge(nvmm_heap_trim(heap), 0);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

START_TEST(offset_0_is_no_block)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .sparse = _i == 1 };
	struct nvmm_client *nvmm;
	nvmm_pool_id id = 0, small = 0;

	harness_init(&h, NULL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(nvmm_heap_create(nvmm, &id, 4 * MIB, &options), 0);
	ck_assert_int_eq(nvmm_heap_create(nvmm, &small, 1, &options), 0);
	nvmm_disconnect(nvmm);
	for (unsigned run = 0; run < 2; run++) {
		for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			expect_no_offset_0(id, sizes[i]);
		expect_no_offset_0(small, 16); /* the smallest heap has room all the same */
		harness_signal(&h, SIGKILL); /* the next one loads it */
		harness_start(&h);
	}
	harness_stop(&h);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("full");
	TCase *tcase = harness_case(suite, "full", 120);

	tcase_add_loop_test(tcase, full_heap, 0, sizeof(sizes) / sizeof(sizes[0]));
	tcase_add_test(tcase, room_moves_between_sizes);
	tcase_add_test(tcase, capacity);
	tcase_add_test(tcase, no_room_on_file_system);
	tcase_add_loop_test(tcase, offset_0_is_no_block, 0, 2);
	return harness_run(suite);
}
