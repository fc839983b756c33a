/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who died: told to the clients that had a pool open beside the dead.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

struct nvmmd;
struct opening;
struct session_image;

#define FAILURES_KEPT 256u

/* A process died that had the pool open. */
struct failure {
	uint32_t pool;
	pid_t pid;
	uint64_t incarnation; /* of the pool */
};

struct failures {
	uint64_t n; /* that there were since the daemon started; number k is at place k % FAILURES_KEPT */
	struct failure failure[FAILURES_KEPT];
};

/* The process that had this open has died, and is settled here. */
void failures_note(const struct opening *opening);
/* The same of one that died while no daemon ran. */
void failures_note_image(struct nvmmd *nvmmd, const struct session_image *image);
