/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Planted faults: the test of the crash tests. In a build of its own, libmedia-faults, one of these can be
 * chosen at run time; the crash tests must then fail (tests/crash/check_faults.sh). In every other build
 * FAULT() is the constant false.
 */
#pragma once

#include <stdbool.h>

/* Numbers and names: check_faults.sh has them too. */
enum media_fault {
	FAULT_NONE = 0,
	FAULT_COLLECT_REMOTE_FIRST = 1, /* collecting clears remote before alloc */
	FAULT_COLLECT_LIMBO_KEPT = 2,   /* collecting does not clear limbo */
	FAULT_OWNED_AFTER_CLAIM = 3,    /* the owned-span entry is written after the claim */
	FAULT_FREEING_MISSING = 4,      /* a freer does not say where it is about to set a bit */
	FAULT_DISOWN_WITHOUT_HINT = 5,  /* room of a span that is given up is not hinted */
	FAULT_RETIRE_WORD_FIRST = 6,    /* the span word says free before the owner word says no head */
	FAULT_GRANT_WORD_FIRST = 7,     /* the span word is there before the remainder's */
	FAULT_GRANT_WITHOUT_COVER = 8,  /* runs are joined without the head's word covering them */
	FAULT_OPEN_UNDRAINED = 9,       /* a mark is trusted that is not drained */
	FAULT_CLOSE_UNFLUSHED = 10,     /* a mark is cleared, and the bits were not flushed */
	FAULT_LIMBO_UNDRAINED = 11,     /* a block that was in limbo is given before its limbo bit's end is drained */
	FAULT_LARGE_UNDRAINED = 12,     /* the bit of a large block is not drained */
	FAULT_LOG_LATE = 13,            /* words are stored before the log is valid */
	FAULT_LOG_CLEARED_FIRST = 14,   /* the log is cleared before the reservations that it commits */
	FAULT_RESERVED_LATE = 15,       /* a block is allocated before its reservation is there */
	FAULT_WORDS_UNFLUSHED = 16,     /* a word's old value is in the log and need not be on the medium */
	FAULT_APPLIED_UNDRAINED = 17,   /* the log is cleared, and what it did is not drained */
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
