/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files that clients made longer than the daemon did: finding it, and cutting them back.
 *
 * A descriptor for writing lets a client lengthen the file, and reserve blocks behind its end. No function
 * here touches a structure of the daemon: they run in threads, too.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/pool_layout.h"
#include "media/poolfile.h"

/* What files have beyond what the daemon gave them. */
struct overgrowth {
	uint64_t bytes; /* of all files: blocks beyond; or length beyond that has no blocks yet */
	uint64_t lanes; /* of these, the lanes file's */
	bool longer;    /* a file is longer, whether it has blocks there or not */
};

/* Looks at the files of a pool that clients may write, by name. A file that cannot be looked at is no overgrowth. */
void overgrowth_find(struct overgrowth *ret, int pool_fd, const struct pool_record *record,
		     const struct pool_shelves *shelves, uint32_t lanes);

/* Cuts them back, each in slices. 0, or the first error. */
int overgrowth_cut(int pool_fd, const struct pool_record *record, const struct pool_shelves *shelves,
		   uint32_t lanes);

/* Cuts one file back to `length`, and gives back blocks behind that. -errno of the system call. */
int cutback_file(int fd, uint64_t length);

/* Whether another process, or a mapping, still has the file open for writing or reading; true if the file
 * system does not say. */
bool cutback_held(int fd);

/* Opens the files of a pool that clients may write, and that some still hold. At most `max`; how many. */
uint32_t cutback_open_held(int *fds, uint64_t *lengths, uint32_t max, int pool_fd,
			   const struct pool_record *record, const struct pool_shelves *shelves,
			   uint32_t lanes);
