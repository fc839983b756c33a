/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Loading of heaps at their first use.
 */
#pragma once

#include "daemon/pool.h"

/* 0: the pool's heap is loaded; REQUEST_PENDING: it will be, and the request begins again then; else
 * a negative errno with the request's text. */
int heap_need(struct request *request, struct pool *pool);

/* Whether writers had the heap and nobody has said since that they have left it. */
bool heap_was_in_use(struct pool *pool);

/* Does what pool->recovery says: loads, verifies, mends; recovery_ended() follows. Beside running
 * clients, if the heap is loaded. -ENOMEM and others: nothing was begun. */
int heap_load_recover(struct pool *pool);

/* The last opener has left the pool's loaded heap: drains it and says so in its service record. Whether a
 * job does so, which calls pool_rest() again. */
bool heap_unload(struct pool *pool);

/* Begins to load it though no request wants it yet. */
void heap_load_ahead(struct pool *pool);
