/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Waiting for the dead to be settled.
 *
 * A process that waits for a lock finds that its holder is dead sooner, perhaps, than the daemon's loop hears
 * of it. So it asks: the sessions of all openers that are dead by now end, and are settled before the answer. Those that
 * died before the daemon started are settled by loading the heap, for which the request waits. The kernel gives a
 * dying process's locks to others before it says that the process has ended; while there is such a one, the
 * answer is -EINPROGRESS, and the client asks again: so nothing is kept for who waits. Openers may be thousands, so they
 * are looked at in slices.
 */
#include <errno.h>

#include "common/macro.h"
#include "daemon/heap_load.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_ops.h"
#include "daemon/request.h"

#define LOOK_NS UINT64_C(100000) /* of one look: /proc is read for each opener, which takes some 20 us */

/* Ends the session if its process is dead; whether it is about to be. `same`: an opening of the same process that was
 * just looked at, or NULL. */
static bool look_at(struct session *session, const struct opening *same)
{
	/* In this order: one that dies meanwhile is seen as either. */
	bool soon = same ? same->dying : process_dying(session->peer.process.pid);

	if (!process_ended(session->peer.pidfd))
		return soon;
	session_end(session, "its process is gone");
	return false;
}

/*
 * Ends the dead sessions that have the pool open: for LOOK_NS at most. Whether all were looked at; then *dying is the
 * pid of a process that is dying, or 0. Who waits at the same time shares the looks: one that began later is as good.
 */
static bool end_dead(const struct pool *pool, uint64_t look, pid_t *dying)
{
	uint64_t until = uv_hrtime() + LOOK_NS;
	struct opening *opening, *before = NULL;

	*dying = 0;
	LIST_FOREACH (opening, &pool->openings, of_pool) {
		if (opening->session->ended)
			continue;
		if (opening->looked < look) {
			if (uv_hrtime() >= until)
				return false;
			opening->looked = pool->nvmmd->settler.looks;
			if (before && before->session->peer.process.pid != opening->session->peer.process.pid)
				before = NULL;
			opening->dying = look_at(opening->session, before);
			before = opening;
		}
		if (opening->dying)
			*dying = opening->session->peer.process.pid;
	}
	return true;
}

static void look_again(struct job *job, int r)
{
	struct request *request = container_of(job, struct request, resume);

	if (r < 0)
		request_finish(request, request_fail(request, r, "nvmmd stops"));
	else
		request_run(request);
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
		if (request->look == 0)
			request->look = ++request->nvmmd->settler.looks;
		if (!end_dead(pool, request->look, &request->dying)) {
			request->resume.done = look_again;
			job_pause(&request->resume, request->nvmmd, request_peer(request)->uid);
			return REQUEST_PENDING;
		}
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
