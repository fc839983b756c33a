/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests.
 *
 * Two kinds of fault are kept apart. What no client library sends (no message, descriptors, a
 * number that goes back, anything before Hello) is answered with the reason and ends the
 * connection. What a program may ask and cannot have is answered with an error and nothing else.
 *
 * protobuf-c hands strings over without their length, so a NUL in the middle would hide what
 * follows it. Such a message packs to fewer bytes than it came in; a message with strings that does
 * so is refused, which also refuses fields sent twice. Nothing that proto3 itself writes does.
 *
 * A repeated request (a client that lost the reply) has its first number. The session keeps the
 * last answer to a mutation. A daemon that was restarted finds the number in the record that was
 * changed, and notes it in the session before anybody can change that record again
 * (session_restore.c). Hello does not count: it may stand between a request and its repeat.
 */
#include "daemon/request.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/connection.h"
#include "daemon/nvmmd.h"

struct request_chunk {
	struct request_chunk *next;
	_Alignas(16) char data[];
};

static const struct request_op ops[] = {
	[NVMM__REQUEST__OP_HELLO] = { "Hello", op_hello, false, true, false },
	[NVMM__REQUEST__OP_GOODBYE] = { "Goodbye", op_goodbye, false, false, false },
	[NVMM__REQUEST__OP_POOL_CREATE] = { "PoolCreate", op_pool_create, true, true, false },
	[NVMM__REQUEST__OP_POOL_LOOKUP] = { "PoolLookup", op_pool_lookup, false, true, false },
	[NVMM__REQUEST__OP_POOL_LIST] = { "PoolList", op_pool_list, false, false, false },
	[NVMM__REQUEST__OP_POOL_STAT] = { "PoolStat", op_pool_stat, false, false, false },
	[NVMM__REQUEST__OP_POOL_CHMOD] = { "PoolChmod", op_pool_chmod, true, false, false },
	[NVMM__REQUEST__OP_POOL_CHOWN] = { "PoolChown", op_pool_chown, true, false, false },
	[NVMM__REQUEST__OP_POOL_RESIZE] = { "PoolResize", op_pool_resize, true, false, false },
	[NVMM__REQUEST__OP_POOL_DESTROY] = { "PoolDestroy", op_pool_destroy, true, false, false },
	[NVMM__REQUEST__OP_POOL_OPEN] = { "PoolOpen", op_pool_open, false, false, true },
	[NVMM__REQUEST__OP_POOL_CLOSE] = { "PoolClose", op_pool_close, true, false, false },
	[NVMM__REQUEST__OP_SHELF_OPEN] = { "ShelfOpen", op_shelf_open, false, false, true },
	[NVMM__REQUEST__OP_LANE_TAKE] = { "LaneTake", op_lane_take, true, false, false },
	[NVMM__REQUEST__OP_LANE_RETURN] = { "LaneReturn", op_lane_return, true, false, false },
	[NVMM__REQUEST__OP_SPAN_GET] = { "SpanGet", op_span_get, false, false, false },
	[NVMM__REQUEST__OP_RUN_GET] = { "RunGet", op_run_get, false, false, false },
	[NVMM__REQUEST__OP_HEAP_STAT] = { "HeapStat", op_heap_stat, false, false, false },
	[NVMM__REQUEST__OP_HEAP_MAP] = { "HeapMap", op_heap_map, false, false, false },
	[NVMM__REQUEST__OP_HEAP_TRIM] = { "HeapTrim", op_heap_trim, false, false, false },
	[NVMM__REQUEST__OP_SETTLE_WAIT] = { "SettleWait", op_settle_wait, false, false, false },
	[NVMM__REQUEST__OP_OWNER_STATE] = { "OwnerState", op_owner_state, false, false, false },
	[NVMM__REQUEST__OP_FAILURES] = { "Failures", op_failures, false, false, false },
	[NVMM__REQUEST__OP_ROOT_GET] = { "RootGet", op_root_get, false, true, false },
	[NVMM__REQUEST__OP_ROOT_SET] = { "RootSet", op_root_set, true, true, false },
	[NVMM__REQUEST__OP_ROOT_CAS] = { "RootCas", op_root_cas, true, true, false },
	[NVMM__REQUEST__OP_ROOT_REMOVE] = { "RootRemove", op_root_remove, true, true, false },
	[NVMM__REQUEST__OP_ROOT_LIST] = { "RootList", op_root_list, false, false, false },
	[NVMM__REQUEST__OP_STATUS] = { "Status", op_status, false, false, false },
	[NVMM__REQUEST__OP_CLIENTS] = { "Clients", op_clients, false, false, false },
	[NVMM__REQUEST__OP_EPOCH_OPEN] = { "EpochOpen", op_epoch_open, false, false, true },
	[NVMM__REQUEST__OP_EPOCH_GROW] = { "EpochGrow", op_epoch_grow, false, false, false },
	[NVMM__REQUEST__OP_EPOCH_SYNC] = { "EpochSync", op_epoch_sync, false, false, false },
	[NVMM__REQUEST__OP_EPOCHS] = { "Epochs", op_epochs, false, false, false },
	[NVMM__REQUEST__OP_RECOVER] = { "Recover", op_recover, false, false, false },
	[NVMM__REQUEST__OP_RECOVER_STATUS] = { "RecoverStatus", op_recover_status, false, false, false },
	[NVMM__REQUEST__OP_CHECK] = { "Check", op_check, false, false, false },
	[NVMM__REQUEST__OP_EXCLUSIVE] = { "Exclusive", op_exclusive, false, false, false },
};

void *request_alloc(struct request *request, size_t size)
{
	struct request_chunk *chunk = calloc(1, sizeof(*chunk) + size);

	if (!chunk)
		return NULL;
	chunk->next = request->chunks;
	request->chunks = chunk;
	return chunk->data;
}

char *request_strdup(struct request *request, const char *text)
{
	size_t len = strlen(text) + 1;
	char *copy = request_alloc(request, len);

	return copy ? memcpy(copy, text, len) : NULL;
}

void request_add_fd(struct request *request, int fd)
{
	request->fds[request->n_fds++] = fd;
}

void request_drop_fds(struct request *request)
{
	for (; request->n_fds > 0; request->n_fds--)
		close(request->fds[request->n_fds - 1]);
}

const struct peer *request_peer(const struct request *request)
{
	return request->session ? &request->session->peer : &request->connection->peer;
}

bool request_was_done(const struct request *request)
{
	const struct session *session = request->session;

	return session && session->done.seq != 0 && session->done.seq == request->msg->seq;
}

int request_fail(struct request *request, int r, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(request->text, sizeof(request->text), fmt, args);
	va_end(args);
	return r;
}

const char *request_error_text(int r)
{
	if (r == -EFBIG)
		return "a file would be longer than nvmmd may make one (ulimit -f), or than the file system takes";
	return strerror(-r);
}

void request_free(struct request *request)
{
	struct request_chunk *chunk;

	for (size_t i = 0; i < request->n_fds; i++)
		close(request->fds[i]);
	while ((chunk = request->chunks)) {
		request->chunks = chunk->next;
		free(chunk);
	}
	nvmm__request__free_unpacked(request->msg, NULL);
	connection_unref(request->connection);
	session_unref(request->session);
	free(request);
}

void request_finish(struct request *request, int r)
{
	/* Ended by a stop, and taken back: the client asks the next daemon, as of one that died. */
	if (r == -ECANCELED && request->nvmmd->stopping) {
		request_free(request);
		return;
	}
	struct counters *counters = &request->nvmmd->counters;
	Nvmm__Reply *reply = &request->reply;

	counters->requests++;
	reply->seq = request->msg->seq;
	if (r < 0) {
		counters->requests_failed++;
		reply->result_case = NVMM__REPLY__RESULT__NOT_SET;
		reply->error = r;
		reply->text = request->text;
		request_drop_fds(request);
		log_debug("pid %d: %s: %s (%s)", request_peer(request)->process.pid,
			  request->op->name, request->text, strerror(-r));
	}
	connection_reply(request->connection, request);
	request_free(request);
}

static bool answered_meanwhile(struct request *request)
{
	struct session *session = request->session;

	if (!session || !request->op->mutation || !session->last.data ||
	    session->last.seq != request->msg->seq)
		return false;
	request->nvmmd->counters.requests_repeated++;
	connection_send(request->connection, session->last.data, session->last.len, NULL, 0);
	request_free(request);
	return true;
}

void request_run(struct request *request)
{
	int r;

	/* It may have been parked while its process died. */
	if (request->connection->closed || (request->session && request->session->ended)) {
		request_free(request);
		return;
	}
	/* A repeat that was parked until the first one was answered. */
	if (answered_meanwhile(request))
		return;
	if (request->op->descriptors && !in_flight_admit(request)) {
		connection_pause(request->connection);
		return;
	}
	r = request->op->handle(request);
	if (r == REQUEST_PENDING)
		connection_pause(request->connection);
	else
		request_finish(request, r);
}

void request_refuse(struct connection *connection, int r, const char *why)
{
	Nvmm__Reply reply = NVMM__REPLY__INIT;
	uint8_t *buffer = connection->nvmmd->reply_buffer;
	char text[256];

	snprintf(text, sizeof(text), "refused: %s", why);
	reply.error = r;
	reply.text = text;
	frame_send(connection->fd, buffer, nvmm__reply__pack(&reply, buffer), NULL, 0,
		   MSG_DONTWAIT);
	connection_reject(connection, "%s", why);
}

/* Finds what is wrong with a message as such; NULL: nothing. */
static const char *message_fault(const struct connection *connection, const Nvmm__Request *msg,
				 size_t len)
{
	const struct session *session = connection->session;
	unsigned op = msg->op_case;

	if (!session && op != NVMM__REQUEST__OP_HELLO)
		return "the first request of a connection is Hello";
	if (session && op == NVMM__REQUEST__OP_HELLO)
		return "Hello is said once";
	if (session && msg->seq == 0)
		return "a request has a number";
	if (session && msg->seq < session->last_seq)
		return "the numbers of requests rise";
	if (op < ARRAY_SIZE(ops) && ops[op].strings && nvmm__request__get_packed_size(msg) < len)
		return "a string has a NUL in it, or a field comes twice";
	return NULL;
}

/* Answers a repeat from memory. */
static bool answer_again(struct connection *connection, const Nvmm__Request *msg)
{
	struct session *session = connection->session;

	if (!session || !session->last.data || session->last.seq != msg->seq)
		return false;
	connection->nvmmd->counters.requests_repeated++;
	connection_send(connection, session->last.data, session->last.len, NULL, 0);
	return true;
}

/* Makes the request object; takes msg, also on failure. */
static struct request *request_new(struct connection *connection, Nvmm__Request *msg)
{
	struct request *request = calloc(1, sizeof(*request));

	if (!request) {
		nvmm__request__free_unpacked(msg, NULL);
		return NULL;
	}
	request->nvmmd = connection->nvmmd;
	request->connection = connection_ref(connection);
	request->session = connection->session ? session_ref(connection->session) : NULL;
	request->msg = msg;
	nvmm__reply__init(&request->reply);
	return request;
}

static void request_begin(struct connection *connection, Nvmm__Request *msg)
{
	static const struct request_op unknown = { .name = "unknown" };
	struct session *session = connection->session;
	struct request *request;
	unsigned op = msg->op_case;

	if (answer_again(connection, msg)) {
		nvmm__request__free_unpacked(msg, NULL);
		return;
	}
	if (session) {
		session->last_seq = msg->seq;
		session->requests++;
	}
	request = request_new(connection, msg);
	if (!request) {
		connection_reject(connection, "the daemon has no memory");
		return;
	}
	request->op = op < ARRAY_SIZE(ops) && ops[op].handle ? &ops[op] : &unknown;
	if (request->op->handle)
		request_run(request);
	else
		request_finish(request, request_fail(request, -EOPNOTSUPP,
						     "this daemon does not know "
						     "the request: it is older than the client"));
}

void request_receive(struct connection *connection, struct frame *frame)
{
	Nvmm__Request *msg;
	const char *why;

	if (frame_unread(connection->fd) > 0) {
		frame_close_fds(frame);
		connection_reject(connection, "it asked again before it had read the reply");
		return;
	}
	in_flight_read(connection->nvmmd, &connection->flight);
	if (frame->n_fds > 0) {
		frame_close_fds(frame);
		request_refuse(connection, -EPROTO, "requests carry no descriptors");
		return;
	}
	msg = nvmm__request__unpack(NULL, frame->len, frame->data);
	if (!msg) {
		request_refuse(connection, -EBADMSG, "this is no message");
		return;
	}
	why = message_fault(connection, msg, frame->len);
	if (why) {
		nvmm__request__free_unpacked(msg, NULL);
		request_refuse(connection, -EPROTO, why);
		return;
	}
	request_begin(connection, msg);
}
