/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Connections: a client's socket, from accept to close.
 */
#pragma once

#include <stdbool.h>
#include <sys/queue.h>

#include <uv.h>

#include "common/macro.h"
#include "daemon/fair.h"
#include "daemon/in_flight.h"
#include "daemon/peer.h"

struct nvmmd;
struct request;
struct session;

struct connection {
	struct nvmmd *nvmmd;
	unsigned refs;
	int fd;
	struct user *user;       /* of whoever connected; a reference */
	struct in_flight flight; /* descriptors in replies that it has not read */
	struct kept_reply *kept; /* a reply that the kernel did not take yet */
	bool no_fds;             /* no packet of it can carry descriptors */
	struct peer peer;        /* before Hello; then the session has it */
	struct session *session; /* borrowed; NULL before Hello */
	uv_poll_t poll;
	uv_timer_t hello; /* ends a connection that says nothing */
	struct fair_item item; /* to read what is there, when it is its user's turn */
	bool known;       /* its Hello was accepted */
	bool busy;        /* a request is under way: nothing is read */
	bool closing;     /* after the reply under way */
	bool closed;
	LIST_ENTRY(connection) of_server;
};
LIST_HEAD(connection_list, connection);

#define CONNECTION_HELLO_MS 5000

/* Takes `fd`, which is closed on failure too, and *peer. */
int connection_new(struct connection **ret, struct nvmmd *nvmmd, int fd, struct peer *peer);
struct connection *connection_ref(struct connection *connection);
void connection_unref(struct connection *connection);
DEFINE_AUTO(struct connection, connection_unref)

/* Its Hello was accepted: it is waited for no longer. */
void connection_known(struct connection *connection);

/* Closes it at once; its session, if any, is detached. */
void connection_close(struct connection *connection);

/* The same for what the client did wrong: counted, and logged with who it is. */
void connection_reject(struct connection *connection, const char *fmt, ...) _printf(2, 3);

/* Reads nothing until the reply is sent. */
void connection_pause(struct connection *connection);

/* Sends the reply of a request that is over, and reads on. */
void connection_reply(struct connection *connection, struct request *request);

/* Sends bytes again that were a reply before. */
void connection_send(struct connection *connection, const void *data, size_t len, const int *fds,
		     size_t n_fds);

/* Whose requests they are: the session's peer, or before Hello the connection's. */
const struct peer *connection_peer(const struct connection *connection);
