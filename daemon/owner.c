/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Owner numbers.
 *
 * A lock word may be read long after its owner: after a reboot, in a restored copy of the base. So a number
 * is never given out twice. It is the node's id and a count. The node file holds, durably, a bound: no count from
 * there on was given out. A start begins at the bound and raises it by a chunk before the first number is used;
 * each chunk that is used up raises it again.
 *
 *   crash after the bound is raised:  the rest of the chunk is never used. 2^40 counts are enough for that.
 *   the node file is lost:            the bound is at least what the clock says, COUNTS_PER_SECOND since 1970.
 *                                     Numbers from before are lower, unless more than that many were used
 *                                     in each second, on average.
 *   the clock goes back:              the bound in the file counts.
 *   a copy of the base goes on:       two bases give out the same numbers, each to locks of its own. What the copy
 *                                     holds is from before the copying, and below the bound that it holds.
 *   the daemon is restarted:          a session's file has its number, and it keeps it.
 */
#include "daemon/owner.h"

#include <errno.h>
#include <string.h>

#include "common/macro.h"
#include "daemon/heap_load.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_ops.h"
#include "daemon/request.h"

#define COUNT_BITS 40
#define COUNT_END (UINT64_C(1) << COUNT_BITS)
#define COUNTS_PER_SECOND 64u
#define CHUNK 4096u
#define OWNERS_MAX 64u /* in one request */

_Static_assert(COUNT_BITS + 8 == OWNER_BITS, "a node's id has 8 bits");

void owner_begin(struct nvmmd *nvmmd)
{
	uint64_t clock = (uint64_t)MAX(nvmmd_now(), 0) * COUNTS_PER_SECOND;

	nvmmd->owner_count = MAX(nvmmd->node.owners, MIN(clock, COUNT_END / 2));
	nvmmd->owner_count = MAX(nvmmd->owner_count, 1u);
	nvmmd->node.owners = nvmmd->owner_count + CHUNK;
}

/* Raises the bound durably. On failure the next number asks for it again. */
static int raise_bound(struct nvmmd *nvmmd)
{
	struct node_record record = nvmmd->node;
	int r;

	record.owners = nvmmd->owner_count + CHUNK;
	r = node_file_put(nvmmd->node_file, &record);
	if (r == 0)
		nvmmd->node.owners = record.owners;
	return r;
}

int owner_next(uint64_t *ret, struct nvmmd *nvmmd)
{
	int r = 0;

	if (nvmmd->owner_count >= COUNT_END)
		return -ENOSPC;
	if (nvmmd->owner_count >= nvmmd->node.owners)
		r = raise_bound(nvmmd);
	if (r < 0)
		return r;
	*ret = (uint64_t)nvmmd->node.node << COUNT_BITS | nvmmd->owner_count++;
	return 0;
}

void owner_known(struct nvmmd *nvmmd, uint64_t owner)
{
	uint64_t count = owner & (COUNT_END - 1);

	if (owner >> COUNT_BITS == nvmmd->node.node)
		nvmmd->owner_count = MAX(nvmmd->owner_count, count + 1);
}

/* What died before this daemon started is settled by loading the heap. REQUEST_PENDING: it will be. */
static int heap_settled(struct request *request, struct pool *pool)
{
	int r = 0;

	if (pool->record.kind == POOL_HEAP && !pool_is_gone(pool) && !pool->damage)
		r = heap_need(request, pool);
	return r == REQUEST_PENDING ? r : 0;
}

/* The pools that the answer is about. */
static int pools_settled(struct request *request, uint32_t id)
{
	struct opening *opening;
	bool found = id == 0;
	int r;

	/* Also one that was destroyed: locks in it are locks still. */
	LIST_FOREACH (opening, &request->session->openings, of_session) {
		if (id != 0 && opening->pool->id != id)
			continue;
		found = true;
		r = heap_settled(request, opening->pool);
		if (r != 0)
			return r;
	}
	return found ? 0 : request_fail(request, -EBADF, "this session does not have pool %u open", id);
}

/* Whether the session of this number may still touch memory, or is not settled. Settling of a dead one begins. */
static bool owner_lives(struct nvmmd *nvmmd, uint64_t owner)
{
	struct session *session = session_of_owner(nvmmd, owner);

	if (!session)
		return false;
	if (!process_ended(session->peer.pidfd))
		return true;
	session_end(session, "its process is gone");
	/* With lanes it is settled in slices: whoever asks, asks again. */
	return session_of_owner(nvmmd, owner) != NULL;
}

int op_owner_state(struct request *request)
{
	const Nvmm__OwnerState *m = request->msg->owner_state;
	Nvmm__OwnersReply *reply = request_alloc(request, sizeof(*reply));
	int r;

	if (m->n_owners > OWNERS_MAX)
		return request_fail(request, -E2BIG, "at most %u owners are asked for at once",
				    OWNERS_MAX);
	if (reply) {
		nvmm__owners_reply__init(reply);
		reply->living = request_alloc(request, (m->n_owners + 1) * sizeof(*reply->living));
	}
	if (!reply || !reply->living)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	r = pools_settled(request, m->id);
	if (r != 0)
		return r;
	for (size_t i = 0; i < m->n_owners; i++)
		if (owner_lives(request->nvmmd, m->owners[i]))
			reply->living[reply->n_living++] = m->owners[i];
	request->reply.result_case = NVMM__REPLY__RESULT_OWNERS;
	request->reply.owners = reply;
	return 0;
}
