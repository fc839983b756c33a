/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests about pools that are answered at once: lookup, list, stat, chmod, chown.
 *
 * Whoever may connect may list and stat: names, sizes and owners are no secret, as in a directory
 * that all may read. chmod and chown speak for later opens; who has the pool open keeps it.
 */
#include "daemon/pool_ops.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/nvmmd.h"

#define LIST_MAX 100u

Nvmm__PoolInfo *pool_info(struct request *request, const struct pool *pool)
{
	Nvmm__PoolInfo *info = request_alloc(request, sizeof(*info));
	const struct pool_record *record = &pool->record;

	if (!info)
		return NULL;
	nvmm__pool_info__init(info);
	info->id = pool->id;
	info->kind = record->kind;
	if (record->kind != 0) /* a rotten record says nothing */
		info->durability = record->durability == DURABILITY_POWER ? 2 : 1;
	info->incarnation = record->incarnation;
	/* While it grows, the record has what it will be. */
	info->size = record->state == POOL_RESIZING ? pool_layout_bytes(&pool->shelves) :
						      record->size;
	info->file_bytes = pool->file_bytes;
	info->shelves = pool->shelves.n;
	info->min_block = record->min_block;
	info->openers = pool->openers;
	info->uid = record->uid;
	info->gid = record->gid;
	info->mode = record->mode;
	info->created = (int64_t)record->created;
	info->priority = record->priority;
	info->overgrown = pool->over.bytes;
	info->cuts = pool->over.cuts;
	info->recovery = pool->recovery.state;
	info->name = request_strdup(request, record->name);
	info->sparse = record->flags & POOL_SPARSE;
	info->damage = request_strdup(request, pool->damage ? pool->damage : "");
	return info->name && info->damage ? info : NULL;
}

static int no_memory(struct request *request)
{
	return request_fail(request, -ENOMEM, "the daemon has no memory");
}

int reply_pool(struct request *request, const struct pool *pool)
{
	Nvmm__PoolInfo *info = pool_info(request, pool);

	if (!info)
		return no_memory(request);
	request->reply.result_case = NVMM__REPLY__RESULT_POOL;
	request->reply.pool = info;
	return 0;
}

int pool_need(struct request *request, uint32_t id, struct pool **ret)
{
	struct pool *pool;

	if (id == 0 || id > POOL_ID_MAX)
		return request_fail(request, -EINVAL, "pool id %u is out of range: 1 to %u", id,
				    POOL_ID_MAX);
	pool = pool_find(request->nvmmd, id);
	if (!pool)
		return request_fail(request, -ENOENT, "there is no pool %u", id);
	*ret = pool;
	return 0;
}

int opening_need(struct request *request, uint32_t id, bool write, struct opening **ret)
{
	struct opening *opening;
	struct pool *pool;
	int r;

	r = pool_need(request, id, &pool);
	if (r < 0)
		return r;
	opening = opening_find(request->session, pool);
	if (!opening || (write && !opening->write))
		return request_fail(request, -EBADF, "this session does not have pool %u open%s",
				    id, opening ? " for writing" : "");
	if (pool->record.kind == 0)
		return request_fail(request, -EUCLEAN, "pool %u is damaged: %s", id, pool->damage);
	*ret = opening;
	return 0;
}

int quota_short(struct nvmmd *nvmmd, uid_t uid, uint64_t bytes)
{
	uint64_t each = nvmmd->config.limits.bytes_per_user, all = nvmmd->config.shelves.capacity;
	struct pools_usage u;

	if (each == 0 && all == 0)
		return 0;
	pools_usage(&u, nvmmd, uid);
	if (each > 0 && (u.user_bytes > each || bytes > each - u.user_bytes))
		return -EDQUOT;
	return all > 0 && (u.bytes > all || bytes > all - u.bytes) ? -ENOSPC : 0;
}

int check_quota(struct request *request, uid_t uid, uint32_t pools, uint64_t bytes)
{
	const struct config *config = &request->nvmmd->config;
	uint32_t per_user = pools_of_user(request->nvmmd, uid);
	struct pools_usage u;

	pools_usage(&u, request->nvmmd, uid);
	if (u.pools + pools > config->limits.pools && pools > 0)
		return request_fail(request, -ENOSPC,
				    "there are %u pools, and limits.pools allows no "
				    "more",
				    u.pools);
	if (u.user_pools + pools > per_user && pools > 0)
		return request_fail(request, -EDQUOT,
				    "user %u has %u pools, and limits.pools_per_user "
				    "allows no more",
				    uid, u.user_pools);
	if (config->limits.bytes_per_user > 0 &&
	    (u.user_bytes > config->limits.bytes_per_user ||
	     bytes > config->limits.bytes_per_user - u.user_bytes))
		return request_fail(request, -EDQUOT,
				    "%" PRIu64 " bytes more would take user %u over "
				    "limits.bytes_per_user (%" PRIu64 ", of which %" PRIu64
				    " are taken)",
				    bytes, uid, config->limits.bytes_per_user, u.user_bytes);
	if (config->shelves.capacity > 0 &&
	    (u.bytes > config->shelves.capacity || bytes > config->shelves.capacity - u.bytes))
		return request_fail(request, -ENOSPC,
				    "%" PRIu64 " bytes more would go over "
				    "shelves.capacity (%" PRIu64 ", of which %" PRIu64
				    " are taken)",
				    bytes, config->shelves.capacity, u.bytes);
	return 0;
}

int check_memory(struct request *request, uint64_t bytes)
{
	struct nvmmd *nvmmd = request->nvmmd;
	struct memory_room room;

	if (memory_check(&nvmmd->memory, bytes, &room) == 0)
		return 0;
	return request_fail(request, -ENOSPC,
			    "%" PRIu64 " bytes more are not there: %s has %" PRIu64 " bytes of memory available, "
			    "%" PRIu64 " beside shelves.memory_margin (%u %%) and what is being reserved: remove "
			    "or trim pools, or ask for less",
			    bytes, room.where, room.available, room.bytes,
			    nvmmd->config.shelves.memory_margin);
}

bool pool_is_repeat(const struct request *request, const struct pool_record *record)
{
	if (request_was_done(request))
		return request->session->done.pool == record->pool &&
		       request->session->done.incarnation == record->incarnation;
	return record->op_seq == request->msg->seq &&
	       memcmp(record->cookie, request->session->cookie, SESSION_COOKIE_LEN) == 0;
}

void pool_mark_change(const struct request *request, struct pool_record *record)
{
	record->op_seq = request->msg->seq;
	memcpy(record->cookie, request->session->cookie, SESSION_COOKIE_LEN);
}

void pool_clear_change(struct pool_record *record)
{
	record->op_seq = 0;
	memset(record->cookie, 0, sizeof(record->cookie));
}

int op_pool_lookup(struct request *request)
{
	const char *name = request->msg->pool_lookup->name;
	struct pool *pool;

	if (!registry_name_ok(name, strlen(name)))
		return request_fail(request, -EINVAL,
				    "not a name for a pool: 1 to %u bytes of UTF-8 "
				    "without '/' and control characters",
				    POOL_NAME_MAX);
	pool = pool_find_name(request->nvmmd, name);
	if (!pool)
		return request_fail(request, -ENOENT, "there is no pool named '%s'", name);
	return reply_pool(request, pool);
}

int op_pool_stat(struct request *request)
{
	struct pool *pool;
	int r;

	r = pool_need(request, request->msg->pool_stat->id, &pool);
	return r < 0 ? r : reply_pool(request, pool);
}

int op_pool_list(struct request *request)
{
	const Nvmm__PoolList *m = request->msg->pool_list;
	uint32_t max = m->max == 0 ? LIST_MAX : MIN(m->max, LIST_MAX);
	Nvmm__PoolListReply *list = request_alloc(request, sizeof(*list));
	struct pool *pool;

	if (!list)
		return no_memory(request);
	nvmm__pool_list_reply__init(list);
	list->pools = request_alloc(request, max * sizeof(Nvmm__PoolInfo *));
	if (!list->pools)
		return no_memory(request);
	for (uint64_t id = (uint64_t)m->after + 1; id <= POOL_ID_MAX && list->n_pools < max; id++) {
		pool = pool_find(request->nvmmd, (uint32_t)id);
		if (!pool)
			continue;
		list->pools[list->n_pools] = pool_info(request, pool);
		if (!list->pools[list->n_pools++])
			return no_memory(request);
	}
	request->reply.result_case = NVMM__REPLY__RESULT_POOL_LIST;
	request->reply.pool_list = list;
	return 0;
}

/* Finds a pool whose record is to be changed: it has one, and no job is changing it. */
static int change_need(struct request *request, uint32_t id, struct pool **ret)
{
	int r;

	r = pool_need(request, id, ret);
	if (r < 0)
		return r;
	if ((*ret)->record.kind == 0)
		return request_fail(request, -EUCLEAN, "pool %u is damaged: %s", id,
				    (*ret)->damage);
	if ((*ret)->busy == POOL_BUSY_RESIZING) {
		pool_park(*ret, request);
		return REQUEST_PENDING;
	}
	return 0;
}

static int change_put(struct request *request, struct pool *pool, struct pool_record *record)
{
	int r;

	pool_mark_change(request, record);
	r = pool_put(pool, record);
	if (r < 0)
		return request_fail(request, r, "pool %u: its record cannot be written: %s",
				    pool->id, strerror(-r));
	return reply_pool(request, pool);
}

int op_pool_chmod(struct request *request)
{
	const Nvmm__PoolChmod *m = request->msg->pool_chmod;
	struct pool_record record;
	struct pool *pool;
	int r;

	if (m->mode & ~0666u)
		return request_fail(request, -EINVAL, "mode 0%o has other bits than rw-rw-rw-",
				    m->mode);
	r = change_need(request, m->id, &pool);
	if (r != 0)
		return r;
	if (pool_is_repeat(request, &pool->record))
		return reply_pool(request, pool);
	if (access_change(&request->nvmmd->admin, request_peer(request), &pool->record) < 0)
		return request_fail(request, -EPERM,
				    "pool %u is user %u's: only its owner or an "
				    "administrator may change its mode",
				    m->id, pool->record.uid);
	record = pool->record;
	record.mode = m->mode;
	return change_put(request, pool, &record);
}

/* Nobody is given a pool whom the daemon would not know again. */
static int chown_identity(struct request *request, const Nvmm__PoolChown *m)
{
	const struct identity *identity = &request->nvmmd->identity;

	if (identity_uid_unknown(identity, m->uid))
		return request_fail(request, -EINVAL,
				    "uid %u stands for every user that the daemon's user namespace does not "
				    "map: pool %u cannot be given to it",
				    m->uid, m->id);
	if (identity_gid_unknown(identity, m->gid))
		return request_fail(request, -EINVAL,
				    "gid %u stands for every group that the daemon's user namespace does not "
				    "map: pool %u cannot be given to it",
				    m->gid, m->id);
	return 0;
}

int op_pool_chown(struct request *request)
{
	const Nvmm__PoolChown *m = request->msg->pool_chown;
	struct pool_record record;
	struct pool *pool;
	int r;

	r = change_need(request, m->id, &pool);
	if (r != 0)
		return r;
	if (pool_is_repeat(request, &pool->record))
		return reply_pool(request, pool);
	if (access_chown(&request->nvmmd->admin, request_peer(request), &pool->record, m->uid,
			 m->gid) < 0)
		return request_fail(request, -EPERM,
				    "only an administrator may give pool %u to another "
				    "user; its owner may give it to a group of his own",
				    m->id);
	r = chown_identity(request, m);
	if (r < 0)
		return r;
	record = pool->record;
	if (m->uid != UINT32_MAX && m->uid != record.uid) {
		record.uid = m->uid;
		r = check_quota(request, m->uid, 0, pool->file_bytes);
		if (r == -EDQUOT)
			return r;
		request->text[0] = '\0';
	}
	if (m->gid != UINT32_MAX)
		record.gid = m->gid;
	return change_put(request, pool, &record);
}
