/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Load on one heap from many processes and threads that finds out what an allocator could do wrong:
 * every block is filled with its owner's pattern, handed from process to process through slots in a
 * shared region, and checked when it is freed.
 *
 * A slot is one word that is exchanged: who is killed at any instruction leaves it whole, and costs
 * at most the blocks that it held.
 */
#pragma once

#include "tests/system/harness.h"

#define LOAD_SLOTS 256u

/* What a run counts; in memory that all share. */
struct load_counts {
	_Atomic bool stop;
	_Atomic uint64_t allocated;
	_Atomic uint64_t freed;
	_Atomic uint64_t handed;
	_Atomic uint64_t full; /* allocations that found no room */
};

struct load {
	struct harness *h;
	nvmm_pool_id heap;
	nvmm_pool_id region; /* LOAD_SLOTS words */
	size_t most;         /* largest block; the smallest is 16 */
	size_t held;         /* bytes that one thread keeps at most */
	unsigned threads;    /* of each process */
	bool power;          /* the heap's durability; PMEM_IS_PMEM_FORCE=1 is set then */
	bool sparse;
	uint64_t seed;       /* of all that is random; printed, and NVMMD_TEST_SEED sets it */
	_Atomic unsigned *processes; /* begun so far: each has random numbers of its own */
	struct load_counts *counts;
};

/* Takes the seed from the environment, or a new one, and prints it. Before the daemon is started. */
void load_seed(struct load *load);

/* Makes heap and region. `load` has most, held, threads, power, sparse and a seed. */
void load_init(struct load *load, struct harness *h, uint64_t heap_bytes);

/* A process under load until counts->stop; for harness_fork(), arg is the struct load. */
void load_process(void *arg);

/* Frees, checked, what is in the slots. */
void load_drain(struct load *load, struct nvmm_client *nvmm, struct nvmm_heap *heap);
