/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Connections.
 *
 * One packet in, one packet out, never more: the daemon reads a request only when the one before
 * was answered, and a request that comes while the client has not read that answer ends the
 * connection. So there is no queue to fill, and at most one message with descriptors is on its way
 * to each client. While a job works on a request nothing is read; the session's pidfd is still
 * watched.
 *
 * That something can be read is queued by user (daemon/fair.h): a user with many connections that all ask makes
 * another one wait for one request. So is the end of a connection that said nothing in time.
 *
 * A connection is freed when its handles are closed and no request refers to it.
 */
#include "daemon/connection.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/nvmmd.h"
#include "media/store.h"
#include "daemon/request.h"

#define HELLO_AGAIN_MS 1000

/* Takes one packet, in its user's turn. */
static void connection_receive(struct fair_item *item)
{
	struct connection *connection = container_of(item, struct connection, item);
	struct nvmmd *nvmmd = connection->nvmmd;
	int r = connection->no_fds ? 0 : frame_peek(connection->fd);

	if (r == 0)
		r = frame_recv(nvmmd->frame, connection->fd, MSG_DONTWAIT);
	if (r == -EAGAIN || r == -EINTR)
		return;
	if (r == -EMSGSIZE || r == -EPROTO)
		request_refuse(connection, r,
			       r == -EMSGSIZE ? "a message has at most 65536 bytes" :
						"a message carries no control data");
	else if (r <= 0)
		connection_close(connection);
	else
		request_receive(connection, nvmmd->frame);
}

static void connection_queue(struct connection *connection, void (*run)(struct fair_item *item))
{
	if (connection->closed || connection->item.user)
		return;
	connection->item.run = run;
	fair_push(&connection->nvmmd->fair, &connection->item, connection_peer(connection)->uid);
}

static void connection_readable(uv_poll_t *poll, int status, int events)
{
	struct connection *connection = poll->data;

	if (status < 0)
		connection_close(connection);
	else
		connection_queue(connection, connection_receive);
}

static void connection_silent(struct fair_item *item)
{
	struct connection *connection = container_of(item, struct connection, item);

	connection_reject(connection, "it said no Hello within %d seconds",
			  CONNECTION_HELLO_MS / 1000);
}

/* One that waits to be read has said something by now: it is asked again later. */
static void connection_late(uv_timer_t *timer)
{
	struct connection *connection = timer->data;

	if (connection->item.user)
		uv_timer_start(timer, connection_late, HELLO_AGAIN_MS, 0);
	else
		connection_queue(connection, connection_silent);
}

int connection_new(struct connection **ret, struct nvmmd *nvmmd, int fd, struct peer *peer)
{
	struct connection *connection = calloc(1, sizeof(*connection));
	int r = connection ? 0 : -ENOMEM;

	if (r == 0) {
		connection->user = user_get(nvmmd, peer->uid);
		r = connection->user ? uv_poll_init(&nvmmd->loop, &connection->poll, fd) : -ENOMEM;
	}
	if (r < 0) {
		if (connection)
			user_unref(connection->user);
		free(connection);
		server_close_socket(&nvmmd->server, fd, peer->uid, nvmmd->server.listener.no_fds);
		return r;
	}
	uv_timer_init(&nvmmd->loop, &connection->hello);
	connection->nvmmd = nvmmd;
	connection->refs = 2; /* the handles */
	connection->fd = fd;
	connection->flight = (struct in_flight){ .user = connection->user, .fd = fd };
	connection->no_fds = nvmmd->server.listener.no_fds;
	connection->peer = *peer;
	*peer = (struct peer){ .pidfd = -1 };
	connection->poll.data = connection->hello.data = connection;
	uv_poll_start(&connection->poll, UV_READABLE, connection_readable);
	uv_timer_start(&connection->hello, connection_late, CONNECTION_HELLO_MS, 0);
	LIST_INSERT_HEAD(&nvmmd->server.connections, connection, of_server);
	nvmmd->server.n_connections++;
	nvmmd->server.n_unknown++;
	connection->user->unknown++;
	*ret = connection;
	return 0;
}

struct connection *connection_ref(struct connection *connection)
{
	connection->refs++;
	return connection;
}

void connection_unref(struct connection *connection)
{
	if (!connection || --connection->refs > 0)
		return;
	peer_deinit(&connection->peer);
	user_unref(connection->user);
	free(connection);
}

void connection_known(struct connection *connection)
{
	if (connection->known)
		return;
	connection->known = true;
	connection->nvmmd->server.n_unknown--;
	connection->user->unknown--;
	uv_timer_stop(&connection->hello);
}

static void poll_closed(uv_handle_t *handle)
{
	struct connection *connection = handle->data;

	/* Only now does libuv watch the descriptor no more. */
	in_flight_close(connection->nvmmd, &connection->flight, connection->no_fds);
	connection_unref(connection);
}

static void timer_closed(uv_handle_t *handle)
{
	connection_unref(handle->data);
}

void connection_close(struct connection *connection)
{
	if (connection->closed)
		return;
	connection->closed = true;
	fair_remove(&connection->nvmmd->fair, &connection->item);
	LIST_REMOVE(connection, of_server);
	connection->nvmmd->server.n_connections--;
	if (!connection->known) {
		connection->nvmmd->server.n_unknown--;
		connection->user->unknown--;
	}
	in_flight_forget(connection);
	/* The peer sees the end at once, not when the handle is closed. */
	shutdown(connection->fd, SHUT_RDWR);
	uv_close((uv_handle_t *)&connection->poll, poll_closed);
	uv_close((uv_handle_t *)&connection->hello, timer_closed);
	if (connection->session)
		session_detach(connection->session);
}

const struct peer *connection_peer(const struct connection *connection)
{
	return connection->session ? &connection->session->peer : &connection->peer;
}

void connection_reject(struct connection *connection, const char *fmt, ...)
{
	const struct peer *peer = connection_peer(connection);
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	connection->nvmmd->counters.protocol_errors++;
	client_log(connection->nvmmd, CLIENT_COMPLAINT, peer->uid,
		   "client (pid %d, uid %u): %s; its connection is closed",
		       peer->process.pid, peer->uid, text);
	connection_close(connection);
}

void connection_pause(struct connection *connection)
{
	if (connection->closed || connection->busy)
		return;
	connection->busy = true;
	fair_remove(&connection->nvmmd->fair, &connection->item);
	uv_poll_stop(&connection->poll);
}

static void connection_resume(struct connection *connection)
{
	if (connection->closed || !connection->busy || connection->nvmmd->stopping)
		return;
	connection->busy = false;
	uv_poll_start(&connection->poll, UV_READABLE, connection_readable);
}

void connection_send(struct connection *connection, const void *data, size_t len, const int *fds,
		     size_t n_fds)
{
	int r;

	if (connection->closed)
		return;
	/* A death here is one whose client asks again for what was done. */
	media_point_call();
	r = frame_send(connection->fd, data, len, fds, n_fds, MSG_DONTWAIT);
	/* Of other processes of the daemon's user there are too many: no fault of this client. */
	if (r == -ETOOMANYREFS && in_flight_keep(connection, data, len, fds, n_fds)) {
		connection_pause(connection);
		return;
	}
	if (r == 0 && n_fds > 0) {
		in_flight_sent(connection->nvmmd, &connection->flight, (uint32_t)n_fds);
		connection->nvmmd->counters.descriptors_sent += n_fds;
	}
	/* A client that did not wait for its answer may have said Goodbye before it left. */
	if (r < 0 && r != -EPIPE && r != -ECONNRESET)
		connection_reject(connection, "its reply cannot be sent: %s", strerror(-r));
	else if (r == -ECONNRESET || connection->closing)
		connection_close(connection);
	else
		connection_resume(connection);
}

/* Keeps what a mutation was answered, for a repeat of it. Without memory a repeat is done again. */
static void keep_reply(struct session *session, uint64_t seq, const void *data, size_t len)
{
	uint8_t *copy = malloc(len);

	free(session->last.data);
	session->last.data = copy;
	session->last.len = copy ? len : 0;
	session->last.seq = seq;
	if (copy)
		memcpy(copy, data, len);
}

void connection_reply(struct connection *connection, struct request *request)
{
	Nvmm__Reply *reply = &request->reply;
	uint8_t *buffer = connection->nvmmd->reply_buffer;
	size_t len, n_fds = request->n_fds;

	if (nvmm__reply__get_packed_size(reply) > FRAME_MAX) {
		reply->result_case = NVMM__REPLY__RESULT__NOT_SET;
		reply->error = -EMSGSIZE;
		snprintf(request->text, sizeof(request->text),
			 "the answer does not fit into one message: ask for less at once");
		reply->text = request->text;
		n_fds = 0;
	}
	len = nvmm__reply__pack(reply, buffer);
	if (request->session && request->op && request->op->mutation)
		keep_reply(request->session, request->msg->seq, buffer, len);
	connection_send(connection, buffer, len, request->fds, n_fds);
}
