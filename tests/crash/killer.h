/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A backend that ends the process at a point, for suites that kill what they do to files.
 */
#pragma once

#include "media/store.h"

#define KILLED 99 /* the exit status */

/* Points that are passed yet; negative: all. */
extern long killer_points;
extern const struct media_backend killer_backend;
