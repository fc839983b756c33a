/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * All that `make bench` measured, and the forms in which it is shown.
 */
#pragma once

#include "bench/contest.h"
#include "bench/single.h"

struct report {
	struct contest *contest; /* one for each cell: its first entrant's */
	unsigned contests;
	struct figure figure[FIGURES_N];
	unsigned figures; /* 0 or FIGURES_N */
	struct series words_shared; /* seconds */
	struct series words_private;
	unsigned rounds;
	unsigned ms;
};

void report_deinit(struct report *report);

/* To standard output: a header, a row for each contest, what comes behind. */
void table_head(void);
void table_row(const struct contest *contest);
void table_singles(const struct report *report);

/* To files. 0, or -1 with a message on stderr. */
int json_write(const struct report *report, const char *path);
int svg_write(const struct report *report, const char *path);
