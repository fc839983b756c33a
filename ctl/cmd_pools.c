/* SPDX-License-Identifier: BSD-3-Clause */
/* nvmmctl pools: a table of them. */
#include "ctl/poolview.h"

static enum ctl_exit run(struct ctl *ctl)
{
	enum ctl_exit code;

	code = ctl_connect(ctl);
	if (code != CTL_DONE)
		return code;
	return poolview_write_all(ctl);
}

static const char help[] =
	"Of each: its id and name, kind, size, how much of a heap is used, who owns it, what\n"
	"others may do, how many processes have it open, and its state (damaged, held or not\n"
	"recovered: the exit status is 5, and `nvmmctl pool show` tells more).\n"
	"\n"
	"Examples:\n"
	"  nvmmctl pools\n"
	"  nvmmctl pools --json | jq -r '.pools[].name'\n";

const struct command command_pools = {
	.name = "pools",
	.args = "",
	.summary = "Lists the pools",
	.help = help,
	.run = run,
};
