/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Text and JSON of a command's output.
 *
 * All is put out at the end or not at all, so that what failed half-way leaves no half of it. JSON
 * is a tree that grows with each field. Text is grids of cells, kept until their widths are known:
 * the fields between two lists are a grid of labels and values, a list is a grid with its labels
 * above. A column is set flush right when any of its values is a number.
 *
 * After a first failure every call does nothing; nobody has to check each of them.
 */
#include "ctl/writer.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wchar.h>
#include <wctype.h>

#include "common/text.h"

#define COLUMNS_MAX 16u
#define JSON_FORMAT (JSON_INDENT(2) | JSON_REAL_PRECISION(4))

struct column {
	const char *label; /* the caller's literal */
	size_t width;
	bool right;
};

struct cell {
	char *text;
	size_t width; /* on a terminal */
};

struct grid {
	struct column columns[COLUMNS_MAX];
	size_t n_columns;
	struct cell *cells; /* row by row */
	size_t n_cells, capacity;
	size_t next; /* column of the next cell */
};

struct writer {
	enum writer_format format;
	FILE *out;
	int error; /* the first failure */
	FILE *text; /* of grids that are done, kept in memory until the end */
	char *text_data;
	size_t text_len;
	bool begun; /* there is text: a blank line goes before the next grid */
	bool in_list;
	struct grid fields, table;
	json_t *root;
	json_t *list; /* of root, borrowed */
	json_t *item; /* of list, borrowed; NULL: fields go to root */
};

static void writer_fail(struct writer *writer, int error)
{
	if (writer->error == 0)
		writer->error = error;
}

/* Printable text */

/* The next character of `text`, its length and width; what cannot be shown is a '?' of one byte. */
static wchar_t next_printable(const char *text, size_t *len, size_t *width)
{
	mbstate_t state = { 0 };
	wchar_t wc;
	size_t n = mbrtowc(&wc, text, strlen(text), &state);

	*width = 1;
	if (n == (size_t)-1 || n == (size_t)-2 || n == 0) {
		*len = 1;
		return L'?';
	}
	*len = n;
	if (!iswprint((wint_t)wc) || wcwidth(wc) < 0 || !text_is_shown((uint32_t)wc))
		return L'?';
	*width = (size_t)wcwidth(wc);
	return wc;
}

static int cell_init(struct cell *ret, const char *text)
{
	struct cell cell = { .text = malloc(strlen(text) + 1) };
	size_t at = 0;

	if (!cell.text)
		return -ENOMEM;
	while (*text) {
		size_t len, width;

		if (next_printable(text, &len, &width) == L'?') {
			cell.text[at++] = '?';
		} else {
			memcpy(cell.text + at, text, len);
			at += len;
		}
		text += len;
		cell.width += width;
	}
	cell.text[at] = 0;
	*ret = cell;
	return 0;
}

/* Grids */

static void grid_clear(struct grid *grid)
{
	for (size_t i = 0; i < grid->n_cells; i++)
		free(grid->cells[i].text);
	free(grid->cells);
	*grid = (struct grid){ 0 };
}

static int grid_reserve(struct grid *grid)
{
	size_t capacity = grid->capacity ? 2 * grid->capacity : 64;
	struct cell *cells;

	if (grid->n_cells < grid->capacity)
		return 0;
	cells = reallocarray(grid->cells, capacity, sizeof(*cells));
	if (!cells)
		return -ENOMEM;
	grid->cells = cells;
	grid->capacity = capacity;
	return 0;
}

static int grid_put(struct grid *grid, const char *label, const char *text, bool right)
{
	struct column *column = &grid->columns[grid->next];
	struct cell *cell;
	int r;

	if (grid->next >= COLUMNS_MAX)
		return -E2BIG;
	r = grid_reserve(grid);
	if (r < 0)
		return r;
	cell = &grid->cells[grid->n_cells];
	r = cell_init(cell, text);
	if (r < 0)
		return r;
	grid->n_cells++;
	grid->next++;
	grid->n_columns = MAX(grid->n_columns, grid->next);
	column->label = label;
	column->width = MAX(column->width, cell->width);
	column->right |= right;
	return 0;
}

static void print_spaces(FILE *out, size_t n)
{
	while (n-- > 0)
		fputc(' ', out);
}

/* One cell, padded to its column; the last one of a row is not padded behind. */
static void grid_print_cell(FILE *out, const struct grid *grid, size_t i, const char *text,
			    size_t width)
{
	const struct column *column = &grid->columns[i];
	size_t pad = column->width - width;

	if (i)
		fputs("  ", out);
	if (column->right)
		print_spaces(out, pad);
	fputs(text, out);
	if (!column->right && i + 1 < grid->n_columns)
		print_spaces(out, pad);
}

/* Labels are ASCII literals; above a table they are capitals. */
static void grid_print_header(FILE *out, struct grid *grid)
{
	for (size_t i = 0; i < grid->n_columns; i++) {
		char label[32];
		size_t len = MIN(strlen(grid->columns[i].label), sizeof(label) - 1);

		for (size_t c = 0; c < len; c++)
			label[c] = (char)towupper((wint_t)grid->columns[i].label[c]);
		label[len] = 0;
		grid->columns[i].width = MAX(grid->columns[i].width, len);
		grid_print_cell(out, grid, i, label, len);
	}
	fputc('\n', out);
}

static void grid_print_rows(FILE *out, const struct grid *grid)
{
	for (size_t i = 0; i < grid->n_cells; i++) {
		size_t column = i % grid->n_columns;

		grid_print_cell(out, grid, column, grid->cells[i].text, grid->cells[i].width);
		if (column + 1 == grid->n_columns)
			fputc('\n', out);
	}
}

static void writer_begin_block(struct writer *writer)
{
	if (writer->begun)
		fputc('\n', writer->text);
	writer->begun = true;
}

static void writer_flush_fields(struct writer *writer)
{
	if (writer->fields.n_cells == 0 || writer->error < 0)
		return;
	writer_begin_block(writer);
	grid_print_rows(writer->text, &writer->fields);
	grid_clear(&writer->fields);
}

/* One field's value, into whichever output there is */

/* Takes `value`; NULL is a failure to make it. */
static void put_json(struct writer *writer, const char *key, json_t *value)
{
	json_t *object = writer->item ? writer->item : writer->root;

	if (!value)
		writer_fail(writer, -ENOMEM);
	else if (!key || writer->error < 0)
		json_decref(value);
	else if (json_object_set_new(object, key, value) < 0)
		writer_fail(writer, -ENOMEM);
}

static void put_text(struct writer *writer, const char *label, const char *text, bool right)
{
	int r;

	if (!label || writer->error < 0)
		return;
	if (writer->in_list) {
		r = grid_put(&writer->table, label, text, right);
	} else {
		writer->fields.next = 0;
		r = grid_put(&writer->fields, "", label, false);
		if (r == 0)
			r = grid_put(&writer->fields, "", text, false);
	}
	if (r < 0)
		writer_fail(writer, r);
}

/* JSON must be UTF-8: what is not becomes '?'. */
static json_t *json_text(const char *text)
{
	json_t *value = json_string(text);
	char *copy;

	if (value)
		return value;
	copy = strdup(text);
	if (!copy)
		return NULL;
	for (char *c = copy; *c; c++) {
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	}
	value = json_string(copy);
	free(copy);
	return value;
}

/* A number over what JSON readers take for an integer is written as a text. */
static json_t *json_count(uint64_t value)
{
	char text[24];

	if (value <= INT64_MAX)
		return json_integer((json_int_t)value);
	snprintf(text, sizeof(text), "%" PRIu64, value);
	return json_string(text);
}

/* Fields */

void writer_text(struct writer *writer, const char *key, const char *label, const char *value)
{
	if (writer->format == WRITER_JSON)
		put_json(writer, key, json_text(value));
	else
		put_text(writer, label, *value ? value : "-", false);
}

void writer_count(struct writer *writer, const char *key, const char *label, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	if (writer->format == WRITER_JSON)
		put_json(writer, key, json_count(value));
	else
		put_text(writer, label, text, true);
}

void writer_bytes(struct writer *writer, const char *key, const char *label, uint64_t bytes)
{
	char text[32];

	if (writer->format == WRITER_JSON)
		put_json(writer, key, json_count(bytes));
	else
		put_text(writer, label, text_format_size(text, sizeof(text), bytes), true);
}

void writer_share(struct writer *writer, const char *key, const char *label, uint64_t part,
		  uint64_t whole)
{
	double percent = whole ? 100.0 * (double)part / (double)whole : 0;
	char text[32];

	if (writer->format == WRITER_JSON) {
		put_json(writer, key, whole ? json_real(percent) : json_null());
		return;
	}
	snprintf(text, sizeof(text), "%.1f %%", percent);
	put_text(writer, label, whole ? text : "-", true);
}

void writer_mode(struct writer *writer, const char *key, const char *label, mode_t mode)
{
	static const char bits[] = "rwxrwxrwx";
	char text[16];

	if (writer->format == WRITER_JSON) {
		snprintf(text, sizeof(text), "%04o", (unsigned)mode & 0777);
		put_json(writer, key, json_string(text));
		return;
	}
	for (int i = 0; i < 9; i++)
		text[i] = mode & (0400u >> i) ? bits[i] : '-';
	text[9] = 0;
	put_text(writer, label, text, false);
}

void writer_time(struct writer *writer, const char *key, const char *label, int64_t seconds)
{
	bool json = writer->format == WRITER_JSON;
	time_t when = (time_t)seconds;
	char text[64];
	struct tm tm;

	if (seconds == 0 || !(json ? gmtime_r(&when, &tm) : localtime_r(&when, &tm))) {
		writer_none(writer, key, label);
		return;
	}
	if (json) {
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
		put_json(writer, key, json_string(text));
	} else {
		strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
		put_text(writer, label, text, false);
	}
}

void writer_flag(struct writer *writer, const char *key, const char *label, bool value)
{
	if (writer->format == WRITER_JSON)
		put_json(writer, key, json_boolean(value));
	else
		put_text(writer, label, value ? "yes" : "no", false);
}

static json_t *json_numbers(const uint32_t *values, size_t n)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < n; i++) {
		if (json_array_append_new(array, json_integer(values[i])) < 0) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

void writer_numbers(struct writer *writer, const char *key, const char *label,
		    const uint32_t *values, size_t n)
{
	char *text = NULL;
	size_t len;
	FILE *out;

	if (writer->format == WRITER_JSON) {
		put_json(writer, key, json_numbers(values, n));
		return;
	}
	out = open_memstream(&text, &len);
	if (!out) {
		writer_fail(writer, -ENOMEM);
		return;
	}
	for (size_t i = 0; i < n; i++)
		fprintf(out, "%s%" PRIu32, i ? "," : "", values[i]);
	if (fclose(out) != 0)
		writer_fail(writer, -ENOMEM);
	else
		put_text(writer, label, n ? text : "-", false);
	free(text);
}

void writer_none(struct writer *writer, const char *key, const char *label)
{
	if (writer->format == WRITER_JSON)
		put_json(writer, key, json_null());
	else
		put_text(writer, label, "-", false);
}

/* Lists */

void writer_list(struct writer *writer, const char *key)
{
	json_t *list;

	writer->in_list = true;
	if (writer->format == WRITER_TEXT) {
		writer_flush_fields(writer);
		return;
	}
	list = json_array();
	put_json(writer, key, list);
	writer->list = writer->error < 0 ? NULL : list;
}

void writer_item(struct writer *writer)
{
	json_t *item;

	writer->table.next = 0;
	if (writer->format == WRITER_TEXT || !writer->list)
		return;
	item = json_object();
	if (!item || json_array_append_new(writer->list, item) < 0) {
		writer_fail(writer, -ENOMEM);
		item = NULL;
	}
	writer->item = item;
}

void writer_list_end(struct writer *writer, const char *empty)
{
	writer->in_list = false;
	writer->list = writer->item = NULL;
	if (writer->format == WRITER_JSON || writer->error < 0)
		return;
	writer_begin_block(writer);
	if (writer->table.n_cells == 0) {
		fprintf(writer->text, "%s\n", empty);
		return;
	}
	grid_print_header(writer->text, &writer->table);
	grid_print_rows(writer->text, &writer->table);
	grid_clear(&writer->table);
}

/* Object */

int writer_new(struct writer **ret, enum writer_format format, FILE *out)
{
	_auto(writer_free) struct writer *writer = calloc(1, sizeof(*writer));

	if (!writer)
		return -ENOMEM;
	writer->format = format;
	writer->out = out;
	if (format == WRITER_JSON)
		writer->root = json_object();
	else
		writer->text = open_memstream(&writer->text_data, &writer->text_len);
	if (!writer->root && !writer->text)
		return -ENOMEM;
	*ret = take(writer);
	return 0;
}

void writer_free(struct writer *writer)
{
	if (!writer)
		return;
	grid_clear(&writer->fields);
	grid_clear(&writer->table);
	json_decref(writer->root);
	if (writer->text)
		fclose(writer->text);
	free(writer->text_data);
	free(writer);
}

static int writer_put_out_text(struct writer *writer)
{
	writer_flush_fields(writer);
	if (writer->error < 0)
		return writer->error;
	if (fflush(writer->text) != 0 || ferror(writer->text))
		return -ENOMEM;
	fwrite(writer->text_data, 1, writer->text_len, writer->out);
	return 0;
}

/* Writes JSON; characters that are not seen, or that turn text around, as escapes: JSON comes to
 * terminals, too. They stand in texts alone. */
static void write_json(FILE *out, const char *data)
{
	size_t left = strlen(data);
	uint32_t c;

	while (left > 0) {
		size_t n = text_utf8(&c, data, left);

		if (n < 2 || text_is_shown(c))
			fwrite(data, 1, MAX(n, (size_t)1), out);
		else if (c < 0x10000)
			fprintf(out, "\\u%04x", c);
		else
			fprintf(out, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10),
				0xdc00 + ((c - 0x10000) & 0x3ff));
		n = MAX(n, (size_t)1);
		data += n;
		left -= n;
	}
	fputc('\n', out);
}

static int writer_put_out_json(struct writer *writer)
{
	char *data = json_dumps(writer->root, JSON_FORMAT);

	if (!data)
		return -ENOMEM;
	write_json(writer->out, data);
	free(data);
	return 0;
}

int writer_finish(struct writer *writer)
{
	int r;

	if (writer->error < 0)
		return writer->error;
	if (writer->format == WRITER_TEXT)
		r = writer_put_out_text(writer);
	else
		r = writer_put_out_json(writer);
	if (r < 0)
		return r;
	errno = 0;
	if (fflush(writer->out) != 0 || ferror(writer->out))
		return errno ? -errno : -EIO;
	return 0;
}
