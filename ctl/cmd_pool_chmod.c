/* SPDX-License-Identifier: BSD-3-Clause */
/* nvmmctl pool chmod. */
#include "ctl/poolview.h"

static enum ctl_exit run(struct ctl *ctl)
{
	enum ctl_exit code;
	nvmm_pool_id id;
	mode_t mode;
	int r;

	code = ctl_parse_mode(ctl, "mode", ctl->args[1], &mode);
	if (code == CTL_DONE)
		code = ctl_connect(ctl);
	if (code == CTL_DONE)
		code = poolview_find(ctl, ctl->args[0], &id);
	if (code != CTL_DONE)
		return code;
	r = nvmm_pool_chmod(ctl->nvmm, id, mode);
	if (r < 0)
		return ctl_fail(ctl, r);
	return poolview_write_changed(ctl, id);
}

static const char help[] =
	"MODE is octal, read (4) and write (2) for the owner, the group and all others. It is\n"
	"asked when a program opens the pool: who has it open already keeps it so. The owner and\n"
	"administrators may change it.\n"
	"\n"
	"Examples:\n"
	"  nvmmctl pool chmod words 0640      the group may read\n"
	"  nvmmctl pool chmod 7 0600          the owner alone\n";

const struct command command_pool_chmod = {
	.name = "pool chmod",
	.args = "POOL MODE",
	.summary = "Changes who may read and write a pool",
	.help = help,
	.min_args = 2,
	.max_args = 2,
	.run = run,
};
