/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Throw-away directories of a test program, under $TMPDIR, else in memory where there is
 * /dev/shm, and what unit tests share: running a suite, flipping bytes, children that are killed.
 */
#pragma once

#include <check.h>
#include <stdbool.h>
#include <stddef.h>

/* Runs a suite and removes its directories, failed or not. What main() returns. */
int tempdir_run_suite(Suite *suite);

/* A new empty directory, open; it goes when the suite ends. Path in ret_path if not NULL. */
int tempdir_new(const char **ret_path);

/* The same on the file system of the build tree, which is a disk's most often. */
int tempdir_on_disk(void);

/*
 * A new file system of `bytes` in a mount namespace of this (forked) test, open. -EPERM and others
 * where the test may not; then it skips, saying so.
 */
int tempdir_small(size_t bytes);

/* Whole content of a file, allocated. */
char *tempdir_read(int dirfd, const char *name, size_t *ret_len);

/* Changes one byte of a file. */
void tempdir_flip(int dirfd, const char *name, size_t offset);

/* Number of entries of a directory. */
size_t tempdir_count(int dirfd);
