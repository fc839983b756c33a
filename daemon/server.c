/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The listening socket.
 *
 * Made here, it is bound under another name, given its owner and mode, and renamed over what a
 * killed daemon left: no moment with wrong rights, none without a socket. Whether somebody still
 * listens there is asked first, by connecting: such a socket is never taken away. Passed by
 * systemd, it is used as it is, and stays when the daemon stops.
 *
 * Connections that have not said Hello are limited like sessions, for all and for each user, with a
 * few more so that a client over a limit gets an answer that names it. Out of descriptors,
 * accepting pauses: polling on would spin.
 */
#include "daemon/server.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/closer.h"
#include "daemon/notify.h"
#include "daemon/nvmmd.h"

#define SERVER_BACKLOG 1024
#define ACCEPT_NS UINT64_C(500000) /* that a turn of the loop accepts connections */
#define ACCEPT_EXTRA 64u /* connections over the limits that still get an answer */
#define PAUSE_MS 200

void server_init(struct server *server)
{
	*server = (struct server){ .fd = -1 };
	LIST_INIT(&server->connections);
}

static int set_address(struct sockaddr_un *addr, const char *path)
{
	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(addr->sun_path))
		return -ENAMETOOLONG;
	strcpy(addr->sun_path, path);
	return 0;
}

/* 0: nobody listens there; -EADDRINUSE: somebody does, *pid says who; -ENOTSOCK: it is no socket.
 */
static int check_stale(const char *path, const struct sockaddr_un *addr, pid_t *pid)
{
	struct ucred cred = { .pid = 0 };
	socklen_t len = sizeof(cred);
	struct stat st;
	int fd, r = 0;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0) {
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
		r = -EADDRINUSE;
	} else if (errno != ECONNREFUSED && errno != ENOENT) {
		r = -EADDRINUSE; /* a full backlog, a socket of another type: somebody's */
	}
	*pid = cred.pid;
	close(fd);
	return r;
}

static int set_owner(const char *path, const struct config *config)
{
	struct group *group;

	if (config->socket.group && config->socket.group[0]) {
		group = getgrnam(config->socket.group);
		if (!group) {
			log_error("socket.group: there is no group '%s'", config->socket.group);
			return -EINVAL;
		}
		if (chown(path, (uid_t)-1, group->gr_gid) < 0) {
			log_error("socket.group: %s cannot be given to group '%s': %s", path,
				  config->socket.group, strerror(errno));
			return -EPERM;
		}
	}
	return chmod(path, config->socket.mode) < 0 ? -errno : 0;
}

/*
 * The last reference to a descriptor that a client sent must not be dropped on the loop: closing a socket
 * may wait as long as its sender asks (SO_LINGER). Kernels from 6.16 on do not deliver any. With others
 * a packet is looked at before it is read, and one with descriptors is never read (connection.c).
 */
static bool refuse_descriptors(int fd)
{
	int r = frame_pass_no_fds(fd);

	if (r < 0)
		log_debug("the kernel cannot refuse descriptors for the daemon: %s", strerror(-r));
	return r == 0;
}

void server_close_socket(struct server *server, int fd, uid_t uid, bool no_fds)
{
	if (no_fds)
		close(fd);
	else
		closer_close(server->closer, fd, uid);
}

/* Binds a fresh socket under a name beside the path and listens on it. */
static int bind_beside(int *ret, bool *ret_no_fds, const char *path,
		       char temp[static sizeof(struct sockaddr_un)], const struct config *config)
{
	struct sockaddr_un addr;
	const char *slash = strrchr(path, '/');
	mode_t mask;
	int fd, r;

	snprintf(temp, sizeof(addr), "%.*s.nvmmd.%d", slash ? (int)(slash - path) + 1 : 0, path,
		 (int)getpid());
	r = set_address(&addr, temp);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	unlink(temp);
	mask = umask(0177);
	r = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	umask(mask);
	*ret_no_fds = refuse_descriptors(fd);
	if (r == 0)
		r = set_owner(temp, config);
	if (r == 0 && listen(fd, SERVER_BACKLOG) < 0)
		r = -errno;
	if (r < 0) {
		unlink(temp);
		close(fd);
		return r;
	}
	*ret = fd;
	return 0;
}

static int server_bind(struct server *server, const struct config *config)
{
	char temp[sizeof(struct sockaddr_un)];
	const char *path = config->socket.path;
	struct sockaddr_un addr;
	pid_t pid = 0;
	struct stat st;
	int r;

	r = set_address(&addr, path);
	if (r == 0)
		r = check_stale(path, &addr, &pid);
	if (r == -EADDRINUSE)
		log_error("socket %s: process %d listens there; stop it, or set socket.path", path,
			  pid);
	if (r == 0)
		r = bind_beside(&server->fd, &server->no_fds, path, temp, config);
	if (r == 0 && rename(temp, path) < 0) {
		r = -errno;
		unlink(temp);
	}
	if (r < 0) {
		if (r != -EADDRINUSE)
			log_error("socket %s: cannot be made: %s", path, strerror(-r));
		return r;
	}
	server->bound = true;
	server->inode = stat(path, &st) == 0 ? st.st_ino : 0;
	return 0;
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
		return server_bind(server, &nvmmd->config);
	if (fd < 0) {
		log_error("the socket that was passed is not one listening SOCK_SEQPACKET Unix "
			  "socket");
		return fd;
	}
	check_passed(fd, nvmmd->config.socket.path);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	server->fd = fd;
	/* Connections that wait already may hold some: they are treated as by an older kernel. */
	server->no_fds_soon = refuse_descriptors(fd);
	return 0;
}

static bool too_many(struct nvmmd *nvmmd, uid_t uid)
{
	const struct user *user = user_find(nvmmd, uid);
	uint32_t mine = closer_of_user(nvmmd->server.closer, uid) + (user ? user->unknown + user->lingering : 0);

	return nvmmd->sessions.n + nvmmd->server.n_unknown + nvmmd->flights.n_lingering >=
		       nvmmd->config.limits.clients + ACCEPT_EXTRA ||
	       mine >= clients_of_user(nvmmd, uid) + ACCEPT_EXTRA;
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
				    nvmmd->server.no_fds);
	} else if (too_many(nvmmd, peer.uid)) {
		r = -EUSERS;
		client_log(nvmmd, CLIENT_COMPLAINT, peer.uid,
			   "client (pid %d, uid %u) is refused: too many connections",
			       peer.process.pid, peer.uid);
		server_close_socket(&nvmmd->server, fd, peer.uid, nvmmd->server.no_fds);
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

static void server_readable(uv_poll_t *poll, int status, int events)
{
	struct nvmmd *nvmmd = poll->data;

	uint64_t until = uv_hrtime() + ACCEPT_NS;

	for (bool more = status == 0; more; more = uv_hrtime() < until) {
		int fd = accept4(nvmmd->server.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			server_admit(nvmmd, fd);
			continue;
		}
		if (errno == ECONNABORTED || errno == EINTR)
			continue;
		/* Those that waited before the daemon forbade descriptors are accepted now. */
		if (errno == EAGAIN)
			nvmmd->server.no_fds |= nvmmd->server.no_fds_soon;
		if (errno != EAGAIN) {
			client_log(nvmmd, CLIENT_COMPLAINT, CLIENT_LOG_NOBODY,
				   "no connection can be accepted: %s", strerror(errno));
			server_pause(nvmmd);
		}
		return;
	}
}

static void server_go_on(uv_timer_t *timer)
{
	struct nvmmd *nvmmd = timer->data;

	if (!nvmmd->stopping)
		uv_poll_start(&nvmmd->server.poll, UV_READABLE, server_readable);
}

static void server_pause(struct nvmmd *nvmmd)
{
	uv_poll_stop(&nvmmd->server.poll);
	uv_timer_start(&nvmmd->server.pause, server_go_on, PAUSE_MS, 0);
}

int server_start(struct nvmmd *nvmmd)
{
	struct server *server = &nvmmd->server;
	int r;

	r = uv_poll_init(&nvmmd->loop, &server->poll, server->fd);
	if (r < 0)
		return r;
	uv_timer_init(&nvmmd->loop, &server->pause);
	server->watched = true;
	server->poll.data = server->pause.data = nvmmd;
	return uv_poll_start(&server->poll, UV_READABLE, server_readable);
}

void server_stop(struct nvmmd *nvmmd)
{
	struct server *server = &nvmmd->server;
	const char *path = nvmmd->config.socket.path;
	struct stat st;

	if (server->watched) {
		uv_close((uv_handle_t *)&server->poll, NULL);
		uv_close((uv_handle_t *)&server->pause, NULL);
		server->watched = false;
	}
	/* Not if another has put its own there meanwhile. */
	if (server->bound && lstat(path, &st) == 0 && st.st_ino == server->inode)
		unlink(path);
	server->bound = false;
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
	if (server->fd >= 0)
		server_close_socket(server, server->fd, (uid_t)-1, server->no_fds);
	server->fd = -1;
	closer_free(server->closer);
	server->closer = NULL;
}
