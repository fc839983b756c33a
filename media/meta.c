/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * meta.<node> of a pool: two-slot records of shelves, roots and service at fixed places, the file's space
 * reserved whole when it is made. Each record changes by itself, crash-atomically; nothing here
 * needs two of them to change at once. Records are copied out and checked before they are used,
 * and checked before they are written, so that what this daemon wrote it can read again.
 */
#include "media/meta.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"
#include "media/recfile.h"
#include "media/slot.h"

#define META_NAME_MAX 16

struct meta {
	struct recfile file;
};

DEFINE_AUTO(struct meta, meta_free)

union shelf_copy {
	uint64_t word[sizeof(struct shelf_record_df) / sizeof(uint64_t)];
	struct shelf_record_df df;
};

union root_copy {
	uint64_t word[sizeof(struct root_record_df) / sizeof(uint64_t)];
	struct root_record_df df;
};

union service_copy {
	uint64_t word[sizeof(struct service_record_df) / sizeof(uint64_t)];
	struct service_record_df df;
};

static struct meta_file_df *meta_df(struct meta *meta)
{
	return (void *)meta->file.addr;
}

static void meta_id(struct recfile_id *ret, char name[META_NAME_MAX], uint16_t node,
		    uint16_t pool, uint64_t incarnation)
{
	snprintf(name, META_NAME_MAX, "meta.%u", (unsigned)node);
	*ret = (struct recfile_id){
		.name = name,
		.magic = FILE_MAGIC_META,
		.node = node,
		.pool = pool,
		.incarnation = incarnation,
		.size = sizeof(struct meta_file_df),
	};
}

int meta_create(int pool_fd, uint16_t node, uint16_t pool, uint64_t incarnation)
{
	char name[META_NAME_MAX];
	struct recfile_id id;

	meta_id(&id, name, node, pool, incarnation);
	return recfile_create(pool_fd, &id);
}

static int meta_take_up(struct meta **ret, int pool_fd, const struct recfile_id *id,
			const char **why)
{
	_auto(meta_free) struct meta *meta = NULL;
	int r;

	meta = calloc(1, sizeof(*meta));
	if (!meta)
		return -ENOMEM;
	meta->file.fd = -1;
	r = recfile_open(&meta->file, pool_fd, id, why);
	if (r < 0)
		return r;
	*ret = take(meta);
	return 0;
}

int meta_open(struct meta **ret, int pool_fd, uint16_t node, uint16_t pool, uint64_t incarnation,
	      enum durability durability, const char **why)
{
	char name[META_NAME_MAX];
	struct recfile_id id;
	int r;

	meta_id(&id, name, node, pool, incarnation);
	r = meta_take_up(ret, pool_fd, &id, why);
	if (r == 0 && durability == DURABILITY_POWER)
		(*ret)->file.durability = durability;
	return r;
}

int meta_view(struct meta **ret, int pool_fd, uint16_t node, uint16_t pool, uint64_t incarnation,
	      const char **why)
{
	char name[META_NAME_MAX];
	struct recfile_id id;

	meta_id(&id, name, node, pool, incarnation);
	id.read_only = true;
	return meta_take_up(ret, pool_fd, &id, why);
}

void meta_free(struct meta *meta)
{
	if (!meta)
		return;
	recfile_deinit(&meta->file);
	free(meta);
}

static bool shelf_ok(const struct shelf_record *s)
{
	return s->size == 0 || (s->size % MEDIA_PAGE == 0 && s->size <= s->limit &&
				s->limit <= SHELF_SIZE_MAX);
}

/* False: it is not what was ever written there. */
static bool shelf_unpack(struct shelf_record *ret, const union shelf_copy *copy, uint32_t index)
{
	const struct shelf_record record = { .size = copy->df.size.raw, .limit = copy->df.limit.raw };

	if (copy->df.index.raw != index || !shelf_ok(&record))
		return false;
	*ret = record;
	return true;
}

int meta_shelf_get(struct meta *meta, uint32_t index, struct shelf_record *ret)
{
	union shelf_copy copy;
	int r;

	if (index >= POOL_SHELVES_MAX)
		return -EINVAL;
	r = slot_get(&copy, &meta_df(meta)->shelf[index], sizeof(copy));
	if (r == 0)
		*ret = (struct shelf_record){ 0 };
	if (r <= 0)
		return r;
	return shelf_unpack(ret, &copy, index) ? 0 : -EUCLEAN;
}

static int shelf_write(struct meta *meta, uint32_t index, const struct shelf_record *record,
		       slot_writer *write)
{
	const struct shelf_record_df df = {
		.index = { index },
		.size = { record->size },
		.limit = { record->limit },
	};

	if (index >= POOL_SHELVES_MAX || !shelf_ok(record))
		return -EINVAL;
	return write(meta->file.durability, &meta_df(meta)->shelf[index], &df, sizeof(df));
}

int meta_shelf_put(struct meta *meta, uint32_t index, const struct shelf_record *record)
{
	return shelf_write(meta, index, record, slot_put);
}

int meta_shelf_replace(struct meta *meta, uint32_t index, const struct shelf_record *record)
{
	return shelf_write(meta, index, record, slot_replace);
}

bool meta_shelf_salvage(struct meta *meta, uint32_t index, struct shelf_record *ret)
{
	union shelf_copy copy;

	return index < POOL_SHELVES_MAX &&
	       slot_salvage(&copy, &meta_df(meta)->shelf[index], sizeof(copy)) &&
	       shelf_unpack(ret, &copy, index);
}

/* Terminated and zero-padded. */
static bool root_name_ok(const char name[ROOT_NAME_MAX + 1])
{
	for (size_t i = strnlen(name, ROOT_NAME_MAX); i <= ROOT_NAME_MAX; i++) {
		if (name[i] != '\0')
			return false;
	}
	return true;
}

int meta_root_get(struct meta *meta, uint32_t place, struct root_record *ret)
{
	struct root_record record = { 0 };
	union root_copy copy;
	int r;

	if (place >= POOL_ROOTS_MAX)
		return -EINVAL;
	r = slot_get(&copy, &meta_df(meta)->root[place], sizeof(copy));
	if (r == 0)
		*ret = record;
	if (r <= 0)
		return r;
	record.ptr = copy.df.ptr.raw;
	record.op_seq = copy.df.op_seq.raw;
	memcpy(record.cookie, copy.df.cookie, sizeof(record.cookie));
	memcpy(record.name, copy.df.name, sizeof(record.name));
	if (!root_name_ok(record.name))
		return -EUCLEAN;
	*ret = record;
	return record.name[0] != '\0';
}

int meta_root_put(struct meta *meta, uint32_t place, const struct root_record *record)
{
	const struct root_record_df df = {
		.ptr = { record->ptr },
		.op_seq = { record->op_seq },
	};
	union root_copy copy;
	char *bytes = (char *)copy.word;

	if (place >= POOL_ROOTS_MAX || !root_name_ok(record->name))
		return -EINVAL;
	memcpy(bytes, &df, sizeof(df));
	memcpy(bytes + offsetof(struct root_record_df, cookie), record->cookie,
	       sizeof(record->cookie));
	memcpy(bytes + offsetof(struct root_record_df, name), record->name, sizeof(record->name));
	return slot_put(meta->file.durability, &meta_df(meta)->root[place], &copy, sizeof(copy));
}

int meta_root_find(struct meta *meta, const char *name, int *free_place)
{
	struct root_record record;
	int free = -1, r;
	bool rotten = false;

	for (uint32_t i = 0; i < POOL_ROOTS_MAX; i++) {
		r = meta_root_get(meta, i, &record);
		if (r < 0) {
			rotten = true; /* neither free nor anybody's */
			continue;
		}
		if (r == 0 && free < 0)
			free = (int)i;
		if (r == 1 && strcmp(record.name, name) == 0)
			return (int)i;
	}
	if (rotten)
		return -EUCLEAN;
	if (free_place)
		*free_place = free;
	return -ENOENT;
}

int meta_service_get(struct meta *meta, struct service_record *ret)
{
	struct service_record record = { 0 };
	union service_copy copy;
	int r;

	r = slot_get(&copy, &meta_df(meta)->service, sizeof(copy));
	if (r == 0)
		*ret = record;
	if (r <= 0)
		return r;
	if (copy.df.state.raw != SERVICE_CLOSED && copy.df.state.raw != SERVICE_IN_USE)
		return -EUCLEAN;
	record.in_use = copy.df.state.raw == SERVICE_IN_USE;
	memcpy(record.boot_id, copy.df.boot_id, sizeof(record.boot_id));
	*ret = record;
	return 0;
}

static int service_write(struct meta *meta, const struct service_record *record,
			 slot_writer *write)
{
	const struct service_record_df df = {
		.state = { record->in_use ? SERVICE_IN_USE : SERVICE_CLOSED },
	};
	union service_copy copy;
	char *bytes = (char *)copy.word;

	memcpy(bytes, &df, sizeof(df));
	memcpy(bytes + offsetof(struct service_record_df, boot_id), record->boot_id,
	       sizeof(record->boot_id));
	return write(meta->file.durability, &meta_df(meta)->service, &copy, sizeof(copy));
}

static bool same_service(const struct service_record *a, const struct service_record *b)
{
	return a->in_use == b->in_use && memcmp(a->boot_id, b->boot_id, sizeof(a->boot_id)) == 0;
}

int meta_service_put(struct meta *meta, const struct service_record *record)
{
	struct service_record now;
	int r = meta_service_get(meta, &now);

	return r < 0 || same_service(&now, record) ? r : service_write(meta, record, slot_put);
}

int meta_service_replace(struct meta *meta, const struct service_record *record)
{
	struct service_record now;

	if (meta_service_get(meta, &now) == 0 && same_service(&now, record))
		return 0;
	return service_write(meta, record, slot_replace);
}
