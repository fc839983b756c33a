/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pools as commands show and name them.
 *
 * Identity and access come from the public calls; what the public header has not (why a pool is
 * damaged, what is in a heap that we have not opened) from the daemon's own requests. A pool may
 * go while it is looked at: then its usage is unknown, and that is no error.
 */
#include "ctl/poolview.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "libclient/call.h"

#define POOLS_AT_ONCE 64u

/* Naming */

static bool is_number(const char *text)
{
	return *text && text[strspn(text, "0123456789")] == 0;
}

enum ctl_exit poolview_find(struct ctl *ctl, const char *text, nvmm_pool_id *ret)
{
	uint64_t id;
	int r;

	if (!is_number(text)) {
		r = nvmm_pool_lookup(ctl->nvmm, text, ret);
		return r < 0 ? ctl_fail(ctl, r) : CTL_DONE;
	}
	if (text_parse_u64(&id, text, UINT16_MAX) < 0 || id == 0)
		return ctl_usage(ctl, "'%s' is no pool's id, expected 1 to 65535", text);
	*ret = (nvmm_pool_id)id;
	return CTL_DONE;
}

enum ctl_exit poolview_find_info(struct ctl *ctl, const char *text, struct nvmm_pool_info *ret)
{
	struct nvmm_pool_info info = { .size = sizeof(info) };
	enum ctl_exit code;
	nvmm_pool_id id;
	int r;

	code = poolview_find(ctl, text, &id);
	if (code != CTL_DONE)
		return code;
	r = nvmm_pool_stat(ctl->nvmm, id, &info);
	if (r < 0)
		return ctl_fail(ctl, r);
	*ret = info;
	return CTL_DONE;
}

enum ctl_exit poolview_each_named(struct ctl *ctl, enum ctl_exit (*fn)(struct ctl *ctl, nvmm_pool_id id))
{
	enum ctl_exit worst = CTL_DONE;

	for (size_t i = 0; i < ctl->n_args; i++) {
		nvmm_pool_id id;
		enum ctl_exit code = poolview_find(ctl, ctl->args[i], &id);

		if (code == CTL_DONE)
			code = fn(ctl, id);
		if (code != CTL_DONE && code != CTL_DAMAGED)
			return code;
		worst = code == CTL_DAMAGED ? code : worst;
	}
	return worst;
}

const char *poolview_user(char *buf, size_t len, uid_t uid)
{
	const struct passwd *passwd = getpwuid(uid);

	if (passwd)
		snprintf(buf, len, "%s", passwd->pw_name);
	else
		snprintf(buf, len, "%u", (unsigned)uid);
	return buf;
}

static const char *pool_group(char *buf, size_t len, gid_t gid)
{
	const struct group *group = getgrgid(gid);

	if (group)
		snprintf(buf, len, "%s", group->gr_name);
	else
		snprintf(buf, len, "%u", (unsigned)gid);
	return buf;
}

static const char *kind_name(enum nvmm_pool_kind kind)
{
	switch (kind) {
	case NVMM_POOL_REGION:
		return "region";
	case NVMM_POOL_HEAP:
		return "heap";
	}
	return "unknown";
}

static const char *recovery_name(enum nvmm_pool_recovery recovery)
{
	switch (recovery) {
	case NVMM_POOL_RECOVERY_NONE:
		return "none";
	case NVMM_POOL_RECOVERY_WAITING:
		return "waits";
	case NVMM_POOL_RECOVERY_RUNNING:
		return "runs";
	case NVMM_POOL_RECOVERY_HELD:
		return "held";
	case NVMM_POOL_RECOVERY_DONE:
		return "done";
	case NVMM_POOL_RECOVERY_FAILED:
		return "failed";
	}
	return "unknown";
}

/* Whether nobody can use it until the operator does something. */
static bool needs_operator(const struct nvmm_pool_info *info)
{
	return info->damaged || info->recovery == NVMM_POOL_RECOVERY_HELD ||
	       info->recovery == NVMM_POOL_RECOVERY_FAILED;
}

static const char *row_state(const struct nvmm_pool_info *info)
{
	if (info->damaged)
		return "DAMAGED";
	if (info->recovery == NVMM_POOL_RECOVERY_HELD)
		return "HELD, not recovered";
	if (info->recovery == NVMM_POOL_RECOVERY_FAILED)
		return "RECOVERY FAILED";
	if (info->overgrown > 0)
		return "OVERGROWN";
	if (info->recovery == NVMM_POOL_RECOVERY_WAITING || info->recovery == NVMM_POOL_RECOVERY_RUNNING)
		return "recovering";
	return info->cuts > 0 ? "good, was cut back" : "good";
}

static const char *durability_name(enum nvmm_durability durability)
{
	switch (durability) {
	case NVMM_DURABILITY_PROCESS:
		return "process";
	case NVMM_DURABILITY_POWER:
		return "power";
	case NVMM_DURABILITY_DEFAULT:
		break;
	}
	return "unknown";
}

/* What the daemon knows beyond the public calls */

/* 0 with ret->known false: the heap cannot be counted; else why the daemon cannot be asked. */
static int heap_usage_get(struct ctl *ctl, const struct nvmm_pool_info *info,
			  struct heap_usage *ret)
{
	_cleanup(nvmm_reply_deinit) struct nvmm_reply reply = NVMM_REPLY_INIT;
	Nvmm__HeapStat op = NVMM__HEAP_STAT__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	const Nvmm__HeapInfo *heap;
	int r;

	*ret = (struct heap_usage){ .known = false };
	if (info->kind != NVMM_POOL_HEAP || info->damaged)
		return 0;
	op.id = info->id;
	request.op_case = NVMM__REQUEST__OP_HEAP_STAT;
	request.heap_stat = &op;
	r = nvmm_call(ctl->nvmm, &request, NVMM__REPLY__RESULT_HEAP, 0, &reply);
	if (r == -ENOENT || r == -EACCES || r == -EPERM || r == -EUCLEAN || r == -EBUSY)
		return 0;
	if (r < 0)
		return r;
	heap = reply.msg->heap;
	*ret = (struct heap_usage){
		.known = true,
		.bytes = heap->bytes,
		.used = heap->used,
		.limbo = heap->limbo,
		.free = heap->free,
		.largest = heap->largest,
		.blocks = heap->blocks,
		.spans = heap->spans,
		.lanes = heap->lanes,
		.overhead = heap->overhead,
		.suspects = heap->suspects,
	};
	for (size_t i = 0; i < heap->n_classes && i < ARRAY_SIZE(ret->class); i++) {
		const Nvmm__HeapClass *c = heap->classes[i];

		ret->class[ret->n_classes++] = (struct nvmm_heap_class){
			.block_size = c->block_size, .spans = c->spans, .bytes = c->bytes,
			.blocks = c->blocks, .used = c->used, .limbo = c->limbo,
		};
	}
	return 0;
}

/* Writes why a pool is damaged. */
static int write_damage(struct ctl *ctl, const struct nvmm_pool_info *info)
{
	_cleanup(nvmm_reply_deinit) struct nvmm_reply reply = NVMM_REPLY_INIT;
	Nvmm__PoolStat op = NVMM__POOL_STAT__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	int r;

	if (!info->damaged) {
		writer_none(ctl->writer, "damage", NULL);
		return 0;
	}
	op.id = info->id;
	request.op_case = NVMM__REQUEST__OP_POOL_STAT;
	request.pool_stat = &op;
	r = nvmm_call(ctl->nvmm, &request, NVMM__REPLY__RESULT_POOL, 0, &reply);
	if (r < 0)
		return r;
	writer_text(ctl->writer, "damage", "damage", reply.msg->pool->damage);
	return 0;
}

/* Writing */

static void write_identity(struct writer *w, const struct nvmm_pool_info *info)
{
	writer_count(w, "id", "id", info->id);
	writer_text(w, "name", "name", info->name);
	writer_text(w, "kind", "kind", kind_name(info->kind));
	writer_bytes(w, "size", "size", info->bytes);
}

static void write_access(struct writer *w, const struct nvmm_pool_info *info)
{
	char user[64], group[64], owner[160];

	snprintf(owner, sizeof(owner), "%s:%s", poolview_user(user, sizeof(user), info->uid),
		 pool_group(group, sizeof(group), info->gid));
	writer_text(w, NULL, "owner", owner);
	writer_text(w, "owner", NULL, user);
	writer_text(w, "group", NULL, group);
	writer_count(w, "uid", NULL, info->uid);
	writer_count(w, "gid", NULL, info->gid);
	writer_mode(w, "mode", "mode", info->mode);
	writer_count(w, "openers", "openers", info->openers);
}

/* A row for each size class that has spans. */
static void write_classes(struct writer *w, const struct heap_usage *usage)
{
	writer_list(w, "classes");
	for (size_t i = 0; i < usage->n_classes; i++) {
		const struct nvmm_heap_class *c = &usage->class[i];

		writer_item(w);
		if (c->block_size)
			writer_bytes(w, "block_size", "blocks of", c->block_size);
		else
			writer_none(w, "block_size", "blocks of");
		writer_count(w, "spans", "spans", c->spans);
		writer_bytes(w, "bytes", "in spans", c->bytes);
		writer_count(w, "blocks", "blocks", c->blocks);
		writer_count(w, "used", "allocated", c->used);
		writer_share(w, "used_percent", "part", c->used, c->blocks);
		writer_count(w, "limbo", "in limbo", c->limbo);
	}
	writer_list_end(w, "No block is allocated.");
}

/* A heap's roots, by opening it for reading. How many; 0 with *ret NULL; why there is nothing to tell. */
static int roots_get(struct ctl *ctl, nvmm_pool_id id, struct nvmm_root **ret)
{
	struct nvmm_root *roots = NULL, *more;
	struct nvmm_heap *heap;
	int n = 0, room, r;

	r = nvmm_heap_open(&heap, ctl->nvmm, id, O_RDONLY);
	if (r < 0)
		return r;
	/* Some may be added between the two calls. */
	do {
		room = n;
		n = nvmm_root_list(heap, roots, (size_t)room);
		if (n <= room)
			break;
		more = realloc(roots, (size_t)n * sizeof(*roots));
		if (!more)
			n = -ENOMEM;
		else
			roots = more;
	} while (n >= 0);
	nvmm_heap_close(heap);
	if (n <= 0) {
		free(roots);
		roots = NULL;
	}
	*ret = roots;
	return n;
}

/* The roots of a heap that is good; of one that cannot be opened now they are unknown. */
static void write_roots(struct ctl *ctl, const struct nvmm_pool_info *info)
{
	struct writer *w = ctl->writer;
	struct nvmm_root *roots;
	char ptr[32];
	int n;

	n = roots_get(ctl, info->id, &roots);
	if (n < 0) {
		writer_none(w, "roots", NULL);
		return;
	}
	writer_list(w, "roots");
	for (int i = 0; i < n; i++) {
		snprintf(ptr, sizeof(ptr), "0x%016" PRIx64, roots[i].ptr);
		writer_item(w);
		writer_text(w, "name", "root", roots[i].name);
		writer_text(w, "ptr", "points to", ptr);
	}
	writer_list_end(w, "No root is set.");
	free(roots);
}

static void write_usage(struct writer *w, const struct heap_usage *usage)
{
	if (!usage->known) {
		writer_none(w, "heap_used", NULL);
		return;
	}
	writer_bytes(w, "heap_used", "used", usage->used);
	writer_share(w, "heap_used_percent", "used part", usage->used, usage->bytes);
	writer_bytes(w, "heap_limbo", "limbo", usage->limbo);
	writer_bytes(w, "heap_free", "free", usage->free);
	writer_bytes(w, "heap_largest", "largest free", usage->largest);
	writer_bytes(w, "heap_overhead", "overhead", usage->overhead);
	writer_count(w, "heap_suspects", "suspects", usage->suspects);
	writer_count(w, "heap_blocks", "blocks", usage->blocks);
	writer_count(w, "heap_spans", "spans", usage->spans);
	writer_count(w, "heap_lanes", "lanes in use", usage->lanes);
}

enum ctl_exit poolview_write(struct ctl *ctl, const struct nvmm_pool_info *info, bool details)
{
	struct writer *w = ctl->writer;
	struct heap_usage usage;
	int r;

	write_identity(w, info);
	write_access(w, info);
	writer_bytes(w, "file_bytes", "in files", info->file_bytes);
	writer_bytes(w, "overgrown", info->overgrown > 0 ? "overgrown by clients" : NULL, info->overgrown);
	writer_count(w, "cuts", info->cuts > 0 ? "times cut back" : NULL, info->cuts);
	writer_count(w, "shelves", "shelves", info->shelves);
	if (info->kind == NVMM_POOL_HEAP)
		writer_bytes(w, "smallest_block", "smallest block", info->smallest_block);
	if (info->kind == NVMM_POOL_HEAP)
		writer_flag(w, "sparse", "sparse", info->sparse);
	writer_text(w, "durability", "durability", durability_name(info->durability));
	writer_count(w, "incarnation", "incarnation", info->incarnation);
	writer_time(w, "created", "created", info->created);
	r = heap_usage_get(ctl, info, &usage);
	if (r < 0)
		return ctl_fail(ctl, r);
	if (info->kind == NVMM_POOL_HEAP)
		write_usage(w, &usage);
	writer_text(w, NULL, "state", row_state(info));
	writer_text(w, "recovery", NULL, recovery_name(info->recovery));
	writer_flag(w, "damaged", NULL, info->damaged);
	r = write_damage(ctl, info);
	if (r < 0)
		return ctl_fail(ctl, r);
	if (details && usage.known)
		write_classes(w, &usage);
	if (details && info->kind == NVMM_POOL_HEAP && !info->damaged)
		write_roots(ctl, info);
	return needs_operator(info) ? CTL_DAMAGED : CTL_DONE;
}

enum ctl_exit poolview_write_changed(struct ctl *ctl, nvmm_pool_id id)
{
	struct nvmm_pool_info info = { .size = sizeof(info) };
	enum ctl_exit code;
	int r;

	r = nvmm_pool_stat(ctl->nvmm, id, &info);
	if (r == -EACCES || r == -EPERM) { /* it was given away */
		writer_count(ctl->writer, "id", "id", id);
		return CTL_DONE;
	}
	if (r < 0)
		return ctl_fail(ctl, r);
	code = poolview_write(ctl, &info, false);
	return code == CTL_DAMAGED ? CTL_DONE : code;
}

static int write_row(struct ctl *ctl, const struct nvmm_pool_info *info)
{
	struct writer *w = ctl->writer;
	struct heap_usage usage;
	int r;

	r = heap_usage_get(ctl, info, &usage);
	if (r < 0)
		return r;
	writer_item(w);
	write_identity(w, info);
	if (usage.known)
		writer_bytes(w, "heap_used", NULL, usage.used);
	else
		writer_none(w, "heap_used", NULL);
	writer_share(w, "heap_used_percent", "used", usage.used, usage.bytes);
	write_access(w, info);
	writer_text(w, NULL, "state", row_state(info));
	writer_bytes(w, "overgrown", NULL, info->overgrown);
	writer_count(w, "cuts", NULL, info->cuts);
	writer_text(w, "recovery", NULL, recovery_name(info->recovery));
	writer_flag(w, "damaged", NULL, info->damaged);
	return 0;
}

static int write_rows(struct ctl *ctl, bool *damaged)
{
	struct nvmm_pool_info infos[POOLS_AT_ONCE];
	nvmm_pool_id after = 0;
	int n, r;

	for (;;) {
		n = nvmm_pool_list(ctl->nvmm, after, infos, ARRAY_SIZE(infos));
		if (n <= 0)
			return n;
		for (int i = 0; i < n; i++) {
			r = write_row(ctl, &infos[i]);
			if (r < 0)
				return r;
			*damaged |= needs_operator(&infos[i]);
		}
		if (infos[n - 1].id <= after)
			return 0;
		after = infos[n - 1].id;
	}
}

enum ctl_exit poolview_write_all(struct ctl *ctl)
{
	bool damaged = false;
	int r;

	writer_list(ctl->writer, "pools");
	r = write_rows(ctl, &damaged);
	writer_list_end(ctl->writer, "No pools; see `nvmmctl pool create --help`.");
	if (r < 0)
		return ctl_fail(ctl, r);
	return damaged ? CTL_DAMAGED : CTL_DONE;
}
