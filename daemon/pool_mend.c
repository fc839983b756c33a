/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mending of a damaged pool's files, but for what stands in span tables and state records
 * (media/repair.c).
 */
#include <errno.h>

#include "daemon/nvmmd.h"

int recovery_mend(struct pool *pool)
{
	return -EUCLEAN;
}
