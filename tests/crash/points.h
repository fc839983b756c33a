/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a test and nvmmd-points share: a file that both map, named by POINTS_ENV. The test arms it,
 * the daemon counts; so the test knows at which point of which operation the daemon dies, and
 * how many points an operation has.
 */
#pragma once

#include <stdint.h>

#define POINTS_ENV "NVMMD_POINTS"
#define POINTS_BOOT_ENV "NVMMD_BOOT_ID" /* a file that tells nvmmd-points the boot, not the kernel's */
#define POINTS_NEVER (INT64_MAX - 1)

/*
 * One word, so that whoever disarms knows for certain whether the daemon dies: it does if it was the
 * one that took the word from 1 to 0.
 */
struct points {
	int64_t left; /* atomic; points until the daemon dies, that one included; 0 and less: unarmed */
};
