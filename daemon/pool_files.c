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
#include "media/file.h"
#include "media/span.h"

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
#define _fd _cleanup(close_fd)

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

static int make_file(int pool_fd, const struct pool_record *record, enum pool_file file,
		     uint32_t index, const struct shelf_record *s)
{
	_fd int fd = -1;
	char name[64];
	int r;

	pool_file_name(name, record->home, file, index);
	r = file_create(&fd, pool_fd, name, pool_file_length(record, file, s));
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
	return 0;
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
	return 0;
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
