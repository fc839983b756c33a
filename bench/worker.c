/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A worker program: one allocator (bench/alloc.h), one cell, any number of rounds.
 *
 *   usage: worker CELL DIR HEAP
 *
 * It forks the cell's processes, which open the allocator and sleep; then it says "ready", and for
 * each byte that it reads it runs a round and writes a line:
 *
 *   nanoseconds a pair (mean of the workers)  round trip in ns (0: one worker)  disturbed (0, 1)
 *
 * At the end of input the processes free their blocks and end. What fails is said on stderr, and the
 * exit code is 1; none survives the others. All memory but the measured blocks is mapped, so that the
 * allocators have their heaps to themselves.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "bench/alloc.h"
#include "bench/loops.h"

/* Of the process, made before the first fork. */
static struct cell cell;
static struct place place = { .bytes = UINT64_C(512) << 20 };
static struct team *team;
static struct ring *ring;

/* Of a process's threads. */
static block *spare;

static void *memory(size_t bytes)
{
	void *p = team_memory(bytes);

	if (!p) {
		fprintf(stderr, "no memory for %zu bytes\n", bytes);
		_exit(1);
	}
	return p;
}

static size_t blocks_held(void)
{
	size_t most = cell.workload == WORKLOAD_LARSON ? LOOP_SLOTS :
		      cell.workload == WORKLOAD_RING   ? RING_SLOTS :
							 LOOP_BLOCKS;

	return MIN(most, (size_t)LOOP_BYTES / cell.size);
}

static void shuffle(struct job *job)
{
	for (uint32_t i = 0; i < job->n; i++)
		job->order[i] = i;
	for (uint32_t i = (uint32_t)job->n - 1; i > 0; i--) {
		uint32_t k = loop_below(job, i + 1), other = job->order[k];

		job->order[k] = job->order[i];
		job->order[i] = other;
	}
}

static void job_init(struct job *job, unsigned worker)
{
	*job = (struct job){
		.cell = &cell,
		.n = blocks_held(),
		.spare = &spare,
		.ring = ring,
		.random = worker + 1,
		.worker = worker,
	};
	job->blocks = memory(job->n * sizeof(*job->blocks));
	job->order = memory(job->n * sizeof(*job->order));
	shuffle(job);
}

static long switches(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
}

static void run_round(struct job *job, uint32_t *meetings)
{
	struct outcome *outcome = &team->outcome[job->worker];
	long before = switches();
	uint64_t start;

	if (team->workers > 1) {
		team_meet(team, meetings);
		if (job->worker < 2)
			team_round_trip(team, job->worker);
		team_meet(team, meetings);
	}
	start = team_now_ns();
	job->deadline = start + cell.ms * UINT64_C(1000000);
	job->aside = 0;
	outcome->pairs = loop_run(job);
	outcome->ns = team_now_ns() - start - job->aside;
	outcome->disturbed = switches() != before;
}

static void *work(void *arg)
{
	unsigned worker = (unsigned)(uintptr_t)arg;
	uint32_t round = 0, meetings = 0;
	struct job job;

	team_pin(worker);
	team_favour();
	job_init(&job, worker);
	team_ready(team);
	while (team_await(team, &round)) {
		run_round(&job, &meetings);
		team_finish(team);
	}
	if (cell.workload == WORKLOAD_LARSON)
		larson_end(&job, job.blocks);
	return NULL;
}

/* One process: all threads, or one of the processes. */
static int run_process(unsigned first, unsigned threads)
{
	pthread_t thread[CELL_WORKERS_MAX];
	struct job last;

	if (alloc_open(&place) < 0)
		return 1;
	job_init(&last, first);
	spare = last.blocks;
	for (unsigned i = 1; i < threads; i++)
		if (pthread_create(&thread[i], NULL, work, (void *)(uintptr_t)(first + i)) != 0)
			return 1;
	work((void *)(uintptr_t)first);
	for (unsigned i = 1; i < threads; i++)
		pthread_join(thread[i], NULL);
	larson_end(&last, spare);
	alloc_close();
	return 0;
}

static void spawn(unsigned first, unsigned threads)
{
	pid_t self = getpid(), pid = fork();

	if (pid < 0) {
		perror("fork");
		exit(1);
	}
	if (pid > 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	_exit(getppid() == self ? run_process(first, threads) : 1);
}

/* Waits for a counter of the team; gives up if a process has ended. */
static void await(uint32_t *counter)
{
	int status;

	while (!team_wait(counter, cell.workers))
		if (waitpid(-1, &status, WNOHANG) != 0)
			exit(1);
}

static void report(void)
{
	double ns = 0;
	bool disturbed = false;

	for (unsigned i = 0; i < cell.workers; i++) {
		const struct outcome *o = &team->outcome[i];

		ns += (double)o->ns / (double)o->pairs / cell.workers;
		disturbed |= o->disturbed;
	}
	printf("%.3f %.1f %d\n", ns, (double)team->round_trip_ps / 1e3, disturbed);
	fflush(stdout);
}

static int finish(void)
{
	int status, r = 0;

	team_stop(team);
	while (wait(&status) > 0)
		r |= status != 0;
	alloc_remove(&place);
	return r;
}

static void setup(void)
{
	(void)team_cpus();
	team = memory(sizeof(*team));
	ring = memory(sizeof(*ring));
	team->workers = cell.workers;
	setpgid(0, 0);
	if (alloc_prepare(&place) < 0)
		exit(1);
	fflush(NULL);
	if (!cell.processes)
		spawn(0, cell.workers);
	for (unsigned i = 0; cell.processes && i < cell.workers; i++)
		spawn(i, 1);
	await(&team->opened);
}

int main(int argc, char **argv)
{
	char command;

	if (argc != 4 || cell_parse(&cell, argv[1]) < 0) {
		fprintf(stderr, "usage: %s CELL DIR HEAP\n", argv[0]);
		return 2;
	}
	place.dir = argv[2];
	place.heap = argv[3];
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setup();
	puts("ready");
	fflush(stdout);
	while (read(0, &command, 1) == 1) {
		team_start(team);
		await(&team->finished);
		report();
	}
	return finish();
}
