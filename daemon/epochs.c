/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rounds of reclamation.
 *
 * While any pool has something in limbo a timer ticks, every epoch.interval; else nothing runs. A
 * tick takes a snapshot of what is in limbo in each active pool that has none waiting, stamps all
 * of these with the number, raises it, passes a barrier, scans the slots once, and frees each
 * pool's snapshot that is ripe for the sessions that have the pool open: without readers, all in
 * one tick. A snapshot that is not ripe waits, and with it what comes after in that pool, which
 * would have to wait for the same reader; the other pools go on. The number rises all the same, so
 * that one who leaves and enters is told from one who stays.
 *
 * Long work is cut: a tick looks at a bounded number of spans of each pool, and at pools for a bounded time. If there
 * are more, the next one follows at once, with whatever else the loop has to do in between. So is the look at
 * the slots, which is a pass: it goes on for PASS_NS, then at the loop's next turn. What a
 * session's slots said earlier in the pass is as good as what they say at its end: all of it is
 * after the barrier. Requests that need a look wait for a pass that begins after they came; one
 * pass serves all of them.
 *
 * Waking. A client that frees with delay in a heap that nobody looks at rings: it adds to an
 * eventfd of its session. That needs neither a reply nor a living daemon: the next one looks at
 * each heap that it loads, and it loads those that a living session can write to. The daemon never
 * reads an eventfd: an edge-triggered epoll tells of each addition, and a client that took what it
 * added, or filled it up, would harm itself alone. After some bells the daemon is deaf for a while,
 * the longer the more it had to look at. Where epoll is not to be had, active pools stay active.
 *
 * Without the barrier nothing is freed: the daemon says so and goes on with all else.
 */
#include "daemon/epochs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/heap_load.h"
#include "daemon/nvmmd.h"
#include "daemon/request.h"
#include "media/barrier.h"
#include "media/limbo.h"

#define DIRECTORY "epochs"
#define PAGE "page"
#define TICK_SPANS 16384u  /* that a tick looks at in one pool */
#define TICK_WORDS 65536u  /* that a tick frees in one pool */
#define ROUND_NS UINT64_C(500000) /* that a tick takes snapshots, and that it frees; then it ends, and others have a turn */
#define URGENT_MS 1u       /* between ticks while an allocation waits */
#define ROUNDS_MAX 4u      /* that an allocation runs at once, */
#define PATIENCE_TICKS 5u  /* and waits for readers, */
#define PATIENCE_MIN_MS UINT64_C(50) /* or this long if that is more, */
#define PATIENCE_MAX_MS UINT64_C(1000) /* but no longer than this */
#define PASS_NS UINT64_C(500000) /* that a pass looks at slots, in a turn of the loop */
#define BELLS 64         /* heard at once, */
#define EARS_MS 2u       /* then none for so long, */
#define EARS_POOLS 1024u /* and a millisecond more for so many pools that were looked at for them */

static void tick(struct nvmmd *nvmmd);

/* Page and directory */

static int map_page(struct epochs *e)
{
	int fd = openat(e->dir, PAGE, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	void *addr;
	int r;

	if (fd < 0)
		return -errno;
	/* The page itself too: a store to one that the file system has no room for is SIGBUS. */
	r = -posix_fallocate(fd, 0, sizeof(struct epoch_page));
	if (r == 0) {
		addr = mmap(NULL, sizeof(struct epoch_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		r = addr == MAP_FAILED ? -errno : 0;
		e->page = r < 0 ? NULL : addr;
	}
	close(fd);
	return r;
}

int epochs_init(struct nvmmd *nvmmd)
{
	struct epochs *e = &nvmmd->epochs;
	int r = 0;

	e->dir = -1;
	e->bells = -1;
	TAILQ_INIT(&e->active);
	TAILQ_INIT(&e->asking);
	keep_init(&e->keep);
	if (mkdirat(nvmmd->runtime_fd, DIRECTORY, 0700) < 0 && errno != EEXIST)
		r = -errno;
	if (r == 0) {
		e->dir = openat(nvmmd->runtime_fd, DIRECTORY,
				O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		r = e->dir < 0 ? -errno : map_page(e);
	}
	if (r < 0) {
		log_error("%s/%s: %s", nvmmd->config.runtime, DIRECTORY, strerror(-r));
		return r;
	}
	/* Whatever number a reader may have stored is below. */
	epoch_page_init(e->page);
	epoch_set_interval(e->page, nvmmd->config.epoch.interval);
	/* They may have missed what the daemon before this one would have told them. */
	epoch_page_call(e->page);
	return 0;
}

void epochs_deinit(struct nvmmd *nvmmd)
{
	struct epochs *e = &nvmmd->epochs;

	if (e->page)
		munmap(e->page, sizeof(*e->page));
	if (e->bells >= 0)
		close(e->bells);
	if (e->dir >= 0)
		close(e->dir);
	e->page = NULL;
	e->bells = e->dir = -1;
}

/* Ticks */

static void timer_fired(uv_timer_t *timer)
{
	tick(timer->data);
}

/* The next tick in `ms`, unless one comes earlier. */
static void tick_in(struct nvmmd *nvmmd, uint64_t ms)
{
	uv_timer_t *timer = &nvmmd->epochs.timer;

	if (!nvmmd->epochs.started || nvmmd->stopped)
		return;
	if (uv_is_active((uv_handle_t *)timer) && uv_timer_get_due_in(timer) <= ms)
		return;
	uv_timer_start(timer, timer_fired, ms, 0);
}

void epochs_kick(struct pool *pool)
{
	struct nvmmd *nvmmd = pool->nvmmd;
	struct pool_epochs *p = &pool->epochs;

	if (!pool->heap || pool->damage || !nvmmd->epochs.started || nvmmd->stopped)
		return;
	if (!p->active) {
		pool_judge(pool, limbo_watch(heap_service_limbo(pool->heap)), "looking for limbo");
		p->active = true;
		p->phase = EPOCH_SNAPSHOT;
		pool_ref(pool);
		TAILQ_INSERT_TAIL(&nvmmd->epochs.active, pool, epochs.of_active);
	}
	tick_in(nvmmd, nvmmd->config.epoch.interval);
}

/* Begins the requests again that wait for the pool. */
static void resume_waiting(struct pool *pool)
{
	struct epoch_requests list = TAILQ_HEAD_INITIALIZER(list);
	struct request *request;

	TAILQ_CONCAT(&list, &pool->epochs.waiting, of_epochs);
	while ((request = TAILQ_FIRST(&list))) {
		TAILQ_REMOVE(&list, request, of_epochs);
		request_run(request);
	}
}

static void deactivate(struct pool *pool)
{
	TAILQ_REMOVE(&pool->nvmmd->epochs.active, pool, epochs.of_active);
	pool->epochs.active = false;
	resume_waiting(pool);
	pool_unref(pool);
}

/* Passes all registered threads a barrier. False: it did not work; nothing is freed then. */
static bool pass_barrier(struct nvmmd *nvmmd)
{
	if (barrier_all()) {
		nvmmd->epochs.barrier_failed = false;
		nvmmd->epochs.passed = epoch_current(nvmmd->epochs.page);
		return true;
	}
	if (!nvmmd->epochs.barrier_failed)
		log_error("membarrier: %s: what is freed with delay stays in limbo until it works",
			  strerror(errno));
	nvmmd->epochs.barrier_failed = true;
	return false;
}

/* Passes */

/* Begins a pass: raises the number and, unless the last barrier will do, passes one. */
static void pass_begin(struct nvmmd *nvmmd, bool barrier)
{
	struct epoch_pass *pass = &nvmmd->epochs.pass;

	pass->stamp = epoch_raise(nvmmd->epochs.page);
	pass->passed = barrier && pass_barrier(nvmmd);
	/* One who entered below this is seen in its slot, or has left. */
	pass->oldest = nvmmd->epochs.passed;
	pass->session = 0;
	pass->number++;
	pass->running = true;
	nvmmd->epochs.asked = false;
}

/* Goes on with the pass; whether it is done. */
static bool pass_go(struct nvmmd *nvmmd)
{
	struct epoch_pass *pass = &nvmmd->epochs.pass;
	uint64_t until = uv_hrtime() + PASS_NS;
	struct session *session;

	while ((session = session_after(nvmmd, pass->session))) {
		if (!session_epochs_scan(session, until))
			return false;
		if (session->epochs.oldest != 0)
			pass->oldest = MIN(pass->oldest, session->epochs.oldest);
		pass->session = session->id;
		if (uv_hrtime() >= until && session_after(nvmmd, session->id))
			return false;
	}
	pass->running = false;
	pass->done = pass->number;
	epoch_publish_frontier(nvmmd->epochs.page, pass->oldest);
	return true;
}

/* Those that wait for the pass that has ended go on; those that came after it had begun wait for
 * the next one. */
static void resume_asking(struct nvmmd *nvmmd)
{
	struct epoch_requests list = TAILQ_HEAD_INITIALIZER(list);
	struct request *request;

	TAILQ_CONCAT(&list, &nvmmd->epochs.asking, of_epochs);
	while ((request = TAILQ_FIRST(&list))) {
		TAILQ_REMOVE(&list, request, of_epochs);
		if (!nvmmd->stopped && request->pass > nvmmd->epochs.pass.done)
			TAILQ_INSERT_TAIL(&nvmmd->epochs.asking, request, of_epochs);
		else
			request_run(request);
	}
}

int epochs_look(struct request *request)
{
	struct nvmmd *nvmmd = request->nvmmd;
	struct epoch_pass *pass = &nvmmd->epochs.pass;

	/* It has waited. */
	if (request->pass != 0)
		return 0;
	if (!pass->running) {
		pass_begin(nvmmd, true);
		request->pass = pass->number;
		if (pass_go(nvmmd))
			return 0;
	} else {
		request->pass = pass->number + 1;
	}
	TAILQ_INSERT_TAIL(&nvmmd->epochs.asking, request, of_epochs);
	tick_in(nvmmd, 0);
	return REQUEST_PENDING;
}

uint64_t epochs_oldest(const struct pool *pool)
{
	const struct opening *opening;
	uint64_t oldest = 0;

	LIST_FOREACH(opening, &pool->openings, of_pool) {
		uint64_t epoch = opening->session->epochs.oldest;

		if (epoch != 0)
			oldest = oldest == 0 ? epoch : MIN(oldest, epoch);
	}
	return oldest;
}

/* Goes on with a pool's snapshot: whether it is whole now and has anything. */
static bool take_snapshot(struct pool *pool)
{
	struct limbo *limbo = heap_service_limbo(pool->heap);
	int r = limbo_snapshot(limbo, TICK_SPANS);

	if (r == -ENOMEM)
		client_log(pool->nvmmd, CLIENT_COMPLAINT, pool->record.uid,
			   "pool %u: no memory to note what is in limbo", pool->id);
	pool_judge(pool, r, "looking for limbo");
	pool->epochs.more = r == 1;
	return r == 0 && limbo_blocks(limbo) > 0;
}

/* Those that were looked at go to the end: what is left over when time is up comes first in the next tick. */
static bool take_snapshots(struct epochs *e, bool *more)
{
	uint64_t until = uv_hrtime() + ROUND_NS;
	struct pool *pool, *next, *last = TAILQ_LAST(&e->active, epoch_pools);
	bool any = false, end = false;

	for (pool = TAILQ_FIRST(&e->active); pool && !end; pool = next) {
		next = TAILQ_NEXT(pool, epochs.of_active);
		end = pool == last;
		pool->epochs.stamped = false;
		if (!pool->heap || pool->damage || pool->epochs.phase != EPOCH_SNAPSHOT)
			continue;
		if (uv_hrtime() < until) {
			TAILQ_REMOVE(&e->active, pool, epochs.of_active);
			TAILQ_INSERT_TAIL(&e->active, pool, epochs.of_active);
			pool->epochs.stamped = take_snapshot(pool);
		} else {
			pool->epochs.more = true;
		}
		any |= pool->epochs.stamped;
		*more |= pool->epochs.more;
	}
	return any;
}

/* Snapshots first, then one stamp and one barrier for all of them, and a pass. */
static void begin_round(struct nvmmd *nvmmd, bool *more)
{
	struct epochs *e = &nvmmd->epochs;
	bool any = take_snapshots(e, more);
	struct pool *pool;

	/* It rises each time, so that one who leaves and enters is told from one who stays. */
	pass_begin(nvmmd, any || e->asked || e->barrier_failed || !TAILQ_EMPTY(&e->asking));
	nvmmd->counters.epochs += any;
	TAILQ_FOREACH(pool, &e->active, epochs.of_active) {
		if (pool->epochs.stamped) {
			pool->epochs.phase = EPOCH_WAIT;
			/* Without the barrier it is never ripe: the next tick stamps it anew. */
			pool->epochs.stamp = UINT64_MAX;
			pool->epochs.since = uv_now(&nvmmd->loop);
		}
		/* Also what was stamped while the barrier did not work. */
		if (pool->epochs.phase == EPOCH_WAIT && pool->epochs.stamp == UINT64_MAX &&
		    e->pass.passed)
			pool->epochs.stamp = e->pass.stamp;
	}
}

/* Frees what is ripe in a pool; *more: there is work left that waits for nobody. */
static void release(struct pool *pool, uint64_t until, bool *more)
{
	struct limbo *limbo = heap_service_limbo(pool->heap);
	struct pool_epochs *p = &pool->epochs;
	uint64_t freed = limbo_freed(limbo);
	int r;

	/* A reservation is no pin: what a dead process had half freed would be freed again by its settler. */
	if (pool->settling > 0)
		return;
	if (p->phase == EPOCH_WAIT && p->stamp != UINT64_MAX &&
	    epoch_ripe(p->stamp, epochs_oldest(pool)))
		p->phase = EPOCH_RELEASE;
	if (p->phase != EPOCH_RELEASE)
		return;
	if (uv_hrtime() >= until) {
		*more = true;
		return;
	}
	r = limbo_release(limbo, TICK_WORDS);
	pool_judge(pool, r, "freeing what was in limbo");
	pool->nvmmd->counters.blocks_reclaimed += limbo_freed(limbo) - freed;
	if (r == 0)
		p->phase = EPOCH_SNAPSHOT;
	*more |= r == 1;
}

/* A pool in which nothing is in limbo any more is left alone. */
static void look_away(struct pool *pool)
{
	struct limbo *limbo = heap_service_limbo(pool->heap);
	int r;

	if (pool->epochs.more || limbo_blocks(limbo) > 0 || pool->nvmmd->epochs.deaf)
		return;
	r = limbo_unwatch(limbo);
	pool_judge(pool, r, "looking for limbo");
	if (r == 0)
		deactivate(pool);
}

/* Whether those that wait have waited for readers long enough. What the daemon itself has to do,
 * looking at spans and freeing, ends by itself, however large the heap is. */
static bool late(const struct pool *pool)
{
	bool working = pool->epochs.more || pool->epochs.phase == EPOCH_RELEASE;

	return !working && !TAILQ_EMPTY(&pool->epochs.waiting) &&
	       uv_now(&pool->nvmmd->loop) >= pool->epochs.deadline;
}

static void finish_pool(struct pool *pool, uint64_t until, bool *more)
{
	enum epoch_phase before = pool->epochs.phase;

	if (!pool->heap || pool->damage) {
		deactivate(pool);
		return;
	}
	release(pool, until, more);
	if (before != EPOCH_SNAPSHOT && pool->epochs.phase == EPOCH_SNAPSHOT)
		resume_waiting(pool);
	else if (late(pool))
		resume_waiting(pool);
	/* A request that could not be answered may have ended the last session that had it open. */
	if (before == EPOCH_SNAPSHOT && pool->heap)
		look_away(pool);
}

static bool anybody_waits(struct nvmmd *nvmmd)
{
	struct pool *pool;

	TAILQ_FOREACH(pool, &nvmmd->epochs.active, epochs.of_active)
		if (!TAILQ_EMPTY(&pool->epochs.waiting))
			return true;
	return false;
}

/* The pools, after a pass. */
static void finish_round(struct nvmmd *nvmmd, bool *more)
{
	uint64_t until = uv_hrtime() + ROUND_NS;
	struct pool *pool, *next;

	for (pool = TAILQ_FIRST(&nvmmd->epochs.active); pool; pool = next) {
		next = TAILQ_NEXT(pool, epochs.of_active);
		finish_pool(pool, until, more);
	}
	resume_asking(nvmmd);
	*more |= !TAILQ_EMPTY(&nvmmd->epochs.asking);
}

static void tick(struct nvmmd *nvmmd)
{
	bool more = false;

	if (nvmmd->stopped)
		return;
	uv_update_time(&nvmmd->loop);
	if (!nvmmd->epochs.pass.running)
		begin_round(nvmmd, &more);
	if (pass_go(nvmmd))
		finish_round(nvmmd, &more);
	else
		more = true;
	if (TAILQ_EMPTY(&nvmmd->epochs.active) && !more)
		return;
	tick_in(nvmmd, more ? 0 : anybody_waits(nvmmd) ? URGENT_MS : nvmmd->config.epoch.interval);
}

/* Pressure */

/* Lets a request wait for readers, but once. */
static enum epoch_relief wait_for_readers(struct request *request, struct pool *pool)
{
	struct nvmmd *nvmmd = pool->nvmmd;
	uint64_t patience = MAX(PATIENCE_TICKS * nvmmd->config.epoch.interval, PATIENCE_MIN_MS);

	if (!pool->epochs.active || pool->damage)
		return RELIEF_NONE;
	patience = MIN(patience, PATIENCE_MAX_MS);
	if (TAILQ_EMPTY(&pool->epochs.waiting))
		pool->epochs.deadline = uv_now(&nvmmd->loop) + patience;
	request->waited = true;
	TAILQ_INSERT_TAIL(&pool->epochs.waiting, request, of_epochs);
	tick_in(nvmmd, URGENT_MS);
	return RELIEF_LATER;
}

enum epoch_relief epochs_pressure(struct request *request, struct pool *pool)
{
	struct limbo *limbo = heap_service_limbo(pool->heap);
	uint64_t freed = limbo_freed(limbo);

	/* One that has waited is begun again by a tick, which must not tick. */
	if (request->waited || request->rounds++ >= ROUNDS_MAX)
		return RELIEF_NONE;
	epochs_kick(pool);
	if (!pool->epochs.active)
		return RELIEF_NONE;
	tick(pool->nvmmd);
	if (limbo_freed(limbo) != freed)
		return RELIEF_NOW;
	return wait_for_readers(request, pool);
}

/* Waking */

/* Looks at the pools that the session can write to. Returns how many it has. */
static unsigned kick_session(struct session *session)
{
	struct opening *opening;
	unsigned n = 0;

	LIST_FOREACH(opening, &session->openings, of_session) {
		if (opening->write)
			epochs_kick(opening->pool);
		n++;
	}
	return n;
}

static void hear_again(uv_timer_t *timer);

static void rung(uv_poll_t *poll, int status, int events)
{
	struct nvmmd *nvmmd = poll->data;
	struct epoll_event bells[BELLS];
	int n = epoll_wait(nvmmd->epochs.bells, bells, BELLS, 0);
	unsigned pools = 0;

	for (int i = 0; i < n; i++) {
		struct session *session = session_find(nvmmd, bells[i].data.u64);

		pools += session ? kick_session(session) : 0;
	}
	/* Also where nothing is in limbo: the frontier is what one may have rung for. */
	nvmmd->epochs.asked = true;
	tick_in(nvmmd, nvmmd->config.epoch.interval);
	uv_poll_stop(poll);
	uv_timer_start(&nvmmd->epochs.ears, hear_again, EARS_MS + pools / EARS_POOLS, 0);
}

static void hear_again(uv_timer_t *timer)
{
	struct nvmmd *nvmmd = timer->data;

	uv_poll_start(&nvmmd->epochs.wake, UV_READABLE, rung);
}

int epochs_hear(struct session *session)
{
	struct epochs *e = &session->nvmmd->epochs;
	struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.u64 = session->id };

	if (e->bells < 0 || epoll_ctl(e->bells, EPOLL_CTL_ADD, session->epochs.bell, &event) == 0)
		return 0;
	return -errno;
}

void epochs_unhear(struct session *session)
{
	struct epochs *e = &session->nvmmd->epochs;

	if (e->bells >= 0)
		epoll_ctl(e->bells, EPOLL_CTL_DEL, session->epochs.bell, NULL);
}

static int listen_to_bells(struct nvmmd *nvmmd)
{
	struct epochs *e = &nvmmd->epochs;

	e->bells = epoll_create1(EPOLL_CLOEXEC);
	e->deaf = e->bells < 0;
	if (!e->deaf)
		return uv_poll_init(&nvmmd->loop, &e->wake, e->bells);
	log_warning("epoll: %s: heaps are looked at all the time", strerror(errno));
	return 0;
}

/* Start and stop */

/* Heaps that living processes may have left limbo in. */
static void load_heaps(struct nvmmd *nvmmd)
{
	struct session *session;
	struct opening *opening;

	for (session = session_after(nvmmd, 0); session;
	     session = session_after(nvmmd, session->id))
		LIST_FOREACH(opening, &session->openings, of_session)
			if (opening->write && opening->pool->record.kind == POOL_HEAP)
				heap_load_ahead(opening->pool);
}

int epochs_start(struct nvmmd *nvmmd)
{
	struct epochs *e = &nvmmd->epochs;
	int r;

	r = listen_to_bells(nvmmd);
	if (r < 0)
		return r;
	uv_timer_init(&nvmmd->loop, &e->timer);
	uv_timer_init(&nvmmd->loop, &e->ears);
	e->timer.data = e->ears.data = e->wake.data = nvmmd;
	if (!e->deaf)
		uv_poll_start(&e->wake, UV_READABLE, rung);
	e->started = true;
	/* Before anything is reclaimed: these may have readers inside. */
	keep_start(nvmmd);
	load_heaps(nvmmd);
	return 0;
}

void epochs_stop(struct nvmmd *nvmmd)
{
	struct epochs *e = &nvmmd->epochs;
	struct pool *pool;

	if (!e->started)
		return;
	while ((pool = TAILQ_FIRST(&e->active)))
		deactivate(pool);
	resume_asking(nvmmd);
	keep_stop(nvmmd);
	uv_close((uv_handle_t *)&e->timer, NULL);
	uv_close((uv_handle_t *)&e->ears, NULL);
	if (!e->deaf)
		uv_close((uv_handle_t *)&e->wake, NULL);
	e->started = false;
}
