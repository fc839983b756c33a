/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a fuzz target defines. runner.c drives it with mutations of its seeds, from a number that can be
 * given again; with `configure --enable-fuzzing` (clang) libFuzzer drives it instead, or AFL++ by its
 * libFuzzer-compatible driver.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define FUZZ_ROOM 4096u /* bytes of an input, at most */

/* One input. Whatever it is: no crash, no hang, no error of a sanitizer. Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* The i-th seed: its bytes; 0: there are no more. */
size_t fuzz_seed(unsigned i, uint8_t *buf);
/* Inputs of the ordinary test run. */
extern const unsigned fuzz_inputs;

/* Before the first input, in the process that runs them. */
void fuzz_begin(void);
/* After the last one: asserts what can only be seen then. */
void fuzz_end(void);
