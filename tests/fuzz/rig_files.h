/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Trees of files of the rig: copies, comparisons, and damage. Names are relative to `dir`.
 */
#pragma once

#include <stdbool.h>

#include "tests/fuzz/choice.h"

/* Replaces the file or tree `to` by a copy of `from`: what is reserved is reserved there too. */
void rig_files_copy(const char *dir, const char *from, const char *to);
void rig_files_remove(const char *dir);
/* Asserts that two files have the same bytes. */
void rig_files_compare(const char *dir, const char *a, const char *b);

/* Changes a file as one decision of the input says: words, a run of words, its length, a hole. Bytes
 * [keep, keep_end) stay as they are, and with them the length. */
void rig_files_damage(int fd, struct choice *c, uint64_t keep, uint64_t keep_end);
