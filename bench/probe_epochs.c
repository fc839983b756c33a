/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * probe-epochs: what epochs and what is freed with delay take.
 *
 *   probe-epochs DAEMON     prints "name value" for those of figures.h that are about them; DAEMON:
 *                           nvmmd's pid
 *
 * Entry and exit are measured beside liburcu's (flavour memb, inline), if that was there: the same
 * loop, round by round in turn, by one thread and by two. Blocks are usable again when the heap's stat
 * has none in limbo, at which the probe looks each millisecond.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <nvmm/client.h>

#ifdef HAVE_URCU
#define _LGPL_SOURCE
#define URCU_INLINE_SMALL_FUNCTIONS
#include <urcu/urcu-memb.h>
#endif

#include "bench/gauge.h"
#include "bench/team.h"
#include "common/macro.h"

#define ROUNDS 15
#define PAIRS 200000u
#define MIB (UINT64_C(1) << 20)
#define MANY 1000000u
#define SOME 50000u
#define FEW 10000u
#define SIZE 64u
#define STOPPED_S 30u

/* A heap, through a connection of its own. */
struct pool {
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	nvmm_pool_id id;
};

static nvmm_ptr *blocks;

static void need(bool ok, const struct nvmm_client *nvmm, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "probe-epochs: %s: %s\n", what, nvmm_errmsg(nvmm));
	exit(1);
}

static void sleep_ms(unsigned ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L }, NULL);
}

static void pool_make(struct pool *pool, uint64_t bytes)
{
	*pool = (struct pool){ 0 };
	need(nvmm_connect(&pool->nvmm, NULL) == 0, NULL, "connect");
	need(nvmm_heap_create(pool->nvmm, &pool->id, bytes, NULL) == 0, pool->nvmm, "a heap");
	need(nvmm_heap_open(&pool->heap, pool->nvmm, pool->id, O_RDWR) == 0, pool->nvmm, "open");
}

static void pool_drop(struct pool *pool)
{
	nvmm_heap_close(pool->heap);
	need(nvmm_heap_destroy(pool->nvmm, pool->id) == 0, pool->nvmm, "destroy");
	nvmm_disconnect(pool->nvmm);
}

/* Entry and exit */

struct loop {
	struct nvmm_client *nvmm; /* NULL: liburcu */
	unsigned cpu;
	pthread_barrier_t *start;
	double ns;
};

static double loop_nvmm(struct nvmm_client *nvmm)
{
	uint64_t start = team_now_ns();

	for (unsigned i = 0; i < PAIRS; i++) {
		nvmm_epoch_enter(nvmm);
		__asm__ volatile("" : : : "memory");
		nvmm_epoch_exit(nvmm);
	}
	return (double)(team_now_ns() - start) / PAIRS;
}

#ifdef HAVE_URCU
static const bool have_urcu = true;

static double loop_urcu(void)
{
	uint64_t start = team_now_ns();

	for (unsigned i = 0; i < PAIRS; i++) {
		urcu_memb_read_lock();
		__asm__ volatile("" : : : "memory");
		urcu_memb_read_unlock();
	}
	return (double)(team_now_ns() - start) / PAIRS;
}

static void urcu_begin(void)
{
	urcu_memb_register_thread();
}

static void urcu_end(void)
{
	urcu_memb_unregister_thread();
}
#else
static const bool have_urcu = false;

static double loop_urcu(void)
{
	return 0;
}

static void urcu_begin(void)
{
}

static void urcu_end(void)
{
}
#endif

static void *loop_run(void *arg)
{
	struct loop *loop = arg;

	team_pin(loop->cpu);
	team_favour();
	if (loop->nvmm)
		need(nvmm_epoch_enter(loop->nvmm) == 0, loop->nvmm, "enter");
	else
		urcu_begin();
	if (loop->nvmm)
		nvmm_epoch_exit(loop->nvmm);
	pthread_barrier_wait(loop->start);
	loop->ns = loop->nvmm ? loop_nvmm(loop->nvmm) : loop_urcu();
	if (!loop->nvmm)
		urcu_end();
	return NULL;
}

/* The mean of `n` threads that run the loop at once. */
static double time_loop(struct nvmm_client *nvmm, unsigned n)
{
	struct loop loop[2] = { 0 };
	pthread_barrier_t start;
	pthread_t thread[2];
	double sum = 0;

	pthread_barrier_init(&start, NULL, n);
	for (unsigned i = 0; i < n; i++) {
		loop[i] = (struct loop){ .nvmm = nvmm, .cpu = i, .start = &start };
		need(pthread_create(&thread[i], NULL, loop_run, &loop[i]) == 0, nvmm, "a thread");
	}
	for (unsigned i = 0; i < n; i++) {
		pthread_join(thread[i], NULL);
		sum += loop[i].ns;
	}
	pthread_barrier_destroy(&start);
	return sum / n;
}

static void probe_pairs(struct nvmm_client *nvmm, unsigned threads, const char *name, const char *peer)
{
	double ours[ROUNDS], theirs[ROUNDS];

	if (threads > team_cpus())
		return;
	for (unsigned i = 0; i < ROUNDS; i++) {
		ours[i] = time_loop(nvmm, threads);
		theirs[i] = have_urcu ? time_loop(NULL, threads) : 0;
	}
	gauge_tell(name, gauge_median(ours, ROUNDS));
	if (have_urcu)
		gauge_tell(peer, gauge_median(theirs, ROUNDS));
}

/* Freeing with delay */

static uint64_t limbo_of(const struct pool *pool)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };

	need(nvmm_heap_stat(pool->heap, &info) == 0, pool->nvmm, "stat");
	return info.limbo;
}

static void fill(const struct pool *pool, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		need((blocks[i] = nvmm_alloc(pool->heap, SIZE)) != NVMM_NULL, pool->nvmm, "alloc");
}

static void defer(const struct pool *pool, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		need(nvmm_free_deferred(pool->heap, blocks[i]) == 0, pool->nvmm, "free");
}

/* Milliseconds until nothing is in limbo. */
static double await_free(const struct pool *pool)
{
	uint64_t start = team_now_ns();

	while (limbo_of(pool) > 0) {
		need(team_now_ns() - start < UINT64_C(20000000000), pool->nvmm, "limbo stays");
		sleep_ms(1);
	}
	return (double)(team_now_ns() - start) / 1e6;
}

static void probe_defer(void)
{
	double ns[ROUNDS];
	struct pool pool;
	uint64_t start;

	pool_make(&pool, 64 * MIB);
	for (unsigned i = 0; i < ROUNDS; i++) {
		fill(&pool, FEW);
		start = team_now_ns();
		defer(&pool, FEW);
		ns[i] = (double)(team_now_ns() - start) / FEW;
		await_free(&pool);
	}
	pool_drop(&pool);
	gauge_tell("defer", gauge_median(ns, ROUNDS));
}

/* From the exit of the last reader until its blocks are free again. */
static void probe_reuse(unsigned n, unsigned rounds, const char *name)
{
	double ms[ROUNDS];
	struct pool pool;

	pool_make(&pool, 2 * MIB + (uint64_t)n * SIZE * 5 / 4);
	for (unsigned i = 0; i < rounds; i++) {
		fill(&pool, n);
		need(nvmm_epoch_enter(pool.nvmm) == 0, pool.nvmm, "enter");
		defer(&pool, n);
		sleep_ms(50 + i * 7 % 10); /* at any time between two looks of the daemon */
		nvmm_epoch_exit(pool.nvmm);
		ms[i] = await_free(&pool);
	}
	pool_drop(&pool);
	gauge_tell(name, gauge_median(ms, rounds));
}

/* A reader that is stopped in another pool */

static pid_t reader_start(nvmm_pool_id id)
{
	struct pool pool = { .id = id };
	int fds[2];
	char byte;
	pid_t pid;

	need(pipe2(fds, O_CLOEXEC) == 0, NULL, "pipe");
	fflush(NULL);
	pid = fork();
	need(pid >= 0, NULL, "fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		need(nvmm_connect(&pool.nvmm, NULL) == 0, NULL, "connect");
		need(nvmm_heap_open(&pool.heap, pool.nvmm, id, O_RDONLY) == 0, pool.nvmm, "open");
		need(nvmm_epoch_enter(pool.nvmm) == 0, pool.nvmm, "enter");
		need(write(fds[1], "r", 1) == 1, NULL, "pipe");
		for (;;)
			pause();
	}
	close(fds[1]);
	need(read(fds[0], &byte, 1) == 1, NULL, "a reader");
	close(fds[0]);
	return pid;
}

/* The mean of what reclaiming some blocks takes, for so long. */
static double reclaim_for(const struct pool *pool, unsigned seconds)
{
	uint64_t end = team_now_ns() + seconds * UINT64_C(1000000000);
	double sum = 0;
	unsigned n;

	for (n = 0; n == 0 || team_now_ns() < end; n++) {
		fill(pool, FEW);
		defer(pool, FEW);
		sum += await_free(pool);
	}
	return sum / n;
}

static void probe_stopped(void)
{
	double alone, with;
	struct pool a, b;
	pid_t pid;

	pool_make(&a, 8 * MIB);
	pool_make(&b, 8 * MIB);
	alone = reclaim_for(&b, STOPPED_S / 6);
	pid = reader_start(a.id);
	kill(pid, SIGSTOP);
	fill(&a, FEW);
	defer(&a, FEW);
	with = reclaim_for(&b, STOPPED_S);
	need(limbo_of(&a) == FEW * SIZE, a.nvmm, "the reader's own pool");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	await_free(&a);
	alone = (alone + reclaim_for(&b, STOPPED_S / 6)) / 2;
	pool_drop(&a);
	pool_drop(&b);
	gauge_tell("beside_alone", alone);
	gauge_tell("beside_stopped", with);
	gauge_tell("beside_ratio", with / alone);
}

/* Microseconds a second that the daemon runs for clients that have nothing in limbo. */
static void probe_idle(pid_t daemon)
{
	const unsigned seconds = 5;
	struct pool pool;
	double before;

	pool_make(&pool, 8 * MIB);
	fill(&pool, FEW);
	defer(&pool, FEW);
	await_free(&pool);
	sleep_ms(200);
	before = gauge_cpu_ns(daemon);
	sleep_ms(seconds * 1000);
	gauge_tell("idle_cpu", (gauge_cpu_ns(daemon) - before) / 1e3 / seconds);
	pool_drop(&pool);
}

int main(int argc, char **argv)
{
	struct pool pool;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)team_cpus();
	blocks = calloc(MANY, sizeof(*blocks));
	if (argc != 2 || !blocks)
		return 2;
	pool_make(&pool, 8 * MIB);
	probe_pairs(pool.nvmm, 1, "pair_1", "urcu_1");
	probe_pairs(pool.nvmm, 2, "pair_2", "urcu_2");
	pool_drop(&pool);
	probe_defer();
	probe_reuse(SOME, ROUNDS, "reuse_some");
	probe_reuse(MANY, 5, "reuse_many");
	probe_stopped();
	probe_idle(atoi(argv[1]));
	return 0;
}
