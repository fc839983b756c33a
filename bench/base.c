/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * PMEM_IS_PMEM_FORCE makes libpmem take tmpfs for persistent memory, for nvmmd, its clients and
 * libpmemobj alike: flushes are then done by the same instructions as there.
 *
 * The directory is removed by the outer of two processes: base_init() forks, the inner goes on and
 * is the benchmark, so that whatever ends that one leaves nothing behind.
 */
#include "bench/base.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/team.h"

static volatile sig_atomic_t inner;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void on_signal(int signal)
{
	if (inner > 0)
		kill(inner, SIGKILL);
}

/* The outer process: waits, removes, ends as the inner did. */
static void guard(const char *dir)
{
	struct sigaction action = { .sa_handler = on_signal };
	int status = 0;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	while (waitpid(inner, &status, 0) < 0 && errno == EINTR)
		;
	/* The daemon, killed with its parent, may still be at it. */
	for (int i = 0; i < 50 && nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

static int make_dir(struct base *base, const char *parent)
{
	pid_t self = getpid();

	snprintf(base->dir, sizeof(base->dir), "%s/nvmmd-bench-XXXXXX", parent);
	if (!mkdtemp(base->dir)) {
		perror(base->dir);
		return -1;
	}
	fflush(NULL);
	inner = fork();
	if (inner < 0) {
		perror("fork");
		rmdir(base->dir);
		return -1;
	}
	if (inner > 0)
		guard(base->dir);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return getppid() == self ? 0 : -1;
}

static int write_config(const struct base *base)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/base", base->dir);
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/run", base->dir);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/nvmmd.yaml", base->dir);
	f = fopen(path, "we");
	if (!f) {
		perror(path);
		return -1;
	}
	fprintf(f, "shelves:\n  base: %s/base\n", base->dir);
	fprintf(f, "socket:\n  path: %s/socket\nruntime: %s/run\n", base->dir, base->dir);
	fprintf(f, "durability: process\nlog:\n  level: warning\n  target: stderr\n");
	return fclose(f) == 0 ? 0 : -1;
}

static void exec_daemon(const struct base *base)
{
	char path[512];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	team_favour();
	snprintf(path, sizeof(path), "%s/nvmmd.yaml", base->dir);
	execl(NVMMD_PATH, "nvmmd", "--config", path, (char *)NULL);
	_exit(127);
}

/* Until its socket is there: it serves then. */
static int await_daemon(struct base *base)
{
	char path[512];
	int status;

	snprintf(path, sizeof(path), "%s/socket", base->dir);
	setenv("NVMM_SOCKET", path, 1);
	for (int i = 0; i < 1000; i++) {
		if (access(path, F_OK) == 0)
			return 0;
		if (waitpid(base->daemon, &status, WNOHANG) != 0)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	fprintf(stderr, "bench: %s does not serve\n", NVMMD_PATH);
	base->daemon = 0;
	return -1;
}

/* The heaps that the workers share, one for each durability; that of `power` may be refused. */
static int make_heaps(void)
{
	if (system(BENCH_DIR "/probe heap bench:process 536870912") != 0)
		return -1;
	if (system(BENCH_DIR "/probe heap bench:power 536870912") != 0)
		fprintf(stderr, "bench: no heap of durability power: nvmm-power will not start\n");
	return 0;
}

int base_init(struct base *base, const char *parent)
{
	*base = (struct base){ 0 };
	if (make_dir(base, parent) < 0)
		return -1;
	setenv("PMEM_IS_PMEM_FORCE", "1", 1);
	if (write_config(base) < 0)
		return -1;
	base->daemon = fork();
	if (base->daemon == 0)
		exec_daemon(base);
	if (base->daemon < 0 || await_daemon(base) < 0)
		return -1;
	return make_heaps();
}

void base_deinit(struct base *base)
{
	if (base->daemon > 0) {
		kill(base->daemon, SIGTERM);
		waitpid(base->daemon, NULL, 0);
	}
	base->daemon = 0;
}
