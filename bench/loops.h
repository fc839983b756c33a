/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The measured loops, the same text for each allocator: included by worker.c once bench/alloc.h has
 * defined block_new() and the others. Each returns how many pairs of allocate and free it did by its
 * deadline; a ring's two ends count each block once.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/team.h"
#include "common/macro.h"

#define LOOP_BLOCKS 10000u
#define LOOP_SLOTS 1000u
#define LOOP_BYTES (UINT64_C(32) << 20) /* that one worker holds at most */
#define RING_SLOTS 4096u
#define RING_STEP 16u /* blocks that are handed over together */
#define LARSON_TURN 10000u

/* A lane from worker 0 to worker 1; in memory that both have. */
struct ring {
	block slot[RING_SLOTS];
	uint64_t head __attribute__((aligned(TEAM_LINE))); /* written by the producer */
	uint64_t end; /* the head when the round was over */
	uint64_t tail __attribute__((aligned(TEAM_LINE))); /* written by the consumer */
};

struct job {
	const struct cell *cell;
	uint64_t deadline;
	size_t n;        /* blocks that it holds at most */
	block *blocks;   /* of n */
	uint32_t *order; /* a permutation of 0..n-1 */
	block **spare;   /* larson: the array that nobody works on, of the threads of a process */
	struct ring *ring;
	uint64_t passed; /* ring: head and tail where the last round ended */
	uint64_t aside;  /* halves of pairs: ns of the round that went to the other half */
	uint64_t random;
	unsigned worker;
};

static inline block loop_new(const struct job *job, size_t size)
{
	block b = block_new(size);

	if (_unlikely(!b)) {
		fprintf(stderr, "no room for %zu bytes\n", size);
		_exit(1);
	}
	if (job->cell->filled)
		memset(block_address(b), 0x5a, size);
	/* Nothing of a block is known to the compiler: no pair is optimised away. */
	__asm__ volatile("" : "+r"(b) : : "memory");
	return b;
}

static inline uint32_t loop_random(struct job *job)
{
	job->random = job->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(job->random >> 32);
}

/* A number below n, without a division. */
static inline uint32_t loop_below(struct job *job, uint32_t n)
{
	return (uint32_t)((uint64_t)loop_random(job) * n >> 32);
}

static uint64_t loop_tight(struct job *job)
{
	size_t size = job->cell->size;
	uint64_t pairs = 0;

	do {
		for (unsigned i = 0; i < 1024; i++)
			block_free(loop_new(job, size));
		pairs += 1024;
	} while (team_now_ns() < job->deadline);
	return pairs;
}

static uint64_t loop_random_order(struct job *job)
{
	size_t size = job->cell->size;
	uint64_t pairs = 0;

	do {
		for (size_t i = 0; i < job->n; i++)
			job->blocks[i] = loop_new(job, size);
		for (size_t i = 0; i < job->n; i++)
			block_free(job->blocks[job->order[i]]);
		pairs += job->n;
	} while (team_now_ns() < job->deadline);
	return pairs;
}

static uint64_t loop_threadtest(struct job *job)
{
	size_t size = job->cell->size;
	uint64_t pairs = 0;

	do {
		for (size_t i = 0; i < job->n; i++)
			job->blocks[i] = loop_new(job, size);
		for (size_t i = 0; i < job->n; i++)
			block_free(job->blocks[i]);
		pairs += job->n;
	} while (team_now_ns() < job->deadline);
	return pairs;
}

/* Replaces one block by another of a random size. */
static inline void larson_step(struct job *job, uint32_t smallest, uint32_t range)
{
	block *slot = &job->blocks[loop_below(job, (uint32_t)job->n)];
	uint32_t size = smallest + (range > 1 ? loop_below(job, range) : 0);

	if (*slot)
		block_free(*slot);
	*slot = loop_new(job, size);
}

/* Threads that end leave their blocks to others: here two change arrays from time to time. */
static uint64_t loop_larson(struct job *job)
{
	uint32_t smallest = (uint32_t)job->cell->smallest;
	uint32_t range = (uint32_t)(job->cell->size - job->cell->smallest) + 1;
	uint64_t pairs = 0;

	do {
		for (unsigned turn = 0; turn < LARSON_TURN / 1000; turn++)
			for (unsigned i = 0; i < 1000; i++)
				larson_step(job, smallest, range);
		pairs += LARSON_TURN;
		/* ordering: acquire and release; the array comes with all that stands in it. */
		job->blocks = __atomic_exchange_n(job->spare, job->blocks, __ATOMIC_ACQ_REL);
	} while (team_now_ns() < job->deadline);
	return pairs;
}

static void larson_end(struct job *job, block *blocks)
{
	for (size_t i = 0; i < job->n; i++) {
		if (blocks[i])
			block_free(blocks[i]);
		blocks[i] = 0;
	}
}

/* Waits until the other end's counter is at least `least`. */
static uint64_t ring_wait(const uint64_t *counter, uint64_t least)
{
	uint64_t now;

	/* ordering: acquire; pairs with ring_hand(): slots are filled, or read, up to there. */
	while ((now = __atomic_load_n(counter, __ATOMIC_ACQUIRE)) < least)
		__builtin_ia32_pause();
	return now;
}

static void ring_hand(uint64_t *counter, uint64_t n)
{
	/* ordering: release; pairs with ring_wait(). */
	__atomic_store_n(counter, n, __ATOMIC_RELEASE);
}

static uint64_t ring_produce(struct job *job)
{
	struct ring *ring = job->ring;
	size_t size = job->cell->size;
	uint64_t head = job->passed, tail = head;

	do {
		for (unsigned step = 0; step < 64; step++) {
			if (head + RING_STEP > tail + job->n)
				tail = ring_wait(&ring->tail, head + RING_STEP - job->n);
			for (unsigned i = 0; i < RING_STEP; i++, head++)
				ring->slot[head % RING_SLOTS] = loop_new(job, size);
			ring_hand(&ring->head, head);
		}
	} while (team_now_ns() < job->deadline);
	ring_hand(&ring->end, head);
	return head;
}

/* Waits for blocks behind `tail`. Returns the head, `tail` itself if the producer is done. */
static uint64_t ring_head(const struct ring *ring, uint64_t from, uint64_t tail)
{
	uint64_t end, head;

	for (;;) {
		/* ordering: acquire; pairs with ring_hand(). The end is the round's if it is behind
		 * its beginning, and then nothing comes behind it. */
		end = __atomic_load_n(&ring->end, __ATOMIC_ACQUIRE);
		head = ring_wait(&ring->head, 0);
		if (head != tail || (end == tail && end != from))
			return head;
		__builtin_ia32_pause();
	}
}

static uint64_t ring_consume(struct job *job)
{
	struct ring *ring = job->ring;
	uint64_t from = job->passed, tail = from, head;

	while ((head = ring_head(ring, from, tail)) != tail) {
		while (tail != head) {
			for (unsigned i = 0; i < RING_STEP; i++, tail++)
				block_free(ring->slot[tail % RING_SLOTS]);
			ring_hand(&ring->tail, tail);
		}
	}
	return tail;
}

/* Worker 0 makes, worker 1 frees. */
static uint64_t loop_ring(struct job *job)
{
	uint64_t from = job->passed;

	job->passed = job->worker == 0 ? ring_produce(job) : ring_consume(job);
	return job->passed - from;
}

/* One half of the pairs is timed, the other half set aside; the clock is read twice for all of a half. */
static uint64_t loop_half(struct job *job)
{
	bool frees = job->cell->workload != WORKLOAD_ALLOC, scatter = job->cell->workload == WORKLOAD_SCATTER;
	uint64_t pairs = 0, start = team_now_ns(), middle, end;

	do {
		for (size_t i = 0; i < job->n; i++)
			job->blocks[i] = loop_new(job, job->cell->size);
		middle = team_now_ns();
		if (scatter)
			for (size_t i = 0; i < job->n; i++)
				block_free(job->blocks[job->order[i]]);
		else
			for (size_t i = 0; i < job->n; i++)
				block_free(job->blocks[i]);
		pairs += job->n;
		end = team_now_ns();
		job->aside += frees ? middle - start : end - middle;
		start = end;
	} while (end < job->deadline);
	return pairs;
}

static uint64_t loop_run(struct job *job)
{
	switch (job->cell->workload) {
	case WORKLOAD_TIGHT:
		return loop_tight(job);
	case WORKLOAD_RANDOM:
		return loop_random_order(job);
	case WORKLOAD_THREADTEST:
		return loop_threadtest(job);
	case WORKLOAD_LARSON:
		return loop_larson(job);
	case WORKLOAD_RING:
		return loop_ring(job);
	default:
		return loop_half(job);
	}
}
