/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pictures of a heap. One table of kinds has what both of them show: characters, colours, legend.
 */
#include "ctl/mapview.h"

#include <inttypes.h>
#include <string.h>

#include "common/macro.h"

enum look { LOOK_FREE, LOOK_SMALL, LOOK_LARGE, LOOK_LIMBO, LOOK_SUSPECT, LOOK_COUNT };
#define SHADES 4u

/* Shades from nearly empty to full. */
static const struct {
	const char *label;
	const char *text[SHADES];
	const char *ascii; /* where a terminal has no more; a character each shade */
	int colour; /* of a terminal's 256 */
	const char *svg[SHADES];
} looks[LOOK_COUNT] = {
	[LOOK_FREE] = { "free", { "·", "·", "·", "·" }, "....", 240,
			{ "#e9edf1", "#e9edf1", "#e9edf1", "#e9edf1" } },
	[LOOK_SMALL] = { "blocks up to 128 KiB", { "░", "▒", "▓", "█" }, "-+x#", 35,
			 { "#cdeedd", "#8fd6b4", "#45b387", "#0b7a53" } },
	[LOOK_LARGE] = { "large blocks", { "▁", "▃", "▅", "▇" }, "0OL@", 33,
			 { "#d3e4fb", "#9cc2f3", "#5494e4", "#1b5fb8" } },
	[LOOK_LIMBO] = { "some in limbo", { "~", "~", "~", "~" }, "~~~~", 214,
			 { "#f6c453", "#f6c453", "#f0b429", "#e09b00" } },
	[LOOK_SUSPECT] = { "some suspect", { "!", "!", "!", "!" }, "!!!!", 196,
			   { "#f08b8b", "#e96a6a", "#dd4545", "#c02626" } },
};

static enum look look_of(const struct mapview_cell *c)
{
	if (c->suspect > 0)
		return LOOK_SUSPECT;
	if (c->limbo > 0)
		return LOOK_LIMBO;
	if (c->used == 0)
		return LOOK_FREE;
	return c->large > c->small ? LOOK_LARGE : LOOK_SMALL;
}

static unsigned shade_of(const struct mapview_cell *c)
{
	uint64_t shade = c->bytes ? (uint64_t)((double)c->used / (double)c->bytes * SHADES) : 0;

	return (unsigned)MIN(shade, (uint64_t)SHADES - 1);
}

/* What a size is, in two or three words. */
static const char *size_text(char buf[32], uint64_t bytes)
{
	static const char *const names[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double value = (double)bytes;
	unsigned i = 0;

	for (; value >= 1024 && i + 1 < ARRAY_SIZE(names); i++)
		value /= 1024;
	snprintf(buf, 32, i > 0 && value < 100 ? "%.1f %s" : "%.0f %s", value, names[i]);
	return buf;
}

struct sums {
	uint64_t bytes, free, used, limbo, suspect;
};

static struct sums sums_of(const struct mapview *map)
{
	struct sums s = { .bytes = 0 };

	for (size_t i = 0; i < map->n; i++) {
		s.bytes += map->cells[i].bytes;
		s.free += map->cells[i].free;
		s.used += map->cells[i].used;
		s.limbo += map->cells[i].limbo;
		s.suspect += map->cells[i].suspect;
	}
	return s;
}

/* "name: 1.2 GiB of 4.0 GiB allocated; a cell is 1.0 MiB" */
static void caption(FILE *out, const struct mapview *map)
{
	struct sums s = sums_of(map);
	char a[32], b[32], c[32];

	fprintf(out, "%s of %s allocated; a cell is %s", size_text(a, s.used), size_text(b, s.bytes),
		size_text(c, map->cell_bytes));
}

/* Text */

static void text_cell(FILE *out, enum look look, unsigned shade, struct mapview_terminal t)
{
	const char ascii[] = { looks[look].ascii[shade], 0 };
	const char *text = t.utf8 ? looks[look].text[shade] : ascii;

	if (t.colour)
		fprintf(out, "\033[38;5;%dm%s\033[0m", looks[look].colour, text);
	else
		fputs(text, out);
}

static void text_legend(FILE *out, struct mapview_terminal t)
{
	for (unsigned look = 0; look < LOOK_COUNT; look++) {
		bool shaded = looks[look].text[0] != looks[look].text[1];

		for (unsigned i = 0; i < (shaded ? SHADES : 1); i++)
			text_cell(out, look, i, t);
		fprintf(out, " %s%s", looks[look].label, look + 1 < LOOK_COUNT ? "   " : "\n");
	}
}

bool mapview_wants_colour(bool is_terminal, const char *no_color, const char *term)
{
	if (!is_terminal || (no_color && *no_color))
		return false;
	return term && *term && strcmp(term, "dumb");
}

void mapview_text(FILE *out, const struct mapview *map, struct mapview_terminal t)
{
	char at[32];

	for (size_t i = 0; i < map->n; i++) {
		if (i % map->width == 0)
			fprintf(out, "%10s ", size_text(at, i * map->cell_bytes));
		text_cell(out, look_of(&map->cells[i]), shade_of(&map->cells[i]), t);
		if (i % map->width == map->width - 1 || i + 1 == map->n)
			fputc('\n', out);
	}
	fputc('\n', out);
	text_legend(out, t);
	caption(out, map);
	fputc('\n', out);
}

/* SVG */

#define CELL 12u
#define GAP 2u
#define LEFT 84u
#define TOP 64u

static void svg_text(FILE *out, const char *text)
{
	for (; *text; text++)
		switch (*text) {
		case '&':
			fputs("&amp;", out);
			break;
		case '<':
			fputs("&lt;", out);
			break;
		case '>':
			fputs("&gt;", out);
			break;
		default:
			fputc(*text, out);
		}
}

static void svg_head(FILE *out, const struct mapview *map, unsigned width, unsigned height)
{
	fprintf(out,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %u %u\" width=\"%u\" "
		"height=\"%u\" font-family=\"Helvetica, Arial, sans-serif\">\n"
		"<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n"
		"<text x=\"%u\" y=\"28\" font-size=\"18\" font-weight=\"bold\" fill=\"#1c2733\">",
		width, height, width, height, LEFT);
	if (map->name && *map->name)
		svg_text(out, map->name);
	else
		fprintf(out, "heap %u", map->id);
	fprintf(out, "</text>\n<text x=\"%u\" y=\"48\" font-size=\"12\" fill=\"#5b6b7b\">", LEFT);
	caption(out, map);
	fputs("</text>\n", out);
}

static void svg_cell(FILE *out, const struct mapview *map, size_t i)
{
	const struct mapview_cell *c = &map->cells[i];
	size_t x = LEFT + i % map->width * (CELL + GAP), y = TOP + i / map->width * (CELL + GAP);
	char a[32], b[32], d[32];

	fprintf(out,
		"<rect x=\"%zu\" y=\"%zu\" width=\"%u\" height=\"%u\" rx=\"2\" fill=\"%s\">"
		"<title>at %s: %s of %s allocated</title></rect>\n",
		x, y, CELL, CELL, looks[look_of(c)].svg[shade_of(c)],
		size_text(d, i * map->cell_bytes), size_text(a, c->used), size_text(b, c->bytes));
}

static void svg_rows(FILE *out, const struct mapview *map)
{
	char at[32];

	for (size_t i = 0; i < map->n; i += map->width)
		fprintf(out,
			"<text x=\"%u\" y=\"%zu\" font-size=\"10\" text-anchor=\"end\" "
			"fill=\"#5b6b7b\">%s</text>\n",
			LEFT - 8, TOP + i / map->width * (CELL + GAP) + CELL - 2,
			size_text(at, i * map->cell_bytes));
}

static void svg_legend(FILE *out, unsigned y)
{
	static const unsigned places[LOOK_COUNT] = { 0, 70, 270, 420, 550 };

	for (unsigned look = 0; look < LOOK_COUNT; look++) {
		unsigned x = LEFT + places[look], shades = look == LOOK_SMALL || look == LOOK_LARGE ? SHADES : 1;

		for (unsigned i = 0; i < shades; i++)
			fprintf(out,
				"<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" rx=\"2\" "
				"fill=\"%s\"/>\n",
				x + i * (CELL + GAP), y, CELL, CELL, looks[look].svg[i]);
		fprintf(out, "<text x=\"%u\" y=\"%u\" font-size=\"11\" fill=\"#1c2733\">%s</text>\n",
			x + shades * (CELL + GAP) + 4, y + CELL - 2, looks[look].label);
	}
}

void mapview_svg(FILE *out, const struct mapview *map)
{
	unsigned rows = (unsigned)DIV_UP(map->n, map->width);
	unsigned width = LEFT + (unsigned)MAX(map->width * (CELL + GAP), (size_t)660) + 24;
	unsigned height = TOP + rows * (CELL + GAP) + 56;

	svg_head(out, map, width, height);
	svg_rows(out, map);
	for (size_t i = 0; i < map->n; i++)
		svg_cell(out, map, i);
	svg_legend(out, TOP + rows * (CELL + GAP) + 20);
	fputs("</svg>\n", out);
}
