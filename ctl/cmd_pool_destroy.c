/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nvmmctl pool destroy. By the daemon's own request: the public calls ask for the kind, which a
 * damaged pool may not tell.
 */
#include "ctl/poolview.h"
#include "libclient/call.h"

static enum ctl_exit run(struct ctl *ctl)
{
	_cleanup(nvmm_reply_deinit) struct nvmm_reply reply = NVMM_REPLY_INIT;
	Nvmm__PoolDestroy op = NVMM__POOL_DESTROY__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	enum ctl_exit code;
	nvmm_pool_id id;
	int r;

	code = ctl_connect(ctl);
	if (code == CTL_DONE)
		code = poolview_find(ctl, ctl->args[0], &id);
	if (code != CTL_DONE)
		return code;
	op.id = id;
	op.force = ctl_option(ctl, "force") != NULL;
	request.op_case = NVMM__REQUEST__OP_POOL_DESTROY;
	request.pool_destroy = &op;
	r = nvmm_call(ctl->nvmm, &request, NVMM__REPLY__RESULT__NOT_SET, 0, &reply);
	if (r < 0)
		return ctl_fail(ctl, r);
	writer_count(ctl->writer, "id", "id", id);
	writer_flag(ctl->writer, "destroyed", "destroyed", true);
	return CTL_DONE;
}

static const char help[] =
	"What was in it cannot be had back. A pool that a process has open is refused, unless\n"
	"forced: such a process keeps what it has mapped until it ends, and nobody else can\n"
	"open the pool; its id is given out again after that.\n"
	"\n"
	"Examples:\n"
	"  nvmmctl pool destroy words\n"
	"  nvmmctl pool destroy 7 --force\n";

const struct command command_pool_destroy = {
	.name = "pool destroy",
	.args = "POOL [--force]",
	.summary = "Removes a pool and all that is in it",
	.help = help,
	.min_args = 1,
	.max_args = 1,
	.options = {
		{ "force", NULL, "even if processes have it open" },
	},
	.run = run,
};
