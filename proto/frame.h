/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Packets of a SOCK_SEQPACKET Unix socket and the descriptors that come with them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_MAX 65536u /* bytes of a message */
#define FRAME_FDS_MAX 4u

struct frame {
	uint8_t data[FRAME_MAX];
	size_t len;
	int fds[FRAME_FDS_MAX]; /* owned; frame_close_fds() */
	size_t n_fds;
};

/*
 * Receives one packet. 1: there is one; 0: the peer closed; -EAGAIN (non-blocking); -EMSGSIZE: longer
 * than FRAME_MAX (dropped); -EPROTO: more descriptors than FRAME_FDS_MAX, or a control message of
 * another kind (all closed); -EMFILE: this process has no descriptor free for them (likewise); others
 * of recvmsg(2). Received descriptors are close-on-exec, and none is 0, 1 or 2. `flags`: of recvmsg(2).
 */
int frame_recv(struct frame *frame, int sock, int flags);

/* Sends one packet whole, with descriptors (borrowed). MSG_NOSIGNAL. 0 or -errno. */
int frame_send(int sock, const void *data, size_t len, const int *fds, size_t n_fds, int flags);

void frame_close_fds(struct frame *frame);

/* Bytes that the peer has not read yet of what was sent on `sock` (SIOCOUTQ). -errno. */
int frame_unread(int sock);

/* Makes the kernel refuse descriptors to those who send to `sock`, or to what a listening `sock` accepts
 * (EPERM for them). -ENOPROTOOPT: the kernel is older than 6.16 and cannot. */
int frame_pass_no_fds(int sock);

/* Looks at the next packet without taking it. 0: it carries no control data, or the peer closed; -EPROTO:
 * it does; -EAGAIN: there is none. Never drops the last reference to a descriptor. */
int frame_peek(int sock);
