/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/system/view.h"

struct view view_new(struct harness *h, nvmm_pool_id *id, uint64_t bytes)
{
	struct view v = { .nvmm = harness_connect(h) };
	nvmm_pool_id made = 0;

	v.heap = harness_heap(v.nvmm, &made, bytes, NULL, 16);
	if (id)
		*id = made;
	return v;
}

void view_defer(const struct view *v, unsigned n, size_t size)
{
	for (unsigned i = 0; i < n; i++) {
		nvmm_ptr ptr = nvmm_alloc(v->heap, size);

		must(ptr != NVMM_NULL, "%s", nvmm_errmsg(v->nvmm));
		must(nvmm_free_deferred(v->heap, ptr) == 0, "%s", nvmm_errmsg(v->nvmm));
	}
}

uint64_t view_limbo(const struct view *v)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };

	must(nvmm_heap_stat(v->heap, &info) == 0, "%s", nvmm_errmsg(v->nvmm));
	return info.limbo;
}

bool view_no_limbo(void *view)
{
	return view_limbo(view) == 0;
}
