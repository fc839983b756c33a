/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The socket's file.
 *
 * It is bound under another name, given its owner and mode, and renamed over what a killed daemon left: no moment with
 * wrong rights, none without a socket. Whether somebody still listens there is asked first, by connecting: such a socket
 * is never taken away.
 */
#include "daemon/listener.h"

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

#include "common/log.h"
#include "daemon/config.h"
#include "proto/frame.h"

#define BACKLOG 1024

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
bool listener_refuse_descriptors(int fd)
{
	int r = frame_pass_no_fds(fd);

	if (r < 0)
		log_debug("the kernel cannot refuse descriptors for the daemon: %s", strerror(-r));
	return r == 0;
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
	*ret_no_fds = listener_refuse_descriptors(fd);
	if (r == 0)
		r = set_owner(temp, config);
	if (r == 0 && listen(fd, BACKLOG) < 0)
		r = -errno;
	if (r < 0) {
		unlink(temp);
		close(fd);
		return r;
	}
	*ret = fd;
	return 0;
}

/* Where nothing was, nothing is replaced: another may have put its own there since. */
static int put_there(const char *temp, const char *path, bool stale)
{
	if (!stale && renameat2(AT_FDCWD, temp, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
		return 0;
	if (!stale && errno != EINVAL && errno != ENOSYS) /* not every file system can */
		return -errno;
	return rename(temp, path) < 0 ? -errno : 0;
}

int listener_bind(struct listener *ret, const struct config *config)
{
	char temp[sizeof(struct sockaddr_un)];
	const char *path = config->socket.path;
	struct sockaddr_un addr;
	pid_t pid = 0;
	struct stat st;
	bool stale;
	int r;

	*ret = (struct listener){ .fd = -1 };
	stale = lstat(path, &st) == 0;
	r = set_address(&addr, path);
	if (r == 0)
		r = check_stale(path, &addr, &pid);
	if (r == -EADDRINUSE)
		log_error("socket %s: process %d listens there; stop it, or set socket.path", path,
			  pid);
	if (r == 0)
		r = bind_beside(&ret->fd, &ret->no_fds, path, temp, config);
	if (r == 0) {
		r = put_there(temp, path, stale);
		if (r < 0) {
			unlink(temp);
			close(ret->fd);
			ret->fd = -1;
		}
	}
	if (r < 0) {
		if (r != -EADDRINUSE)
			log_error("socket %s: cannot be made: %s", path, strerror(-r));
		return r;
	}
	ret->bound = true;
	if (stat(path, &st) == 0) {
		ret->dev = st.st_dev;
		ret->inode = st.st_ino;
	}
	return 0;
}

enum listener_file listener_look(const struct listener *listener, const char *path, pid_t *pid)
{
	struct sockaddr_un addr;
	struct stat st;

	*pid = 0;
	if (!listener->bound)
		return LISTENER_OURS;
	if (lstat(path, &st) < 0)
		return errno == ENOENT || errno == ENOTDIR ? LISTENER_GONE : LISTENER_OTHERS;
	if (st.st_ino == listener->inode && st.st_dev == listener->dev)
		return LISTENER_OURS;
	return set_address(&addr, path) == 0 && check_stale(path, &addr, pid) == 0 ? LISTENER_GONE : LISTENER_OTHERS;
}

void listener_remove(struct listener *listener, const char *path)
{
	struct stat st;

	/* Not if another has put its own there meanwhile. */
	if (listener->bound && lstat(path, &st) == 0 && st.st_ino == listener->inode && st.st_dev == listener->dev)
		unlink(path);
	listener->bound = false;
}
