/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pools in memory.
 *
 * The table by id is the truth of which ids are taken, the tree by name of which names are; both
 * are made from the registry at the start and follow it. A pool stays in the table, though its
 * record is FREE, while sessions still have it open: an id that is found in pointers of living
 * processes must not come to mean another pool.
 *
 * What a pool needs only while it is in use (meta, the heap's mappings) is opened at first use and
 * given up with the last opening. While a job works on a pool's files, requests that would get
 * in its way are parked, and begun again when it is done: they see the pool as it is then.
 *
 * Damage is in memory alone. It takes the pool out of service for new opens, so that nothing
 * builds on what is rotten; the other pools do not notice.
 */
#include "daemon/pool.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/heap_load.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_files.h"
#include "daemon/request.h"

static int pool_compare_names(struct pool *a, struct pool *b)
{
	return strcmp(a->record.name, b->record.name);
}

RB_GENERATE_INTERNAL(pool_names, pool, of_name, pool_compare_names, _unused static)

void pools_init(struct pools *pools)
{
	memset(pools, 0, sizeof(*pools));
	RB_INIT(&pools->by_name);
}

void pools_deinit(struct pools *pools)
{
	for (uint32_t id = 0; id <= POOL_ID_MAX; id++)
		pool_unref(take(pools->by_id[id]));
}

void pools_usage(struct pools_usage *ret, struct nvmmd *nvmmd, uid_t uid)
{
	const struct pools *pools = &nvmmd->pools;
	const struct user *user = user_find(nvmmd, uid);

	*ret = (struct pools_usage){ .user_bytes = user ? user->lane_bytes : 0 };
	for (uint32_t id = 1; id <= POOL_ID_MAX; id++) {
		const struct pool *pool = pools->by_id[id];
		bool held = pool && pool->record.kind != 0 && pool->record.state == POOL_FREE &&
			    pool->openers > 0;

		if (!pool || (pool->record.state == POOL_FREE && !pool->damage && !held))
			continue;
		ret->held += held;
		ret->pools++;
		ret->damaged += pool->damage != NULL;
		ret->bytes += pool->file_bytes;
		ret->overgrown += pool->over.bytes;
		if (pool->record.uid != uid)
			continue;
		ret->user_pools++;
		ret->user_bytes += pool->file_bytes - MIN(pool->lane_bytes, pool->file_bytes);
	}
}

int pool_add(struct pool **ret, struct nvmmd *nvmmd, uint16_t id, const struct pool_record *record)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return -ENOMEM;
	pool->nvmmd = nvmmd;
	pool->refs = 1;
	pool->id = id;
	pool->record = *record;
	TAILQ_INIT(&pool->parked);
	LIST_INIT(&pool->openings);
	LIST_INIT(&pool->lane_charges);
	TAILQ_INIT(&pool->epochs.waiting);
	nvmmd->pools.by_id[id] = pool;
	if (record->name[0])
		RB_INSERT(pool_names, &nvmmd->pools.by_name, pool);
	*ret = pool;
	return 0;
}

struct pool *pool_ref(struct pool *pool)
{
	pool->refs++;
	return pool;
}

void pool_unref(struct pool *pool)
{
	if (!pool || --pool->refs > 0)
		return;
	lane_charge_clear(pool);
	heap_service_unref(pool->heap);
	meta_free(pool->meta);
	recovery_free(pool);
	free(pool->damage);
	free(pool);
}

void pool_take_name(struct pool *pool)
{
	if (pool->record.name[0])
		RB_INSERT(pool_names, &pool->nvmmd->pools.by_name, pool);
}

void pool_drop_name(struct pool *pool)
{
	struct pool_names *names = &pool->nvmmd->pools.by_name;

	if (pool->record.name[0] && RB_FIND(pool_names, names, pool) == pool)
		RB_REMOVE(pool_names, names, pool);
}

/* Takes a pool that is FREE and that nobody has open out of the table. */
static void pool_forget(struct pool *pool)
{
	struct pools *pools = &pool->nvmmd->pools;

	if (pools->by_id[pool->id] != pool || pool->record.kind == 0 ||
	    pool->record.state != POOL_FREE)
		return;
	pool_drop_name(pool);
	overgrown_forget(pool);
	overgrown_closed(pool->nvmmd, pool->id, pool->record.incarnation);
	pools->by_id[pool->id] = NULL;
	pool_unref(pool);
}

void pool_rest(struct pool *pool)
{
	/* A job under way may need them, or a request that waited for it; they call this when they are done. */
	if (pool->openers > 0 || pool->busy != POOL_IDLE || pool->resuming > 0)
		return;
	if (pool->heap && heap_unload(pool))
		return;
	meta_free(take(pool->meta));
	heap_service_unref(take(pool->heap));
	pool_forget(pool);
}

struct pool *pool_find(struct nvmmd *nvmmd, uint32_t id)
{
	struct pool *pool = id <= POOL_ID_MAX ? nvmmd->pools.by_id[id] : NULL;

	if (!pool)
		return NULL;
	if (pool->record.kind == 0) /* a rotten record */
		return pool;
	return pool->record.state == POOL_LIVE || pool->record.state == POOL_RESIZING ? pool : NULL;
}

struct pool *pool_by_name(struct nvmmd *nvmmd, const char *name)
{
	struct pool key = { .id = 0 };

	snprintf(key.record.name, sizeof(key.record.name), "%s", name);
	return RB_FIND(pool_names, &nvmmd->pools.by_name, &key);
}

struct pool *pool_find_name(struct nvmmd *nvmmd, const char *name)
{
	struct pool *pool = pool_by_name(nvmmd, name);

	return pool ? pool_find(nvmmd, pool->id) : NULL;
}

void pool_damage(struct pool *pool, const char *fmt, ...)
{
	va_list args;

	/* The files of a destroyed pool are gone, and nobody is to be told so. */
	if (pool->damage || pool_is_gone(pool))
		return;
	va_start(args, fmt);
	if (vasprintf(&pool->damage, fmt, args) < 0)
		pool->damage = strdup("damaged");
	va_end(args);
	pool->nvmmd->counters.pools_damaged++;
	client_log(pool->nvmmd, CLIENT_DAMAGE, pool->record.uid,
		   "pool %u is damaged and is not served from now on: %s", pool->id,
		  pool->damage ? pool->damage : "");
}

int pool_judge(struct pool *pool, int r, const char *what)
{
	if (r == -EIO || r == -EUCLEAN)
		pool_damage(
			pool, "%s: %s", what,
			r == -EIO ?
				"a file is shorter than it should be, or a page cannot be read" :
				"what stands there is no valid state");
	return r;
}

static int keep_record(struct pool *pool, const struct pool_record *record, int r)
{
	if (r < 0) {
		client_log(pool->nvmmd, CLIENT_COMPLAINT, pool->record.uid,
			   "pool %u: its record cannot be written: %s", pool->id, strerror(-r));
		return r;
	}
	pool->record = *record;
	return 0;
}

int pool_put(struct pool *pool, const struct pool_record *record)
{
	return keep_record(pool, record, registry_put(pool->nvmmd->registry, record));
}

int pool_replace(struct pool *pool, const struct pool_record *record)
{
	return keep_record(pool, record, registry_replace(pool->nvmmd->registry, record));
}

void pool_recount(struct pool *pool)
{
	int dir;

	/* What clients added counts, too, until it is cut off. */
	pool->file_bytes = pool_layout_file_bytes(&pool->record, &pool->shelves, pool->lanes) +
			   pool->over.bytes;
	if (!(pool->record.flags & POOL_SPARSE) ||
	    pool_files_dir(&dir, pool->nvmmd->base_fd, pool->id) < 0)
		return;
	pool->file_bytes = sizeof(struct meta_file_df) + lanes_file_size(pool->lanes) + pool->over.lanes +
			   pool_files_held(dir, &pool->record, &pool->shelves);
	close(dir);
}

int pool_meta(struct pool *pool, struct meta **ret)
{
	const char *why = "cannot be read";
	int dir, r;

	if (!pool->meta) {
		r = pool_files_dir(&dir, pool->nvmmd->base_fd, pool->id);
		if (r == 0) {
			r = meta_open(&pool->meta, dir, pool->record.home, pool->id,
				      pool->record.incarnation, pool->record.durability, &why);
			close(dir);
		}
		if (r == -ENOENT)
			why = "is not there";
		if (r == -EUCLEAN || r == -ENOENT || r == -EIO)
			pool_damage(pool, "meta.%u: %s", pool->record.home, why);
		if (r < 0)
			return r == -ENOENT ? -EUCLEAN : r;
	}
	*ret = pool->meta;
	return 0;
}

static int load_files(struct pool *pool, char what[64])
{
	int dir, r;

	r = pool_files_dir(&dir, pool->nvmmd->base_fd, pool->id);
	if (r < 0)
		return r;
	r = pool_files_audit(dir, &pool->record, &pool->shelves, what);
	if (r == 0 && pool->record.kind == POOL_HEAP) {
		snprintf(what, 64, "lanes.%u", pool->record.home);
		r = pool_files_lanes(&pool->lanes, dir, pool->record.home);
	}
	close(dir);
	return r;
}

void pool_load(struct pool *pool)
{
	struct meta *meta;
	char what[64] = "";
	int r;

	r = pool_meta(pool, &meta);
	if (r < 0)
		pool_damage(pool, "meta.%u: %s", pool->record.home, strerror(-r));
	else if (pool_shelves_read(&pool->shelves, meta) < 0)
		pool_damage(pool, "meta.%u: the record of shelf %u is rotten", pool->record.home,
			    pool->shelves.n);
	else if (pool->record.state == POOL_LIVE &&
		 pool_layout_bytes(&pool->shelves) != pool->record.size)
		pool_damage(pool, "its shelves have other sizes than its record says");
	r = !pool->damage && pool->record.state == POOL_LIVE ? load_files(pool, what) : 0;
	if (r < 0)
		pool_damage(pool, "file %s: %s", what,
			    r == -EIO || r == -EUCLEAN ? "is shorter than it should be" :
							 strerror(-r));
	meta_free(take(pool->meta));
	pool_recount(pool);
}

void pool_job_start(struct pool *pool, struct job *job, struct request *request, enum pool_busy busy)
{
	pool->busy = busy;
	pool->job = job;
	job_start(job, request, JOB_WORK);
}

void pool_job_start_own(struct pool *pool, struct job *job, enum pool_busy busy, enum job_class class,
			uid_t uid)
{
	pool->busy = busy;
	pool->job = job;
	job_start_own(job, pool->nvmmd, class, uid);
}

void pool_park(struct pool *pool, struct request *request)
{
	if (pool->busy != POOL_IDLE)
		job_hasten(pool->job, request_peer(request)->uid);
	TAILQ_INSERT_TAIL(&pool->parked, request, of_pool);
}

/* A request that waited goes on. It may be freed here, or park again. */
static void resumed(struct job *job, int r)
{
	struct request *request = container_of(job, struct request, resume);
	struct pool *pool = request->resumes;

	if (r < 0)
		request_finish(request, request_fail(request, r, "nvmmd stops"));
	else
		request_run(request);
	pool->resuming--;
	pool_rest(pool);
	pool_unref(pool);
}

void pool_unpark(struct pool *pool)
{
	struct request *request;

	while ((request = TAILQ_FIRST(&pool->parked))) {
		TAILQ_REMOVE(&pool->parked, request, of_pool);
		request->load_error = pool->load_error;
		request->resumes = pool_ref(pool);
		pool->resuming++;
		request->resume.done = resumed;
		job_pause(&request->resume, pool->nvmmd, request_peer(request)->uid);
	}
	if (pool->recovery.state == RECOVERY_WAITING)
		recovery_kick(pool->nvmmd);
}

struct opening *opening_find(struct session *session, const struct pool *pool)
{
	struct opening *opening;

	LIST_FOREACH (opening, &session->openings, of_session)
		if (opening->pool == pool)
			return opening;
	return NULL;
}

int opening_new(struct opening **ret, struct session *session, struct pool *pool)
{
	struct opening *opening = calloc(1, sizeof(*opening));

	if (!opening)
		return -ENOMEM;
	opening->pool = pool_ref(pool);
	opening->session = session;
	opening->incarnation = pool->record.incarnation;
	LIST_INSERT_HEAD(&pool->openings, opening, of_pool);
	LIST_INSERT_HEAD(&session->openings, opening, of_session);
	session->n_pools++;
	pool->openers++;
	*ret = opening;
	return 0;
}

void pool_share(struct pool *pool)
{
	pool->exclusive = NULL;
	pool_unpark(pool);
}

void opening_add_lanes(struct opening *opening, uint32_t n)
{
	opening->n_lanes += n;
	opening->session->n_lanes += n;
}

void opening_drop_lanes(struct opening *opening, uint32_t n)
{
	opening->n_lanes -= n;
	opening->session->n_lanes -= n;
	opening->n_settling = 0;
	opening->pool->settling -= opening->settling;
	opening->settling = false;
}

void opening_free(struct opening *opening)
{
	struct pool *pool = opening->pool;

	settle_forget(&opening->work);
	opening_drop_lanes(opening, opening->n_lanes);
	if (opening->write)
		overgrown_look(pool);
	if (pool->exclusive == opening->session)
		pool_share(pool);
	LIST_REMOVE(opening, of_pool);
	LIST_REMOVE(opening, of_session);
	opening->session->n_pools--;
	if (opening->request)
		request_free(opening->request);
	free(opening->lanes);
	free(opening);
	pool->openers--;
	pool_rest(pool);
	pool_unref(pool);
}
