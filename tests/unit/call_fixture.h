/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A connection to a fake daemon, for tests of requests. The test starts the daemon, after it said what to serve.
 */
#pragma once

#include <nvmm/client.h>

#include "tests/unit/fake_daemon.h"

extern struct fake fake;
extern struct nvmm_client *nvmm; /* NULL: not connected */

/* Before and after each test. */
void call_setup(void);
void call_teardown(void);

/* Connects `nvmm` to the fake; what nvmm_connect() returns. */
int call_connect(int timeout_ms);

/* A pool of one shelf, as a reply. */
enum fake_action call_answer_pool(Nvmm__Reply *reply, uint32_t id, uint32_t kind);

/*
 * For fake.serve: lookups answer with the pool whose id is the name's length; names that begin with "late" so late
 * that who connected with 100 ms has given up.
 */
enum fake_action call_serve_lookup(struct fake *f, int conn, const Nvmm__Request *request, Nvmm__Reply *reply,
				   int *fds, size_t *n_fds);
