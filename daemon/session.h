/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sessions: a client process's attachment, from Hello to Goodbye or its death.
 *
 * Loop thread only. A session is in the table until it ends; requests under way keep it in memory
 * with references, and find `ended` set.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

#include "common/macro.h"
#include "daemon/epochs.h"
#include "daemon/fair.h"
#include "daemon/peer.h"
#include "daemon/pool.h"
#include "daemon/session_file.h"
#include "daemon/settle.h"

struct connection;
struct nvmmd;

/* Of one session: its file, which has all of them, is written at each change. */
#define SESSION_LANES_MAX 262144u
#define SESSION_POOLS_MAX 4096u

struct session {
	struct nvmmd *nvmmd;
	unsigned refs;
	uint64_t id;
	uint64_t owner; /* by which locks name it; see doc/locks.md */
	struct peer peer; /* of the connection that attached last; pidfd is the process's */
	uint8_t cookie[SESSION_COOKIE_LEN];
	char name[SESSION_NAME_MAX + 1];
	int64_t since;
	uint64_t requests;
	uint64_t last_seq;
	struct session_done done; /* before a restart */
	struct {           /* what the last mutation was answered, for a repeat */
		uint64_t seq;
		uint8_t *data;
		size_t len;
	} last;
	struct connection *connection; /* borrowed; NULL: detached */
	uv_poll_t death;               /* of pidfd */
	struct fair_item item;         /* to end it when its process is gone, in its user's turn */
	struct opening_list openings;
	struct session_epochs epochs;
	uint32_t n_lanes;       /* of all openings */
	uint32_t n_pools;       /* openings */
	struct user *user;      /* a reference */
	struct settle_work work;
	struct request *goodbye; /* answered when all is settled */
	bool ended; /* it is being settled: it asks nothing more, and nobody finds it */
	bool died;  /* its process had ended then */
	int gone; /* atomic: the same, for threads that work for it */
	RB_ENTRY(session) of_id;
	RB_ENTRY(session) of_owner;
};

RB_HEAD(session_ids, session);
RB_HEAD(session_owners, session);

struct sessions {
	struct session_ids by_id;
	struct session_owners by_owner;
	uint64_t next_id;
	uint32_t n;
	uint32_t detached;
};

void sessions_init(struct sessions *sessions);
/* Forgets all, leaving their files; memory is freed when the loop has closed their handles. */
void sessions_deinit(struct sessions *sessions);

/* Takes up what a daemon before this one left in the runtime directory: the living as detached
 * sessions; the files of the dead are removed. Pools have been loaded. */
int sessions_restore(struct nvmmd *nvmmd);

/* Makes a session, watches its process, enters it as detached. Takes over *peer on success. */
int session_make(struct session **ret, struct nvmmd *nvmmd, struct peer *peer, uint64_t id,
		 uint64_t owner);
/* Begins a session; takes over *peer on success. -ENOMEM; -errno of writing its file. */
int session_new(struct session **ret, struct nvmmd *nvmmd, struct peer *peer,
		const uint8_t cookie[SESSION_COOKIE_LEN], const char *name);
struct session *session_ref(struct session *session);
void session_unref(struct session *session);
DEFINE_AUTO(struct session, session_unref)

/* One that has not ended. */
struct session *session_find(struct nvmmd *nvmmd, uint64_t id);
/* The session that locks name by this number; NULL: it has ended, or there was none. */
struct session *session_of_owner(struct nvmmd *nvmmd, uint64_t owner);
/* The first session with an id above `after`. */
struct session *session_after(struct nvmmd *nvmmd, uint64_t after);
uint32_t sessions_of_user(struct nvmmd *nvmmd, uid_t uid);
uint32_t sessions_with_pools(struct nvmmd *nvmmd);
/* Those whose epoch slots nobody can read. */
uint32_t sessions_unread(struct nvmmd *nvmmd);

/* Gives the session a connection, and its rights if `peer` is not NULL, which is taken over then; the
 * connection it had before is closed. */
/* Counts it among those without a connection, or no more. */
void session_count_detached(struct session *session, bool detached);
void session_attach(struct session *session, struct connection *connection, struct peer *peer);
/* Its connection is gone: it waits for the process's end, or ends if it holds nothing. */
void session_detach(struct session *session);

/* Ends it: from now on it is settled, in slices, and removed after that. `why` is for the log. */
void session_end(struct session *session, const char *why);
/* Removes it and its files: all of it is settled. */
void session_remove(struct session *session);

/* Writes its file anew: before any reply that grants. 0 or -errno. */
int session_save(struct session *session);

