/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Everything else is in libnvmmd, which the unit tests link.
 */
#include "daemon/keep.h"
#include "daemon/nvmmd.h"

int main(int argc, char **argv)
{
	keeper_program = "/proc/self/exe";
	return nvmmd_main(argc, argv);
}
