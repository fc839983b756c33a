/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Waiting for the dead to be settled.
 *
 * A process that waits for a lock finds that its holder is dead sooner, perhaps, than the daemon's loop hears
 * of it. So it asks: whoever of the pool's openers is dead by now is settled before the answer. Those that
 * died before the daemon started are settled by loading the heap, for which the request waits. The kernel gives a
 * dying process's locks to others before it says that the process has ended; while there is such a one, the
 * answer is -EINPROGRESS, and the client asks again: so nothing is kept for who waits.
 */
#include <errno.h>

#include "daemon/heap_load.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_ops.h"
#include "daemon/request.h"

/* A dead session that has the pool open; NULL: there is none. *dying: the pid of one that will be, or 0. */
static struct session *find_dead(const struct pool *pool, pid_t *dying)
{
	const struct opening *opening;

	*dying = 0;
	LIST_FOREACH (opening, &pool->openings, of_pool) {
		const struct peer *peer = &opening->session->peer;
		/* In this order: one that dies meanwhile is seen as either. */
		bool soon = process_dying(peer->process.pid);

		if (process_ended(peer->pidfd))
			return opening->session;
		if (soon)
			*dying = peer->process.pid;
	}
	return NULL;
}

int op_settle_wait(struct request *request)
{
	uint32_t id = request->msg->settle_wait->id;
	struct opening *opening;
	struct session *dead;
	struct pool *pool;
	pid_t dying;
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
	while ((dead = find_dead(pool, &dying))) {
		request->nvmmd->counters.sessions_settled++;
		session_end(dead, "its process is gone");
	}
	if (pool->damage)
		return request_fail(request, -EUCLEAN, "pool %u is damaged: %s", id, pool->damage);
	if (dying != 0)
		return request_fail(request, -EINPROGRESS, "process %d is dying", (int)dying);
	return 0;
}
