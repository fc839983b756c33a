/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lock files.
 *
 * flock(2) goes with the open file: a killed daemon leaves none, so nothing is ever stale. The pid
 * in the file is for the message alone. The file is never removed: whoever removed it could take
 * away the one that another just locked.
 */
#include "daemon/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "media/store.h"

static pid_t read_holder(int fd)
{
	char buf[32];
	ssize_t n = pread(fd, buf, sizeof(buf) - 1, 0);

	if (n <= 0)
		return 0;
	buf[n] = '\0';
	return (pid_t)strtol(buf, NULL, 10);
}

static int write_holder(int fd)
{
	char buf[32];
	int n = snprintf(buf, sizeof(buf), "%d\n", (int)getpid());

	media_point_call();
	if (ftruncate(fd, 0) < 0 || pwrite(fd, buf, (size_t)n, 0) < 0)
		return -errno;
	return 0;
}

int lock_take(int *ret, int dirfd, pid_t *holder)
{
	int fd, r = 0;

	media_point_call();
	fd = openat(dirfd, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		r = errno == EWOULDBLOCK ? -EBUSY : -errno;
		*holder = r == -EBUSY ? read_holder(fd) : 0;
	} else {
		r = write_holder(fd);
	}
	if (r < 0) {
		close(fd);
		return r;
	}
	*ret = fd;
	return 0;
}
