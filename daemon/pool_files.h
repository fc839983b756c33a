/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The files of a pool: made, lengthened, cut back, removed. No function here touches the registry
 * or a structure of the daemon: they run in the thread pool.
 */
#pragma once

#include <stdint.h>

#include "daemon/pool_layout.h"
#include "media/poolfile.h"

/* Opens shelf, table and state of a heap's shelf for writing, in this order. */
int pool_files_open3(int fds[3], int pool_fd, uint16_t node, uint32_t index);

/* Bytes that the file system holds for all shelves' files. */
uint64_t pool_files_held(int pool_fd, const struct pool_record *record,
			 const struct pool_shelves *shelves);

/*
 * Makes directory, meta and all files of a pool, reserved, with their headers. Shelf records are not
 * written: that is for when what stands in the files is in order. -ENOSPC; what was made by then
 * stays, for pool_files_remove().
 */
int pool_files_make(int base_fd, const struct pool_record *record,
		    const struct pool_shelves *shelves);

/*
 * Lengthens and adds files so that `now` becomes `to`. On failure the files are as `now` has them,
 * as far as that can be done.
 */
int pool_files_grow(int pool_fd, const struct pool_record *record, const struct pool_shelves *now,
		    const struct pool_shelves *to);

/* Cuts files back to `shelves` and removes those of further shelves. */
int pool_files_cut(int pool_fd, const struct pool_record *record,
		   const struct pool_shelves *shelves);

/* Removes the pool's directory and all in it. 0 also if there is none. */
int pool_files_remove(int base_fd, uint16_t id);

/* Whether every shelf file has at least its size. -EIO: one is shorter; *what is its name. */
int pool_files_audit(int pool_fd, const struct pool_record *record,
		     const struct pool_shelves *shelves, char what[64]);
