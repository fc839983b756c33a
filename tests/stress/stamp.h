/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What stands in a block: whose it is, which of all blocks, how long. Two owners of one block spoil each
 * other's words, whoever is later.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* `size` at least 16; `serial` never used twice. */
void stamp_write(void *block, size_t size, uint64_t serial);
/* Whether it is whole. It may change meanwhile. */
bool stamp_whole(const void *block);
uint64_t stamp_serial(const void *block);
/* Makes it nobody's: given to another before it was free, it would show. */
void stamp_spoil(void *block);
