/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The registry at the start: what is there, and what an earlier daemon left half done.
 */
#pragma once

struct nvmmd;

/* Makes the pools of all records: interrupted changes are put right first, what is rotten is entered as
 * damaged. -ENOMEM. */
int recover_pools(struct nvmmd *nvmmd);
