/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The number of a cell is read as digits: filled, workers, size, workload, the first changing
 * fastest. A ring takes two workers; larson has mixed sizes besides; halves of pairs are for one worker, and
 * small blocks that nobody writes to.
 */
#include "bench/plan.h"

#include "common/macro.h"

static const struct {
	size_t smallest, largest;
} sizes[] = {
	{ 64, 64 }, { 256, 256 }, { 1024, 1024 }, { 4096, 4096 }, { 65536, 65536 }, { 8, 512 },
};

static const struct {
	unsigned workers;
	bool processes;
} teams[] = { { 1, false }, { 2, false }, { 2, true } };

static unsigned digit(unsigned *n, unsigned base)
{
	unsigned d = *n % base;

	*n /= base;
	return d;
}

static bool makes_sense(const struct cell *cell)
{
	if (cell->smallest < cell->size && cell->workload != WORKLOAD_LARSON)
		return false;
	if (cell->workload > WORKLOAD_RING)
		return cell->workers == 1 && !cell->filled && cell->size <= 256;
	return cell->workload != WORKLOAD_RING || cell->workers == 2;
}

static bool decode(struct cell *ret, unsigned n)
{
	unsigned filled = digit(&n, 2);
	unsigned team = digit(&n, ARRAY_SIZE(teams));
	unsigned size = digit(&n, ARRAY_SIZE(sizes));

	if (n >= WORKLOADS)
		return false;
	*ret = (struct cell){
		.workload = (enum workload)n,
		.smallest = sizes[size].smallest,
		.size = sizes[size].largest,
		.workers = teams[team].workers,
		.processes = teams[team].processes,
		.filled = filled,
	};
	return true;
}

bool plan_cell(struct cell *ret, unsigned n)
{
	struct cell cell;

	for (unsigned i = 0; decode(&cell, i); i++) {
		if (!makes_sense(&cell) || n-- > 0)
			continue;
		*ret = cell;
		return true;
	}
	return false;
}
