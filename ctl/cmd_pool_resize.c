/* SPDX-License-Identifier: BSD-3-Clause */
/* nvmmctl pool resize: to a size, or by one. */
#include "ctl/poolview.h"

static enum ctl_exit run(struct ctl *ctl)
{
	const char *text = ctl->args[1];
	struct nvmm_pool_info info;
	enum ctl_exit code;
	uint64_t bytes;
	int r;

	code = ctl_parse_size(ctl, "size", *text == '+' ? text + 1 : text, &bytes);
	if (code == CTL_DONE)
		code = ctl_connect(ctl);
	if (code == CTL_DONE)
		code = poolview_find_info(ctl, ctl->args[0], &info);
	if (code != CTL_DONE)
		return code;
	if (*text == '+')
		bytes += info.bytes;
	r = nvmm_pool_resize(ctl->nvmm, info.id, bytes);
	if (r < 0)
		return ctl_fail(ctl, r);
	return poolview_write_changed(ctl, info.id);
}

static const char help[] =
	"SIZE is what the pool is to have, or with a + what it is to have more. Programs go on\n"
	"using it meanwhile. Pools do not shrink.\n"
	"\n"
	"Examples:\n"
	"  nvmmctl pool resize words 2GiB\n"
	"  nvmmctl pool resize words +512MiB\n";

const struct command command_pool_resize = {
	.name = "pool resize",
	.args = "POOL SIZE",
	.summary = "Makes a pool larger",
	.help = help,
	.min_args = 2,
	.max_args = 2,
	.run = run,
};
