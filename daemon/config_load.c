/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Configuration of a node: reading YAML.
 *
 * The reader takes libyaml's events one by one, so that each refusal has the line and column of
 * what is wrong, and no tree is built of whatever a file says: the grammar is a mapping of scalars
 * and of mappings of scalars, each key once. All that YAML has beyond it (anchors, aliases, tags,
 * several documents, lists) is refused by name instead of being half understood.
 *
 * A file is read into a configuration of its own that replaces the caller's when all of it is
 * right: a wrong file changes nothing.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "common/macro.h"
#include "common/text.h"
#include "daemon/config_key.h"

#define CONFIG_FILE_MAX (1u << 18) /* bytes: far over what the grammar can need */

struct reader {
	yaml_parser_t parser;
	yaml_event_t event; /* the last one; owned */
	const char *path;
	char *data;
	size_t len;
	char **error;
	struct config config; /* being filled */
	size_t section_line[N_SECTIONS]; /* where each was given, from 1; 0: not yet */
	size_t key_line[N_KEYS];
};

static void reader_deinit(struct reader *reader)
{
	yaml_event_delete(&reader->event);
	yaml_parser_delete(&reader->parser);
	config_deinit(&reader->config);
	free(reader->data);
}

/* A stream that collects one message; what it collects replaces *reader->error. */
static FILE *refusal_open(char **text, size_t *len, const struct reader *reader, yaml_mark_t mark)
{
	FILE *out = open_memstream(text, len);

	if (out)
		fprintf(out, "%s:%zu:%zu: ", reader->path, mark.line + 1, mark.column + 1);
	return out;
}

static int refusal_close(FILE *out, char **text, const struct reader *reader)
{
	if (fclose(out) != 0) {
		free(*text);
		return -ENOMEM;
	}
	free(*reader->error);
	*reader->error = *text;
	return -EINVAL;
}

/* Sets the error and returns -EINVAL (-ENOMEM where there is no room for it). */
_printf(3, 4)
static int reader_refuse(const struct reader *reader, yaml_mark_t mark, const char *fmt, ...)
{
	char *text = NULL;
	size_t len;
	va_list args;
	FILE *out;

	out = refusal_open(&text, &len, reader, mark);
	if (!out)
		return -ENOMEM;
	va_start(args, fmt);
	vfprintf(out, fmt, args);
	va_end(args);
	return refusal_close(out, &text, reader);
}

/* Writes what a file says so that it can stand in a message: one line, short, no control bytes. */
static void print_quoted(FILE *out, const char *text)
{
	enum { SHOWN_MAX = 120 };
	size_t left = strlen(text), shown = 0, n;
	uint32_t c;

	fputc('\'', out);
	while (left > 0 && shown < SHOWN_MAX) {
		n = text_utf8(&c, text, left);
		if (n == 0 || !text_is_shown(c))
			fputc('?', out);
		else
			fwrite(text, 1, n, out);
		n = MAX(n, (size_t)1);
		text += n;
		left -= n;
		shown += n;
	}
	fputs(left > 0 ? "...'" : "'", out);
}

static const char *event_text(const yaml_event_t *event)
{
	return (const char *)event->data.scalar.value;
}

static bool event_is_plain(const yaml_event_t *event)
{
	return event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static const char *event_kind(const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_SEQUENCE_START_EVENT:
		return "a list";
	case YAML_MAPPING_START_EVENT:
		return "a mapping";
	default:
		return "a single value";
	}
}

/* A plain scalar that YAML takes for null: nothing, ~, null. */
static bool event_is_null(const yaml_event_t *event)
{
	const char *text = event_text(event);

	return event->type == YAML_SCALAR_EVENT && event_is_plain(event) &&
	       (!*text || !strcmp(text, "~") || !strcasecmp(text, "null"));
}

static void print_key(FILE *out, const struct key *key)
{
	if (key->section != SECTION_NONE)
		fprintf(out, "%s.", config_sections[key->section].name);
	fputs(key->name, out);
}

static int refuse_value(const struct reader *reader, const struct key *key)
{
	const yaml_event_t *event = &reader->event;
	char *text = NULL;
	size_t len;
	FILE *out;

	out = refusal_open(&text, &len, reader, event->start_mark);
	if (!out)
		return -ENOMEM;
	if (event->type != YAML_SCALAR_EVENT)
		fputs(event_kind(event), out);
	else if (event_is_null(event))
		fputs("no value", out);
	else
		print_quoted(out, event_text(event));
	fputs(" cannot be ", out);
	print_key(out, key);
	fputs(", expected ", out);
	key_print_expected(out, key);
	if (event->type == YAML_SCALAR_EVENT && !event_is_plain(event) && key->type == KEY_COUNT)
		fputs(" without quotes", out);
	return refusal_close(out, &text, reader);
}

static void print_known_keys(FILE *out, enum section_id section)
{
	const char *comma = "";

	for (size_t i = 0; section == SECTION_NONE && i < N_SECTIONS; i++, comma = ", ")
		fprintf(out, "%s%s", comma, config_sections[i].name);
	for (size_t i = 0; i < N_KEYS; i++) {
		if (config_keys[i].section != section)
			continue;
		fprintf(out, "%s%s", comma, config_keys[i].name);
		comma = ", ";
	}
}

static int refuse_key(const struct reader *reader, enum section_id section)
{
	char *text = NULL;
	size_t len;
	FILE *out;

	out = refusal_open(&text, &len, reader, reader->event.start_mark);
	if (!out)
		return -ENOMEM;
	fputs("unknown key ", out);
	print_quoted(out, event_text(&reader->event));
	if (section == SECTION_NONE)
		fputs(" at the top level", out);
	else
		fprintf(out, " in `%s`", config_sections[section].name);
	fputs(", expected one of ", out);
	print_known_keys(out, section);
	return refusal_close(out, &text, reader);
}

/* libyaml counts the bytes up to what it cannot decode, but not its lines. */
static yaml_mark_t reader_mark_of(const struct reader *reader, size_t offset)
{
	yaml_mark_t mark = { 0 };

	for (size_t i = 0; i < offset && i < reader->len; i++) {
		mark.column++;
		if (reader->data[i] == '\n') {
			mark.line++;
			mark.column = 0;
		}
	}
	return mark;
}

static int refuse_syntax(const struct reader *reader)
{
	const yaml_parser_t *parser = &reader->parser;
	const char *problem = parser->problem ? parser->problem : "cannot be read";

	if (parser->error == YAML_MEMORY_ERROR)
		return -ENOMEM;
	if (parser->error == YAML_READER_ERROR)
		return reader_refuse(reader, reader_mark_of(reader, parser->problem_offset),
				     "not a text file: %s, expected YAML in UTF-8", problem);
	return reader_refuse(reader, parser->problem_mark,
			     "not YAML: %s%s%s, expected `key: value` lines", problem,
			     parser->context ? " " : "", parser->context ? parser->context : "");
}

/* What no key and no value may have. */
static int reader_check_event(const struct reader *reader)
{
	const yaml_event_t *event = &reader->event;
	const yaml_char_t *anchor = NULL, *tag = NULL;

	switch (event->type) {
	case YAML_ALIAS_EVENT:
		return reader_refuse(reader, event->start_mark,
				     "an alias (*) is not understood, expected the value itself");
	case YAML_SCALAR_EVENT:
		anchor = event->data.scalar.anchor;
		tag = event->data.scalar.tag;
		if (memchr(event_text(event), 0, event->data.scalar.length))
			return reader_refuse(reader, event->start_mark,
					     "a zero byte in a text, expected printable text");
		break;
	case YAML_MAPPING_START_EVENT:
		anchor = event->data.mapping_start.anchor;
		tag = event->data.mapping_start.tag;
		break;
	case YAML_SEQUENCE_START_EVENT:
		anchor = event->data.sequence_start.anchor;
		tag = event->data.sequence_start.tag;
		break;
	default:
		break;
	}
	if (anchor)
		return reader_refuse(reader, event->start_mark,
				     "an anchor (&) is not understood, expected the value alone");
	if (tag)
		return reader_refuse(reader, event->start_mark,
				     "a tag (!) is not understood, expected the value alone");
	return 0;
}

static int reader_next(struct reader *reader)
{
	yaml_event_delete(&reader->event);
	if (!yaml_parser_parse(&reader->parser, &reader->event))
		return refuse_syntax(reader);
	return reader_check_event(reader);
}

/* Notes that something is given here, and refuses it the second time. */
static int reader_note(const struct reader *reader, size_t *line)
{
	if (*line)
		return reader_refuse(reader, reader->event.start_mark,
				     "'%s' is given twice, expected it once (line %zu has it)",
				     event_text(&reader->event), *line);
	*line = reader->event.start_mark.line + 1;
	return 0;
}

static int read_value(struct reader *reader, const struct key *key)
{
	const yaml_event_t *event = &reader->event;
	int r;

	r = reader_next(reader);
	if (r < 0)
		return r;
	if (event->type != YAML_SCALAR_EVENT || event_is_null(event) ||
	    (key->type == KEY_COUNT && !event_is_plain(event)))
		return refuse_value(reader, key);
	r = key_set(&reader->config, key, event_text(event));
	return r == -EINVAL ? refuse_value(reader, key) : r;
}

static int read_section(struct reader *reader, enum section_id section);

/* One key of a mapping, with its value. */
static int read_entry(struct reader *reader, enum section_id section)
{
	const char *name = event_text(&reader->event);
	int r;

	for (size_t i = 0; section == SECTION_NONE && i < N_SECTIONS; i++) {
		if (strcmp(config_sections[i].name, name))
			continue;
		r = reader_note(reader, &reader->section_line[i]);
		return r < 0 ? r : read_section(reader, (enum section_id)i);
	}
	for (size_t i = 0; i < N_KEYS; i++) {
		if (config_keys[i].section != section || strcmp(config_keys[i].name, name))
			continue;
		r = reader_note(reader, &reader->key_line[i]);
		return r < 0 ? r : read_value(reader, &config_keys[i]);
	}
	return refuse_key(reader, section);
}

/* The entries of a mapping that has begun, and its end. */
static int read_entries(struct reader *reader, enum section_id section)
{
	int r;

	for (;;) {
		r = reader_next(reader);
		if (r < 0)
			return r;
		if (reader->event.type == YAML_MAPPING_END_EVENT)
			return 0;
		if (reader->event.type != YAML_SCALAR_EVENT)
			return reader_refuse(reader, reader->event.start_mark,
					     "%s instead of a key, expected `key: value`",
					     event_kind(&reader->event));
		r = read_entry(reader, section);
		if (r < 0)
			return r;
	}
}

static int read_section(struct reader *reader, enum section_id section)
{
	int r;

	r = reader_next(reader);
	if (r < 0)
		return r;
	if (reader->event.type == YAML_MAPPING_START_EVENT)
		return read_entries(reader, section);
	if (event_is_null(&reader->event)) /* all its keys are commented out */
		return 0;
	return reader_refuse(reader, reader->event.start_mark,
			     "%s cannot be `%s`, expected its keys, indented, in the lines below",
			     event_kind(&reader->event),
			     config_sections[section].name);
}

static int read_document(struct reader *reader)
{
	int r;

	r = reader_next(reader);
	if (r < 0)
		return r;
	if (reader->event.type == YAML_MAPPING_START_EVENT)
		r = read_entries(reader, SECTION_NONE);
	else if (!event_is_null(&reader->event))
		r = reader_refuse(reader, reader->event.start_mark,
				  "%s is not a configuration, expected `key: value` lines",
				  event_kind(&reader->event));
	if (r < 0)
		return r;
	return reader_next(reader); /* the document's end */
}

static int read_stream(struct reader *reader)
{
	int r;

	r = reader_next(reader); /* the stream's start */
	if (r == 0)
		r = reader_next(reader);
	if (r < 0 || reader->event.type == YAML_STREAM_END_EVENT)
		return r;
	r = read_document(reader);
	if (r == 0)
		r = reader_next(reader);
	if (r == 0 && reader->event.type != YAML_STREAM_END_EVENT)
		r = reader_refuse(reader, reader->event.start_mark,
				  "a second document begins, expected one alone");
	return r;
}

static int refuse_file(char **error, const char *path, int r)
{
	char *text;

	if (asprintf(&text, "%s: cannot be read: %s", path,
		     r == -EFBIG ? "it is too long to be a configuration" : strerror(-r)) < 0)
		return -ENOMEM;
	free(*error);
	*error = text;
	return r;
}

static void close_file(FILE **file)
{
	if (*file)
		fclose(*file);
}

static void free_data(char **data)
{
	free(*data);
}

static int read_file(char **ret, size_t *ret_len, const char *path)
{
	_cleanup(close_file) FILE *file = fopen(path, "re");
	_cleanup(free_data) char *data = NULL;
	size_t len;

	if (!file)
		return -errno;
	data = malloc(CONFIG_FILE_MAX + 1);
	if (!data)
		return -ENOMEM;
	errno = 0;
	len = fread(data, 1, CONFIG_FILE_MAX + 1, file);
	if (ferror(file))
		return errno ? -errno : -EIO;
	if (len > CONFIG_FILE_MAX)
		return -EFBIG;
	*ret = take(data);
	*ret_len = len;
	return 0;
}

static int reader_run(struct reader *reader)
{
	int r;

	r = config_set_presets(&reader->config);
	if (r < 0)
		return r;
	yaml_parser_set_input_string(&reader->parser, (unsigned char *)reader->data, reader->len);
	r = read_stream(reader);
	if (r < 0)
		return r;
	return config_name_node(&reader->config);
}

int config_load(struct config *config, const char *path, char **error)
{
	struct reader reader = { .path = path, .error = error };
	int r;

	r = read_file(&reader.data, &reader.len, path);
	if (r < 0)
		return refuse_file(error, path, r);
	if (!yaml_parser_initialize(&reader.parser)) {
		free(reader.data);
		return -ENOMEM;
	}
	r = reader_run(&reader);
	if (r == 0) {
		config_deinit(config);
		*config = reader.config;
		reader.config = (struct config){ 0 };
	}
	reader_deinit(&reader);
	return r;
}
