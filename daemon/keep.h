/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon's side of the keeper (keeper.h): what is to outlive this daemon is given to it before
 * a client hears of it. Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include <uv.h>

struct keep_link;
struct nvmmd;
struct request;
struct session;

TAILQ_HEAD(keep_sessions, session);
TAILQ_HEAD(keep_requests, request);

struct keep {
	struct keep_link *link;      /* the connection; NULL: no keeper is known */
	struct keep_sessions behind; /* of which the keeper does not know all yet */
	struct keep_requests waiting; /* for that */
	uint64_t *drops;             /* sessions that are to be dropped */
	size_t n_drops;
	size_t room;
	uint64_t started;            /* uv_now() when a keeper was started last; 0: never */
	uint64_t asked;              /* uv_now() when it was last asked for one session */
	int error;                   /* of the last start */
	bool ready;
	uv_process_t *process;       /* the one that was started last, while it runs */
	uv_timer_t timer;            /* until it is tried again */
};

/* What is started as keeper. NULL: none is, and slots end with the daemon; for tests that run a
 * daemon inside of their own process. */
extern const char *keeper_program;

void keep_init(struct keep *keep);
/* Takes all that a keeper holds, if there is one; what belongs to no session is dropped. Sessions
 * are restored. Waits for the keeper. */
void keep_start(struct nvmmd *nvmmd);
void keep_stop(struct nvmmd *nvmmd);

/*
 * Tells the keeper what the session has by now, starting one if there is none. 0: it knows;
 * whatever becomes of this daemon. REQUEST_PENDING: the request waits, and begins again later.
 * -errno of starting one.
 */
int keep_session(struct session *session, struct request *request);
/* The session has ended. */
void keep_drop(struct session *session);
/* Asks for what could not be taken at the start, for want of descriptors; now and then. */
void keep_ask(struct session *session);
/* The keeper's process; 0: none is known. */
pid_t keep_pid(const struct keep *keep);
