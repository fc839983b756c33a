/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Settling in slices.
 *
 * A client can hold thousands of lanes in each of many pools, and what it wrote there decides how long settling them
 * takes. So a session that ends is settled opening by opening, and an opening lane by lane, with the requests
 * of others in between: a turn of the loop has a fixed share of time for it. Users take turns, and so do the
 * openings of a user.
 *
 * Until an opening is settled it counts as one: its session's pins stand, its lanes are given to nobody, and the pool's
 * id, heap and exclusive use stay as they are. Requests that need more wait for it: SettleWait, a grant that found no
 * room, PoolDestroy. media/grant_lanes.c says why the steps may be apart.
 *
 * The daemon may die between two steps. A dead session's file is there until all is settled; the next daemon
 * finds the process dead, tells of it, and settles all lanes that nobody has when it loads the heap. A session
 * that said Goodbye loses its file first: its process lives, and the next daemon is not to wait for it. Lanes that
 * come back are settled, then taken from the session's file, then free: so no two files name a lane.
 *
 * An opening whose heap is being loaded waits for that. One whose heap is not loaded has nothing to settle: its lanes
 * are nobody's when the heap is loaded.
 */
#include "daemon/settle.h"

#include <errno.h>
#include <string.h>

#include "daemon/epochs.h"
#include "daemon/failures.h"
#include "daemon/nvmmd.h"
#include "daemon/request.h"
#include "daemon/user.h"

uint64_t settle_slice_ns = 200000;

/* Queues */

static void settle_turn(uv_idle_t *idle)
{
	struct settler *settler = &((struct nvmmd *)idle->data)->settler;
	uint64_t until = uv_hrtime() + settle_slice_ns;
	struct settle_work *work;
	struct user *user;

	while ((user = TAILQ_FIRST(&settler->users))) {
		work = TAILQ_FIRST(&user->settling);
		TAILQ_REMOVE(&settler->users, user, of_settler);
		TAILQ_INSERT_TAIL(&settler->users, user, of_settler);
		TAILQ_REMOVE(&user->settling, work, of_user);
		TAILQ_INSERT_TAIL(&user->settling, work, of_user);
		work->step(work);
		if (uv_hrtime() >= until)
			break;
	}
	if (!TAILQ_EMPTY(&settler->users))
		return;
	uv_idle_stop(idle);
	nvmmd_stop_if_idle(idle->data);
}

void settler_init(struct nvmmd *nvmmd)
{
	struct settler *settler = &nvmmd->settler;

	TAILQ_INIT(&settler->users);
	uv_idle_init(&nvmmd->loop, &settler->idle);
	settler->idle.data = nvmmd;
	settler->ready = true;
}

void settler_close(struct nvmmd *nvmmd)
{
	if (nvmmd->settler.ready)
		uv_close((uv_handle_t *)&nvmmd->settler.idle, NULL);
	nvmmd->settler.ready = false;
}

bool settler_busy(const struct nvmmd *nvmmd)
{
	return nvmmd->settler.ready && !TAILQ_EMPTY(&nvmmd->settler.users);
}

static void enqueue(struct nvmmd *nvmmd, struct settle_work *work, struct user *user)
{
	if (work->user)
		return;
	if (TAILQ_EMPTY(&user->settling))
		TAILQ_INSERT_TAIL(&nvmmd->settler.users, user, of_settler);
	TAILQ_INSERT_TAIL(&user->settling, work, of_user);
	work->user = user_ref(user);
	if (nvmmd->settler.ready)
		uv_idle_start(&nvmmd->settler.idle, settle_turn);
}

void settle_forget(struct settle_work *work)
{
	struct user *user = take(work->user);

	if (!user)
		return;
	TAILQ_REMOVE(&user->settling, work, of_user);
	if (TAILQ_EMPTY(&user->settling))
		TAILQ_REMOVE(&user->nvmmd->settler.users, user, of_settler);
	user_unref(user);
}

/* Openings */

/* What became of the lanes that were settled, for the heap. */
static void end_lanes(struct opening *opening, int r, int saved)
{
	struct pool *pool = opening->pool;

	if (!pool->heap || !opening->begun)
		return;
	heap_service_settle_end(&opening->settle, r < 0 ? HEAP_LANE_BAD :
						  saved < 0 ? HEAP_LANE_LOST : HEAP_LANE_FREE);
	opening->begun = false;
}

/* Takes the lanes that were settled, `r`, from the opening, its session's file and the heap. */
static void take_settled(struct opening *opening, int r)
{
	struct session *session = opening->session;
	struct pool *pool = opening->pool;
	uint32_t n = opening->n_settling;
	int saved = 0;

	opening_drop_lanes(opening, n);
	if (opening->closing)
		opening->write = opening->closing = false;
	if (!session->ended)
		saved = session_save(session);
	if (saved < 0)
		client_log(session->nvmmd, CLIENT_COMPLAINT, session->peer.uid,
			   "session %llu: its file cannot be written: %s",
			    (unsigned long long)session->id, strerror(-saved));
	end_lanes(opening, r, saved);
	pool->nvmmd->counters.lanes_settled += n;
	pool_judge(pool, r, "settling lanes");
	/* Unsettled, they may yet free blocks by a log: nothing must be reclaimed meanwhile. */
	if (r < 0)
		pool_damage(pool, "%u lanes of a dead process cannot be settled: %s; restart nvmmd", n,
			    strerror(-r));
	/* The dead may have freed with delay and not said so. */
	if (n > 0)
		epochs_kick(pool);
}

static void answer(struct request *request, const struct pool *pool)
{
	int r = 0;

	if (!request)
		return;
	if (pool->damage && request->op->handle == op_lane_return)
		r = request_fail(request, -EUCLEAN, "pool %u is damaged: %s", pool->id, pool->damage);
	request_finish(request, r);
}

static void opening_settled(struct opening *opening, int r)
{
	struct session *session = session_ref(opening->session);
	struct request *request = take(opening->request);
	struct pool *pool = pool_ref(opening->pool);

	settle_forget(&opening->work);
	take_settled(opening, r);
	if (session->died)
		failures_note(opening);
	if (session->ended || (!opening->read && !opening->write))
		opening_free(opening);
	answer(request, pool);
	if (session->ended && LIST_EMPTY(&session->openings))
		enqueue(session->nvmmd, &session->work, session->user);
	pool_unpark(pool);
	pool_unref(pool);
	session_unref(session);
}

static void opening_step(struct settle_work *work)
{
	struct opening *opening = container_of(work, struct opening, work);
	struct pool *pool = opening->pool;
	int r = 0;

	if (opening->n_settling > 0 && pool->busy == POOL_BUSY_LOADING) {
		settle_forget(work);
		return;
	}
	if (opening->n_settling > 0 && pool->heap && !opening->begun) {
		r = heap_service_settle_begin(&opening->settle, pool->heap, opening->session->id,
					      opening->lanes + opening->n_lanes - opening->n_settling,
					      opening->n_settling);
		opening->begun = r == 0;
	}
	if (opening->n_settling > 0 && pool->heap && r == 0)
		r = heap_service_settle_step(&opening->settle);
	if (r <= 0)
		opening_settled(opening, r);
}

static void begin(struct opening *opening, uint32_t n)
{
	struct nvmmd *nvmmd = opening->pool->nvmmd;

	opening->n_settling = n;
	opening->begun = false;
	opening->pool->settling += !opening->settling;
	opening->settling = true;
	opening->number = ++nvmmd->settler.last;
	opening->work.step = opening_step;
	enqueue(nvmmd, &opening->work, opening->session->user);
}

void settle_lanes(struct opening *opening, uint32_t n, bool close, struct request *request)
{
	opening->closing = close;
	opening->request = request;
	begin(opening, n);
}

void settle_resume(struct pool *pool)
{
	struct opening *opening;

	LIST_FOREACH (opening, &pool->openings, of_pool) {
		if (!opening->settling)
			continue;
		opening->begun = false;
		enqueue(pool->nvmmd, &opening->work, opening->session->user);
	}
}

bool settle_pending(const struct pool *pool, uint64_t upto)
{
	const struct opening *opening;

	LIST_FOREACH (opening, &pool->openings, of_pool)
		if (opening->session->ended && opening->number <= upto)
			return true;
	return false;
}

/* Sessions */

static void session_step(struct settle_work *work)
{
	struct session *session = container_of(work, struct session, work);

	settle_forget(work);
	session_remove(session);
}

void settle_session(struct session *session)
{
	struct opening *opening;

	session->work.step = session_step;
	if (LIST_EMPTY(&session->openings))
		enqueue(session->nvmmd, &session->work, session->user);
	/* One that gave lanes back when it ended is settled with all that it has. */
	LIST_FOREACH (opening, &session->openings, of_session)
		begin(opening, opening->n_lanes);
}
