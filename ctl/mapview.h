/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A heap's occupancy as a picture.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A part of the heap; bytes. */
struct mapview_cell {
	uint64_t bytes;
	uint64_t free;  /* in free runs */
	uint64_t small; /* in spans of small blocks */
	uint64_t large; /* in large blocks */
	uint64_t used;  /* in allocated blocks, of either */
	uint64_t limbo;
	uint64_t suspect;
};

struct mapview {
	const char *name;
	unsigned id;
	uint64_t units;
	uint64_t cell_bytes;
	size_t width; /* cells in a row */
	size_t n;
	struct mapview_cell *cells;
};

/* What it can show. */
struct mapview_terminal {
	bool utf8;
	bool colour;
};

/* Whether escape sequences may go to an output, by what $NO_COLOR and $TERM are there; NULL: not set. */
bool mapview_wants_colour(bool is_terminal, const char *no_color, const char *term);

/* Rows of characters and a legend. */
void mapview_text(FILE *out, const struct mapview *map, struct mapview_terminal terminal);
/* A file of its own. */
void mapview_svg(FILE *out, const struct mapview *map);
