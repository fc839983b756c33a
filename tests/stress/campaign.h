/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The kill campaign: clients of several threads that work in three heaps and hand blocks to each other,
 * killed at random with the daemon, and a shadow that says what must be there in the end.
 *
 *   check_campaign.c   the controller: who is killed, stopped, started, and when
 *   campaign_client.c  a client's threads and what they do
 *   journal.c          the shadow: what each thread holds, and what it was about to do
 *   account.c          all are quiet: shadow against heaps
 *   stamp.c            what stands in a block
 *
 * The shadow is memory of the controller's that the clients share: it survives each of them. A client
 * that is killed leaves its seat to another one, which settles the journals there and goes on with the
 * same blocks.
 */
#pragma once

#include <stdatomic.h>

#include "tests/stress/journal.h"
#include "tests/system/harness.h"

#define SEATS 6u
#define THREADS 3u
#define HEAPS 3u /* durability process and power; sparse */
#define WORDS 8u /* of a thread, that all others read in epochs */
#define RINGS 2u /* that a thread puts into */
#define RING 32u

/* From one thread to one other. Counters never wrap. */
struct ring {
	_Atomic uint64_t head; /* the taker's */
	_Atomic uint64_t tail; /* the putter's */
	_Atomic nvmm_ptr ptr[RING];
};

/* In a region of the daemon's. */
struct exchange {
	struct ring ring[SEATS][THREADS][RINGS];
	_Atomic nvmm_ptr word[SEATS][THREADS][WORDS];
};

/* What one client after the other works at. */
struct seat {
	struct journal journal[THREADS];
	uint64_t life; /* clients that sat here */
	char failure[256];
	_Atomic uint64_t steps;
};

/* Shared by all. */
struct shadow {
	_Atomic bool stop;
	struct seat seat[SEATS];
};

struct campaign {
	struct harness h;
	uint64_t seed;
	nvmm_pool_id heap[HEAPS];
	nvmm_pool_id region;
	struct shadow *shadow;
	unsigned seat; /* of a client */
};

/* A client's connection, and what it has open. */
struct desk {
	struct campaign *c;
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap[HEAPS];
	struct exchange *exchange;
};

/* Splitmix: the next number of a state. */
uint64_t campaign_random(uint64_t *state);

/* In a client: says what went wrong where the controller finds it, and ends the process. */
void client_fail(struct campaign *c, const char *fmt, ...)
	__attribute__((format(printf, 2, 3), noreturn));
#define client_must(c, cond, ...)                    \
	do {                                         \
		if (!(cond))                         \
			client_fail(c, __VA_ARGS__); \
	} while (0)

/* Connects, as often as it takes a daemon to be there, and opens all. */
void desk_open(struct desk *d, struct campaign *c);
void desk_close(struct desk *d);
/* The heap that a pointer is of. */
struct nvmm_heap *desk_heap(struct desk *d, nvmm_ptr ptr);

/* A client; for harness_fork(), arg is the struct campaign. */
void campaign_client(void *arg);

/* What accounting found so far. */
struct account {
	uint64_t blocks;   /* that were looked up */
	uint64_t doubts;   /* operations in flight when their client was killed */
	uint64_t happened; /* of those, that left a block allocated */
};

/*
 * No client runs: compares the shadow with the heaps, the roots and the pools, and resolves all doubts.
 * The daemon is ended and started again. Fails the test.
 */
void account_take(struct campaign *c, struct account *account);
/* Frees all that the shadow has, and asserts that the heaps are empty and all can be had again. */
void account_close(struct campaign *c);
