/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SIGBUS guard.
 *
 * Each thread has a stack of frames, one for each guard_run() that it is in; the handler jumps to
 * the innermost. The signal mask is not saved with a frame, which would cost two system calls a
 * run: SA_NODEFER leaves SIGBUS unblocked in the handler, so there is nothing to restore after the
 * jump.
 *
 * Only a fault of the running instruction is the guard's; a SIGBUS that somebody sent, or one
 * without a guard, takes its default course. For a fault, returning from the handler is enough:
 * the instruction faults again, and the core shows it instead of the handler.
 */
#include "media/guard.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>

struct guard {
	struct guard *up;
	const void *volatile fault;
	sigjmp_buf env;
};

/* initial-exec: the handler must not be the first to allocate it. */
static _Thread_local struct guard *guard_top __attribute__((tls_model("initial-exec")));

static bool is_fault(const siginfo_t *info)
{
	return info->si_code == BUS_ADRERR || info->si_code == BUS_ADRALN ||
	       info->si_code == BUS_OBJERR || info->si_code == BUS_MCEERR_AR;
}

static void guard_handler(int sig, siginfo_t *info, void *context)
{
	struct guard *guard = guard_top;

	(void)context;
	if (info->si_code == BUS_MCEERR_AO)
		return; /* a page went bad that nobody is reading; who does will fault */
	if (guard && is_fault(info)) {
		guard->fault = info->si_addr;
		siglongjmp(guard->env, 1);
	}
	signal(sig, SIG_DFL);
	if (!is_fault(info))
		raise(sig);
}

int guard_init(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_sigaction = guard_handler;
	action.sa_flags = SA_SIGINFO | SA_NODEFER;
	sigemptyset(&action.sa_mask);
	return sigaction(SIGBUS, &action, NULL) < 0 ? -errno : 0;
}

int guard_run(int (*fn)(void *arg), void *arg, const void **fault)
{
	struct guard guard = { .up = guard_top };
	int r;

	if (sigsetjmp(guard.env, 0) != 0) {
		guard_top = guard.up;
		if (fault)
			*fault = guard.fault;
		return -EIO;
	}
	guard_top = &guard;
	r = fn(arg);
	guard_top = guard.up;
	return r;
}
