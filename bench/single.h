/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is measured beside the contests: figures of nvmm alone, idle clients, the word index.
 */
#pragma once

#include <stdbool.h>

#include "bench/bench.h"
#include "bench/figures.h"

enum figure_id {
#define X(name, text, unit, bound) FIGURE_##name,
	FIGURES(X)
#undef X
		FIGURES_N,
};

struct figure {
	const char *name;
	const char *text;
	const char *unit;
	double bound; /* the most that it may be; 0: none */
	double value;
	bool measured;
};

/* All of figures.h, as far as the probe comes. */
void figures_run(struct bench *bench, struct figure figure[FIGURES_N]);

/* Lets n clients attach and be idle. NULL, with a message on stderr, if they can't. */
struct idle *idle_start(unsigned n);
void idle_end(struct idle *idle);

/* Seconds that the word index takes for the text files under /usr/include, by round: in a shared heap
 * and on mimalloc. False: it cannot be done; why is on stderr. */
bool wordindex_run(struct bench *bench, struct series *shared, struct series *private);
