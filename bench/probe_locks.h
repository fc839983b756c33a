/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Locks of the library beside those of pthreads, without contention. Part of probe.
 */
#pragma once

#include <nvmm/client.h>

/* Tells lock_pair, lock_pthread, lock_ratio and the same of readers of a rwlock. 0, or -errno of what failed. */
int probe_locks(struct nvmm_client *nvmm, struct nvmm_heap *heap);
