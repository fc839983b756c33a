/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Settling on the loop, in slices: of the dead, of those that say Goodbye, of lanes that come back.
 *
 * Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <uv.h>

struct nvmmd;
struct opening;
struct pool;
struct request;
struct session;
struct user;

/* What is settled step by step: an opening, or what is left of a session. */
struct settle_work {
	void (*step)(struct settle_work *work); /* a small one; takes the work out of the queue at its end */
	struct user *user;                      /* in whose queue it is; NULL: in none */
	TAILQ_ENTRY(settle_work) of_user;
};
TAILQ_HEAD(settle_works, settle_work);
TAILQ_HEAD(settle_users, user);

struct settler {
	uv_idle_t idle;            /* runs while there is work */
	struct settle_users users; /* that have work, in turn */
	uint64_t last;             /* number of the last opening that began to be settled */
	uint64_t looks;            /* number of the last look at processes (settle_ops.c) */
	bool ready;
};

/* Nanoseconds of work in one turn of the loop. Tests set it to 0: then a turn does one step. */
extern uint64_t settle_slice_ns;

void settler_init(struct nvmmd *nvmmd);
/* Closes its handle. What is queued stays where it is. */
void settler_close(struct nvmmd *nvmmd);
bool settler_busy(const struct nvmmd *nvmmd);

/* Settles the last `n` lanes of an opening that is not being settled, then answers `request`. With `close` the opening
 * is not for writing any more, and is given up if it is not for reading either. */
void settle_lanes(struct opening *opening, uint32_t n, bool close, struct request *request);

/* Gives up all that a session has that has just ended, then the session: session_remove(). */
void settle_session(struct session *session);

/* The pool's heap is loaded, or cannot be: what waited for it goes on. */
void settle_resume(struct pool *pool);
/* Takes an opening or a session out of the queues. */
void settle_forget(struct settle_work *work);

/* Whether sessions that have ended still have the pool open, and began to be settled as number `upto` or before. */
bool settle_pending(const struct pool *pool, uint64_t upto);
