/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inspection of a pool: all of its files, read through mappings of its own. Changes nothing; with or
 * without a daemon that serves the pool.
 */
#pragma once

#include "media/check.h"
#include "media/poolfile.h"

/*
 * Reads all metadata of the pool of `record` (borrowed; kind 0: its record is rotten, `pool` alone is
 * right) under the base, and puts what it finds into `report`, which goes on. `lanes`: how many lanes a heap has, if
 * a daemon knows it; 0: nobody does. `live`: clients or a daemon use it meanwhile.
 *
 * What clients can make longer is read up to what the record allows, and not where it has holes, so that no page
 * comes to be. 0: it was read, whatever was found; -ENOMEM, -ECANCELED and others: it could not be.
 * guard_init() was called.
 */
int inspect_pool(struct check_report *report, int base_fd, const struct pool_record *record,
		 uint32_t lanes, bool live);

/* Reads a pool's record from the registry; one that is rotten, or lacking though the pool's directory is
 * there, is a finding, and the kind is 0 then. 1; 0: there is no such pool. */
int inspect_record(struct check_report *report, struct registry *registry, int base_fd, uint16_t id,
		   struct pool_record *ret);
