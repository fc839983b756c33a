/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one seam to media: typed stores, flush and drain.
 *
 * Every field of a durable struct has one of the types m8..m64. Their member is const, so neither
 * `record->size = x` nor `*a = *b` compiles: what changes a shelf goes through a function below,
 * and each of them is a point at which a test can kill the process (see media_point()). Fields are
 * little-endian; the module refuses to build on a big-endian machine.
 *
 * Contract: a store is atomic (a reader sees the old or the new value), never torn, and reaches
 * the medium in the order that the caller makes by release order (durability `process`) or by
 * flush and drain (durability `power`). Thread-safe; async-signal-safe.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "media formats are little-endian"
#endif

/* Types: fields of durable structs. They may be initialised, never assigned. */

typedef struct { const uint8_t raw; } m8;
typedef struct { const uint16_t raw; } m16;
typedef struct { const uint32_t raw; } m32;
typedef struct { const uint64_t raw; } m64;

/* What a medium needs so that a store survives; a property of a pool. */
enum durability {
	DURABILITY_PROCESS = 0, /* survives the death of any process: ordered stores are enough */
	DURABILITY_POWER = 1,   /* survives power loss: flush and drain */
	/*
	 * In memory alone, never a pool's: metadata on an ordinary file system, whose page cache
	 * no instruction flushes. media_sync() serves it; flush and drain do nothing for it.
	 */
	DURABILITY_SYNC = 2,
};

/* The points at which a test may stop the world. */
enum media_point {
	MEDIA_POINT_STORE,
	MEDIA_POINT_FLUSH,
	MEDIA_POINT_DRAIN,
	MEDIA_POINT_CALL, /* a system call that changes a file, or tells somebody */
};

/*
 * The backend of flush and drain, and in a build with NVMM_MEDIA_POINTS the observer of all
 * stores and of some system calls. One for each process: production uses libpmem's;
 * tests set another before any thread starts. `point` is called before the change takes effect.
 */
struct media_backend {
	void (*flush)(const void *addr, size_t len);
	void (*drain)(void);
	void (*point)(enum media_point kind, const void *addr, size_t len);
};

extern const struct media_backend *media_backend;
extern const struct media_backend media_backend_pmem;

#ifdef NVMM_MEDIA_POINTS
#define media_point(kind, addr, len) media_backend->point(kind, addr, len)
#else
#define media_point(kind, addr, len) ((void)0)
#endif

/* Stands before a system call that changes a file's name or length, or acknowledges what was done. */
static inline void media_point_call(void)
{
	media_point(MEDIA_POINT_CALL, NULL, 0);
}

/* Loads. Relaxed unless named otherwise. */

#define MEDIA_LOADS(bits)                                                                   \
	static inline uint##bits##_t media_load##bits(const m##bits *p)                     \
	{                                                                                   \
		/* ordering: relaxed; the caller orders, or needs none. */                  \
		return __atomic_load_n(&p->raw, __ATOMIC_RELAXED);                          \
	}
MEDIA_LOADS(8)
MEDIA_LOADS(16)
MEDIA_LOADS(32)
MEDIA_LOADS(64)

static inline uint64_t media_load_acquire(const m64 *p)
{
	/* ordering: acquire; pairs with the media_store_release() or RMW that the caller names. */
	return __atomic_load_n(&p->raw, __ATOMIC_ACQUIRE);
}

/* Stores. The relaxed ones order nothing: a later release or drain does. */

#define MEDIA_STORES(bits)                                                                  \
	static inline void media_store##bits(m##bits *p, uint##bits##_t v)                  \
	{                                                                                   \
		media_point(MEDIA_POINT_STORE, p, sizeof(*p));                              \
		/* ordering: relaxed; a later release or drain orders it. */                \
		__atomic_store_n((uint##bits##_t *)(uintptr_t)&p->raw, v, __ATOMIC_RELAXED); \
	}
MEDIA_STORES(8)
MEDIA_STORES(16)
MEDIA_STORES(32)
MEDIA_STORES(64)

static inline void media_store_release(m64 *p, uint64_t v)
{
	media_point(MEDIA_POINT_STORE, p, sizeof(*p));
	/* ordering: release; all that the caller stored before is seen by who acquires v. */
	__atomic_store_n((uint64_t *)(uintptr_t)&p->raw, v, __ATOMIC_RELEASE);
}

/* Read-modify-write, each a full barrier. Only on lines that one node writes (rule R3). */

/* Stores `to` if the word is `from`; returns whether it did. */
static inline bool media_cas(m64 *p, uint64_t from, uint64_t to)
{
	media_point(MEDIA_POINT_STORE, p, sizeof(*p));
	/* ordering: seq_cst; the caller's claim precedes all that it then reads. */
	return __atomic_compare_exchange_n((uint64_t *)(uintptr_t)&p->raw, &from, to, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Each returns the value before. */
static inline uint64_t media_swap(m64 *p, uint64_t v)
{
	media_point(MEDIA_POINT_STORE, p, sizeof(*p));
	/* ordering: seq_cst; a full barrier between what comes before and after. */
	return __atomic_exchange_n((uint64_t *)(uintptr_t)&p->raw, v, __ATOMIC_SEQ_CST);
}

static inline uint64_t media_or(m64 *p, uint64_t bits)
{
	media_point(MEDIA_POINT_STORE, p, sizeof(*p));
	/* ordering: seq_cst; a full barrier between what comes before and after. */
	return __atomic_fetch_or((uint64_t *)(uintptr_t)&p->raw, bits, __ATOMIC_SEQ_CST);
}

static inline uint64_t media_and(m64 *p, uint64_t bits)
{
	media_point(MEDIA_POINT_STORE, p, sizeof(*p));
	/* ordering: seq_cst; a full barrier between what comes before and after. */
	return __atomic_fetch_and((uint64_t *)(uintptr_t)&p->raw, bits, __ATOMIC_SEQ_CST);
}

/*
 * Copies `len` bytes (a multiple of 8, both ends 8-byte aligned) word by word, each word a point:
 * a crash leaves some words old and some new, in any order under `power`. Whoever needs more puts
 * a commit word behind it.
 */
void media_copy(void *dst, const void *src, size_t len);

/* Zeroes `len` bytes (a multiple of 8, aligned) likewise. */
void media_zero(void *dst, size_t len);

/*
 * Makes [addr, addr + len) durable by whatever `d` means, and waits: flush and drain, msync(2), or
 * nothing. For rare changes of records; -errno if the medium did not take it (SYNC alone).
 */
int media_sync(enum durability d, const void *addr, size_t len);

/* Durability of the fast paths: no-ops unless DURABILITY_POWER. */

static inline void media_flush(enum durability d, const void *addr, size_t len)
{
	if (d != DURABILITY_POWER)
		return;
	media_point(MEDIA_POINT_FLUSH, addr, len);
	media_backend->flush(addr, len);
}

static inline void media_drain(enum durability d)
{
	if (d != DURABILITY_POWER)
		return;
	media_point(MEDIA_POINT_DRAIN, NULL, 0);
	media_backend->drain();
}

static inline void media_persist(enum durability d, const void *addr, size_t len)
{
	media_flush(d, addr, len);
	media_drain(d);
}
