/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nvmmd that dies at a chosen point: just before a store to media, a flush, a drain, or a system
 * call that changes files. Without POINTS_ENV in its environment it is nvmmd; with POINTS_BOOT_ENV, in another boot.
 *
 * It kills itself as a whole, so that no other thread goes on; nothing of the process runs after
 * the point, as after a kill from outside.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/keep.h"
#include "daemon/nvmmd.h"
#include "daemon/session_file.h"
#include "daemon/settle.h"
#include "media/store.h"
#include "tests/crash/points.h"

static struct points *points;

static void point(enum media_point kind, const void *addr, size_t len)
{
	(void)kind;
	(void)addr;
	(void)len;
	/* ordering: relaxed, both; the word says all that there is to say. */
	if (__atomic_load_n(&points->left, __ATOMIC_RELAXED) <= 0 ||
	    __atomic_fetch_sub(&points->left, 1, __ATOMIC_RELAXED) != 1)
		return;
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

static int points_map(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -1;
	points = mmap(NULL, sizeof(*points), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return points == MAP_FAILED ? -1 : 0;
}

int main(int argc, char **argv)
{
	const char *path = getenv(POINTS_ENV), *boot = getenv(POINTS_BOOT_ENV);
	struct media_backend killer = media_backend_pmem;

	if (boot)
		boot_id_path = boot;
	if (path) {
		if (points_map(path) < 0)
			return 125;
		killer.point = point;
		media_backend = &killer;
		settle_slice_ns = 0;
	}
	keeper_program = "/proc/self/exe";
	return nvmmd_main(argc, argv);
}
