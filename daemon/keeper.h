/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The keeper: a process that holds descriptors of sessions for the next daemon. What it and a
 * daemon say to each other over <runtime>/epochs/keeper, a socket of type SOCK_SEQPACKET.
 */
#pragma once

#include <stdint.h>

#define KEEPER_ARGUMENT "--keep-descriptors" /* what nvmmd is started with as a keeper */
#define KEEPER_SOCKET "keeper"
#define KEEPER_LISTENER 3 /* the descriptor that it listens on */
#define KEEPER_VERSION UINT32_C(0x314b564e)

enum keeper_op {
	/* A daemon says: */
	KEEPER_TAKE = 1, /* give me what you hold of session `id`; 0: of all */
	KEEPER_PUT,      /* hold these three descriptors instead of what you held of it */
	KEEPER_GRANT,    /* the session has `slots` by now */
	KEEPER_DROP,     /* close what you hold of the session */
	/* The keeper says: */
	KEEPER_KEPT,     /* what I hold of a session: two descriptors, KEPT_MEMORY and KEPT_BELL */
	KEEPER_END,      /* that was all; `slots`: how many sessions it was */
};

enum kept_fd {
	KEPT_MEMORY, /* the slots */
	KEPT_BELL,   /* the eventfd that the client rings */
	KEPT_GIVEN,
	KEPT_PIDFD = KEPT_GIVEN, /* with its end the keeper drops the others */
	KEPT_FDS,
};

struct keeper_message {
	uint32_t version;
	uint32_t op;
	uint64_t id;
	uint32_t slots;
	uint32_t zero;
};
_Static_assert(sizeof(struct keeper_message) == 24, "no padding");

struct keeper_packet {
	struct keeper_message message;
	int fds[KEPT_FDS]; /* -1: none */
	unsigned n_fds;
};

/* Sends a message with its descriptors, which stay the caller's. 0 or -errno. */
int keeper_send(int sock, const struct keeper_packet *packet, int flags);
/* Receives one; its descriptors are the caller's. 1; 0: the other side has closed; -EPROTO;
 * -errno of recvmsg(2). */
int keeper_recv(struct keeper_packet *ret, int sock, int flags);
void keeper_packet_close(struct keeper_packet *packet);

/* The process: listens on KEEPER_LISTENER. Returns its exit status. */
int keeper_main(void);
