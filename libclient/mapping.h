/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mappings that mlockall(2) of the program neither fills nor locks.
 */
#pragma once

#include <stddef.h>

/*
 * mmap(2) at offset 0, except that a process under mlockall(MCL_FUTURE) gets the mapping unlocked
 * and without a page of it. `at` NULL: where there is room; else over what is mapped there, in one
 * step as other threads see it. `len`: a multiple of the page. MAP_FAILED with errno; EAGAIN: the
 * process is at its limit on locked memory.
 */
void *mapping_new(void *at, size_t len, int prot, int flags, int fd);
