/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who may do what to a pool: its owner, group and mode against the peer, as for files.
 */
#pragma once

#include <stdbool.h>

#include "daemon/peer.h"
#include "media/registry.h"

#define ACCESS_READ 4u
#define ACCESS_WRITE 2u

#define ACCESS_NO_GROUP ((gid_t)-1)

/* Who stands above pools' modes, besides root. */
struct access_admin {
	uid_t uid; /* the daemon's own */
	gid_t gid; /* members of this group; ACCESS_NO_GROUP: none */
};

bool access_is_admin(const struct access_admin *admin, const struct peer *peer);

/*
 * Whether the peer may open the pool for `want` (ACCESS_READ, with ACCESS_WRITE). The first that
 * matches of owner, group and others decides alone. 0 or -EACCES.
 */
int access_open(const struct access_admin *admin, const struct peer *peer,
		const struct pool_record *pool, unsigned want);

/* Whether the peer may change mode, size or existence of the pool: its owner, an administrator.
 * 0 or -EPERM. */
int access_change(const struct access_admin *admin, const struct peer *peer,
		  const struct pool_record *pool);

/* Whether the peer may give the pool to uid and gid ((uint32_t)-1: as it is): administrators to anybody,
 * the owner to a group of his own. 0 or -EPERM. */
int access_chown(const struct access_admin *admin, const struct peer *peer,
		 const struct pool_record *pool, uint32_t uid, uint32_t gid);
