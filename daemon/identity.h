/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which user and group ids the daemon can tell apart.
 *
 * In a user namespace that maps only some ids, the kernel shows every other user as one number, the
 * overflow id (usually 65534). Such a number names nobody: two users that have it are not the same.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/peer.h"

struct identity {
	uid_t overflow_uid;
	gid_t overflow_gid;
	bool uids_partial; /* the namespace does not map every uid */
	bool gids_partial;
};

/* Reads the maps and the overflow ids below `proc` (a directory, usually /proc). A kernel without user
 * namespaces has no maps, and all ids. 0 or -errno of open(2), read(2). */
int identity_read(struct identity *ret, const char *proc);

/* Whether the text of a uid_map or gid_map covers every id. */
bool identity_map_whole(const char *map);

/* Whether a uid or gid is the number of ids that the namespace does not map. */
bool identity_uid_unknown(const struct identity *identity, uid_t uid);
bool identity_gid_unknown(const struct identity *identity, gid_t gid);

/* Takes from a peer the groups that nobody can tell apart: they grant nothing then. */
void identity_strip_groups(const struct identity *identity, struct peer *peer);
