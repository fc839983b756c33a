/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files of pools.
 *
 * Everything is done relative to a descriptor of the directory, and names come from numbers alone.
 * Headers are written before a file is synced, so that a record which says LIVE never speaks of a
 * file without one. Files are removed by reading the directory: whatever is in a pool's
 * directory is the pool's, a file that a killed daemon had begun as well.
 */
#include "daemon/pool_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/macro.h"
#include "media/backing.h"
#include "media/file.h"
#include "media/span.h"

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
#define _fd _cleanup(close_fd)

int pool_files_open3(int fds[3], int pool_fd, uint16_t node, uint32_t index)
{
	static const enum pool_file files[] = { POOL_FILE_SHELF, POOL_FILE_TABLE, POOL_FILE_STATE };
	int r = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
		r = pool_files_open(&fds[i], pool_fd, node, files[i], index, O_RDWR);
		if (r < 0) {
			while (i > 0)
				close(fds[--i]);
			break;
		}
	}
	return r;
}

static bool is_sparse(const struct pool_record *record)
{
	return record->flags & POOL_SPARSE;
}

/* Writes the header of a fresh file: through a mapping, since that is how media are written. */
static int write_header(int fd, const struct pool_record *record, enum pool_file file,
			uint32_t index, const struct shelf_record *s)
{
	void *addr;
	int r;

	r = file_map(&addr, fd, MEDIA_PAGE, 0, true);
	if (r < 0)
		return r;
	file_header_seal(addr, pool_file_magic(file), record->home, record->pool,
			 record->incarnation, index, record->min_block, pool_file_limit(file, s));
	media_persist(record->durability, addr, sizeof(struct file_header_df));
	file_unmap(addr, MEDIA_PAGE);
	return 0;
}

/* How much of a fresh file is reserved at once; of a sparse heap's shelf files the header alone. */
static uint64_t first_bytes(const struct pool_record *record, enum pool_file file,
			    const struct shelf_record *s)
{
	if (!is_sparse(record) || file == POOL_FILE_LANES)
		return pool_file_length(record, file, s);
	return file == POOL_FILE_SHELF ? 0 : MEDIA_PAGE;
}

/* Reserves the metadata of the first units that are to come into service, of a sparse heap's shelf. */
static int prepare_units(int pool_fd, const struct pool_record *record, uint32_t index,
			 const struct shelf_record *s, uint64_t unit)
{
	struct state_layout layout;
	int fds[3], r;

	if (!is_sparse(record))
		return 0;
	r = state_layout_init(&layout, record->min_block);
	if (r == 0)
		r = pool_files_open3(fds, pool_fd, record->home, index);
	if (r < 0)
		return r;
	r = backing_prepare(fds, &layout, record->durability, s->limit >> UNIT_SHIFT, unit);
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	return r;
}

static int make_file(int pool_fd, const struct pool_record *record, enum pool_file file,
		     uint32_t index, const struct shelf_record *s)
{
	_fd int fd = -1;
	char name[64];
	int r;

	pool_file_name(name, record->home, file, index);
	r = file_create_sparse(&fd, pool_fd, name, first_bytes(record, file, s),
			       pool_file_length(record, file, s));
	if (r == 0 && is_sparse(record) && file == POOL_FILE_TABLE)
		r = file_reserve(fd, table_file_size(s->limit >> UNIT_SHIFT),
				 pool_file_length(record, file, s));
	if (r < 0)
		return r;
	if (file != POOL_FILE_SHELF) {
		r = write_header(fd, record, file, index, s);
		if (r < 0)
			return r;
	}
	return file_sync(fd);
}

static int make_shelf(int pool_fd, const struct pool_record *record, uint32_t index,
		      const struct shelf_record *s)
{
	int r;

	for (uint32_t i = 0; i < pool_files_of_shelf(record); i++) {
		r = make_file(pool_fd, record, (enum pool_file)i, index, s);
		if (r < 0)
			return r;
	}
	return prepare_units(pool_fd, record, index, s, 0);
}

int pool_files_make(int base_fd, const struct pool_record *record,
		    const struct pool_shelves *shelves)
{
	_fd int pool_fd = -1;
	char name[64];
	int r;

	pool_dir_name(name, record->pool);
	r = file_make_dir(base_fd, name);
	if (r == 0)
		r = pool_files_dir(&pool_fd, base_fd, record->pool);
	if (r < 0)
		return r;
	r = meta_create(pool_fd, record->home, record->pool, record->incarnation);
	for (uint32_t i = 0; r == 0 && i < shelves->n; i++)
		r = make_shelf(pool_fd, record, i, &shelves->shelf[i]);
	if (r == 0 && record->kind == POOL_HEAP)
		r = make_file(pool_fd, record, POOL_FILE_LANES, 0, &shelves->shelf[0]);
	if (r < 0)
		return r;
	r = file_sync(pool_fd);
	return r < 0 ? r : file_sync(base_fd);
}

static int lengthen_file(int pool_fd, const struct pool_record *record, enum pool_file file,
			 uint32_t index, const struct shelf_record *now,
			 const struct shelf_record *to)
{
	_fd int fd = -1;
	int r;

	r = pool_files_open(&fd, pool_fd, record->home, file, index, O_RDWR);
	if (r < 0)
		return r;
	if (is_sparse(record))
		r = file_lengthen(fd, pool_file_length(record, file, to));
	else
		r = file_reserve(fd, pool_file_length(record, file, now), pool_file_length(record, file, to));
	return r < 0 ? r : file_sync(fd);
}

static int lengthen_shelf(int pool_fd, const struct pool_record *record, uint32_t index,
			  const struct shelf_record *now, const struct shelf_record *to)
{
	int r;

	for (uint32_t i = 0; i < pool_files_of_shelf(record); i++) {
		r = lengthen_file(pool_fd, record, (enum pool_file)i, index, now, to);
		if (r < 0)
			return r;
	}
	return prepare_units(pool_fd, record, index, to, now->size >> UNIT_SHIFT);
}

int pool_files_grow(int pool_fd, const struct pool_record *record, const struct pool_shelves *now,
		    const struct pool_shelves *to)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < to->n; i++) {
		if (i >= now->n)
			r = make_shelf(pool_fd, record, i, &to->shelf[i]);
		else if (now->shelf[i].size != to->shelf[i].size)
			r = lengthen_shelf(pool_fd, record, i, &now->shelf[i], &to->shelf[i]);
	}
	if (r == 0)
		r = file_sync(pool_fd);
	if (r < 0)
		pool_files_cut(pool_fd, record, now);
	return r;
}

static int cut_file(int pool_fd, const struct pool_record *record, enum pool_file file,
		    uint32_t index, const struct shelf_record *s)
{
	uint64_t length = pool_file_length(record, file, s);
	_fd int fd = -1;
	struct stat st;
	int r;

	r = pool_files_open(&fd, pool_fd, record->home, file, index, O_RDWR);
	if (r < 0)
		return r;
	if (fstat(fd, &st) < 0)
		return -errno;
	return (uint64_t)st.st_size > length ? file_cut(fd, length) : 0;
}

int pool_files_cut(int pool_fd, const struct pool_record *record,
		   const struct pool_shelves *shelves)
{
	char name[64];
	int r, first = 0;

	for (uint32_t i = 0; i < POOL_SHELVES_MAX; i++) {
		for (uint32_t f = 0; f < pool_files_of_shelf(record); f++) {
			pool_file_name(name, record->home, (enum pool_file)f, i);
			if (i < shelves->n)
				r = cut_file(pool_fd, record, (enum pool_file)f, i,
					     &shelves->shelf[i]);
			else
				r = file_remove(pool_fd, name);
			if (r == -ENOENT && i >= shelves->n)
				r = 0;
			if (r < 0 && first == 0)
				first = r;
		}
	}
	return first;
}

/* Removes every file in a directory; takes its descriptor. */
static int empty_dir(int fd)
{
	DIR *dir = fdopendir(fd);
	struct dirent *e;
	int first = 0, r;

	if (!dir) {
		r = -errno;
		close(fd);
		return r;
	}
	while ((e = readdir(dir))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		r = file_remove(fd, e->d_name);
		if (r < 0 && r != -ENOENT && first == 0)
			first = r;
	}
	closedir(dir);
	return first;
}

int pool_files_remove(int base_fd, uint16_t id)
{
	char name[64];
	int fd, r;

	r = pool_files_dir(&fd, base_fd, id);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = empty_dir(fd);
	if (r < 0)
		return r;
	pool_dir_name(name, id);
	r = file_remove_dir(base_fd, name);
	return r < 0 ? r : file_sync(base_fd);
}

int pool_files_audit(int pool_fd, const struct pool_record *record,
		     const struct pool_shelves *shelves, char what[64])
{
	struct stat st;

	for (uint32_t i = 0; i < shelves->n; i++) {
		for (uint32_t f = 0; f < pool_files_of_shelf(record); f++) {
			pool_file_name(what, record->home, (enum pool_file)f, i);
			if (fstatat(pool_fd, what, &st, AT_SYMLINK_NOFOLLOW) < 0)
				return -errno;
			if (!S_ISREG(st.st_mode) ||
			    (uint64_t)st.st_size <
				    pool_file_length(record, (enum pool_file)f, &shelves->shelf[i]))
				return -EIO;
		}
	}
	return 0;
}

uint64_t pool_files_held(int pool_fd, const struct pool_record *record,
			 const struct pool_shelves *shelves)
{
	uint64_t bytes = 0;
	struct stat st;
	char name[64];

	for (uint32_t i = 0; i < shelves->n; i++)
		for (uint32_t f = 0; f < pool_files_of_shelf(record); f++) {
			pool_file_name(name, record->home, (enum pool_file)f, i);
			if (fstatat(pool_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
				bytes += (uint64_t)st.st_blocks * 512;
		}
	return bytes;
}
