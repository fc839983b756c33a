/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The report as JSON: every round of every entrant, so that other figures than medians can be had.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/report.h"

static json_t *series_json(const struct series *series)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < series->n; i++)
		json_array_append_new(array, json_real(series->value[i]));
	return array;
}

static json_t *entrant_json(const struct entrant *e)
{
	json_t *object = json_pack("{s:s, s:b}", "allocator", peer_name(e->peer), "failed",
				   e->failed);

	if (e->failed)
		return object;
	json_object_set_new(object, "median_ns", json_real(series_median(&e->ns)));
	json_object_set_new(object, "disturbed", json_integer(e->disturbed));
	json_object_set_new(object, "ns", series_json(&e->ns));
	if (e->cell.workers > 1)
		json_object_set_new(object, "core_to_core_ns", series_json(&e->round_trip_ns));
	return object;
}

static json_t *contest_json(const struct contest *contest)
{
	const struct cell *cell = &contest->entrant[0].cell;
	json_t *entrants = json_array();

	for (unsigned i = 0; i < contest->n; i++)
		json_array_append_new(entrants, entrant_json(&contest->entrant[i]));
	return json_pack("{s:s, s:I, s:I, s:i, s:b, s:b, s:o}", "workload",
			 workload_name(cell->workload), "smallest", (json_int_t)cell->smallest,
			 "size", (json_int_t)cell->size, "workers", (int)cell->workers, "processes",
			 cell->processes, "filled", cell->filled, "allocators", entrants);
}

static json_t *figures_json(const struct report *report)
{
	json_t *object = json_object();
	const struct figure *f;

	for (f = report->figure; f < report->figure + report->figures; f++)
		if (f->measured)
			json_object_set_new(object, f->name,
					    json_pack("{s:f, s:s, s:s}", "value", f->value, "unit",
						      f->unit, "text", f->text));
	return object;
}

static json_t *report_json(const struct report *report)
{
	json_t *cells = json_array();

	for (unsigned i = 0; i < report->contests; i++)
		json_array_append_new(cells, contest_json(&report->contest[i]));
	return json_pack("{s:i, s:i, s:o, s:o, s:{s:o, s:o}}", "rounds", (int)report->rounds,
			 "milliseconds", (int)report->ms, "cells", cells, "figures",
			 figures_json(report), "wordindex_seconds", "shared",
			 series_json(&report->words_shared), "private",
			 series_json(&report->words_private));
}

int json_write(const struct report *report, const char *path)
{
	json_t *root = report_json(report);
	int r = root ? json_dump_file(root, path, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) : -1;

	if (r < 0)
		fprintf(stderr, "bench: %s: cannot be written: %s\n", path, strerror(errno));
	json_decref(root);
	return r < 0 ? -1 : 0;
}
