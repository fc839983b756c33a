/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The bounds: what nvmmd promises of its speed, each as a line "ok" or "short" with the figure and
 * the bound. Figures are medians of rounds, and ratios medians of each round's ratio, so that a
 * machine that is slower for a while is slower for all.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/team.h"
#include "common/macro.h"

static struct {
	unsigned ok;
	unsigned wrong;
} count;

static void line(bool ok, const char *fmt, ...) _printf(2, 3);

static void line(bool ok, const char *fmt, ...)
{
	va_list ap;

	printf("%-6s", ok ? "ok" : "short");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	if (ok)
		count.ok++;
	else
		count.wrong++;
}

/* All entrants' medians. */
static void print_medians(const struct contest *contest, const char *title)
{
	const struct entrant *e;
	double round_trip = 0;
	unsigned disturbed = 0;

	printf("      %-36s", title);
	for (unsigned i = 0; i < contest->n; i++) {
		e = &contest->entrant[i];
		printf(" %s%s %.1f", peer_name(e->peer), e->cell.processes ? " (2 proc.)" : "",
		       series_median(&e->ns));
		if (series_median(&e->round_trip_ns) > 0)
			round_trip = series_median(&e->round_trip_ns);
		disturbed += e->disturbed;
	}
	printf(" ns");
	if (round_trip > 0)
		printf("; core to core %.0f ns", round_trip);
	if (disturbed > 0)
		printf("; %u of %u rounds disturbed", disturbed, contest->rounds * contest->n);
	putchar('\n');
}

/* nvmm against the faster of those in `rivals`. */
static void judge(const struct contest *contest, const char *title, unsigned rivals, double bound)
{
	const struct entrant *nvmm = contest_find(contest, PEER_NVMM);
	const struct entrant *best = NULL, *e;

	for (enum peer peer = 0; peer < PEERS; peer++) {
		e = rivals & PEER_BIT(peer) ? contest_find(contest, peer) : NULL;
		if (e && (!best || series_median(&e->ns) < series_median(&best->ns)))
			best = e;
	}
	if (!nvmm || !best)
		line(false, "%-36s was not measured", title);
	else
		line(contest_ratio(nvmm, best) <= bound, "%-36s %6.2f times %s, bound %.2f", title,
		     contest_ratio(nvmm, best), peer_name(best->peer), bound);
}

static void judge_power(const struct contest *contest, const char *title)
{
	const struct entrant *nvmm = contest_find(contest, PEER_NVMM);
	const struct entrant *power = contest_find(contest, PEER_NVMM_POWER);
	double ratio;

	if (!nvmm || !power) {
		line(false, "%-36s power was not measured", title);
		return;
	}
	ratio = contest_ratio(power, nvmm);
	line(ratio <= 1.3, "%-36s %6.2f times process in power, bound 1.30", title, ratio);
}

/* One cell: medians of all, and both bounds. */
static void run_cell(struct bench *bench, const struct cell *cell)
{
	struct contest contest = { .rounds = bench->rounds };
	char title[128];

	cell_title(cell, title, sizeof(title));
	if (!bench_wants(bench, title) || cell->workers > team_cpus())
		return;
	contest_init(&contest, cell,
		     PEER_BIT(PEER_NVMM) | PEER_BIT(PEER_NVMM_POWER) | PEER_BIT(PEER_MIMALLOC) |
			     PEER_BIT(PEER_JEMALLOC) | PEER_BIT(PEER_GLIBC));
	contest_run(&contest, bench->base.dir);
	print_medians(&contest, title);
	if (cell->size <= 1024)
		judge(&contest, title, PEER_BIT(PEER_MIMALLOC) | PEER_BIT(PEER_JEMALLOC), 1.25);
	else
		judge(&contest, title, PEER_BIT(PEER_MIMALLOC), 1.5);
	judge_power(&contest, title);
}

/* Every workload of single workers' heaps, at every size. */
static void run_cells(struct bench *bench)
{
	static const size_t sizes[] = { 64, 256, 1024, 4096, 65536 };
	struct cell cell = { .ms = bench->ms };

	for (cell.workload = WORKLOAD_TIGHT; cell.workload < WORKLOAD_RING; cell.workload++)
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
			for (cell.workers = 1; cell.workers <= 2; cell.workers++)
				for (int filled = 0; filled <= 1; filled++) {
					cell.smallest = cell.size = sizes[i];
					cell.filled = filled;
					run_cell(bench, &cell);
				}
}

unsigned bounds_run(struct bench *bench)
{
	run_cells(bench);
	printf("%u ok, %u short\n", count.ok, count.wrong);
	return count.wrong;
}
