/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nvmmctl map: a heap's occupancy as a picture, in the terminal or as SVG.
 *
 * The heap's units are laid out in rows of cells, all shelves one behind the other. A cell of a picture has
 * the kind of most of its units, and a shade by how many of its bytes are in allocated blocks.
 */
#include <errno.h>
#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/text.h"
#include "ctl/mapview.h"
#include "ctl/poolview.h"
#include "libclient/call.h"

#define PAGE 512u /* cells that the daemon tells at once */
#define UNIT (UINT64_C(16) << 10)
#define WIDTH 64u
#define WIDTH_MAX 512u
#define ROWS 24u

/* Asks for one page of cells; the heap's units come with it. */
static int ask(struct ctl *ctl, struct mapview *map, nvmm_pool_id id, uint64_t per_cell,
	       size_t first, size_t n)
{
	_cleanup(nvmm_reply_deinit) struct nvmm_reply reply = NVMM_REPLY_INIT;
	Nvmm__HeapMap op = NVMM__HEAP_MAP__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	const Nvmm__HeapMapped *mapped;
	int r;

	op.id = id;
	op.first = first * per_cell;
	op.per_cell = per_cell;
	op.cells = (uint32_t)n;
	request.op_case = NVMM__REQUEST__OP_HEAP_MAP;
	request.heap_map = &op;
	r = nvmm_call(ctl->nvmm, &request, NVMM__REPLY__RESULT_HEAP_MAPPED, 0, &reply);
	if (r < 0)
		return r;
	mapped = reply.msg->heap_mapped;
	map->units = mapped->units;
	for (size_t i = 0; i < mapped->n_cells && i < n; i++) {
		const Nvmm__HeapCell *c = mapped->cells[i];

		map->cells[first + i] = (struct mapview_cell){
			.bytes = c->units * UNIT, .free = c->free * UNIT, .small = c->small * UNIT,
			.large = c->large * UNIT, .used = c->used, .limbo = c->limbo,
			.suspect = c->suspect,
		};
	}
	return 0;
}

/* Chooses the cells: as many rows as a picture has, fewer if the heap has no units for them. */
static int get(struct ctl *ctl, struct mapview *map, nvmm_pool_id id, size_t width)
{
	struct mapview_cell one;
	uint64_t per_cell;
	int r;

	map->cells = &one;
	r = ask(ctl, map, id, 1, 0, 1);
	map->cells = NULL;
	if (r < 0)
		return r;
	per_cell = DIV_UP(map->units, width * ROWS);
	per_cell = MAX(per_cell, (uint64_t)1);
	map->width = width;
	map->cell_bytes = per_cell * UNIT;
	map->n = (size_t)DIV_UP(map->units, per_cell);
	map->cells = calloc(map->n + 1, sizeof(*map->cells));
	if (!map->cells)
		return -ENOMEM;
	for (size_t i = 0; i < map->n && r == 0; i += PAGE)
		r = ask(ctl, map, id, per_cell, i, MIN((size_t)PAGE, map->n - i));
	return r;
}

static void write_cells(struct writer *w, const struct mapview *map)
{
	writer_list(w, "cells");
	for (size_t i = 0; i < map->n; i++) {
		const struct mapview_cell *c = &map->cells[i];

		writer_item(w);
		writer_bytes(w, "bytes", "bytes", c->bytes);
		writer_bytes(w, "free", "free", c->free);
		writer_bytes(w, "small", "small", c->small);
		writer_bytes(w, "large", "large", c->large);
		writer_bytes(w, "used", "used", c->used);
		writer_bytes(w, "limbo", "limbo", c->limbo);
		writer_bytes(w, "suspect", "suspect", c->suspect);
	}
	writer_list_end(w, "");
}

static enum ctl_exit write_svg(struct ctl *ctl, const struct mapview *map, const char *path)
{
	FILE *f = fopen(path, "we");
	int r = f ? 0 : -errno;

	if (f) {
		errno = 0;
		mapview_svg(f, map);
		if (ferror(f))
			r = errno ? -errno : -EIO;
		if (fclose(f) != 0 && r == 0)
			r = -errno;
	}
	if (r == 0)
		return CTL_DONE;
	fprintf(ctl->err, "nvmmctl: %s: %s\n", path, strerror(-r));
	ctl->failed = true;
	return CTL_FAILED;
}

static enum ctl_exit show(struct ctl *ctl, const struct nvmm_pool_info *info,
			  const struct mapview *map)
{
	const char *svg = ctl_option(ctl, "svg");
	struct writer *w = ctl->writer;

	if (svg)
		return write_svg(ctl, map, svg);
	if (!ctl->json) {
		mapview_text(ctl->out, map, (struct mapview_terminal){
			.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0,
			.colour = mapview_wants_colour(isatty(fileno(ctl->out)) == 1,
						       getenv("NO_COLOR"), getenv("TERM")),
		});
		return CTL_DONE;
	}
	writer_count(w, "id", "id", info->id);
	writer_text(w, "name", "name", info->name);
	writer_bytes(w, "cell_bytes", "of a cell", map->cell_bytes);
	write_cells(w, map);
	return CTL_DONE;
}

static enum ctl_exit run(struct ctl *ctl)
{
	const char *text = ctl_option(ctl, "width");
	struct mapview map = { .units = 0 };
	struct nvmm_pool_info info;
	uint64_t width = WIDTH;
	enum ctl_exit code;
	int r;

	if (text && (text_parse_u64(&width, text, WIDTH_MAX) < 0 || width == 0))
		return ctl_usage(ctl, "width '%s', expected 1 to %u cells", text, WIDTH_MAX);
	code = ctl_connect(ctl);
	if (code == CTL_DONE)
		code = poolview_find_info(ctl, ctl->args[0], &info);
	if (code != CTL_DONE)
		return code;
	r = get(ctl, &map, info.id, (size_t)width);
	map.name = info.name;
	map.id = info.id;
	code = r < 0 ? ctl_fail(ctl, r) : show(ctl, &info, &map);
	free(map.cells);
	return code;
}

static const char help[] =
	"Each cell of the picture is a part of the heap, from its first byte to its last: free,\n"
	"blocks of up to 128 KiB, or large blocks, whichever has most of it; the shade says how\n"
	"much of it is allocated. Cells with freed blocks that a reader may still see, and with\n"
	"blocks that are suspect after a power cut, are marked. While programs allocate, it is a\n"
	"picture of no one moment.\n"
	"\n"
	"Examples:\n"
	"  nvmmctl map words\n"
	"  nvmmctl map words --svg words.svg --width 128\n";

const struct command command_map = {
	.name = "map",
	.args = "POOL [OPTIONS]",
	.summary = "Shows what of a heap is in use, as a picture",
	.help = help,
	.min_args = 1,
	.max_args = 1,
	.options = {
		{ "svg", "FILE", "write the picture to a file, as SVG" },
		{ "width", "CELLS", "in a row; default 64" },
	},
	.run = run,
};
