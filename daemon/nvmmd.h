/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon: one object, one loop.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <uv.h>

#include "daemon/access.h"
#include "daemon/client_log.h"
#include "daemon/config.h"
#include "daemon/counters.h"
#include "daemon/epochs.h"
#include "daemon/failures.h"
#include "daemon/fair.h"
#include "daemon/identity.h"
#include "daemon/in_flight.h"
#include "daemon/job.h"
#include "daemon/memory.h"
#include "daemon/options.h"
#include "daemon/overgrown.h"
#include "daemon/pool.h"
#include "daemon/recovery.h"
#include "daemon/server.h"
#include "daemon/settle.h"
#include "daemon/session.h"
#include "daemon/user.h"
#include "daemon/turn.h"
#include "media/node.h"
#include "media/registry.h"
#include "proto/frame.h"

struct nvmmd {
	const struct options *options;
	const char *config_path; /* NULL: the defaults alone */
	struct config config;
	struct access_admin admin;
	struct identity identity; /* read once, at the start */
	uint8_t boot_id[BOOT_ID_LEN];
	int64_t started;   /* seconds since 1970 */
	uint64_t run;      /* tells this daemon from the next one */
	bool clean_start;  /* what was there before had been stopped in order */
	bool base_is_pmem; /* `power` can be promised */
	int base_fd;
	int base_lock;
	int runtime_fd;
	int runtime_lock;
	struct node_file *node_file;
	struct node_record node;
	uint64_t owner_count; /* of the next owner number, daemon/owner.c */
	struct memory memory; /* that reservations may take */
	struct registry *registry;
	struct pools pools;
	struct users users;
	struct sessions sessions;
	struct settler settler;
	struct epochs epochs;
	struct recovery recovery;
	struct overgrown overgrown;
	struct server server;
	struct flights flights;
	struct counters counters;
	struct frame *frame;   /* what a connection receives into */
	uint8_t *reply_buffer; /* of FRAME_MAX bytes */
	bool loop_ready;
	uv_loop_t loop;
	struct fair fair; /* what clients ask of the loop, by user */
	struct turns turns;
	uv_signal_t sigterm;
	uv_signal_t sigint;
	uv_signal_t sighup;
	uv_timer_t watchdog;
	struct jobs jobs;
	bool stopping;
	bool stopped;           /* nothing is left but to close handles */
	struct failures failures;
	uint32_t sessions_left; /* that have pools open */
	struct client_log client_log;
};

/* Does all of it: returns the exit status of the process. */
int nvmmd_main(int argc, char **argv);

/* Reads the configuration, takes the locks, recovers what is interrupted, listens. Logs what is
 * wrong. `options` is borrowed. */
int nvmmd_init(struct nvmmd *nvmmd, const struct options *options);
/* Serves until it is told to stop. 0 or -errno. */
int nvmmd_run(struct nvmmd *nvmmd);
/* The two ends of it, for a caller that turns the loop itself: what comes before the first turn (0 or -errno),
 * and the clean mark, after the last one. */
int nvmmd_start(struct nvmmd *nvmmd);
void nvmmd_finish(struct nvmmd *nvmmd);
/* Gives up what there is; the clean mark, if it is due, was set by nvmmd_run(). */
void nvmmd_deinit(struct nvmmd *nvmmd);

/* Begins an orderly stop. */
void nvmmd_stop(struct nvmmd *nvmmd);
/* Goes on with it when the last job is done. */
void nvmmd_stop_if_idle(struct nvmmd *nvmmd);

/* Reads the configuration again (reload.c). */
void nvmmd_reload(struct nvmmd *nvmmd);
/* Finds the admin group of the configuration (reload.c). */
int nvmmd_find_admin(struct nvmmd *nvmmd);

int64_t nvmmd_now(void); /* seconds since 1970 */
