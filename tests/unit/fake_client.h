/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A client library without a daemon, for tests of nvmmctl: the calls that it uses, over three pools
 * and two clients in memory, each call failing as the test says.
 */
#pragma once

#include <nvmm/client.h>

#include "libclient/call.h"

#define FAKE_POOLS 4u

struct fake {
	int connect_error;    /* of nvmm_connect() */
	int error;            /* of every other call */
	const char *text;     /* nvmm_errmsg() */
	int heap_stat_error;  /* of HeapStat alone */
	int heap_open_error;
	unsigned roots;       /* of any heap: "root0" at 0x1000000004000, ... */
	int heaps_open;
	struct nvmm_pool_info pools[FAKE_POOLS]; /* id 0: none */
	bool connected;
	char socket[128]; /* that was asked for */
	int timeout_ms;
	struct nvmm_pool_options options; /* of the last create */
	uint64_t bytes; /* of the last create or resize */
	uid_t uid;
	gid_t gid;
	bool forced;
	char created_name[NVMM_NAME_MAX + 1];
};

extern struct fake fake;

/* Pool 1 "words", a heap; pool 2 without a name, a region; pool 7 "rotten", a damaged heap. */
void fake_reset(void);
