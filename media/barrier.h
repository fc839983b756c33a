/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Asymmetric barrier between processes (membarrier(2), global expedited): the side that runs often
 * orders its store before its load by the compiler alone, the side that runs seldom pays for both.
 */
#pragma once

#include <stdbool.h>

/* Lets this process be reached by others' barrier_all(). Idempotent, thread-safe. False: the kernel
 * has none; then this side fences by itself. */
bool barrier_register(void);

/* Every registered process's running threads pass a full barrier before it returns. False: not
 * done. */
bool barrier_all(void);

/* A full barrier of the calling thread. TSan knows no fences, but takes a locked instruction for one. */
static inline void barrier_full(void)
{
#ifdef __SANITIZE_THREAD__
	static int word;

	/* ordering: full barrier; the caller says what it pairs with. */
	__atomic_fetch_add(&word, 1, __ATOMIC_SEQ_CST);
#else
	/* ordering: full barrier; the caller says what it pairs with. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}
