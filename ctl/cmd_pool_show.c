/* SPDX-License-Identifier: BSD-3-Clause */
/* nvmmctl pool show: all that is known of one. */
#include "ctl/poolview.h"

static enum ctl_exit run(struct ctl *ctl)
{
	struct nvmm_pool_info info;
	enum ctl_exit code;

	code = ctl_connect(ctl);
	if (code == CTL_DONE)
		code = poolview_find_info(ctl, ctl->args[0], &info);
	if (code != CTL_DONE)
		return code;
	return poolview_write(ctl, &info, true);
}

static const char help[] =
	"`in files` is what it takes of the shelf base, metadata included. `used` and `free` are\n"
	"of its blocks; `limbo` is freed, but a reader may still see it; `largest free` is the\n"
	"largest block that can be had; `overhead` is what spans cannot give out; `suspects` are\n"
	"blocks that may have been free when power was cut. The table has a heap's size classes.\n"
	"While programs allocate, these are near figures. Below it are the roots: names that\n"
	"programs find the heap's content by, with the global pointers that they stand for.\n"
	"The exit status is 5 if the pool is damaged; `damage` says what is, and where.\n"
	"\n"
	"Examples:\n"
	"  nvmmctl pool show words\n"
	"  nvmmctl pool show 7 --json | jq .heap_free\n";

const struct command command_pool_show = {
	.name = "pool show",
	.args = "POOL",
	.summary = "Shows all that is known of a pool",
	.help = help,
	.min_args = 1,
	.max_args = 1,
	.run = run,
};
