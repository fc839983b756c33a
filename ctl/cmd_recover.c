/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nvmmctl recover: has heaps recovered, or shows how far it is. Recoveries go on in the daemon: who
 * only watches, or stops watching, changes nothing.
 */
#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "ctl/poolview.h"
#include "libclient/call.h"

#define POOLS_AT_ONCE 64u
#define REFUSED 6u /* not a state of the daemon's */

static const char *state_name(uint32_t state)
{
	static const char *const names[] = { "none", "waits", "runs",	"held",
					     "done", "failed", "refused" };

	return state < ARRAY_SIZE(names) ? names[state] : "unknown";
}

static bool goes_on(const Nvmm__RecoverPool *pool)
{
	return pool->state == 1 || pool->state == 2;
}

static int ask(struct ctl *ctl, uint32_t id, uint32_t after, struct nvmm_reply *reply)
{
	Nvmm__RecoverStatus op = NVMM__RECOVER_STATUS__INIT;
	Nvmm__Request request = NVMM_REQUEST(RECOVER_STATUS, recover_status, &op);

	op.id = id;
	op.after = after;
	return nvmm_call(ctl->nvmm, &request, NVMM__REPLY__RESULT_RECOVER_STATUS, 0, reply);
}

static int begin(struct ctl *ctl, uint32_t id)
{
	_cleanup(nvmm_reply_deinit) struct nvmm_reply reply = NVMM_REPLY_INIT;
	Nvmm__Recover op = NVMM__RECOVER__INIT;
	Nvmm__Request request = NVMM_REQUEST(RECOVER, recover, &op);

	op.id = id;
	op.offline = ctl_option(ctl, "offline") != NULL;
	op.repair = ctl_option(ctl, "repair") != NULL;
	return nvmm_call(ctl->nvmm, &request, NVMM__REPLY__RESULT__NOT_SET, 0, &reply);
}

#define PROGRESS_WIDTH 40 /* columns that are written over; no terminal has to know how to erase */

static bool shows_progress(const struct ctl *ctl)
{
	return ctl_option(ctl, "watch") && !ctl->json && isatty(fileno(ctl->err));
}

/* One line on the terminal, written over; nothing elsewhere. */
static void show_progress(struct ctl *ctl, uint64_t done, uint64_t total)
{
	char text[PROGRESS_WIDTH + 1];

	if (!shows_progress(ctl))
		return;
	snprintf(text, sizeof(text), "%5.1f %% of %.1f GiB",
		 total ? 100.0 * (double)done / (double)total : 100.0, (double)total / (1 << 30));
	fprintf(ctl->err, "\r%-*s", PROGRESS_WIDTH, text);
	fflush(ctl->err);
}

/* Before anything else is written. */
static void end_progress(struct ctl *ctl)
{
	if (!shows_progress(ctl))
		return;
	fprintf(ctl->err, "\r%*s\r", PROGRESS_WIDTH, "");
	fflush(ctl->err);
}

static void wait_a_little(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
}

static void write_pool(struct ctl *ctl, const Nvmm__RecoverPool *pool)
{
	struct writer *w = ctl->writer;

	writer_item(w);
	writer_count(w, "id", "pool", pool->id);
	writer_text(w, "name", "name", pool->name);
	writer_text(w, "state", "state", state_name(pool->state));
	writer_count(w, "priority", "priority", pool->priority);
	writer_bytes(w, "bytes", "size", pool->bytes);
	writer_bytes(w, "bytes_done", "done", pool->bytes_done);
	writer_count(w, "ms", "ms", pool->ms);
	writer_text(w, "text", "what", pool->text);
}

/* One look at a pool's recovery: 1, it goes on; 0, it has ended, and is in the reply; or an error. */
static int look_at(struct ctl *ctl, uint32_t id, struct nvmm_reply *reply)
{
	const Nvmm__RecoverPool *pool;
	int r = ask(ctl, id, 0, reply);

	if (r < 0)
		return r;
	if (reply->msg->recover_status->n_pools != 1)
		return -EPROTO;
	pool = reply->msg->recover_status->pools[0];
	show_progress(ctl, pool->bytes_done, pool->bytes);
	return goes_on(pool);
}

/* Waits for one pool's recovery and writes what became of it. */
static enum ctl_exit finish_pool(struct ctl *ctl, uint32_t id)
{
	for (;; wait_a_little()) {
		_cleanup(nvmm_reply_deinit) struct nvmm_reply reply = NVMM_REPLY_INIT;
		const Nvmm__RecoverPool *pool;
		int r = look_at(ctl, id, &reply);

		if (r > 0)
			continue;
		end_progress(ctl);
		if (r < 0)
			return ctl_fail(ctl, r);
		pool = reply.msg->recover_status->pools[0];
		write_pool(ctl, pool);
		return pool->state == 5 ? CTL_DAMAGED : CTL_DONE;
	}
}

static enum ctl_exit recover_one(struct ctl *ctl, nvmm_pool_id id)
{
	int r = begin(ctl, id);

	return r < 0 ? ctl_fail(ctl, r) : finish_pool(ctl, id);
}

/* One of many: what is refused of it is shown among the others. */
static enum ctl_exit recover_next(struct ctl *ctl, const struct nvmm_pool_info *info)
{
	int r = begin(ctl, info->id);
	Nvmm__RecoverPool pool = NVMM__RECOVER_POOL__INIT;

	if (r == 0)
		return finish_pool(ctl, info->id);
	if (r != -EUCLEAN && r != -EBUSY && r != -EACCES && r != -EPERM && r != -ENOENT)
		return ctl_fail(ctl, r);
	pool.id = info->id;
	pool.name = (char *)(uintptr_t)info->name;
	pool.state = REFUSED;
	pool.bytes = info->bytes;
	pool.text = (char *)(uintptr_t)nvmm_errmsg(ctl->nvmm);
	write_pool(ctl, &pool);
	return r == -EUCLEAN ? CTL_DAMAGED : CTL_FAILED;
}

static enum ctl_exit recover_all(struct ctl *ctl)
{
	enum ctl_exit worst = CTL_DONE;
	nvmm_pool_id after = 0;

	for (;;) {
		struct nvmm_pool_info infos[POOLS_AT_ONCE];
		int n = nvmm_pool_list(ctl->nvmm, after, infos, POOLS_AT_ONCE);

		if (n <= 0)
			return n < 0 ? ctl_fail(ctl, n) : worst;
		for (int i = 0; i < n; i++) {
			enum ctl_exit code = CTL_DONE;

			after = infos[i].id;
			if (infos[i].kind == NVMM_POOL_HEAP || infos[i].damaged)
				code = recover_next(ctl, &infos[i]);
			if (ctl->failed)
				return code;
			worst = code != CTL_DONE && worst != CTL_DAMAGED ? code : worst;
		}
	}
}

/* Writes the pools of one answer; where the next one begins, 0: it was all. */
static uint32_t write_some(struct ctl *ctl, const Nvmm__RecoverStatusReply *status,
			   enum ctl_exit *worst)
{
	uint32_t last = 0;

	for (size_t i = 0; i < status->n_pools; i++) {
		write_pool(ctl, status->pools[i]);
		last = status->pools[i]->id;
		if (status->pools[i]->state == 5)
			*worst = CTL_DAMAGED;
	}
	return status->more ? last : 0;
}

static enum ctl_exit write_status(struct ctl *ctl)
{
	enum ctl_exit worst = CTL_DONE;
	uint32_t after = 0;

	do {
		_cleanup(nvmm_reply_deinit) struct nvmm_reply reply = NVMM_REPLY_INIT;
		int r = ask(ctl, 0, after, &reply);

		if (r < 0)
			return ctl_fail(ctl, r);
		after = write_some(ctl, reply.msg->recover_status, &worst);
	} while (after > 0);
	return worst;
}

/* Shows how far it is, by the pools behind `after`: 1: one of them goes on; 0, where the next page begins in
 * *next, 0: there is none; or an error. */
static int look(struct ctl *ctl, uint32_t after, uint32_t *next)
{
	_cleanup(nvmm_reply_deinit) struct nvmm_reply reply = NVMM_REPLY_INIT;
	const Nvmm__RecoverStatusReply *status;
	int r = ask(ctl, 0, after, &reply);

	if (r < 0)
		return r;
	status = reply.msg->recover_status;
	show_progress(ctl, status->bytes_done, status->bytes);
	*next = status->more ? status->pools[status->n_pools - 1]->id : 0;
	for (size_t i = 0; i < status->n_pools; i++)
		if (goes_on(status->pools[i]))
			return 1;
	return 0;
}

/* Until the pools of an unclean start are done; those that are held wait for a command. */
static enum ctl_exit watch(struct ctl *ctl)
{
	uint32_t after = 0, next = 0;
	int r;

	while ((r = look(ctl, after, &next)) > 0 || (r == 0 && next > 0)) {
		if (r > 0)
			wait_a_little();
		else
			after = next;
	}
	end_progress(ctl);
	return r < 0 ? ctl_fail(ctl, r) : CTL_DONE;
}

static enum ctl_exit run(struct ctl *ctl)
{
	bool all = ctl_option(ctl, "all") != NULL;
	enum ctl_exit code;

	if (all && ctl->n_args > 0)
		return ctl_usage(ctl, "--all and pools");
	if (!all && ctl->n_args == 0 && (ctl_option(ctl, "offline") || ctl_option(ctl, "repair")))
		return ctl_usage(ctl, "which pools? --all recovers each");
	code = ctl_connect(ctl);
	if (code != CTL_DONE)
		return code;
	if (!all && ctl->n_args == 0 && ctl_option(ctl, "watch"))
		code = watch(ctl);
	if (code != CTL_DONE)
		return code;
	writer_list(ctl->writer, "pools");
	if (all)
		code = recover_all(ctl);
	else
		code = ctl->n_args > 0 ? poolview_each_named(ctl, recover_one) : write_status(ctl);
	if (!ctl->failed)
		writer_list_end(ctl->writer, "Nothing was to be recovered.");
	return code;
}

static const char help[] =
	"Has heaps recovered and waits for it: what is empty is given back, everything is verified.\n"
	"The daemon does so by itself when it was not stopped in order. With --offline nobody\n"
	"else may have the heap open, and opens wait; what was interrupted is completed. With\n"
	"--repair, which is offline, what is rotten is mended: what is provably good is kept, what\n"
	"cannot be told is kept as allocated, and `nvmmctl check` before says what that is.\n"
	"Without pools it shows those that were or are being recovered; with --watch it waits for\n"
	"them. The exit status is 5 if a pool is found damaged.\n"
	"\n"
	"Examples:\n"
	"  nvmmctl recover --watch\n"
	"  nvmmctl recover words --offline\n"
	"  nvmmctl recover words --repair\n";

const struct command command_recover = {
	.name = "recover",
	.args = "[POOL...|--all] [--offline] [--repair] [--watch]",
	.summary = "Has heaps recovered, or shows how far it is",
	.help = help,
	.max_args = 1024,
	.options = {
		{ "all", NULL, "every heap" },
		{ "offline", NULL, "while nobody else has it open" },
		{ "repair", NULL, "mend what is rotten first" },
		{ "watch", NULL, "show progress on the terminal until it is done" },
	},
	.run = run,
};
