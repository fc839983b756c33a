/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the daemon says of itself and of its clients.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "daemon/nvmmd.h"
#include "daemon/request.h"

#define CLIENTS_MAX 256u
#define CLIENT_POOLS_MAX 4096u /* listed of one client */
#define CLIENTS_BYTES (FRAME_MAX - 1024u)

static int no_memory(struct request *request)
{
	return request_fail(request, -ENOMEM, "the daemon has no memory");
}

static int add_counters(struct request *request, Nvmm__StatusReply *status)
{
	Nvmm__Counter *counters = request_alloc(request, n_counter_infos * sizeof(*counters));

	status->counters = request_alloc(request, n_counter_infos * sizeof(*status->counters));
	if (!counters || !status->counters)
		return -ENOMEM;
	for (size_t i = 0; i < n_counter_infos; i++) {
		const struct counter_info *info = &counter_infos[i];

		nvmm__counter__init(&counters[i]);
		counters[i].name = request_strdup(request, info->name);
		counters[i].help = request_strdup(request, info->help);
		counters[i].value = counter_value(&request->nvmmd->counters, info);
		if (!counters[i].name || !counters[i].help)
			return -ENOMEM;
		status->counters[status->n_counters++] = &counters[i];
	}
	return 0;
}

/* What could still be reserved: the file system's room, and memory's, within the configured capacity. */
static uint64_t bytes_available(struct nvmmd *nvmmd, uint64_t reserved)
{
	uint64_t memory = memory_left(&nvmmd->memory);
	uint64_t capacity = nvmmd->config.shelves.capacity, room;
	struct statvfs st;

	if (fstatvfs(nvmmd->base_fd, &st) < 0)
		return 0;
	room = MIN((uint64_t)st.f_bavail * st.f_frsize, memory);
	if (capacity == 0)
		return room;
	return capacity > reserved ? MIN(room, capacity - reserved) : 0;
}

static void add_turns(Nvmm__StatusReply *status, const struct nvmmd *nvmmd, uint32_t window)
{
	const struct turn_log *log = &nvmmd->turns.log;

	status->loop_window = window == 0 ? TURN_WINDOW_DEFAULT : MIN(window, TURN_WINDOW_MAX);
	status->loop_longest_us = log->longest / 1000;
	status->loop_recent_us = turn_recent(log, uv_hrtime(), status->loop_window) / 1000;
	status->loop_turns = log->turns;
}

static int add_jobs(struct request *request, Nvmm__StatusReply *status)
{
	struct job_queue *queue = &request->nvmmd->jobs.queue;
	Nvmm__JobClass *jobs = request_alloc(request, JOB_CLASSES * sizeof(*jobs));

	status->jobs = request_alloc(request, JOB_CLASSES * sizeof(*status->jobs));
	if (!jobs || !status->jobs)
		return -ENOMEM;
	for (unsigned i = 0; i < JOB_CLASSES; i++) {
		const struct job_class_queue *c = &queue->class[i];

		nvmm__job_class__init(&jobs[i]);
		jobs[i].name = request_strdup(request, job_class_name((enum job_class)i));
		if (!jobs[i].name)
			return -ENOMEM;
		jobs[i].places = c->places;
		jobs[i].places_of_user = c->per_user;
		jobs[i].waiting = c->waiting;
		jobs[i].running = c->running;
		jobs[i].begun = c->begun;
		jobs[i].longest_wait_ms = c->longest;
		jobs[i].waited_ms = job_queue_oldest(queue, (enum job_class)i, uv_hrtime() / 1000000);
		status->jobs[status->n_jobs++] = &jobs[i];
	}
	return 0;
}

int op_status(struct request *request)
{
	Nvmm__StatusReply *status = request_alloc(request, sizeof(*status));
	struct nvmmd *nvmmd = request->nvmmd;
	struct pools_usage usage;

	if (!status)
		return no_memory(request);
	nvmm__status_reply__init(status);
	pools_usage(&usage, nvmmd, 0);
	status->version = request_strdup(request, PACKAGE_VERSION);
	status->node = nvmmd->config.node.id;
	status->node_name = nvmmd->config.node.name;
	status->pid = (uint32_t)getpid();
	status->started = nvmmd->started;
	status->shelf_base = nvmmd->config.shelves.base;
	status->runtime = nvmmd->config.runtime;
	status->socket = nvmmd->config.socket.path;
	status->capacity = nvmmd->config.shelves.capacity;
	status->reserved = usage.bytes;
	status->available = bytes_available(nvmmd, usage.bytes);
	status->pools = usage.pools;
	status->pools_damaged = usage.damaged;
	status->pools_held = usage.held;
	status->clients = nvmmd->sessions.n - nvmmd->sessions.detached;
	status->sessions_detached = nvmmd->sessions.detached;
	status->overgrown = usage.overgrown;
	status->unlinked = nvmmd->overgrown.n_unlinked;
	status->uids_partial = nvmmd->identity.uids_partial;
	status->gids_partial = nvmmd->identity.gids_partial;
	status->overflow_uid = nvmmd->identity.overflow_uid;
	status->overflow_gid = nvmmd->identity.overflow_gid;
	status->sessions_unread = sessions_unread(nvmmd);
	status->keeper = (uint32_t)keep_pid(&nvmmd->epochs.keep);
	status->clean_start = nvmmd->clean_start;
	status->recovering = nvmmd->recovery.total - nvmmd->recovery.done;
	status->recovering_of = nvmmd->recovery.total;
	status->recovering_bytes = nvmmd->recovery.bytes;
	status->recovered_bytes = recovery_progress(nvmmd);
	add_turns(status, nvmmd, request->msg->status->window);
	if (!status->version || add_jobs(request, status) < 0 || add_counters(request, status) < 0)
		return no_memory(request);
	request->reply.result_case = NVMM__REPLY__RESULT_STATUS;
	request->reply.status = status;
	return 0;
}

static Nvmm__ClientInfo *client_info(struct request *request, struct session *session)
{
	Nvmm__ClientInfo *info = request_alloc(request, sizeof(*info));
	struct opening *opening;
	size_t n = 0;

	if (!info)
		return NULL;
	nvmm__client_info__init(info);
	info->session = session->id;
	info->pid = (uint32_t)session->peer.process.pid;
	info->uid = session->peer.uid;
	info->gid = session->peer.gid;
	info->name = session->name;
	info->since = session->since;
	info->attached = session->connection != NULL;
	info->lanes = session->n_lanes;
	info->requests = session->requests;
	info->owner = session->owner;
	LIST_FOREACH (opening, &session->openings, of_session)
		n++;
	n = MIN(n, (size_t)CLIENT_POOLS_MAX);
	info->pools = request_alloc(request, (n + 1) * sizeof(*info->pools));
	if (!info->pools)
		return NULL;
	LIST_FOREACH (opening, &session->openings, of_session)
		if (info->n_pools < n)
			info->pools[info->n_pools++] = opening->pool->id;
	return info;
}

int op_clients(struct request *request)
{
	const Nvmm__Clients *m = request->msg->clients;
	uint32_t max = m->max == 0 ? CLIENTS_MAX : MIN(m->max, CLIENTS_MAX);
	Nvmm__ClientsReply *reply = request_alloc(request, sizeof(*reply));
	struct session *session;
	size_t bytes = 0;

	if (!reply)
		return no_memory(request);
	nvmm__clients_reply__init(reply);
	reply->clients = request_alloc(request, max * sizeof(*reply->clients));
	if (!reply->clients)
		return no_memory(request);
	for (session = session_after(request->nvmmd, m->after); session && reply->n_clients < max;
	     session = session_after(request->nvmmd, session->id)) {
		Nvmm__ClientInfo *info = client_info(request, session);

		if (!info)
			return no_memory(request);
		bytes += nvmm__client_info__get_packed_size(info) + 8;
		if (bytes > CLIENTS_BYTES)
			break; /* the rest is for the next request */
		reply->clients[reply->n_clients++] = info;
	}
	request->reply.result_case = NVMM__REPLY__RESULT_CLIENTS;
	request->reply.clients = reply;
	return 0;
}
