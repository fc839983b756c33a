/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a command puts out, described once and written as text for people or as JSON for programs.
 *
 * A command writes fields, lists of items with fields, or both. Each field has a key (of the JSON
 * object; NULL: not in JSON) and a label (of the text; NULL: not in the text). In the text, fields
 * stand one a line, a list is a table with a column for each label; the items of one list have the
 * same labels in the same order. Bytes, modes and times are written as people read them, and
 * plainly in JSON.
 *
 * Texts come from users: in the text output what is not printable becomes '?', so that a name
 * cannot steer a terminal. A failure (memory, a full disk) is kept and returned by writer_finish().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "common/macro.h"

enum writer_format {
	WRITER_TEXT,
	WRITER_JSON,
};

struct writer;

/* `out` is borrowed. -ENOMEM. */
int writer_new(struct writer **ret, enum writer_format format, FILE *out);
void writer_free(struct writer *writer);
DEFINE_AUTO(struct writer, writer_free)

/* Fields */

void writer_text(struct writer *writer, const char *key, const char *label, const char *value);
void writer_count(struct writer *writer, const char *key, const char *label, uint64_t value);
void writer_bytes(struct writer *writer, const char *key, const char *label, uint64_t bytes);
/* Per cent; of a whole of 0: no value. */
void writer_share(struct writer *writer, const char *key, const char *label, uint64_t part,
		  uint64_t whole);
void writer_mode(struct writer *writer, const char *key, const char *label, mode_t mode);
/* Seconds since 1970; 0: no value. */
void writer_time(struct writer *writer, const char *key, const char *label, int64_t seconds);
void writer_flag(struct writer *writer, const char *key, const char *label, bool value);
void writer_numbers(struct writer *writer, const char *key, const char *label,
		    const uint32_t *values, size_t n);
/* A field without a value here: "-", null. */
void writer_none(struct writer *writer, const char *key, const char *label);

/* Lists, not nested */

void writer_list(struct writer *writer, const char *key);
void writer_item(struct writer *writer);
/* `empty`: the text that stands for a table without rows. */
void writer_list_end(struct writer *writer, const char *empty);

/* Writes what is left and flushes. 0, -ENOMEM, or why `out` cannot be written. */
int writer_finish(struct writer *writer);
