/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Texts of failures: what nvmm_errmsg() returns. nvmm_fail() in libclient/call.h sets one.
 */
#pragma once

#include "libclient/call.h"

/* An id for nothing but telling connections apart; 0 is nvmm_connect() itself. */
uint64_t error_source_new(void);
