/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What libFuzzer lacks of runner.c: the calls before the first and after the last input.
 */
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	fuzz_begin();
	atexit(fuzz_end);
	return 0;
}
