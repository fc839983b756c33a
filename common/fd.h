/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Descriptors that close themselves: `_auto_fd int fd = -1;`, handed over by fd_take().
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/macro.h"

/* Closes *fd if it is one; errno stays, as cleanups run between a failure and its report. */
static inline void fd_close_p(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

#define _auto_fd _cleanup(fd_close_p)

/* Hands over the descriptor and leaves -1: take() of macro.h would leave descriptor 0. */
static inline int fd_take(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

/* Opens /dev/null with `flags` on those of the descriptors 0 to 2 that are closed. First of all in a
 * program, before anything else opens one. 0 or -errno. */
int fd_fill_standard(int flags);

/* Moves a descriptor that is 0, 1 or 2 above them, close-on-exec; others stay. Takes `fd`. Returns the
 * descriptor, or -1 with errno: then `fd` is closed. */
static inline int fd_lift(int fd)
{
	int lifted;

	if (fd < 0 || fd > STDERR_FILENO)
		return fd;
	lifted = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	fd_close_p(&fd);
	return lifted;
}
