/* SPDX-License-Identifier: BSD-3-Clause */
/* nvmmctl clients: the processes that the daemon knows. */
#include "ctl/poolview.h"
#include "libclient/call.h"

#define CLIENTS_AT_ONCE 64u

static void write_row(struct writer *w, const Nvmm__ClientInfo *client)
{
	char user[64];

	writer_item(w);
	writer_count(w, "session", "session", client->session);
	writer_count(w, "pid", "pid", client->pid);
	writer_text(w, "user", "user", poolview_user(user, sizeof(user), client->uid));
	writer_count(w, "uid", NULL, client->uid);
	writer_count(w, "gid", NULL, client->gid);
	writer_text(w, "name", "program", client->name);
	writer_time(w, "since", "since", client->since);
	writer_text(w, NULL, "state", client->attached ? "attached" : "detached");
	writer_flag(w, "attached", NULL, client->attached);
	writer_count(w, "lanes", "lanes", client->lanes);
	writer_count(w, "requests", "requests", client->requests);
	writer_count(w, "owner", NULL, client->owner);
	writer_numbers(w, "pools", "pools", client->pools, client->n_pools);
}

/* Writes the clients behind session *after; 1: there may be more, 0: none, or a negative errno. */
static int write_rows(struct ctl *ctl, uint64_t *after)
{
	_cleanup(nvmm_reply_deinit) struct nvmm_reply reply = NVMM_REPLY_INIT;
	Nvmm__Clients op = NVMM__CLIENTS__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	const Nvmm__ClientsReply *clients;
	uint64_t last = *after;
	int r;

	op.after = *after;
	op.max = CLIENTS_AT_ONCE;
	request.op_case = NVMM__REQUEST__OP_CLIENTS;
	request.clients = &op;
	r = nvmm_call(ctl->nvmm, &request, NVMM__REPLY__RESULT_CLIENTS, 0, &reply);
	if (r < 0)
		return r;
	clients = reply.msg->clients;
	for (size_t i = 0; i < clients->n_clients; i++) {
		write_row(ctl->writer, clients->clients[i]);
		last = MAX(last, clients->clients[i]->session);
	}
	if (last == *after)
		return 0;
	*after = last;
	return 1;
}

static enum ctl_exit run(struct ctl *ctl)
{
	enum ctl_exit code;
	uint64_t after = 0;
	int r;

	code = ctl_connect(ctl);
	if (code != CTL_DONE)
		return code;
	writer_list(ctl->writer, "clients");
	do
		r = write_rows(ctl, &after);
	while (r > 0);
	writer_list_end(ctl->writer, "No clients.");
	return r < 0 ? ctl_fail(ctl, r) : CTL_DONE;
}

static const char help[] =
	"Of each: its session, process, user and program, since when it is attached, the lanes\n"
	"(places of threads in heaps) that it holds, its requests so far, and the pools that it\n"
	"has open. A process that died is not listed; one whose connection is gone but that\n"
	"lives on is `detached`. This nvmmctl is a client, too.\n"
	"\n"
	"Examples:\n"
	"  nvmmctl clients\n"
	"  nvmmctl clients --json | jq '[.clients[] | select(.pools | index(7))] | length'\n";

const struct command command_clients = {
	.name = "clients",
	.args = "",
	.summary = "Lists the processes that are attached",
	.help = help,
	.run = run,
};
