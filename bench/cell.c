/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The word is name:smallest:size:workers:processes:filled:ms; both ends are of one build, so it has
 * no version.
 */
#include "bench/cell.h"

#include <stdio.h>
#include <string.h>

static const char *const names[WORKLOADS] = {
	[WORKLOAD_TIGHT] = "tight",
	[WORKLOAD_RANDOM] = "random",
	[WORKLOAD_THREADTEST] = "threadtest",
	[WORKLOAD_LARSON] = "larson",
	[WORKLOAD_RING] = "ring",
	[WORKLOAD_ALLOC] = "alloc",
	[WORKLOAD_FREE] = "free",
	[WORKLOAD_SCATTER] = "scatter",
};

const char *workload_name(enum workload workload)
{
	return names[workload];
}

static const char *plural(const struct cell *cell)
{
	if (cell->workers == 1)
		return "";
	return cell->processes ? ", 2 processes" : ", 2 threads";
}

void cell_title(const struct cell *cell, char *text, size_t room)
{
	char sizes[48];

	if (cell->smallest < cell->size)
		snprintf(sizes, sizeof(sizes), "%zu..%zu B", cell->smallest, cell->size);
	else
		snprintf(sizes, sizeof(sizes), "%zu B", cell->size);
	snprintf(text, room, "%s %s%s%s", names[cell->workload], sizes, plural(cell),
		 cell->filled ? ", filled" : "");
}

void cell_format(const struct cell *cell, char *word, size_t room)
{
	snprintf(word, room, "%s:%zu:%zu:%u:%u:%u:%u", names[cell->workload], cell->smallest,
		 cell->size, cell->workers, cell->processes, cell->filled, cell->ms);
}

int cell_parse(struct cell *ret, const char *word)
{
	unsigned processes, filled;
	char name[16];

	if (sscanf(word, "%15[a-z]:%zu:%zu:%u:%u:%u:%u", name, &ret->smallest, &ret->size,
		   &ret->workers, &processes, &filled, &ret->ms) != 7)
		return -1;
	ret->processes = processes;
	ret->filled = filled;
	if (ret->workers < 1 || ret->workers > CELL_WORKERS_MAX || ret->smallest < 1 ||
	    ret->size < ret->smallest)
		return -1;
	for (int i = 0; i < WORKLOADS; i++) {
		ret->workload = (enum workload)i;
		if (strcmp(names[i], name) == 0)
			return 0;
	}
	return -1;
}
