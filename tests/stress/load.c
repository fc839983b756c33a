/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A block says of itself how long it is and with what it was filled:
 *
 *   word 0: size in bytes   word 1: seed   word i: seed + i * odd constant   tail: low byte of seed
 *
 * so that any process can check one that any other filled. Two blocks that overlap spoil each
 * other's words, whoever is later.
 */
#include "tests/stress/load.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define STEP UINT64_C(0x9e3779b97f4a7c15)
#define HOLD 64u

struct worker {
	const struct load *load;
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	_Atomic nvmm_ptr *slots;
	uint64_t random;
	nvmm_ptr hold[HOLD];
	unsigned held;
	size_t bytes;
};

static uint64_t next_random(struct worker *w)
{
	uint64_t z = w->random += STEP;

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/*
 * Blocks. TSan sees one process: not that a block went through another, or back to the daemon,
 * between two threads that have it. What it would say here, the patterns say better.
 */
#define unseen __attribute__((no_sanitize("thread")))

unseen static void block_fill(uint64_t *words, size_t size, uint64_t seed)
{
	size_t n = size / 8;

	words[0] = size;
	words[1] = seed;
	for (size_t i = 2; i < n; i++)
		words[i] = seed + i * STEP;
	for (size_t i = 0; i < size % 8; i++)
		((volatile unsigned char *)(words + n))[i] = (unsigned char)seed;
}

/* Returns its size. */
unseen static size_t block_check(const uint64_t *words)
{
	size_t size = words[0], n = size / 8;
	uint64_t seed = words[1];
	const unsigned char *tail = (const unsigned char *)(words + n);

	must(size >= 16 && size <= UINT64_C(1) << 40, "a block of %zu bytes", size);
	for (size_t i = 2; i < n; i++)
		must(words[i] == seed + i * STEP, "word %zu of %zu bytes is another's", i, size);
	for (size_t i = 0; i < size % 8; i++)
		must(tail[i] == (seed & 255), "the tail of %zu bytes is another's", size);
	return size;
}

/* From 16 to load->most, each doubling as likely as the next. */
static size_t random_size(struct worker *w)
{
	unsigned doublings = 63u - (unsigned)__builtin_clzll(w->load->most / 16);
	uint64_t base = UINT64_C(16) << next_random(w) % doublings;

	return base + next_random(w) % base;
}

/* The size that a block of this process was filled with. */
unseen static size_t block_size(struct worker *w, nvmm_ptr ptr)
{
	return *(const uint64_t *)nvmm_local(w->nvmm, ptr);
}

/* What has been checked is spoiled: given to another before it was free, it would show. */
unseen static void block_spoil(uint64_t *words)
{
	words[1] ^= STEP;
}

static void worker_free(struct worker *w, nvmm_ptr ptr)
{
	uint64_t *words = nvmm_local(w->nvmm, ptr);
	int r;

	must(words != NULL, "%s", nvmm_errmsg(w->nvmm));
	block_check(words);
	block_spoil(words);
	r = nvmm_free(w->heap, ptr);
	must(r == 0, "free: %d: %s", r, nvmm_errmsg(w->nvmm));
	atomic_fetch_add_explicit(&w->load->counts->freed, 1, memory_order_relaxed);
}

static nvmm_ptr worker_alloc(struct worker *w)
{
	size_t size = random_size(w);
	nvmm_ptr ptr = nvmm_alloc(w->heap, size);

	if (ptr == NVMM_NULL) {
		must(errno == ENOSPC, "alloc of %zu: %s: %s", size, strerror(errno),
			      nvmm_errmsg(w->nvmm));
		atomic_fetch_add_explicit(&w->load->counts->full, 1, memory_order_relaxed);
		return NVMM_NULL;
	}
	must(nvmm_usable_size(w->heap, ptr) >= size, "a block of %zu holds less", size);
	block_fill(nvmm_local(w->nvmm, ptr), size, next_random(w));
	atomic_fetch_add_explicit(&w->load->counts->allocated, 1, memory_order_relaxed);
	return ptr;
}

/* Steps */

static void step_drop(struct worker *w)
{
	unsigned i = (unsigned)(next_random(w) % w->held);
	nvmm_ptr ptr = w->hold[i];

	w->bytes -= block_size(w, ptr);
	w->hold[i] = w->hold[--w->held];
	worker_free(w, ptr);
}

/* Puts one into a slot, frees what another put there. */
static void step_hand(struct worker *w)
{
	unsigned i = (unsigned)(next_random(w) % w->held);
	nvmm_ptr mine = w->hold[i], theirs;

	w->bytes -= block_size(w, mine);
	w->hold[i] = w->hold[--w->held];
	/* ordering: acq_rel; the pattern goes with the pointer, both ways. */
	theirs = atomic_exchange_explicit(&w->slots[next_random(w) % LOAD_SLOTS], mine,
					  memory_order_acq_rel);
	atomic_fetch_add_explicit(&w->load->counts->handed, 1, memory_order_relaxed);
	if (theirs != NVMM_NULL)
		worker_free(w, theirs);
}

static void step_take(struct worker *w)
{
	nvmm_ptr ptr = worker_alloc(w);

	if (ptr == NVMM_NULL) {
		while (w->held > 0)
			step_drop(w);
		return;
	}
	w->bytes += block_size(w, ptr);
	w->hold[w->held++] = ptr;
}

static void step(struct worker *w)
{
	uint64_t dice = next_random(w) % 8;

	if (w->held == 0 || (dice < 4 && w->held < HOLD && w->bytes < w->load->held))
		step_take(w);
	else if (dice < 6)
		step_hand(w);
	else
		step_drop(w);
}

static void *run_worker(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load_explicit(&w->load->counts->stop, memory_order_relaxed))
		step(w);
	while (w->held > 0)
		step_drop(w);
	return NULL;
}

/* Processes */

static _Atomic nvmm_ptr *map_slots(const struct load *load, struct nvmm_client *nvmm)
{
	struct nvmm_region *region;
	void *addr;

	ck_assert_int_eq(nvmm_region_open(&region, nvmm, load->region, O_RDWR), 0);
	ck_assert_int_eq(nvmm_region_map(region, NULL, LOAD_SLOTS * sizeof(nvmm_ptr),
					 PROT_READ | PROT_WRITE, 0, 0, &addr),
			 0);
	nvmm_region_close(region);
	return addr;
}

void load_process(void *arg)
{
	const struct load *load = arg;
	struct nvmm_client *nvmm = harness_connect(load->h);
	struct nvmm_heap *heap = harness_open(nvmm, load->heap);
	_Atomic nvmm_ptr *slots = map_slots(load, nvmm);
	struct worker *workers = calloc(load->threads, sizeof(*workers));
	pthread_t *threads = calloc(load->threads, sizeof(*threads));
	unsigned number;

	ck_assert(workers && threads);
	number = atomic_fetch_add(load->processes, 1);
	for (unsigned i = 0; i < load->threads; i++) {
		workers[i] = (struct worker){
			.load = load,
			.nvmm = nvmm,
			.heap = heap,
			.slots = slots,
			.random = load->seed + ((uint64_t)number << 32 | i),
		};
		ck_assert_int_eq(pthread_create(&threads[i], NULL, run_worker, &workers[i]), 0);
	}
	for (unsigned i = 0; i < load->threads; i++)
		pthread_join(threads[i], NULL);
	free(threads);
	free(workers);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

void load_seed(struct load *load)
{
	const char *text = getenv("NVMMD_TEST_SEED");

	if (text)
		load->seed = strtoull(text, NULL, 0);
	else
		ck_assert_int_eq(getrandom(&load->seed, sizeof(load->seed), 0), sizeof(load->seed));
	printf("load: NVMMD_TEST_SEED=%llu\n", (unsigned long long)load->seed);
	fflush(stdout);
	/* tmpfs passes for persistent memory, for the daemon and those that are forked. */
	if (load->power)
		ck_assert_int_eq(setenv("PMEM_IS_PMEM_FORCE", "1", 1), 0);
}

void load_init(struct load *load, struct harness *h, uint64_t heap_bytes)
{
	struct nvmm_pool_options options = {
		.size = sizeof(options),
		.name = "load",
		.sparse = load->sparse,
		.durability = load->power ? NVMM_DURABILITY_POWER : NVMM_DURABILITY_PROCESS,
	};
	struct nvmm_client *nvmm = harness_connect(h);

	load->h = h;
	load->heap = load->region = 0;
	load->counts = harness_shared(sizeof(*load->counts));
	load->processes = harness_shared(sizeof(*load->processes));
	must(nvmm_heap_create(nvmm, &load->heap, heap_bytes, &options) == 0, "%s", nvmm_errmsg(nvmm));
	ck_assert_int_eq(nvmm_region_create(nvmm, &load->region, LOAD_SLOTS * sizeof(nvmm_ptr),
					    NULL),
			 0);
	nvmm_disconnect(nvmm);
}

void load_drain(struct load *load, struct nvmm_client *nvmm, struct nvmm_heap *heap)
{
	struct worker w = { .load = load, .nvmm = nvmm, .heap = heap };

	w.slots = map_slots(load, nvmm);
	for (unsigned i = 0; i < LOAD_SLOTS; i++) {
		if (w.slots[i] != NVMM_NULL)
			worker_free(&w, w.slots[i]);
		w.slots[i] = NVMM_NULL;
	}
}
