/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nvmmctl check: reads all metadata of pools and says what is wrong with them. The daemon does it, or,
 * with --base, this process itself, on the files of a daemon that is stopped.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "common/text.h"
#include "ctl/poolview.h"
#include "libclient/call.h"
#include "media/guard.h"
#include "media/inspect.h"

#define POOLS_AT_ONCE 64u
#define BASE_LOCK "nvmmd.lock"

static void write_finding(struct ctl *ctl, uint32_t id, const char *file, uint64_t offset,
			  const char *what, const char *so)
{
	struct writer *w = ctl->writer;

	writer_item(w);
	writer_count(w, "pool", "pool", id);
	writer_text(w, "file", "file", file);
	writer_count(w, "offset", "byte", offset);
	writer_text(w, "what", "what", what);
	writer_text(w, "so", "so", so);
}

/* By the daemon */

static enum ctl_exit check_one(struct ctl *ctl, nvmm_pool_id id)
{
	_cleanup(nvmm_reply_deinit) struct nvmm_reply reply = NVMM_REPLY_INIT;
	Nvmm__Check op = NVMM__CHECK__INIT;
	Nvmm__Request request = NVMM_REQUEST(CHECK, check, &op);
	const Nvmm__CheckReply *check;
	int r;

	op.id = id;
	r = nvmm_call(ctl->nvmm, &request, NVMM__REPLY__RESULT_CHECK, 0, &reply);
	if (r < 0)
		return ctl_fail(ctl, r);
	check = reply.msg->check;
	for (size_t i = 0; i < check->n_findings; i++)
		write_finding(ctl, id, check->findings[i]->file, check->findings[i]->offset,
			      check->findings[i]->what, check->findings[i]->so);
	return check->violations > 0 ? CTL_DAMAGED : CTL_DONE;
}

static enum ctl_exit check_all(struct ctl *ctl)
{
	enum ctl_exit worst = CTL_DONE;
	nvmm_pool_id after = 0;

	for (;;) {
		struct nvmm_pool_info infos[POOLS_AT_ONCE];
		int n = nvmm_pool_list(ctl->nvmm, after, infos, POOLS_AT_ONCE);

		if (n <= 0)
			return n < 0 ? ctl_fail(ctl, n) : worst;
		for (int i = 0; i < n; i++) {
			enum ctl_exit code = check_one(ctl, infos[i].id);

			after = infos[i].id;
			if (code != CTL_DONE && code != CTL_DAMAGED)
				return code;
			worst = code == CTL_DAMAGED ? code : worst;
		}
	}
}

static enum ctl_exit check_by_daemon(struct ctl *ctl)
{
	enum ctl_exit code = ctl_connect(ctl);

	if (code != CTL_DONE)
		return code;
	writer_list(ctl->writer, "findings");
	code = ctl->n_args > 0 ? poolview_each_named(ctl, check_one) : check_all(ctl);
	if (!ctl->failed)
		writer_list_end(ctl->writer, "Nothing is wrong.");
	return code;
}

/* By itself */

static enum ctl_exit base_fail(struct ctl *ctl, const char *what, const char *why)
{
	ctl->failed = true;
	fprintf(ctl->err, "nvmmctl: check: %s/%s: %s\n", ctl_option(ctl, "base"), what, why);
	return CTL_FAILED;
}

static enum ctl_exit inspect_one(struct ctl *ctl, int base, struct registry *registry, uint16_t id)
{
	struct check_report *report = calloc(1, sizeof(*report));
	struct pool_record record;
	enum ctl_exit code = CTL_DONE;
	int r;

	if (!report)
		return base_fail(ctl, "registry", strerror(ENOMEM));
	r = inspect_record(report, registry, base, id, &record);
	if (r > 0)
		r = inspect_pool(report, base, &record, 0, false);
	for (uint32_t i = 0; r >= 0 && i < report->n_findings; i++)
		write_finding(ctl, id, report->finding[i].file, report->finding[i].offset,
			      report->finding[i].what, report->finding[i].so);
	if (r < 0)
		code = base_fail(ctl, "its files", strerror(-r));
	else if (report->violations > 0)
		code = CTL_DAMAGED;
	free(report);
	return code;
}

static enum ctl_exit inspect_all(struct ctl *ctl, int base)
{
	enum ctl_exit code, worst = CTL_DONE;
	struct registry *registry = NULL;
	const char *why = "it cannot be read";
	uint64_t only = 0;
	int r;

	if (ctl->n_args > 0 &&
	    (text_parse_u64(&only, ctl->args[0], UINT16_MAX) < 0 || only == 0 || ctl->n_args > 1))
		return ctl_usage(ctl, "with --base a pool is named by its id, and one at a time");
	r = registry_view(&registry, base, &why);
	if (r < 0) {
		base_fail(ctl, "registry", r == -EUCLEAN ? why : strerror(-r));
		return r == -EUCLEAN ? CTL_DAMAGED : CTL_FAILED;
	}
	for (uint32_t id = 1; id <= POOL_ID_MAX; id++) {
		code = only == 0 || only == id ? inspect_one(ctl, base, registry, (uint16_t)id) :
						 CTL_DONE;
		if (code != CTL_DONE)
			worst = code;
		if (ctl->failed)
			break;
	}
	registry_free(registry);
	return worst;
}

/* Nobody else changes the files: the daemon's lock, unless the user says that he only reads. */
static enum ctl_exit lock_base(struct ctl *ctl, int base, int *lock)
{
	*lock = -1;
	if (ctl_option(ctl, "read-only"))
		return CTL_DONE;
	*lock = openat(base, BASE_LOCK, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (*lock < 0)
		return base_fail(ctl, BASE_LOCK, strerror(errno));
	if (flock(*lock, LOCK_EX | LOCK_NB) < 0)
		return base_fail(ctl, BASE_LOCK,
				 "a daemon serves this base: ask it, or read only, with --read-only");
	return CTL_DONE;
}

static enum ctl_exit check_base(struct ctl *ctl)
{
	int base, lock = -1, r = guard_init();
	enum ctl_exit code;

	base = open(ctl_option(ctl, "base"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (base < 0 || r < 0)
		return base_fail(ctl, "", strerror(base < 0 ? errno : -r));
	code = lock_base(ctl, base, &lock);
	if (code == CTL_DONE)
		code = ctl_write(ctl);
	if (code == CTL_DONE) {
		writer_list(ctl->writer, "findings");
		code = inspect_all(ctl, base);
		writer_list_end(ctl->writer, "Nothing is wrong.");
	}
	if (lock >= 0)
		close(lock);
	close(base);
	return code;
}

static enum ctl_exit run(struct ctl *ctl)
{
	if (ctl_option(ctl, "all") && ctl->n_args > 0)
		return ctl_usage(ctl, "--all and pools");
	if (ctl_option(ctl, "base"))
		return check_base(ctl);
	if (ctl_option(ctl, "read-only"))
		return ctl_usage(ctl, "--read-only goes with --base");
	return check_by_daemon(ctl);
}

static const char help[] =
	"Reads all metadata of pools, all of them or those that are named, and lists what is wrong:\n"
	"file and byte, which rule is broken, what follows. It changes nothing, and works beside\n"
	"programs that use the pools. With --base it reads the files of a stopped daemon by itself;\n"
	"it holds the daemon's lock meanwhile, unless --read-only is given. The exit status is 5 if\n"
	"anything was found.\n"
	"\n"
	"Examples:\n"
	"  nvmmctl check words\n"
	"  nvmmctl check --base /var/lib/nvmmd 7\n";

const struct command command_check = {
	.name = "check",
	.args = "[POOL...|--all] [--base DIR [--read-only]]",
	.summary = "Reads all metadata of pools and says what is wrong",
	.help = help,
	.max_args = 1024,
	.options = {
		{ "all", NULL, "every pool" },
		{ "base", "DIR", "the shelf base of a stopped daemon" },
		{ "read-only", NULL, "do not take the daemon's lock" },
	},
	.run = run,
};
