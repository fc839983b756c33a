/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Recovery of heaps: after a stop that was not in order, or because somebody asks for it.
 *
 * Loop thread only. A pool's recovery is a job (heap_load.c); here is which pool's turn it is, who
 * waits, and how far it has come.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "media/check.h"

struct nvmmd;
struct pool;
struct request;

enum recovery_state {
	RECOVERY_NONE = 0,
	RECOVERY_WAITING = 1, /* for its turn */
	RECOVERY_RUNNING = 2,
	RECOVERY_HELD = 3,    /* recovery.on_start is manual: until somebody asks */
	RECOVERY_DONE = 4,
	RECOVERY_FAILED = 5,
};

/* How thorough. */
enum recovery_depth {
	RECOVERY_LOAD,   /* lanes of the dead settled, what was interrupted completed */
	RECOVERY_VERIFY, /* and every structure verified */
	RECOVERY_REPAIR, /* and mended first */
};

/* A pool's. */
struct pool_recovery {
	enum recovery_state state;
	enum recovery_depth depth;
	bool offline;                /* nobody but who asked has it open */
	bool urgent;                 /* somebody waits for it */
	bool at_start;               /* counted in struct recovery */
	uint64_t units;              /* of the heap */
	uint64_t done;               /* units walked; atomic, the job's */
	uint64_t began, ended;       /* ms, monotonic */
	struct check_report *report; /* of the last verification; NULL: none */
	char text[192];              /* what became of it */
	TAILQ_ENTRY(pool) of_queue;
};
TAILQ_HEAD(recovery_queue, pool);

/* The daemon's. */
struct recovery {
	struct recovery_queue waiting;
	uint32_t running;
	uint32_t most; /* that ran at a time */
	uint32_t total; /* pools that the start found to be recovered */
	uint32_t done;
	uint32_t failed;
	uint64_t bytes;      /* of all of them */
	uint64_t bytes_done; /* of those that are done */
	uint64_t began, ended;
};

void recovery_init(struct recovery *recovery);

/* After the sessions of before were taken up: schedules what needs it, as configured. */
void recovery_plan(struct nvmmd *nvmmd);
/* Begins with whatever may run: when the daemon serves; when a pool's job has ended. */
void recovery_kick(struct nvmmd *nvmmd);

/* Schedules one pool, first in turn. -ENOMEM. */
int recovery_ask(struct pool *pool, enum recovery_depth depth);

/*
 * Whether a pool may be opened: 0; REQUEST_PENDING: parked until its recovery is done, which comes next
 * then; -EAGAIN with a text: `wait` is false, or it is held.
 */
int recovery_need(struct request *request, struct pool *pool, bool wait);

/* Makes room for a report of the pool. -ENOMEM. */
int recovery_report(struct pool *pool);

/* The job's end: the next one's turn. */
void recovery_ended(struct pool *pool, int r);

/* A pool that is destroyed waits no more. */
void recovery_forget(struct pool *pool);
void recovery_free(struct pool *pool);

/* Bytes of the pools of the start that are recovered by now. */
uint64_t recovery_progress(const struct nvmmd *nvmmd);

/* Milliseconds since the daemon's start began with it, or that it took. */
uint64_t recovery_ms(const struct recovery *recovery);

/*
 * Mends what a damaged pool's files are rotten in but for spans, and takes it up anew: it is not
 * damaged after, or why it still is; a heap's spans are mended then. Nobody has the pool open.
 * REQUEST_PENDING, or an error with a text.
 */
int recovery_mend(struct request *request, struct pool *pool);
/* The second half of it, for heaps: schedules the repair of its spans. */
int recovery_repair(struct request *request, struct pool *pool);
