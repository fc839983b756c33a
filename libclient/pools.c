/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Administration of pools: lookup, list, stat, rights, size, creation, destruction. All of it is
 * the daemon's work; here requests are filled and what comes back is checked before it becomes a
 * struct of the program's.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "libclient/options.h"
#include "libclient/pool.h"
#include "libclient/pools.h"

#define LIST_STEP 128u

/* -EPROTO: not a pool's description. */
static int info_read(struct nvmm_client *nvmm, struct nvmm_pool_info *ret, const Nvmm__PoolInfo *p)
{
	bool damaged = *p->damage != '\0';

	/* A pool whose record is rotten is of no kind that could be told. */
	if (p->id == 0 || p->id > POOL_ID_MAX || (p->kind == 0 && !damaged) ||
	    p->kind > NVMM_POOL_HEAP || strlen(p->name) > NVMM_NAME_MAX)
		return nvmm_fail(nvmm, -EPROTO, "the daemon describes a pool wrongly");
	memset(ret, 0, sizeof(*ret));
	ret->size = sizeof(*ret);
	ret->id = (nvmm_pool_id)p->id;
	ret->kind = (enum nvmm_pool_kind)p->kind;
	ret->durability = (enum nvmm_durability)p->durability;
	ret->incarnation = p->incarnation;
	ret->bytes = p->size;
	ret->file_bytes = p->file_bytes;
	ret->shelves = p->shelves;
	ret->smallest_block = p->min_block;
	ret->openers = p->openers;
	ret->uid = p->uid;
	ret->gid = p->gid;
	ret->mode = p->mode;
	ret->created = p->created;
	memcpy(ret->name, p->name, strlen(p->name) + 1);
	ret->damaged = damaged;
	ret->sparse = p->sparse;
	ret->overgrown = p->overgrown;
	ret->cuts = p->cuts;
	ret->recovery = (enum nvmm_pool_recovery)p->recovery;
	return 0;
}

/* A request that answers with a pool. */
static int call_info(struct nvmm_client *nvmm, Nvmm__Request *request, struct nvmm_pool_info *ret)
{
	_reply reply = NVMM_REPLY_INIT;
	int r;

	r = call_daemon(nvmm, request, NVMM__REPLY__RESULT_POOL, 0, &reply);
	if (r < 0)
		return r;
	return info_read(nvmm, ret, reply.msg->pool);
}

/* A request that answers with success. */
static int call_done(struct nvmm_client *nvmm, Nvmm__Request *request)
{
	_reply reply = NVMM_REPLY_INIT;
	_entry entry = ENTRY_NONE;
	int r;

	r = enter(&entry, nvmm);
	if (r < 0)
		return r;
	return call_daemon(nvmm, request, NVMM__REPLY__RESULT__NOT_SET, 0, &reply);
}

static int name_check(struct nvmm_client *nvmm, const char *name)
{
	if (!name || !*name || strlen(name) > NVMM_NAME_MAX)
		return nvmm_fail(nvmm, -EINVAL, "a name of %zu bytes: a pool's has 1 to %d", name ? strlen(name) : 0,
				 NVMM_NAME_MAX);
	return 0;
}

_public int nvmm_pool_lookup(struct nvmm_client *nvmm, const char *name, nvmm_pool_id *ret)
{
	Nvmm__PoolLookup op = NVMM__POOL_LOOKUP__INIT;
	Nvmm__Request request = NVMM_REQUEST(POOL_LOOKUP, pool_lookup, &op);
	struct nvmm_pool_info info;
	_entry entry = ENTRY_NONE;
	int r;

	r = enter(&entry, nvmm);
	if (r == 0)
		r = name_check(nvmm, name);
	if (r < 0)
		return r;
	op.name = (char *)(uintptr_t)name;
	r = call_info(nvmm, &request, &info);
	if (r < 0)
		return r;
	*ret = info.id;
	return 0;
}

/* One request's worth of infos with ids above `after`. How many, or an error. */
static int list_some(struct nvmm_client *nvmm, nvmm_pool_id after, struct nvmm_pool_info *infos, size_t n)
{
	_reply reply = NVMM_REPLY_INIT;
	Nvmm__PoolList op = NVMM__POOL_LIST__INIT;
	Nvmm__Request request = NVMM_REQUEST(POOL_LIST, pool_list, &op);
	const Nvmm__PoolListReply *list;
	int r;

	op.after = after;
	op.max = (uint32_t)MIN(n, (size_t)LIST_STEP);
	r = call_daemon(nvmm, &request, NVMM__REPLY__RESULT_POOL_LIST, 0, &reply);
	if (r < 0)
		return r;
	list = reply.msg->pool_list;
	if (list->n_pools > op.max)
		return nvmm_fail(nvmm, -EPROTO, "the daemon lists more pools than were asked for");
	for (size_t i = 0; i < list->n_pools; i++) {
		r = info_read(nvmm, &infos[i], list->pools[i]);
		if (r < 0)
			return r;
		if (infos[i].id <= after)
			return nvmm_fail(nvmm, -EPROTO, "the daemon lists pools out of order");
		after = infos[i].id;
	}
	return (int)list->n_pools;
}

_public int nvmm_pool_list(struct nvmm_client *nvmm, nvmm_pool_id after, struct nvmm_pool_info *infos,
			   size_t n)
{
	_entry entry = ENTRY_NONE;
	size_t got = 0;
	int r;

	r = enter(&entry, nvmm);
	if (r < 0)
		return r;
	while (got < n) {
		r = list_some(nvmm, after, infos + got, n - got);
		if (r < 0)
			return r;
		if (r == 0)
			break;
		got += (size_t)r;
		after = infos[got - 1].id;
	}
	return (int)got;
}

int pools_ask(struct nvmm_client *nvmm, nvmm_pool_id id, struct nvmm_pool_info *ret)
{
	Nvmm__PoolStat op = NVMM__POOL_STAT__INIT;
	Nvmm__Request request = NVMM_REQUEST(POOL_STAT, pool_stat, &op);

	op.id = id;
	return call_info(nvmm, &request, ret);
}

_public int nvmm_pool_stat(struct nvmm_client *nvmm, nvmm_pool_id id, struct nvmm_pool_info *ret)
{
	struct nvmm_pool_info info;
	_entry entry = ENTRY_NONE;
	int r;

	r = enter(&entry, nvmm);
	if (r < 0)
		return r;
	if (!info_size_ok(ret->size))
		return nvmm_fail(nvmm, -EINVAL, "set nvmm_pool_info.size before the call");
	r = pools_ask(nvmm, id, &info);
	if (r < 0)
		return r;
	info_write(ret, ret->size, &info, sizeof(info));
	return 0;
}

_public int nvmm_pool_chmod(struct nvmm_client *nvmm, nvmm_pool_id id, mode_t mode)
{
	Nvmm__PoolChmod op = NVMM__POOL_CHMOD__INIT;
	Nvmm__Request request = NVMM_REQUEST(POOL_CHMOD, pool_chmod, &op);

	op.id = id;
	op.mode = mode;
	return call_done(nvmm, &request);
}

_public int nvmm_pool_chown(struct nvmm_client *nvmm, nvmm_pool_id id, uid_t uid, gid_t gid)
{
	Nvmm__PoolChown op = NVMM__POOL_CHOWN__INIT;
	Nvmm__Request request = NVMM_REQUEST(POOL_CHOWN, pool_chown, &op);

	op.id = id;
	op.uid = uid;
	op.gid = gid;
	return call_done(nvmm, &request);
}

_public int nvmm_pool_resize(struct nvmm_client *nvmm, nvmm_pool_id id, uint64_t bytes)
{
	Nvmm__PoolResize op = NVMM__POOL_RESIZE__INIT;
	Nvmm__Request request = NVMM_REQUEST(POOL_RESIZE, pool_resize, &op);

	op.id = id;
	op.size = bytes;
	return call_done(nvmm, &request);
}

int pools_create(struct nvmm_client *nvmm, nvmm_pool_id *id, enum nvmm_pool_kind kind, uint64_t bytes,
		 const struct nvmm_pool_options *options)
{
	Nvmm__PoolCreate op = NVMM__POOL_CREATE__INIT;
	Nvmm__Request request = NVMM_REQUEST(POOL_CREATE, pool_create, &op);
	struct nvmm_pool_options o;
	struct nvmm_pool_info info;
	_entry entry = ENTRY_NONE;
	int r;

	r = enter(&entry, nvmm);
	if (r < 0)
		return r;
	if (options_read(&o, sizeof(o), options, options ? options->size : 0) < 0)
		return nvmm_fail(nvmm, -EINVAL, "set nvmm_pool_options.size to the struct's size");
	if (o.name && name_check(nvmm, o.name) < 0)
		return -EINVAL;
	if (bytes == 0 || bytes > NVMM_SIZE_MAX)
		return nvmm_fail(nvmm, -EINVAL, "%llu bytes: a pool has 1 to 2^48",
				 (unsigned long long)bytes);
	op.id = *id;
	op.kind = kind;
	op.size = bytes;
	op.name = (char *)(uintptr_t)(o.name ? o.name : "");
	op.mode = o.mode ? o.mode : 0600;
	op.min_block = kind == NVMM_POOL_HEAP ? o.smallest_block : 0;
	op.durability = o.durability;
	op.sparse = o.sparse;
	op.priority = o.priority;
	r = call_info(nvmm, &request, &info);
	if (r < 0)
		return r;
	*id = info.id;
	return 0;
}

static int ask_destroy(struct nvmm_client *nvmm, nvmm_pool_id id, unsigned kind, bool force)
{
	_reply reply = NVMM_REPLY_INIT;
	Nvmm__PoolDestroy op = NVMM__POOL_DESTROY__INIT;
	Nvmm__Request request = NVMM_REQUEST(POOL_DESTROY, pool_destroy, &op);

	op.id = id;
	op.kind = kind;
	op.force = force;
	return call_daemon(nvmm, &request, NVMM__REPLY__RESULT__NOT_SET, 0, &reply);
}

/*
 * Gives up the pool if a pointer opened it, no handle is there, and no other session has it open.
 * Whether it did. As long as others have it open, destroying fails in any case, and the addresses
 * that this process has translated stay valid.
 */
static bool give_up_own(struct nvmm_client *nvmm, nvmm_pool_id id)
{
	const struct pool *pool = nvmm->pools[id];
	struct nvmm_pool_info info;

	return pool && pool->implicit && pool->refs == 1 && pools_ask(nvmm, id, &info) == 0 &&
	       info.openers == 1 && pool_release(nvmm, id) == 0;
}

int pools_destroy(struct nvmm_client *nvmm, nvmm_pool_id id, unsigned kind, bool force)
{
	_entry entry = ENTRY_NONE;
	_gate *locked = NULL;
	int r;

	r = enter(&entry, nvmm);
	if (r < 0)
		return r;
	r = ask_destroy(nvmm, id, kind, force);
	if (r != -EBUSY)
		return r;
	r = pool_lock(nvmm, &locked);
	if (r < 0)
		return r;
	/* Asks again in any case: the text of the failure is the daemon's then. */
	(void)give_up_own(nvmm, id);
	return ask_destroy(nvmm, id, kind, force);
}

_public int nvmm_pool_destroy(struct nvmm_client *nvmm, nvmm_pool_id id, unsigned flags)
{
	_entry entry = ENTRY_NONE;
	int r;

	if (flags & ~NVMM_DESTROY_FORCED) {
		r = enter(&entry, nvmm);
		return r < 0 ? r : nvmm_fail(nvmm, -EINVAL, "flags 0x%x: 0 or NVMM_DESTROY_FORCED",
						 flags);
	}
	return pools_destroy(nvmm, id, 0, flags & NVMM_DESTROY_FORCED);
}

_public int nvmm_pool_release(struct nvmm_client *nvmm, nvmm_pool_id id)
{
	_entry entry = ENTRY_NONE;
	_gate *locked = NULL;
	int r;

	r = enter(&entry, nvmm);
	if (r == 0)
		r = pool_lock(nvmm, &locked);
	return r < 0 ? r : pool_release(nvmm, id);
}

int open_flags(struct nvmm_client *nvmm, int flags, bool *write)
{
	if (flags != O_RDONLY && flags != O_RDWR)
		return nvmm_fail(nvmm, -EINVAL, "open flags 0x%x: O_RDONLY or O_RDWR", (unsigned)flags);
	*write = flags == O_RDWR;
	return 0;
}

void handle_add(struct handle *h)
{
	process_lock();
	h->next = h->nvmm->handles;
	h->link = &h->nvmm->handles;
	if (h->next)
		h->next->link = &h->next;
	h->nvmm->handles = h;
	process_unlock();
}

void handle_remove(struct handle *h)
{
	process_lock();
	*h->link = h->next;
	if (h->next)
		h->next->link = h->link;
	process_unlock();
}
