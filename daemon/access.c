/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Access to pools.
 *
 * The rules are those of files, so that nobody has to learn others: the owner is judged by the
 * owner's bits even where others have more, a member of the group by the group's. Administrators
 * are root, the daemon's own user (who could open the files anyway), and members of a configured
 * group. Anybody who may connect may list and stat pools. Pure functions: what they are given is
 * all they know.
 */
#include "daemon/access.h"

#include <errno.h>

bool access_is_admin(const struct access_admin *admin, const struct peer *peer)
{
	if (peer->uid == 0 || peer->uid == admin->uid)
		return true;
	return admin->gid != ACCESS_NO_GROUP && peer_in_group(peer, admin->gid);
}

static unsigned access_bits(const struct peer *peer, const struct pool_record *pool)
{
	if (peer->uid == pool->uid)
		return pool->mode >> 6 & 7;
	if (peer_in_group(peer, pool->gid))
		return pool->mode >> 3 & 7;
	return pool->mode & 7;
}

int access_open(const struct access_admin *admin, const struct peer *peer,
		const struct pool_record *pool, unsigned want)
{
	if (access_is_admin(admin, peer))
		return 0;
	return (access_bits(peer, pool) & want) == want ? 0 : -EACCES;
}

int access_change(const struct access_admin *admin, const struct peer *peer,
		  const struct pool_record *pool)
{
	return peer->uid == pool->uid || access_is_admin(admin, peer) ? 0 : -EPERM;
}

int access_chown(const struct access_admin *admin, const struct peer *peer,
		 const struct pool_record *pool, uint32_t uid, uint32_t gid)
{
	if (access_is_admin(admin, peer))
		return 0;
	if (peer->uid != pool->uid || (uid != UINT32_MAX && uid != pool->uid))
		return -EPERM;
	return gid == UINT32_MAX || gid == pool->gid || peer_in_group(peer, gid) ? 0 : -EPERM;
}
