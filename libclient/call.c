/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests: one at a time, in lock-step.
 *
 * A call sends one packet and reads one. The daemon ends a connection whose client asks again
 * before it has read its reply, so a reply that did not come in time is remembered as stale, and
 * the next call waits for it first. A late reply may have given this process something: what it
 * gave is kept (lanes) or undone (an opened pool); descriptors are closed; spans need nothing,
 * since the daemon finds them again by their hints.
 *
 * When the daemon goes away in the middle of a call, the call attaches to the next daemon and sends
 * the same request with the same number: the daemon knows by it what it has done before. It goes on so
 * until its time is over, however many daemons die: a death costs waiting. But one daemon that hangs up on a
 * request is not asked for ever, nor does a request go round for ever that may be what they die of.
 * A daemon that answers nonsense is not asked again: the connection is lost, and says why.
 *
 * What the daemon answers is checked before anybody sees it: number, error range, the kind of
 * result, the count of descriptors. Values are checked by who asked.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libclient/connection.h"
#include "libclient/pool.h"

#define HANG_UPS_MAX 3u /* of one daemon, on one request */
#define DEATHS_MAX 100u /* of daemons that had the request */
#define ERRNO_MAX 4095

void nvmm_reply_deinit(struct nvmm_reply *reply)
{
	for (size_t i = 0; i < reply->n_fds; i++)
		if (reply->fds[i] >= 0)
			close(reply->fds[i]);
	reply->n_fds = 0;
	if (reply->msg)
		nvmm__reply__free_unpacked(take(reply->msg), NULL);
}

/* Waits until the socket is ready. 0; -ETIMEDOUT; -errno of poll(2). */
static int wait_for(int sock, short events, uint64_t when)
{
	struct pollfd p = { .fd = sock, .events = events };
	uint64_t now;
	int ms, r;

	for (;;) {
		ms = -1;
		if (when != UINT64_MAX) {
			now = time_now();
			if (now >= when)
				return -ETIMEDOUT;
			ms = (int)MIN((when - now) / 1000000u + 1, UINT64_C(1000000));
		}
		r = poll(&p, 1, ms);
		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
	}
}

static int gone(int r)
{
	return r == -EPIPE || r == -ENOTCONN ? -ECONNRESET : r;
}

int call_send(int sock, const void *data, size_t len, uint64_t when)
{
	int r;

	for (;;) {
		r = frame_send(sock, data, len, NULL, 0, MSG_DONTWAIT);
		if (r != -EAGAIN)
			return gone(r);
		r = wait_for(sock, POLLOUT, when);
		if (r < 0)
			return r;
	}
}

int call_recv(struct frame *frame, int sock, uint64_t when)
{
	int r;

	for (;;) {
		r = frame_recv(frame, sock, MSG_DONTWAIT);
		if (r == 0)
			return -ECONNRESET;
		if (r > 0)
			return 0;
		if (r != -EAGAIN)
			return gone(r);
		r = wait_for(sock, POLLIN, when);
		if (r < 0)
			return r;
	}
}

/* Moves the received packet into *reply. -EPROTO: it is none, or not of request `seq`. */
static int reply_take(struct nvmm_reply *reply, struct frame *frame, uint64_t seq)
{
	reply->n_fds = frame->n_fds;
	memcpy(reply->fds, frame->fds, sizeof(reply->fds));
	frame->n_fds = 0;
	reply->msg = nvmm__reply__unpack(NULL, frame->len, frame->data);
	if (!reply->msg || reply->msg->seq != seq || reply->msg->error > 0 ||
	    reply->msg->error < -ERRNO_MAX)
		return -EPROTO;
	return 0;
}

/* Reads one reply. -ECONNRESET: gone; -ETIMEDOUT; -EMFILE; else lost with -EPROTO. */
static int reply_read(struct nvmm_client *nvmm, struct nvmm_reply *reply, uint64_t seq)
{
	int r;

	r = call_recv(&nvmm->frame, nvmm->sock, deadline());
	if (r == -ECONNRESET || r == -ETIMEDOUT || r == -EMFILE)
		return r;
	if (r == 0)
		r = reply_take(reply, &nvmm->frame, seq);
	if (r < 0) {
		connection_detach(nvmm);
		return connection_lose(nvmm, -EPROTO,
				       "the daemon answers what this library does not understand");
	}
	return 0;
}

static int request_send(struct nvmm_client *nvmm, const Nvmm__Request *request)
{
	uint8_t data[4096];
	uint8_t *buf = data;
	size_t len = nvmm__request__get_packed_size(request);
	int r;

	if (len > FRAME_MAX)
		return -EMSGSIZE;
	if (len > sizeof(data)) {
		buf = malloc(len);
		if (!buf)
			return -ENOMEM;
	}
	nvmm__request__pack(request, buf);
	r = call_send(nvmm->sock, buf, len, deadline());
	if (buf != data)
		free(buf);
	return r;
}

static int late_lock(struct nvmm_client *nvmm, int r)
{
	return nvmm_fail(nvmm, r, "the daemon did not answer another thread's call in time");
}

static int late_daemon(struct nvmm_client *nvmm)
{
	return nvmm_fail(nvmm, -ETIMEDOUT, "nvmmd did not answer within %d.%d s: it is stopped, or busy",
			 nvmm->timeout_ms / 1000, nvmm->timeout_ms % 1000 / 100);
}

/* Closes again in the daemon what a reply opened that nobody has got: late, or its descriptors found no
 * place here. Only the daemon knows the incarnation. */
static int undo_open(struct nvmm_client *nvmm, nvmm_pool_id pool, bool write)
{
	_reply reply = NVMM_REPLY_INIT;
	Nvmm__PoolClose op = NVMM__POOL_CLOSE__INIT;
	Nvmm__Request request = NVMM_REQUEST(POOL_CLOSE, pool_close, &op);
	int r;

	op.id = pool;
	op.write = write;
	request.seq = ++nvmm->seq;
	r = request_send(nvmm, &request);
	if (r < 0)
		return r;
	r = reply_read(nvmm, &reply, request.seq);
	if (r == -ETIMEDOUT)
		nvmm->stale = (struct stale){ .pending = true,
					      .seq = request.seq,
					      .op = NVMM__REQUEST__OP_POOL_CLOSE };
	return r == -EMFILE ? 0 : r;
}

/* The daemon has opened a pool, and its descriptors found no place here: it is closed again, so that
 * the pool does not count as open. */
static int no_descriptors(struct nvmm_client *nvmm, const Nvmm__Request *request)
{
	int r = 0;

	if (request->op_case == NVMM__REQUEST__OP_POOL_OPEN)
		r = undo_open(nvmm, (nvmm_pool_id)request->pool_open->id, request->pool_open->write);
	if (r < 0 && r != -ETIMEDOUT && !nvmm->lost)
		connection_detach(nvmm);
	return nvmm_fail(nvmm, -EMFILE, "this process has no file descriptor free (ulimit -n)");
}

/* Reads the reply that did not come in time, if there is one. */
static int stale_settle(struct nvmm_client *nvmm)
{
	_reply reply = NVMM_REPLY_INIT;
	struct stale stale = nvmm->stale;
	int r;

	if (!stale.pending)
		return 0;
	r = reply_read(nvmm, &reply, stale.seq);
	if (r < 0 && r != -EMFILE)
		return r;
	nvmm->stale.pending = false;
	if (stale.op == NVMM__REQUEST__OP_POOL_OPEN && (r == -EMFILE || reply.msg->error == 0))
		return undo_open(nvmm, stale.pool, stale.write);
	if (r == -EMFILE || reply.msg->error != 0)
		return 0;
	if (stale.op == NVMM__REQUEST__OP_LANE_TAKE &&
	    reply.msg->result_case == NVMM__REPLY__RESULT_LANES)
		pool_add_lanes(nvmm, stale.pool, reply.msg->lanes);
	return 0;
}

int call_settle(struct nvmm_client *nvmm)
{
	_gate *locked = NULL;
	int r;

	r = gate_enter(&nvmm->call_lock, deadline());
	if (r < 0)
		return late_lock(nvmm, r);
	locked = &nvmm->call_lock;
	if (!nvmm->stale.pending)
		return 0;
	r = stale_settle(nvmm);
	if (r == -ETIMEDOUT)
		return late_daemon(nvmm);
	if (r < 0 && !nvmm->lost)
		connection_detach(nvmm);
	return r < 0 ? 0 : 1;
}

static void stale_note(struct nvmm_client *nvmm, const Nvmm__Request *request)
{
	struct stale *s = &nvmm->stale;

	*s = (struct stale){ .pending = true, .seq = request->seq, .op = request->op_case };
	if (request->op_case == NVMM__REQUEST__OP_LANE_TAKE) {
		s->pool = (uint16_t)request->lane_take->id;
	} else if (request->op_case == NVMM__REQUEST__OP_POOL_OPEN) {
		s->pool = (uint16_t)request->pool_open->id;
		s->write = request->pool_open->write;
	}
}

/* One try on the present socket. -ECONNRESET without a lost session: attach and try again. */
static int exchange(struct nvmm_client *nvmm, Nvmm__Request *request, struct nvmm_reply *reply)
{
	int r;

	r = stale_settle(nvmm);
	if (r < 0)
		return r;
	/* A number belongs to a request for good, even if it is sent twice. */
	if (request->seq == 0)
		request->seq = ++nvmm->seq;
	r = request_send(nvmm, request);
	if (r < 0)
		return r;
	r = reply_read(nvmm, reply, request->seq);
	if (r == -ETIMEDOUT)
		stale_note(nvmm, request);
	return r;
}

/* How often a request went unanswered. */
struct tries {
	unsigned hang_ups; /* of a daemon that lived on */
	unsigned deaths;
};

/* The daemon has hung up. Attaches anew; 0: ask again. Text set. */
static int attach_again(struct nvmm_client *nvmm, struct tries *tries)
{
	uint64_t run = nvmm->run;
	int r;

	connection_detach(nvmm);
	r = connection_attach(nvmm);
	if (r < 0)
		return r;
	if (nvmm->run == run)
		tries->hang_ups++;
	else
		tries->deaths++;
	if (tries->hang_ups < HANG_UPS_MAX && tries->deaths < DEATHS_MAX)
		return 0;
	return nvmm_fail(nvmm, -ECONNRESET,
			 "the daemon hung up on the same request %u times; see its log",
			 tries->hang_ups + tries->deaths);
}

/* Tries until there is a reply or no hope; call_lock held. Text set. */
static int converse(struct nvmm_client *nvmm, Nvmm__Request *request, struct nvmm_reply *reply)
{
	struct tries tries = { 0 };
	int r;

	r = connection_attach(nvmm);
	while (r == 0) {
		r = exchange(nvmm, request, reply);
		if (r == 0 || nvmm->lost)
			return r;
		nvmm_reply_deinit(reply);
		if (r == -ETIMEDOUT)
			return late_daemon(nvmm);
		if (r == -EMFILE)
			return no_descriptors(nvmm, request);
		if (r != -ECONNRESET)
			return nvmm_fail(nvmm, r, "cannot talk to the daemon: %s", strerror(-r));
		r = attach_again(nvmm, &tries);
	}
	return r;
}

/* What the daemon says of the request itself. */
static int verdict(struct nvmm_client *nvmm, struct nvmm_reply *reply, Nvmm__Reply__ResultCase want,
		   size_t n_fds)
{
	const Nvmm__Reply *msg = reply->msg;

	if (msg->error != 0)
		return nvmm_fail(nvmm, msg->error, "%s",
				 msg->text && *msg->text ? msg->text : strerror(-msg->error));
	if ((want != NVMM__REPLY__RESULT__NOT_SET && msg->result_case != want) ||
	    (n_fds != NVMM_ANY_FDS && reply->n_fds != n_fds))
		return nvmm_fail(nvmm, -EPROTO, "the daemon answers something else than was asked");
	return 0;
}

int call_daemon(struct nvmm_client *nvmm, Nvmm__Request *request, Nvmm__Reply__ResultCase want,
		size_t n_fds, struct nvmm_reply *ret)
{
	_reply reply = NVMM_REPLY_INIT;
	_gate *locked = NULL;
	int r;

	r = gate_enter(&nvmm->call_lock, deadline());
	if (r < 0)
		return late_lock(nvmm, r);
	locked = &nvmm->call_lock;
	request->seq = 0;
	r = converse(nvmm, request, &reply);
	if (r < 0)
		return r;
	r = verdict(nvmm, &reply, want, n_fds);
	if (r < 0)
		return r;
	*ret = reply;
	reply = (struct nvmm_reply)NVMM_REPLY_INIT;
	return 0;
}

int nvmm_call(struct nvmm_client *nvmm, Nvmm__Request *request, Nvmm__Reply__ResultCase want,
	      size_t n_fds, struct nvmm_reply *ret)
{
	_entry entry = ENTRY_NONE;
	int r;

	r = enter(&entry, nvmm);
	if (r < 0)
		return r;
	return call_daemon(nvmm, request, want, n_fds, ret);
}
