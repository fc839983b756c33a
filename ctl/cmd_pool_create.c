/* SPDX-License-Identifier: BSD-3-Clause */
/* nvmmctl pool create: a region or a heap. */
#include <string.h>

#include "common/text.h"
#include "ctl/poolview.h"

struct request {
	nvmm_pool_id id;
	enum nvmm_pool_kind kind;
	uint64_t bytes;
	struct nvmm_pool_options options;
};

static enum ctl_exit parse_name(struct ctl *ctl, struct request *request)
{
	const char *name = ctl->n_args > 0 ? ctl->args[0] : NULL;

	if (!name)
		return CTL_DONE;
	if (!*name || strlen(name) > NVMM_NAME_MAX || strchr(name, '/'))
		return ctl_usage(ctl, "'%s' is no name, expected 1 to %d bytes without '/'", name,
				 NVMM_NAME_MAX);
	if (name[strspn(name, "0123456789")] == 0)
		return ctl_usage(ctl, "the name '%s' would be taken for an id", name);
	request->options.name = name;
	return CTL_DONE;
}

static enum ctl_exit parse_kind(struct ctl *ctl, struct request *request)
{
	const char *kind = ctl_option(ctl, "kind");

	if (!kind || !strcmp(kind, "heap"))
		request->kind = NVMM_POOL_HEAP;
	else if (!strcmp(kind, "region"))
		request->kind = NVMM_POOL_REGION;
	else
		return ctl_usage(ctl, "kind '%s', expected heap or region", kind);
	return CTL_DONE;
}

static enum ctl_exit parse_id(struct ctl *ctl, struct request *request)
{
	const char *text = ctl_option(ctl, "id");
	uint64_t id;

	if (!text)
		return CTL_DONE;
	if (text_parse_u64(&id, text, UINT16_MAX) < 0 || id == 0)
		return ctl_usage(ctl, "id '%s' is none, expected 1 to 65535", text);
	request->id = (nvmm_pool_id)id;
	return CTL_DONE;
}

static enum ctl_exit parse_block(struct ctl *ctl, struct request *request)
{
	const char *text = ctl_option(ctl, "smallest-block");
	uint64_t bytes;

	if (!text)
		return CTL_DONE;
	if (request->kind != NVMM_POOL_HEAP)
		return ctl_usage(ctl, "a region has no blocks: --smallest-block is for heaps");
	if (text_parse_size(&bytes, text) < 0 || bytes < 16 || bytes > 256 || (bytes & (bytes - 1)))
		return ctl_usage(ctl, "smallest block '%s', expected 16, 32, 64, 128 or 256", text);
	request->options.smallest_block = (uint32_t)bytes;
	return CTL_DONE;
}

static enum ctl_exit parse_sparse(struct ctl *ctl, struct request *request)
{
	request->options.sparse = ctl_option(ctl, "sparse") != NULL;
	if (request->options.sparse && request->kind != NVMM_POOL_HEAP)
		return ctl_usage(ctl, "a region is mapped as it is: --sparse is for heaps");
	return CTL_DONE;
}

static enum ctl_exit parse_priority(struct ctl *ctl, struct request *request)
{
	const char *text = ctl_option(ctl, "priority");
	uint64_t priority;

	if (!text)
		return CTL_DONE;
	if (request->kind != NVMM_POOL_HEAP)
		return ctl_usage(ctl, "a region is not recovered: --priority is for heaps");
	if (text_parse_u64(&priority, text, UINT8_MAX) < 0)
		return ctl_usage(ctl, "priority '%s', expected 0 to 255", text);
	request->options.priority = (uint32_t)priority;
	return CTL_DONE;
}

static enum ctl_exit parse_durability(struct ctl *ctl, struct request *request)
{
	const char *text = ctl_option(ctl, "durability");

	if (!text)
		return CTL_DONE;
	if (!strcmp(text, "process"))
		request->options.durability = NVMM_DURABILITY_PROCESS;
	else if (!strcmp(text, "power"))
		request->options.durability = NVMM_DURABILITY_POWER;
	else
		return ctl_usage(ctl, "durability '%s', expected process or power", text);
	return CTL_DONE;
}

static enum ctl_exit parse_size(struct ctl *ctl, struct request *request)
{
	const char *text = ctl_option(ctl, "size");

	if (!text)
		return ctl_usage(ctl, "how large? --size is needed");
	return ctl_parse_size(ctl, "size", text, &request->bytes);
}

static enum ctl_exit parse_mode(struct ctl *ctl, struct request *request)
{
	const char *text = ctl_option(ctl, "mode");
	enum ctl_exit code;

	if (!text)
		return CTL_DONE;
	code = ctl_parse_mode(ctl, "mode", text, &request->options.mode);
	if (code == CTL_DONE && request->options.mode == 0)
		return ctl_usage(ctl, "with mode '%s' nobody could open it", text);
	return code;
}

static enum ctl_exit parse(struct ctl *ctl, struct request *request)
{
	static enum ctl_exit (*const steps[])(struct ctl *, struct request *) = {
		parse_name, parse_kind,  parse_size,       parse_id,
		parse_mode, parse_block, parse_durability, parse_sparse,
		parse_priority,
	};
	enum ctl_exit code = CTL_DONE;

	for (size_t i = 0; i < ARRAY_SIZE(steps) && code == CTL_DONE; i++)
		code = steps[i](ctl, request);
	return code;
}

static enum ctl_exit run(struct ctl *ctl)
{
	struct request request = { .options.size = sizeof(request.options) };
	enum ctl_exit code;
	int r;

	code = parse(ctl, &request);
	if (code == CTL_DONE)
		code = ctl_connect(ctl);
	if (code != CTL_DONE)
		return code;
	if (request.kind == NVMM_POOL_HEAP)
		r = nvmm_heap_create(ctl->nvmm, &request.id, request.bytes, &request.options);
	else
		r = nvmm_region_create(ctl->nvmm, &request.id, request.bytes, &request.options);
	if (r < 0)
		return ctl_fail(ctl, r);
	return poolview_write_changed(ctl, request.id);
}

static const char help[] =
	"A heap has an allocator in it: programs take blocks from it. A region is mapped as it\n"
	"is. All of its space is reserved now, so that no program runs out of it later; of a\n"
	"sparse heap it is reserved block by block, so that it can be larger than memory. The\n"
	"pool belongs to the user and group who make it. Without a name it is known by its id.\n"
	"\n"
	"Examples:\n"
	"  nvmmctl pool create words --size 512MiB\n"
	"      a heap for blocks of 16 bytes and more, for its owner alone\n"
	"  nvmmctl pool create cache --size 64GiB --mode 0660 --smallest-block 64\n"
	"      a heap that a group shares, with less metadata: no block under 64 bytes\n"
	"  nvmmctl pool create frames --kind region --size 4GiB --mode 0644\n"
	"      a region that everyone may read\n"
	"  nvmmctl pool create graph --size 1TiB --sparse\n"
	"      a heap that takes what is allocated in it\n"
	"  id=$(nvmmctl pool create --size 1GiB --json | jq .id)\n"
	"      a heap without a name, for a script\n";

const struct command command_pool_create = {
	.name = "pool create",
	.args = "[NAME] --size SIZE [OPTIONS]",
	.summary = "Makes a heap or a region",
	.help = help,
	.max_args = 1,
	.options = {
		{ "size", "SIZE", "bytes that programs can have of it, e.g. 512MiB; needed" },
		{ "kind", "KIND", "heap (default) or region" },
		{ "id", "ID", "1 to 65535; else the daemon chooses" },
		{ "mode", "MODE", "who may read and write, e.g. 0660; default 0600" },
		{ "smallest-block", "BYTES", "16 (default), 32, 64, 128 or 256; heaps alone" },
		{ "priority", "N", "of recovery after a crash: 0, or up to 255, which goes first" },
		{ "sparse", NULL, "reserve space as it is granted; heaps alone" },
		{ "durability", "WHAT", "process or power; default: as the daemon is configured" },
	},
	.run = run,
};
