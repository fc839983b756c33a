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
#include "bench/plan.h"
#include "bench/single.h"
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

static void at_most(bool measured, double figure, double bound, const char *title,
		    const char *text)
{
	if (!measured)
		line(false, "%-36s was not measured", title);
	else
		line(figure <= bound, "%-36s %6.2f %s, bound %.2f", title, figure, text, bound);
}

static void at_least(bool measured, double figure, double bound, const char *title,
		     const char *text)
{
	if (!measured)
		line(false, "%-36s was not measured", title);
	else
		line(figure >= bound, "%-36s %6.2f %s, bound: at least %.2f", title, figure, text,
		     bound);
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
	line(ratio <= 1.3, "%-36s %6.2f times process durability in power, bound 1.30", title,
	     ratio);
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
	struct cell cell;

	for (unsigned i = 0; plan_cell(&cell, i); i++) {
		cell.ms = bench->ms;
		if (cell.workload < WORKLOAD_RING && !cell.processes)
			run_cell(bench, &cell);
	}
}

/* A ring at 64 B: mimalloc's two threads against nvmm's, and against nvmm's two processes. */
static void run_rings(struct bench *bench)
{
	struct cell threads = { .workload = WORKLOAD_RING,
				.smallest = 64,
				.size = 64,
				.workers = 2,
				.ms = bench->ms };
	struct cell processes = threads;
	struct contest contest = { .rounds = bench->rounds };
	const struct entrant *e = contest.entrant;

	processes.processes = true;
	if (!bench_wants(bench, "ring 64 B") || team_cpus() < 2)
		return;
	if (contest_add(&contest, PEER_NVMM, &threads) < 0 ||
	    contest_add(&contest, PEER_NVMM, &processes) < 0 ||
	    contest_add(&contest, PEER_MIMALLOC, &threads) < 0)
		return;
	contest_run(&contest, bench->base.dir);
	print_medians(&contest, "ring 64 B");
	at_most(!e[0].failed && !e[2].failed, contest_ratio(&e[0], &e[2]), 0.7,
		"ring 64 B, 2 threads", "times mimalloc's two threads");
	at_most(!e[1].failed && !e[2].failed, contest_ratio(&e[1], &e[2]), 0.85,
		"ring 64 B, 2 processes", "times mimalloc's two threads");
}

/* What two processes on one heap do together, by what one does. */
static void run_scaling(struct bench *bench, enum workload workload)
{
	struct cell one = {
		.workload = workload, .smallest = 64, .size = 64, .workers = 1, .ms = bench->ms
	};
	struct cell two = one;
	struct contest contest = { .rounds = bench->rounds };
	const struct entrant *e = contest.entrant;
	char title[128];

	two.workers = 2;
	two.processes = true;
	cell_title(&two, title, sizeof(title));
	if (!bench_wants(bench, title) || team_cpus() < 2)
		return;
	contest_add(&contest, PEER_NVMM, &one);
	contest_add(&contest, PEER_NVMM, &two);
	contest_run(&contest, bench->base.dir);
	print_medians(&contest, title);
	at_least(!e[0].failed && !e[1].failed, 2 * contest_ratio(&e[0], &e[1]), 1.9, title,
		 "times the throughput of one");
}

/* What one would have instead: tight pairs of 64 B. */
static void run_others(struct bench *bench)
{
	static const struct {
		enum peer peer;
		double bound;
		const char *text;
	} other[] = {
		{ PEER_BOOST, 15, "times faster than Boost.Interprocess" },
		{ PEER_PMEMOBJ, 50, "times faster than libpmemobj" },
	};
	struct cell cell = { .smallest = 64, .size = 64, .workers = 1, .ms = bench->ms };
	struct contest contest = { .rounds = bench->rounds };
	const struct entrant *nvmm, *e;

	if (!bench_wants(bench, "tight 64 B, others"))
		return;
	contest_init(&contest, &cell,
		     PEER_BIT(PEER_NVMM) | PEER_BIT(PEER_BOOST) | PEER_BIT(PEER_PMEMOBJ));
	contest_run(&contest, bench->base.dir);
	print_medians(&contest, "tight 64 B, others");
	nvmm = contest_find(&contest, PEER_NVMM);
	for (size_t i = 0; i < ARRAY_SIZE(other); i++) {
		e = contest_find(&contest, other[i].peer);
		if (peer_present(other[i].peer))
			at_least(nvmm && e, nvmm && e ? contest_ratio(e, nvmm) : 0, other[i].bound,
				 "tight 64 B, others", other[i].text);
	}
}

static double idle_median(struct bench *bench, enum workload workload)
{
	struct cell cell = {
		.workload = workload, .smallest = 64, .size = 64, .workers = 1, .ms = bench->ms
	};
	struct contest contest = { .rounds = bench->rounds };

	contest_init(&contest, &cell, PEER_BIT(PEER_NVMM));
	contest_run(&contest, bench->base.dir);
	return series_median(&contest.entrant[0].ns);
}

/* With idle clients, between a run without them before and one after. */
static void run_idle(struct bench *bench, enum workload workload)
{
	double alone, with = 0;
	struct idle *idle;
	char title[64];

	snprintf(title, sizeof(title), "%s 64 B, 300 idle clients", workload_name(workload));
	if (!bench_wants(bench, title))
		return;
	alone = idle_median(bench, workload);
	idle = idle_start(300);
	if (idle) {
		with = idle_median(bench, workload);
		idle_end(idle);
	}
	alone = (alone + idle_median(bench, workload)) / 2;
	printf("      %-36s %.1f ns, alone %.1f ns\n", title, with, alone);
	at_most(alone > 0 && with > 0, with / alone, 1.1, title, "times what it is without");
}

static void run_figures(struct bench *bench)
{
	struct figure figure[FIGURES_N], *f;

	if (!bench_wants(bench, "figures"))
		return;
	figures_run(bench, figure);
	for (f = figure; f < figure + FIGURES_N; f++) {
		if (f->bound > 0)
			line(f->measured && f->value <= f->bound, "%-68s %8.2f %s, bound %g", f->text,
			     f->value, f->unit, f->bound);
		else if (f->measured)
			printf("      %-68s %8.2f %s\n", f->text, f->value, f->unit);
		else
			printf("      %-68s was not measured\n", f->text);
	}
}

static void run_wordindex(struct bench *bench)
{
	struct series shared, private;
	bool done;

	if (!bench_wants(bench, "wordindex"))
		return;
	done = wordindex_run(bench, &shared, &private);
	printf("      %-36s %.3f s, on mimalloc %.3f s\n", "wordindex", series_median(&shared),
	       series_median(&private));
	at_least(done, series_ratio(&private, &shared), 0.9, "wordindex",
		 "times the speed on mimalloc");
}

unsigned bounds_run(struct bench *bench)
{
	run_cells(bench);
	run_rings(bench);
	for (enum workload workload = WORKLOAD_TIGHT; workload < WORKLOAD_RING; workload++)
		run_scaling(bench, workload);
	run_others(bench);
	run_idle(bench, WORKLOAD_TIGHT);
	run_idle(bench, WORKLOAD_RANDOM);
	run_figures(bench);
	run_wordindex(bench);
	printf("%u ok, %u short\n", count.ok, count.wrong);
	return count.wrong;
}
