/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The listening socket: made here, or passed by systemd.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include <uv.h>

#include "daemon/connection.h"

struct closer;
struct nvmmd;

struct server {
	int fd;
	bool no_fds;    /* the kernel delivers no descriptors to what is accepted from now on */
	bool no_fds_soon; /* when what waits to be accepted was accepted */
	struct closer *closer;
	bool bound;     /* the socket file is ours to remove */
	ino_t inode;    /* of that file */
	bool watched;
	uv_poll_t poll;
	uv_timer_t pause; /* after running out of descriptors */
	struct connection_list connections;
	uint32_t n_connections;
	uint32_t n_unknown; /* that have not said Hello */
};

void server_init(struct server *server);
/* Closes a socket of user `uid`, in a thread if it may hold descriptors that were sent (not `no_fds`). */
void server_close_socket(struct server *server, int fd, uid_t uid, bool no_fds);
/* Binds or takes over the socket and listens. Logs what is wrong. */
int server_listen(struct nvmmd *nvmmd);
/* Begins to accept. */
int server_start(struct nvmmd *nvmmd);
/* Accepts no more; removes the socket file. Idempotent. */
void server_stop(struct nvmmd *nvmmd);
/* Reads no more requests; replies of those under way still go out. */
void server_pause_connections(struct nvmmd *nvmmd);
void server_close_connections(struct nvmmd *nvmmd);
/* Closes the socket, when the loop has let it go. */
void server_deinit(struct server *server);
