/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The metadata files of a heap, mapped and checked: of a shelf, table and state; of the heap, lanes. Any thread.
 *
 * `damage` gets what is rotten, and where, if a function returns -EUCLEAN, -EIO or -ENOENT.
 */
#pragma once

#include <stdint.h>

#include "common/macro.h"
#include "media/heap.h"
#include "media/poolfile.h"

#define HEAP_DAMAGE_LEN 160u

struct heap_files {
	struct heap_shelf shelf;
	void *table;
	uint64_t table_reserve;
	void *state;
	uint64_t state_reserve;
};

/* Maps a shelf's table and state for `heap` (borrowed: its layout), which has nothing of it yet; and of a sparse heap
 * what reserves its space. -ENOMEM; others of open(2), mmap(2). */
int heap_files_new(struct heap_files **ret, int pool_fd, const struct pool_record *record,
		   const struct heap *heap, uint32_t index, const struct shelf_record *shelf,
		   char damage[HEAP_DAMAGE_LEN]);
void heap_files_free(struct heap_files *files);
DEFINE_AUTO(struct heap_files, heap_files_free)

/* Maps the lanes file, and room for LANES_MAX; how many lanes it has. To be unmapped by file_unmap(). */
int heap_files_lanes(void **ret, uint32_t *n, int pool_fd, const struct pool_record *record,
		     char damage[HEAP_DAMAGE_LEN]);
