/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Hello and Goodbye.
 *
 * A connection begins with Hello, which makes a session or attaches to one. Attaching again takes
 * the session's cookie and the very process that it belongs to: a child of fork has the cookie too,
 * but what its parent holds is not its own. Where the session is not there any more, the client
 * gets a new one and is told so.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/connection.h"
#include "daemon/nvmmd.h"
#include "daemon/request.h"

#define PROTOCOL_VERSION 1u

static int hello_reply(struct request *request, const struct session *session, bool resumed)
{
	Nvmm__HelloReply *reply = request_alloc(request, sizeof(*reply));
	struct nvmmd *nvmmd = request->nvmmd;

	if (!reply)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	nvmm__hello_reply__init(reply);
	reply->version = PROTOCOL_VERSION;
	reply->session = session->id;
	reply->node = nvmmd->config.node.id;
	reply->node_name = nvmmd->config.node.name;
	reply->resumed = resumed;
	reply->run = nvmmd->run;
	reply->owner = session->owner;
	reply->daemon_version = request_strdup(request, PACKAGE_VERSION);
	if (!reply->daemon_version)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	request->reply.result_case = NVMM__REPLY__RESULT_HELLO;
	request->reply.hello = reply;
	return 0;
}

/* 1: attached; 0: there is no such session; -EPERM. */
static int hello_resume(struct request *request, const Nvmm__Hello *m)
{
	struct connection *connection = request->connection;
	struct session *session = session_find(request->nvmmd, m->resume);
	const struct peer *peer = &connection->peer;

	if (!session)
		return 0;
	if (memcmp(session->cookie, m->cookie.data, SESSION_COOKIE_LEN) != 0 ||
	    session->peer.process.pid != peer->process.pid ||
	    session->peer.process.start != peer->process.start)
		return request_fail(request, -EPERM,
				    "session %" PRIu64 " is another process's: begin a "
				    "new one",
				    m->resume);
	session_attach(session, connection, &connection->peer);
	request->nvmmd->counters.sessions_resumed++;
	client_log(request->nvmmd, CLIENT_EVENT, session->peer.uid,
		   "session %" PRIu64 " (pid %d) is attached again", session->id,
		 session->peer.process.pid);
	return 1;
}

static int hello_limits(struct request *request)
{
	const struct config *config = &request->nvmmd->config;
	uid_t uid = request->connection->peer.uid;
	uint32_t per_user = clients_of_user(request->nvmmd, uid);

	if (request->nvmmd->sessions.n >= config->limits.clients)
		return request_fail(request, -EUSERS,
				    "there are %u clients, and limits.clients allows no "
				    "more",
				    request->nvmmd->sessions.n);
	if (sessions_of_user(request->nvmmd, uid) >= per_user)
		return request_fail(request, -EDQUOT,
				    "user %u has %u clients, and "
				    "limits.clients_per_user allows no more",
				    uid, per_user);
	return 0;
}

/* A name is for operators' eyes: whatever is no plain character in it is shown as '?'. */
static void plain_name(char ret[SESSION_NAME_MAX + 1], const char *name)
{
	size_t len = strnlen(name, SESSION_NAME_MAX);

	memset(ret, 0, SESSION_NAME_MAX + 1);
	for (size_t i = 0; i < len; i++)
		ret[i] = name[i] >= ' ' && name[i] <= '~' ? name[i] : '?';
}

/* Refuses a user whom the daemon cannot tell from others: it would have the pools of all of them. */
static int hello_identity(struct request *request)
{
	uid_t uid = request->connection->peer.uid;

	if (!identity_uid_unknown(&request->nvmmd->identity, uid))
		return 0;
	return request_fail(request, -EACCES,
			    "the daemon's user namespace does not map your user: it sees uid %u, as of every "
			    "user that is not mapped, and cannot tell you apart; run nvmmd where its "
			    "uid_map has your user",
			    uid);
}

static int hello_check(struct request *request, const Nvmm__Hello *m)
{
	static const uint8_t zero[SESSION_COOKIE_LEN];

	if (m->version != PROTOCOL_VERSION)
		return request_fail(request, -EPROTO,
				    "this daemon speaks version %u of the protocol, the "
				    "client %u: install the same release of both",
				    PROTOCOL_VERSION, m->version);
	if (m->cookie.len != SESSION_COOKIE_LEN ||
	    memcmp(m->cookie.data, zero, SESSION_COOKIE_LEN) == 0)
		return request_fail(request, -EINVAL, "a session's cookie is %u random bytes",
				    SESSION_COOKIE_LEN);
	if (strlen(m->name) > SESSION_NAME_MAX)
		return request_fail(request, -ENAMETOOLONG, "a client's name has at most %u bytes",
				    SESSION_NAME_MAX);
	return 0;
}

static int hello_new(struct request *request, const Nvmm__Hello *m)
{
	struct connection *connection = request->connection;
	char name[SESSION_NAME_MAX + 1];
	struct session *session;
	int r;

	r = hello_limits(request);
	if (r < 0)
		return r;
	plain_name(name, m->name);
	r = session_new(&session, request->nvmmd, &connection->peer, m->cookie.data, name);
	if (r < 0)
		return request_fail(request, r, "a session cannot be made: %s", strerror(-r));
	session_attach(session, connection, NULL);
	log_debug("session %" PRIu64 " begins: pid %d, uid %u, %s", session->id,
		  session->peer.process.pid, session->peer.uid, session->name);
	return 0;
}

int op_hello(struct request *request)
{
	const Nvmm__Hello *m = request->msg->hello;
	bool resumed;
	int r;

	r = hello_check(request, m);
	if (r == 0)
		r = hello_identity(request);
	if (r == 0 && m->resume != 0)
		r = hello_resume(request, m);
	resumed = r > 0;
	if (r == 0)
		r = hello_new(request, m);
	if (r < 0) {
		request->connection->closing = true;
		request->nvmmd->counters.connections_refused++;
		client_log(request->nvmmd, CLIENT_COMPLAINT, request_peer(request)->uid,
			   "client (pid %d, uid %u) refused: %s",
			       request->connection->peer.process.pid, request->connection->peer.uid,
			       request->text);
		return r;
	}
	connection_known(request->connection);
	return hello_reply(request, request->connection->session, resumed);
}

int op_goodbye(struct request *request)
{
	struct session *session = request->session;
	struct connection *connection = request->connection;

	/* The reply still goes out on the connection, which is closed behind it. */
	connection->closing = true;
	session->connection = NULL;
	connection->session = NULL;
	session_count_detached(session, true);
	session->goodbye = request;
	session_end(session, "it said goodbye");
	return REQUEST_PENDING;
}
