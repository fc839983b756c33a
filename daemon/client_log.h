/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lines of the log that clients can provoke. All of them go through client_log(): it writes so many a second, of each
 * kind, in sum and of one user, and counts the rest.
 *
 * Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <uv.h>

#include "common/macro.h"

struct nvmmd;

/* Kinds have rates of their own, so that events do not hide complaints, nor both of them damage. */
enum client_line {
	CLIENT_EVENT,     /* info: what a client did */
	CLIENT_COMPLAINT, /* warning: what it did wrong, or what could not be done for it */
	CLIENT_DAMAGE,    /* error: a pool that is not served any more */
	CLIENT_LINES,
};

#define CLIENT_LOG_USERS 16u /* told apart in one second; further ones share a rate */
#define CLIENT_LOG_NOBODY ((uid_t)-1) /* no user is known: shares a rate with the likes of it */

/* What was written in one second. */
struct line_limit {
	uint64_t second;
	unsigned written[CLIENT_LINES];
	unsigned dropped[CLIENT_LINES];
	struct line_user {
		uid_t uid;
		unsigned written[CLIENT_LINES];
		unsigned dropped;
	} users[CLIENT_LOG_USERS + 1]; /* the last one: all others */
	unsigned n_users;
};

/* Lines a second. */
unsigned line_limit_sum(enum client_line kind);
unsigned line_limit_user(enum client_line kind);

/* Whether a line of a user may be written in this second; counts it either way. A new second begins from nothing, so
 * what was dropped is to be told before. */
bool line_limit_take(struct line_limit *limit, enum client_line kind, uid_t uid, uint64_t second);
unsigned line_limit_dropped(const struct line_limit *limit);
/* The user whose lines were dropped most; CLIENT_LOG_NOBODY: several, or none that is known. */
uid_t line_limit_noisiest(const struct line_limit *limit);
/* What was dropped is told; what was written in this second still counts. */
void line_limit_told(struct line_limit *limit);

struct client_log {
	struct line_limit limit;
	uv_timer_t timer; /* tells what was dropped, when the second is over */
	bool ready;
};

void client_log_start(struct nvmmd *nvmmd);
/* Tells what was dropped and closes its handle. */
void client_log_stop(struct nvmmd *nvmmd);

/* Writes a line about what `uid` did, unless there were too many in this second. */
void client_log(struct nvmmd *nvmmd, enum client_line kind, uid_t uid, const char *fmt, ...) _printf(4, 5);
