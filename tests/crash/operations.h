/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The operations that check_pool_kill kills the daemon in.
 */
#pragma once

#include "tests/crash/arena.h"

#define N_OPERATIONS 33

extern const struct operation operations[N_OPERATIONS];

/* What operations share. */

/* Fails the test unless r is 0. */
void op_check(struct nvmm_client *nvmm, int r);
/* The target, which must be there, and no pool more or less than there were. */
struct nvmm_pool_info op_target(struct arena *a, struct nvmm_client *nvmm);
/* The target is a small heap. */
void op_prepare_heap(struct arena *a, struct nvmm_client *nvmm);
