/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Epochs: the daemon's number, the slots of its sessions, and the rounds that free what is in limbo.
 * Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <uv.h>

#include "media/epoch.h"

struct nvmmd;
struct pool;
struct request;
struct session;

TAILQ_HEAD(epoch_pools, pool);

struct epochs {
	int dir;                 /* <runtime>/epochs */
	struct epoch_page *page; /* NULL: not there yet */
	int wake_fd;             /* inotify of the directory; -1: heaps are always looked at */
	bool started;
	bool barrier_failed;     /* nothing is freed */
	uint64_t passed;         /* the number when the barrier last worked: slots tell of readers below it */
	uv_poll_t wake;
	uv_timer_t timer;
	struct epoch_pools active; /* pools that are looked at; each holds a reference */
};

/* Of a session. */
struct epoch_age {
	uint64_t epoch;
	uint64_t since; /* uv_now() when it was first seen in it */
	bool warned;
};

struct session_epochs {
	struct epoch_slots *slots; /* NULL: none of its threads was ever in an epoch */
	bool bad;                  /* its process has spoilt its file */
	bool unread;               /* it has a file that could not be mapped: as if it were in every epoch */
	uint64_t oldest;           /* of the last scan; 0: none is inside */
	struct epoch_age *ages;    /* by slot */
	uint32_t n_ages;
};

/* Of a pool. */
enum epoch_phase {
	EPOCH_SNAPSHOT, /* its snapshot is being taken */
	EPOCH_WAIT,     /* the snapshot waits for its readers */
	EPOCH_RELEASE,  /* the snapshot is being freed */
};

TAILQ_HEAD(epoch_requests, request);

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

/* Passes all registered threads a barrier. False: it did not work; nothing is freed then. */
bool epochs_barrier(struct nvmmd *nvmmd);
/* Looks at every session's slots; ages are noted, the frontier told. */
void epochs_scan(struct nvmmd *nvmmd);
/* The oldest epoch that a session with this pool open has a thread in; 0: none. */
uint64_t epochs_oldest(const struct pool *pool);

/* Slots of sessions: epoch_slots.c */

/* Makes the session's file. -errno. */
int session_epochs_open(struct session *session);
/* Takes up the file that a restored session had, if it had one. */
void session_epochs_restore(struct session *session);
/* Reads what its threads are in. */
void session_epochs_scan(struct session *session);
/* Reads slots from *from on: as epoch_scan(). A file that was spoilt has no readers. */
uint32_t session_epochs_read(struct session *session, uint32_t *from, struct epoch_reading *ret,
			     uint32_t room);
/* Removes its file. */
void session_epochs_end(struct session *session);
void session_epochs_deinit(struct session *session);
/* Removes the files of sessions that are no more. */
void epoch_slots_tidy(struct nvmmd *nvmmd);
int epoch_slots_file(int *ret, struct session *session);
/* The session whose file `name` is; 0: none's. */
uint64_t epoch_slots_id(const char *name);
