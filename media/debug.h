/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checks of a build with --enable-debug-checks: a structure is asked on slow paths which of its rules is broken,
 * and the process ends there with the rule's name, before it spoils more. Other builds have none of it.
 *
 * A client asks about what it owns. The daemon asks about what it alone writes: what is wrong in state records
 * may be a client's doing, of which no daemon dies.
 */
#pragma once

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef NVMM_DEBUG_CHECKS
#define DEBUG_CHECKS 1
#else
#define DEBUG_CHECKS 0
#endif

/* Ends the process if a rule is broken: `why` is its text, NULL: none is; `ref` says where. */
static inline void debug_rule(const char *why, uint64_t ref)
{
	if (!why)
		return;
	fprintf(stderr, "debug check: unit 0x%" PRIx64 ": %s\n", ref, why);
	abort();
}
