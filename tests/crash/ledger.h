/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What an enumeration of crashes covered: one line for each operation, on standard output for people, and
 * appended to the file that NVMMD_LEDGER names, from which scripts/crash-ledger makes doc/crash-ledger.md.
 *
 * ledger_begin() writes that an operation is being tried; one that fails never comes to ledger_end(),
 * so the ledger shows it as failed, whatever became of the process.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct ledger {
	const char *suite;      /* "heap", "daemon", .. */
	const char *operation;
	const char *durability; /* "process", "power" */
	uint64_t points; /* at which the operation can be cut short */
	uint64_t images; /* states of media that were recovered from: at least one a point, if all were visited */
	uint64_t inner;  /* deaths inside a recovery */
	bool sampled;    /* also where every point is visited: it has none to enumerate */
};

/* NVMMD_TEST_LONG=1: every point is visited, not a sample. */
bool ledger_whole(void);

void ledger_begin(const struct ledger *l);
void ledger_end(const struct ledger *l);
