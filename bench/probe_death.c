/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * probe-death: what the death of a large client costs.
 *
 *   probe-death DAEMON      prints "name value" for those of figures.h that are about it; DAEMON:
 *                           nvmmd's pid
 *
 * The victim has 32 threads that allocate 1 GiB together, write to each block, so that all pages are
 * mapped, fill their tables of owned spans, having freed a block of each span, and their tables of reservations.
 * It is killed while another process allocates and frees. The time runs from the kill until nvmm_wait_settled() has
 * returned; a part of it, told besides, is the kernel's, which ends the process and unmaps its memory. Who goes on
 * has its CPU before others; its longest pause is told beside the longest in the same time before the kill, which
 * is the machine's.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <nvmm/client.h>

#include "bench/gauge.h"
#include "bench/team.h"
#include "common/macro.h"

#define TIMES 9
#define MIB (UINT64_C(1) << 20)
#define HEAP_BYTES (1536 * MIB)
#define THREADS 32u
#define THREAD_BYTES (32 * MIB)
#define RESERVED 128u /* more than this nvmm_reserve() refuses */
#define SPAN_BYTES 16384u
#define LIVE 4096u /* blocks of the one who goes on */
#define BEFORE_MS 100u /* of watching who goes on */

/* Memory that the processes share. */
struct scene {
	char heap[32];
	_Atomic unsigned ready; /* of the victim's threads */
	_Atomic uint64_t pairs; /* allocated and freed by who goes on */
	_Atomic uint64_t gap_ns; /* its longest pause since this was 0 */
	_Atomic bool on; /* it runs */
};

static struct scene *scene;
static struct nvmm_client *nvmm;
static struct nvmm_heap *heap;
static nvmm_pool_id heap_id;

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "probe-death: %s: %s\n", what, nvmm_errmsg(nvmm));
	exit(1);
}

static void sleep_ms(unsigned ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = (long)ms * 1000000 }, NULL);
}

static void attach(void)
{
	need(nvmm_connect(&nvmm, NULL) == 0, "connect");
	need(nvmm_pool_lookup(nvmm, scene->heap, &heap_id) == 0, scene->heap);
	need(nvmm_heap_open(&heap, nvmm, heap_id, O_RDWR) == 0, "open");
}

/* The victim */

static nvmm_ptr take_block(size_t size)
{
	nvmm_ptr ptr = nvmm_alloc(heap, size);

	need(ptr != NVMM_NULL, "alloc");
	memset(nvmm_local(nvmm, ptr), 1, size);
	return ptr;
}

/* Sizes from 64 to 1024 bytes in turn, a span's worth of each; one block of each span is free again. */
static void *victim_thread(void *arg)
{
	uint64_t bytes = 0;

	for (unsigned turn = 0; bytes < THREAD_BYTES; turn++) {
		size_t size = 64u << turn % 5;
		nvmm_ptr last = NVMM_NULL;

		for (uint64_t span = 0; span < SPAN_BYTES; span += size, bytes += size)
			last = take_block(size);
		nvmm_free(heap, last);
	}
	for (unsigned i = 0; i < RESERVED; i++)
		need(nvmm_reserve(heap, 64u << i % 5) != NVMM_NULL, "reserve");
	need(nvmm_reserve(heap, 64) == NVMM_NULL && errno == ENOBUFS, "a full table");
	/* ordering: relaxed; who waits for the number looks at nothing else. */
	atomic_fetch_add_explicit(&scene->ready, 1, memory_order_relaxed);
	for (;;)
		pause();
	return arg;
}

static void victim(void)
{
	pthread_t thread;

	attach();
	for (unsigned i = 0; i < THREADS; i++)
		need(pthread_create(&thread, NULL, victim_thread, NULL) == 0, "thread");
	for (;;)
		pause();
}

/* Who goes on */

static void other(void)
{
	static nvmm_ptr live[LIVE];
	uint64_t last, now, random = 1;

	team_pin(0);
	team_favour();
	attach();
	last = team_now_ns();
	/* ordering: relaxed, here and below: numbers that are read while they change. */
	atomic_store_explicit(&scene->on, true, memory_order_relaxed);
	for (uint64_t n = 0;; n++) {
		unsigned i = (unsigned)((random = random * UINT64_C(6364136223846793005) + 1) >> 52);

		nvmm_free(heap, live[i]);
		live[i] = nvmm_alloc(heap, 64u << i % 4);
		need(live[i] != NVMM_NULL, "alloc");
		now = team_now_ns();
		/* ordering: relaxed; as above. */
		if (now - last > atomic_load_explicit(&scene->gap_ns, memory_order_relaxed))
			atomic_store_explicit(&scene->gap_ns, now - last, memory_order_relaxed);
		last = now;
		atomic_store_explicit(&scene->pairs, n, memory_order_relaxed);
	}
}

/* Killed with this process. */
static pid_t start(void (*fn)(void))
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	need(pid >= 0, "fork");
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fn();
	_exit(1);
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void await(pid_t pid)
{
	/* ordering: relaxed; as where it is stored. */
	while (atomic_load_explicit(&scene->ready, memory_order_relaxed) < THREADS ||
	       !atomic_load_explicit(&scene->on, memory_order_relaxed)) {
		need(waitpid(pid, NULL, WNOHANG) == 0, "the victim");
		sleep_ms(1);
	}
}

/* Measuring */

struct result {
	double ms, exit_ms, cpu_ms, gap_ms, before_ms, rate;
};

/* The longest pause since the last call. */
static double gap_ms(void)
{
	/* ordering: relaxed; as where it is stored. */
	return (double)atomic_exchange_explicit(&scene->gap_ns, 0, memory_order_relaxed) / 1e6;
}

static uint64_t pairs(void)
{
	/* ordering: relaxed; as where it is stored. */
	return atomic_load_explicit(&scene->pairs, memory_order_relaxed);
}

static struct result measure(pid_t daemon)
{
	struct result r;
	pid_t dead = start(victim), busy = start(other);
	uint64_t begin, before, during;
	double cpu;

	await(dead);
	attach();
	gap_ms();
	before = pairs();
	sleep_ms(BEFORE_MS);
	before = pairs() - before;
	r.before_ms = gap_ms();
	cpu = gauge_cpu_ns(daemon);
	during = pairs();
	begin = team_now_ns();
	end(dead);
	r.exit_ms = (double)(team_now_ns() - begin) / 1e6;
	need(nvmm_wait_settled(heap) == 0, "settled");
	r.ms = (double)(team_now_ns() - begin) / 1e6;
	during = pairs() - during;
	r.gap_ms = gap_ms();
	r.cpu_ms = (gauge_cpu_ns(daemon) - cpu) / 1e6;
	r.rate = (double)during / r.ms / ((double)before / BEFORE_MS);
	end(busy);
	nvmm_disconnect(nvmm);
	/* ordering: relaxed; nobody else is there. */
	atomic_store_explicit(&scene->ready, 0, memory_order_relaxed);
	atomic_store_explicit(&scene->on, false, memory_order_relaxed);
	return r;
}

static void tell(const char *name, const char *what, double value)
{
	char text[64];

	snprintf(text, sizeof(text), "%s_%s", name, what);
	gauge_tell(text, value);
}

/* In a heap that is new. False: the daemon has none of this durability here. */
static bool measure_new(struct result *ret, pid_t daemon, enum nvmm_durability durability)
{
	struct nvmm_pool_options options = {
		.size = sizeof(options), .name = scene->heap, .durability = durability };
	bool made;

	heap_id = 0;
	need(nvmm_connect(&nvmm, NULL) == 0, "connect");
	made = nvmm_heap_create(nvmm, &heap_id, HEAP_BYTES, &options) == 0;
	if (!made)
		fprintf(stderr, "probe-death: a heap: %s\n", nvmm_errmsg(nvmm));
	nvmm_disconnect(nvmm);
	if (!made)
		return false;
	*ret = measure(daemon);
	need(nvmm_connect(&nvmm, NULL) == 0, "connect");
	need(nvmm_heap_destroy_forced(nvmm, heap_id) == 0, "destroy");
	nvmm_disconnect(nvmm);
	return true;
}

/* Medians; of the pauses the longest. */
static void probe(pid_t daemon, const char *name, enum nvmm_durability durability)
{
	double ms[TIMES], exit_ms[TIMES], cpu_ms[TIMES], rate[TIMES], gap = 0, before = 0;
	struct result r;

	snprintf(scene->heap, sizeof(scene->heap), "probe-%s", name);
	for (unsigned i = 0; i < TIMES; i++) {
		if (!measure_new(&r, daemon, durability))
			return;
		ms[i] = r.ms;
		exit_ms[i] = r.exit_ms;
		cpu_ms[i] = r.cpu_ms;
		rate[i] = r.rate;
		gap = MAX(gap, r.gap_ms);
		before = MAX(before, r.before_ms);
	}
	tell(name, "time", gauge_median(ms, TIMES));
	tell(name, "exit", gauge_median(exit_ms, TIMES));
	tell(name, "cpu", gauge_median(cpu_ms, TIMES));
	tell(name, "rate", gauge_median(rate, TIMES));
	tell(name, "gap", gap);
	tell(name, "before", before);
}

int main(int argc, char **argv)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)team_cpus();
	scene = team_memory(sizeof(*scene));
	if (argc != 2 || !scene)
		return 2;
	probe(atoi(argv[1]), "full", NVMM_DURABILITY_PROCESS);
	probe(atoi(argv[1]), "full_power", NVMM_DURABILITY_POWER);
	return 0;
}
