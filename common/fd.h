/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Descriptors that close themselves: `_auto_fd int fd = -1;`, handed over by fd_take().
 */
#pragma once

#include <errno.h>
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
