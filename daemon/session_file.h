/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * <runtime>/session-<id>: what a restarted daemon must know of a session. On tmpfs: it outlives
 * the daemon, not the boot.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "common/macro.h"
#include "daemon/peer.h"

#define SESSION_COOKIE_LEN 16u
#define SESSION_NAME_MAX 63u
#define BOOT_ID_LEN 16u

/* A pool that the session has open. */
struct session_pool {
	uint16_t pool;
	uint8_t read;  /* 0 or 1 */
	uint8_t write; /* 0 or 1 */
	uint64_t incarnation;
	uint32_t n_lanes;
	uint32_t *lanes;
};

/* What the session's last request that was done before a restart did: its repeat is answered from it. */
struct session_done {
	uint64_t seq;         /* 0: nothing is known */
	uint64_t incarnation; /* of `pool` */
	uint16_t pool;        /* whose record it changed; 0: it changed the session alone */
};

struct session_image {
	uint64_t id;
	struct process_id process;
	uint8_t boot_id[BOOT_ID_LEN];
	uint32_t uid;
	uint32_t gid;
	uint8_t cookie[SESSION_COOKIE_LEN];
	char name[SESSION_NAME_MAX + 1];
	int64_t since; /* seconds since 1970 */
	uint8_t epochs; /* 1: it has epoch slots, which the keeper holds; else 0 */
	uint64_t last_seq;
	struct session_done done;
	uint32_t n_pools;
	struct session_pool *pools;
};

/* Writes the session's file anew, whole or not at all. -ENOSPC and others of write(2). */
int session_file_write(int runtime_fd, const struct session_image *image);

/* Reads <runtime>/<name>. -EUCLEAN: it is damaged; -ENOMEM; others of open(2), read(2). */
int session_file_read(struct session_image **ret, int runtime_fd, const char *name);
void session_image_free(struct session_image *image);
DEFINE_AUTO(struct session_image, session_image_free)

/* 0 also if it is not there. */
int session_file_remove(int runtime_fd, uint64_t id);

/* The session whose file `name` is. -EINVAL: it is none's. */
int session_file_id(uint64_t *ret, const char *name);

/* The kernel's id of this boot. Tests put a file in the place of the kernel's. */
extern const char *boot_id_path;
int boot_id_read(uint8_t ret[BOOT_ID_LEN]);
