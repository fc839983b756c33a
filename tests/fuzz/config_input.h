/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A configuration as bytes: taken or refused. What was taken prints as something that is taken, and prints
 * the same.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Whether it was taken; ends the process where a rule is broken. */
bool config_input(const void *data, size_t len);
