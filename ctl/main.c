/* SPDX-License-Identifier: BSD-3-Clause */
/* nvmmctl: the operator's view of nvmmd. All else is in libctl, which the tests link as well. */
#include <locale.h>
#include <stdio.h>

#include "ctl/ctl.h"

int main(int argc, char **argv)
{
	setlocale(LC_CTYPE, "");
	return (int)ctl_main(argc, argv, stdout, stderr);
}
