/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The registry at the start: what is there, and what an earlier daemon left half done.
 */
#pragma once

struct nvmmd;
struct pool;

/* Makes the pools of all records: interrupted changes are put right first, what is rotten is entered as
 * damaged. -ENOMEM. */
int recover_pools(struct nvmmd *nvmmd);

/* Ends the interrupted resize of a pool that was loaded: LIVE, or damaged. */
void recover_resize(struct pool *pool);
