/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pools as commands show and name them.
 */
#pragma once

#include "ctl/ctl.h"

/* What the daemon counted in a heap. `known` false: it may not be seen, or there is none. */
struct heap_usage {
	bool known;
	uint64_t bytes, used, limbo, free, largest;
	uint64_t blocks, spans, lanes;
	uint64_t overhead, suspects;
	struct nvmm_heap_class class[64]; /* those with spans */
	size_t n_classes;
};

/* A user's word for a pool, an id or a name, and the pool's state. Reports failures. */
enum ctl_exit poolview_find(struct ctl *ctl, const char *text, nvmm_pool_id *ret);
enum ctl_exit poolview_find_info(struct ctl *ctl, const char *text, struct nvmm_pool_info *ret);

/* Calls fn with each pool that the arguments name. Damage does not end it and is told at last; any other failure
 * does. */
enum ctl_exit poolview_each_named(struct ctl *ctl, enum ctl_exit (*fn)(struct ctl *ctl, nvmm_pool_id id));

/* Writes all that is known of one pool as fields, a heap's size classes as a table behind them if they are
 * wanted. CTL_DAMAGED: it is. */
enum ctl_exit poolview_write(struct ctl *ctl, const struct nvmm_pool_info *info, bool classes);
/* The same of a pool that was just changed; its damage is no failure of the change. */
enum ctl_exit poolview_write_changed(struct ctl *ctl, nvmm_pool_id id);

/* Writes a table of all pools, list `pools`. CTL_DAMAGED: one of them is. */
enum ctl_exit poolview_write_all(struct ctl *ctl);

/* Whose it is: "name", or the number where it has none. Into buf; returns buf. */
const char *poolview_user(char *buf, size_t len, uid_t uid);
