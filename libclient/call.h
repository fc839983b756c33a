/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests to the daemon: one at a time on a connection, in lock-step, with a time limit.
 * For libclient itself and, through libclient-internal.la, for nvmmctl.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/macro.h"
#include "proto/frame.h"
#include "proto/nvmm.pb-c.h"

struct nvmm_client;

/* A reply and the descriptors that came with it. */
struct nvmm_reply {
	Nvmm__Reply *msg;
	int fds[FRAME_FDS_MAX]; /* -1: taken */
	size_t n_fds;
};

#define NVMM_REPLY_INIT { .msg = NULL }

/* Closes what is left of the descriptors, frees the message. */
void nvmm_reply_deinit(struct nvmm_reply *reply);

#define _reply _cleanup(nvmm_reply_deinit) struct nvmm_reply

/* A request: NVMM_REQUEST(POOL_STAT, pool_stat, &op). */
#define NVMM_REQUEST(OP, member, op)                                       \
	{                                                                  \
		.base = PROTOBUF_C_MESSAGE_INIT(&nvmm__request__descriptor), \
		.op_case = NVMM__REQUEST__OP_##OP, .member = (op)          \
	}

/* For n_fds of nvmm_call(): the caller looks itself. */
#define NVMM_ANY_FDS SIZE_MAX

/*
 * Sends `request` (its seq is set here) and waits for its reply. 0: *ret holds it (the caller gives
 * it to nvmm_reply_deinit()), its error is 0 and its result is `want`
 * (NVMM__REPLY__RESULT__NOT_SET: none is needed) with exactly `n_fds` descriptors. Else a negative
 * errno, the thread's text set: the daemon's own refusal; -ETIMEDOUT: no answer in the connection's
 * time; -ECONNRESET: the daemon went away and the session with it; -EPROTO: it answered nonsense;
 * -ENOMEM; -ENOTCONN: this process was forked after nvmm_connect().
 * Thread-safe; other threads' calls wait.
 */
int nvmm_call(struct nvmm_client *nvmm, Nvmm__Request *request, Nvmm__Reply__ResultCase want, size_t n_fds,
	      struct nvmm_reply *ret);

/* Sets the calling thread's text (nvmm_errmsg()); returns `error`. `nvmm` NULL: of connecting. */
int nvmm_fail(const struct nvmm_client *nvmm, int error, const char *fmt, ...) _printf(3, 4);
