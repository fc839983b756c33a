/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests about epochs.
 *
 * Waiting for readers is the client's: the daemon makes a stamp and afterwards says, each time it
 * is asked, whether the readers of that time have left. So it keeps nothing for who waits, a
 * restart in between does no harm, and no connection is blocked for its other threads. A request
 * waits for one look at the slots, which many requests share (epochs.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/connection.h"
#include "daemon/nvmmd.h"
#include "daemon/request.h"
#include "media/limbo.h"

#define READERS_MAX 512u
#define READERS_BYTES (FRAME_MAX - 24576u)
#define READER_POOLS_MAX 64u
#define POOLS_LISTED_MAX 256u
#define COUNT_SPANS 65536u /* with limbo that is in no snapshot, looked at for a reply */

static int no_memory(struct request *request)
{
	return request_fail(request, -ENOMEM, "the daemon has no memory");
}

static int add_copy(struct request *request, int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (copy < 0)
		return -errno;
	request_add_fd(request, copy);
	return 0;
}

static int add_page(struct request *request)
{
	int fd = openat(request->nvmmd->epochs.dir, "page", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	request_add_fd(request, fd);
	return 0;
}

/* Has the keeper told of the session's slots, then the session's file, then the client. */
static int make_known(struct request *request)
{
	struct session *session = request->session;
	int r;

	r = keep_session(session, request);
	if (r < 0)
		return request_fail(request, r, "the process that keeps epoch slots for the next daemon "
				    "cannot be started: %s", strerror(-r));
	if (r != 0 || session->epochs.saved)
		return r;
	session->epochs.saved = true;
	r = session_save(session);
	if (r == 0)
		return 0;
	session->epochs.saved = false;
	return request_fail(request, r, "the session's file cannot be written: %s", strerror(-r));
}

static int tell_slots(struct request *request)
{
	Nvmm__EpochOpened *reply = request_alloc(request, sizeof(*reply));

	if (!reply)
		return no_memory(request);
	nvmm__epoch_opened__init(reply);
	reply->slots = request->session->epochs.slots;
	request->reply.result_case = NVMM__REPLY__RESULT_EPOCH_OPENED;
	request->reply.epoch_opened = reply;
	return 0;
}

int op_epoch_open(struct request *request)
{
	struct session_epochs *e = &request->session->epochs;
	int r;

	r = session_epochs_open(request->session);
	if (r < 0)
		return request_fail(request, r, "the session's place for epochs cannot be made: %s",
				    strerror(-r));
	r = make_known(request);
	if (r != 0)
		return r;
	r = add_page(request);
	if (r == 0)
		r = add_copy(request, e->memory);
	if (r == 0)
		r = add_copy(request, e->bell);
	if (r < 0)
		return request_fail(request, r, "the session's epochs cannot be opened: %s",
				    strerror(-r));
	return tell_slots(request);
}

int op_epoch_grow(struct request *request)
{
	struct session *session = request->session;
	uint32_t want = request->msg->epoch_grow->slots;
	int r;

	if (session->epochs.memory < 0)
		return request_fail(request, -EINVAL, "the session has no place for epochs yet");
	r = session_epochs_grant(session, want);
	if (r == -EUSERS)
		return request_fail(request, r, "process %d has too few threads for %u places in epochs: "
				    "threads that end without their libraries knowing keep theirs",
				    session->peer.process.pid, want);
	if (r == -EDQUOT)
		return request_fail(request, r, "the threads of user %u have %u places in epochs, and can "
				    "have no more", session->peer.uid, EPOCH_SLOTS_MAX);
	if (r < 0)
		return request_fail(request, r, "the threads of process %d cannot be counted: %s",
				    session->peer.process.pid, strerror(-r));
	r = make_known(request);
	return r != 0 ? r : tell_slots(request);
}

/* The oldest epoch that a thread of a session is in that shares a pool with this one. */
static uint64_t oldest_beside(const struct session *session)
{
	uint64_t oldest = session->epochs.oldest;
	const struct opening *opening;

	LIST_FOREACH(opening, &session->openings, of_session) {
		uint64_t other = epochs_oldest(opening->pool);

		if (other != 0)
			oldest = oldest == 0 ? other : MIN(oldest, other);
	}
	return oldest;
}

int op_epoch_sync(struct request *request)
{
	uint64_t stamp = request->msg->epoch_sync->stamp;
	Nvmm__EpochSynced *reply;
	struct nvmmd *nvmmd = request->nvmmd;
	int r;

	if (stamp >= epoch_current(nvmmd->epochs.page))
		return request_fail(request, -EINVAL, "epoch %" PRIu64 " is yet to come", stamp);
	r = epochs_look(request);
	if (r != 0)
		return r;
	reply = request_alloc(request, sizeof(*reply));
	if (!reply)
		return no_memory(request);
	if (stamp == 0) {
		if (!nvmmd->epochs.pass.passed)
			return request_fail(request, -ENOSYS, "membarrier does not work for the daemon: "
					    "nobody can wait for readers");
		stamp = nvmmd->epochs.pass.stamp;
	}
	nvmm__epoch_synced__init(reply);
	reply->stamp = stamp;
	reply->done = epoch_ripe(stamp, oldest_beside(request->session));
	request->reply.result_case = NVMM__REPLY__RESULT_EPOCH_SYNCED;
	request->reply.epoch_synced = reply;
	return 0;
}

/* For the operator */

static int add_pool(struct request *request, Nvmm__EpochsReply *reply, struct pool *pool,
		    uint32_t *budget)
{
	Nvmm__EpochPool *info = request_alloc(request, sizeof(*info));
	struct limbo_tally tally = { 0 };
	int r;

	if (!info)
		return -ENOMEM;
	r = limbo_count(heap_service_limbo(pool->heap), budget, &tally);
	pool_judge(pool, MIN(r, 0), "counting what is in limbo");
	reply->more |= r > 0;
	nvmm__epoch_pool__init(info);
	info->id = pool->id;
	info->bytes = tally.bytes;
	info->blocks = tally.blocks;
	if (pool->epochs.phase == EPOCH_WAIT) {
		info->epoch = pool->epochs.stamp == UINT64_MAX ? 0 : pool->epochs.stamp;
		info->waiting = uv_now(&request->nvmmd->loop) - pool->epochs.since;
	}
	reply->pools[reply->n_pools++] = info;
	return 0;
}

static int add_pools(struct request *request, Nvmm__EpochsReply *reply)
{
	uint32_t budget = COUNT_SPANS;
	struct pool *pool;
	int r = 0;

	reply->pools = request_alloc(request, POOLS_LISTED_MAX * sizeof(*reply->pools));
	if (!reply->pools)
		return -ENOMEM;
	TAILQ_FOREACH(pool, &request->nvmmd->epochs.active, epochs.of_active) {
		if (reply->n_pools == POOLS_LISTED_MAX) {
			reply->more = true;
			break;
		}
		if (r == 0 && pool->heap)
			r = add_pool(request, reply, pool, &budget);
	}
	return r;
}

static int reader_pools(struct request *request, Nvmm__EpochReader *info,
			const struct session *session)
{
	const struct opening *opening;

	info->pools = request_alloc(request, READER_POOLS_MAX * sizeof(*info->pools));
	if (!info->pools)
		return -ENOMEM;
	LIST_FOREACH(opening, &session->openings, of_session)
		if (info->n_pools < READER_POOLS_MAX)
			info->pools[info->n_pools++] = opening->pool->id;
	return 0;
}

/* Adds one reader, as the last pass saw it; `bytes` counts what the reply has. */
static int add_reader(struct request *request, Nvmm__EpochsReply *reply, struct session *session,
		      const struct epoch_age *age, size_t *bytes)
{
	Nvmm__EpochReader *info;

	if (reply->n_readers == READERS_MAX || *bytes > READERS_BYTES) {
		reply->more = true;
		return 0;
	}
	info = request_alloc(request, sizeof(*info));
	if (!info)
		return -ENOMEM;
	nvmm__epoch_reader__init(info);
	info->session = session->id;
	info->pid = (uint32_t)session->peer.process.pid;
	info->tid = age->tid;
	info->name = session->name;
	info->epoch = age->epoch;
	info->age = uv_now(&request->nvmmd->loop) - age->since;
	if (reader_pools(request, info, session) < 0)
		return -ENOMEM;
	*bytes += nvmm__epoch_reader__get_packed_size(info) + 8;
	reply->readers[reply->n_readers++] = info;
	return 0;
}

static int add_readers(struct request *request, Nvmm__EpochsReply *reply, struct session *session,
		       size_t *bytes)
{
	const struct session_epochs *e = &session->epochs;
	int r = 0;

	for (uint32_t i = 0; r == 0 && !reply->more && e->oldest != 0 && i < e->n_ages; i++)
		if (e->ages[i].epoch != 0)
			r = add_reader(request, reply, session, &e->ages[i], bytes);
	return r;
}

int op_epochs(struct request *request)
{
	struct nvmmd *nvmmd = request->nvmmd;
	Nvmm__EpochsReply *reply;
	struct session *session;
	size_t bytes = 0;
	int r;

	r = epochs_look(request);
	if (r != 0)
		return r;
	reply = request_alloc(request, sizeof(*reply));
	if (!reply)
		return no_memory(request);
	nvmm__epochs_reply__init(reply);
	reply->current = epoch_now(nvmmd->epochs.page);
	reply->frontier = epoch_frontier(nvmmd->epochs.page);
	reply->halted = nvmmd->epochs.barrier_failed;
	reply->interval = nvmmd->config.epoch.interval;
	reply->readers = request_alloc(request, READERS_MAX * sizeof(*reply->readers));
	r = reply->readers ? add_pools(request, reply) : -ENOMEM;
	for (session = session_after(nvmmd, 0); session && r == 0;
	     session = session_after(nvmmd, session->id))
		r = add_readers(request, reply, session, &bytes);
	if (r < 0)
		return no_memory(request);
	/* So that who is seen inside now is told from who enters later. */
	epoch_raise(nvmmd->epochs.page);
	request->reply.result_case = NVMM__REPLY__RESULT_EPOCHS;
	request->reply.epochs = reply;
	return 0;
}
