/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/crash/doomed.h"

#include <check.h>
#include <sys/wait.h>
#include <unistd.h>

void doomed_end(void)
{
	_exit(DOOMED);
}

int doomed_status(void (*fn)(void *arg), void *arg)
{
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		fn(arg);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

bool doomed_run(void (*fn)(void *arg), void *arg)
{
	int status = doomed_status(fn, arg);

	if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != DOOMED))
		ck_abort_msg("the child failed: 0x%x", (unsigned)status);
	return WEXITSTATUS(status) == DOOMED;
}
