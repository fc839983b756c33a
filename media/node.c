/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * node-<k>: one two-slot record. The daemon that serves a base takes the clean mark away, durably,
 * before its first change, and sets it after the last one is durable; so a mark that is found says
 * that everything before it is there.
 */
#include "media/node.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"
#include "media/recfile.h"
#include "media/slot.h"

#define NODE_NAME_MAX 16

struct node_file {
	struct recfile file;
	uint16_t node;
};

DEFINE_AUTO(struct node_file, node_file_free)

union node_copy {
	uint64_t word[sizeof(struct node_record_df) / sizeof(uint64_t)];
	struct node_record_df df;
};

static void *node_slots(struct node_file *file)
{
	return file->file.addr + offsetof(struct node_file_df, slot);
}

static bool node_ok(const struct node_record *record, uint16_t node)
{
	return record->node == node &&
	       strnlen(record->name, sizeof(record->name)) < sizeof(record->name);
}

static void unpack(struct node_record *ret, const struct node_record_df *df)
{
	*ret = (struct node_record){
		.node = df->node.raw,
		.clean = df->clean.raw == 1,
		.starts = df->starts.raw,
		.last_stop = df->last_stop.raw,
		.owners = df->owners.raw,
	};
	memcpy(ret->boot_id, df->boot_id, sizeof(ret->boot_id));
	memcpy(ret->name, df->name, sizeof(ret->name));
}

static int node_read(struct node_file *file, struct node_record *ret, const char **why)
{
	struct node_record record = { .node = file->node };
	union node_copy copy;
	int r;

	r = slot_get(&copy, node_slots(file), sizeof(copy));
	if (r == 0)
		*ret = record;
	if (r < 0)
		*why = "wrong checksum of the node's record";
	if (r <= 0)
		return r;
	unpack(&record, &copy.df);
	if (!node_ok(&record, file->node)) {
		*why = "record of another node, or its name has no end";
		return -EUCLEAN;
	}
	*ret = record;
	return 0;
}

static int node_open(struct node_file *file, int base_fd, const char **why)
{
	char name[NODE_NAME_MAX];
	const struct recfile_id id = {
		.name = name,
		.magic = FILE_MAGIC_NODE,
		.node = file->node,
		.size = ALIGN_UP(sizeof(struct node_file_df), (size_t)MEDIA_PAGE),
	};
	int r;

	snprintf(name, sizeof(name), "node-%u", (unsigned)file->node);
	r = recfile_open(&file->file, base_fd, &id, why);
	if (r != -ENOENT)
		return r;
	r = recfile_create(base_fd, &id);
	if (r < 0)
		return r;
	return recfile_open(&file->file, base_fd, &id, why);
}

int node_file_new(struct node_file **ret, struct node_record *ret_record, int base_fd,
		  uint16_t node, const char **why)
{
	_auto(node_file_free) struct node_file *file = NULL;
	int r;

	file = calloc(1, sizeof(*file));
	if (!file)
		return -ENOMEM;
	file->file.fd = -1;
	file->node = node;
	r = node_open(file, base_fd, why);
	if (r < 0)
		return r;
	r = node_read(file, ret_record, why);
	if (r < 0)
		return r;
	*ret = take(file);
	return 0;
}

void node_file_free(struct node_file *file)
{
	if (!file)
		return;
	recfile_deinit(&file->file);
	free(file);
}

int node_file_put(struct node_file *file, const struct node_record *record)
{
	const struct node_record_df df = {
		.node = { record->node },
		.clean = { record->clean },
		.starts = { record->starts },
		.last_stop = { record->last_stop },
		.owners = { record->owners },
	};
	union node_copy copy;
	char *bytes = (char *)copy.word;

	if (!node_ok(record, file->node))
		return -EINVAL;
	memcpy(bytes, &df, sizeof(df));
	memcpy(bytes + offsetof(struct node_record_df, boot_id), record->boot_id,
	       sizeof(record->boot_id));
	memcpy(bytes + offsetof(struct node_record_df, name), record->name, sizeof(record->name));
	return slot_put(file->file.durability, node_slots(file), &copy, sizeof(copy));
}
