/* SPDX-License-Identifier: BSD-3-Clause */
/* nvmmctl status: the daemon, its memory, its pools. */
#include "ctl/poolview.h"
#include "common/text.h"
#include "libclient/call.h"

#define WINDOW_MAX 60u

/* Programs get it always, people where users cannot be told apart. */
static void write_identity(struct writer *w, const Nvmm__StatusReply *status)
{
	writer_flag(w, "uids_partial", status->uids_partial ? "some users unmapped" : NULL,
		    status->uids_partial);
	writer_flag(w, "gids_partial", status->gids_partial ? "some groups unmapped" : NULL,
		    status->gids_partial);
	if (status->uids_partial)
		writer_count(w, "overflow_uid", "refused as uid", status->overflow_uid);
	if (status->gids_partial)
		writer_count(w, "overflow_gid", "without rights as gid", status->overflow_gid);
}

static void write_daemon(struct writer *w, const Nvmm__StatusReply *status)
{
	writer_count(w, "node", "node", status->node);
	writer_text(w, "node_name", "node name", status->node_name);
	writer_text(w, "version", "version", status->version);
	writer_count(w, "pid", "pid", status->pid);
	writer_time(w, "started", "started", status->started);
	writer_flag(w, "clean_start", "last stop was clean", status->clean_start);
	if (status->recovering_of > 0) {
		writer_count(w, "recovering", "pools to recover", status->recovering);
		writer_count(w, "recovering_of", "of pools", status->recovering_of);
		writer_bytes(w, "recovered_bytes", "recovered", status->recovered_bytes);
		writer_bytes(w, "recovering_bytes", "of", status->recovering_bytes);
	}
	writer_text(w, "shelf_base", "shelf base", status->shelf_base);
	writer_text(w, "runtime", "runtime directory", status->runtime);
	writer_text(w, "socket", "socket", status->socket);
	write_identity(w, status);
}

static void write_memory(struct writer *w, const Nvmm__StatusReply *status)
{
	writer_bytes(w, "reserved", "reserved by pools", status->reserved);
	writer_bytes(w, "available", "available", status->available);
	if (status->capacity)
		writer_bytes(w, "capacity", "capacity", status->capacity);
	else
		writer_none(w, "capacity", NULL);
	writer_bytes(w, "overgrown", status->overgrown > 0 ? "added by clients" : NULL, status->overgrown);
	writer_count(w, "unlinked", status->unlinked > 0 ? "unlinked files held" : NULL, status->unlinked);
	writer_count(w, "pool_count", "pools", status->pools);
	writer_count(w, "pools_damaged", "pools damaged", status->pools_damaged);
	writer_count(w, "pools_held", "destroyed, in use", status->pools_held);
	writer_count(w, "clients", "clients", status->clients);
	writer_count(w, "sessions_detached", "clients detached", status->sessions_detached);
	writer_count(w, "sessions_unread", "epochs unknown of", status->sessions_unread);
	writer_count(w, "keeper", "epoch keeper pid", status->keeper);
}

/* How long clients wait because of others. */
static void write_turns(struct writer *w, const Nvmm__StatusReply *status)
{
	char label[64];

	snprintf(label, sizeof(label), "in last %u s, us", status->loop_window);
	writer_count(w, "loop_longest_us", "longest turn, us", status->loop_longest_us);
	writer_count(w, "loop_recent_us", label, status->loop_recent_us);
	writer_count(w, "loop_window", NULL, status->loop_window);
	writer_count(w, "loop_turns", NULL, status->loop_turns);
}

static void write_jobs(struct writer *w, const Nvmm__StatusReply *status)
{
	writer_list(w, "jobs");
	for (size_t i = 0; i < status->n_jobs; i++) {
		const Nvmm__JobClass *class = status->jobs[i];

		writer_item(w);
		writer_text(w, "class", "jobs", class->name);
		writer_count(w, "places", "places", class->places);
		writer_count(w, "places_of_user", "of a user", class->places_of_user);
		writer_count(w, "running", "running", class->running);
		writer_count(w, "waiting", "waiting", class->waiting);
		writer_count(w, "begun", "begun", class->begun);
		writer_count(w, "longest_wait_ms", "longest wait, ms", class->longest_wait_ms);
		writer_count(w, "waited_ms", "waits now, ms", class->waited_ms);
	}
	writer_list_end(w, "No jobs.");
}

/* Programs get them always, people when they ask. */
static void write_counters(struct ctl *ctl, const Nvmm__StatusReply *status)
{
	struct writer *w = ctl->writer;

	if (!ctl->json && !ctl_option(ctl, "counters"))
		return;
	write_jobs(w, status);
	writer_list(w, "counters");
	for (size_t i = 0; i < status->n_counters; i++) {
		writer_item(w);
		writer_text(w, "name", "counter", status->counters[i]->name);
		writer_count(w, "value", "value", status->counters[i]->value);
		writer_text(w, "help", "counts", status->counters[i]->help);
	}
	writer_list_end(w, "No counters.");
}

static enum ctl_exit run(struct ctl *ctl)
{
	const char *window = ctl_option(ctl, "window");
	uint64_t seconds = 0;
	_cleanup(nvmm_reply_deinit) struct nvmm_reply reply = NVMM_REPLY_INIT;
	Nvmm__Status op = NVMM__STATUS__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	enum ctl_exit code;
	int r;

	if (window && (text_parse_u64(&seconds, window, WINDOW_MAX) < 0 || seconds == 0))
		return ctl_usage(ctl, "window '%s', expected 1 to %u seconds", window, WINDOW_MAX);
	op.window = (uint32_t)seconds;
	code = ctl_connect(ctl);
	if (code != CTL_DONE)
		return code;
	request.op_case = NVMM__REQUEST__OP_STATUS;
	request.status = &op;
	r = nvmm_call(ctl->nvmm, &request, NVMM__REPLY__RESULT_STATUS, 0, &reply);
	if (r < 0)
		return ctl_fail(ctl, r);
	write_daemon(ctl->writer, reply.msg->status);
	write_memory(ctl->writer, reply.msg->status);
	write_turns(ctl->writer, reply.msg->status);
	code = poolview_write_all(ctl);
	write_counters(ctl, reply.msg->status);
	if (code == CTL_DONE && reply.msg->status->pools_damaged > 0)
		code = CTL_DAMAGED;
	return code;
}

static const char help[] =
	"What is reserved by pools is taken from the shelf base when a pool is created; what is\n"
	"used is what the blocks of a heap take of it. A detached client is a process that lives\n"
	"on without its connection. The exit status is 5 if a pool is damaged,\n"
	"held or not recovered.\n"
	"A loop turn is what the daemon does between two waits for requests. The longest turn is\n"
	"how long one client had to wait because of the others.\n"
	"\n"
	"Examples:\n"
	"  nvmmctl status\n"
	"  nvmmctl status --json | jq '.pools[] | select(.heap_used_percent > 90) | .name'\n";

const struct command command_status = {
	.name = "status",
	.args = "[--counters] [--window SECONDS]",
	.summary = "Shows the daemon, its memory and its pools",
	.help = help,
	.options = {
		{ "counters", NULL, "show jobs and what the daemon counts as well" },
		{ "window", "SECONDS", "how far back to look for the longest loop turn (10)" },
	},
	.run = run,
};
