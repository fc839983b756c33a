/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Users of the daemon: what each of them has, counted as it comes and goes.
 *
 * Loop thread only. A user is there as long as somebody refers to it: a session, a connection, work in a queue.
 */
#pragma once

#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include <bsd/sys/tree.h>

#include "daemon/in_flight.h"
#include "daemon/settle.h"

struct nvmmd;

struct user {
	struct nvmmd *nvmmd;
	uid_t uid;
	unsigned refs;
	uint32_t sessions;            /* that have not ended, or have pools open still */
	uint32_t detached;            /* of these sessions, without a connection */
	uint64_t lane_bytes;          /* of lanes files that it made longer */
	uint32_t unknown;             /* connections that have not said Hello */
	uint32_t lingering;           /* closed ones, with replies that were not read */
	uint32_t in_flight;           /* descriptors in replies that are not known to be read */
	struct in_flights unread;     /* sockets that have any */
	struct settle_works settling; /* of its sessions */
	TAILQ_ENTRY(user) of_settler; /* if there are any */
	RB_ENTRY(user) of_uid;
};
RB_HEAD(users, user);

/* The user of a uid, made if need be; a reference. NULL: no memory. */
struct user *user_get(struct nvmmd *nvmmd, uid_t uid);
/* The same, but only if it is there; borrowed. */
struct user *user_find(struct nvmmd *nvmmd, uid_t uid);
/* How many a user may have, by the configuration. Where it says 0 and leaves it to the daemon, an ordinary user has
 * half of all, so that no single one has them all; root and the daemon's own user may. */
uint32_t clients_of_user(const struct nvmmd *nvmmd, uid_t uid);
uint32_t pools_of_user(const struct nvmmd *nvmmd, uid_t uid);
struct user *user_ref(struct user *user);
void user_unref(struct user *user);
