/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where a daemon is killed: a base with two pools that nobody may harm, a client process that
 * runs one operation, and the order of events around the daemon's death.
 *
 *   test                          client                  daemon (nvmmd-points)
 *   prepare()                     .                       .
 *   fork ----------------------> enter()                  .
 *   arm(k)                        .                       .
 *   go -------------------------> act() ----------------> dies at its k-th point
 *   start it again, k times over  (waits, repeats)        recovers, dies, recovers
 *   end ------------------------> disconnects             .
 *   verify, clean up
 */
#pragma once

#include "tests/crash/points.h"
#include "tests/system/harness.h"

struct arena;

/* One operation. Functions assert what must be; those that take a connection run connected. */
struct operation {
	const char *name;
	void (*prepare)(struct arena *a, struct nvmm_client *nvmm);
	/* In the client, before its points count; what it leaves in `client_*` is for act(). */
	void (*enter)(struct arena *a, struct nvmm_client *nvmm);
	/* In the client: the operation; its result. NULL: the client is killed instead. */
	int (*act)(struct arena *a, struct nvmm_client *nvmm);
	/* Asserts that it was done or was not, nothing in between. Whether it was. */
	bool (*done)(struct arena *a, struct nvmm_client *nvmm);
	/* After a repeat, while the client lives; may be NULL. */
	void (*repeated)(struct arena *a, struct nvmm_client *nvmm);
	bool held; /* another process has the target open all the while */
	bool power; /* done in durability `power` as well */
	/* FATE_OVERTAKEN: what another client does before the first one asks again, and what must be
	 * after that; `done` is whether the operation was done before. */
	void (*overtake)(struct arena *a, struct nvmm_client *nvmm, bool done);
	void (*overtaken)(struct arena *a, struct nvmm_client *nvmm, bool done);
};

/* Shared with the client and the holder. */
struct stage {
	nvmm_pool_id id;   /* of the target; 0: there is none yet */
	nvmm_pool_id next; /* the lowest free id before prepare() */
	int result; /* of act() */
	char text[256];
	unsigned pools; /* before act() */
};

struct arena {
	struct harness h;
	struct points *points;
	int64_t armed; /* what it was armed with */
	uint64_t passed; /* points that were counted last */
	struct stage *stage;
	const struct operation *op;
	enum nvmm_durability durability; /* of targets that heed it; 0: the daemon's choice */
	nvmm_pool_id region; /* the two that nobody may harm */
	nvmm_pool_id heap;
	struct nvmm_heap *client_heap; /* in the client */
	pid_t client;
	int client_in, client_out; /* pipes to and from it */
	pid_t holder;
	int holder_in, holder_out;
};

/* What becomes of the client when the daemon has died. */
enum fate {
	FATE_REPEATS, /* it waits for the next daemon and asks again */
	FATE_DIES,    /* killed before the next one starts */
	FATE_OVERTAKEN, /* it is late: another client acts first, and a further daemon dies */
};

/* Directory, daemon, the two pools. */
void arena_init(struct arena *a);
/* The same where all memory counts as persistent, and targets are of durability `power`. */
void arena_init_power(struct arena *a);
void arena_deinit(struct arena *a);
/* The same without a daemon that has run, and without pools. */
void arena_init_empty(struct arena *a);

/* Starts a daemon that dies at point k on an empty base, then one that lives, which must serve, and
 * empties the base again. Whether the first one died. */
bool arena_first_start(struct arena *a, uint64_t k);

/* Stops the daemon, which dies at point k of it, starts another and verifies. Whether it died. */
bool arena_stop_dying(struct arena *a, uint64_t k);

/*
 * Runs the operation once; the daemon dies at point k, and the next ones at their first[0], [1].. point
 * of starting, up to `n`. Then all is verified and cleaned up. Whether it died at k; *deaths are the
 * daemons that died starting.
 */
bool arena_run(struct arena *a, const struct operation *op, uint64_t k, enum fate fate,
	       const uint64_t *starts, unsigned n, unsigned *deaths);

/* A daemon that dies at its k-th point from its start on: starts it. Whether it died. */
bool arena_start_dying(struct arena *a, uint64_t k);
void arena_arm(struct arena *a, uint64_t k);
/* Ends the count, in `passed`; waits for the daemon if it died or is about to. Whether it did. */
bool arena_disarm(struct arena *a);

/* Asserts that the base holds nothing but what it should, and that the two pools are whole. */
void arena_verify(struct arena *a);

/* Begins the daemon's log anew, with this line: it is shown with a failure. */
void arena_log(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The target's record; whether it is there. */
bool arena_target(struct arena *a, struct nvmm_client *nvmm, struct nvmm_pool_info *ret);
/* Pools that are there. */
unsigned arena_pools(struct nvmm_client *nvmm);
