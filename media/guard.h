/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SIGBUS guard: a client that may write a pool's file can also truncate or punch it, and a page
 * can be poisoned; the daemon's own access then faults. Inside guard_run() that fault ends the
 * function and becomes -EIO; outside of it SIGBUS kills the process as ever.
 */
#pragma once

#include <stddef.h>

/* Installs the process's SIGBUS handler. Once, before threads. Returns 0 or -errno. */
int guard_init(void);

/*
 * Calls fn(arg) and returns what it returned, or -EIO if it touched memory without a page behind
 * it; *fault (may be NULL) is then the address. fn is left by a jump: it must hold no lock, own no
 * memory and change no structure but media, and values through arg. Nests; each thread has its own.
 */
int guard_run(int (*fn)(void *arg), void *arg, const void **fault);
