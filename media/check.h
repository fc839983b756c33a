/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Audit of a heap's metadata: every span word, owner word and bit. Read-only.
 *
 * What is found goes into a report: where (file, byte), which rule it breaks, and what follows from
 * it. Counts are exact while nobody uses the heap.
 */
#pragma once

#include "media/heap.h"

#define CHECK_FINDINGS 64u
#define CHECK_WAIT_MS 100u

struct check_finding {
	char file[24];    /* within the pool's directory; "registry": of the base */
	uint64_t offset;  /* bytes, in the file */
	uint64_t ref;     /* of a heap: the unit; 0: none */
	const char *what; /* static: which rule is broken */
	const char *so;   /* static: what follows from it */
};

struct check_report {
	uint64_t units;     /* looked at */
	uint64_t *progress; /* NULL, or where they are shown meanwhile; atomic, borrowed */
	const int *stop; /* NULL, or atomic, borrowed: not 0, the audit ends early */
	uint64_t spans;
	uint64_t blocks; /* allocated, those in limbo too */
	uint64_t used;   /* bytes of them */
	uint64_t limbo;  /* bytes */
	uint64_t free;   /* bytes of free runs */
	uint64_t suspects; /* blocks that may have been free when power was cut */
	uint64_t violations;
	uint32_t n_findings; /* the first CHECK_FINDINGS of them */
	struct check_finding finding[CHECK_FINDINGS];
};

/* Adds a finding; `what` and `so` are static. */
void check_note(struct check_report *report, const char *file, uint64_t offset, uint64_t ref,
		const char *what, const char *so);

/* Whether the audit is to end early: what it has found is not all. */
bool check_stopped(const struct check_report *report);

/* Says how many units were looked at. */
void check_progress(struct check_report *report, uint64_t units);

/*
 * Audits the heap into `report`, which goes on from what it has. `live`: others use the heap
 * meanwhile; what looks broken is looked at again for a while, since steps that take several
 * stores look so half-way. That takes CHECK_WAIT_MS in all: then what is seen counts. So the time goes by what the
 * daemon granted, whatever clients write. Returns the violations found. May fault where a client shortened a file:
 * the daemon calls it under guard_run().
 */
uint64_t heap_audit(struct heap *heap, bool live, struct check_report *report);

/*
 * Returns the number of rules broken; the first is named in *why (static), its place in *where (a
 * ref).
 */
int heap_check(struct heap *heap, const char **why, uint64_t *where);
