/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/crash/op_root.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "common/macro.h"
#include "tests/crash/operations.h"

static nvmm_ptr place(const struct arena *a, unsigned n)
{
	return (nvmm_ptr)a->stage->id << 48 | n * 16384u;
}

void root_prepare(struct arena *a, struct nvmm_client *nvmm)
{
	struct nvmm_heap *heap;

	op_prepare_heap(a, nvmm);
	heap = harness_open(nvmm, a->stage->id);
	op_check(nvmm, nvmm_root_set(heap, "root", place(a, 1)));
	op_check(nvmm, nvmm_root_set(heap, "other", place(a, 1)));
	nvmm_heap_close(heap);
}

int root_act_set(struct arena *a, struct nvmm_client *nvmm)
{
	(void)nvmm;
	return nvmm_root_set(a->client_heap, "root", place(a, 2));
}

int root_act_cas(struct arena *a, struct nvmm_client *nvmm)
{
	nvmm_ptr expected = place(a, 1);

	(void)nvmm;
	return nvmm_root_cas(a->client_heap, "root", &expected, place(a, 2));
}

int root_act_cas_new(struct arena *a, struct nvmm_client *nvmm)
{
	nvmm_ptr expected = NVMM_NULL;

	(void)nvmm;
	return nvmm_root_cas(a->client_heap, "root", &expected, place(a, 2));
}

int root_act_remove(struct arena *a, struct nvmm_client *nvmm)
{
	(void)nvmm;
	return nvmm_root_remove(a->client_heap, "root");
}

/* The root's value; NVMM_NULL: there is none. */
static nvmm_ptr root_value(struct arena *a, struct nvmm_client *nvmm, int *count)
{
	struct nvmm_root roots[8];
	struct nvmm_heap *heap;
	nvmm_ptr ptr = NVMM_NULL;

	op_target(a, nvmm);
	op_check(nvmm, nvmm_heap_open(&heap, nvmm, a->stage->id, O_RDONLY));
	*count = nvmm_root_list(heap, roots, ARRAY_SIZE(roots));
	for (int i = 0; i < *count; i++) {
		if (strcmp(roots[i].name, "root") == 0)
			ptr = roots[i].ptr;
		else
			ck_assert_uint_eq(roots[i].ptr, place(a, 1));
	}
	nvmm_heap_close(heap);
	return ptr;
}

bool root_done(struct arena *a, struct nvmm_client *nvmm)
{
	int count;
	nvmm_ptr ptr = root_value(a, nvmm, &count);

	ck_assert_int_eq(count, 2);
	ck_assert(ptr == place(a, 1) || ptr == place(a, 2));
	return ptr == place(a, 2);
}

bool root_done_new(struct arena *a, struct nvmm_client *nvmm)
{
	int count;
	nvmm_ptr ptr = root_value(a, nvmm, &count);

	ck_assert_int_eq(count, ptr != NVMM_NULL);
	ck_assert(ptr == NVMM_NULL || ptr == place(a, 2));
	return ptr != NVMM_NULL;
}

bool root_done_remove(struct arena *a, struct nvmm_client *nvmm)
{
	int count;
	nvmm_ptr ptr = root_value(a, nvmm, &count);

	ck_assert_int_eq(count, ptr == NVMM_NULL ? 1 : 2);
	ck_assert(ptr == NVMM_NULL || ptr == place(a, 1));
	return ptr == NVMM_NULL;
}

/* Another client comes first */

void root_overtake(struct arena *a, struct nvmm_client *nvmm, bool done)
{
	struct nvmm_heap *heap = harness_open(nvmm, a->stage->id);

	(void)done;
	op_check(nvmm, nvmm_root_set(heap, "root", place(a, 3)));
	nvmm_heap_close(heap);
}

void root_overtaken_set(struct arena *a, struct nvmm_client *nvmm, bool done)
{
	int count;

	ck_assert_int_eq(a->stage->result, 0);
	ck_assert_uint_eq(root_value(a, nvmm, &count), place(a, done ? 3 : 2));
}

void root_overtaken_cas(struct arena *a, struct nvmm_client *nvmm, bool done)
{
	int count;

	ck_assert_int_eq(a->stage->result, done ? 0 : -EAGAIN);
	ck_assert_uint_eq(root_value(a, nvmm, &count), place(a, 3));
}

void root_overtaken_remove(struct arena *a, struct nvmm_client *nvmm, bool done)
{
	int count;

	ck_assert_int_eq(a->stage->result, 0);
	ck_assert_uint_eq(root_value(a, nvmm, &count), done ? place(a, 3) : NVMM_NULL);
}
