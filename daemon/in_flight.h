/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Descriptors in flight: sent with a reply, and not yet read by the client.
 *
 * The kernel counts them for the user whom the daemon runs as, and refuses to send any more when they are as many
 * as that user may have open (ETOOMANYREFS). So the daemon counts them itself, for each of its clients' users: who
 * leaves replies unread is made to wait before others feel it.
 *
 * Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include <uv.h>

struct connection;
struct nvmmd;
struct request;
struct user;

/* Of one socket, embedded in its connection. */
struct in_flight {
	struct user *user; /* borrowed from the connection */
	int fd;
	uint32_t n;        /* descriptors of the last reply, if it is not known to be read */
	TAILQ_ENTRY(in_flight) of_user; /* while n > 0 */
};
TAILQ_HEAD(in_flights, in_flight);

struct lingering;
struct kept_reply;

struct flights {
	uint32_t n;        /* descriptors, of all sockets */
	uint32_t max;      /* in sum */
	uint32_t user_max; /* of one user */
	uint32_t n_lingering;
	TAILQ_HEAD(, lingering) lingering; /* closed sockets that have something unread */
	TAILQ_HEAD(flight_requests, request) waiting; /* for their users to read */
	TAILQ_HEAD(kept_replies, kept_reply) kept; /* that the kernel did not take */
	uv_timer_t timer;                  /* active while one of the lists has something */
	bool ready;
};

/* `open_max`: how many descriptors the daemon's user may have open. */
void in_flight_limit(struct flights *flights, uint64_t open_max);
void in_flight_start(struct nvmmd *nvmmd);
/* Ends what waits unanswered, and closes what lingers. */
void in_flight_stop(struct nvmmd *nvmmd);

/* A reply with `n` descriptors was sent; all that was sent was read. */
void in_flight_sent(struct nvmmd *nvmmd, struct in_flight *flight, uint32_t n);
void in_flight_read(struct nvmmd *nvmmd, struct in_flight *flight);

/* Whether a request that is answered with descriptors may be begun now. If not, it is begun again later. */
bool in_flight_admit(struct request *request);

/* Closes the socket of a connection that is closed, when its peer has read all or is gone. `no_fds`: nobody can
 * have sent descriptors on it. It counts as a connection of its user until then. */
void in_flight_close(struct nvmmd *nvmmd, struct in_flight *flight, bool no_fds);

/* Keeps a reply that the kernel did not take, and sends it later. Copies everything. False: it cannot be kept. */
bool in_flight_keep(struct connection *connection, const void *data, size_t len, const int *fds, size_t n_fds);
/* Forgets it: the connection is closed. */
void in_flight_forget(struct connection *connection);
