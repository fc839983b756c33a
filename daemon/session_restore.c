/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sessions that a daemon before this one left.
 *
 * A process is known again by pid, start time and boot; then it may still use what it has mapped,
 * and keeps its lanes as a detached session, which ends with it or is attached again. Of all
 * others the file is removed: their lanes belong to nobody and are settled when their heap
 * is loaded. A pool that was destroyed under a living session keeps its id taken, and one whose record is
 * rotten has its openers as before: they use what they have mapped, and nobody repairs it under them.
 *
 * A client whose request was under way asks again, with the same number. Whether it was done is found
 * here, before anybody is served: the records of pools and roots name the session and the number of
 * their last change, and nobody can have changed them since. It is written to the session's file
 * at once: another client may change such a record before the first one asks again, and this
 * daemon may die in between, too.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/failures.h"
#include "daemon/nvmmd.h"
#include "daemon/session.h"

/*
 * The pool that the session had open, if it is the same still or is gone; NULL: another. One whose record is rotten
 * is taken for the same: whoever may have it mapped must not be overlooked by a repair. Of one that is gone the
 * record may be another's since: a rotten one that was destroyed, or made anew and destroyed. Its id stays taken
 * until the last of them has closed it.
 */
static struct pool *restore_pool(struct nvmmd *nvmmd, const struct session_pool *was)
{
	struct pool *pool = nvmmd->pools.by_id[was->pool];
	struct pool_record record;
	const char *why;

	if (pool)
		return pool->record.kind == 0 || pool->record.state == POOL_FREE ||
				       pool->record.incarnation == was->incarnation ?
			       pool :
			       NULL;
	if (registry_get(nvmmd->registry, was->pool, &record, &why) <= 0 ||
	    record.state != POOL_FREE)
		return NULL;
	memset(record.name, 0, sizeof(record.name));
	return pool_add(&pool, nvmmd, was->pool, &record) == 0 ? pool : NULL;
}

static int restore_opening(struct session *session, struct session_pool *was)
{
	struct pool *pool = restore_pool(session->nvmmd, was);
	struct opening *opening;
	int r;

	if (!pool) {
		log_warning("session %" PRIu64 " had pool %u open, which is another or unknown now",
			    session->id, was->pool);
		return 0;
	}
	r = opening_new(&opening, session, pool);
	if (r < 0)
		return r;
	opening->incarnation = was->incarnation;
	opening->read = was->read;
	opening->write = was->write;
	if (pool->record.state == POOL_FREE)
		return 0;
	opening->n_lanes = was->n_lanes;
	opening->lanes = take(was->lanes);
	return 0;
}

static int restore_session(struct nvmmd *nvmmd, struct session_image *image)
{
	struct peer peer = { .process = image->process, .uid = image->uid, .gid = image->gid };
	struct session *session;
	int r;

	r = process_open(&peer.pidfd, image->process);
	if (r < 0)
		return r;
	r = session_make(&session, nvmmd, &peer, image->id);
	if (r < 0) {
		peer_deinit(&peer);
		return r;
	}
	memcpy(session->cookie, image->cookie, SESSION_COOKIE_LEN);
	memcpy(session->name, image->name, sizeof(session->name));
	session->since = image->since;
	session->last_seq = image->last_seq;
	session->done = image->done;
	/* A request that only changes the session is done when the file says so. */
	if (image->last_seq > session->done.seq)
		session->done = (struct session_done){ .seq = image->last_seq };
	/* Until the keeper gives them. */
	session->epochs.saved = session->epochs.unread = image->epochs;
	for (uint32_t i = 0; r == 0 && i < image->n_pools; i++)
		r = restore_opening(session, &image->pools[i]);
	if (r < 0)
		return r;
	log_info("session %" PRIu64 " (pid %d) is there from before, detached", session->id,
		 session->peer.process.pid);
	return 0;
}

static int restore_file(struct nvmmd *nvmmd, const char *name, uint64_t id)
{
	_auto(session_image_free) struct session_image *image = NULL;
	int r;

	r = session_file_read(&image, nvmmd->runtime_fd, name);
	if (r == 0 && image->id != id)
		r = -EUCLEAN;
	if (r == -EUCLEAN)
		log_warning("%s/%s is damaged and is removed: what that session held is settled",
			    nvmmd->config.runtime, name);
	else if (r < 0)
		return r;
	if (r == 0 && memcmp(image->boot_id, nvmmd->boot_id, BOOT_ID_LEN) == 0) {
		r = restore_session(nvmmd, image);
		if (r == 0)
			return 0;
		if (r != -ESRCH)
			return r;
		log_info("session %" PRIu64 " (pid %d) ended while no daemon ran", id,
			 image->process.pid);
		nvmmd->counters.sessions_settled++;
		failures_note_image(nvmmd, image);
	}
	return session_file_remove(nvmmd->runtime_fd, id);
}

/* Notes that a record's last change was made by request `seq` of whoever has this cookie. */
static void note_done(struct nvmmd *nvmmd, const uint8_t cookie[SESSION_COOKIE_LEN], uint64_t seq,
		      uint16_t pool, uint64_t incarnation)
{
	struct session *s;

	if (seq == 0)
		return;
	for (s = session_after(nvmmd, 0); s; s = session_after(nvmmd, s->id))
		if (seq > s->done.seq && memcmp(s->cookie, cookie, SESSION_COOKIE_LEN) == 0)
			s->done = (struct session_done){ .seq = seq, .pool = pool,
							 .incarnation = incarnation };
}

/* What was done to roots: only of heaps that living sessions have open. */
static void find_done_roots(struct pool *pool)
{
	struct root_record root;
	struct meta *meta;

	if (pool->record.kind != POOL_HEAP || pool->record.state == POOL_FREE || pool->damage ||
	    pool_meta(pool, &meta) < 0)
		return;
	for (uint32_t i = 0; i < POOL_ROOTS_MAX; i++)
		if (meta_root_get(meta, i, &root) >= 0)
			note_done(pool->nvmmd, root.cookie, root.op_seq, pool->id,
				  pool->record.incarnation);
}

static int find_done(struct nvmmd *nvmmd)
{
	uint16_t last = registry_last(nvmmd->registry);
	struct pool_record record;
	struct session *session;
	const char *why;
	int r = 0;

	for (uint32_t id = 1; nvmmd->sessions.n > 0 && id <= last; id++) {
		if (registry_get(nvmmd->registry, (uint16_t)id, &record, &why) > 0)
			note_done(nvmmd, record.cookie, record.op_seq, record.pool,
				  record.incarnation);
		if (nvmmd->pools.by_id[id] && nvmmd->pools.by_id[id]->openers > 0)
			find_done_roots(nvmmd->pools.by_id[id]);
	}
	for (session = session_after(nvmmd, 0); session; session = session_after(nvmmd, session->id)) {
		session->last_seq = MAX(session->last_seq, session->done.seq);
		r = session_save(session);
		if (r < 0)
			return r;
	}
	return 0;
}

int sessions_restore(struct nvmmd *nvmmd)
{
	struct dirent *e;
	uint64_t id;
	int fd, r = 0;
	DIR *dir;

	fd = openat(nvmmd->runtime_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		r = -errno;
		if (fd >= 0)
			close(fd);
		return r;
	}
	while (r == 0 && (e = readdir(dir))) {
		if (session_file_id(&id, e->d_name) < 0)
			continue;
		r = restore_file(nvmmd, e->d_name, id);
		if (r < 0)
			log_error("%s/%s cannot be taken up: %s", nvmmd->config.runtime, e->d_name,
				  strerror(-r));
	}
	closedir(dir);
	return r < 0 ? r : find_done(nvmmd);
}
