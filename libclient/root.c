/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Roots: named pointers of a heap. The daemon alone changes them, each change all or nothing; so
 * these are requests.
 */
#include <errno.h>
#include <string.h>

#include "libclient/heap.h"

static int name_check(struct nvmm_heap *heap, const char *name)
{
	if (!name || !*name || strlen(name) > NVMM_ROOT_NAME_MAX)
		return nvmm_fail(heap->handle.nvmm, -EINVAL, "a name of %zu bytes: a root's has 1 to %d",
				 name ? strlen(name) : 0, NVMM_ROOT_NAME_MAX);
	return 0;
}

static int writable(struct nvmm_heap *heap)
{
	if (!heap->handle.write)
		return nvmm_fail(heap->handle.nvmm, -EACCES, "heap %u was opened O_RDONLY",
				 heap->handle.pool->id);
	return 0;
}

/* Asks; *root (may be NULL) is the answer's name-less part. */
static int ask(struct nvmm_heap *heap, Nvmm__Request *request, const char *name, Nvmm__Root *root)
{
	_reply reply = NVMM_REPLY_INIT;
	_entry entry = ENTRY_NONE;
	int r;

	r = enter(&entry, heap->handle.nvmm);
	if (r == 0)
		r = name_check(heap, name);
	if (r == 0)
		r = call_daemon(heap->handle.nvmm, request,
				root ? NVMM__REPLY__RESULT_ROOT : NVMM__REPLY__RESULT__NOT_SET, 0,
				&reply);
	if (r < 0)
		return r;
	if (root) {
		root->ptr = reply.msg->root->ptr;
		root->swapped = reply.msg->root->swapped;
	}
	return 0;
}

static char *unconst(const char *name)
{
	return (char *)(uintptr_t)name;
}

_public int nvmm_root_get(struct nvmm_heap *heap, const char *name, nvmm_ptr *ret)
{
	Nvmm__RootGet op = NVMM__ROOT_GET__INIT;
	Nvmm__Request request = NVMM_REQUEST(ROOT_GET, root_get, &op);
	Nvmm__Root root;
	int r;

	op.id = heap->handle.pool->id;
	op.name = unconst(name);
	r = ask(heap, &request, name, &root);
	if (r < 0)
		return r;
	*ret = root.ptr;
	return 0;
}

_public int nvmm_root_set(struct nvmm_heap *heap, const char *name, nvmm_ptr ptr)
{
	Nvmm__RootSet op = NVMM__ROOT_SET__INIT;
	Nvmm__Request request = NVMM_REQUEST(ROOT_SET, root_set, &op);
	int r;

	r = writable(heap);
	if (r < 0)
		return r;
	op.id = heap->handle.pool->id;
	op.name = unconst(name);
	op.ptr = ptr;
	return ask(heap, &request, name, NULL);
}

_public int nvmm_root_cas(struct nvmm_heap *heap, const char *name, nvmm_ptr *expected,
			  nvmm_ptr desired)
{
	Nvmm__RootCas op = NVMM__ROOT_CAS__INIT;
	Nvmm__Request request = NVMM_REQUEST(ROOT_CAS, root_cas, &op);
	Nvmm__Root root;
	int r;

	r = writable(heap);
	if (r < 0)
		return r;
	op.id = heap->handle.pool->id;
	op.name = unconst(name);
	op.expected = *expected;
	op.desired = desired;
	r = ask(heap, &request, name, &root);
	if (r < 0)
		return r;
	if (!root.swapped) {
		*expected = root.ptr;
		return nvmm_fail(heap->handle.nvmm, -EAGAIN, "root \"%s\" is another by now", name);
	}
	return 0;
}

_public int nvmm_root_remove(struct nvmm_heap *heap, const char *name)
{
	Nvmm__RootRemove op = NVMM__ROOT_REMOVE__INIT;
	Nvmm__Request request = NVMM_REQUEST(ROOT_REMOVE, root_remove, &op);
	int r;

	r = writable(heap);
	if (r < 0)
		return r;
	op.id = heap->handle.pool->id;
	op.name = unconst(name);
	return ask(heap, &request, name, NULL);
}

_public int nvmm_root_list(struct nvmm_heap *heap, struct nvmm_root *roots, size_t n)
{
	_reply reply = NVMM_REPLY_INIT;
	Nvmm__RootList op = NVMM__ROOT_LIST__INIT;
	Nvmm__Request request = NVMM_REQUEST(ROOT_LIST, root_list, &op);
	const Nvmm__RootListReply *list;
	_entry entry = ENTRY_NONE;
	int r;

	r = enter(&entry, heap->handle.nvmm);
	if (r < 0)
		return r;
	op.id = heap->handle.pool->id;
	r = call_daemon(heap->handle.nvmm, &request, NVMM__REPLY__RESULT_ROOT_LIST, 0, &reply);
	if (r < 0)
		return r;
	list = reply.msg->root_list;
	for (size_t i = 0; i < list->n_roots; i++)
		if (i >= POOL_ROOTS_MAX || strlen(list->roots[i]->name) > NVMM_ROOT_NAME_MAX)
			return nvmm_fail(heap->handle.nvmm, -EPROTO,
					 "the daemon lists roots that cannot be");
	for (size_t i = 0; i < MIN(n, list->n_roots); i++) {
		memset(&roots[i], 0, sizeof(roots[i]));
		memcpy(roots[i].name, list->roots[i]->name, strlen(list->roots[i]->name));
		roots[i].ptr = list->roots[i]->ptr;
	}
	return (int)list->n_roots;
}
