/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pools as the daemon has them in memory: the record, the shelves, who has it open.
 *
 * Loop thread only. A pool is in the table as long as its id is taken: from CREATING until its record
 * is FREE and the last session that had it open has let go.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include <bsd/sys/tree.h>

#include "common/macro.h"
#include "daemon/epochs.h"
#include "daemon/heap_service.h"
#include "daemon/job.h"
#include "daemon/lane_charge.h"
#include "daemon/overgrown.h"
#include "daemon/pool_layout.h"
#include "daemon/recovery.h"
#include "daemon/session_file.h"
#include "daemon/settle.h"

struct nvmmd;
struct request;
struct session;

TAILQ_HEAD(request_list, request);

/* One session's hold on a pool. */
struct opening {
	struct pool *pool;
	struct session *session;
	uint64_t incarnation; /* the pool's record may be rotten, or free and another's later */
	bool read;
	bool write;
	uint32_t n_lanes;
	uint32_t *lanes; /* of the session in this heap, in no order; those being settled are last */
	uint32_t n_settling;
	bool settling;           /* it waits for its turn, for its heap, or is being settled */
	bool closing;            /* it is not for writing after that */
	bool begun;              /* the heap knows of it */
	uint64_t number;         /* in the order in which openings began to be settled */
	uint64_t looked;         /* number of the last look at whether its process is dying */
	bool dying;              /* what it saw */
	struct heap_settle settle;
	struct settle_work work;
	struct request *request; /* that is answered after it; NULL: none */
	LIST_ENTRY(opening) of_pool;
	LIST_ENTRY(opening) of_session;
};
LIST_HEAD(opening_list, opening);

enum pool_busy {
	POOL_IDLE,
	POOL_BUSY_CREATING,
	POOL_BUSY_RESIZING,
	POOL_BUSY_DESTROYING,
	POOL_BUSY_LOADING, /* its heap is being walked */
	POOL_BUSY_MENDING, /* its files are, by a repair */
	POOL_BUSY_CUTTING, /* its files are cut back to what the daemon gave */
	POOL_BUSY_CLOSING, /* its heap is being drained: the last opener has left */
};

struct pool {
	struct nvmmd *nvmmd;
	unsigned refs;
	uint16_t id;
	struct pool_record record; /* as in the registry; zero if that is rotten */
	struct pool_shelves shelves;
	uint32_t lanes;      /* heaps: in the lanes file */
	struct lane_charges lane_charges; /* who pays for those that were added */
	uint64_t lane_bytes; /* of file_bytes, what others than the owner pay for */
	uint64_t file_bytes;
	int space_refused;   /* sparse: which limit refused space last; 0: none */
	bool space_wish;     /* sparse: space is being reserved for a request */
	enum pool_busy busy; /* a job works on it; what must not run beside it is parked */
	struct job *job;     /* that job; borrowed, and only while the pool is busy */
	unsigned resuming;   /* requests that waited and will run soon: the pool stays as it is */
	struct request_list parked;
	int load_error; /* of the heap, for the requests that waited for it */
	char *damage; /* what is rotten, and where; NULL: nothing */
	struct meta *meta;           /* open while somebody has the pool open */
	struct heap_service *heap;   /* NULL: not loaded */
	struct opening_list openings;
	unsigned openers;
	unsigned settling; /* openings that are being settled: nothing in limbo is freed meanwhile */
	struct pool_epochs epochs;
	struct pool_recovery recovery;
	struct overgrown_watch over;
	struct session *exclusive; /* who alone may open it; NULL: nobody */
	RB_ENTRY(pool) of_name;
};

RB_HEAD(pool_names, pool);

struct pools {
	struct pool *by_id[POOL_ID_MAX + 1];
	struct pool_names by_name; /* those that live or are being created, and have a name */
	bool orphan[POOL_ID_MAX + 1]; /* a directory without a record is in the way */
};

/* What is taken: of everybody, and of one user. Pools being created or destroyed count, and so do those that were
 * destroyed while open: their ids are taken, and their memory is held by who has them mapped. */
struct pools_usage {
	uint32_t pools;
	uint32_t damaged;
	uint32_t held; /* destroyed, and open still */
	uint64_t bytes; /* of all files */
	uint64_t overgrown; /* of these, what clients added */
	uint32_t user_pools;
	uint64_t user_bytes;
};

void pools_init(struct pools *pools);
void pools_deinit(struct pools *pools);
void pools_usage(struct pools_usage *ret, struct nvmmd *nvmmd, uid_t uid);

/* Makes a pool of a record and enters it under its id, which is unused; and its name, if it has one
 * and nobody else has. The caller borrows it; the table's reference goes with pool_rest(). */
int pool_add(struct pool **ret, struct nvmmd *nvmmd, uint16_t id, const struct pool_record *record);
struct pool *pool_ref(struct pool *pool);
void pool_unref(struct pool *pool);
DEFINE_AUTO(struct pool, pool_unref)

/* Gives up what a pool needs only while it is in use, if it is not; and takes it out of the table, if
 * its record is FREE. After the end of a job or an opening; the pool may be gone then. */
void pool_rest(struct pool *pool);

/* Whether the pool was destroyed: its files are removed, or will be. Sessions may have it open still. */
static inline bool pool_is_gone(const struct pool *pool)
{
	return pool->record.kind != 0 && (pool->record.state == POOL_FREE ||
					  pool->record.state == POOL_DESTROYING);
}

/* The live pool of an id or name; NULL: none. Damaged ones are found too. */
struct pool *pool_find(struct nvmmd *nvmmd, uint32_t id);
struct pool *pool_find_name(struct nvmmd *nvmmd, const char *name);
/* Whoever has the name, also while it is created. */
struct pool *pool_by_name(struct nvmmd *nvmmd, const char *name);
/* Enters a pool under a name that nobody has. */
void pool_take_name(struct pool *pool);
void pool_drop_name(struct pool *pool);

/* Reads shelves and lanes of a LIVE record from the pool's files, marking it damaged if they are. */
void pool_load(struct pool *pool);

/* Opens meta if it is not open. -EUCLEAN and others: then the pool is damaged. */
int pool_meta(struct pool *pool, struct meta **ret);

/* Takes the pool out of service, with a reason for status, list and log. The first one stays. */
void pool_damage(struct pool *pool, const char *fmt, ...) _printf(2, 3);

/* Says `r` (-EIO, -EUCLEAN) of a heap's access as damage; other errors are none. Returns r. */
int pool_judge(struct pool *pool, int r, const char *what);

/* Writes the record durably, and keeps it on success. */
int pool_put(struct pool *pool, const struct pool_record *record);
/* The same over a record that is rotten, which it stays until it is this one. */
int pool_replace(struct pool *pool, const struct pool_record *record);

/* Recounts the bytes of its files. */
void pool_recount(struct pool *pool);

/* Starts a job that the pool is busy with: for a request, which waits for it; or on account of a user. */
void pool_job_start(struct pool *pool, struct job *job, struct request *request, enum pool_busy busy);
void pool_job_start_own(struct pool *pool, struct job *job, enum pool_busy busy, enum job_class class,
			uid_t uid);

/* Requests that wait until the pool's job is done. pool_unpark() has them run again soon, a few each turn of the
 * loop, in turn with other users'. A job of another user's that waits is put forward for them. */
void pool_park(struct pool *pool, struct request *request);
void pool_unpark(struct pool *pool);

/* Whoever had it for himself has it with others again: those that waited go on. */
void pool_share(struct pool *pool);

/* Openings */

struct opening *opening_find(struct session *session, const struct pool *pool);
/* Makes one that opens nothing yet. -ENOMEM. */
int opening_new(struct opening **ret, struct session *session, struct pool *pool);
/* Takes it, which has no lanes or whose heap is not loaded, from session and pool; gives up what nobody needs any more. */
void opening_free(struct opening *opening);
/* Counts lanes that were added at the end of its lanes. */
void opening_add_lanes(struct opening *opening, uint32_t n);
/* Forgets the last `n` lanes; it is not being settled any more. */
void opening_drop_lanes(struct opening *opening, uint32_t n);
