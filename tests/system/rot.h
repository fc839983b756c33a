/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rot: places in the files of a pool, what is done to them, and what is to be of a pool afterwards.
 */
#pragma once

#include <stddef.h>

#include "media/span.h"
#include "tests/system/harness.h"

#define BLOCKS 150u

/* Stands for where the state record of a heap's first unit is that is given: the second one. */
#define RECORDS (1 << 30)
#define TAIL (RECORDS + 384)
#define LANE(field) (long)(offsetof(struct lanes_file_df, lane) + offsetof(struct lane_df, field))
#define SHELF_RECORD (long)offsetof(struct meta_file_df, shelf)
#define ROOT_RECORD (long)offsetof(struct meta_file_df, root)
#define SERVICE_RECORD (long)offsetof(struct meta_file_df, service)
#define KEPT (long)offsetof(struct table_file_df, word)
#define WORD (KEPT + (long)sizeof(m64))

/* The registry's rows are of the pool's own record. */
#define RECORD(field) (long)offsetof(struct pool_record_df, field)
#define SECOND(field) (RECORD(field) + (long)sizeof(struct pool_record_df))
#define REGISTRY "registry"

enum damage {
	FLIP, /* `len` bytes at `at`, all their bits */
	BIT,  /* one bit of each */
	ZERO,
	CUT, /* to `at` bytes */
	LONG, /* by `len` bytes of rubbish */
	GONE,
};

enum {
	QUIET = 1, /* cannot be told, or is derived and made anew: check may say nothing */
	BITS = 2,  /* bits of blocks, of which nobody else tells: blocks may be lost */
	LOST = 4,  /* what is gone is user bytes: the pool cannot be kept */
};

struct row {
	enum damage damage;
	long at;
	size_t len;
	unsigned flags;
};

/* A pool, and the blocks that it had. */
struct victim {
	nvmm_pool_id id;
	nvmm_ptr live[BLOCKS];
};

/* nvmmctl: its exit code. */
int rot_ctl(struct harness *h, char *out, size_t room, const char *a, const char *b, const char *c, const char *d);
/* A command on one pool. */
int rot_ctl_pool(struct harness *h, char *out, size_t room, nvmm_pool_id id, const char *a, const char *b,
		 const char *c);
nvmm_pool_id rot_make(struct nvmm_client *nvmm, nvmm_pool_id id, bool sparse);

/* Spoils a place of a file of a pool, or of its record in the registry. */
void rot_spoil(struct harness *h, const struct victim *v, const char *file, struct row row);
void rot_spoil_bytes(int fd, const struct row *row);

/* Allocates until nothing is left: none of it may be what was allocated before. */
void rot_expect_kept(struct harness *h, const struct victim *v, unsigned row);
