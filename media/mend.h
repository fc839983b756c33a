/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mending of a pool's files as a whole: meta's records, headers, lengths. What stands in span tables and
 * state records is media/repair.h's. Nobody uses the pool meanwhile; each step may be interrupted
 * and done again.
 */
#pragma once

#include "media/check.h"
#include "media/poolfile.h"

/*
 * What a pool without a record is, by the headers of its files: kind, incarnation, smallest block, and
 * its home `node`. -ENOENT: there is no file that says so.
 */
int mend_identify(struct pool_record *ret, int pool_fd, uint16_t pool, uint16_t node);

/* Mends files and meta, noting what was done; *size: what the shelves are together after it. */
int mend_files(struct check_report *report, int pool_fd, const struct pool_record *record,
	       uint64_t *size);
