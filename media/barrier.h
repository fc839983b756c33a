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

/*
 * Fences of the calling thread. TSan knows none, but takes a locked instruction on a word that all share for
 * one: it then sees more order than there is, and no race that is not one.
 */
#ifdef __SANITIZE_THREAD__
extern int barrier_word;

/* ordering: each a full barrier; the caller says what it pairs with. */
static inline void barrier_full(void)
{
	__atomic_fetch_add(&barrier_word, 1, __ATOMIC_SEQ_CST);
}

static inline void barrier_acquire(void)
{
	barrier_full();
}

static inline void barrier_release(void)
{
	barrier_full();
}
#else
static inline void barrier_full(void)
{
	/* ordering: full barrier; the caller says what it pairs with. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Loads before it come before all that follows. */
static inline void barrier_acquire(void)
{
	/* ordering: acquire fence; the caller says what it pairs with. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
}

/* All before it comes before the stores that follow. */
static inline void barrier_release(void)
{
	/* ordering: release fence; the caller says what it pairs with. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
}
#endif
