/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The registry: which pools there are. One writer, the daemon's loop thread; entries are reserved
 * chunk by chunk, so that writing one never faults.
 */
#pragma once

#include "media/format.h"

/* A pool's record in plain fields. */
struct pool_record {
	uint16_t pool;
	enum pool_kind kind;
	enum pool_state state;
	uint16_t home;
	enum durability durability;
	uint8_t flags;
	uint64_t incarnation;
	uint32_t uid;
	uint32_t gid;
	uint32_t mode;
	uint32_t min_block;
	uint64_t size;
	uint64_t created;
	uint8_t cookie[16];
	uint64_t op_seq;
	char name[POOL_NAME_MAX + 1];
	uint8_t priority;
};

struct registry;

/*
 * Opens `<base>/registry`, creating it if it is not there; `base_fd` is borrowed. A registry that
 * cannot be trusted as a whole (header, length) is refused: -EUCLEAN, *why (static) says what; the
 * file is untouched.
 */
int registry_new(struct registry **ret, int base_fd, uint16_t node, const char **why);
/* The same for reading alone: nothing is made or changed. -ENOENT. */
int registry_view(struct registry **ret, int base_fd, const char **why);
void registry_free(struct registry *registry);

/*
 * Reads pool `id` (1..POOL_ID_MAX). 1: *ret is filled (state may be POOL_FREE: the id's tombstone);
 * 0: never used; -EUCLEAN: rotten, *why says what. Values are validated: kind, state, name
 * (terminated, well-formed), min_block, size, id.
 */
int registry_get(struct registry *registry, uint16_t id, struct pool_record *ret,
		 const char **why);

/* Highest id whose chunk is in use: scans go to it. */
uint16_t registry_last(struct registry *registry);

/*
 * Writes the record of record->pool; crash-atomic and durable on return. On failure the record is
 * as before. -EINVAL: what registry_get() would not accept; -ENOSPC; -EUCLEAN: the record there is
 * rotten; -EIO.
 */
int registry_put(struct registry *registry, const struct pool_record *record);

/* For repair: registry_put() over a record that is rotten, which it stays until it is the new one. */
int registry_replace(struct registry *registry, const struct pool_record *record);

/* What can be read of a record that is rotten, perhaps the one before it. False: nothing. */
bool registry_salvage(struct registry *registry, uint16_t id, struct pool_record *ret);

/* Whether `name` may name a pool: 1..63 bytes, UTF-8 or ASCII without '/' or control bytes, not "."
 * or "..". */
bool registry_name_ok(const char *name, size_t len);
