/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Media primitives that are too long to be inline, and the production backend.
 *
 * libpmem chooses the flush instruction of the machine (clwb, clflushopt, clflush, or nothing
 * under eADR); a medium that is not persistent memory, an ordinary file, is never asked to flush
 * by instruction alone: what needs `power` on it is refused when the pool is created, and its own
 * records go through media_sync().
 */
#include "media/store.h"

#include <errno.h>
#include <libpmem.h>
#include <sys/mman.h>
#include <unistd.h>

static void backend_flush(const void *addr, size_t len)
{
	pmem_flush(addr, len);
}

static void backend_drain(void)
{
	pmem_drain();
}

static void backend_point(enum media_point kind, const void *addr, size_t len)
{
	(void)kind;
	(void)addr;
	(void)len;
}

const struct media_backend media_backend_pmem = {
	.flush = backend_flush,
	.drain = backend_drain,
	.point = backend_point,
};

const struct media_backend *media_backend = &media_backend_pmem;

void media_copy(void *dst, const void *src, size_t len)
{
	const m64 *from = src;
	m64 *to = dst;

	for (size_t i = 0; i < len / sizeof(m64); i++)
		media_store64(&to[i], media_load64(&from[i]));
}

void media_zero(void *dst, size_t len)
{
	m64 *to = dst;

	for (size_t i = 0; i < len / sizeof(m64); i++)
		media_store64(&to[i], 0);
}

static int sync_pages(const void *addr, size_t len)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t from = (uintptr_t)addr & ~(page - 1);
	uintptr_t to = (uintptr_t)addr + len;

	media_point(MEDIA_POINT_FLUSH, addr, len);
	return msync((void *)from, to - from, MS_SYNC) < 0 ? -errno : 0;
}

int media_sync(enum durability d, const void *addr, size_t len)
{
	if (d == DURABILITY_SYNC)
		return sync_pages(addr, len);
	media_persist(d, addr, len);
	return 0;
}
