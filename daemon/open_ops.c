/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening pools and passing their descriptors.
 *
 * The order is what keeps a crash harmless: the opening is in the session's file before the first
 * descriptor leaves, so that a restarted daemon knows of every process that may hold one. A file
 * is opened anew for each descriptor, O_RDONLY or O_RDWR: the file belongs to the daemon's user
 * with mode 0600, so a client that got it for reading cannot open it again for writing through
 * /proc/self/fd. Span tables are passed for reading only, to everybody.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/heap_load.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_files.h"
#include "daemon/pool_ops.h"

static Nvmm__Shelf *shelf_info(struct request *request, const struct pool *pool, uint32_t index)
{
	Nvmm__Shelf *shelf = request_alloc(request, sizeof(*shelf));

	if (!shelf)
		return NULL;
	nvmm__shelf__init(shelf);
	shelf->index = index;
	shelf->size = pool->shelves.shelf[index].size;
	shelf->limit = pool->shelves.shelf[index].limit;
	shelf->sparse = pool->record.flags & POOL_SPARSE;
	return shelf;
}

/* Opens one file of the pool for the reply. A file that is gone is damage. */
static int add_file(struct request *request, struct pool *pool, int pool_fd, enum pool_file file,
		    uint32_t index, int flags)
{
	int fd, r;

	r = pool_files_open(&fd, pool_fd, pool->record.home, file, index, flags);
	if (r == -ENOENT || r == -ELOOP || r == -EINVAL) {
		pool_damage(pool, "a file of shelf %u is gone", index);
		return request_fail(request, -EUCLEAN, "pool %u is damaged: %s", pool->id,
				    pool->damage);
	}
	if (r < 0)
		return request_fail(request, r, "pool %u: a file cannot be opened: %s", pool->id,
				    strerror(-r));
	request_add_fd(request, fd);
	return 0;
}

static int open_dir(struct request *request, struct pool *pool, int *ret)
{
	int r;

	r = pool_files_dir(ret, request->nvmmd->base_fd, pool->id);
	if (r == -ENOENT) {
		pool_damage(pool, "its directory is gone");
		return request_fail(request, -EUCLEAN, "pool %u is damaged: %s", pool->id,
				    pool->damage);
	}
	if (r < 0)
		return request_fail(request, r, "pool %u: its directory cannot be opened: %s",
				    pool->id, strerror(-r));
	return 0;
}

/* Another session's claim to be alone with the pool is waited for. */
static int exclusive_need(struct request *request, struct pool *pool)
{
	if (!pool->exclusive || pool->exclusive == request->session)
		return 0;
	if (request->msg->pool_open->nowait)
		return request_fail(request, -EAGAIN, "process %d has pool %u for itself",
				    pool->exclusive->peer.process.pid, pool->id);
	pool_park(pool, request);
	return REQUEST_PENDING;
}

/* A repair under way is waited for: nobody uses the pool beside it. */
static int mended_need(struct request *request, struct pool *pool)
{
	if (pool->busy != POOL_BUSY_MENDING)
		return 0;
	if (request->msg->pool_open->nowait)
		return request_fail(request, -EAGAIN, "pool %u is being repaired", pool->id);
	pool_park(pool, request);
	return REQUEST_PENDING;
}

/* Whether the peer may, and the pool is fit to be opened. */
static int open_check(struct request *request, struct pool *pool, bool write)
{
	char what[64] = "";
	int dir, r;

	if (pool->record.kind != 0 &&
	    access_open(&request->nvmmd->admin, request_peer(request), &pool->record,
			ACCESS_READ | (write ? ACCESS_WRITE : 0)) < 0)
		return request_fail(request, -EACCES,
				    "pool %u is user %u's with mode 0%03o: user %u may "
				    "not open it for %s",
				    pool->id, pool->record.uid, pool->record.mode,
				    request_peer(request)->uid, write ? "writing" : "reading");
	r = mended_need(request, pool);
	if (r != 0)
		return r;
	if (!pool->damage) {
		r = open_dir(request, pool, &dir);
		if (r < 0)
			return r;
		r = pool_files_audit(dir, &pool->record, &pool->shelves, what);
		close(dir);
		if (r < 0)
			pool_damage(pool, "file %s: %s", what,
				    r == -EIO ? "is shorter than it should be" : strerror(-r));
	}
	if (pool->damage)
		return request_fail(request, -EUCLEAN, "pool %u is damaged: %s", pool->id,
				    pool->damage);
	r = exclusive_need(request, pool);
	if (r == 0 && pool->record.kind == POOL_HEAP)
		r = recovery_need(request, pool, !request->msg->pool_open->nowait);
	return r == 0 && pool->record.kind == POOL_HEAP && write ? heap_need(request, pool) : r;
}

/* Enters the opening into the session and its file, or leaves both as they were. */
static int open_enter(struct request *request, struct pool *pool, bool write)
{
	struct session *session = request->session;
	struct opening *opening = opening_find(session, pool);
	bool *flag;
	int r;

	if (opening && opening->settling) {
		pool_park(pool, request);
		return REQUEST_PENDING;
	}
	if (!opening && session->n_pools >= SESSION_POOLS_MAX)
		return request_fail(request, -EDQUOT, "this process has %u pools open: one may have %u",
				    session->n_pools, SESSION_POOLS_MAX);
	if (!opening && opening_new(&opening, session, pool) < 0)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	flag = write ? &opening->write : &opening->read;
	if (*flag)
		return 0; /* a repeat */
	*flag = true;
	if (write)
		overgrown_watch(pool);
	r = session_save(session);
	if (r == 0) {
		request->nvmmd->counters.opens++;
		return 0;
	}
	*flag = false;
	if (!opening->read && !opening->write)
		opening_free(opening);
	return request_fail(request, r, "the session's file cannot be written: %s", strerror(-r));
}

int op_pool_open(struct request *request)
{
	const Nvmm__PoolOpen *m = request->msg->pool_open;
	Nvmm__PoolOpened *opened = request_alloc(request, sizeof(*opened));
	struct pool *pool;
	int dir, r;

	if (!opened)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	r = pool_need(request, m->id, &pool);
	if (r == 0)
		r = open_check(request, pool, m->write);
	if (r != 0)
		return r;
	r = open_dir(request, pool, &dir);
	if (r < 0)
		return r;
	if (pool->record.kind == POOL_HEAP && m->write)
		r = add_file(request, pool, dir, POOL_FILE_LANES, 0, O_RDWR);
	close(dir);
	if (r == 0)
		r = open_enter(request, pool, m->write);
	if (r == REQUEST_PENDING)
		request_drop_fds(request);
	if (r != 0)
		return r;
	nvmm__pool_opened__init(opened);
	opened->pool = pool_info(request, pool);
	opened->last = shelf_info(request, pool, pool->shelves.n - 1);
	if (!opened->pool || !opened->last)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	request->reply.result_case = NVMM__REPLY__RESULT_OPENED;
	request->reply.opened = opened;
	return 0;
}

/* `incarnation` 0: of whichever the session has open; of an id there can be but one. */
static struct opening *find_incarnation(struct session *session, uint32_t id, uint64_t incarnation)
{
	struct opening *opening;

	LIST_FOREACH (opening, &session->openings, of_session)
		if (opening->pool->id == id &&
		    (incarnation == 0 || opening->incarnation == incarnation))
			return opening;
	return NULL;
}

int op_pool_close(struct request *request)
{
	const Nvmm__PoolClose *m = request->msg->pool_close;
	struct session *session = request->session;
	struct opening *opening = find_incarnation(session, m->id, m->incarnation);
	bool *flag = !opening ? NULL : m->write ? &opening->write : &opening->read;
	int r;

	if (request_was_done(request))
		return 0;
	if (opening && opening->settling) {
		pool_park(opening->pool, request);
		return REQUEST_PENDING;
	}
	if (!flag || !*flag)
		return request_fail(request, -EBADF,
				    "this session does not have pool %u (incarnation "
				    "%llu) open for %s",
				    m->id, (unsigned long long)m->incarnation,
				    m->write ? "writing" : "reading");
	if (m->write && opening->n_lanes > 0) {
		settle_lanes(opening, opening->n_lanes, true, request);
		return REQUEST_PENDING;
	}
	*flag = false;
	if (m->write)
		overgrown_look(opening->pool);
	if (!opening->read && !opening->write)
		opening_free(opening);
	r = session_save(session);
	if (r < 0) /* the file says more than is open: that costs its process nothing */
		client_log(session->nvmmd, CLIENT_COMPLAINT, session->peer.uid,
			   "session %llu: its file cannot be written: %s",
			    (unsigned long long)session->id, strerror(-r));
	return 0;
}

static int add_heap_files(struct request *request, struct pool *pool, int dir, uint32_t index,
			  int flags)
{
	int r;

	r = add_file(request, pool, dir, POOL_FILE_TABLE, index, O_RDONLY);
	return r < 0 ? r : add_file(request, pool, dir, POOL_FILE_STATE, index, flags);
}

int op_shelf_open(struct request *request)
{
	const Nvmm__ShelfOpen *m = request->msg->shelf_open;
	int flags = m->write ? O_RDWR : O_RDONLY, dir, r;
	struct opening *opening;
	struct pool *pool;

	r = opening_need(request, m->id, m->write, &opening);
	if (r < 0)
		return r;
	pool = opening->pool;
	if (m->index >= pool->shelves.n)
		return request_fail(request, -ENXIO, "pool %u has %u shelves: there is no shelf %u",
				    m->id, pool->shelves.n, m->index);
	r = open_dir(request, pool, &dir);
	if (r < 0)
		return r;
	r = add_file(request, pool, dir, POOL_FILE_SHELF, m->index, flags);
	if (r == 0 && pool->record.kind == POOL_HEAP)
		r = add_heap_files(request, pool, dir, m->index, flags);
	close(dir);
	if (r < 0)
		return r;
	request->reply.shelf = shelf_info(request, pool, m->index);
	if (!request->reply.shelf)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	request->reply.result_case = NVMM__REPLY__RESULT_SHELF;
	return 0;
}
