/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The end of main() of test programs that need no directory (unit/tempdir.h) and no daemon (system/harness.h).
 */
#pragma once

#include <check.h>
#include <stdlib.h>

/* Runs and frees a suite; the exit code. */
static inline int suite_run(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
