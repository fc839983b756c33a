/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The allocator that a worker is built for, chosen by one BENCH_* macro. Each is a few inline
 * functions over the real library's calls, so that none pays an indirection that another does not:
 *
 *   block                    what stands for a block; 8 bytes; zero is none
 *   block_new(size), block_free(block), block_address(block)
 *   alloc_shared             whether processes can hand blocks to each other
 *   alloc_prepare(place)     once, before any process opens it: 0, or -1 with a message on stderr
 *   alloc_open(place)        in each process; likewise
 *   alloc_close()            in each process, when its blocks are free
 *   alloc_remove(place)      once, after all
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where an allocator keeps what it shares or persists. */
struct place {
	const char *dir;  /* directory of files of its own */
	const char *heap; /* nvmm: the heap's name */
	uint64_t bytes;   /* room for blocks */
};

#if defined(BENCH_NVMM)
#include "bench/alloc_nvmm.h"
#elif defined(BENCH_PMEMOBJ)
#include "bench/alloc_pmemobj.h"
#elif defined(BENCH_BOOST)
#include "bench/alloc_boost.h"
#else
#include "bench/alloc_malloc.h"
#endif
