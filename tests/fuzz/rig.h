/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon in the process of a fuzz target: the target turns its loop, and is its clients too, so that
 * coverage sees all of it and an input does the same each time.
 *
 *   rig_begin()     makes a directory and, by a daemon and clients of their own, a template: a base with
 *                   heaps and regions in use, and the canary's pools; and a session of this process, which
 *                   has the sparse heap open
 *   rig_reset()     copies the template
 *   rig_start()     starts a daemon on the copy; rig_stop() stops it
 *   rig_canary()    asserts that the canary's pools are as the template has them
 *
 * Clients are of users that are not the daemon's. Most are this process, by other connections; a mortal
 * one is a process of its own that does nothing but die when it is told to. Where the target is not run by
 * root all clients are the daemon's user, who may do anything: rig_canary() then does nothing.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/fuzz/grammar.h"

#define RIG_FDS 4u

/* Users of clients: 0: the daemon's, an administrator; 1 and 2: owners of pools; 3: the canary's. */
#define RIG_ROOT 0u
#define RIG_CANARY 3u

struct rig_client {
	int sock; /* -1: not connected */
	unsigned user;
	pid_t pid; /* of a mortal one; 0: it is this process */
	uint64_t seq;
	uint64_t session;
	uint8_t cookie[16];
	bool waits; /* for a reply that did not come yet */
	int error;  /* of the last reply */
};

/* Ids of the template's pools. */
enum rig_pool {
	RIG_HEAP = 1,   /* user 1, everybody may write it */
	RIG_SPARSE,     /* user 2, likewise */
	RIG_POWER,      /* user 1, durability `power`, likewise */
	RIG_REGION,     /* user 1, likewise */
	RIG_SECRET,     /* a region that user 2 alone may open */
	RIG_CANARY_HEAP,
	RIG_CANARY_REGION,
};
#define RIG_POOLS 7u

void rig_begin(void);
void rig_end(void);

void rig_reset(void);
/* Empties the runtime directory, as a boot does. */
void rig_forget(void);
/* Copies one file or directory of the base alone. */
void rig_reset_part(const char *name);
/* False: it refused to start. */
bool rig_start(void);
/* `clean`: the clean mark is set if it may be. Without it the next daemon finds what a killed one leaves. */
void rig_stop(bool clean);
bool rig_running(void);
/* Reads the configuration again, as on SIGHUP. */
void rig_reload(void);

/* Turns the loop for a while: at least `turns` times. */
void rig_turn(unsigned turns);

/* Directories, open: what the base and the runtime directory hold may be changed while no daemon runs. */
extern int rig_base;
extern int rig_runtime;

/* Connects as `user`, by a process of its own if it is `mortal`. False: it cannot. */
bool rig_connect(struct rig_client *client, unsigned user, bool mortal);
/* Says Hello; `resume`: the session that the client had. */
bool rig_hello(struct rig_client *client, bool resume);
/* Closes the socket; the process, if it is mortal, lives on. */
void rig_hang_up(struct rig_client *client);
/* Ends its process, if it is mortal. */
void rig_kill(struct rig_client *client);

/* Sends one packet, with descriptors. False: the connection is gone. */
bool rig_send(struct rig_client *client, const void *data, size_t len, const int *fds, size_t n_fds);
/*
 * Turns the loop until the client has a reply, a while at most: 1: there is one; learnt from, and freed
 * unless `ret` takes it; 0: there is none yet; -1: the connection is gone. Descriptors that came are put
 * into `fds`, of RIG_FDS, or closed where that is NULL.
 */
int rig_receive(struct rig_client *client, struct vocabulary *v, Nvmm__Reply **ret, int *fds, unsigned *n_fds);
/* Makes a request from the input, or of the given op, sends it and waits as above. */
int rig_ask(struct rig_client *client, struct vocabulary *v, struct choice *c, uint32_t op);

/* Opens a heap for writing, with all descriptors of it, `lanes` lanes, and epoch slots. What comes is learnt, and put
 * into `fds` (of RIG_OPEN_FDS; NULL: closed). False: it was refused. */
#define RIG_OPEN_FDS (4u * RIG_FDS)
bool rig_open(struct rig_client *client, uint32_t id, uint32_t lanes, struct vocabulary *v, int *fds,
	      unsigned *n_fds);

/* What is known at the start: ids and names of the template's pools. */
void rig_words(struct vocabulary *v);

void rig_canary(void);
