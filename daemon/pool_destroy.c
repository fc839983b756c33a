/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Destroying a pool.
 *
 *   loop    record DESTROYING: the commit. Name and pool are gone for all requests from here on
 *   thread  files removed
 *   loop    record FREE; the reply
 *
 * A crash after the commit is rolled forward at the next start. Sessions that have the pool open
 * (it was destroyed by force) keep their mappings, whose memory the file system frees with the
 * last of them, and keep the id from being given out again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/cutback.h"
#include "daemon/job.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_files.h"
#include "daemon/pool_ops.h"

/* Files of one pool: of a heap of so many shelves, two each and one. */
#define HELD_MAX (2 * POOL_SHELVES_MAX + 1)

struct destroy {
	struct job job;
	struct pool *pool;
	struct request *request;
	int base_fd;
	uint16_t id;
	struct pool_record record;
	struct pool_shelves shelves;
	uint32_t lanes;
	uint32_t n_held; /* files that clients hold, which stay open to be cut back */
	int held[HELD_MAX];
	uint64_t length[HELD_MAX];
};

static int destroy_run(struct job *job)
{
	struct destroy *destroy = container_of(job, struct destroy, job);

	int dir;

	if (destroy->record.kind != 0 && pool_files_dir(&dir, destroy->base_fd, destroy->id) == 0) {
		destroy->n_held = cutback_open_held(destroy->held, destroy->length, HELD_MAX, dir,
						    &destroy->record, &destroy->shelves, destroy->lanes);
		close(dir);
	}
	return pool_files_remove(destroy->base_fd, destroy->id);
}

/* Watches over the files that are unlinked and held; of a pool that nobody has open nothing is kept. */
static void destroy_held(struct destroy *destroy)
{
	struct pool *pool = destroy->pool;

	for (uint32_t i = 0; i < destroy->n_held; i++)
		overgrown_unlinked(pool->nvmmd, pool->id, pool->record.incarnation, destroy->held[i],
				   pool->openers > 0 ? destroy->length[i] : 0);
}

static void destroy_done(struct job *job, int r)
{
	struct destroy *destroy = container_of(job, struct destroy, job);
	struct pool *pool = destroy->pool;
	struct pool_record record = pool->record;

	pool->busy = POOL_IDLE;
	if (r == 0) {
		record.state = POOL_FREE;
		memset(record.name, 0, sizeof(record.name));
		r = pool_put(pool, &record);
	}
	if (r < 0) {
		/* It is destroyed all the same; the next start removes what is left. */
		client_log(pool->nvmmd, CLIENT_COMPLAINT, record.uid,
			   "pool %u is destroyed, but its files stay until the next start: %s",
			    pool->id, strerror(-r));
	}
	destroy_held(destroy);
	pool->nvmmd->counters.pools_destroyed++;
	request_finish(destroy->request, 0);
	pool_unpark(pool);
	pool_rest(pool);
	pool_unref(pool);
	free(destroy);
}

/* The daemon's own hold on a pool that is destroyed under its users. */
static void drop_service(struct pool *pool)
{
	struct opening *opening;

	heap_service_unref(take(pool->heap));
	meta_free(take(pool->meta));
	LIST_FOREACH (opening, &pool->openings, of_pool) {
		bool settling = opening->settling;

		/* There is nothing to settle any more; who waits for that is answered. */
		opening_drop_lanes(opening, opening->n_lanes);
		opening->settling = settling;
		pool->settling += settling;
		opening->begun = false;
	}
}

/* `record`: the pool's, or what it is made to be if that is rotten. */
static int destroy_start(struct request *request, struct pool *pool, struct pool_record record)
{
	struct destroy *destroy = calloc(1, sizeof(*destroy));
	int r;

	if (!destroy)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	record.state = POOL_DESTROYING;
	pool_mark_change(request, &record);
	/*
	 * COMMIT: the record DESTROYING ends the pool.
	 *   crash before: the pool is there, nothing was touched.
	 *   crash after:  the next start removes the files and frees the record.
	 *   durable:      registry_put() drains before the first file is removed.
	 */
	r = pool->damage ? pool_replace(pool, &record) : pool_put(pool, &record);
	if (r < 0) {
		free(destroy);
		return request_fail(request, r, "pool %u: its record cannot be written: %s",
				    pool->id, strerror(-r));
	}
	client_log(pool->nvmmd, CLIENT_EVENT, request_peer(request)->uid,
		   "pool %u%s%s destroyed by uid %u%s", pool->id, record.name[0] ? " " : "",
		 record.name, request_peer(request)->uid,
		 pool->openers ? ", though it is open" : "");
	pool_drop_name(pool);
	recovery_forget(pool);
	drop_service(pool);
	overgrown_forget(pool);
	destroy->pool = pool_ref(pool);
	destroy->request = request;
	destroy->base_fd = request->nvmmd->base_fd;
	destroy->id = pool->id;
	destroy->record = pool->record;
	destroy->shelves = pool->shelves;
	destroy->lanes = pool->lanes;
	destroy->job.run = destroy_run;
	destroy->job.done = destroy_done;
	pool_job_start(pool, &destroy->job, request, POOL_BUSY_DESTROYING);
	return REQUEST_PENDING;
}

/* Whether the first attempt of this request destroyed the pool: its record tells. */
static bool destroyed_before(struct request *request, uint32_t id)
{
	struct pool_record record;
	const char *why;

	return id > 0 && id <= POOL_ID_MAX &&
	       registry_get(request->nvmmd->registry, (uint16_t)id, &record, &why) > 0 &&
	       (record.state == POOL_FREE || record.state == POOL_DESTROYING) &&
	       pool_is_repeat(request, &record);
}

static int check_openers(struct request *request, const struct pool *pool)
{
	const struct opening *own = opening_find(request->session, pool);
	unsigned others = pool->openers - (own != NULL);
	const struct opening *opening;

	LIST_FOREACH (opening, &pool->openings, of_pool)
		others -= opening != own && opening->session->ended;
	if (others > 0)
		return request_fail(request, -EBUSY,
				    "%u other session%s pool %u open: `nvmmctl clients` "
				    "shows which; force destroys it under them",
				    others, others == 1 ? " has" : "s have", pool->id);
	if (own)
		return request_fail(request, -EBUSY,
				    "this session itself has pool %u open: close it "
				    "first",
				    pool->id);
	return 0;
}

/* Destroys a pool whose record is rotten, by a record that is as good as any for what is to go. */
static int destroy_rotten(struct request *request, struct pool *pool)
{
	/* Higher than any count of creations. */
	struct pool_record record = { .incarnation = (uint64_t)nvmmd_now() };

	if (!access_is_admin(&request->nvmmd->admin, request_peer(request)) ||
	    !request->msg->pool_destroy->force)
		return request_fail(request, -EUCLEAN,
				    "pool %u: its record is damaged, so that nobody can "
				    "tell whose it is: %s; an administrator may have it repaired, "
				    "or destroy it by force",
				    pool->id, pool->damage);
	/* A repair under way makes it a pool like others, or leaves it as it is. */
	if (pool->busy != POOL_IDLE) {
		pool_park(pool, request);
		return REQUEST_PENDING;
	}
	registry_salvage(request->nvmmd->registry, pool->id, &record);
	record.pool = pool->id;
	record.kind = record.kind ? record.kind : POOL_REGION;
	record.home = record.home ? record.home : request->nvmmd->node.node;
	record.size = record.size ? record.size : MEDIA_PAGE;
	memset(record.name, 0, sizeof(record.name));
	return destroy_start(request, pool, record);
}

int op_pool_destroy(struct request *request)
{
	const Nvmm__PoolDestroy *m = request->msg->pool_destroy;
	struct pool *pool;
	int r;

	if (request_was_done(request))
		return 0; /* whatever has the id now is another pool */
	r = pool_need(request, m->id, &pool);
	if (r == -ENOENT && destroyed_before(request, m->id))
		return 0;
	if (r < 0)
		return r;
	if (pool->record.kind == 0)
		return destroy_rotten(request, pool);
	if (m->kind != 0 && m->kind != pool->record.kind)
		return request_fail(request, -EINVAL, "pool %u is a %s", m->id,
				    pool->record.kind == POOL_HEAP ? "heap" : "region");
	if (access_change(&request->nvmmd->admin, request_peer(request), &pool->record) < 0)
		return request_fail(request, -EPERM,
				    "pool %u is user %u's: only its owner or an "
				    "administrator may destroy it",
				    m->id, pool->record.uid);
	if (pool->busy != POOL_IDLE) {
		pool_park(pool, request);
		return REQUEST_PENDING;
	}
	if (!m->force) {
		r = check_openers(request, pool);
		if (r < 0)
			return r;
		/* Those that are left are being settled. */
		if (pool->openers > 0) {
			pool_park(pool, request);
			return REQUEST_PENDING;
		}
	}
	return destroy_start(request, pool, pool->record);
}
