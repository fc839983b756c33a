/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Waiting for the dead to be settled.
 *
 * A process that waits for a lock finds that its holder is dead sooner, perhaps, than the daemon's loop hears
 * of it. So it asks: the sessions of all openers that are dead by now end, and are settled before the answer. Those that
 * died before the daemon started are settled by loading the heap, for which the request waits. The kernel gives a
 * dying process's locks to others before it says that the process has ended; while there is such a one, the
 * answer is -EINPROGRESS, and the client asks again: so nothing is kept for who waits.
 */
#include <errno.h>

#include "daemon/heap_load.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_ops.h"
#include "daemon/request.h"

/* Ends the dead sessions that have the pool open. The pid of a process that is dying, or 0. */
static pid_t end_dead(const struct pool *pool)
{
	const struct opening *opening;
	pid_t dying = 0;

	LIST_FOREACH (opening, &pool->openings, of_pool) {
		struct session *session = opening->session;
		bool soon;

		if (session->ended)
			continue;
		/* In this order: one that dies meanwhile is seen as either. */
		soon = process_dying(session->peer.process.pid);
		if (process_ended(session->peer.pidfd))
			session_end(session, "its process is gone");
		else if (soon)
			dying = session->peer.process.pid;
	}
	return dying;
}

int op_settle_wait(struct request *request)
{
	uint32_t id = request->msg->settle_wait->id;
	struct opening *opening;
	struct pool *pool;
	int r;

	r = opening_need(request, id, false, &opening);
	if (r < 0)
		return r;
	pool = opening->pool;
	if (pool->record.kind != POOL_HEAP)
		return request_fail(request, -EINVAL, "pool %u is a region, not a heap", id);
	r = heap_need(request, pool);
	if (r != 0)
		return r;
	if (request->settle_upto == 0) {
		request->dying = end_dead(pool);
		request->settle_upto = request->nvmmd->settler.last + 1;
	}
	/* Those that began to be settled later died later. */
	if (settle_pending(pool, request->settle_upto - 1)) {
		pool_park(pool, request);
		return REQUEST_PENDING;
	}
	if (pool->damage)
		return request_fail(request, -EUCLEAN, "pool %u is damaged: %s", id, pool->damage);
	if (request->dying != 0)
		return request_fail(request, -EINPROGRESS, "process %d is dying", (int)request->dying);
	return 0;
}
