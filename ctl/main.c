/* SPDX-License-Identifier: BSD-3-Clause */
/* nvmmctl: the operator's view of nvmmd. All else is in libctl, which the tests link as well. */
#include <fcntl.h>
#include <locale.h>
#include <stdio.h>

#include "common/fd.h"
#include "ctl/ctl.h"

int main(int argc, char **argv)
{
	enum ctl_exit code;

	/* Read-only: writing to an output that the caller has closed fails. */
	if (fd_fill_standard(O_RDONLY) < 0)
		return CTL_FAILED;
	setlocale(LC_CTYPE, "");
	code = ctl_main(argc, argv, stdout, stderr);
	if (fflush(stdout) != 0 && code == CTL_DONE) /* help, version: they have no writer */
		code = CTL_FAILED;
	return (int)code;
}
