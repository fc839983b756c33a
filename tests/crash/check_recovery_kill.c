/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Recovery after an unclean stop is interrupted 100 times, and ends in the same state as one that was let alone.
 *
 * Heaps are in use by threads that allocate, free, defer, and reserve, when client and daemon are killed. What they
 * left is recovered once without a death. Then it is recovered again and again, a daemon dying at a random
 * point between its start and the end of its recovery, up to DEATHS_A_ROUND of them in a row, before one may go
 * on to its end: tables and state records are the same then, byte for byte. A death counts if that daemon's log
 * says that it had begun to recover and not that it was done; all must be so, but those in the start before.
 *
 * The seed is NVMMD_TEST_SEED, else 1. NVMMD_TEST_LONG=1: then one daemon dies at each point in turn, a round each.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/macro.h"
#include "media/span.h"
#include "tests/crash/arena.h"
#include "tests/crash/ledger.h"

#define HEAPS 3u
#define THREADS 4u
#define BLOCKS 300u
#define MIB (UINT64_C(1) << 20)

#ifdef __SANITIZE_ADDRESS__ /* it is for what recovery does, not for when it is cut short */
#define DEATHS 15u
#else
#define DEATHS 100u
#endif
#define DEATHS_A_ROUND 10u
#define ATTEMPTS (2 * DEATHS)

static struct arena a;
static char image[300]; /* what the killed left */
static char whole[300]; /* its recovery without a death */

static struct shared {
	nvmm_pool_id id[HEAPS];
	unsigned held[HEAPS]; /* blocks that are neither freed nor reserved; atomic */
	unsigned ready;       /* threads; atomic */
} *shared;

/* Who is killed */

struct worker {
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	unsigned number; /* of the heap */
	unsigned seed;
};

static void work(struct worker *w)
{
	nvmm_ptr ptr[BLOCKS];
	unsigned held = BLOCKS;

	for (unsigned i = 0; i < BLOCKS; i++) {
		w->seed = w->seed * 1103515245 + 12345;
		ptr[i] = nvmm_alloc(w->heap, 16 + (w->seed >> 8) % 2000);
		must(ptr[i], "alloc: %s", strerror(errno));
	}
	for (unsigned i = 0; i < BLOCKS; i += 3, held--)
		must((i % 2 ? nvmm_free_deferred : nvmm_free)(w->heap, ptr[i]) == 0, "free %u", i);
	for (unsigned i = 0; i < 60; i++)
		must(nvmm_reserve(w->heap, 40), "reserve: %s", strerror(errno));
	/* ordering: relaxed; a sum that is read after `ready`. */
	__atomic_fetch_add(&shared->held[w->number], held, __ATOMIC_RELAXED);
	/* ordering: release; the sums come before it. */
	__atomic_fetch_add(&shared->ready, 1, __ATOMIC_RELEASE);
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;

	/* Inside of an epoch: what is freed with delay stays in limbo. */
	nvmm_epoch_enter(w->nvmm);
	work(w);
	for (;;)
		pause();
	return NULL;
}

static void client(void *arg)
{
	static struct worker workers[HEAPS][THREADS];
	struct nvmm_client *nvmm = harness_connect(&a.h);
	pthread_t thread;

	(void)arg;
	for (unsigned i = 0; i < HEAPS; i++) {
		struct nvmm_heap *heap = harness_heap(nvmm, &shared->id[i], (8 + 8 * i) * MIB, NULL, 0);

		for (unsigned t = 0; t < THREADS; t++) {
			workers[i][t] = (struct worker){ nvmm, heap, i, i * THREADS + t };
			must(pthread_create(&thread, NULL, worker_run, &workers[i][t]) == 0, "thread");
		}
	}
	for (;;)
		pause();
}

static bool client_ready(void *arg)
{
	(void)arg;
	/* ordering: acquire; pairs with the release in work(). */
	return __atomic_load_n(&shared->ready, __ATOMIC_ACQUIRE) == HEAPS * THREADS;
}

static void copy(const char *to, const char *from)
{
	char command[700];

	snprintf(command, sizeof(command), "rm -rf %s && cp -a %s %s", to, from, to);
	ck_assert_int_eq(system(command), 0);
}

/* Kills daemon and client in the middle of it all, and keeps what they left. */
static void crash(void)
{
	pid_t pid;

	arena_init_empty(&a);
	snprintf(image, sizeof(image), "%s/image", a.h.dir);
	snprintf(whole, sizeof(whole), "%s/whole", a.h.dir);
	harness_start(&a.h);
	shared = harness_shared(sizeof(*shared));
	pid = harness_fork(client, NULL);
	harness_until(client_ready, NULL, 30000);
	harness_signal(&a.h, SIGKILL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	copy(image, a.h.base);
}

/* Recovering */

static bool is_over(void *arg)
{
	siginfo_t info = { .si_pid = 0 };

	(void)arg;
	ck_assert_int_eq(waitid(P_PID, (id_t)a.h.daemon, &info, WEXITED | WNOHANG | WNOWAIT), 0);
	return info.si_pid != 0 || harness_logged(&a.h, "bytes were recovered in");
}

/* A daemon that dies at its k-th point, if that comes before its recovery is done. Whether it died. */
static bool recover_dying(uint64_t k)
{
	arena_log(&a, "dies at point %llu", (unsigned long long)k);
	arena_arm(&a, k);
	harness_spawn(&a.h);
	harness_until(is_over, NULL, 30000);
	return arena_disarm(&a);
}

static bool died_inside(void)
{
	return harness_logged(&a.h, "bytes are to be recovered") &&
	       !harness_logged(&a.h, "bytes were recovered in");
}

/* All that was held is, and nothing else. */
static void expect_blocks(void)
{
	struct nvmm_client *nvmm = harness_connect(&a.h);

	for (unsigned i = 0; i < HEAPS; i++) {
		struct nvmm_heap_report report = { .size = sizeof(report) };
		struct nvmm_heap *heap = harness_open(nvmm, shared->id[i]);

		ck_assert_int_eq(nvmm_heap_check(heap, &report), 0);
		ck_assert_uint_eq(report.violations, 0);
		ck_assert_uint_eq(report.blocks, shared->held[i]);
		nvmm_heap_close(heap);
	}
	nvmm_disconnect(nvmm);
}

static off_t records_of(nvmm_pool_id id)
{
	struct file_header_df header;
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/pool-%u/state-0", image, id);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(pread(fd, &header, sizeof(header), 0), sizeof(header));
	close(fd);
	return (off_t)state_records_offset(header.limit.raw);
}

/* The files of the base and of the recovery without a death, from `from` on. */
static void expect_same(nvmm_pool_id id, const char *file, off_t from)
{
	static char buffer[2][65536];
	const char *base[2] = { a.h.base, whole };
	char path[512];
	int fd[2];
	ssize_t n = 1;

	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/pool-%u/%s", base[i], id, file);
		fd[i] = open(path, O_RDONLY | O_CLOEXEC);
		ck_assert_int_ge(fd[i], 0);
	}
	for (off_t at = from; n > 0; at += n) {
		n = pread(fd[0], buffer[0], sizeof(buffer[0]), at);
		ck_assert_int_eq(pread(fd[1], buffer[1], sizeof(buffer[1]), at), n);
		for (ssize_t i = 0; i < n; i++)
			must(buffer[0][i] == buffer[1][i], "pool %u: %s ends otherwise at byte %lld", id,
			     file, (long long)at + i);
	}
	close(fd[0]);
	close(fd[1]);
}

/* Hints are derived, and lanes count how often they were settled: not compared. */
static void expect_same_end(void)
{
	for (unsigned i = 0; i < HEAPS; i++) {
		expect_same(shared->id[i], "table-0.1", 0);
		expect_same(shared->id[i], "state-0", records_of(shared->id[i]));
	}
}

/* Recovers what the killed left, up to `most` times in vain; how many of these died inside. */
static unsigned round_of(unsigned most, uint64_t points, unsigned *attempts)
{
	unsigned inside = 0;
	bool died = true;

	copy(a.h.base, image);
	for (unsigned i = 0; i < most && died; i++) {
		died = recover_dying((uint64_t)rand() % points);
		(*attempts)++;
		inside += died && died_inside();
	}
	if (died)
		ck_assert(!recover_dying(POINTS_NEVER));
	harness_stop(&a.h);
	expect_same_end();
	return inside;
}

/* Recoveries that die at random. */
static void sample(uint64_t points, struct ledger *l)
{
	unsigned inside = 0, attempts = 0, rounds = 0;

	for (; inside < DEATHS && attempts < ATTEMPTS; rounds++)
		inside += round_of(MIN(DEATHS_A_ROUND, DEATHS - inside), points, &attempts);
	printf("recovery: %llu points, %u of %u daemons died inside of it, %u rounds ended the same\n",
	       (unsigned long long)points, inside, attempts, rounds);
	ck_assert_uint_eq(inside, DEATHS);
	l->images += attempts + rounds;
	l->inner += inside;
}

/* One that dies at each point. Threads share the work: a recovery has a few points more or less than another. */
static void sweep(uint64_t points, struct ledger *l)
{
	for (uint64_t k = 0; k < points; k++) {
		bool died;

		copy(a.h.base, image);
		died = recover_dying(k);
		if (died)
			ck_assert(!recover_dying(POINTS_NEVER));
		harness_stop(&a.h);
		expect_same_end();
		l->images += 1 + died;
		l->inner += died;
	}
}

START_TEST(interrupted)
{
	struct ledger l = { .suite = "recovery", .operation = "three heaps, daemon and client killed",
			    .durability = "process" };
	const char *seed = getenv("NVMMD_TEST_SEED");

	srand(seed ? (unsigned)strtoul(seed, NULL, 0) : 1);
	ledger_begin(&l);
	crash();
	ck_assert(!recover_dying(POINTS_NEVER));
	l.points = a.passed;
	harness_stop(&a.h);
	copy(whole, a.h.base);
	sample(l.points, &l);
	if (ledger_whole())
		sweep(l.points, &l);
	harness_start(&a.h);
	expect_blocks();
	harness_stop(&a.h);
	ledger_end(&l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("recovery kill");
	TCase *t = harness_case(s, "recovery", ledger_whole() ? 7200 : 200);

	tcase_add_test(t, interrupted);
	return harness_run(s);
}
