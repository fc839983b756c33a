/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long a restart takes after all was killed: heaps half full of blocks of 64 to 1024 bytes; their
 * client and the daemon get SIGKILL; a new daemon is started, and each heap is opened.
 *
 *   serving    from the start of the process to the first answer: bound 300 ms
 *   recovered  from then until the last heap could be opened: bound 100 ms for 10 GiB, and at least
 *              100 GiB a second
 *
 * Four heaps, together as many GiB as are told, 10 else, and at most half of what /dev/shm has room
 * for. Prints the figures and whether they are within the bounds; status 1 if not.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <nvmm/client.h>

#define HEAPS 4u
#define GIB (UINT64_C(1) << 30)

static char dir[64], config[128], sock[128];

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void clean(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	if (system(command) != 0)
		fprintf(stderr, "restart: %s is left behind\n", dir);
}

static void die(const char *what, const char *why)
{
	fprintf(stderr, "restart: %s: %s\n", what, why);
	exit(1);
}

static void prepare(void)
{
	FILE *f;

	snprintf(dir, sizeof(dir), "/dev/shm/nvmmd-restart-XXXXXX");
	if (!mkdtemp(dir))
		die(dir, strerror(errno));
	snprintf(config, sizeof(config), "%s/nvmmd.yaml", dir);
	snprintf(sock, sizeof(sock), "%s/sock", dir);
	f = fopen(config, "w");
	if (!f)
		die(config, strerror(errno));
	fprintf(f,
		"shelves:\n  base: \"%s/base\"\nsocket:\n  path: \"%s\"\nruntime: \"%s/run\"\n"
		"recovery:\n  parallel: 4\n",
		dir, sock, dir);
	fclose(f);
}

static pid_t start_daemon(void)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execl(NVMMD_PATH, NVMMD_PATH, "--foreground", "--config", config, (char *)NULL);
	_exit(127);
}

static struct nvmm_client *await(void)
{
	struct nvmm_options options = { .size = sizeof(options), .socket = sock };
	struct nvmm_client *nvmm;

	for (unsigned i = 0; i < 20000; i++) {
		if (nvmm_connect(&nvmm, &options) == 0)
			return nvmm;
		nanosleep(&(struct timespec){ .tv_nsec = 500000 }, NULL);
	}
	die("the daemon does not serve", nvmm_errmsg(NULL));
	return NULL;
}

/* Fills each heap to a half and stays. */
static void fill(uint64_t bytes, int ready)
{
	struct nvmm_client *nvmm = await();
	struct nvmm_pool_options options = { .size = sizeof(options) };

	for (unsigned i = 0; i < HEAPS; i++) {
		nvmm_pool_id id = (nvmm_pool_id)(i + 1);
		struct nvmm_heap *heap;
		uint64_t used = 0;

		if (nvmm_heap_create(nvmm, &id, bytes, &options) < 0 ||
		    nvmm_heap_open(&heap, nvmm, id, O_RDWR) < 0)
			die("a heap cannot be made", nvmm_errmsg(nvmm));
		for (unsigned k = 0; used < bytes / 2; k++) {
			size_t size = 64 + k * 193 % 961;

			if (!nvmm_alloc(heap, size))
				die("alloc", strerror(errno));
			used += size;
		}
	}
	if (write(ready, "", 1) == 1)
		pause();
	_exit(0);
}

static uint64_t choose(int argc, char **argv)
{
	uint64_t gib = argc > 1 ? strtoull(argv[1], NULL, 10) : 10;
	struct statvfs st;

	if (statvfs("/dev/shm", &st) == 0 && gib * GIB > st.f_bavail * st.f_frsize / 2)
		gib = st.f_bavail * st.f_frsize / 2 / GIB;
	return gib ? gib * GIB : GIB;
}

static bool say(bool ok, const char *what, double ms, double bound)
{
	printf("%-6s%-36s %7.1f ms, bound %.1f\n", ok ? "ok" : "short", what, ms, bound);
	return ok;
}

static bool measure(uint64_t bytes)
{
	double began = now_ms(), served, ended, bound = 100.0 * (double)bytes / (10.0 * (double)GIB);
	pid_t pid = start_daemon();
	struct nvmm_client *nvmm = await();
	bool ok;

	served = now_ms();
	for (unsigned i = 0; i < HEAPS; i++) {
		struct nvmm_heap *heap;

		if (nvmm_heap_open(&heap, nvmm, (nvmm_pool_id)(i + 1), O_RDONLY) < 0)
			die("a heap cannot be opened", nvmm_errmsg(nvmm));
	}
	ended = now_ms();
	nvmm_disconnect(nvmm);
	ok = say(served - began <= 300, "restart: serving", served - began, 300);
	ok &= say(ended - served <= bound, "restart: all recovered after that", ended - served, bound);
	printf("      %.1f GiB of heaps: %.1f GiB/s\n", (double)bytes / (double)GIB,
	       (double)bytes / (double)GIB / ((ended - served) / 1e3));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return ok;
}

int main(int argc, char **argv)
{
	uint64_t bytes = choose(argc, argv);
	pid_t daemon, client;
	int ready[2];
	bool ok;
	char c;

	prepare();
	atexit(clean);
	daemon = start_daemon();
	if (pipe(ready) < 0)
		die("pipe", strerror(errno));
	client = fork();
	if (client == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fill(bytes / HEAPS, ready[1]);
	}
	close(ready[1]);
	if (read(ready[0], &c, 1) != 1)
		die("the heaps cannot be filled", "see above");
	kill(daemon, SIGKILL);
	kill(client, SIGKILL);
	waitpid(daemon, NULL, 0);
	waitpid(client, NULL, 0);
	ok = measure(bytes);
	fflush(stdout);
	return ok ? 0 : 1;
}
