/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/crash/killer.h"

#include <unistd.h>

long killer_points = -1;

static void nothing(const void *addr, size_t len)
{
	(void)addr;
	(void)len;
}

static void nothing_either(void)
{
}

static void point(enum media_point kind, const void *addr, size_t len)
{
	(void)kind;
	(void)addr;
	(void)len;
	if (killer_points-- == 0)
		_exit(KILLED);
}

const struct media_backend killer_backend = {
	.flush = nothing,
	.drain = nothing_either,
	.point = point,
};
