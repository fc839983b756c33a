/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changes of a heap's roots as operations for check_pool_kill: the heap has "root", which is changed, and "other",
 * which stays; or neither, and "root" is new. Another client may have set "root" in between (overtake).
 */
#pragma once

#include "tests/crash/arena.h"

void root_prepare(struct arena *a, struct nvmm_client *nvmm);

int root_act_set(struct arena *a, struct nvmm_client *nvmm);
int root_act_cas(struct arena *a, struct nvmm_client *nvmm);
int root_act_cas_new(struct arena *a, struct nvmm_client *nvmm);
int root_act_remove(struct arena *a, struct nvmm_client *nvmm);

/* Whether it was done. */
bool root_done(struct arena *a, struct nvmm_client *nvmm);
bool root_done_new(struct arena *a, struct nvmm_client *nvmm);
bool root_done_remove(struct arena *a, struct nvmm_client *nvmm);

/* `done`: the daemon had done it before it died. */
void root_overtake(struct arena *a, struct nvmm_client *nvmm, bool done);
void root_overtaken_set(struct arena *a, struct nvmm_client *nvmm, bool done);
void root_overtaken_cas(struct arena *a, struct nvmm_client *nvmm, bool done);
void root_overtaken_remove(struct arena *a, struct nvmm_client *nvmm, bool done);
