/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Creating a pool.
 *
 *   loop    validate, choose the id, record CREATING (durable): id and name are taken
 *   thread  directory and files, reserved, headers; a heap's units brought into service; then the
 *           shelf records in meta
 *   loop    record LIVE: the commit; the reply
 *
 * A failure or a crash before the commit leaves a CREATING record, which is rolled back: files
 * removed, record FREE, with the incarnation kept. So whatever a thread left half made in span
 * tables and meta is gone with the files, and their order among each other does not matter.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/job.h"
#include "daemon/names.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_files.h"
#include "daemon/pool_ops.h"
#include "daemon/request.h"

struct create {
	struct job job;
	struct pool *pool;
	struct request *request;
	struct reservation reservation;
	int base_fd;
	struct pool_record record;
	struct pool_shelves shelves;
	char damage[HEAP_DAMAGE_LEN];
};

static int write_shelf_records(int pool_fd, const struct create *create)
{
	const struct pool_record *record = &create->record;
	struct meta *meta = NULL;
	const char *why;
	int r;

	r = meta_open(&meta, pool_fd, record->home, record->pool, record->incarnation,
		      record->durability, &why);
	for (uint32_t i = 0; r == 0 && i < create->shelves.n; i++)
		r = meta_shelf_put(meta, i, &create->shelves.shelf[i]);
	meta_free(meta);
	return r;
}

static int make_pool(struct create *create)
{
	struct heap_service *service = NULL;
	int pool_fd, r;

	r = pool_files_make(create->base_fd, &create->record, &create->shelves);
	if (r < 0)
		return r;
	r = pool_files_dir(&pool_fd, create->base_fd, create->record.pool);
	if (r < 0)
		return r;
	if (create->record.kind == POOL_HEAP)
		r = heap_service_new(&service, pool_fd, &create->record, &create->shelves, NULL,
				     NULL, create->damage);
	heap_service_unref(service);
	if (r == 0)
		r = write_shelf_records(pool_fd, create);
	close(pool_fd);
	return r;
}

static int create_run(struct job *job)
{
	struct create *create = container_of(job, struct create, job);
	int r, undone;

	reservation_enter(&create->reservation);
	r = make_pool(create);
	reservation_leave(&create->reservation);
	/* -EEXIST: the directory was there before, and is nobody's to remove. */
	if (r < 0 && r != -EEXIST) {
		undone = pool_files_remove(create->base_fd, create->record.pool);
		if (undone < 0)
			log_warning("pool %u: files of a failed creation stay behind: %s",
				    create->record.pool, strerror(-undone));
	}
	return r;
}

static int create_commit(struct create *create)
{
	struct pool *pool = create->pool;

	create->record.state = POOL_LIVE;
	/*
	 * COMMIT: the record LIVE makes the pool.
	 *   crash before: the record says CREATING: files are removed at the next start.
	 *   crash after:  the pool is there; a retry finds cookie and number in its record.
	 *   durable:      registry_put() drains before it returns, and the reply follows it.
	 */
	return pool_put(pool, &create->record);
}

static int create_fail(struct create *create, int r)
{
	const char *damage = create->damage;

	if (r == -EEXIST)
		create->pool->nvmmd->pools.orphan[create->pool->id] = true;
	if (r == -ENOSPC && create->reservation.refused)
		return request_fail(create->request, r,
				    "memory for %" PRIu64 " bytes was taken by others before all was reserved, "
				    "and shelves.memory_margin stays free: ask for less, or again",
				    create->record.size);
	if (r == -ENOSPC)
		return request_fail(create->request, r,
				    "the shelf base has no room for %" PRIu64
				    " bytes: remove pools, "
				    "or make its file system larger",
				    create->record.size);
	if (r == -EOPNOTSUPP)
		return request_fail(create->request, r,
				    "the file system of the shelf base cannot reserve space "
				    "(fallocate): use tmpfs, ext4, xfs or a DAX file system");
	return request_fail(create->request, r, "pool %u cannot be created: %s",
			    create->record.pool, damage[0] ? damage : request_error_text(r));
}

static void create_done(struct job *job, int r)
{
	struct create *create = container_of(job, struct create, job);
	struct pool *pool = create->pool;
	struct request *request = create->request;

	if (r == 0) {
		r = create_commit(create);
		if (r < 0)
			pool_files_remove(pool->nvmmd->base_fd, pool->id);
	}
	reservation_end(&create->reservation);
	pool->busy = POOL_IDLE;
	if (r < 0) {
		r = create_fail(create, r);
		pool_drop_name(pool);
		create->record.state = POOL_FREE;
		pool_clear_change(&create->record);
		memset(create->record.name, 0, sizeof(create->record.name));
		if (pool_put(pool, &create->record) < 0)
			pool_damage(pool, "its creation failed, and so did writing that down");
	} else {
		pool->nvmmd->counters.pools_created++;
		client_log(pool->nvmmd, CLIENT_EVENT, pool->record.uid,
			   "pool %u%s%s created: %s of %" PRIu64 " bytes, for uid %u", pool->id,
			 pool->record.name[0] ? " " : "", pool->record.name,
			 pool->record.kind == POOL_HEAP ? "heap" : "region", pool->record.size,
			 pool->record.uid);
		overgrown_watch(pool);
		r = reply_pool(request, pool);
	}
	/* Where clients overgrew their files, there may be room when these are cut back. */
	if (r != -ENOSPC || !overgrown_relief(request))
		request_finish(request, r);
	pool_unpark(pool);
	pool_rest(pool);
	pool_unref(pool);
	free(create);
}

static int create_start(struct request *request, const struct pool_record *record,
			const struct pool_shelves *shelves)
{
	struct nvmmd *nvmmd = request->nvmmd;
	struct create *create = calloc(1, sizeof(*create));
	struct pool *pool;
	int r;

	if (!create)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	r = registry_put(nvmmd->registry, record);
	if (r == 0)
		r = pool_add(&pool, nvmmd, record->pool, record);
	if (r < 0) {
		free(create);
		return request_fail(request, r, "pool %u: its record cannot be written: %s",
				    record->pool, strerror(-r));
	}
	create->pool = pool_ref(pool);
	create->request = request;
	create->base_fd = nvmmd->base_fd;
	create->record = *record;
	create->shelves = *shelves;
	create->job.run = create_run;
	create->job.done = create_done;
	pool->shelves = *shelves;
	pool->lanes = LANES_FIRST;
	pool_recount(pool);
	reservation_begin(&create->reservation, &nvmmd->memory, pool->file_bytes, &request->session->gone);
	pool_job_start(pool, &create->job, request, POOL_BUSY_CREATING);
	return REQUEST_PENDING;
}

/* What an id says about being free: 0; -EEXIST, -EBUSY, -EUCLEAN. *incarnation is for the next
 * pool. */
static int id_free(struct nvmmd *nvmmd, uint16_t id, uint64_t *incarnation)
{
	const struct pool *pool = nvmmd->pools.by_id[id];
	struct pool_record old;
	const char *why;
	int r;

	if (nvmmd->pools.orphan[id])
		return -EEXIST;
	if (pool)
		return pool->record.state == POOL_FREE && pool->record.kind != 0 ? -EBUSY : -EEXIST;
	r = registry_get(nvmmd->registry, id, &old, &why);
	if (r < 0)
		return r;
	if (r > 0 && old.state != POOL_FREE)
		return -EEXIST;
	*incarnation = r > 0 ? old.incarnation + 1 : 1;
	return 0;
}

static int choose_id(struct request *request, uint32_t want, struct pool_record *record)
{
	struct nvmmd *nvmmd = request->nvmmd;
	int r = 0;

	if (want > POOL_ID_MAX)
		return request_fail(request, -EINVAL,
				    "pool id %u is out of range: 1 to %u, or 0 to have "
				    "one chosen",
				    want, POOL_ID_MAX);
	for (uint32_t id = want ? want : 1; id <= (want ? want : POOL_ID_MAX); id++) {
		r = id_free(nvmmd, (uint16_t)id, &record->incarnation);
		record->pool = (uint16_t)id;
		if (r == 0)
			return 0;
	}
	if (!want)
		return request_fail(request, -ENOSPC, "all %u pool ids are taken", POOL_ID_MAX);
	if (r == -EBUSY)
		return request_fail(request, r,
				    "pool id %u: sessions still have the destroyed pool of "
				    "this id open; take another id",
				    want);
	if (r == -EEXIST)
		return request_fail(request, r, "pool id %u is taken%s", want,
				    nvmmd->pools.orphan[want] ?
					    " by a directory that the registry does not know" :
					    "");
	return request_fail(request, r, "pool id %u: its record is damaged", want);
}

static int check_name(struct request *request, struct pool_record *record, const char *name)
{
	size_t len = strlen(name);
	const char *why;

	if (len == 0)
		return 0;
	why = pool_name_refused(name);
	if (why)
		return request_fail(request, -EINVAL,
				    "not a name for a pool: %s; 1 to %u bytes of UTF-8 without '/' and "
				    "control characters, not digits alone",
				    why, POOL_NAME_MAX);
	if (pool_by_name(request->nvmmd, name))
		return request_fail(request, -EEXIST, "a pool named '%s' is there already", name);
	memcpy(record->name, name, len + 1);
	return 0;
}

static int check_durability(struct request *request, struct pool_record *record, uint32_t want)
{
	struct nvmmd *nvmmd = request->nvmmd;
	enum durability_choice configured = nvmmd->config.durability;

	if (want > 2)
		return request_fail(request, -EINVAL,
				    "durability %u is none: 0 default, 1 process, "
				    "2 power",
				    want);
	if (want == 0 && configured == DURABILITY_CHOICE_AUTO)
		want = nvmmd->base_is_pmem ? 2 : 1;
	else if (want == 0)
		want = configured == DURABILITY_CHOICE_POWER ? 2 : 1;
	if (want == 2 && !nvmmd->base_is_pmem)
		return request_fail(
			request, -EOPNOTSUPP,
			"durability 'power' needs persistent memory, "
			"and %s is not: ask for 'process', or put shelves.base on a DAX "
			"file system",
			nvmmd->config.shelves.base);
	record->durability = want == 2 ? DURABILITY_POWER : DURABILITY_PROCESS;
	return 0;
}

static int check_shape(struct request *request, struct pool_record *record,
		       const Nvmm__PoolCreate *m)
{
	struct state_layout layout;

	if (m->kind != POOL_REGION && m->kind != POOL_HEAP)
		return request_fail(request, -EINVAL, "pool kind %u is none: 1 region, 2 heap",
				    m->kind);
	record->kind = (enum pool_kind)m->kind;
	if (pool_layout_size(&record->size, record->kind, m->size) < 0)
		return request_fail(request, -EINVAL,
				    "a pool cannot have %" PRIu64 " bytes: 1 to %" PRIu64, m->size,
				    (uint64_t)POOL_SIZE_MAX);
	if (m->mode & ~0666u)
		return request_fail(request, -EINVAL, "mode 0%o has other bits than rw-rw-rw-",
				    m->mode);
	record->mode = m->mode ? m->mode : 0600;
	if (record->kind == POOL_REGION && m->min_block != 0)
		return request_fail(request, -EINVAL, "a region has no smallest block");
	if (record->kind == POOL_REGION && m->sparse)
		return request_fail(request, -EINVAL,
				    "a region cannot be sparse: it is mapped as it is");
	if (record->kind == POOL_REGION)
		return 0;
	if (m->priority > UINT8_MAX)
		return request_fail(request, -EINVAL, "a priority of %u: 0 to 255", m->priority);
	record->priority = (uint8_t)m->priority;
	record->flags = m->sparse ? POOL_SPARSE : 0;
	record->min_block = m->min_block ? m->min_block : MIN_BLOCK_DEFAULT;
	if (state_layout_init(&layout, record->min_block) < 0)
		return request_fail(request, -EINVAL,
				    "smallest block %u: it is 16, 32, 64, 128 or 256",
				    m->min_block);
	return 0;
}

/* The pool that the first attempt of this request made, or is making. */
static struct pool *find_repeat(struct request *request)
{
	struct pools *pools = &request->nvmmd->pools;

	for (uint32_t id = 1; id <= POOL_ID_MAX; id++) {
		struct pool *pool = pools->by_id[id];

		if (pool && pool_is_repeat(request, &pool->record) &&
		    (pool->record.state == POOL_LIVE || pool->record.state == POOL_CREATING))
			return pool;
	}
	return NULL;
}

/* A pool that is being created under the wanted id or name: whether it comes to be decides what
 * this request is told, so that who is told -EEXIST finds it there. */
static struct pool *find_rival(struct request *request)
{
	const Nvmm__PoolCreate *m = request->msg->pool_create;
	struct pools *pools = &request->nvmmd->pools;
	struct pool *pool = NULL;

	if (m->id > 0 && m->id <= POOL_ID_MAX)
		pool = pools->by_id[m->id];
	if (!pool && registry_name_ok(m->name, strlen(m->name)))
		pool = pool_by_name(request->nvmmd, m->name);
	return pool && pool->busy == POOL_BUSY_CREATING ? pool : NULL;
}

int op_pool_create(struct request *request)
{
	const Nvmm__PoolCreate *m = request->msg->pool_create;
	const struct peer *peer = request_peer(request);
	struct pool_record record = { .state = POOL_CREATING,
				      .home = request->nvmmd->node.node,
				      .uid = peer->uid,
				      .gid = peer->gid,
				      .created = (uint64_t)nvmmd_now() };
	struct pool_shelves shelves;
	struct pool *pool;
	uint64_t bytes;
	int r;

	pool = find_repeat(request);
	if (!pool && request_was_done(request))
		return request_fail(request, -ENOENT, "pool %u was created and has been destroyed since",
				    request->session->done.pool);
	if (pool && pool->busy != POOL_BUSY_CREATING)
		return reply_pool(request, pool);
	if (!pool)
		pool = find_rival(request);
	if (pool) {
		pool_park(pool, request);
		return REQUEST_PENDING;
	}
	r = check_shape(request, &record, m);
	if (r == 0)
		r = check_name(request, &record, m->name);
	if (r == 0)
		r = check_durability(request, &record, m->durability);
	if (r == 0)
		r = choose_id(request, m->id, &record);
	if (r < 0)
		return r;
	pool_layout_create(&shelves, record.size);
	bytes = pool_layout_file_bytes(&record, &shelves, LANES_FIRST);
	r = check_quota(request, peer->uid, 1, bytes);
	if (r == 0)
		r = check_memory(request, bytes);
	if (r == -ENOSPC && overgrown_relief(request))
		return REQUEST_PENDING;
	if (r < 0)
		return r;
	pool_mark_change(request, &record);
	return create_start(request, &record, &shelves);
}
