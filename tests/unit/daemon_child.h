/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon in a child of the test, and a client that speaks the protocol by hand: for what the client
 * library never sends, and for asking again with a number that was used.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/frame.h"
#include "proto/nvmm.pb-c.h"

struct daemon_child {
	pid_t pid;
	const char *dir; /* holds base/, run/, socket, config.yaml */
	char base[256];
	char run[256];
	char config[256];
	char socket[108];
	void (*setup)(void); /* called in the child before the daemon starts */
};

/* Makes directory and configuration; `extra` is appended to it (NULL: nothing). */
void daemon_child_init(struct daemon_child *d, const char *extra);
/* Writes the configuration anew. */
void daemon_child_config(struct daemon_child *d, const char *extra);
/* Starts it and waits until it accepts. */
void daemon_child_start(struct daemon_child *d);
/* Starts it where it cannot start: its exit status. */
int daemon_child_fail(struct daemon_child *d);
/* SIGTERM; its exit status. */
int daemon_child_stop(struct daemon_child *d);
void daemon_child_kill(struct daemon_child *d);
/* Waits for the end that something else brings about; its wait status. */
int daemon_child_wait(struct daemon_child *d);

struct raw_client {
	int fd;
	uint64_t seq;
	uint64_t session;
	bool resumed;
	uint8_t cookie[16];
	struct frame frame; /* of the last reply */
	Nvmm__Reply *reply; /* freed by the next call */
};

/* Connects, without Hello. */
void raw_connect(struct raw_client *c, const struct daemon_child *d);
/* Says Hello; the reply's error. */
int raw_hello(struct raw_client *c, uint64_t resume);
/* Both, with a cookie of byte `who`; must succeed. */
void raw_open(struct raw_client *c, const struct daemon_child *d, uint8_t who);
void raw_close(struct raw_client *c);

/* Sends without waiting. 0 or -errno. */
int raw_send(struct raw_client *c, Nvmm__Request *request);
/* Waits for the reply: its error, or -ECONNRESET. */
int raw_receive(struct raw_client *c);
/* Both, with the next number. */
int raw_call(struct raw_client *c, Nvmm__Request *request);
/* Both, with the number that the request has. */
int raw_repeat(struct raw_client *c, Nvmm__Request *request);

/* Requests. Each returns the reply's error. */
int raw_create(struct raw_client *c, uint32_t kind, uint64_t size, const char *name, uint32_t id);
int raw_stat(struct raw_client *c, uint32_t id);
int raw_lookup(struct raw_client *c, const char *name);
int raw_pool_open(struct raw_client *c, uint32_t id, bool write);
int raw_pool_close(struct raw_client *c, uint32_t id, uint64_t incarnation, bool write);
int raw_destroy(struct raw_client *c, uint32_t id, bool force);
int raw_lanes(struct raw_client *c, uint32_t id, uint32_t count);
int raw_goodbye(struct raw_client *c);
unsigned raw_sessions(struct raw_client *c);
