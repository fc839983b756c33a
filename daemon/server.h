/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The listening socket: made here, or passed by systemd.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include <uv.h>

#include "daemon/connection.h"
#include "daemon/listener.h"

struct closer;
struct nvmmd;

struct server {
	struct listener listener;
	bool no_fds_soon; /* the kernel delivers no descriptors when what waits to be accepted was accepted */
	struct closer *closer;
	bool watched;
	uv_poll_t *poll;
	uv_timer_t pause; /* after running out of descriptors */
	/* The socket's file, if it is ours: */
	uv_fs_event_t event; /* of its directory */
	bool events;         /* it tells of changes */
	uv_timer_t look;     /* soon after one; or now and then */
	bool others;         /* it is another's now */
	bool homeless;       /* it, and its directory, are gone: that was said */
	struct listener old; /* that was replaced, while somebody waits on it or libuv lets it go; else fd -1 */
	uv_poll_t *old_poll;
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
/* Looks whether the socket's file is there, and makes it anew if not. */
void server_look(struct nvmmd *nvmmd);
/* Accepts no more; removes the socket file. Idempotent. */
void server_stop(struct nvmmd *nvmmd);
/* Reads no more requests; replies of those under way still go out. */
void server_pause_connections(struct nvmmd *nvmmd);
void server_close_connections(struct nvmmd *nvmmd);
/* Closes the socket, when the loop has let it go. */
void server_deinit(struct server *server);
