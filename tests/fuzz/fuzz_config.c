/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The configuration, of any bytes. fuzz_yaml.c has configurations of a grammar.
 */
#include <stdio.h>

#include "tests/fuzz/config_input.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "config";

static unsigned long long taken, refused;

void fuzz_begin(void)
{
}

void fuzz_end(void)
{
	printf("%llu taken, %llu refused\n", taken, refused);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (config_input(data, len))
		taken++;
	else
		refused++;
	return 0;
}
