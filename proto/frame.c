/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Packets of a SOCK_SEQPACKET socket.
 *
 * One recvmsg(2) takes one packet: the kernel keeps their borders, so there is no parser here and
 * nothing that a peer can leave half done. What a packet brings is settled before anybody sees it:
 * descriptors are collected first, with MSG_CMSG_CLOEXEC, and closed again if anything about the
 * packet is wrong (too long, too many, a control message of another kind), so that a hostile peer
 * cannot make the receiver leak any.
 *
 * The peer's end is told from an empty packet by the kernel: both make recvmsg(2) return 0, but
 * nobody here sends empty packets, so 0 is taken as the end; a peer that sends one is hung up on.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/macro.h"
#include "proto/frame.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

/* SCM_MAX_FD of the kernel: a sender can attach this many. */
#define KERNEL_FDS_MAX 253

void frame_close_fds(struct frame *frame)
{
	for (size_t i = 0; i < frame->n_fds; i++)
		if (frame->fds[i] >= 0)
			close(frame->fds[i]);
	frame->n_fds = 0;
}

/* Takes the descriptors of one control message, as descriptors above the standard ones. Closes those
 * that are over. 0, -EPROTO, -EMFILE. */
static int take_fds(struct frame *frame, const struct cmsghdr *c)
{
	size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	int r = 0;

	for (size_t i = 0; i < n; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
		fd = fd_lift(fd);
		if (fd < 0) {
			r = -EMFILE;
			continue;
		}
		if (frame->n_fds < FRAME_FDS_MAX) {
			frame->fds[frame->n_fds++] = fd;
		} else {
			close(fd);
			r = -EPROTO;
		}
	}
	return r;
}

static int take_control(struct frame *frame, struct msghdr *msg)
{
	int r = 0, taken;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		taken = c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS ?
				take_fds(frame, c) :
				-EPROTO;
		if (taken < 0)
			r = taken;
	}
	/* The buffer has room for all that a sender can attach: what is missing found no free
	 * descriptor here. */
	if (r == 0 && (msg->msg_flags & MSG_CTRUNC))
		r = -EMFILE;
	return r;
}

int frame_recv(struct frame *frame, int sock, int flags)
{
	union {
		char buf[CMSG_SPACE(KERNEL_FDS_MAX * sizeof(int)) + CMSG_SPACE(64)];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = frame->data, .iov_len = sizeof(frame->data) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n;
	int r;

	frame->len = 0;
	frame->n_fds = 0;
	do {
		n = recvmsg(sock, &msg, flags | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;

	r = take_control(frame, &msg);
	if (r == 0 && (msg.msg_flags & MSG_TRUNC))
		r = -EMSGSIZE;
	if (r < 0 || n == 0) {
		frame_close_fds(frame);
		return r;
	}
	frame->len = (size_t)n;
	return 1;
}

int frame_send(int sock, const void *data, size_t len, const int *fds, size_t n_fds, int flags)
{
	union {
		char buf[CMSG_SPACE(FRAME_FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (len == 0 || len > FRAME_MAX)
		return -EMSGSIZE;
	if (n_fds > FRAME_FDS_MAX)
		return -EINVAL;
	if (n_fds > 0) {
		memset(&control, 0, sizeof(control));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, n_fds * sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	}
	do {
		n = sendmsg(sock, &msg, flags | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	/* A packet goes whole or not at all; the kernel says otherwise only if it is not one. */
	return (size_t)n == len ? 0 : -EPROTO;
}

int frame_pass_no_fds(int sock)
{
	int off = 0;

	return setsockopt(sock, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off)) < 0 ? -errno : 0;
}

/*
 * Without a buffer for control data, and without taking the packet: recvmsg(2) then drops only references
 * of its own, never a last one, and says by MSG_CTRUNC that there was something.
 */
int frame_peek(int sock)
{
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	do {
		n = recvmsg(sock, &msg, MSG_PEEK | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return msg.msg_flags & MSG_CTRUNC ? -EPROTO : 0;
}

int frame_unread(int sock)
{
	int n;

	if (ioctl(sock, SIOCOUTQ, &n) < 0)
		return -errno;
	return n;
}
