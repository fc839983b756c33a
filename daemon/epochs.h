/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Epochs: the daemon's number, the slots of its sessions, and the rounds that free what is in
 * limbo. Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <uv.h>

#include "daemon/keep.h"
#include "media/epoch.h"

struct nvmmd;
struct pool;
struct request;
struct session;

TAILQ_HEAD(epoch_pools, pool);
TAILQ_HEAD(epoch_requests, request);

/* A look at the slots of all sessions, in slices. */
struct epoch_pass {
	bool running;
	uint64_t number;  /* of the last that was begun */
	uint64_t done;    /* of the last that has ended */
	uint64_t stamp;   /* readers of this number, and below, were inside before it began */
	bool passed;      /* the barrier worked as it began */
	uint64_t oldest;  /* of those seen so far */
	uint64_t session; /* sessions up to this one were looked at */
};

struct epochs {
	int dir;                 /* <runtime>/epochs */
	struct epoch_page *page; /* NULL: not there yet */
	int bells;               /* epoll of the sessions' eventfds; -1: heaps are always looked at */
	bool deaf;               /* some bell is not in it: likewise */
	bool asked;              /* a client wants the frontier to be looked at */
	bool started;
	bool barrier_failed;     /* nothing is freed */
	uint64_t passed;         /* the number when the barrier last worked: slots tell of readers below it */
	uv_poll_t wake;
	uv_timer_t timer;
	uv_timer_t ears; /* until bells are listened to again */
	struct epoch_pass pass;
	struct epoch_requests asking; /* they wait for the end of a pass */
	struct epoch_pools active; /* pools that are looked at; each holds a reference */
	struct keep keep;
};

/* Of a session. */
struct epoch_age {
	uint64_t epoch; /* 0: it was outside when it was looked at last */
	uint64_t since; /* uv_now() when it was first seen in it */
	uint32_t tid;
	bool warned;
};

struct session_epochs {
	int memory;             /* its slots; -1: none of its threads was ever in an epoch */
	int bell;               /* its eventfd */
	uint32_t slots;         /* that it was granted: only these are looked at */
	uint32_t kept;          /* that the keeper knows of; 0: it knows nothing of the session */
	bool saved;             /* its file says that it has slots */
	bool behind;            /* the keeper is to be told something */
	bool unread;            /* it has slots that nobody can read: as if it were in every epoch */
	bool lost;              /* nor will anybody: it was asked for */
	uint64_t oldest;        /* of the last pass; 0: none is inside */
	uint64_t seen;          /* the same, of the pass that runs */
	uint32_t cursor;        /* slots below it were looked at in the pass that runs */
	struct epoch_age *ages; /* by slot */
	uint32_t n_ages;
	TAILQ_ENTRY(session) of_behind;
};

/* Of a pool. */
enum epoch_phase {
	EPOCH_SNAPSHOT, /* its snapshot is being taken */
	EPOCH_WAIT,     /* the snapshot waits for its readers */
	EPOCH_RELEASE,  /* the snapshot is being freed */
};

struct pool_epochs {
	bool active;
	bool more;    /* its snapshot is not whole yet */
	bool stamped; /* this tick took its snapshot */
	enum epoch_phase phase;
	uint64_t stamp;
	uint64_t since; /* uv_now() when the snapshot was stamped */
	struct epoch_requests waiting; /* allocations that found no room */
	uint64_t deadline;             /* uv_now() until which they wait */
	TAILQ_ENTRY(pool) of_active;
};

/* Takes the page up, or makes it. -errno, logged. */
int epochs_init(struct nvmmd *nvmmd);
/* Begins to work: sessions are restored. Heaps that they may write to are loaded. */
int epochs_start(struct nvmmd *nvmmd);
/* Ends its work; the loop closes its handles. */
void epochs_stop(struct nvmmd *nvmmd);
void epochs_deinit(struct nvmmd *nvmmd);

/* Something may be in limbo in the pool, or was left so by a death: look. */
void epochs_kick(struct pool *pool);

enum epoch_relief {
	RELIEF_NONE,  /* there is nothing to hope for */
	RELIEF_NOW,   /* blocks that were in limbo are free: try again */
	RELIEF_LATER, /* the request waits: it begins again when readers have left, or late */
};

/* An allocation found no room: a round of reclamation is run for it. */
enum epoch_relief epochs_pressure(struct request *request, struct pool *pool);

/*
 * Has the slots of all sessions looked at, in a pass that begins after this call: ages are noted,
 * the frontier is told. 0: it was done, for this request; REQUEST_PENDING: the request begins again
 * when it is done.
 */
int epochs_look(struct request *request);
/* Hears the session's bell. -errno. */
int epochs_hear(struct session *session);
void epochs_unhear(struct session *session);
/* The oldest epoch that a session with this pool open has a thread in; 0: none. */
uint64_t epochs_oldest(const struct pool *pool);

/* Slots of sessions: epoch_slots.c */

void session_epochs_init(struct session *session);
/* Makes the session's slots, unless it has some. -errno. */
int session_epochs_open(struct session *session);
/* Grants `want` slots, if the process has so many threads. -EUSERS, -EDQUOT; -errno of looking
 * at the process. */
int session_epochs_grant(struct session *session, uint32_t want);
/* Takes what the session had under another daemon: takes the descriptors over on success.
 * -errno. */
int session_epochs_take(struct session *session, int memory, int bell, uint32_t slots);
/* Reads what its threads are in, until this uv_hrtime(). False: not all of it yet. */
bool session_epochs_scan(struct session *session, uint64_t until);
/* The session has ended: the keeper drops its slots. */
void session_epochs_end(struct session *session);
void session_epochs_deinit(struct session *session);
