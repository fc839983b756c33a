/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sessions.
 *
 * A session lives as long as its process, which a pidfd tells; or until Goodbye. Its socket tells
 * nothing: a forked child may keep a dead peer's socket open, and a process that closed its socket
 * may still use what it has mapped. So a lost connection detaches the session, and one that has
 * nothing open ends there, since nothing of it is left to wait for. Unless it was the daemon who closed it, as
 * it stops: then the process attaches again to the next one.
 *
 * The session's file is written before each reply that grants: what a process may hold is never
 * more than a restarted daemon knows. The reverse does no harm: a lane that the file names and
 * nobody uses is settled at the process's end.
 */
#include "daemon/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/connection.h"
#include "daemon/failures.h"
#include "daemon/nvmmd.h"
#include "daemon/owner.h"
#include "daemon/request.h"

static int session_compare(struct session *a, struct session *b)
{
	return a->id < b->id ? -1 : a->id > b->id;
}

RB_GENERATE_INTERNAL(session_ids, session, of_id, session_compare, _unused static)

static int session_compare_owners(struct session *a, struct session *b)
{
	return a->owner < b->owner ? -1 : a->owner > b->owner;
}

RB_GENERATE_INTERNAL(session_owners, session, of_owner, session_compare_owners, _unused static)

void sessions_init(struct sessions *sessions)
{
	*sessions = (struct sessions){ .next_id = 1 };
	RB_INIT(&sessions->by_id);
	RB_INIT(&sessions->by_owner);
}

static void session_closed(uv_handle_t *handle)
{
	session_unref(handle->data);
}

/* Who it is that the session counts for. */
static void session_count(struct session *session, struct user *user)
{
	if (session->user)
		session->user->sessions--;
	user_unref(session->user);
	session->user = user;
	if (user)
		user->sessions++;
}

void session_count_detached(struct session *session, bool detached)
{
	session->nvmmd->sessions.detached += detached ? 1 : -1u;
	if (session->user)
		session->user->detached += detached ? 1 : -1u;
}

/* Takes it, which has no connection, out of the table; the last reference frees it. */
static void session_drop(struct session *session)
{
	struct sessions *sessions = &session->nvmmd->sessions;

	session->ended = true;
	RB_REMOVE(session_ids, &sessions->by_id, session);
	RB_REMOVE(session_owners, &sessions->by_owner, session);
	sessions->n--;
	session_count_detached(session, false);
	session_count(session, NULL);
	uv_close((uv_handle_t *)&session->death, session_closed);
}

void session_remove(struct session *session)
{
	struct nvmmd *nvmmd = session->nvmmd;
	struct request *goodbye = take(session->goodbye);
	int r = session_file_remove(nvmmd->runtime_fd, session->id);

	if (r < 0)
		client_log(nvmmd, CLIENT_COMPLAINT, session->peer.uid,
			   "session %" PRIu64 ": its file cannot be removed: %s", session->id,
			    strerror(-r));
	session_epochs_end(session);
	nvmmd->counters.sessions_settled += session->died;
	session_drop(session);
	if (goodbye)
		request_finish(goodbye, 0);
}

/* Its connection, if it has one, is nobody's and is closed. */
static void session_hang_up(struct session *session)
{
	struct connection *connection = session->connection;

	if (!connection)
		return;
	session->connection = NULL;
	connection->session = NULL;
	session_count_detached(session, true);
	connection_close(connection);
}

void sessions_deinit(struct sessions *sessions)
{
	struct session *session;

	while ((session = RB_MIN(session_ids, &sessions->by_id))) {
		fair_remove(&session->nvmmd->fair, &session->item);
		/* ordering: relaxed; as in session_end(). */
		__atomic_store_n(&session->gone, 1, __ATOMIC_RELAXED);
		session_hang_up(session);
		settle_forget(&session->work);
		if (session->goodbye)
			request_free(take(session->goodbye));
		/* Lanes are in use, or are settled by the next daemon: processes go on without one. */
		while (!LIST_EMPTY(&session->openings))
			opening_free(LIST_FIRST(&session->openings));
		session_drop(session);
	}
}

struct session *session_ref(struct session *session)
{
	session->refs++;
	return session;
}

void session_unref(struct session *session)
{
	if (!session || --session->refs > 0)
		return;
	peer_deinit(&session->peer);
	session_epochs_deinit(session);
	free(session->last.data);
	free(session);
}

struct session *session_find(struct nvmmd *nvmmd, uint64_t id)
{
	struct session key = { .id = id };
	struct session *session = RB_FIND(session_ids, &nvmmd->sessions.by_id, &key);

	return session && !session->ended ? session : NULL;
}

struct session *session_of_owner(struct nvmmd *nvmmd, uint64_t owner)
{
	struct session key = { .owner = owner };

	return RB_FIND(session_owners, &nvmmd->sessions.by_owner, &key);
}

struct session *session_after(struct nvmmd *nvmmd, uint64_t after)
{
	struct session key = { .id = after + 1 };

	return after == UINT64_MAX ? NULL : RB_NFIND(session_ids, &nvmmd->sessions.by_id, &key);
}

uint32_t sessions_of_user(struct nvmmd *nvmmd, uid_t uid)
{
	const struct user *user = user_find(nvmmd, uid);

	return user ? user->sessions : 0;
}

uint32_t sessions_with_pools(struct nvmmd *nvmmd)
{
	struct session *session;
	uint32_t n = 0;

	RB_FOREACH (session, session_ids, &nvmmd->sessions.by_id)
		n += !LIST_EMPTY(&session->openings);
	return n;
}

uint32_t sessions_unread(struct nvmmd *nvmmd)
{
	struct session *session;
	uint32_t n = 0;

	RB_FOREACH (session, session_ids, &nvmmd->sessions.by_id)
		n += session->epochs.unread;
	return n;
}

static void session_end_dead(struct fair_item *item)
{
	session_end(container_of(item, struct session, item), "its process is gone");
}

static void session_died(uv_poll_t *poll, int status, int events)
{
	struct session *session = poll->data;

	if (status < 0 || !process_ended(session->peer.pidfd))
		return;
	/* What the poll had to tell is told. A process does not come back. */
	uv_poll_stop(poll);
	fair_push(&session->nvmmd->fair, &session->item, session->peer.uid);
}

int session_make(struct session **ret, struct nvmmd *nvmmd, struct peer *peer, uint64_t id,
		 uint64_t owner)
{
	struct session *session = calloc(1, sizeof(*session));
	struct user *user = session ? user_get(nvmmd, peer->uid) : NULL;
	int r = user ? uv_poll_init(&nvmmd->loop, &session->death, peer->pidfd) : -ENOMEM;

	if (r < 0) {
		user_unref(user);
		free(session);
		return r;
	}
	session_count(session, user);
	session->nvmmd = nvmmd;
	session->item.run = session_end_dead;
	session->refs = 1; /* the table's; then the handle's, until it is closed */
	session->id = id;
	session->owner = owner;
	session->peer = *peer;
	*peer = (struct peer){ .pidfd = -1 };
	LIST_INIT(&session->openings);
	session_epochs_init(session);
	session->death.data = session;
	uv_poll_start(&session->death, UV_READABLE, session_died);
	RB_INSERT(session_ids, &nvmmd->sessions.by_id, session);
	RB_INSERT(session_owners, &nvmmd->sessions.by_owner, session);
	nvmmd->sessions.n++;
	session_count_detached(session, true);
	nvmmd->sessions.next_id = MAX(nvmmd->sessions.next_id, id + 1);
	*ret = session;
	return 0;
}

int session_new(struct session **ret, struct nvmmd *nvmmd, struct peer *peer,
		const uint8_t cookie[SESSION_COOKIE_LEN], const char *name)
{
	struct session *session;
	uint64_t owner;
	int r;

	r = owner_next(&owner, nvmmd);
	if (r == 0)
		r = session_make(&session, nvmmd, peer, nvmmd->sessions.next_id, owner);
	if (r < 0)
		return r;
	memcpy(session->cookie, cookie, SESSION_COOKIE_LEN);
	memcpy(session->name, name, strnlen(name, SESSION_NAME_MAX));
	session->since = nvmmd_now();
	r = session_save(session);
	if (r < 0) {
		session_end(session, "its file cannot be written");
		return r;
	}
	nvmmd->counters.sessions_started++;
	*ret = session;
	return 0;
}

void session_attach(struct session *session, struct connection *connection, struct peer *peer)
{
	struct connection *old = session->connection;

	if (old) {
		session->connection = NULL;
		old->session = NULL;
		connection_close(old);
	} else {
		session_count_detached(session, false);
	}
	if (peer) {
		/* The same process: its pidfd is watched already, but it may have other rights now.
		 */
		int pidfd = session->peer.pidfd;
		struct user *user = user_get(session->nvmmd, peer->uid);

		if (user)
			session_count(session, user);
		session->peer.pidfd = -1;
		peer_deinit(&session->peer);
		session->peer = *peer;
		close(session->peer.pidfd);
		session->peer.pidfd = pidfd;
		*peer = (struct peer){ .pidfd = -1 };
	}
	session->connection = connection;
	connection->session = session;
}

void session_detach(struct session *session)
{
	session->connection->session = NULL;
	session->connection = NULL;
	session_count_detached(session, true);
	if (process_ended(session->peer.pidfd)) {
		session_end(session, "its process is gone");
	} else if (LIST_EMPTY(&session->openings) && !session->nvmmd->stopped) {
		session_end(session, "its connection is closed, and it has nothing open");
	} else {
		client_log(session->nvmmd, CLIENT_EVENT, session->peer.uid,
			   "session %" PRIu64 " (pid %d) is detached", session->id,
			 session->peer.process.pid);
	}
}

void session_end(struct session *session, const char *why)
{
	struct nvmmd *nvmmd = session->nvmmd;

	if (session->ended)
		return;
	if (!LIST_EMPTY(&session->openings))
		client_log(nvmmd, CLIENT_EVENT, session->peer.uid,
			   "session %" PRIu64 " (pid %d, uid %u) ends with %u lanes: %s", session->id,
			 session->peer.process.pid, session->peer.uid, session->n_lanes, why);
	else
		log_debug("session %" PRIu64 " (pid %d) ends: %s", session->id,
			  session->peer.process.pid, why);
	session->ended = true;
	fair_remove(&nvmmd->fair, &session->item);
	/* ordering: relaxed; a thread that reserves for it looks at this word alone. */
	__atomic_store_n(&session->gone, 1, __ATOMIC_RELAXED);
	session->died = process_ended(session->peer.pidfd);
	uv_poll_stop(&session->death);
	session_hang_up(session);
	/* A restarted daemon would take it for one that goes on. */
	if (!session->died)
		session_file_remove(nvmmd->runtime_fd, session->id);
	settle_session(session);
}

/* What each opening is in the session's file; lanes are borrowed. */
static uint32_t image_pools(struct session_pool *pools, const struct session *session)
{
	const struct opening *opening;
	uint32_t n = 0;

	LIST_FOREACH (opening, &session->openings, of_session) {
		if (!opening->read && !opening->write)
			continue;
		if (pools)
			pools[n] = (struct session_pool){
				.pool = opening->pool->id,
				.read = opening->read,
				.write = opening->write,
				.incarnation = opening->incarnation,
				.n_lanes = opening->n_lanes,
				.lanes = opening->lanes,
			};
		n++;
	}
	return n;
}

int session_save(struct session *session)
{
	struct session_image image = {
		.id = session->id,
		.process = session->peer.process,
		.uid = session->peer.uid,
		.gid = session->peer.gid,
		.since = session->since,
		.epochs = session->epochs.saved,
		.last_seq = session->last_seq,
		.done = session->done,
		.owner = session->owner,
	};
	int r;

	memcpy(image.boot_id, session->nvmmd->boot_id, BOOT_ID_LEN);
	memcpy(image.cookie, session->cookie, SESSION_COOKIE_LEN);
	memcpy(image.name, session->name, sizeof(image.name));
	image.n_pools = image_pools(NULL, session);
	image.pools = calloc(image.n_pools + 1, sizeof(*image.pools));
	if (!image.pools)
		return -ENOMEM;
	image_pools(image.pools, session);
	r = session_file_write(session->nvmmd->runtime_fd, &image);
	free(image.pools);
	return r;
}
