/* SPDX-License-Identifier: BSD-3-Clause */
/* nvmmctl epochs: who is reading, and what waits for it. */
#include "ctl/poolview.h"
#include "libclient/call.h"

static void write_pools(struct writer *w, const Nvmm__EpochsReply *reply)
{
	writer_list(w, "pools");
	for (size_t i = 0; i < reply->n_pools; i++) {
		const Nvmm__EpochPool *pool = reply->pools[i];

		writer_item(w);
		writer_count(w, "id", "pool", pool->id);
		writer_bytes(w, "limbo", "in limbo", pool->bytes);
		writer_count(w, "blocks", "blocks", pool->blocks);
		if (pool->epoch) {
			writer_count(w, "epoch", "waits for epoch", pool->epoch);
			writer_count(w, "waiting_ms", "since ms", pool->waiting);
		} else {
			writer_none(w, "epoch", "waits for epoch");
			writer_none(w, "waiting_ms", "since ms");
		}
	}
	writer_list_end(w, "Nothing is in limbo.");
}

static void write_readers(struct writer *w, const Nvmm__EpochsReply *reply)
{
	writer_list(w, "readers");
	for (size_t i = 0; i < reply->n_readers; i++) {
		const Nvmm__EpochReader *reader = reply->readers[i];

		writer_item(w);
		writer_count(w, "session", "session", reader->session);
		writer_count(w, "pid", "pid", reader->pid);
		writer_count(w, "tid", "thread", reader->tid);
		writer_text(w, "name", "program", reader->name);
		writer_count(w, "epoch", "epoch", reader->epoch);
		writer_count(w, "age_ms", "age ms", reader->age);
		writer_numbers(w, "pools", "pools", reader->pools, reader->n_pools);
	}
	writer_list_end(w, "No thread is in an epoch.");
}

static enum ctl_exit run(struct ctl *ctl)
{
	_cleanup(nvmm_reply_deinit) struct nvmm_reply reply = NVMM_REPLY_INIT;
	Nvmm__Epochs op = NVMM__EPOCHS__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	const Nvmm__EpochsReply *epochs;
	enum ctl_exit code;
	int r;

	code = ctl_connect(ctl);
	if (code != CTL_DONE)
		return code;
	request.op_case = NVMM__REQUEST__OP_EPOCHS;
	request.epochs = &op;
	r = nvmm_call(ctl->nvmm, &request, NVMM__REPLY__RESULT_EPOCHS, 0, &reply);
	if (r < 0)
		return ctl_fail(ctl, r);
	epochs = reply.msg->epochs;
	writer_count(ctl->writer, "epoch", "epoch", epochs->current);
	writer_count(ctl->writer, "frontier", "frontier", epochs->frontier);
	writer_count(ctl->writer, "interval_ms", "interval ms", epochs->interval);
	writer_flag(ctl->writer, "halted", epochs->halted ? "halted: no membarrier" : NULL,
		    epochs->halted);
	writer_flag(ctl->writer, "more", epochs->more ? "there are more" : NULL, epochs->more);
	write_pools(ctl->writer, epochs);
	write_readers(ctl->writer, epochs);
	return CTL_DONE;
}

static const char help[] =
	"The node's epoch, and the frontier, the oldest one that a reader was in when the daemon\n"
	"last looked. Then the pools with blocks that were freed with delay and wait for readers,\n"
	"and the threads that are in an epoch, how long at least, and the pools that their process\n"
	"has open: what is in limbo there waits for them. A thread that ended by a raw exit stays\n"
	"listed until its process ends.\n"
	"\n"
	"Examples:\n"
	"  nvmmctl epochs\n"
	"  nvmmctl epochs --json | jq '.readers[] | select(.age_ms > 1000) | .pid'\n";

const struct command command_epochs = {
	.name = "epochs",
	.args = "",
	.summary = "Shows readers and what waits for them",
	.help = help,
	.run = run,
};
