/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ranges that the program mapped for itself (nvmm_region_map(), nvmm_map()).
 */
#pragma once

#include "libclient/connection.h"

/* A part of a file: what a range is made of. The descriptor is borrowed. */
struct segment {
	int fd;
	uint64_t offset;
	size_t len;
	bool sparse; /* it has holes, which the mapping must not fill */
};

/* -EINVAL: length 0, or `prot` or `flags` that are not offered. Text set. */
int range_check(struct nvmm_client *nvmm, size_t len, int prot, int flags);

/*
 * Maps the segments one behind the other and remembers the range. `hint`, `prot`, `flags`: of
 * mmap(2). -ENOMEM; others of mmap(2). Text set.
 */
int range_map(struct nvmm_client *nvmm, void *hint, int prot, int flags, const struct segment *segments,
	      size_t n, void **ret);

/* Unmaps what lies in [addr, addr + len). -EINVAL: not all of it was mapped so. Text set. */
int range_unmap(struct nvmm_client *nvmm, void *addr, size_t len);

/* Unmaps all. */
void ranges_free_all(struct nvmm_client *nvmm);
