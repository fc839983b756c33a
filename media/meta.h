/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * meta.<node> of a pool: the sizes of its shelves and a heap's roots. One writer, the home node's
 * daemon, on its loop thread. No client ever has it for writing.
 */
#pragma once

#include "media/format.h"

struct shelf_record {
	uint64_t size;  /* bytes; 0: no such shelf */
	uint64_t limit; /* bytes */
};

struct root_record {
	char name[ROOT_NAME_MAX + 1];
	uint64_t ptr;
	uint8_t cookie[16];
	uint64_t op_seq;
};

/* How a heap was last left. */
struct service_record {
	bool in_use; /* by writers, and nobody has said since that they have left */
	uint8_t boot_id[16]; /* of the boot in which that was said */
};

struct meta;

/* Creates meta.<node> of a pool under its directory, durable on return. */
int meta_create(int pool_fd, uint16_t node, uint16_t pool, uint64_t incarnation);

/*
 * Opens and validates it. -EUCLEAN with *why; -ENOENT. Records are as durable as the file's medium
 * can make them, and by flush and drain in any case if `durability` is the pool's POWER.
 */
int meta_open(struct meta **ret, int pool_fd, uint16_t node, uint16_t pool, uint64_t incarnation,
	      enum durability durability, const char **why);
/* The same for reading alone: nothing is changed. */
int meta_view(struct meta **ret, int pool_fd, uint16_t node, uint16_t pool, uint64_t incarnation,
	      const char **why);
void meta_free(struct meta *meta);

/* 0, or -EUCLEAN (rotten record). A shelf that was never written has size 0. */
int meta_shelf_get(struct meta *meta, uint32_t index, struct shelf_record *ret);
int meta_shelf_put(struct meta *meta, uint32_t index, const struct shelf_record *record);
/* For repair: the same over a rotten record, which it stays until it is the new one; and what can be read
 * of one, perhaps the one before it. */
int meta_shelf_replace(struct meta *meta, uint32_t index, const struct shelf_record *record);
bool meta_shelf_salvage(struct meta *meta, uint32_t index, struct shelf_record *ret);

/* Roots, by place 0..POOL_ROOTS_MAX-1. 1: there, 0: no root here, -EUCLEAN. */
int meta_root_get(struct meta *meta, uint32_t place, struct root_record *ret);
/* An empty name removes. Crash-atomic, durable on return. */
int meta_root_put(struct meta *meta, uint32_t place, const struct root_record *record);
/* The place of `name`; else -ENOENT, and *free_place (may be NULL) is a free one or -1. */
int meta_root_find(struct meta *meta, const char *name, int *free_place);

/* 0, or -EUCLEAN (rotten record). Of a heap that was never in use: not in use. */
int meta_service_get(struct meta *meta, struct service_record *ret);
/* Crash-atomic, durable on return; nothing is written if the record says so already. */
int meta_service_put(struct meta *meta, const struct service_record *record);
/* For repair: the same over a rotten record. */
int meta_service_replace(struct meta *meta, const struct service_record *record);
