/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A cell: one workload with its parameters, measured for each allocator. The driver hands it to the
 * workers on their command lines.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum workload {
	WORKLOAD_TIGHT,      /* allocate, free, at once */
	WORKLOAD_RANDOM,     /* allocate 10 000, free them in shuffled order */
	WORKLOAD_THREADTEST, /* allocate 10 000, free them in the same order */
	WORKLOAD_LARSON,     /* replace random ones of 1000 blocks; the arrays change threads */
	WORKLOAD_RING,       /* one allocates, another frees */
	WORKLOAD_ALLOC,      /* of threadtest the allocations alone */
	WORKLOAD_FREE,       /* of threadtest the frees alone */
	WORKLOAD_SCATTER,    /* of random the frees alone */
	WORKLOADS,
};

#define CELL_WORKERS_MAX 16

struct cell {
	enum workload workload;
	size_t smallest; /* bytes of a block: all sizes from here to `size` alike (larson) */
	size_t size;
	unsigned workers;
	bool processes; /* workers are processes of their own, not threads of one */
	bool filled;    /* each block is written from end to end */
	unsigned ms;    /* of one round */
};

const char *workload_name(enum workload workload);

/* "ring 64 B, 2 processes, filled". */
void cell_title(const struct cell *cell, char *text, size_t room);

/* As one word, and back: -1 if it is not one. */
void cell_format(const struct cell *cell, char *word, size_t room);
int cell_parse(struct cell *ret, const char *word);
