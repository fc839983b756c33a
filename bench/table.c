/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table: a row for each cell with the median nanoseconds of a pair for each allocator, then
 * nvmm's ratios to the volatile ones. A dash: not measured.
 */
#include <stdio.h>

#include "bench/report.h"
#include "common/macro.h"

static const enum peer rivals[] = { PEER_MIMALLOC, PEER_JEMALLOC, PEER_GLIBC };

void table_head(void)
{
	printf("%-34s", "ns for a pair, medians");
	for (enum peer peer = 0; peer < PEERS; peer++)
		printf(" %10s", peer_name(peer));
	printf("  core to core  nvmm to");
	for (size_t i = 0; i < ARRAY_SIZE(rivals); i++)
		printf(" %8s", peer_name(rivals[i]));
	printf("  power to process\n");
}

static void cell_ns(const struct entrant *e)
{
	if (e)
		printf(" %10.1f", series_median(&e->ns));
	else
		printf(" %10s", "-");
}

static void cell_ratio(const struct entrant *a, const struct entrant *b, int width)
{
	if (a && b)
		printf(" %*.2f", width, contest_ratio(a, b));
	else
		printf(" %*s", width, "-");
}

void table_row(const struct contest *contest)
{
	const struct entrant *nvmm = contest_find(contest, PEER_NVMM);
	char title[128];

	if (contest->n == 0)
		return;
	cell_title(&contest->entrant[0].cell, title, sizeof(title));
	printf("%-34s", title);
	for (enum peer peer = 0; peer < PEERS; peer++)
		cell_ns(contest_find(contest, peer));
	if (nvmm && nvmm->cell.workers > 1)
		printf(" %13.0f         ", series_median(&nvmm->round_trip_ns));
	else
		printf(" %13s         ", "");
	for (size_t i = 0; i < ARRAY_SIZE(rivals); i++)
		cell_ratio(nvmm, contest_find(contest, rivals[i]), 8);
	cell_ratio(contest_find(contest, PEER_NVMM_POWER), nvmm, 17);
	putchar('\n');
}

void table_singles(const struct report *report)
{
	const struct figure *f;

	putchar('\n');
	for (f = report->figure; f < report->figure + report->figures; f++)
		if (f->measured)
			printf("%-68s %8.2f %s\n", f->text, f->value, f->unit);
	if (report->words_shared.n == 0)
		return;
	printf("%-68s %8.2f s\n", "the word index of /usr/include, in a shared heap",
	       series_median(&report->words_shared));
	printf("%-68s %8.2f s\n", "the same program on mimalloc, in a private heap",
	       series_median(&report->words_private));
	printf("%-68s %8.2f\n", "speed of the first by that of the second",
	       series_ratio(&report->words_private, &report->words_shared));
}
