/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Persistence of the program's own bytes: libpmem, which knows the processor (clwb, eADR,
 * non-temporal stores); by way of media/store.h, so that a test sees and cuts these as well.
 *
 * Invalidating has no call there. It is the processor's own flush of each line, between two full
 * fences: the first lets this CPU's earlier stores reach the lines before they are written back,
 * the second keeps later reads from being done from the old copies. Where caches are coherent it
 * costs time and changes nothing; on a processor without such an instruction for programs it is a
 * fence.
 */
#include <libpmem.h>
#include <string.h>

#include "libclient/connection.h"
#include "media/store.h"

#define LINE 64u

_public void nvmm_flush(const void *addr, size_t len)
{
	media_flush(DURABILITY_POWER, addr, len);
}

_public void nvmm_drain(void)
{
	media_drain(DURABILITY_POWER);
}

_public void nvmm_persist(const void *addr, size_t len)
{
	media_persist(DURABILITY_POWER, addr, len);
}

/* Also orders the dropping of lines, which a fence of the language need not. */
static inline void full_fence(void)
{
#if defined(__x86_64__)
	__builtin_ia32_mfence();
#elif defined(__aarch64__)
	__asm__ volatile("dsb sy" : : : "memory");
#else
	/* ordering: full barrier; no line is dropped before what came earlier was done. */
	__sync_synchronize();
#endif
}

static inline void drop_line(const char *line)
{
#if defined(__x86_64__)
	__builtin_ia32_clflush(line);
#elif defined(__aarch64__)
	__asm__ volatile("dc civac, %0" : : "r"(line) : "memory");
#else
	(void)line;
#endif
}

_public void nvmm_invalidate(const void *addr, size_t len)
{
	const char *end = (const char *)addr + len;
	const char *line = (const char *)((uintptr_t)addr & ~(uintptr_t)(LINE - 1));

	/* ordering: full; stores before reach the lines before these are dropped. */
	full_fence();
	for (; line < end; line += LINE)
		drop_line(line);
	/* ordering: full; no later load is done before the lines are gone. */
	full_fence();
}

/* libpmem's own go round the caches where that is faster, and no test would see what is not drained yet. */
_public void *nvmm_memcpy_persist(void *dst, const void *src, size_t len)
{
#ifdef NVMM_MEDIA_POINTS
	memcpy(dst, src, len);
	nvmm_persist(dst, len);
	return dst;
#else
	return pmem_memcpy_persist(dst, src, len);
#endif
}

_public void *nvmm_memset_persist(void *dst, int c, size_t len)
{
#ifdef NVMM_MEDIA_POINTS
	memset(dst, c, len);
	nvmm_persist(dst, len);
	return dst;
#else
	return pmem_memset_persist(dst, c, len);
#endif
}
