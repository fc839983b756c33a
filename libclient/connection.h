/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A connection: what struct nvmm_client holds, and who guards which part of it.
 */
#pragma once

#include <nvmm/client.h>

#include "libclient/call.h"
#include "libclient/error.h"
#include "libclient/gate.h"
#include "libclient/process.h"
#include "media/format.h"

#define _public __attribute__((__visibility__("default")))

struct epochs;
struct pool;
struct shelf_map;
struct range;

/* What nvmm_heap and nvmm_region begin with: on nvmm.handles, for nvmm_disconnect(). */
struct handle {
	struct handle *next;
	struct handle **link; /* what points to this one */
	struct nvmm_client *nvmm;
	struct pool *pool;
	bool write;
};

/* A request whose reply did not come in time: it is read before the next request is sent. */
struct stale {
	bool pending;
	uint64_t seq;
	Nvmm__Request__OpCase op;
	uint16_t pool; /* of LaneTake and PoolOpen */
	bool write;    /* of PoolOpen */
};

struct nvmm_client {
	struct nvmm_translation translation; /* first: nvmm_local() reads it */

	/* Written by nvmm_connect() alone. */
	uint64_t id; /* error_source_new() */
	uint32_t generation;
	int timeout_ms; /* -1: for ever */
	char *path;
	char name[64];
	uint8_t cookie[16];

	/* Guarded by call_lock. */
	struct gate call_lock;
	int sock; /* -1: none; atomic, for the forked child */
	uint64_t session;
	uint64_t lock_word; /* owner number as in locks (lock.h); 0: no locks any more; atomic */
	uint32_t node;
	uint64_t run; /* which daemon it is that was attached to last */
	uint64_t seq;
	struct stale stale;
	int lost; /* not 0: no call can succeed any more, and why */
	char lost_text[256];
	struct frame frame;

	/* Held while pools are opened and closed and shelves mapped. */
	struct gate open_lock;

	/* Guarded by the process lock. */
	struct nvmm_client *next;
	struct watcher *watcher; /* failure.c */
	struct handle *handles;
	struct range *ranges;
	/* Set once, under open_lock; atomic. */
	struct epochs *epochs;
	/* Guarded by the process lock and open_lock: written under both, read under either. */
	struct pool **pools; /* by id */

	/* Written under open_lock, read by all: addresses by [pool][shelf], and shelves by address. */
	char ***shelf_base;
	struct shelf_map **shelf_at; /* [address >> SHELF_GRANULE_SHIFT], atomic */
};

/* The child of a fork: lets go of the parent's sockets. Process lock held. */
void connection_fork_child(void);

/*
 * Makes sure of a socket with this session's greeting on it; call_lock held. After a daemon has
 * gone it waits for the next one until the deadline. -ECONNRESET: the session is lost; -ETIMEDOUT.
 * Text set.
 */
int connection_attach(struct nvmm_client *nvmm);
/* Closes the socket: the daemon is gone, or is not to be talked to. call_lock held. */
void connection_detach(struct nvmm_client *nvmm);
/* No call shall succeed any more: returns `error`. call_lock held. Text set. */
int connection_lose(struct nvmm_client *nvmm, int error, const char *text);

/* Whether the session is gone: what the process holds is no longer its own. */
bool connection_lost(struct nvmm_client *nvmm);

/* nvmm_call() for who has entered already. */
int call_daemon(struct nvmm_client *nvmm, Nvmm__Request *request, Nvmm__Reply__ResultCase want,
		size_t n_fds, struct nvmm_reply *ret);

/* Reads the reply of an earlier call that gave up waiting. 1: it came; 0: there is none;
 * -ETIMEDOUT: it is still to come. Text set. */
int call_settle(struct nvmm_client *nvmm);

/* One packet out, one in, until the deadline: call_lock held; no texts. -ECONNRESET: gone. */
int call_send(int sock, const void *data, size_t len, uint64_t when);
int call_recv(struct frame *frame, int sock, uint64_t when);
