/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files that clients make longer.
 *
 * An event only marks its pool: a tick later, TICK_MS, the queue is read once and a few marked pools are
 * looked at. So a flood of events costs a bounded part of the loop. When the kernel's queue overflows, all
 * pools are marked.
 *
 * A pool that is found overgrown is cut back in a job, while it is busy: so that no resize, load or lane growth
 * makes a file longer meanwhile. Until then the bytes count against its owner. The next cut of the same pool
 * waits for SHARE times as long as the last one took: a client that repeats it for ever has one thread work
 * for a part of the time. What it holds between two cuts is the file system's loss: it needs a size of its own.
 *
 * A destroyed pool's files live on while clients hold them. The daemon keeps a descriptor of each such file, and
 * cuts it to what it was, or to nothing once no session has the pool open. A lease tells when nobody holds
 * the file any more.
 */
#include "daemon/overgrown.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/cutback.h"
#include "daemon/job.h"
#include "daemon/nvmmd.h"
#include "daemon/request.h"
#include "media/file.h"

#define TICK_MS 20u
#define UNLINKED_MS 1000u     /* between looks at unlinked files that are held */
#define LOOK_MAX 64u          /* pools in a tick */
#define EVENT_BYTES 16384u    /* of the queue, in a tick */
#define SHARE 4u
#define RELIEF_READS 64u         /* of EVENT_BYTES: about the kernel's queue */
#define UNLINKED_MAX 1024u
#define CUTS_TOLD 16u         /* after these, only every so many is logged */

enum look_how {
	LOOK_USUAL,
	LOOK_SOMEBODY_WAITS, /* for space: a cut does not wait for its turn */
	LOOK_AFTER_CUT,
};

static int compare_wds(struct overgrown_watch *a, struct overgrown_watch *b)
{
	return a->wd < b->wd ? -1 : a->wd > b->wd;
}

RB_GENERATE_INTERNAL(overgrown_wds, overgrown_watch, of_wd, compare_wds, _unused static)

static void on_tick(uv_timer_t *timer);

static uint64_t now_ms(void)
{
	return uv_hrtime() / 1000000;
}

static void tick_in(struct nvmmd *nvmmd, uint64_t ms)
{
	struct overgrown *o = &nvmmd->overgrown;

	if (!o->ready || o->stopped)
		return;
	if (!uv_is_active((uv_handle_t *)&o->timer) || uv_timer_get_due_in(&o->timer) > ms)
		uv_timer_start(&o->timer, on_tick, ms, 0);
}

static void mark(struct nvmmd *nvmmd, struct overgrown_watch *watch)
{
	if (!watch->dirty) {
		watch->dirty = true;
		TAILQ_INSERT_TAIL(&nvmmd->overgrown.dirty, watch, of_dirty);
	}
	tick_in(nvmmd, TICK_MS);
}

static void unmark(struct nvmmd *nvmmd, struct overgrown_watch *watch)
{
	if (watch->dirty)
		TAILQ_REMOVE(&nvmmd->overgrown.dirty, watch, of_dirty);
	watch->dirty = false;
}

static void mark_all(struct nvmmd *nvmmd)
{
	struct overgrown_watch *watch;

	RB_FOREACH (watch, overgrown_wds, &nvmmd->overgrown.by_wd)
		mark(nvmmd, watch);
}

/* Watches */

static void watch_path(struct nvmmd *nvmmd, struct overgrown_watch *watch, int fd)
{
	struct overgrown *o = &nvmmd->overgrown;
	char path[64];
	int wd;

	if (o->fd < 0 || watch->wd > 0)
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	wd = inotify_add_watch(o->fd, path, IN_MODIFY);
	if (wd < 0) {
		client_log(nvmmd, CLIENT_COMPLAINT, CLIENT_LOG_NOBODY,
			       "files that clients make longer are not seen at once: %s; see "
			       "/proc/sys/fs/inotify/max_user_watches",
			       strerror(errno));
		return;
	}
	watch->wd = wd;
	RB_INSERT(overgrown_wds, &o->by_wd, watch);
}

static void unwatch(struct nvmmd *nvmmd, struct overgrown_watch *watch)
{
	struct overgrown *o = &nvmmd->overgrown;

	unmark(nvmmd, watch);
	if (watch->wd == 0)
		return;
	RB_REMOVE(overgrown_wds, &o->by_wd, watch);
	inotify_rm_watch(o->fd, watch->wd);
	watch->wd = 0;
}

void overgrown_watch(struct pool *pool)
{
	struct nvmmd *nvmmd = pool->nvmmd;
	int dir;

	pool->over.pool = pool;
	if (!nvmmd->overgrown.ready || pool->over.wd > 0)
		return;
	if (pool_files_dir(&dir, nvmmd->base_fd, pool->id) < 0)
		return;
	watch_path(nvmmd, &pool->over, dir);
	close(dir);
}

void overgrown_look(struct pool *pool)
{
	if (pool->over.pool)
		mark(pool->nvmmd, &pool->over);
}

void overgrown_trimmed(struct pool *pool)
{
	pool->over.own = true;
	overgrown_look(pool);
}

void overgrown_forget(struct pool *pool)
{
	if (pool->over.pool)
		unwatch(pool->nvmmd, &pool->over);
	pool->over = (struct overgrown_watch){ .cuts = pool->over.cuts };
}

/* Cutting a live pool */

struct cut {
	struct job job;
	struct pool *pool;
	int dir;
	uint64_t began;
	uint64_t bytes;
	struct pool_record record;
	struct pool_shelves shelves;
	uint32_t lanes;
};

static int cut_run(struct job *job)
{
	struct cut *cut = container_of(job, struct cut, job);

	return overgrowth_cut(cut->dir, &cut->record, &cut->shelves, cut->lanes);
}

/* Requests that waited for space are begun again. */
static void cuts_done(struct nvmmd *nvmmd)
{
	struct overgrown *o = &nvmmd->overgrown;
	struct request_list list = TAILQ_HEAD_INITIALIZER(list);
	struct request *request;

	if (o->cutting > 0)
		return;
	TAILQ_CONCAT(&list, &o->waiting, of_pool);
	while ((request = TAILQ_FIRST(&list))) {
		TAILQ_REMOVE(&list, request, of_pool);
		request_run(request);
	}
}

/* Who did it is known if only one session has the pool open for writing. */
static void cut_complain(struct pool *pool, uint64_t bytes)
{
	const struct opening *opening;
	const struct session *writer = NULL;
	unsigned writers = 0;

	if (pool->over.cuts > CUTS_TOLD && pool->over.cuts % CUTS_TOLD != 0)
		return;
	LIST_FOREACH (opening, &pool->openings, of_pool)
		if (opening->write) {
			writer = opening->session;
			writers++;
		}
	if (writers == 1)
		client_log(pool->nvmmd, CLIENT_COMPLAINT, pool->record.uid,
			       "pool %u was overgrown by %" PRIu64 " bytes and is cut back (%" PRIu64
			       " times by now): process %d of user %u alone has it open for writing",
			       pool->id, bytes, pool->over.cuts, writer->peer.process.pid, writer->peer.uid);
	else
		client_log(pool->nvmmd, CLIENT_COMPLAINT, pool->record.uid,
			       "pool %u was overgrown by %" PRIu64 " bytes and is cut back (%" PRIu64
			       " times by now): %u sessions have it open for writing",
			       pool->id, bytes, pool->over.cuts, writers);
}

static void pool_look(struct pool *pool, enum look_how how);

static void cut_done(struct job *job, int r)
{
	struct cut *cut = container_of(job, struct cut, job);
	struct pool *pool = cut->pool;
	struct nvmmd *nvmmd = pool->nvmmd;
	uint64_t now = now_ms();
	bool own = pool->over.own;

	pool->busy = POOL_IDLE;
	pool->over.own = false;
	if (!own) {
		pool->over.not_before = now + SHARE * (now - cut->began + 1);
		pool->over.cuts++;
		nvmmd->counters.files_cut++;
		nvmmd->counters.bytes_cut += cut->bytes;
	}
	if (r < 0 && r != -ECANCELED)
		client_log(nvmmd, CLIENT_COMPLAINT, pool->record.uid,
			   "pool %u is overgrown and cannot be cut back: %s", pool->id, strerror(-r));
	else if (r == 0 && !own)
		cut_complain(pool, cut->bytes);
	pool_look(pool, LOOK_AFTER_CUT);
	nvmmd->overgrown.cutting--;
	pool_unpark(pool);
	pool_rest(pool);
	pool_unref(pool);
	close(cut->dir);
	free(cut);
	cuts_done(nvmmd);
}

static void cut_start(struct pool *pool)
{
	struct cut *cut = calloc(1, sizeof(*cut));

	if (!cut || pool_files_dir(&cut->dir, pool->nvmmd->base_fd, pool->id) < 0) {
		free(cut);
		return;
	}
	cut->pool = pool_ref(pool);
	cut->began = now_ms();
	cut->bytes = pool->over.bytes;
	cut->record = pool->record;
	cut->shelves = pool->shelves;
	cut->lanes = pool->lanes;
	cut->job.run = cut_run;
	cut->job.done = cut_done;
	pool->nvmmd->overgrown.cutting++;
	pool_job_start_own(pool, &cut->job, POOL_BUSY_CUTTING, JOB_WORK, pool->record.uid);
}

/* Measures a pool. After a cut, blocks that are still beyond are the file system's own. */
static bool pool_measure(struct pool *pool, bool after_cut)
{
	struct overgrown_watch *over = &pool->over;
	struct overgrowth found;
	uint64_t before = over->bytes;
	int dir;

	if (pool_files_dir(&dir, pool->nvmmd->base_fd, pool->id) < 0)
		return false;
	overgrowth_find(&found, dir, &pool->record, &pool->shelves, pool->lanes);
	close(dir);
	if (after_cut && !found.longer)
		over->stuck = found.bytes;
	over->bytes = found.bytes > over->stuck || found.longer ? found.bytes : 0;
	over->lanes = MIN(found.lanes, over->bytes);
	if (over->bytes != before)
		pool_recount(pool);
	return over->bytes > 0;
}

static void pool_look(struct pool *pool, enum look_how how)
{
	struct nvmmd *nvmmd = pool->nvmmd;
	uint64_t now = now_ms();

	if (pool->record.kind == 0 || pool->record.state != POOL_LIVE || pool->shelves.n == 0)
		return;
	/* A job that makes files longer is under way: looked at after it. */
	if (pool->busy != POOL_IDLE) {
		mark(nvmmd, &pool->over);
		return;
	}
	if (!pool_measure(pool, how == LOOK_AFTER_CUT)) {
		pool->over.own = false;
		return;
	}
	if ((now >= pool->over.not_before || how == LOOK_SOMEBODY_WAITS) && !nvmmd->stopping)
		cut_start(pool);
	else
		mark(nvmmd, &pool->over);
}

/* Unlinked files */

static void unlinked_drop(struct nvmmd *nvmmd, struct overgrown_watch *watch)
{
	unwatch(nvmmd, watch);
	LIST_REMOVE(watch, of_unlinked);
	nvmmd->overgrown.n_unlinked--;
	close(watch->fd);
	free(watch);
}

/* One slice a look: it is done on the loop, and the rest is marked again. */
static void unlinked_look(struct nvmmd *nvmmd, struct overgrown_watch *watch)
{
	uint64_t size;
	struct stat st;

	if (fstat(watch->fd, &st) < 0)
		return;
	size = (uint64_t)st.st_size;
	watch->bytes = size > watch->length ? size - watch->length : 0;
	if (watch->bytes > 0 || (uint64_t)st.st_blocks * 512 > watch->length + watch->stuck) {
		file_cut(watch->fd, size > watch->length + FILE_SLICE ? size - FILE_SLICE : watch->length);
		nvmmd->counters.files_cut += watch->bytes > 0;
		nvmmd->counters.bytes_cut += MIN(watch->bytes, FILE_SLICE);
		watch->stuck = 0;
		if (size > watch->length + FILE_SLICE)
			mark(nvmmd, watch);
		else if (fstat(watch->fd, &st) == 0 && (uint64_t)st.st_blocks * 512 > watch->length)
			watch->stuck = (uint64_t)st.st_blocks * 512 - watch->length;
	}
}

void overgrown_unlinked(struct nvmmd *nvmmd, uint16_t id, uint64_t incarnation, int fd, uint64_t length)
{
	struct overgrown *o = &nvmmd->overgrown;
	struct overgrown_watch *watch;

	watch = o->ready && o->n_unlinked < UNLINKED_MAX ? calloc(1, sizeof(*watch)) : NULL;
	if (!watch) {
		client_log(nvmmd, CLIENT_COMPLAINT, CLIENT_LOG_NOBODY,
			   "pool %u is destroyed, and more unlinked files are held than are watched", id);
		close(fd);
		return;
	}
	*watch = (struct overgrown_watch){ .fd = fd, .length = length, .id = id, .incarnation = incarnation };
	LIST_INSERT_HEAD(&o->unlinked, watch, of_unlinked);
	o->n_unlinked++;
	watch_path(nvmmd, watch, fd);
	mark(nvmmd, watch);
}

void overgrown_closed(struct nvmmd *nvmmd, uint16_t id, uint64_t incarnation)
{
	struct overgrown_watch *watch;

	LIST_FOREACH (watch, &nvmmd->overgrown.unlinked, of_unlinked)
		if (watch->id == id && watch->incarnation == incarnation && watch->length > 0) {
			watch->length = 0;
			mark(nvmmd, watch);
		}
}

/* Drops those that nobody holds any more. */
static void unlinked_sweep(struct nvmmd *nvmmd)
{
	struct overgrown_watch *watch, *next;

	for (watch = LIST_FIRST(&nvmmd->overgrown.unlinked); watch; watch = next) {
		next = LIST_NEXT(watch, of_unlinked);
		if (!cutback_held(watch->fd))
			unlinked_drop(nvmmd, watch);
	}
}

/* Ticks */

static void take_event(struct nvmmd *nvmmd, const struct inotify_event *event)
{
	struct overgrown_watch key = { .wd = event->wd }, *watch;

	if (event->mask & IN_Q_OVERFLOW) {
		mark_all(nvmmd);
		return;
	}
	watch = RB_FIND(overgrown_wds, &nvmmd->overgrown.by_wd, &key);
	if (!watch)
		return;
	if (event->mask & IN_IGNORED) { /* its directory is gone */
		RB_REMOVE(overgrown_wds, &nvmmd->overgrown.by_wd, watch);
		watch->wd = 0;
	} else {
		mark(nvmmd, watch);
	}
}

/* Reads a part of the queue; whether there may be more. */
static bool read_events(struct nvmmd *nvmmd)
{
	char buf[EVENT_BYTES] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n = nvmmd->overgrown.fd >= 0 ? read(nvmmd->overgrown.fd, buf, sizeof(buf)) : -1;

	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *event = (const void *)(buf + at);

		take_event(nvmmd, event);
		at += (ssize_t)(sizeof(*event) + event->len);
	}
	return n > 0;
}

/* Looks at those that are marked by now, at most so many. */
static void look_at(struct nvmmd *nvmmd, unsigned max, enum look_how how)
{
	struct overgrown *o = &nvmmd->overgrown;
	struct overgrown_watch *watch, *last = TAILQ_LAST(&o->dirty, overgrown_dirty);

	while (max-- > 0 && (watch = TAILQ_FIRST(&o->dirty))) {
		bool end = watch == last;

		unmark(nvmmd, watch);
		if (watch->pool)
			pool_look(watch->pool, how);
		else
			unlinked_look(nvmmd, watch);
		if (end)
			break;
	}
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct nvmmd *nvmmd = poll->data;

	/* Not read at once: what comes within the tick is taken together. */
	uv_poll_stop(poll);
	tick_in(nvmmd, TICK_MS);
}

static void on_tick(uv_timer_t *timer)
{
	struct nvmmd *nvmmd = timer->data;
	struct overgrown *o = &nvmmd->overgrown;
	bool more = read_events(nvmmd);

	look_at(nvmmd, LOOK_MAX, LOOK_USUAL);
	unlinked_sweep(nvmmd);
	if (more || !TAILQ_EMPTY(&o->dirty))
		tick_in(nvmmd, TICK_MS);
	else if (!LIST_EMPTY(&o->unlinked))
		tick_in(nvmmd, UNLINKED_MS);
	if (!more && o->fd >= 0)
		uv_poll_start(&o->poll, UV_READABLE, on_readable);
}

bool overgrown_relief(struct request *request)
{
	struct nvmmd *nvmmd = request->nvmmd;
	struct overgrown *o = &nvmmd->overgrown;

	if (request->cut_waited || !o->ready || nvmmd->stopping)
		return false;
	request->cut_waited = true;
	for (unsigned i = 0; i < RELIEF_READS && read_events(nvmmd); i++)
		;
	look_at(nvmmd, LOOK_MAX, LOOK_SOMEBODY_WAITS);
	if (o->cutting == 0)
		return false;
	TAILQ_INSERT_TAIL(&o->waiting, request, of_pool);
	return true;
}

/* Begin and end */

void overgrown_init(struct overgrown *o)
{
	*o = (struct overgrown){ .fd = -1 };
	RB_INIT(&o->by_wd);
	TAILQ_INIT(&o->dirty);
	TAILQ_INIT(&o->waiting);
	LIST_INIT(&o->unlinked);
}

int overgrown_start(struct nvmmd *nvmmd)
{
	struct overgrown *o = &nvmmd->overgrown;
	int r;

	o->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (o->fd < 0)
		log_warning("inotify: %s: files that clients make longer are looked at when pools are closed",
			    strerror(errno));
	uv_timer_init(&nvmmd->loop, &o->timer);
	o->timer.data = nvmmd;
	o->ready = true;
	if (o->fd >= 0) {
		r = uv_poll_init(&nvmmd->loop, &o->poll, o->fd);
		if (r < 0) {
			close(o->fd);
			o->fd = -1;
			return r;
		}
		o->poll.data = nvmmd;
		uv_poll_start(&o->poll, UV_READABLE, on_readable);
	}
	for (uint32_t id = 1; id <= POOL_ID_MAX; id++) {
		struct pool *pool = nvmmd->pools.by_id[id];

		if (!pool || pool->record.kind == 0 || pool->record.state != POOL_LIVE)
			continue;
		/* Those that had descriptors from the daemon before this one have them still. */
		overgrown_watch(pool);
		overgrown_look(pool);
	}
	return 0;
}

void overgrown_stop(struct nvmmd *nvmmd)
{
	struct overgrown *o = &nvmmd->overgrown;

	if (!o->ready || o->stopped)
		return;
	o->stopped = true;
	uv_close((uv_handle_t *)&o->timer, NULL);
	if (o->fd >= 0)
		uv_close((uv_handle_t *)&o->poll, NULL);
	while (!LIST_EMPTY(&o->unlinked))
		unlinked_drop(nvmmd, LIST_FIRST(&o->unlinked));
}

void overgrown_deinit(struct overgrown *o)
{
	if (o->fd >= 0)
		close(o->fd);
	o->fd = -1;
}
