/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests about pools that regions and heaps share. Texts are set.
 */
#pragma once

#include "libclient/connection.h"

/* Creates a pool of `kind`. Errors as nvmm_region_create(). */
int pools_create(struct nvmm_client *nvmm, nvmm_pool_id *id, enum nvmm_pool_kind kind, uint64_t bytes,
		 const struct nvmm_pool_options *options);
/*
 * Destroys a pool of `kind`, 0: any. `force`: though others have it open. What nvmm_local() and
 * nvmm_map() opened of it here does not count as open.
 */
int pools_destroy(struct nvmm_client *nvmm, nvmm_pool_id id, unsigned kind, bool force);

/* The present bytes and shelves of a pool; entered. */
int pools_ask(struct nvmm_client *nvmm, nvmm_pool_id id, struct nvmm_pool_info *ret);

/* Open flags as bool: -EINVAL: neither O_RDONLY nor O_RDWR. */
int open_flags(struct nvmm_client *nvmm, int flags, bool *write);

/* Handles: on the connection's list while they live. */
void handle_add(struct handle *handle);
void handle_remove(struct handle *handle);
