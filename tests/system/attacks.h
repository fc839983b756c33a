/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a hostile client of another user does to a daemon: one function for each kind of attack. doc/hostile.md says
 * what bounds each of them.
 */
#pragma once

#include <stdbool.h>

#include "tests/system/harness.h"

struct attack {
	const char *name;
	/* Attacks until the process is killed, or there is nothing more to do. It calls attack_begun() when
	 * it is under way. A daemon that refuses is right: no attack asserts anything. */
	void (*run)(struct harness *h);
	/* Nothing bounds it yet: the guard leaves it out unless it is asked for by its name. */
	bool open;
};

extern const struct attack attacks[];
extern const unsigned n_attacks;

/* Starts an attack in a process (and group) of another user, where that may be had, and waits until it is under
 * way or over, 20 s at most. */
struct attacker {
	pid_t pid;
	volatile bool *begun;
};
void attack_start(struct attacker *a, const struct attack *attack, struct harness *h);
void attack_end(struct attacker *a);

/* Becomes another user than the daemon's and the attacker's, if this process may. */
void attack_victim(void);
