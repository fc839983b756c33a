/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is the process's and not a connection's: the short lock, fork, and the frame of every call
 * that may lock or wait.
 *
 * Lock order: 1. nvmm.open_lock  2. nvmm.call_lock  3. the process lock.
 * The first two are held across requests to the daemon and are taken with the call's deadline; the
 * process lock is held for a few instructions, never across a system call that waits. fork(2)
 * takes it, so that the child finds the lists that it guards whole.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/macro.h"

struct nvmm_client;

/* Registers the fork handlers; once, at the first connect. 0 or -ENOMEM. */
int process_init(void);

void process_lock(void);
void process_unlock(void);
/* Gives the lock away until somebody wakes all that wait so; and takes it again. */
void process_wait(void);
void process_wake(void);

/* Raised in the child of each fork: a connection of another generation is the parent's. */
uint32_t process_generation(void);

/* Monotonic time in nanoseconds; never-ending deadlines are UINT64_MAX. */
uint64_t time_now(void);
uint64_t time_after_ms(int ms); /* -1: never */

/* The frame of a call. */
struct entry {
	bool inside;
	int cancel_state;
};
#define ENTRY_NONE { .inside = false }

/*
 * Begins a call: no cancellation inside, and one deadline for all that it does. -ENOTCONN: `nvmm`
 * is the parent's; -EDEADLK: a signal handler interrupted such a call of this thread. Text set.
 */
int enter(struct entry *entry, const struct nvmm_client *nvmm);
void leave(struct entry *entry);
#define _entry _cleanup(leave) struct entry

/* The deadline of the call that the thread is in; the second form moves it. */
uint64_t deadline(void);
void deadline_set(uint64_t when);
