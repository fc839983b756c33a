/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The keeper.
 *
 * Slots of sessions are memfds: no client can make one longer, and no name in a file system keeps
 * them from going with the daemon. So this process holds them over the daemon's end, and the
 * eventfd by which the session rings. It is nvmmd with KEEPER_ARGUMENT, started by the first daemon
 * that needs it. It knows nothing of pools or clients, and opens nothing.
 *
 * Each message stands for itself and can be repeated. One that a daemon has sent is in this
 * process's socket: it outlives that daemon without an answer. So the send is the daemon's commit
 * point (keep.c). A next daemon has the lock of the runtime directory, so the one before is dead
 * and all that it sent is here: it is read to its end before the next one is listened to.
 *
 * What is held of a session is closed at a daemon's word, or when the session's process has ended,
 * also while no daemon runs. Holding nothing, and with no daemon connected, the keeper ends.
 * Killed, it takes what it holds along: a daemon that runs notices, and gives all to another
 * keeper.
 *
 * Only the daemon's user can talk to it: the directory is 0700, and the peer's uid is checked.
 */
#include "daemon/keeper.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bsd/sys/tree.h>

#include "common/macro.h"

#define EVENT_LISTENER UINT64_MAX
#define EVENT_DAEMON (UINT64_MAX - 1)
#define EVENTS_AT_ONCE 64
#define SEND_TRIES 500u /* each after SEND_PAUSE_US, while too many descriptors are on their way */
#define SEND_PAUSE_US 10000u

/* Messages */

int keeper_send(int sock, const struct keeper_packet *packet, int flags)
{
	struct iovec iov = { (void *)(uintptr_t)&packet->message, sizeof(packet->message) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	size_t bytes = packet->n_fds * sizeof(int);
	union {
		struct cmsghdr head;
		char buf[CMSG_SPACE(KEPT_FDS * sizeof(int))];
	} control = { .buf = { 0 } };
	ssize_t n;

	if (bytes > 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(bytes);
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(bytes);
		memcpy(CMSG_DATA(&control.head), packet->fds, bytes);
	}
	do
		n = sendmsg(sock, &msg, flags | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static void take_fds(struct keeper_packet *packet, struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (packet->n_fds < KEPT_FDS)
				packet->fds[packet->n_fds++] = fd;
			else
				close(fd);
		}
	}
}

void keeper_packet_close(struct keeper_packet *packet)
{
	for (unsigned i = 0; i < packet->n_fds; i++)
		if (packet->fds[i] >= 0)
			close(packet->fds[i]);
	packet->n_fds = 0;
}

int keeper_recv(struct keeper_packet *ret, int sock, int flags)
{
	struct iovec iov = { &ret->message, sizeof(ret->message) };
	union {
		struct cmsghdr head;
		char buf[CMSG_SPACE(KEPT_FDS * sizeof(int))];
	} control;
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
			      .msg_controllen = sizeof(control.buf) };
	ssize_t n;

	ret->n_fds = 0;
	do
		n = recvmsg(sock, &msg, flags | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n < 0 ? -errno : 0;
	take_fds(ret, &msg);
	if (n == sizeof(ret->message) && !(msg.msg_flags & MSG_TRUNC) &&
	    ret->message.version == KEEPER_VERSION)
		return 1;
	keeper_packet_close(ret);
	return -EPROTO;
}

/* What is held */

struct kept {
	RB_ENTRY(kept) of_id;
	uint64_t id;
	uint32_t slots;
	int fds[KEPT_FDS];
};

static int kept_compare(struct kept *a, struct kept *b)
{
	return a->id < b->id ? -1 : a->id > b->id;
}

RB_HEAD(kept_ids, kept);
RB_GENERATE_INTERNAL(kept_ids, kept, of_id, kept_compare, _unused static)

struct keeper {
	int epoll;
	int daemon; /* the connection; -1: none */
	struct kept_ids by_id;
};

static struct kept *kept_find(struct keeper *k, uint64_t id)
{
	struct kept key = { .id = id };

	return RB_FIND(kept_ids, &k->by_id, &key);
}

static void kept_drop(struct keeper *k, struct kept *kept)
{
	if (!kept)
		return;
	RB_REMOVE(kept_ids, &k->by_id, kept);
	/* The daemon has the pidfd, too: closing it would not take it out. */
	epoll_ctl(k->epoll, EPOLL_CTL_DEL, kept->fds[KEPT_PIDFD], NULL);
	for (unsigned i = 0; i < KEPT_FDS; i++)
		close(kept->fds[i]);
	free(kept);
}

static int watch(const struct keeper *k, int fd, uint64_t what)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = what };

	return epoll_ctl(k->epoll, EPOLL_CTL_ADD, fd, &event);
}

/* A session of which too few descriptors came, for want of room for them, is not held: the next
 * daemon finds that it had slots, and that nobody has them. */
static void put(struct keeper *k, struct keeper_packet *packet)
{
	struct kept *kept = packet->n_fds == KEPT_FDS ? calloc(1, sizeof(*kept)) : NULL;

	kept_drop(k, kept_find(k, packet->message.id));
	if (!kept || watch(k, packet->fds[KEPT_PIDFD], packet->message.id) < 0) {
		free(kept);
		keeper_packet_close(packet);
		return;
	}
	kept->id = packet->message.id;
	kept->slots = packet->message.slots;
	memcpy(kept->fds, packet->fds, sizeof(kept->fds));
	packet->n_fds = 0;
	RB_INSERT(kept_ids, &k->by_id, kept);
}

/* Giving */

/* Sends to a daemon that reads; waits for it, and for descriptors that are on their way to
 * others. */
static int give(const struct keeper *k, const struct keeper_packet *packet)
{
	int r = keeper_send(k->daemon, packet, 0);

	for (unsigned i = 0; r == -ETOOMANYREFS && i < SEND_TRIES; i++) {
		usleep(SEND_PAUSE_US);
		r = keeper_send(k->daemon, packet, 0);
	}
	return r;
}

static int give_kept(const struct keeper *k, const struct kept *kept)
{
	struct keeper_packet packet = {
		.message = { .version = KEEPER_VERSION, .op = KEEPER_KEPT, .id = kept->id,
			     .slots = kept->slots },
		.fds = { kept->fds[KEPT_MEMORY], kept->fds[KEPT_BELL] },
		.n_fds = KEPT_GIVEN,
	};

	return give(k, &packet);
}

static int give_end(const struct keeper *k, uint64_t id, uint32_t n)
{
	struct keeper_packet packet = {
		.message = { .version = KEEPER_VERSION, .op = KEEPER_END, .id = id, .slots = n },
	};

	return give(k, &packet);
}

static int give_all(struct keeper *k)
{
	struct kept *kept;
	uint32_t n = 0;
	int r = 0;

	RB_FOREACH (kept, kept_ids, &k->by_id) {
		r = give_kept(k, kept);
		if (r < 0)
			return r;
		n++;
	}
	return give_end(k, 0, n);
}

static int give_one(struct keeper *k, uint64_t id)
{
	struct kept *kept = kept_find(k, id);
	int r = kept ? give_kept(k, kept) : 0;

	return r < 0 ? r : give_end(k, id, kept != NULL);
}

/* Serving */

static int obey(struct keeper *k, struct keeper_packet *packet)
{
	const struct keeper_message *m = &packet->message;
	struct kept *kept;
	int r = 0;

	switch (m->op) {
	case KEEPER_TAKE:
		r = m->id == 0 ? give_all(k) : give_one(k, m->id);
		break;
	case KEEPER_PUT:
		put(k, packet);
		break;
	case KEEPER_GRANT:
		kept = kept_find(k, m->id);
		if (kept)
			kept->slots = MAX(kept->slots, m->slots);
		break;
	case KEEPER_DROP:
		kept_drop(k, kept_find(k, m->id));
		break;
	}
	keeper_packet_close(packet);
	return r;
}

static void hang_up(struct keeper *k)
{
	if (k->daemon >= 0)
		close(k->daemon);
	k->daemon = -1;
}

/* Reads what the daemon has sent, to the last message; a connection that has ended is closed. */
static void listen_to_daemon(struct keeper *k)
{
	struct keeper_packet packet;
	int r = 1;

	while (k->daemon >= 0 && r > 0) {
		r = keeper_recv(&packet, k->daemon, MSG_DONTWAIT);
		if (r > 0 && obey(k, &packet) < 0)
			hang_up(k);
		else if (r == 0 || (r < 0 && r != -EAGAIN))
			hang_up(k);
	}
}

/* Takes the next daemon's connection; false: there is none. */
static bool accept_daemon(struct keeper *k)
{
	struct ucred cred = { .uid = (uid_t)-1 };
	socklen_t len = sizeof(cred);
	int fd = accept4(KEEPER_LISTENER, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return false;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || cred.uid != geteuid()) {
		close(fd);
		return true;
	}
	listen_to_daemon(k);
	hang_up(k);
	k->daemon = fd;
	if (watch(k, fd, EVENT_DAEMON) < 0)
		hang_up(k);
	return true;
}

static void handle(struct keeper *k, uint64_t what)
{
	if (what == EVENT_LISTENER)
		accept_daemon(k);
	else if (what == EVENT_DAEMON)
		listen_to_daemon(k);
	else
		kept_drop(k, kept_find(k, what));
}

static bool done(struct keeper *k)
{
	return RB_EMPTY(&k->by_id) && k->daemon < 0 && !accept_daemon(k);
}

int keeper_main(void)
{
	struct epoll_event events[EVENTS_AT_ONCE];
	struct keeper k = { .epoll = epoll_create1(EPOLL_CLOEXEC), .daemon = -1,
			    .by_id = RB_INITIALIZER(&k.by_id) };

	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_NAME, "nvmmd-keeper");
	/* Listening again makes this process the one that SO_PEERCRED names. */
	if (k.epoll < 0 || listen(KEEPER_LISTENER, SOMAXCONN) < 0 ||
	    watch(&k, KEEPER_LISTENER, EVENT_LISTENER) < 0)
		return 1;
	do {
		int n = epoll_wait(k.epoll, events, EVENTS_AT_ONCE, -1);

		for (int i = 0; i < n; i++)
			handle(&k, events[i].data.u64);
	} while (!done(&k));
	return 0;
}
