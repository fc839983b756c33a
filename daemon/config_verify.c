/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A start looks before it makes anything: one that is refused leaves nothing behind, and --check-config
 * refuses the same. What only shows when it is done (a lock that is held, a file system without room) is told by
 * the start alone.
 */
#include "daemon/config_verify.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/macro.h"
#include "daemon/config.h"
#include "daemon/listener.h"

#define SOCKET_PATH_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 1)

static int _printf(2, 3) refuse(char **error, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vasprintf(error, fmt, args);
	va_end(args);
	if (n >= 0)
		return -EINVAL;
	*error = NULL;
	return -ENOMEM;
}

static int verify_part(const char *part, uint32_t value, const char *whole, uint32_t all,
		       char **error)
{
	if (value <= all)
		return 0;
	return refuse(error, "limits.%s: %u is more than limits.%s, %u", part, value, whole, all);
}

int config_verify(const struct config *config, char **error)
{
	int r = verify_part("clients_per_user", config->limits.clients_per_user, "clients",
			    config->limits.clients, error);

	if (r == 0)
		r = verify_part("pools_per_user", config->limits.pools_per_user, "pools",
				config->limits.pools, error);
	if (r == 0 && config->shelves.capacity > 0 && config->limits.bytes_per_user > config->shelves.capacity)
		r = refuse(error, "limits.bytes_per_user: %llu is more than shelves.capacity, %llu",
			   (unsigned long long)config->limits.bytes_per_user,
			   (unsigned long long)config->shelves.capacity);
	return r;
}

static int verify_group(const char *key, const char *name, char **error)
{
	if (!name || !name[0] || getgrnam(name))
		return 0;
	return refuse(error, "%s: there is no group '%s'", key, name);
}

/* What a path without its last part is; "." or "/" where nothing is left. */
static void parent_of(char ret[PATH_MAX], const char *path)
{
	size_t len = strlen(path);
	const char *slash;

	while (len > 1 && path[len - 1] == '/')
		len--;
	slash = memrchr(path, '/', len);
	if (!slash)
		snprintf(ret, PATH_MAX, ".");
	else
		snprintf(ret, PATH_MAX, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

static bool may_write(const char *dir)
{
	return faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS) == 0;
}

/* A directory that is there, or can be made: its last part alone may be missing. */
static int verify_directory(const char *key, const char *path, struct stat *st, char **error)
{
	char parent[PATH_MAX];

	*st = (struct stat){ 0 };
	if (stat(path, st) == 0 && !S_ISDIR(st->st_mode))
		return refuse(error, "%s: %s is no directory", key, path);
	if (st->st_ino != 0)
		return may_write(path) ? 0 : refuse(error, "%s: %s: this user may not write there", key, path);
	if (errno != ENOENT)
		return refuse(error, "%s: %s: %s", key, path, strerror(errno));
	parent_of(parent, path);
	if (may_write(parent))
		return 0;
	return refuse(error, "%s: %s is not there, and cannot be made in %s: %s", key, path, parent,
		      strerror(errno));
}

static int verify_socket(const struct config *config, char **error)
{
	const char *path = config->socket.path, *slash;
	char parent[PATH_MAX];
	struct stat st;
	size_t dir;

	if (strlen(path) > SOCKET_PATH_MAX)
		return refuse(error, "socket.path: it has %zu bytes, and the path of a socket at most %zu",
			      strlen(path), SOCKET_PATH_MAX);
	if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
		return refuse(error, "socket.path: %s is there and is no socket", path);
	/* It is bound beside its path (listener.c). */
	slash = strrchr(path, '/');
	dir = slash ? (size_t)(slash - path) + 1 : 0;
	if (dir + LISTENER_BESIDE_MAX > SOCKET_PATH_MAX)
		return refuse(error, "socket.path: its directory has %zu bytes, and may have %zu", dir,
			      SOCKET_PATH_MAX - LISTENER_BESIDE_MAX);
	parent_of(parent, path);
	/* The runtime directory is made. */
	if (strcmp(parent, config->runtime) == 0 || may_write(parent))
		return 0;
	return refuse(error, "socket.path: no socket can be made in %s: %s", parent, strerror(errno));
}

static bool socket_passed(void)
{
	const char *pid = getenv("LISTEN_PID");

	return getenv("LISTEN_FDS") && pid && strtol(pid, NULL, 10) == (long)getpid();
}

int config_verify_start(const struct config *config, char **error)
{
	struct stat base, runtime;
	int r = config_verify(config, error);

	if (r == 0)
		r = verify_group("socket.group", config->socket.group, error);
	if (r == 0)
		r = verify_group("socket.admin_group", config->socket.admin_group, error);
	if (r == 0)
		r = verify_directory("shelves.base", config->shelves.base, &base, error);
	if (r == 0)
		r = verify_directory("runtime", config->runtime, &runtime, error);
	if (r == 0 && (strcmp(config->shelves.base, config->runtime) == 0 ||
		       (base.st_ino != 0 && base.st_ino == runtime.st_ino && base.st_dev == runtime.st_dev)))
		r = refuse(error, "runtime: it is the same directory as shelves.base: each needs one of its own");
	/* One that systemd passes is there already. */
	return r == 0 && !socket_passed() ? verify_socket(config, error) : r;
}
