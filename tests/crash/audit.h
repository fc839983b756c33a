/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is in a shelf base, by its files alone.
 */
#pragma once

#include <nvmm/client.h>

/*
 * Asserts that the base holds the directories of these pools, each with its files, whole and no
 * longer than they should be, and nothing else but what a daemon needs.
 */
void audit_base(const char *base, const struct nvmm_pool_info *pools, size_t n);

/* Whether the files are as long as the pools' figures say. Files that a client or a daemon that died made longer are
 * cut back soon, but not at once. */
bool audit_bytes_agree(const char *base, const struct nvmm_pool_info *pools, size_t n);

/* Asserts that a heap that nobody has open breaks no rule of media/check.h. */
void audit_heap(const char *base, const struct nvmm_pool_info *heap);

/* Calls fn for each block that is allocated and not in limbo, of a heap that nobody has open, with its
 * usable size; asserts as audit_heap(). */
void audit_blocks(const char *base, const struct nvmm_pool_info *heap,
		  void (*fn)(void *arg, nvmm_ptr ptr, uint64_t size), void *arg);

/* Session files in the runtime directory. */
unsigned audit_sessions(const char *runtime);
