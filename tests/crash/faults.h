/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A crash test that is linked with libmedia-faults plants the fault that NVMMD_TEST_FAULT numbers.
 */
#pragma once

#include <stdlib.h>

#include "media/fault.h"

static inline void fault_plant(void)
{
#ifdef NVMM_PLANTED_FAULTS
	const char *text = getenv("NVMMD_TEST_FAULT");

	media_fault = text ? (enum media_fault)atoi(text) : FAULT_NONE;
#endif
}
