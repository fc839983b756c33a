/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench: runs the workers of this folder against each other on an nvmmd of its own.
 *
 * The allocators are in the workers (worker.c), one program for each; a contest (contest.c) runs
 * several in turn; what is measured, and how it is shown, is in the other files.
 */
#include "bench/bench.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/team.h"

static const char usage[] =
	"usage: bench [options]\n"
	"  --bounds       print a line for each bound, ok or short; exit 1 if one is short\n"
	"  --only TEXT    measure what has TEXT in its title: \"tight 64 B\"\n"
	"  --rounds N     rounds of each (default 9)\n"
	"  --ms N         milliseconds of a round (default 5)\n"
	"  --dir DIR      where the throw-away base is made (default /dev/shm)\n"
	"  --json FILE    write all figures\n"
	"  --svg FILE     draw the chart\n";

bool bench_wants(const struct bench *bench, const char *title)
{
	return !bench->only || strstr(title, bench->only) != NULL;
}

static unsigned number(const char *text, unsigned most)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end != '\0' || n < 1 || n > most) {
		fprintf(stderr, "bench: %s: not a number from 1 to %u\n", text, most);
		exit(2);
	}
	return (unsigned)n;
}

static bool parse(struct bench *bench, bool *bounds, int argc, char **argv)
{
	static const struct option options[] = {
		{ "bounds", no_argument, NULL, 'b' },
		{ "only", required_argument, NULL, 'o' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "ms", required_argument, NULL, 'm' },
		{ "dir", required_argument, NULL, 'd' },
		{ "json", required_argument, NULL, 'j' },
		{ "svg", required_argument, NULL, 's' },
		{ 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'b')
			*bounds = true;
		else if (c == 'o')
			bench->only = optarg;
		else if (c == 'r')
			bench->rounds = number(optarg, ROUNDS_MAX);
		else if (c == 'm')
			bench->ms = number(optarg, 10000);
		else if (c == 'd')
			bench->parent = optarg;
		else if (c == 'j')
			bench->json = optarg;
		else if (c == 's')
			bench->svg = optarg;
		else
			return false;
	}
	return optind == argc;
}

static void say_skipped(void)
{
	for (enum peer peer = 0; peer < PEERS; peer++)
		if (!peer_present(peer))
			printf("skipped: %s: not built; its package was not there when this was "
			       "configured\n",
			       peer_name(peer));
	if (team_cpus() < 2)
		printf("skipped: two workers: there is one CPU\n");
}

int main(int argc, char **argv)
{
	struct bench bench = { .parent = "/dev/shm", .rounds = 9, .ms = 5 };
	bool bounds = false;
	unsigned bad = 0;

	if (!parse(&bench, &bounds, argc, argv)) {
		fputs(usage, stderr);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	say_skipped();
	if (base_init(&bench.base, bench.parent) < 0)
		return 1;
	if (bounds)
		bad = bounds_run(&bench);
	else
		bad = report_run(&bench) < 0;
	base_deinit(&bench.base);
	return bad > 0;
}
