/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests about epochs.
 *
 * Waiting for readers is the client's: the daemon makes a stamp and afterwards says, each time it is
 * asked, whether the readers of that time have left. So it keeps nothing for who waits, a restart in
 * between does no harm, and no connection is blocked for its other threads.
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
#define READ_ROOM 64u
#define COUNT_SPANS 65536u /* with limbo that is in no snapshot, looked at for a reply */

static int no_memory(struct request *request)
{
	return request_fail(request, -ENOMEM, "the daemon has no memory");
}

int op_epoch_open(struct request *request)
{
	int fd, r;

	r = session_epochs_open(request->session);
	if (r < 0)
		return request_fail(request, r, "the session's place for epochs cannot be made: %s",
				    strerror(-r));
	fd = openat(request->nvmmd->epochs.dir, "page", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return request_fail(request, -errno, "the epoch page cannot be opened: %s",
				    strerror(errno));
	request_add_fd(request, fd);
	r = epoch_slots_file(&fd, request->session);
	if (r < 0)
		return request_fail(request, r, "the session's epochs cannot be opened: %s",
				    strerror(-r));
	request_add_fd(request, fd);
	request->nvmmd->counters.descriptors_sent += 2;
	return 0;
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
	Nvmm__EpochSynced *reply = request_alloc(request, sizeof(*reply));
	struct nvmmd *nvmmd = request->nvmmd;

	if (!reply)
		return no_memory(request);
	if (stamp == 0) {
		stamp = epoch_raise(nvmmd->epochs.page);
		if (!epochs_barrier(nvmmd))
			return request_fail(request, -ENOSYS, "membarrier does not work for the daemon: "
					    "nobody can wait for readers");
	}
	if (stamp >= epoch_current(nvmmd->epochs.page))
		return request_fail(request, -EINVAL, "epoch %" PRIu64 " is yet to come", stamp);
	epochs_scan(nvmmd);
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

/* Adds one reader; `bytes` counts what the reply has. */
static int add_reader(struct request *request, Nvmm__EpochsReply *reply, struct session *session,
		      const struct epoch_reading *reading, size_t *bytes)
{
	const struct session_epochs *e = &session->epochs;
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
	info->tid = reading->tid;
	info->name = session->name;
	info->epoch = reading->epoch;
	if (reading->slot < e->n_ages && e->ages[reading->slot].epoch == reading->epoch)
		info->age = uv_now(&request->nvmmd->loop) - e->ages[reading->slot].since;
	if (reader_pools(request, info, session) < 0)
		return -ENOMEM;
	*bytes += nvmm__epoch_reader__get_packed_size(info) + 8;
	reply->readers[reply->n_readers++] = info;
	return 0;
}

static int add_readers(struct request *request, Nvmm__EpochsReply *reply, struct session *session,
		       size_t *bytes)
{
	struct epoch_reading readings[READ_ROOM];
	uint32_t from = 0, n;
	int r = 0;

	do {
		n = session_epochs_read(session, &from, readings, READ_ROOM);
		for (uint32_t i = 0; r == 0 && i < n; i++)
			r = add_reader(request, reply, session, &readings[i], bytes);
	} while (r == 0 && n == READ_ROOM && !reply->more);
	return r;
}

int op_epochs(struct request *request)
{
	Nvmm__EpochsReply *reply = request_alloc(request, sizeof(*reply));
	struct nvmmd *nvmmd = request->nvmmd;
	struct session *session;
	size_t bytes = 0;
	int r;

	if (!reply)
		return no_memory(request);
	nvmm__epochs_reply__init(reply);
	/* So that who is seen inside now is told from who enters later. */
	epochs_scan(nvmmd);
	reply->current = epoch_current(nvmmd->epochs.page);
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
	epoch_raise(nvmmd->epochs.page);
	request->reply.result_case = NVMM__REPLY__RESULT_EPOCHS;
	request->reply.epochs = reply;
	return 0;
}
