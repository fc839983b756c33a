/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of counters, for who reports them: names and help come from COUNTERS() alone, so that a
 * counter that is declared is also reported. Reading one needs no lock: the loop thread both
 * counts and answers status.
 */
#include "daemon/counters.h"

#include "common/macro.h"

const struct counter_info counter_infos[] = {
#define COUNTER_INFO(name, help) { #name, help, offsetof(struct counters, name) },
	COUNTERS(COUNTER_INFO)
#undef COUNTER_INFO
};

const size_t n_counter_infos = ARRAY_SIZE(counter_infos);

uint64_t counter_value(const struct counters *counters, const struct counter_info *info)
{
	return *(const uint64_t *)(const void *)((const char *)counters + info->offset);
}
