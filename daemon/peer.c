/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Peers of Unix sockets.
 *
 * SO_PEERCRED has pid, uid and gid, and SO_PEERGROUPS the groups, of whoever connected, as they
 * were then. A pid alone is a number that may be given to another process, so the daemon holds a
 * pidfd: SO_PEERPIDFD gives the one of the very process that connected. Kernels before 6.5 have
 * only pidfd_open(), which takes whoever has the number now; a process that started after the
 * accept is certainly another, and is refused.
 *
 * The start time makes a process recognisable to a daemon that was restarted. It is read with the
 * pidfd open, and the pidfd is asked afterwards whether its process still runs: if so, the number
 * was its own throughout and the start time is its own too.
 */
#include "daemon/peer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/macro.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

#define PEER_GROUPS_MAX 65536u
#define FIELD_THREADS 20 /* of /proc/<pid>/stat, counted from 1 */
#define FIELD_START 22

/* Clock ticks since the boot, the unit of start times. */
static uint64_t now_ticks(void)
{
	struct timespec ts;
	long hz = sysconf(_SC_CLK_TCK);

	if (clock_gettime(CLOCK_BOOTTIME, &ts) < 0 || hz <= 0)
		return UINT64_MAX;
	return (uint64_t)ts.tv_sec * (uint64_t)hz +
	       (uint64_t)ts.tv_nsec / (UINT64_C(1000000000) / (uint64_t)hz);
}

static int pidfd_open_pid(pid_t pid)
{
	long fd = syscall(SYS_pidfd_open, pid, 0);

	if (fd >= 0)
		return (int)fd;
	/* The number is a thread's by now (-EINVAL, or -ENOENT), or one that no process ever has. */
	return errno == EINVAL || errno == ENOENT ? -ESRCH : -errno;
}

bool process_ended(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

/* Reads a file of a thread's directory in /proc; false: it cannot be read. */
static bool read_task(char *buf, size_t size, int task, const char *name)
{
	ssize_t n = -1;
	int fd = openat(task, name, O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		n = read(fd, buf, size - 1);
		close(fd);
	}
	buf[MAX(n, (ssize_t)0)] = '\0';
	return n > 0;
}

/* Whether a line of a status file, signals pending, has SIGKILL. */
static bool kill_pending(const char *status, const char *line)
{
	const char *p = strstr(status, line);

	return p && (strtoull(p + strlen(line), NULL, 16) >> (SIGKILL - 1) & 1);
}

/* Of the kernel's task flags. */
#define PF_EXITING 0x4u
#define PF_SIGNALED 0x400u /* it has taken a signal that ends it; it may be dumped yet, before it exits */

/* Whether a thread exits, or is about to; true if it is gone. */
static bool task_dying(int task)
{
	char buf[4096], *p;
	unsigned flags;

	/* In this order: the signal is taken off before the flag is set, a few instructions later. A thread
	 * that is caught between them and kept there, while we read both files, is taken for alive. */
	if (read_task(buf, sizeof(buf), task, "status") &&
	    (kill_pending(buf, "\nSigPnd:") || kill_pending(buf, "\nShdPnd:")))
		return true;
	if (!read_task(buf, sizeof(buf), task, "stat"))
		return true;
	/* Behind the name: state, ppid, pgrp, session, tty, tpgid, flags. */
	p = strrchr(buf, ')');
	return p && sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1 &&
	       (flags & (PF_EXITING | PF_SIGNALED));
}

bool process_dying(pid_t pid)
{
	const struct dirent *entry;
	bool dying = true;
	char path[64];
	DIR *dir;
	int task;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	/* Who cannot be looked at for want of room may be. */
	if (!dir)
		return errno == EMFILE || errno == ENFILE || errno == ENOMEM;
	/* One thread that lives is enough: the first may have left the others. */
	while (dying && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		task = openat(dirfd(dir), entry->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC);
		dying = task < 0 || task_dying(task);
		if (task >= 0)
			close(task);
	}
	closedir(dir);
	return dying;
}

/* A number of /proc/<pid>/stat, by its field there. */
static int parse_field(uint64_t *ret, const char *stat, int number)
{
	/* The command name stands in parentheses and may itself hold some: the last one counts. */
	const char *p = strrchr(stat, ')');
	unsigned long long value;

	if (!p)
		return -EBADMSG;
	/* What follows the parenthesis is field 3. */
	for (int field = 2; field < number; field++) {
		p = strchr(p + 1, ' ');
		if (!p)
			return -EBADMSG;
	}
	if (sscanf(p, " %llu", &value) != 1)
		return -EBADMSG;
	*ret = value;
	return 0;
}

int process_parse_start(uint64_t *ret, const char *stat)
{
	return parse_field(ret, stat, FIELD_START);
}

static int read_field(uint64_t *ret, pid_t pid, int number)
{
	char path[64], buf[1024];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT && kill(pid, 0) == 0 ? -EACCES :
		       errno == ENOENT			    ? -ESRCH :
							      -errno;
	len = read(fd, buf, sizeof(buf) - 1);
	if (len < 0)
		len = -errno;
	close(fd);
	if (len <= 0)
		return len < 0 ? (int)len : -ESRCH;
	buf[len] = '\0';
	return parse_field(ret, buf, number);
}

int process_start(uint64_t *ret, pid_t pid)
{
	return read_field(ret, pid, FIELD_START);
}

int process_threads(uint32_t *ret, pid_t pid)
{
	uint64_t n;
	int r = read_field(&n, pid, FIELD_THREADS);

	if (r == 0)
		*ret = (uint32_t)MIN(n, (uint64_t)UINT32_MAX);
	return r;
}

int process_open(int *ret_pidfd, struct process_id id)
{
	uint64_t start;
	int fd, r;

	fd = pidfd_open_pid(id.pid);
	if (fd < 0)
		return fd;
	r = process_start(&start, id.pid);
	if (r == 0 && (start != id.start || process_ended(fd)))
		r = -ESRCH;
	if (r < 0) {
		close(fd);
		return r;
	}
	*ret_pidfd = fd;
	return 0;
}

static int peer_read_groups(struct peer *peer, int sock)
{
	socklen_t len = 64 * sizeof(gid_t);

	for (;;) {
		gid_t *groups = realloc(peer->groups, MAX(len, (socklen_t)sizeof(gid_t)));

		if (!groups)
			return -ENOMEM;
		peer->groups = groups;
		if (getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, groups, &len) == 0)
			break;
		if (errno == ERANGE && len <= PEER_GROUPS_MAX * sizeof(gid_t))
			continue;
		/* Without supplementary groups there is still the primary one. */
		if (errno == ENODATA || errno == ENOPROTOOPT)
			len = 0;
		else
			return -errno;
		break;
	}
	peer->n_groups = len / sizeof(gid_t);
	return 0;
}

/* Opens the pidfd and finds the start time; see the top of this file. */
static int peer_identify(struct peer *peer, int sock, uint64_t accepted)
{
	socklen_t len = sizeof(peer->pidfd);
	bool by_number = false;
	int r;

	if (getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &peer->pidfd, &len) < 0) {
		peer->pidfd = -1;
		if (errno != ENOPROTOOPT)
			return errno == EINVAL ? -ESRCH : -errno;
		r = pidfd_open_pid(peer->process.pid);
		if (r < 0)
			return r;
		peer->pidfd = r;
		by_number = true;
	}
	r = process_start(&peer->process.start, peer->process.pid);
	if (r < 0)
		return r;
	if (process_ended(peer->pidfd) || (by_number && peer->process.start > accepted))
		return -ESRCH;
	return 0;
}

int peer_init(struct peer *peer, int sock, const char **why)
{
	uint64_t accepted = now_ticks();
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int r;

	*peer = (struct peer){ .pidfd = -1 };
	*why = "its credentials cannot be read";
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	*why = "it is in another pid namespace, and nothing would tell when it ends";
	if (cred.pid <= 0)
		return -ESRCH;
	peer->process.pid = cred.pid;
	peer->uid = cred.uid;
	peer->gid = cred.gid;
	*why = "its groups cannot be read";
	r = peer_read_groups(peer, sock);
	if (r == 0) {
		r = peer_identify(peer, sock, accepted);
		*why = r == -EACCES ? "/proc hides it (hidepid=, ProtectProc=): let the daemon see "
				      "all processes" :
				      "its process is gone";
	}
	if (r < 0)
		peer_deinit(peer);
	return r;
}

void peer_deinit(struct peer *peer)
{
	if (peer->pidfd >= 0)
		close(peer->pidfd);
	free(peer->groups);
	*peer = (struct peer){ .pidfd = -1 };
}

bool peer_in_group(const struct peer *peer, gid_t gid)
{
	if (gid == (gid_t)-1)
		return false;
	if (peer->gid == gid)
		return true;
	for (size_t i = 0; i < peer->n_groups; i++)
		if (peer->groups[i] == gid)
			return true;
	return false;
}
