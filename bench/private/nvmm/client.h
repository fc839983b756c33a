/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * As much of <nvmm/client.h> as the word index example uses, on mimalloc in one process: the same
 * program on a private heap is built from the example's own sources with this header in front. Global
 * pointers are addresses; roots are a variable.
 */
#ifndef NVMM_CLIENT_H
#define NVMM_CLIENT_H

#include <errno.h>
#include <fcntl.h>
#include <mimalloc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define UNUSED __attribute__((unused))

struct nvmm_client;
struct nvmm_heap;
typedef uint16_t nvmm_pool_id;
typedef uint64_t nvmm_ptr;
#define NVMM_NULL ((nvmm_ptr)0)

struct nvmm_options {
	size_t size;
	const char *socket;
	const char *name;
	int timeout_ms;
};

struct nvmm_pool_options {
	size_t size;
	const char *name;
};

enum nvmm_durability {
	NVMM_DURABILITY_PROCESS = 1,
	NVMM_DURABILITY_POWER = 2,
};

struct nvmm_pool_info {
	size_t size;
	enum nvmm_durability durability;
};

struct nvmm_heap_info {
	size_t size;
	uint64_t bytes, used, limbo, free, largest, blocks, spans;
};

static nvmm_ptr private_root UNUSED;

static inline int nvmm_connect(struct nvmm_client **ret, const struct nvmm_options *options)
{
	(void)options;
	*ret = NULL;
	return 0;
}

static inline void nvmm_disconnect(struct nvmm_client *nvmm)
{
	(void)nvmm;
}

static inline const char *nvmm_errmsg(const struct nvmm_client *nvmm)
{
	(void)nvmm;
	return strerror(errno);
}

static inline int nvmm_pool_lookup(struct nvmm_client *nvmm, const char *name, nvmm_pool_id *ret)
{
	(void)nvmm;
	(void)name;
	*ret = 1;
	return 0;
}

static inline int nvmm_pool_stat(struct nvmm_client *nvmm, nvmm_pool_id id, struct nvmm_pool_info *ret)
{
	(void)nvmm;
	(void)id;
	*ret = (struct nvmm_pool_info){ .size = ret->size, .durability = NVMM_DURABILITY_PROCESS };
	return 0;
}

static inline int nvmm_heap_create(struct nvmm_client *nvmm, nvmm_pool_id *id, uint64_t bytes,
				   const struct nvmm_pool_options *options)
{
	(void)nvmm;
	(void)bytes;
	(void)options;
	*id = 1;
	return 0;
}

static inline int nvmm_heap_open(struct nvmm_heap **ret, struct nvmm_client *nvmm, nvmm_pool_id id,
				 int flags)
{
	(void)nvmm;
	(void)id;
	(void)flags;
	*ret = NULL;
	return 0;
}

static inline void nvmm_heap_close(struct nvmm_heap *heap)
{
	(void)heap;
}

static inline int nvmm_heap_stat(struct nvmm_heap *heap, struct nvmm_heap_info *ret)
{
	(void)heap;
	*ret = (struct nvmm_heap_info){ .size = ret->size };
	return 0;
}

static inline nvmm_ptr nvmm_alloc(struct nvmm_heap *heap, size_t size)
{
	(void)heap;
	return (nvmm_ptr)(uintptr_t)mi_malloc(size);
}

static inline nvmm_ptr nvmm_zalloc(struct nvmm_heap *heap, size_t size)
{
	(void)heap;
	return (nvmm_ptr)(uintptr_t)mi_zalloc(size);
}

static inline int nvmm_free(struct nvmm_heap *heap, nvmm_ptr ptr)
{
	(void)heap;
	mi_free((void *)(uintptr_t)ptr);
	return 0;
}

/* There is but one thread, and it holds no word that it takes out. */
static inline int nvmm_free_deferred(struct nvmm_heap *heap, nvmm_ptr ptr)
{
	return nvmm_free(heap, ptr);
}

static inline int nvmm_epoch_enter(struct nvmm_client *nvmm)
{
	(void)nvmm;
	return 0;
}

static inline void nvmm_epoch_exit(struct nvmm_client *nvmm)
{
	(void)nvmm;
}

static inline void *nvmm_local(struct nvmm_client *nvmm, nvmm_ptr ptr)
{
	(void)nvmm;
	return (void *)(uintptr_t)ptr;
}

static inline int nvmm_root_get(struct nvmm_heap *heap, const char *name, nvmm_ptr *ret)
{
	(void)heap;
	(void)name;
	if (private_root == NVMM_NULL)
		return -ENOENT;
	*ret = private_root;
	return 0;
}

static inline int nvmm_root_cas(struct nvmm_heap *heap, const char *name, nvmm_ptr *expected,
				nvmm_ptr desired)
{
	(void)heap;
	(void)name;
	(void)expected;
	private_root = desired;
	return 0;
}

static inline void nvmm_persist(const void *addr, size_t len)
{
	(void)addr;
	(void)len;
}

#endif
