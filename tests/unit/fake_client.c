/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The calls of the library that nvmmctl makes, answered from `fake`. Replies are real messages,
 * packed and unpacked, so that nvmmctl frees them as it frees the daemon's.
 */
#include "tests/unit/fake_client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"

struct fake fake;
static int connection;

void fake_reset(void)
{
	fake = (struct fake){
		.text = "the daemon says no",
		.pools = {
			{ .id = 1, .kind = NVMM_POOL_HEAP, .durability = NVMM_DURABILITY_PROCESS,
			  .incarnation = 3, .bytes = 128u << 20, .file_bytes = 132u << 20,
			  .shelves = 1, .smallest_block = 16, .openers = 4, .mode = 0640,
			  .created = 1700000000, .name = "words" },
			{ .id = 2, .kind = NVMM_POOL_REGION, .durability = NVMM_DURABILITY_POWER,
			  .incarnation = 1, .bytes = 4096, .file_bytes = 4096, .shelves = 1,
			  .uid = 4242424, .gid = 4242425, .mode = 0666, .created = 1700000000 },
			{ .id = 7, .kind = NVMM_POOL_HEAP, .durability = NVMM_DURABILITY_PROCESS,
			  .incarnation = 1, .bytes = 1u << 20, .mode = 0600, .name = "rotten",
			  .damaged = true },
		},
	};
}

static struct nvmm_pool_info *find(nvmm_pool_id id)
{
	for (size_t i = 0; i < FAKE_POOLS; i++) {
		if (fake.pools[i].id == id)
			return &fake.pools[i];
	}
	return NULL;
}

int nvmm_connect(struct nvmm_client **ret, const struct nvmm_options *options)
{
	snprintf(fake.socket, sizeof(fake.socket), "%s", options->socket ? options->socket : "");
	fake.timeout_ms = options->timeout_ms;
	if (fake.connect_error < 0)
		return fake.connect_error;
	fake.connected = true;
	*ret = (struct nvmm_client *)(void *)&connection;
	return 0;
}

void nvmm_disconnect(struct nvmm_client *nvmm)
{
	if (nvmm)
		fake.connected = false;
}

const char *nvmm_errmsg(const struct nvmm_client *nvmm)
{
	return fake.text;
}

int nvmm_pool_lookup(struct nvmm_client *nvmm, const char *name, nvmm_pool_id *ret)
{
	for (size_t i = 0; i < FAKE_POOLS && fake.error == 0; i++) {
		if (fake.pools[i].id && !strcmp(fake.pools[i].name, name)) {
			*ret = fake.pools[i].id;
			return 0;
		}
	}
	return fake.error < 0 ? fake.error : -ENOENT;
}

/* One at a time, so that nvmmctl has to ask again. */
int nvmm_pool_list(struct nvmm_client *nvmm, nvmm_pool_id after, struct nvmm_pool_info *infos, size_t n)
{
	if (fake.error < 0)
		return fake.error;
	for (size_t i = 0; i < FAKE_POOLS; i++) {
		if (fake.pools[i].id > after) {
			infos[0] = fake.pools[i];
			return 1;
		}
	}
	return 0;
}

int nvmm_pool_stat(struct nvmm_client *nvmm, nvmm_pool_id id, struct nvmm_pool_info *ret)
{
	if (fake.error < 0)
		return fake.error;
	if (!find(id))
		return -ENOENT;
	*ret = *find(id);
	return 0;
}

int nvmm_pool_chmod(struct nvmm_client *nvmm, nvmm_pool_id id, mode_t mode)
{
	if (fake.error == 0)
		find(id)->mode = mode;
	return fake.error;
}

int nvmm_pool_chown(struct nvmm_client *nvmm, nvmm_pool_id id, uid_t uid, gid_t gid)
{
	fake.uid = uid;
	fake.gid = gid;
	return fake.error;
}

int nvmm_pool_resize(struct nvmm_client *nvmm, nvmm_pool_id id, uint64_t bytes)
{
	fake.bytes = bytes;
	if (fake.error == 0)
		find(id)->bytes = bytes;
	return fake.error;
}

static int create(enum nvmm_pool_kind kind, nvmm_pool_id *id, uint64_t bytes,
		  const struct nvmm_pool_options *options)
{
	if (fake.error < 0)
		return fake.error;
	fake.bytes = bytes;
	fake.options = *options;
	if (*id == 0)
		*id = 9;
	fake.pools[3] = (struct nvmm_pool_info){ .id = *id, .kind = kind, .bytes = bytes };
	if (options->name)
		strcpy(fake.pools[3].name, options->name);
	return 0;
}

int nvmm_region_create(struct nvmm_client *nvmm, nvmm_pool_id *id, uint64_t bytes,
		       const struct nvmm_pool_options *options)
{
	return create(NVMM_POOL_REGION, id, bytes, options);
}

int nvmm_heap_create(struct nvmm_client *nvmm, nvmm_pool_id *id, uint64_t bytes,
		     const struct nvmm_pool_options *options)
{
	return create(NVMM_POOL_HEAP, id, bytes, options);
}

/* Heaps that are opened: to read their roots */

int nvmm_heap_open(struct nvmm_heap **ret, struct nvmm_client *nvmm, nvmm_pool_id id, int flags)
{
	if (fake.heap_open_error < 0)
		return fake.heap_open_error;
	fake.heaps_open++;
	*ret = (struct nvmm_heap *)(void *)&connection;
	return flags == O_RDONLY ? 0 : -EINVAL;
}

void nvmm_heap_close(struct nvmm_heap *heap)
{
	fake.heaps_open -= heap != NULL;
}

int nvmm_root_list(struct nvmm_heap *heap, struct nvmm_root *roots, size_t n)
{
	for (unsigned i = 0; i < fake.roots && i < n; i++) {
		snprintf(roots[i].name, sizeof(roots[i].name), "root%u", i);
		roots[i].ptr = UINT64_C(0x1000000004000) + i;
	}
	return (int)fake.roots;
}

/* Requests */

static int reply_with(const Nvmm__Reply *reply, struct nvmm_reply *ret)
{
	size_t len = nvmm__reply__get_packed_size(reply);
	uint8_t *data = malloc(len ? len : 1);

	if (!data)
		return -ENOMEM;
	nvmm__reply__pack(reply, data);
	*ret = (struct nvmm_reply){ .msg = nvmm__reply__unpack(NULL, len, data) };
	free(data);
	return ret->msg ? 0 : -EPROTO;
}

static int reply_status(const Nvmm__Request *request, struct nvmm_reply *ret)
{
	Nvmm__Counter counter = { PROTOBUF_C_MESSAGE_INIT(&nvmm__counter__descriptor),
				  (char *)"requests", (char *)"requests served", 77 };
	Nvmm__Counter *counters[] = { &counter };
	Nvmm__JobClass job = NVMM__JOB_CLASS__INIT, *jobs[] = { &job };
	Nvmm__StatusReply status = NVMM__STATUS_REPLY__INIT;
	Nvmm__Reply reply = NVMM__REPLY__INIT;

	status.version = (char *)"0.1.0";
	status.node = 3;
	status.node_name = (char *)"here";
	status.pid = 1234;
	status.started = 1700000000;
	status.shelf_base = (char *)"/base";
	status.pools = 3;
	for (size_t i = 0; i < FAKE_POOLS; i++)
		status.pools_damaged += fake.pools[i].damaged;
	status.loop_longest_us = 5321;
	status.loop_recent_us = 123;
	status.loop_window = request->status->window ? request->status->window : 10;
	status.loop_turns = 99;
	job.name = (char *)"look";
	job.places = 3;
	job.waiting = 41;
	job.longest_wait_ms = 78;
	status.jobs = jobs;
	status.n_jobs = 1;
	status.counters = counters;
	status.n_counters = 1;
	reply.result_case = NVMM__REPLY__RESULT_STATUS;
	reply.status = &status;
	return reply_with(&reply, ret);
}

static int reply_clients(uint64_t after, struct nvmm_reply *ret)
{
	uint32_t pools[] = { 1, 7 };
	Nvmm__ClientInfo one = NVMM__CLIENT_INFO__INIT, *clients[] = { &one };
	Nvmm__ClientsReply list = NVMM__CLIENTS_REPLY__INIT;
	Nvmm__Reply reply = NVMM__REPLY__INIT;

	one.session = after == 0 ? 5 : UINT64_MAX;
	one.pid = 99;
	one.name = (char *)(after == 0 ? "word\033[31mindex" : "other");
	one.attached = after == 0;
	one.pools = pools;
	one.n_pools = after == 0 ? 2 : 0;
	list.clients = clients;
	list.n_clients = after == UINT64_MAX ? 0 : 1;
	reply.result_case = NVMM__REPLY__RESULT_CLIENTS;
	reply.clients = &list;
	return reply_with(&reply, ret);
}

static int reply_heap(struct nvmm_reply *ret)
{
	Nvmm__HeapInfo heap = NVMM__HEAP_INFO__INIT;
	Nvmm__Reply reply = NVMM__REPLY__INIT;

	if (fake.heap_stat_error < 0)
		return fake.heap_stat_error;
	heap.bytes = 128u << 20;
	heap.used = 32u << 20;
	heap.free = 96u << 20;
	heap.blocks = 1000;
	reply.result_case = NVMM__REPLY__RESULT_HEAP;
	reply.heap = &heap;
	return reply_with(&reply, ret);
}

static int reply_pool(struct nvmm_reply *ret)
{
	Nvmm__PoolInfo pool = NVMM__POOL_INFO__INIT;
	Nvmm__Reply reply = NVMM__REPLY__INIT;

	pool.damage = (char *)"shelf record 0: checksum";
	reply.result_case = NVMM__REPLY__RESULT_POOL;
	reply.pool = &pool;
	return reply_with(&reply, ret);
}

/* A heap of eight units: free ones, blocks that fill them by a quarter each time more, large ones, limbo. */
static int reply_map(const Nvmm__HeapMap *op, struct nvmm_reply *ret)
{
	Nvmm__HeapCell cell[8], *cells[8];
	Nvmm__HeapMapped mapped = NVMM__HEAP_MAPPED__INIT;
	Nvmm__Reply reply = NVMM__REPLY__INIT;

	for (unsigned i = 0; i < 8; i++) {
		nvmm__heap_cell__init(&cell[i]);
		cells[i] = &cell[i];
		cell[i].units = 1;
		cell[i].free = i == 0;
		cell[i].small = i >= 1 && i <= 4;
		cell[i].large = i >= 5;
		cell[i].used = i <= 4 ? i * 4096 : 16384;
	}
	cell[6].limbo = 16384;
	cell[7].suspect = 1;
	mapped.units = 8;
	mapped.cells = cells;
	mapped.n_cells = op->first < 8 ? MIN(op->cells, 8 - op->first) : 0;
	reply.result_case = NVMM__REPLY__RESULT_HEAP_MAPPED;
	reply.heap_mapped = &mapped;
	return reply_with(&reply, ret);
}

static int destroy(const Nvmm__PoolDestroy *op, struct nvmm_reply *ret)
{
	Nvmm__Reply reply = NVMM__REPLY__INIT;
	struct nvmm_pool_info *info = find((nvmm_pool_id)op->id);

	if (!info)
		return -ENOENT;
	fake.forced = op->force;
	if (info->openers && !op->force)
		return -EBUSY;
	info->id = 0;
	return reply_with(&reply, ret);
}

int nvmm_call(struct nvmm_client *nvmm, Nvmm__Request *request, Nvmm__Reply__ResultCase want, size_t n_fds,
	      struct nvmm_reply *ret)
{
	if (fake.error < 0)
		return fake.error;
	switch (request->op_case) {
	case NVMM__REQUEST__OP_STATUS:
		return reply_status(request, ret);
	case NVMM__REQUEST__OP_CLIENTS:
		return reply_clients(request->clients->after, ret);
	case NVMM__REQUEST__OP_HEAP_STAT:
		return reply_heap(ret);
	case NVMM__REQUEST__OP_POOL_STAT:
		return reply_pool(ret);
	case NVMM__REQUEST__OP_HEAP_MAP:
		return reply_map(request->heap_map, ret);
	case NVMM__REQUEST__OP_POOL_DESTROY:
		return destroy(request->pool_destroy, ret);
	default:
		return -EPROTO;
	}
}

void nvmm_reply_deinit(struct nvmm_reply *reply)
{
	if (reply->msg)
		nvmm__reply__free_unpacked(reply->msg, NULL);
	reply->msg = NULL;
}
