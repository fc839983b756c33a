/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Owner numbers: by which locks in shared memory name the session that holds them.
 */
#pragma once

#include <stdint.h>

struct nvmmd;

/* Reserves the first numbers of this start in nvmmd->node, which the caller then writes. */
void owner_begin(struct nvmmd *nvmmd);

/* Takes the next number. -ENOSPC: all have been given out; -errno of writing the node file. */
int owner_next(uint64_t *ret, struct nvmmd *nvmmd);

/* Notes that a session from before has this number: it is not given out again. */
void owner_known(struct nvmmd *nvmmd, uint64_t owner);
