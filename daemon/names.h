/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which names users may give to new pools and roots. The media accept more: what was named before a rule
 * came stays, and is found by its name or id.
 */
#pragma once

#include <stddef.h>

/* Why a name of 1 to `max` bytes is refused for a pool or root, as a static text; NULL: it may be given. */
const char *name_refused(const char *name, size_t max);
/* The same for a pool, whose name must not be taken for an id. */
const char *pool_name_refused(const char *name);
