/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a process leaves that dies while it publishes, and has reserved more than that: a valid log of which nothing is
 * applied, and reserved blocks. Operations of check_pool_kill: the daemon settles it, by itself or asked to.
 */
#pragma once

#include "tests/crash/arena.h"

/* The client leaves it, and is killed. */
void leavings_enter(struct arena *a, struct nvmm_client *nvmm);

/* Another process leaves it; the client kills that one, and waits until its death is settled. */
void leavings_enter_waiting(struct arena *a, struct nvmm_client *nvmm);
int leavings_act_wait(struct arena *a, struct nvmm_client *nvmm);

bool leavings_done(struct arena *a, struct nvmm_client *nvmm);
