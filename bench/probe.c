/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * probe: what single operations of nvmm take, and helpers for the driver.
 *
 *   probe figures DAEMON    prints "name value" for each of figures.h; DAEMON: nvmmd's pid
 *   probe idle N            N clients attach and do nothing until the end of input; says "ready"
 *   probe heap NAME BYTES   makes a heap; NAME may end with :power
 *   probe destroy NAME
 *
 * Each operation is measured some dozens of times, and the median is told. The connection is made
 * after the forks, as a forked child attaches for itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <nvmm/client.h>

#include "bench/figures.h"
#include "bench/gauge.h"
#include "bench/probe_locks.h"
#include "bench/team.h"
#include "common/macro.h"

#define TIMES 25
#define BLOCKS 10000u
#define MIB (UINT64_C(1) << 20)

struct first {
	pthread_t thread;
	sem_t done;
	double us;
};

static struct nvmm_client *nvmm;
static struct nvmm_heap *heap;
static nvmm_pool_id heap_id;
static nvmm_ptr blocks[BLOCKS];

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "probe: %s: %s\n", what, nvmm_errmsg(nvmm));
	exit(1);
}

static void sleep_ms(unsigned ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = (long)ms * 1000000 }, NULL);
}

static void attach(const char *name)
{
	need(nvmm_connect(&nvmm, NULL) == 0, "connect");
	need(nvmm_pool_lookup(nvmm, name, &heap_id) == 0, name);
	need(nvmm_heap_open(&heap, nvmm, heap_id, O_RDWR) == 0, "open");
}

static void make_heap(const char *name, uint64_t bytes)
{
	struct nvmm_pool_options options = {
		.size = sizeof(options),
		.name = name,
		.durability = strstr(name, ":power") ? NVMM_DURABILITY_POWER :
						       NVMM_DURABILITY_PROCESS,
	};

	heap_id = 0;
	need(nvmm_heap_create(nvmm, &heap_id, bytes, &options) == 0, "create a heap");
}

static void open_new(const char *name, uint64_t bytes)
{
	make_heap(name, bytes);
	need(nvmm_heap_open(&heap, nvmm, heap_id, O_RDWR) == 0, "open");
}

static void drop(void)
{
	nvmm_heap_close(heap);
	need(nvmm_heap_destroy(nvmm, heap_id) == 0, "destroy");
}

static void fill_blocks(size_t size)
{
	for (unsigned i = 0; i < BLOCKS; i++)
		need((blocks[i] = nvmm_alloc(heap, size)) != NVMM_NULL, "alloc");
}

static void *free_blocks(void *arg)
{
	double *ns = arg;
	nvmm_ptr own = nvmm_alloc(heap, 64);
	uint64_t start;

	team_pin(0);
	start = team_now_ns();
	for (unsigned i = 0; i < BLOCKS; i++)
		nvmm_free(heap, blocks[i]);
	*ns = (double)(team_now_ns() - start) / BLOCKS;
	nvmm_free(heap, own);
	return NULL;
}

static void probe_foreign_free(void)
{
	double ns[TIMES];
	pthread_t thread;

	for (unsigned i = 0; i < TIMES; i++) {
		fill_blocks(64);
		need(pthread_create(&thread, NULL, free_blocks, &ns[i]) == 0, "thread");
		pthread_join(thread, NULL);
	}
	gauge_tell("foreign_free", gauge_median(ns, TIMES));
}

/* Both sum up what they find, so that both wait for the same memory. */

static double time_local(void)
{
	uint64_t start = team_now_ns(), sum = 0;

	for (unsigned i = 0; i < BLOCKS; i++)
		sum += *(const uint64_t *)nvmm_local(nvmm, blocks[i]);
	__asm__ volatile("" : : "r"(sum));
	return (double)(team_now_ns() - start) / BLOCKS;
}

static double time_offset(const char *base)
{
	uint64_t start = team_now_ns(), sum = 0;

	for (unsigned i = 0; i < BLOCKS; i++)
		sum += *(const uint64_t *)(const void *)(base + nvmm_ptr_offset(blocks[i]));
	__asm__ volatile("" : : "r"(sum));
	return (double)(team_now_ns() - start) / BLOCKS;
}

static void probe_local(void)
{
	double extra[TIMES];
	const char *base;

	fill_blocks(64);
	base = (const char *)nvmm_local(nvmm, blocks[0]) - nvmm_ptr_offset(blocks[0]);
	for (unsigned i = 0; i < BLOCKS; i++)
		memset(nvmm_local(nvmm, blocks[i]), 1, 64);
	for (unsigned i = 0; i < TIMES; i++)
		extra[i] = time_local() - time_offset(base);
	gauge_tell("local_extra", gauge_median(extra, TIMES));
	for (unsigned i = 0; i < BLOCKS; i++)
		nvmm_free(heap, blocks[i]);
}

static void probe_round_trip(void)
{
	double us[TIMES * 4];
	nvmm_pool_id id;

	for (unsigned i = 0; i < TIMES * 4; i++) {
		uint64_t start = team_now_ns();

		need(nvmm_pool_lookup(nvmm, "probe", &id) == 0, "lookup");
		us[i] = (double)(team_now_ns() - start) / 1e3;
	}
	gauge_tell("round_trip", gauge_median(us, TIMES * 4));
}

/* Threads that measured stay until all have: none has another's lane. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void *first_alloc(void *arg)
{
	struct first *first = arg;
	uint64_t start = team_now_ns();
	nvmm_ptr ptr = nvmm_alloc(heap, 64);

	first->us = (double)(team_now_ns() - start) / 1e3;
	sem_post(&first->done);
	pthread_mutex_lock(&gate);
	pthread_mutex_unlock(&gate);
	nvmm_free(heap, ptr);
	return NULL;
}

static void probe_first_thread(void)
{
	struct first first[TIMES];
	double us[TIMES];

	pthread_mutex_lock(&gate);
	for (unsigned i = 0; i < TIMES; i++) {
		sem_init(&first[i].done, 0, 0);
		need(pthread_create(&first[i].thread, NULL, first_alloc, &first[i]) == 0, "thread");
		sem_wait(&first[i].done);
		us[i] = first[i].us;
	}
	pthread_mutex_unlock(&gate);
	for (unsigned i = 0; i < TIMES; i++)
		pthread_join(first[i].thread, NULL);
	gauge_tell("first_thread", gauge_median(us, TIMES));
}

/* In a process that is not attached. */
static void first_process(double *us)
{
	uint64_t start = team_now_ns(), connected, opened;
	nvmm_ptr ptr;

	need(nvmm_connect(&nvmm, NULL) == 0, "connect");
	connected = team_now_ns();
	need(nvmm_heap_open(&heap, nvmm, heap_id, O_RDWR) == 0, "open");
	opened = team_now_ns();
	ptr = nvmm_alloc(heap, 64);
	need(ptr != NVMM_NULL, "alloc");
	us[2] = (double)(team_now_ns() - start) / 1e3;
	us[0] = (double)(connected - start) / 1e3;
	us[1] = (double)(opened - connected) / 1e3;
	nvmm_free(heap, ptr);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

static void probe_first_process(void)
{
	double *us = team_memory(3 * sizeof(*us)), all[3][TIMES];

	need(us != NULL, "memory");
	for (unsigned i = 0; i < TIMES; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			first_process(us);
			_exit(0);
		}
		need(pid > 0 && waitpid(pid, NULL, 0) == pid, "fork");
		for (unsigned k = 0; k < 3; k++)
			all[k][i] = us[k];
	}
	gauge_tell("connect", gauge_median(all[0], TIMES));
	gauge_tell("open", gauge_median(all[1], TIMES));
	gauge_tell("first_process", gauge_median(all[2], TIMES));
}

/* A client with spans of a few classes, blocks in them, and nothing more to do. */
static pid_t spawn_client(const char *name)
{
	int fds[2];
	char byte;
	pid_t pid;

	need(pipe2(fds, O_CLOEXEC) == 0, "pipe");
	fflush(NULL);
	pid = fork();
	need(pid >= 0, "fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		attach(name);
		for (unsigned i = 0; i < 1000; i++)
			nvmm_alloc(heap, 64u << i % 4);
		need(write(fds[1], "r", 1) == 1, "pipe");
		for (;;)
			pause();
	}
	close(fds[1]);
	need(read(fds[0], &byte, 1) == 1, "a client");
	close(fds[0]);
	return pid;
}

static unsigned openers(void)
{
	struct nvmm_pool_info info = { .size = sizeof(info) };

	need(nvmm_pool_stat(nvmm, heap_id, &info) == 0, "stat");
	return info.openers;
}

static double settle_ms(void)
{
	pid_t pid = spawn_client("probe");
	unsigned before = openers();
	uint64_t start = team_now_ns();

	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	while (openers() >= before && team_now_ns() - start < UINT64_C(5000000000))
		;
	return (double)(team_now_ns() - start) / 1e6;
}

static double settle_cpu_us(pid_t daemon)
{
	pid_t pid = spawn_client("probe");
	double before;

	sleep_ms(5);
	before = gauge_cpu_ns(daemon);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	sleep_ms(30);
	return (gauge_cpu_ns(daemon) - before) / 1e3;
}

static void probe_settle(pid_t daemon)
{
	double ms[TIMES], us[TIMES];

	for (unsigned i = 0; i < TIMES; i++) {
		ms[i] = settle_ms();
		us[i] = settle_cpu_us(daemon);
	}
	gauge_tell("settle_time", gauge_median(ms, TIMES));
	gauge_tell("settle_cpu", gauge_median(us, TIMES));
}

/* Part of a heap of 64 MiB that blocks of `size` cannot have, in percent. */
static double unusable(const char *name, size_t size)
{
	uint64_t bytes = 0;

	open_new(name, 64 * MIB);
	while (nvmm_alloc(heap, size) != NVMM_NULL)
		bytes += size;
	drop();
	return 100.0 - 100.0 * (double)bytes / (64.0 * MIB);
}

static void probe_space(void)
{
	struct nvmm_pool_info info = { .size = sizeof(info) };

	make_heap("probe-meta", 256 * MIB);
	need(nvmm_pool_stat(nvmm, heap_id, &info) == 0, "stat");
	gauge_tell("metadata", 100.0 * (double)(info.file_bytes - info.bytes) / (double)info.file_bytes);
	need(nvmm_heap_destroy(nvmm, heap_id) == 0, "destroy");
	gauge_tell("unusable_64", unusable("probe-64", 64));
	gauge_tell("unusable_4096", unusable("probe-4096", 4096));
}

static void probe_lost(void)
{
	double worst = 0, lost;
	size_t usable;
	nvmm_ptr ptr;

	open_new("probe-lost", 1056 * MIB);
	for (size_t size = 16; size <= 1024 * MIB; size += size < 2048 ? 1 : size / 97) {
		ptr = nvmm_alloc(heap, size);
		need(ptr != NVMM_NULL, "alloc");
		usable = nvmm_usable_size(heap, ptr);
		nvmm_free(heap, ptr);
		lost = 100.0 * (double)(usable - size) / (double)usable;
		worst = MAX(worst, lost);
	}
	drop();
	gauge_tell("lost_inside", worst);
}

static int figures(pid_t daemon)
{
	int r;

	(void)team_cpus();
	need(nvmm_connect(&nvmm, NULL) == 0, "connect");
	make_heap("probe", 64 * MIB);
	nvmm_disconnect(nvmm);
	probe_first_process();
	attach("probe");
	probe_local();
	probe_foreign_free();
	probe_round_trip();
	probe_first_thread();
	probe_settle(daemon);
	r = probe_locks(nvmm, heap);
	need(r == 0, strerror(-r));
	drop();
	probe_space();
	probe_lost();
	nvmm_disconnect(nvmm);
	return 0;
}

static int idle(unsigned n)
{
	char byte;

	while (n-- > 0)
		spawn_client("bench:process");
	puts("ready");
	fflush(stdout);
	(void)!read(0, &byte, 1);
	/* They go with this one. */
	return 0;
}

static int destroy(const char *name)
{
	need(nvmm_pool_lookup(nvmm, name, &heap_id) == 0, name);
	need(nvmm_heap_destroy(nvmm, heap_id) == 0, name);
	return 0;
}

int main(int argc, char **argv)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (argc == 3 && strcmp(argv[1], "figures") == 0)
		return figures(atoi(argv[2]));
	if (argc == 3 && strcmp(argv[1], "idle") == 0)
		return idle((unsigned)atoi(argv[2]));
	need(argc >= 3 && nvmm_connect(&nvmm, NULL) == 0, "connect");
	if (argc == 4 && strcmp(argv[1], "heap") == 0)
		make_heap(argv[2], strtoull(argv[3], NULL, 10));
	else if (argc == 3 && strcmp(argv[1], "destroy") == 0)
		destroy(argv[2]);
	else
		return 2;
	nvmm_disconnect(nvmm);
	return 0;
}
