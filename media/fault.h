/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Planted faults: the test of the crash tests. In a build of its own, libmedia-faults, one of these can be
 * chosen at run time; the crash tests must then fail (tests/crash/check_faults.sh). In every other build
 * FAULT() is the constant false.
 */
#pragma once

#include <stdbool.h>

enum media_fault {
	FAULT_NONE,
	FAULT_COLLECT_REMOTE_FIRST,  /* collecting clears remote before alloc */
	FAULT_OWNED_AFTER_CLAIM,     /* the owned-span entry is written after the claim */
	FAULT_FREEING_MISSING,       /* a freer does not say where it is about to set a bit */
	FAULT_DISOWN_WITHOUT_HINT,   /* room of a span that is given up is not hinted */
	FAULT_ENTRY_BEFORE_DISOWN,   /* the owned-span entry is cleared before the span is given up */
	FAULT_RETIRE_WORD_FIRST,     /* the span word says free before the owner word says no head */
	FAULT_GRANT_WORD_FIRST,      /* the span word is there before the remainder's */
	FAULT_LIMBO_AFTER_ALLOC,     /* collecting clears limbo after alloc */
	N_FAULTS,
};

#ifdef NVMM_PLANTED_FAULTS
#ifndef NVMM_MEDIA_POINTS
#error "planted faults are for the crash tests alone"
#endif
extern enum media_fault media_fault;
#define FAULT(f) (media_fault == FAULT_##f)
#else
#define FAULT(f) false
#endif
