/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many clients: 300 processes in one heap at once, each with a block of its own; and the limits
 * that the administrator set on them.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "tests/system/harness.h"

#define CLIENTS 300
#define HEAP_BYTES (UINT64_C(1) << 30)

static struct harness h;

static void stop(void)
{
	if (h.daemon)
		harness_stop(&h);
}

struct meeting {
	nvmm_pool_id heap;
	_Atomic unsigned there;
	_Atomic bool leave;
	nvmm_ptr block[CLIENTS];
};

struct seat {
	struct meeting *meeting;
	unsigned number;
};

static void attend(void *arg)
{
	struct seat *seat = arg;
	struct meeting *m = seat->meeting;
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, m->heap);
	nvmm_ptr ptr = nvmm_alloc(heap, 1 << 20);
	unsigned *words;

	ck_assert_msg(ptr != NVMM_NULL, "client %u: %s", seat->number, nvmm_errmsg(nvmm));
	words = nvmm_local(nvmm, ptr);
	words[0] = words[(1 << 18) - 1] = seat->number;
	m->block[seat->number] = ptr;
	atomic_fetch_add(&m->there, 1);
	while (!atomic_load(&m->leave))
		harness_sleep_ms(20);
	ck_assert_uint_eq(words[0], seat->number);
	ck_assert_uint_eq(words[(1 << 18) - 1], seat->number);
	ck_assert_int_eq(nvmm_free(heap, ptr), 0);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

static bool all_there(void *arg)
{
	return atomic_load(&((struct meeting *)arg)->there) == CLIENTS;
}

START_TEST(three_hundred)
{
	struct meeting *m = harness_shared(sizeof(*m));
	static struct seat seats[CLIENTS];
	static pid_t pids[CLIENTS];
	struct nvmm_pool_info info = { .size = sizeof(info) };
	struct nvmm_heap *heap;
	struct nvmm_client *nvmm;

	harness_init(&h, NULL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	heap = harness_heap(nvmm, &m->heap, HEAP_BYTES, NULL, 0);
	for (unsigned i = 0; i < CLIENTS; i++) {
		seats[i] = (struct seat){ m, i };
		pids[i] = harness_fork(attend, &seats[i]);
	}
	harness_until(all_there, m, 100000);
	ck_assert_int_eq(nvmm_pool_stat(nvmm, m->heap, &info), 0);
	ck_assert_uint_eq(info.openers, CLIENTS + 1);
	for (unsigned i = 0; i < CLIENTS; i++) {
		unsigned *words = nvmm_local(nvmm, m->block[i]);

		ck_assert_ptr_nonnull(words);
		ck_assert_uint_eq(words[0], i);
	}
	atomic_store(&m->leave, true);
	for (unsigned i = 0; i < CLIENTS; i++)
		harness_join(pids[i]);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

START_TEST(limit_on_clients)
{
	struct harness_options limited = { .limits = "  clients: 3\n" };
	struct nvmm_options options = { .size = sizeof(options) };
	struct nvmm_client *nvmm[3], *more;

	harness_init(&h, &limited);
	harness_start(&h);
	options.socket = h.socket;
	for (int i = 0; i < 3; i++)
		nvmm[i] = harness_connect(&h);
	ck_assert_int_eq(nvmm_connect(&more, &options), -EUSERS);
	ck_assert_str_ne(nvmm_errmsg(NULL), "");
	nvmm_disconnect(nvmm[1]);
	nvmm[1] = harness_connect(&h);
	for (int i = 0; i < 3; i++)
		nvmm_disconnect(nvmm[i]);
}
END_TEST

START_TEST(limit_on_pools)
{
	struct harness_options limited = { .limits = "  pools: 3\n" };
	nvmm_pool_id id;
	struct nvmm_client *nvmm;

	harness_init(&h, &limited);
	harness_start(&h);
	nvmm = harness_connect(&h);
	for (int i = 0; i < 3; i++) {
		id = 0;
		ck_assert_int_eq(nvmm_region_create(nvmm, &id, 4096, NULL), 0);
	}
	id = 0;
	ck_assert_int_lt(nvmm_region_create(nvmm, &id, 4096, NULL), 0);
	ck_assert_str_ne(nvmm_errmsg(nvmm), "");
	ck_assert_int_eq(nvmm_region_destroy(nvmm, 2), 0);
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, 4096, NULL), 0);
	nvmm_disconnect(nvmm);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("many");
	TCase *tcase = harness_case(suite, "many", 180);

	tcase_add_checked_fixture(tcase, NULL, stop);
	tcase_add_test(tcase, three_hundred);
	tcase_add_test(tcase, limit_on_clients);
	tcase_add_test(tcase, limit_on_pools);
	return harness_run(suite);
}
