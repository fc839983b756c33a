/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Space: what a heap's metadata costs, and how many bytes of objects fit into all bytes of its
 * files.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/system/harness.h"

#define HEAP_BYTES (UINT64_C(128) << 20)

static struct harness h;

/* All bytes of a pool's files; what the daemon says and what the file system says agree. */
static uint64_t file_bytes(struct nvmm_client *nvmm, nvmm_pool_id id)
{
	struct nvmm_pool_info info = { .size = sizeof(info) };
	struct harness_usage usage;
	char dir[512];

	snprintf(dir, sizeof(dir), "%s/pool-%u", h.base, id);
	usage = harness_usage(dir);
	ck_assert_int_eq(nvmm_pool_stat(nvmm, id, &info), 0);
	ck_assert_msg(info.file_bytes >= usage.bytes - usage.bytes / 100 &&
			      info.file_bytes <= usage.bytes + usage.bytes / 100,
		      "stat says %llu bytes, the file system %llu",
		      (unsigned long long)info.file_bytes, (unsigned long long)usage.bytes);
	return usage.bytes;
}

static const struct {
	uint32_t smallest;
	double most;
} metadata[] = { { 16, 0.03 }, { 64, 0.01 } };

START_TEST(metadata_is_small)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id id;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, HEAP_BYTES, NULL, metadata[_i].smallest);
	uint64_t all = file_bytes(nvmm, id);
	double part = (double)(all - HEAP_BYTES) / (double)all;

	printf("smallest block %u: metadata %.2f %%\n", metadata[_i].smallest, 100 * part);
	ck_assert_double_le(part, metadata[_i].most);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

static const struct {
	size_t size;
	double least;
} objects[] = { { 64, 0.95 }, { 100, 0.85 }, { 1000, 0.92 }, { 5000, 0.90 } };

START_TEST(objects_fit)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id id;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, HEAP_BYTES, NULL, 64);
	size_t size = objects[_i].size;
	uint64_t n = 0;
	double part;

	while (nvmm_alloc(heap, size) != NVMM_NULL)
		n++;
	ck_assert_int_eq(errno, ENOSPC);
	part = (double)(n * size) / (double)file_bytes(nvmm, id);
	printf("objects of %zu bytes: %.1f %% of all file bytes\n", size, 100 * part);
	ck_assert_double_ge(part, objects[_i].least);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("space");
	TCase *tcase = harness_case_served(suite, "space", 120, &h);

	tcase_add_loop_test(tcase, metadata_is_small, 0, 2);
	tcase_add_loop_test(tcase, objects_fit, 0, 4);
	return harness_run(suite);
}
