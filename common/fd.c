/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Descriptors 0 to 2 belong to the program's input, output and messages. open(2) gives the lowest free
 * number, so in a program that was started with one of them closed, a socket or a shelf becomes its
 * standard output, and what the program prints goes there.
 */
#include "common/fd.h"

#include <fcntl.h>

int fd_fill_standard(int flags)
{
	int fd;

	do {
		fd = open("/dev/null", flags); /* not close-on-exec, as the other standard ones */
		if (fd < 0)
			return -errno;
	} while (fd <= STDERR_FILENO);
	close(fd);
	return 0;
}
