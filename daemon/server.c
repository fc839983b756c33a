/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The listening socket.
 *
 * Made here (daemon/listener.h), its file is watched: when it is removed while the daemon serves, another socket is made
 * in its place, and what waits on the old one is accepted first. Passed by systemd, it is used as it is, and stays when
 * the daemon stops; its file is systemd's.
 *
 * Connections that have not said Hello are limited like sessions, for all and for each user, with a
 * few more so that a client over a limit gets an answer that names it. Out of descriptors,
 * accepting pauses: polling on would spin.
 */
#include "daemon/server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/closer.h"
#include "daemon/notify.h"
#include "daemon/nvmmd.h"

#define ACCEPT_NS UINT64_C(200000) /* that a turn of the loop accepts connections */
#define ACCEPT_EXTRA 64u /* connections over the limits that still get an answer */
#define PAUSE_MS 200
#define LOOK_MS 50u    /* after something happened beside the socket's file */
#define AGAIN_MS 1000u /* between tries to make it, and looks if nothing tells of changes */

void server_init(struct server *server)
{
	*server = (struct server){ .listener = { .fd = -1 }, .old = { .fd = -1 } };
	LIST_INIT(&server->connections);
}

void server_close_socket(struct server *server, int fd, uid_t uid, bool no_fds)
{
	if (no_fds)
		close(fd);
	else
		closer_close(server->closer, fd, uid);
}

/* Programs look where the configuration says: it and the socket unit should agree. */
static void check_passed(int fd, const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(addr) - 1;

	if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0 || strcmp(addr.sun_path, path) == 0)
		return;
	log_warning("the socket that was passed is %s, but socket.path says %s", addr.sun_path,
		    path);
}

int server_listen(struct nvmmd *nvmmd)
{
	struct server *server = &nvmmd->server;
	int fd = notify_socket(), r = closer_new(&server->closer);

	if (r < 0)
		return r;
	if (fd == -ENOENT)
		return listener_bind(&server->listener, &nvmmd->config);
	if (fd < 0) {
		log_error("the socket that was passed is not one listening SOCK_SEQPACKET Unix "
			  "socket");
		return fd;
	}
	check_passed(fd, nvmmd->config.socket.path);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	server->listener.fd = fd;
	/* Connections that wait already may hold some: they are treated as by an older kernel. */
	server->no_fds_soon = listener_refuse_descriptors(fd);
	return 0;
}

/*
 * All that a user has counts, sessions and connections that are to become one or were, so that no single one can have
 * all places. A session without a connection has a place for the one that it will be attached to.
 */
static bool too_many(struct nvmmd *nvmmd, uid_t uid)
{
	const struct user *user = user_find(nvmmd, uid);
	uint32_t mine = closer_of_user(nvmmd->server.closer, uid), mine_may = clients_of_user(nvmmd, uid) + ACCEPT_EXTRA;
	uint32_t all = nvmmd->sessions.n + nvmmd->server.n_unknown + nvmmd->flights.n_lingering;

	if (user) {
		mine += user->sessions + user->unknown + user->lingering;
		mine_may += user->detached;
	}
	return mine >= mine_may || all >= nvmmd->config.limits.clients + ACCEPT_EXTRA + nvmmd->sessions.detached;
}

static void server_admit(struct nvmmd *nvmmd, int fd)
{
	struct connection *connection;
	const char *why;
	struct peer peer;
	int r;

	nvmmd->counters.connections++;
	r = peer_init(&peer, fd, &why);
	if (r < 0) {
		/* A client that connected and died is no event. */
		if (r != -ESRCH)
			client_log(nvmmd, CLIENT_COMPLAINT, CLIENT_LOG_NOBODY,
				   "a client is refused: %s: %s", why, strerror(-r));
		server_close_socket(&nvmmd->server, fd, (uid_t)-1,
				    nvmmd->server.listener.no_fds);
	} else if (too_many(nvmmd, peer.uid)) {
		r = -EUSERS;
		client_log(nvmmd, CLIENT_COMPLAINT, peer.uid,
			   "client (pid %d, uid %u) is refused: too many connections",
			       peer.process.pid, peer.uid);
		server_close_socket(&nvmmd->server, fd, peer.uid, nvmmd->server.listener.no_fds);
		peer_deinit(&peer);
	} else {
		identity_strip_groups(&nvmmd->identity, &peer);
		r = connection_new(&connection, nvmmd, fd, &peer);
		if (r < 0)
			peer_deinit(&peer);
	}
	if (r < 0)
		nvmmd->counters.connections_refused++;
}

static void server_pause(struct nvmmd *nvmmd);

/* Accepts from a socket, for ACCEPT_NS: 1: there may be more; 0: nobody waits; -errno: none can be accepted now. */
static int accept_some(struct nvmmd *nvmmd, int listener)
{
	uint64_t until = uv_hrtime() + ACCEPT_NS;

	do {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0)
			server_admit(nvmmd, fd);
		else if (errno == EAGAIN)
			return 0;
		else if (errno != ECONNABORTED && errno != EINTR)
			return -errno;
	} while (uv_hrtime() < until);
	return 1;
}

static void server_readable(uv_poll_t *poll, int status, int events)
{
	struct nvmmd *nvmmd = poll->data;
	int r = status == 0 ? accept_some(nvmmd, nvmmd->server.listener.fd) : 1;

	/* Those that waited before the daemon forbade descriptors are accepted now. */
	if (r == 0)
		nvmmd->server.listener.no_fds |= nvmmd->server.no_fds_soon;
	if (r < 0) {
		client_log(nvmmd, CLIENT_COMPLAINT, CLIENT_LOG_NOBODY,
			   "no connection can be accepted: %s", strerror(-r));
		server_pause(nvmmd);
	}
}

static void server_go_on(uv_timer_t *timer)
{
	struct nvmmd *nvmmd = timer->data;

	if (!nvmmd->stopping)
		uv_poll_start(nvmmd->server.poll, UV_READABLE, server_readable);
}

static void server_pause(struct nvmmd *nvmmd)
{
	uv_poll_stop(nvmmd->server.poll);
	uv_timer_start(&nvmmd->server.pause, server_go_on, PAUSE_MS, 0);
}

static void look_at_file(uv_timer_t *timer);

/* The socket's file */

static void poll_free(uv_handle_t *handle)
{
	free(handle);
}

static int watch_socket(struct nvmmd *nvmmd)
{
	struct server *server = &nvmmd->server;
	int r;

	server->poll = malloc(sizeof(*server->poll));
	if (!server->poll)
		return -ENOMEM;
	r = uv_poll_init(&nvmmd->loop, server->poll, server->listener.fd);
	if (r < 0) {
		free(take(server->poll));
		return r;
	}
	server->poll->data = nvmmd;
	r = uv_poll_start(server->poll, UV_READABLE, server_readable);
	if (r < 0)
		uv_close((uv_handle_t *)take(server->poll), poll_free);
	return r;
}

/* A socket that was replaced: libuv watches it no more. */
static void old_closed(uv_handle_t *handle)
{
	struct nvmmd *nvmmd = handle->data;

	server_close_socket(&nvmmd->server, nvmmd->server.old.fd, (uid_t)-1, nvmmd->server.old.no_fds);
	nvmmd->server.old.fd = -1;
	free(handle);
}

/* Who waits on a socket that was replaced is accepted; then it is closed. */
static void old_readable(uv_poll_t *poll, int status, int events)
{
	struct nvmmd *nvmmd = poll->data;
	struct server *server = &nvmmd->server;
	int r = status == 0 ? accept_some(nvmmd, server->old.fd) : 0;

	if (r == 0)
		uv_close((uv_handle_t *)take(server->old_poll), old_closed);
	if (r >= 0)
		return;
	uv_poll_stop(poll);
	uv_timer_start(&server->look, look_at_file, AGAIN_MS, 0);
}

static void accept_old(struct nvmmd *nvmmd)
{
	if (nvmmd->server.old_poll)
		uv_poll_start(nvmmd->server.old_poll, UV_READABLE, old_readable);
}

/* Puts a new socket in the place of the one whose file is gone. Nobody comes to the old one after those that wait. */
static int replace_socket(struct nvmmd *nvmmd)
{
	struct server *server = &nvmmd->server;
	struct listener new, old = server->listener;
	uv_poll_t *old_poll = server->poll;
	int r;

	if (server->old.fd >= 0)
		return -EAGAIN; /* the one before is being closed */
	r = listener_bind(&new, &nvmmd->config);
	if (r < 0)
		return r;
	server->listener = new;
	r = watch_socket(nvmmd);
	if (r < 0) {
		listener_remove(&server->listener, nvmmd->config.socket.path);
		close(server->listener.fd);
		server->listener = old;
		server->poll = old_poll;
		return r;
	}
	uv_timer_stop(&server->pause);
	server->old = old;
	server->old_poll = old_poll;
	uv_poll_stop(old_poll);
	accept_old(nvmmd);
	/* Its last ones may have come already: a poll tells of none. */
	old_readable(old_poll, 0, UV_READABLE);
	return 0;
}

static void on_event(uv_fs_event_t *event, const char *name, int events, int status);

/* The directory of the socket's file. */
static void socket_dir(char ret[sizeof(struct sockaddr_un)], const struct nvmmd *nvmmd)
{
	const char *path = nvmmd->config.socket.path, *slash = strrchr(path, '/');

	snprintf(ret, sizeof(struct sockaddr_un), "%.*s", slash && slash > path ? (int)(slash - path) : 1,
		 slash ? path : ".");
}

static void watch_directory(struct nvmmd *nvmmd)
{
	struct server *server = &nvmmd->server;
	char dir[sizeof(struct sockaddr_un)];

	socket_dir(dir, nvmmd);
	uv_fs_event_stop(&server->event);
	server->events = uv_fs_event_start(&server->event, on_event, dir, 0) == 0;
}

static void look_at_file(uv_timer_t *timer)
{
	server_look(timer->data);
}

/* The file is gone: makes another one. False: to be tried again. */
static bool make_anew(struct nvmmd *nvmmd)
{
	struct server *server = &nvmmd->server;
	const char *path = nvmmd->config.socket.path;
	char dir[sizeof(struct sockaddr_un)];

	socket_dir(dir, nvmmd);
	if (access(dir, F_OK) < 0) {
		if (!server->homeless)
			log_warning("socket %s: its directory is gone; it is made when there is one again", path);
		server->homeless = true;
		return false;
	}
	if (replace_socket(nvmmd) < 0)
		return false;
	server->homeless = false;
	log_warning("socket %s was removed: it is made anew", path);
	watch_directory(nvmmd); /* it may be another directory by now */
	return true;
}

void server_look(struct nvmmd *nvmmd)
{
	struct server *server = &nvmmd->server;
	const char *path = nvmmd->config.socket.path;
	enum listener_file file;
	bool again = !server->events;
	pid_t pid;

	if (!server->watched || nvmmd->stopping || !server->listener.bound)
		return;
	accept_old(nvmmd);
	file = listener_look(&server->listener, path, &pid);
	if (file == LISTENER_GONE) {
		again |= !make_anew(nvmmd);
	} else if (file == LISTENER_OTHERS && !server->others) {
		if (pid > 0)
			log_warning("socket %s: process %d listens there now, and gets the new clients", path,
				    pid);
		else
			log_warning("socket %s: something else is there now: no new client reaches the daemon",
				    path);
	}
	server->others = file == LISTENER_OTHERS;
	/* Another's may be left behind without an event in the directory. */
	if (again || server->others)
		uv_timer_start(&server->look, look_at_file, AGAIN_MS, 0);
}

static void on_event(uv_fs_event_t *event, const char *name, int events, int status)
{
	struct nvmmd *nvmmd = event->data;
	const char *path = nvmmd->config.socket.path, *slash = strrchr(path, '/');

	/* Of another file; unless the directory itself was moved away, which has another name. */
	if (name && slash && strcmp(name, slash + 1) != 0 && access(path, F_OK) == 0)
		return;
	if (!uv_is_active((uv_handle_t *)&nvmmd->server.look))
		uv_timer_start(&nvmmd->server.look, look_at_file, LOOK_MS, 0);
}

int server_start(struct nvmmd *nvmmd)
{
	struct server *server = &nvmmd->server;
	int r = watch_socket(nvmmd);

	if (r < 0)
		return r;
	uv_timer_init(&nvmmd->loop, &server->pause);
	uv_timer_init(&nvmmd->loop, &server->look);
	uv_fs_event_init(&nvmmd->loop, &server->event);
	server->watched = true;
	server->pause.data = server->look.data = server->event.data = nvmmd;
	if (server->listener.bound) {
		watch_directory(nvmmd);
		server_look(nvmmd);
	}
	return 0;
}

void server_stop(struct nvmmd *nvmmd)
{
	struct server *server = &nvmmd->server;

	if (server->watched) {
		uv_close((uv_handle_t *)server->poll, poll_free);
		if (server->old_poll)
			uv_close((uv_handle_t *)take(server->old_poll), old_closed);
		uv_close((uv_handle_t *)&server->pause, NULL);
		uv_close((uv_handle_t *)&server->look, NULL);
		uv_close((uv_handle_t *)&server->event, NULL);
		server->watched = false;
	}
	listener_remove(&server->listener, nvmmd->config.socket.path);
}

void server_pause_connections(struct nvmmd *nvmmd)
{
	struct connection *connection;

	LIST_FOREACH (connection, &nvmmd->server.connections, of_server)
		connection_pause(connection);
}

void server_close_connections(struct nvmmd *nvmmd)
{
	while (!LIST_EMPTY(&nvmmd->server.connections))
		connection_close(LIST_FIRST(&nvmmd->server.connections));
}

void server_deinit(struct server *server)
{
	/* Connections that were never accepted go with it, and what was sent on them. */
	if (server->listener.fd >= 0)
		server_close_socket(server, server->listener.fd, (uid_t)-1, server->listener.no_fds);
	server->listener.fd = -1;
	closer_free(server->closer);
	server->closer = NULL;
}
