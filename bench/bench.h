/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The benchmark program: what its parts share.
 */
#pragma once

#include <stdbool.h>

#include "bench/base.h"
#include "bench/contest.h"

struct bench {
	struct base base;
	const char *parent; /* directory of the base */
	const char *only;   /* cells whose titles have this text; NULL: all */
	unsigned rounds;
	unsigned ms; /* of a round */
	const char *json; /* files to write; NULL: none */
	const char *svg;
};

/* Whether --only takes what is called so. */
bool bench_wants(const struct bench *bench, const char *title);

/* Measures everything, prints the table, writes the files. 0, or -1 with a message on stderr. */
int report_run(struct bench *bench);

/* Prints a line for each bound; how many are short. */
unsigned bounds_run(struct bench *bench);
