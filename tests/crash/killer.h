/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A backend that ends the process at a point, for suites that kill what they do. What the process did to files
 * and to shared memory stands as it left it: every store that it made is there, in the order in which it made them.
 */
#pragma once

#include <stdbool.h>

#include "media/store.h"

/* Flush and drain do nothing: no power is cut. Outside of killer_run()'s child no point is the last. */
extern const struct media_backend killer_backend;

/* Called at each point of killer_run()'s child, the last one too, before it ends; NULL, as at first: nothing. */
extern void (*killer_watch)(void);

/* Runs fn(arg) in a child that ends just before its k-th point, from 0; whether it ended there, not at its end. */
bool killer_run(long k, void (*fn)(void *arg), void *arg);
