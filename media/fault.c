/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one variable of media/fault.h, in the build that has it.
 */
#include "media/fault.h"

#ifdef NVMM_PLANTED_FAULTS
enum media_fault media_fault = FAULT_NONE;
#endif
