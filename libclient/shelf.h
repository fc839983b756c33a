/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mappings of whole shelves, and the two tables that translate by them.
 *
 * A shelf is mapped once in a connection, at an address that is a multiple of 64 MiB, over as much
 * address space as it may grow to in place; so its address never changes, and no two shelves (nor
 * anything else) share a granule, which lets one table entry answer nvmm_global().
 */
#pragma once

#include "libclient/connection.h"
#include "media/heap.h"

#define SHELF_GRANULE_SHIFT 26
#define SHELF_GRANULE (UINT64_C(1) << SHELF_GRANULE_SHIFT)
#define ADDRESS_BITS 47

#define SHELF_BASE_BYTES ((POOL_ID_MAX + 1) * sizeof(char **))
#define POOL_TABLE_BYTES ((POOL_ID_MAX + 1) * sizeof(struct pool *))
#define SHELF_AT_BYTES ((UINT64_C(1) << (ADDRESS_BITS - SHELF_GRANULE_SHIFT)) * sizeof(void *))

/* A mapped file: address, and the address space set aside for it. */
struct area {
	char *addr;
	size_t len;
};

struct shelf_map {
	nvmm_ptr first;
	uint64_t limit; /* bytes to which it may grow in place */
	struct area data;
	bool write;

	/* Heaps. */
	bool sparse;
	struct area table;
	struct area state;
	struct heap_shelf heap;
};

/* Maps a file from its start over `len` bytes, which may end behind the file. `align`: a power of
 * two. `at` not NULL: over what is mapped there. -errno of mmap(2). */
int area_map(struct area *ret, int fd, size_t len, size_t align, bool write, bool sync, void *at);
void area_unmap(struct area *area);

/*
 * Maps a shelf: fds[0] its bytes, for heaps fds[1] span table and fds[2] state. `size` and `limit`
 * are the daemon's. `heap` NULL: a region's. -ENOMEM, others of mmap(2); -EPROTO. Text set.
 */
int shelf_map_new(struct shelf_map **ret, struct nvmm_client *nvmm, nvmm_ptr first, uint64_t size,
		  uint64_t limit, const int *fds, bool write, bool sync, bool sparse,
		  struct heap *heap);
void shelf_map_free(struct shelf_map *map);
DEFINE_AUTO(struct shelf_map, shelf_map_free)

/* Replaces read-only mappings by writable ones, where they are. Text set. */
int shelf_map_upgrade(struct shelf_map *map, struct nvmm_client *nvmm, const int *fds, bool sync,
		      bool heap);

/* Makes it known to nvmm_local() and nvmm_global(), and unknown. open_lock held. -ENOMEM. */
int shelf_map_publish(struct nvmm_client *nvmm, struct shelf_map *map);
void shelf_map_retract(struct nvmm_client *nvmm, struct shelf_map *map);
