/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The files of a pool. What they are called and how long they are follows from numbers that stand in
 * the registry and in meta: daemon and check go by the same.
 */
#include "media/poolfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/macro.h"
#include "media/file.h"
#include "media/span.h"

void pool_dir_name(char buf[32], uint16_t id)
{
	snprintf(buf, 32, "pool-%u", id);
}

void pool_file_name(char buf[64], uint16_t node, enum pool_file file, uint32_t index)
{
	switch (file) {
	case POOL_FILE_SHELF:
		snprintf(buf, 64, "shelf-%u", index);
		break;
	case POOL_FILE_TABLE:
		snprintf(buf, 64, "table-%u.%u", index, node);
		break;
	case POOL_FILE_STATE:
		snprintf(buf, 64, "state-%u", index);
		break;
	case POOL_FILE_LANES:
		snprintf(buf, 64, "lanes.%u", node);
		break;
	}
}

uint64_t pool_file_length(const struct pool_record *record, enum pool_file file,
			  const struct shelf_record *s)
{
	uint64_t units = s->size >> UNIT_SHIFT, limit = s->limit >> UNIT_SHIFT;
	bool sparse = record->flags & POOL_SPARSE;
	struct state_layout layout;

	switch (file) {
	case POOL_FILE_TABLE:
		return sparse ? sparse_table_size(limit) : table_file_size(units);
	case POOL_FILE_STATE:
		if (state_layout_init(&layout, record->min_block) < 0)
			return 0;
		return state_file_size(&layout, limit, sparse ? limit : units);
	case POOL_FILE_LANES:
		return lanes_file_size(LANES_FIRST);
	case POOL_FILE_SHELF:
		break;
	}
	return s->size;
}

uint64_t pool_file_magic(enum pool_file file)
{
	switch (file) {
	case POOL_FILE_TABLE:
		return FILE_MAGIC_TABLE;
	case POOL_FILE_STATE:
		return FILE_MAGIC_STATE;
	case POOL_FILE_LANES:
		return FILE_MAGIC_LANES;
	case POOL_FILE_SHELF:
		break;
	}
	return 0;
}

uint64_t pool_file_limit(enum pool_file file, const struct shelf_record *s)
{
	return file == POOL_FILE_LANES ? LANES_MAX : s->limit >> UNIT_SHIFT;
}

uint32_t pool_files_of_shelf(const struct pool_record *record)
{
	return record->kind == POOL_HEAP ? POOL_FILE_STATE + 1u : POOL_FILE_SHELF + 1u;
}

int pool_files_dir(int *ret, int base_fd, uint16_t id)
{
	char name[32];
	int fd;

	pool_dir_name(name, id);
	fd = openat(base_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*ret = fd;
	return 0;
}

int pool_files_open(int *ret, int pool_fd, uint16_t node, enum pool_file file, uint32_t index,
		    int flags)
{
	char name[64];

	pool_file_name(name, node, file, index);
	return file_open(ret, pool_fd, name, flags);
}

int pool_files_lanes(uint32_t *ret, int pool_fd, uint16_t node)
{
	char name[64];
	struct stat st;
	uint64_t lanes;

	pool_file_name(name, node, POOL_FILE_LANES, 0);
	if (fstatat(pool_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if ((uint64_t)st.st_size < lanes_file_size(1))
		return -EUCLEAN;
	lanes = ((uint64_t)st.st_size - lanes_file_size(0)) / sizeof(struct lane_df);
	*ret = (uint32_t)MIN(lanes, (uint64_t)LANES_MAX);
	return 0;
}

int pool_shelves_read(struct pool_shelves *ret, struct meta *meta)
{
	int r;

	ret->n = 0;
	for (uint32_t i = 0; i < POOL_SHELVES_MAX; i++) {
		struct shelf_record *s = &ret->shelf[i];

		r = meta_shelf_get(meta, i, s);
		if (r < 0)
			return r;
		if (s->size == 0)
			break;
		if (s->size > s->limit || s->limit > SHELF_SIZE_MAX)
			return -EUCLEAN;
		ret->n++;
		if (s->size < s->limit)
			break;
	}
	return 0;
}
