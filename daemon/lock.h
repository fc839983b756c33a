/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lock files: one daemon for each directory.
 */
#pragma once

#include <sys/types.h>

#define LOCK_NAME "nvmmd.lock"

/*
 * Takes the exclusive lock of a directory, which lasts until *ret is closed, and writes this
 * process's id into it. -EBUSY: another has it, *holder is its pid (0: unknown); others of open(2),
 * flock(2).
 */
int lock_take(int *ret, int dirfd, pid_t *holder);
