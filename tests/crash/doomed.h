/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A child that may end at a point: of a killer (killer.h) or of a power cut (cut.h).
 */
#pragma once

#include <stdbool.h>

#define DOOMED 99 /* its exit status, if it ended there */

/*
 * Runs fn(arg) in a child, which has the caller's memory, and only what is shared of it in common. Whether it
 * ended with doomed_end(); it may return as well. Any other end fails the test.
 */
bool doomed_run(void (*fn)(void *arg), void *arg);

/* Runs fn(arg) in such a child, which may end in any way; its wait status. */
int doomed_status(void (*fn)(void *arg), void *arg);

/* Ends the process: nothing of it runs any more, no exit handlers either. */
_Noreturn void doomed_end(void);
