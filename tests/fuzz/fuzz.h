/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a fuzz target defines, and what drives it:
 *
 *   runner.c     replays the corpus, then runs random inputs and mutations of the corpus for some seconds.
 *                It needs no coverage, so it works in every build.
 *   libfuzzer.c  with `configure --enable-fuzzing` (clang): libFuzzer drives the target.
 *
 * Both feed the same inputs, so an input that one of them finds is replayed by the other.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define FUZZ_ROOM 4096u /* bytes of an input, at most */

/* Runs one input. No input may crash or hang it, or make a sanitizer report an error. Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* The folder of the corpus that belongs to the target. */
extern const char fuzz_name[];

/* Called once, before the first input, in the process that runs the inputs. */
void fuzz_begin(void);
/* Called once, after the last input: asserts what can only be seen then. */
void fuzz_end(void);

/* Ends the process with a text and a stack, as a finding. */
#define fuzz_die(...) fuzz_die_at(__FILE__, __LINE__, __VA_ARGS__)
#define fuzz_must(cond, ...)                   \
	do {                                   \
		if (!(cond))                   \
			fuzz_die(__VA_ARGS__); \
	} while (0)
_Noreturn void fuzz_die_at(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
