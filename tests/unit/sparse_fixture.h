/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A sparse heap without daemon: shelf, table and state are files in memory, lanes are not.
 */
#pragma once

#include "media/count.h"
#include "media/grant.h"
#include "media/lane.h"

#define SPARSE_LANES 4u

struct sparse {
	struct heap heap;
	struct heap_shelf shelf;
	uint64_t limit; /* units */
	int fd[3];      /* shelf, table, state */
	void *table;
	void *state;
	char *memory;   /* user bytes */
	void *lanes;
	struct grant *grant;
	struct lane *lane;
	uint64_t allowed; /* bytes that may still be reserved */
	unsigned wishes;  /* that were fulfilled */
	bool alive;
	unsigned torn;    /* granules that a kill may have left reserved without their bit */
};

/* A heap of `units` that may have `limit`. Exits the test on failure. */
void sparse_init(struct sparse *s, uint64_t units, uint64_t limit);
void sparse_deinit(struct sparse *s);

/* A new grant, as after a death of the daemon; without the lane of before if that is gone. */
void sparse_reload(struct sparse *s, bool lane_gone);

/* A block with each of its pages written, or 0. */
uint64_t sparse_alloc(struct sparse *s, uint64_t size);
void *sparse_at(struct sparse *s, uint64_t ptr);

/* Bytes that the files hold: of data, and of metadata. */
uint64_t sparse_data(const struct sparse *s);
uint64_t sparse_meta(const struct sparse *s);

/* Retires what is empty and gives all back. Bytes that were given back. */
uint64_t sparse_trim(struct sparse *s);
void sparse_check(struct sparse *s);
