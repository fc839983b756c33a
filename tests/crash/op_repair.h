/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Repair as an operation for check_pool_kill: of a heap whose record in the registry and span table are rotten.
 */
#pragma once

#include "tests/crash/arena.h"

void repair_prepare(struct arena *a, struct nvmm_client *nvmm);
int repair_act(struct arena *a, struct nvmm_client *nvmm);
/* Whether it was repaired; one that was not can be yet, and ends the same. */
bool repair_done(struct arena *a, struct nvmm_client *nvmm);
