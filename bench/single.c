/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The probe and the word index are programs of this folder; they are run by the shell, as their
 * arguments are words.
 */
#include "bench/single.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/team.h"
#include "common/macro.h"

#define CORPUS "/usr/include"

struct idle {
	pid_t pid;
	int in; /* what it reads */
};

static FILE *start(const char *command)
{
	char line[1024];

	fflush(NULL);
	snprintf(line, sizeof(line), "%s/%s", BENCH_DIR, command);
	return popen(line, "re");
}

static void take_line(struct figure figure[FIGURES_N], const char *line)
{
	char name[64];
	double value;

	if (sscanf(line, "%63s %lf", name, &value) != 2)
		return;
	for (unsigned i = 0; i < FIGURES_N; i++)
		if (strcmp(figure[i].name, name) == 0) {
			figure[i].value = value;
			figure[i].measured = true;
		}
}

static void run_probe(struct figure figure[FIGURES_N], const char *probe, pid_t daemon)
{
	char command[64], line[256];
	FILE *f;

	snprintf(command, sizeof(command), "%s %d", probe, (int)daemon);
	f = start(command);
	while (f && fgets(line, sizeof(line), f))
		take_line(figure, line);
	if (f)
		pclose(f);
}

void figures_run(struct bench *bench, struct figure figure[FIGURES_N])
{
	static const struct figure all[FIGURES_N] = {
#define X(name_, text_, unit_, bound_) \
	{ .name = #name_, .text = text_, .unit = unit_, .bound = bound_ },
		FIGURES(X)
#undef X
	};

	memcpy(figure, all, sizeof(all));
	run_probe(figure, "probe figures", bench->base.daemon);
	run_probe(figure, "probe-death", bench->base.daemon);
	run_probe(figure, "probe-epochs", bench->base.daemon);
}

static void exec_idle(unsigned n, int in, int out)
{
	char path[512], count[16];

	if (dup2(in, 0) < 0 || dup2(out, 1) < 0)
		_exit(126);
	snprintf(path, sizeof(path), "%s/probe", BENCH_DIR);
	snprintf(count, sizeof(count), "%u", n);
	execl(path, "probe", "idle", count, (char *)NULL);
	_exit(127);
}

/* The clients live until the pipe that the probe reads is closed. */
struct idle *idle_start(unsigned n)
{
	struct idle *idle = calloc(1, sizeof(*idle));
	int in[2], out[2];
	char byte;
	bool ready;

	if (!idle || pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0) {
		free(idle);
		return NULL;
	}
	fflush(NULL);
	idle->pid = fork();
	if (idle->pid == 0)
		exec_idle(n, in[0], out[1]);
	close(in[0]);
	close(out[1]);
	idle->in = in[1];
	ready = read(out[0], &byte, 1) == 1;
	close(out[0]);
	if (ready)
		return idle;
	fprintf(stderr, "bench: %u idle clients do not come up\n", n);
	idle_end(idle);
	return NULL;
}

void idle_end(struct idle *idle)
{
	close(idle->in);
	waitpid(idle->pid, NULL, 0);
	free(idle);
}

/* Seconds of one run, or -1. The heap is made before, and goes after. */
static double time_index(const char *program, bool heap)
{
	char command[512];
	uint64_t start;
	double took;
	int r = 0;

	if (heap)
		r = system(BENCH_DIR "/probe heap bench-words 268435456");
	snprintf(command, sizeof(command),
		 BENCH_DIR "/%s --heap bench-words index " CORPUS " >/dev/null", program);
	start = team_now_ns();
	if (r == 0)
		r = system(command);
	took = (double)(team_now_ns() - start) / 1e9;
	if (heap && system(BENCH_DIR "/probe destroy bench-words") != 0)
		r = -1;
	return r == 0 ? took : -1;
}

bool wordindex_run(struct bench *bench, struct series *shared, struct series *private)
{
	unsigned rounds = MIN(bench->rounds, 3u);
	double a, b;

	*shared = *private = (struct series){ 0 };
	if (access(BENCH_DIR "/wordindex-private", X_OK) < 0) {
		fprintf(stderr, "bench: wordindex-private is not built\n");
		return false;
	}
	for (unsigned i = 0; i <= rounds; i++) {
		a = time_index("wordindex-shared", true);
		b = time_index("wordindex-private", false);
		if (a < 0 || b < 0) {
			fprintf(stderr, "bench: the word index failed\n");
			return false;
		}
		/* The first has the files read from disk. */
		if (i == 0)
			continue;
		shared->value[shared->n++] = a;
		private->value[private->n++] = b;
	}
	return true;
}
