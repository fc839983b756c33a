/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One socket, blocking, with a time limit on what is received: a daemon that does not answer fails
 * the test and does not hang it.
 */
#include "tests/system/raw.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

void raw_connect(struct raw *raw, struct harness *h)
{
	struct timeval limit = { .tv_sec = 20 };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	raw->seq = 0;
	raw->frame.n_fds = 0;
	raw->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(raw->sock, 0);
	ck_assert_uint_lt(strlen(h->socket), sizeof(addr.sun_path));
	memcpy(addr.sun_path, h->socket, strlen(h->socket));
	ck_assert_int_eq(
		setsockopt(raw->sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
	ck_assert_msg(connect(raw->sock, (struct sockaddr *)&addr, sizeof(addr)) == 0,
		      "connect: %s", strerror(errno));
}

void raw_close(struct raw *raw)
{
	frame_close_fds(&raw->frame);
	close(raw->sock);
}

int raw_send(struct raw *raw, const void *data, size_t len)
{
	return send(raw->sock, data, len, MSG_NOSIGNAL) == (ssize_t)len ? 0 : -errno;
}

Nvmm__Reply *raw_receive(struct raw *raw)
{
	Nvmm__Reply *reply;
	int r;

	frame_close_fds(&raw->frame);
	r = frame_recv(&raw->frame, raw->sock, 0);
	ck_assert_msg(r != -EAGAIN, "no answer within 20 s");
	if (r <= 0)
		return NULL;
	reply = nvmm__reply__unpack(NULL, raw->frame.len, raw->frame.data);
	ck_assert_ptr_nonnull(reply);
	return reply;
}

Nvmm__Reply *raw_ask(struct raw *raw, Nvmm__Request *request)
{
	uint8_t packed[4096];

	request->seq = ++raw->seq;
	ck_assert_uint_le(nvmm__request__get_packed_size(request), sizeof(packed));
	if (raw_send(raw, packed, nvmm__request__pack(request, packed)) < 0)
		return NULL;
	return raw_receive(raw);
}

int raw_error(struct raw *raw, Nvmm__Request *request)
{
	Nvmm__Reply *reply = raw_ask(raw, request);
	int error = reply ? reply->error : -ECONNRESET;

	if (reply) {
		ck_assert_uint_eq(reply->seq, request->seq);
		ck_assert_msg(error == 0 || reply->text[0] != '\0', "error %d without text", error);
		nvmm__reply__free_unpacked(reply, NULL);
	}
	frame_close_fds(&raw->frame);
	return error;
}

void raw_hello(struct raw *raw)
{
	Nvmm__Hello hello = NVMM__HELLO__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	uint8_t cookie[16];

	for (size_t i = 0; i < sizeof(cookie); i++)
		cookie[i] = (uint8_t)(harness_now_us() >> (i % 8)) ^ (uint8_t)(getpid() * (int)i);
	hello.version = 1;
	hello.cookie.data = cookie;
	hello.cookie.len = sizeof(cookie);
	hello.name = (char *)(uintptr_t)"raw";
	request.op_case = NVMM__REQUEST__OP_HELLO;
	request.hello = &hello;
	ck_assert_int_eq(raw_error(raw, &request), 0);
}

uint64_t raw_longest_turn_us(struct harness *h, unsigned seconds)
{
	Nvmm__Status op = NVMM__STATUS__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__Reply *reply;
	struct raw raw;
	uint64_t us;

	raw_connect(&raw, h);
	raw_hello(&raw);
	op.window = seconds;
	request.op_case = NVMM__REQUEST__OP_STATUS;
	request.status = &op;
	reply = raw_ask(&raw, &request);
	ck_assert_ptr_nonnull(reply);
	ck_assert_int_eq(reply->result_case, NVMM__REPLY__RESULT_STATUS);
	us = reply->status->loop_recent_us;
	nvmm__reply__free_unpacked(reply, NULL);
	raw_close(&raw);
	return us;
}
