/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The files of a pool: their names, and how long they are. Names come from numbers alone.
 */
#pragma once

#include "media/meta.h"
#include "media/registry.h"

#define LANES_FIRST 16u /* lanes that a new heap has room for */

enum pool_file {
	POOL_FILE_SHELF,
	POOL_FILE_TABLE,
	POOL_FILE_STATE,
	POOL_FILE_LANES,
};

/* The shelves of a pool. Every shelf but the last is as long as its limit. */
struct pool_shelves {
	uint32_t n;
	struct shelf_record shelf[POOL_SHELVES_MAX];
};

void pool_dir_name(char buf[32], uint16_t id);
void pool_file_name(char buf[64], uint16_t node, enum pool_file file, uint32_t index);

/* A file's length for a shelf `s`; 0: the record's smallest block is none. */
uint64_t pool_file_length(const struct pool_record *record, enum pool_file file,
			  const struct shelf_record *s);
/* What its header begins with; 0: it has none. */
uint64_t pool_file_magic(enum pool_file file);
/* Units (a shelf's), or lanes, that its layout provides for. */
uint64_t pool_file_limit(enum pool_file file, const struct shelf_record *s);

/* Files that each shelf has, of the kinds from 0 on. */
uint32_t pool_files_of_shelf(const struct pool_record *record);

/* Opens pool-<id>. -ENOENT; others of open(2). */
int pool_files_dir(int *ret, int base_fd, uint16_t id);
/* Opens a file of the pool; flags O_RDONLY or O_RDWR. Errors as file_open(). */
int pool_files_open(int *ret, int pool_fd, uint16_t node, enum pool_file file, uint32_t index,
		    int flags);
/* Lanes that a heap's lanes file has room for. -EUCLEAN: none. */
int pool_files_lanes(uint32_t *ret, int pool_fd, uint16_t node);

/*
 * Reads the shelves from the pool's meta: they end with the first that is shorter than its limit.
 * -EUCLEAN: the record of shelf ret->n is rotten, or is none.
 */
int pool_shelves_read(struct pool_shelves *ret, struct meta *meta);
