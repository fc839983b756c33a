/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The operations that check_pool_kill kills the daemon in.
 */
#pragma once

#include "tests/crash/arena.h"

#define N_OPERATIONS 33

extern const struct operation operations[N_OPERATIONS];
