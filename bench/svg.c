/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The chart: a row for each cell of untouched blocks, a dot for each allocator, nanoseconds on a
 * logarithmic scale from left to right; left is better.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/report.h"

#define LEFT 230
#define WIDTH 620
#define ROW 17
#define TOP 64
#define DECADES 5 /* 1 ns to 100 us */

static const char *const colours[PEERS] = {
	[PEER_NVMM] = "#c1121f",     [PEER_NVMM_POWER] = "#f4a261", [PEER_MIMALLOC] = "#1d3557",
	[PEER_JEMALLOC] = "#2a9d8f", [PEER_GLIBC] = "#8d99ae",	    [PEER_PMEMOBJ] = "#7b2cbf",
	[PEER_BOOST] = "#588157",
};

static bool is_shown(const struct contest *contest)
{
	return contest->n > 0 && !contest->entrant[0].cell.filled;
}

static double x_of(double ns)
{
	double decade = log10(ns < 1 ? 1 : ns);

	return LEFT + WIDTH * (decade > DECADES ? DECADES : decade) / DECADES;
}

static void legend(FILE *f)
{
	double x = 12;

	fprintf(f, "<text x=\"12\" y=\"18\" font-weight=\"bold\">");
	fprintf(f, "ns for a pair of allocate and free, medians; left is better</text>\n");
	for (enum peer peer = 0; peer < PEERS; peer++) {
		fprintf(f, "<circle cx=\"%.0f\" cy=\"36\" r=\"5\" fill=\"%s\"/>", x, colours[peer]);
		fprintf(f, "<text x=\"%.0f\" y=\"40\">%s</text>\n", x + 9, peer_name(peer));
		x += 30 + 7.0 * (double)strlen(peer_name(peer));
	}
}

static void grid(FILE *f, unsigned rows)
{
	static const char *const names[] = { "1 ns", "10", "100", "1 us", "10", "100" };

	for (int i = 0; i <= DECADES; i++) {
		double x = LEFT + (double)WIDTH * i / DECADES;

		fprintf(f, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%u\" stroke=\"#ddd\"/>",
			x, TOP - 4, x, TOP + rows * ROW);
		fprintf(f, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\" fill=\"#666\">", x,
			TOP - 8);
		fprintf(f, "%s</text>\n", names[i]);
	}
}

static void dot(FILE *f, enum peer peer, double ns, double y)
{
	fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"5\" fill=\"%s\" fill-opacity=\"0.85\">",
		x_of(ns), y, colours[peer]);
	fprintf(f, "<title>%s %.1f ns</title></circle>", peer_name(peer), ns);
}

static void row(FILE *f, const struct contest *contest, unsigned n)
{
	double y = TOP + ROW * (n + 0.5);
	char title[128];

	cell_title(&contest->entrant[0].cell, title, sizeof(title));
	if (n % 2)
		fprintf(f, "<rect x=\"0\" y=\"%u\" width=\"%d\" height=\"%d\" fill=\"#000\" "
			   "fill-opacity=\"0.03\"/>",
			TOP + n * ROW, LEFT + WIDTH + 20, ROW);
	fprintf(f, "<text x=\"12\" y=\"%.1f\">%s</text>", y + 4, title);
	/* The last drawn is on top: nvmm. */
	for (unsigned i = contest->n; i-- > 0;) {
		const struct entrant *e = &contest->entrant[i];

		if (!e->failed && e->ns.n > 0)
			dot(f, e->peer, series_median(&e->ns), y);
	}
	fputc('\n', f);
}

static void draw(FILE *f, const struct report *report)
{
	unsigned rows = 0, n = 0;

	for (unsigned i = 0; i < report->contests; i++)
		rows += is_shown(&report->contest[i]);
	fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%u\" "
		   "font-family=\"sans-serif\" font-size=\"12\">\n",
		LEFT + WIDTH + 20, TOP + rows * ROW + 12);
	fprintf(f, "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n");
	legend(f);
	grid(f, rows);
	for (unsigned i = 0; i < report->contests; i++)
		if (is_shown(&report->contest[i]))
			row(f, &report->contest[i], n++);
	fprintf(f, "</svg>\n");
}

int svg_write(const struct report *report, const char *path)
{
	FILE *f = fopen(path, "we");

	if (f) {
		draw(f, report);
		if (fclose(f) == 0)
			return 0;
	}
	fprintf(stderr, "bench: %s: cannot be written: %s\n", path, strerror(errno));
	return -1;
}
