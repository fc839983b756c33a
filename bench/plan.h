/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * All cells: workloads, sizes, workers, untouched and filled.
 */
#pragma once

#include <stdbool.h>

#include "bench/cell.h"

/* The n-th, from 0; false: there are no more. `ms` is not set. */
bool plan_cell(struct cell *ret, unsigned n);
