/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The benchmark's own nvmmd on a throw-away base. It dies with the benchmark, and so does the base.
 */
#pragma once

#include <sys/types.h>

struct base {
	char dir[256];   /* all else is in here; workers may put files there */
	pid_t daemon;    /* 0: it does not run */
};

/* Makes the directory under `parent`, starts nvmmd, and sets what clients find it by in the
 * environment. 0, or -1 with a message on stderr. */
int base_init(struct base *base, const char *parent);
void base_deinit(struct base *base);
