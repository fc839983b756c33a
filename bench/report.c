/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `make bench`: every cell of the plan with every allocator that can do it, then what is measured
 * singly. Rows are printed as they come.
 */
#include "bench/report.h"

#include <stdio.h>
#include <stdlib.h>

#include "bench/plan.h"
#include "bench/team.h"

static int add_contest(struct report *report, const struct bench *bench, const struct cell *cell)
{
	size_t n = report->contests;
	struct contest *grown = realloc(report->contest, (n + 1) * sizeof(*grown));

	if (!grown) {
		perror("bench");
		return -1;
	}
	report->contest = grown;
	grown[n] = (struct contest){ .rounds = bench->rounds };
	contest_init(&grown[n], cell, PEERS_ALL);
	if (grown[n].n == 0)
		return 0;
	contest_run(&grown[n], bench->base.dir);
	table_row(&grown[n]);
	report->contests++;
	return 0;
}

static int run_plan(struct report *report, const struct bench *bench)
{
	char title[128];
	struct cell cell;

	table_head();
	for (unsigned i = 0; plan_cell(&cell, i); i++) {
		cell.ms = bench->ms;
		cell_title(&cell, title, sizeof(title));
		if (!bench_wants(bench, title) || cell.workers > team_cpus())
			continue;
		if (add_contest(report, bench, &cell) < 0)
			return -1;
	}
	return 0;
}

static void run_singles(struct report *report, struct bench *bench)
{
	if (bench_wants(bench, "figures")) {
		figures_run(bench, report->figure);
		report->figures = FIGURES_N;
	}
	if (bench_wants(bench, "wordindex"))
		wordindex_run(bench, &report->words_shared, &report->words_private);
	table_singles(report);
}

void report_deinit(struct report *report)
{
	free(report->contest);
	report->contest = NULL;
	report->contests = 0;
}

int report_run(struct bench *bench)
{
	struct report report = { .rounds = bench->rounds, .ms = bench->ms };
	int r = run_plan(&report, bench);

	if (r == 0)
		run_singles(&report, bench);
	if (r == 0 && bench->json)
		r = json_write(&report, bench->json);
	if (r == 0 && bench->svg)
		r = svg_write(&report, bench->svg);
	report_deinit(&report);
	return r;
}
