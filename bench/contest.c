/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * All workers of a contest live at once; who is not measured sleeps in a read. The first round of
 * each is thrown away: it makes the first touch of everything. A round in which a worker was put off
 * its CPU is done again, twice at most. A worker that ends, or says nothing for a while, is out; the
 * others go on.
 */
#include "bench/contest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/macro.h"

#define READY_MS 10000
#define ROUND_MS 5000
#define TRIES 3

static const struct {
	const char *name;
	const char *program;
	const char *heap;
	bool shared;
} peers[PEERS] = {
	[PEER_NVMM] = { "nvmm", "worker-nvmm", "bench:process", true },
	[PEER_NVMM_POWER] = { "nvmm-power", "worker-nvmm", "bench:power", true },
	[PEER_MIMALLOC] = { "mimalloc", "worker-mimalloc", "", false },
	[PEER_JEMALLOC] = { "jemalloc", "worker-jemalloc", "", false },
	[PEER_GLIBC] = { "glibc", "worker-glibc", "", false },
	[PEER_PMEMOBJ] = { "libpmemobj", "worker-pmemobj", "", false },
	[PEER_BOOST] = { "boost", "worker-boost", "", true },
};

struct worker {
	pid_t pid;
	int in;  /* what it reads */
	FILE *out;
};

const char *peer_name(enum peer peer)
{
	return peers[peer].name;
}

bool peer_shared(enum peer peer)
{
	return peers[peer].shared;
}

static void peer_path(enum peer peer, char *path, size_t room)
{
	snprintf(path, room, "%s/%s", BENCH_DIR, peers[peer].program);
}

bool peer_present(enum peer peer)
{
	char path[512];

	peer_path(peer, path, sizeof(path));
	return access(path, X_OK) == 0;
}

int contest_add(struct contest *contest, enum peer peer, const struct cell *cell)
{
	if (!peer_present(peer) || contest->n == ENTRANTS_MAX)
		return -1;
	if (cell->workload == WORKLOAD_RING && cell->processes && !peers[peer].shared)
		return -1;
	contest->entrant[contest->n] = (struct entrant){ .peer = peer, .cell = *cell };
	return (int)contest->n++;
}

void contest_init(struct contest *contest, const struct cell *cell, unsigned set)
{
	contest->n = 0;
	for (enum peer peer = 0; peer < PEERS; peer++)
		if (set & PEER_BIT(peer))
			contest_add(contest, peer, cell);
}

/* Workers */

static void exec_worker(const struct entrant *e, const char *dir, int in, int out)
{
	char path[512], word[128];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (dup2(in, 0) < 0 || dup2(out, 1) < 0)
		_exit(126);
	peer_path(e->peer, path, sizeof(path));
	cell_format(&e->cell, word, sizeof(word));
	execl(path, path, word, dir, peers[e->peer].heap, (char *)NULL);
	_exit(127);
}

static int worker_spawn(struct worker *ret, const struct entrant *e, const char *dir)
{
	int in[2], out[2];

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
		return -errno;
	fflush(NULL);
	ret->pid = fork();
	if (ret->pid == 0)
		exec_worker(e, dir, in[0], out[1]);
	close(in[0]);
	close(out[1]);
	ret->in = in[1];
	ret->out = fdopen(out[0], "re");
	return ret->pid > 0 && ret->out ? 0 : -errno;
}

/* One line, which a worker writes at once. */
static bool worker_line(struct worker *w, char *line, int room, int ms)
{
	struct pollfd fd = { .fd = fileno(w->out), .events = POLLIN };

	return poll(&fd, 1, ms) == 1 && fgets(line, room, w->out) != NULL;
}

/* Its processes are in a group of their own, and die with it. */
static void worker_kill(struct worker *w)
{
	kill(w->pid, SIGKILL);
	kill(-w->pid, SIGKILL);
}

static void worker_end(struct worker *w)
{
	struct pollfd fd = { .fd = fileno(w->out), .events = POLLIN };

	close(w->in);
	if (poll(&fd, 1, ROUND_MS) != 1)
		worker_kill(w);
	waitpid(w->pid, NULL, 0);
	fclose(w->out);
}

/* At once: it may be spinning. */
static void fail(struct worker *w, struct entrant *e, const char *what)
{
	char title[128];

	cell_title(&e->cell, title, sizeof(title));
	fprintf(stderr, "bench: %s: %s: %s\n", peer_name(e->peer), title, what);
	e->failed = true;
	worker_kill(w);
}

static bool measure(struct worker *w, struct entrant *e, double *ns, double *round_trip,
		    int *disturbed)
{
	char line[128];

	if (write(w->in, "r", 1) != 1 || !worker_line(w, line, sizeof(line), ROUND_MS) ||
	    sscanf(line, "%lf %lf %d", ns, round_trip, disturbed) != 3) {
		fail(w, e, "ended, or stuck, in a round");
		return false;
	}
	return true;
}

static void round_of(struct worker *w, struct entrant *e, unsigned round)
{
	double ns = 0, round_trip = 0;
	int disturbed = 1;

	for (unsigned i = 0; i < TRIES && disturbed; i++)
		if (!measure(w, e, &ns, &round_trip, &disturbed))
			return;
	e->ns.value[round] = ns;
	e->ns.n = round + 1;
	e->round_trip_ns.value[round] = round_trip;
	e->round_trip_ns.n = round + 1;
	e->disturbed += (unsigned)disturbed;
}

static void warm_up(struct worker *w, struct entrant *e)
{
	double ns, round_trip;
	int disturbed;
	char line[128];

	if (!worker_line(w, line, sizeof(line), READY_MS))
		fail(w, e, "did not start");
	else
		measure(w, e, &ns, &round_trip, &disturbed);
}

void contest_run(struct contest *contest, const char *dir)
{
	struct worker worker[ENTRANTS_MAX];
	unsigned n = contest->n;

	signal(SIGPIPE, SIG_IGN);
	contest->rounds = MIN(contest->rounds, (unsigned)ROUNDS_MAX);
	for (unsigned i = 0; i < n; i++)
		if (worker_spawn(&worker[i], &contest->entrant[i], dir) < 0) {
			perror("bench: start a worker");
			exit(1);
		}
	for (unsigned i = 0; i < n; i++)
		warm_up(&worker[i], &contest->entrant[i]);
	for (unsigned round = 0; round < contest->rounds; round++)
		for (unsigned i = 0; i < n; i++)
			if (!contest->entrant[i].failed)
				round_of(&worker[i], &contest->entrant[i], round);
	for (unsigned i = 0; i < n; i++)
		worker_end(&worker[i]);
}

/* Figures */

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double series_median(const struct series *series)
{
	double sorted[ROUNDS_MAX];

	if (series->n == 0)
		return 0;
	memcpy(sorted, series->value, series->n * sizeof(sorted[0]));
	qsort(sorted, series->n, sizeof(sorted[0]), compare);
	return (sorted[(series->n - 1) / 2] + sorted[series->n / 2]) / 2;
}

const struct entrant *contest_find(const struct contest *contest, enum peer peer)
{
	for (unsigned i = 0; i < contest->n; i++)
		if (contest->entrant[i].peer == peer && !contest->entrant[i].failed)
			return &contest->entrant[i];
	return NULL;
}

double series_ratio(const struct series *a, const struct series *b)
{
	struct series ratio = { .n = MIN(a->n, b->n) };

	for (unsigned i = 0; i < ratio.n; i++)
		ratio.value[i] = a->value[i] / b->value[i];
	return series_median(&ratio);
}

double contest_ratio(const struct entrant *a, const struct entrant *b)
{
	return series_ratio(&a->ns, &b->ns);
}
