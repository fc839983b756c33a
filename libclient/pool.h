/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A pool that this connection has open: one object for all handles on it.
 */
#pragma once

#include "libclient/lanes.h"
#include "libclient/shelf.h"

struct pool {
	struct nvmm_client *nvmm;
	nvmm_pool_id id;
	uint64_t incarnation;
	enum nvmm_pool_kind kind;
	enum nvmm_durability durability;
	uint32_t min_block;
	uint64_t bytes; /* when it was opened */

	/* Guarded by open_lock. */
	unsigned refs;    /* handles; one more for `implicit` */
	bool implicit;    /* nvmm_local() or nvmm_map() opened it, and it was not released since */
	unsigned writers; /* handles for writing */
	bool read_open;   /* the daemon counts an opening for reading, */
	bool write_open;  /*   for writing */
	uint32_t shelves; /* as far as known */
	struct shelf_map *map[POOL_SHELVES_MAX];

	/* Heaps. */
	struct heap heap;
	struct area lanes_area;
	struct lanes *lanes; /* while there are writers; the process lock, too */
};

/* Takes open_lock until the call's deadline; *locked is for _gate. -ETIMEDOUT. Text set. */
int pool_lock(struct nvmm_client *nvmm, struct gate **locked);

/*
 * All below: open_lock held, entered, texts set.
 *
 * Opens the pool, or takes a reference to it. `kind` 0: any. -EINVAL: of another kind; -ENOENT;
 * -EACCES; -EUCLEAN; those of call_daemon().
 */
int pool_open(struct pool **ret, struct nvmm_client *nvmm, nvmm_pool_id id, unsigned kind, bool write);
/* Gives up a reference; the last one unmaps and tells the daemon. */
void pool_close(struct pool *pool, bool write);

/* The pool of a pointer: if it is not open, it is opened until pool_release(), for writing if
 * that is allowed. `write`: it must be open for writing. */
int pool_open_implicit(struct pool **ret, struct nvmm_client *nvmm, nvmm_pool_id id, bool write);

/*
 * Gives up what pool_open_implicit() opened. 0 also if there is nothing to give up; -EBUSY: handles
 * on the pool exist, it stays as it is.
 */
int pool_release(struct nvmm_client *nvmm, nvmm_pool_id id);

/* Asks for a shelf's size and descriptors, of which the first is the shelf itself. */
int pool_ask_shelf(struct pool *pool, unsigned index, bool write, struct nvmm_reply *reply);
/* Maps a shelf, or learns how far a mapped one has grown. */
int pool_map_shelf(struct pool *pool, unsigned index, struct shelf_map **ret);

/* Forgets all pools, as far as this process goes: lanes are emptied, shelves unmapped. */
void pools_free_all(struct nvmm_client *nvmm);

/* Lanes that came late, for the pool if it is still open. No lock held but call_lock. */
void pool_add_lanes(struct nvmm_client *nvmm, nvmm_pool_id id, const Nvmm__Lanes *lanes);
