/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the allocator asks of the library: spans, runs and mappings. The context is a struct pool.
 */
#pragma once

#include "media/lane.h"

extern const struct lane_source lane_source;
