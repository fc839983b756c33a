/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The listening socket and its file.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct config;

/* Bytes of the name that the socket is bound under first, beside its path. */
#define LISTENER_BESIDE_MAX (sizeof(".nvmmd.2147483647") - 1)

struct listener {
	int fd;
	bool no_fds; /* the kernel delivers no descriptors to what is accepted from now on */
	bool bound;  /* the file is ours to remove; else systemd passed it */
	dev_t dev;   /* of that file */
	ino_t inode;
};

/* What stands at the path. */
enum listener_file {
	LISTENER_OURS,
	LISTENER_GONE,   /* nothing, or a socket that nobody listens on */
	LISTENER_OTHERS, /* another program's socket, or no socket */
};

/* Makes the socket where the configuration says, with its owner and mode, and listens. 0 or -errno; logs what is
 * wrong. */
int listener_bind(struct listener *ret, const struct config *config);

/* Looks at the path; *pid: who listens there instead, 0: not known. */
enum listener_file listener_look(const struct listener *listener, const char *path, pid_t *pid);

/* Removes the file, if it is still this socket's. The descriptor stays. */
void listener_remove(struct listener *listener, const char *path);

/* Asks the kernel to deliver no descriptors to a socket; false: it cannot. */
bool listener_refuse_descriptors(int fd);
