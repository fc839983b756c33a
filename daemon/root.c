/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Roots: up to 64 named pointers of a heap.
 *
 * Who has the heap open for reading may read them, who has it for writing may change them. A change
 * is one two-slot record, so it happened or did not; the record names the request that made
 * it, so that a repeat is answered and not done again.
 */
#include <errno.h>
#include <string.h>

#include "daemon/names.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_ops.h"

static int root_name(struct request *request, const char *name)
{
	size_t len = strlen(name);

	if (len > ROOT_NAME_MAX || !registry_name_ok(name, len))
		return request_fail(request, -EINVAL,
				    "not a name for a root: 1 to %u bytes of UTF-8 "
				    "without '/' and control characters",
				    ROOT_NAME_MAX);
	return 0;
}

/* Finds the heap's meta for a request about roots. */
static int root_meta(struct request *request, uint32_t id, bool write, struct pool **ret,
		     struct meta **meta)
{
	struct opening *opening;
	int r;

	r = opening_need(request, id, write, &opening);
	if (r < 0)
		return r;
	*ret = opening->pool;
	if (opening->pool->record.kind != POOL_HEAP)
		return request_fail(request, -EINVAL, "pool %u is a region: roots are a heap's",
				    id);
	r = pool_meta(opening->pool, meta);
	if (r < 0)
		return request_fail(request, r, "heap %u: its roots cannot be read: %s", id,
				    opening->pool->damage ? opening->pool->damage : strerror(-r));
	return 0;
}

static int root_damaged(struct request *request, struct pool *pool, int r)
{
	pool_judge(pool, r, "roots");
	return request_fail(request, r, "heap %u: its roots cannot be used: %s", pool->id,
			    strerror(-r));
}

static int reply_root(struct request *request, const char *name, uint64_t ptr, bool swapped)
{
	Nvmm__Root *root = request_alloc(request, sizeof(*root));

	if (!root)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	nvmm__root__init(root);
	root->name = request_strdup(request, name);
	root->ptr = ptr;
	root->swapped = swapped;
	if (!root->name)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	request->reply.result_case = NVMM__REPLY__RESULT_ROOT;
	request->reply.root = root;
	return 0;
}

static bool root_is_repeat(const struct request *request, const struct root_record *record)
{
	return request_was_done(request) || (record->op_seq == request->msg->seq &&
	       memcmp(record->cookie, request->session->cookie, SESSION_COOKIE_LEN) == 0);
}

/* A root of the heap: 1 with its record; 0: there is none, *place is where it would go, or -1. */
static int root_find(struct meta *meta, const char *name, int *place, struct root_record *ret)
{
	int free_place = -1, r;

	r = meta_root_find(meta, name, &free_place);
	if (r == -ENOENT) {
		*place = free_place;
		return 0;
	}
	if (r < 0)
		return r;
	*place = r;
	return meta_root_get(meta, (uint32_t)*place, ret);
}

static int root_put(struct request *request, struct pool *pool, struct meta *meta, int place,
		    const char *name, uint64_t ptr)
{
	struct root_record record = { .ptr = ptr, .op_seq = request->msg->seq };
	int r;

	if (place < 0)
		return request_fail(request, -ENOSPC, "heap %u has all of its %u roots: remove one",
				    pool->id, POOL_ROOTS_MAX);
	memcpy(record.name, name, strlen(name) + 1);
	memcpy(record.cookie, request->session->cookie, SESSION_COOKIE_LEN);
	r = meta_root_put(meta, (uint32_t)place, &record);
	if (r < 0)
		return root_damaged(request, pool, r);
	request->nvmmd->counters.roots_changed++;
	return 0;
}

int op_root_get(struct request *request)
{
	const Nvmm__RootGet *m = request->msg->root_get;
	struct root_record record;
	struct meta *meta;
	struct pool *pool;
	int place, r;

	r = root_name(request, m->name);
	if (r == 0)
		r = root_meta(request, m->id, false, &pool, &meta);
	if (r < 0)
		return r;
	r = root_find(meta, m->name, &place, &record);
	if (r < 0)
		return root_damaged(request, pool, r);
	if (r == 0)
		return request_fail(request, -ENOENT, "heap %u has no root '%s'", m->id, m->name);
	return reply_root(request, record.name, record.ptr, false);
}

/* A new root's name; of one that is there, any was good enough. */
static int root_name_new(struct request *request, const char *name)
{
	const char *why = name_refused(name, ROOT_NAME_MAX);

	if (!why)
		return 0;
	return request_fail(request, -EINVAL,
			    "not a name for a new root: %s; 1 to %u bytes of UTF-8 without '/' and control "
			    "characters",
			    why, ROOT_NAME_MAX);
}

/* A root may point into its own heap, or nowhere. */
static int root_ptr(struct request *request, uint32_t id, uint64_t ptr)
{
	if (ptr != 0 && ptr >> 48 != id)
		return request_fail(request, -EINVAL,
				    "0x%llx is no pointer into heap %u: a root points "
				    "into its own heap",
				    (unsigned long long)ptr, id);
	return 0;
}

/* What is to be changed: where the root is or would go. */
struct root_place {
	struct pool *pool;
	struct meta *meta;
	int place;
};

/* Checks a change to `ptr`; as root_find(), or a failure that the request was told. */
static int root_begin(struct request *request, uint32_t id, const char *name, uint64_t ptr,
		      struct root_place *at, struct root_record *ret)
{
	int r;

	r = root_name(request, name);
	if (r == 0)
		r = root_ptr(request, id, ptr);
	if (r == 0)
		r = root_meta(request, id, true, &at->pool, &at->meta);
	if (r < 0)
		return r;
	r = root_find(at->meta, name, &at->place, ret);
	if (r == 0)
		return root_name_new(request, name);
	return r < 0 ? root_damaged(request, at->pool, r) : r;
}

int op_root_set(struct request *request)
{
	const Nvmm__RootSet *m = request->msg->root_set;
	struct root_record record = { .ptr = 0 };
	struct root_place at;
	int r;

	r = root_begin(request, m->id, m->name, m->ptr, &at, &record);
	if (r < 0)
		return r;
	if (!root_is_repeat(request, &record)) {
		r = root_put(request, at.pool, at.meta, at.place, m->name, m->ptr);
		if (r < 0)
			return r;
	}
	return reply_root(request, m->name, m->ptr, false);
}

int op_root_cas(struct request *request)
{
	const Nvmm__RootCas *m = request->msg->root_cas;
	struct root_record record = { .ptr = 0 };
	struct root_place at;
	int r;

	r = root_begin(request, m->id, m->name, m->desired, &at, &record);
	if (r < 0)
		return r;
	if (root_is_repeat(request, &record))
		return reply_root(request, m->name, m->desired, true);
	if ((r > 0 ? record.ptr : 0) != m->expected)
		return reply_root(request, m->name, r > 0 ? record.ptr : 0, false);
	r = root_put(request, at.pool, at.meta, at.place, m->name, m->desired);
	return r < 0 ? r : reply_root(request, m->name, m->desired, true);
}

int op_root_remove(struct request *request)
{
	const Nvmm__RootRemove *m = request->msg->root_remove;
	struct root_record record;
	struct meta *meta;
	struct pool *pool;
	int place, r;

	r = root_name(request, m->name);
	if (r == 0)
		r = root_meta(request, m->id, true, &pool, &meta);
	if (r < 0)
		return r;
	r = root_find(meta, m->name, &place, &record);
	if (r < 0)
		return root_damaged(request, pool, r);
	if (request_was_done(request))
		return 0;
	if (r == 0)
		return request_fail(request, -ENOENT, "heap %u has no root '%s'", m->id, m->name);
	return root_put(request, pool, meta, place, "", 0);
}

int op_root_list(struct request *request)
{
	Nvmm__RootListReply *list = request_alloc(request, sizeof(*list));
	struct root_record record;
	struct meta *meta;
	struct pool *pool;
	int r;

	r = root_meta(request, request->msg->root_list->id, false, &pool, &meta);
	if (r < 0)
		return r;
	if (list)
		list->roots = request_alloc(request, POOL_ROOTS_MAX * sizeof(Nvmm__Root *));
	for (uint32_t i = 0; list && list->roots && i < POOL_ROOTS_MAX; i++) {
		r = meta_root_get(meta, i, &record);
		if (r < 0)
			return root_damaged(request, pool, r);
		if (r == 0)
			continue;
		r = reply_root(request, record.name, record.ptr, false);
		if (r < 0)
			return r;
		list->roots[list->n_roots++] = request->reply.root;
	}
	if (!list || !list->roots)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	/* init() would clear what was filled */
	list->base.descriptor = &nvmm__root_list_reply__descriptor;
	request->reply.result_case = NVMM__REPLY__RESULT_ROOT_LIST;
	request->reply.root_list = list;
	return 0;
}
