/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * 8 processes of 4 threads allocate, fill, hand over, check and free blocks of 16 B to 8 MiB in one
 * heap. None overlaps another; in the end all is free, and the heap gives one block of nearly its
 * size. In both durabilities; seconds in the ordinary run, a minute with NVMMD_TEST_LONG=1.
 */
#include <stdatomic.h>
#include <stdio.h>

#include "tests/stress/load.h"

#define HEAP_BYTES (UINT64_C(1) << 30)
#define PROCESSES 8

static void expect_empty(struct load *load)
{
	struct nvmm_client *nvmm = harness_connect(load->h);
	struct nvmm_heap *heap = harness_open(nvmm, load->heap);
	struct nvmm_heap_info info = { .size = sizeof(info) };
	nvmm_ptr large;

	load_drain(load, nvmm, heap);
	ck_assert_int_eq(nvmm_heap_stat(heap, &info), 0);
	ck_assert_uint_eq(info.blocks, 0);
	ck_assert_uint_eq(info.used, 0);
	large = nvmm_alloc(heap, HEAP_BYTES / 100 * 95 + HEAP_BYTES / 1000);
	ck_assert_msg(large != NVMM_NULL, "no block of more than 95 %%: %s", nvmm_errmsg(nvmm));
	ck_assert_int_eq(nvmm_free(heap, large), 0);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

START_TEST(many_processes_and_threads)
{
	struct load load = { .most = UINT64_C(8) << 20, .held = UINT64_C(16) << 20, .threads = 4,
			     .power = _i };
	pid_t pids[PROCESSES];
	struct harness h;

	load_seed(&load);
	harness_init(&h, NULL);
	harness_start(&h);
	load_init(&load, &h, HEAP_BYTES);
	for (int i = 0; i < PROCESSES; i++)
		pids[i] = harness_fork(load_process, &load);
	harness_sleep_ms(harness_seconds(load.power ? 4 : 8) * 1000);
	atomic_store(&load.counts->stop, true);
	for (int i = 0; i < PROCESSES; i++)
		harness_join(pids[i]);
	printf("load: %llu allocated, %llu handed over, %llu found no room\n",
	       (unsigned long long)load.counts->allocated, (unsigned long long)load.counts->handed,
	       (unsigned long long)load.counts->full);
	ck_assert_uint_gt(load.counts->handed, 0);
	expect_empty(&load);
	ck_assert_uint_eq(load.counts->allocated, load.counts->freed);
	harness_stop(&h);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("load");
	TCase *tcase = harness_case(suite, "load", 240);

	tcase_add_loop_test(tcase, many_processes_and_threads, 0, 2);
	return harness_run(suite);
}
