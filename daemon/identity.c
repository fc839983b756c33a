/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * User and group ids in user namespaces.
 *
 * The initial namespace maps every id: there the overflow number is the ordinary user `nobody`, and is
 * served like others. A namespace that maps fewer ids may map the overflow number, too. Then it
 * still stands for all unmapped users as well, and nobody can tell which of them asks.
 *
 * The kernel checks that a child namespace maps only what its parent maps. So a map that covers all ids
 * means that the peer's numbers are true, however deep the namespace is.
 */
#include "daemon/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/text.h"
#include "daemon/access.h"

#define OVERFLOW_ID 65534u      /* the kernel's default */
#define IDS_ALL UINT64_C(0xffffffff) /* ids 0 to 2^32-2; the last number is none */
#define MAP_LINES 340u          /* the kernel's UID_GID_MAP_MAX_EXTENTS */
#define MAP_BYTES (MAP_LINES * 36u)

static int read_text(char *buf, size_t room, const char *proc, const char *name)
{
	_auto_fd int fd = -1;
	size_t len = 0;
	char path[256];
	ssize_t n = 0;

	snprintf(path, sizeof(path), "%s/%s", proc, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (len < room - 1 && (n = read(fd, buf + len, room - 1 - len)) > 0)
		len += (size_t)n;
	if (n < 0)
		return -errno;
	buf[len] = '\0';
	return 0;
}

bool identity_map_whole(const char *map)
{
	uint64_t count = 0, inside, n;
	int used;

	/* The kernel refuses ranges that overlap: so their lengths alone tell. */
	while (sscanf(map, " %" SCNu64 " %*u %" SCNu64 "%n", &inside, &n, &used) == 2) {
		count += n;
		map += used;
	}
	return count >= IDS_ALL;
}

static uint32_t read_overflow(const char *proc, const char *name)
{
	char text[32];
	uint64_t id;

	if (read_text(text, sizeof(text), proc, name) < 0)
		return OVERFLOW_ID;
	text[strcspn(text, "\n")] = '\0';
	return text_parse_u64(&id, text, UINT32_MAX) < 0 ? OVERFLOW_ID : (uint32_t)id;
}

/* 1: it maps fewer than all; 0: all, or a kernel without user namespaces. */
static int map_partial(const char *proc, const char *name)
{
	char *map = malloc(MAP_BYTES);
	int r = map ? read_text(map, MAP_BYTES, proc, name) : -ENOMEM;

	if (r == 0)
		r = !identity_map_whole(map);
	free(map);
	return r == -ENOENT ? 0 : r;
}

int identity_read(struct identity *ret, const char *proc)
{
	int uids = map_partial(proc, "self/uid_map"), gids = map_partial(proc, "self/gid_map");

	if (uids < 0 || gids < 0)
		return uids < 0 ? uids : gids;
	*ret = (struct identity){
		.overflow_uid = read_overflow(proc, "sys/kernel/overflowuid"),
		.overflow_gid = read_overflow(proc, "sys/kernel/overflowgid"),
		.uids_partial = uids,
		.gids_partial = gids,
	};
	return 0;
}

bool identity_uid_unknown(const struct identity *identity, uid_t uid)
{
	return identity->uids_partial && uid == identity->overflow_uid;
}

bool identity_gid_unknown(const struct identity *identity, gid_t gid)
{
	return identity->gids_partial && gid == identity->overflow_gid;
}

void identity_strip_groups(const struct identity *identity, struct peer *peer)
{
	size_t n = 0;

	if (identity_gid_unknown(identity, peer->gid))
		peer->gid = ACCESS_NO_GROUP;
	for (size_t i = 0; i < peer->n_groups; i++)
		if (!identity_gid_unknown(identity, peer->groups[i]))
			peer->groups[n++] = peer->groups[i];
	peer->n_groups = n;
}
