/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the programs that measure figures have in common.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* Sorts them. */
double gauge_median(double *value, size_t n);

/* "name value", for the driver. */
void gauge_tell(const char *name, double value);

/* Nanoseconds that all threads of a process have run; negative: it cannot be read. */
double gauge_cpu_ns(pid_t pid);
