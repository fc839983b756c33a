/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The protocol by hand: what a client that is not libnvmm-client, or no friend, would send.
 */
#pragma once

#include "proto/frame.h"
#include "proto/nvmm.pb-c.h"
#include "tests/system/harness.h"

struct raw {
	int sock;
	uint64_t seq;
	struct frame frame; /* the last reply's packet, with its descriptors */
};

/* Connects; no Hello yet. */
void raw_connect(struct raw *raw, struct harness *h);
void raw_close(struct raw *raw);

/* Sends bytes as one packet. 0 or -errno. */
int raw_send(struct raw *raw, const void *data, size_t len);

/* Waits for the next packet and unpacks it; NULL: the daemon closed the connection. The caller
 * frees it by nvmm__reply__free_unpacked(reply, NULL); descriptors are in raw->frame. */
Nvmm__Reply *raw_receive(struct raw *raw);

/* Sends `request` with the next sequence number and waits for its reply. */
Nvmm__Reply *raw_ask(struct raw *raw, Nvmm__Request *request);

/* As raw_ask(): the reply's error; -ECONNRESET: closed. Descriptors are closed. */
int raw_error(struct raw *raw, Nvmm__Request *request);

/* Hello; asserts that it is accepted. */
void raw_hello(struct raw *raw);

/* The daemon's longest loop turn of the last `seconds` (1 to 60) in microseconds, as its status says
 * it. Tests judge latency by this figure, not by a clock of their own. */
uint64_t raw_longest_turn_us(struct harness *h, unsigned seconds);
