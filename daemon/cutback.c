/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Cutting files back.
 *
 * How long a file is to be follows from the records and from the number of lanes that the daemon gave. What is
 * beyond belongs to nobody: no client maps it but the one that made it, and a reader of it there gets what
 * it asked for, SIGBUS.
 *
 * ftruncate() frees blocks behind the end also where the length stays. Some file systems do so only when it
 * changes: so the blocks behind it are punched, too. Both are bounded by slices, so that a stop does not wait
 * for gigabytes in one system call; a client that lengthens the file meanwhile is met by the next pass.
 *
 * File systems count blocks of their own for a file (extents). So blocks alone are overgrowth only beyond a
 * slack. A client can hide that much behind each file.
 */
#include "daemon/cutback.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/macro.h"
#include "media/file.h"
#include "media/span.h"

#define CUT_SLICE (UINT64_C(256) << 20)
#define CUT_SLICES 4096u /* of one pass */
#define BLOCKS_SLACK (UINT64_C(64) << 10)

/* Calls fn for each file that clients may write; stops when it returns other than 0. */
static int each_file(const struct pool_record *record, const struct pool_shelves *shelves, uint32_t lanes,
		     int (*fn)(void *ctx, enum pool_file file, uint32_t index, uint64_t length), void *ctx)
{
	bool heap = record->kind == POOL_HEAP;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < shelves->n; i++) {
		const struct shelf_record *s = &shelves->shelf[i];

		r = fn(ctx, POOL_FILE_SHELF, i, pool_file_length(record, POOL_FILE_SHELF, s));
		if (r == 0 && heap)
			r = fn(ctx, POOL_FILE_STATE, i, pool_file_length(record, POOL_FILE_STATE, s));
	}
	return r == 0 && heap ? fn(ctx, POOL_FILE_LANES, 0, lanes_file_size(lanes)) : r;
}

struct look {
	int pool_fd;
	const struct pool_record *record;
	struct overgrowth over;
	int first; /* error */
	uint32_t n, max;
	int *fds;
	uint64_t *lengths;
};

/* Bytes that a file has beyond `length`. */
static uint64_t bytes_beyond(const struct stat *st, uint64_t length)
{
	uint64_t blocks = (uint64_t)st->st_blocks * 512, size = (uint64_t)st->st_size;
	uint64_t least = ALIGN_UP(length, (uint64_t)MAX(st->st_blksize, 4096)) + BLOCKS_SLACK + length / 256;

	if (blocks > least)
		return blocks - length;
	return size > length ? size - length : 0;
}

static int find_one(void *ctx, enum pool_file file, uint32_t index, uint64_t length)
{
	struct look *look = ctx;
	struct stat st;
	uint64_t bytes;
	char name[64];

	pool_file_name(name, look->record->home, file, index);
	if (fstatat(look->pool_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return 0;
	bytes = bytes_beyond(&st, length);
	look->over.bytes += bytes;
	look->over.lanes += file == POOL_FILE_LANES ? bytes : 0;
	look->over.longer |= (uint64_t)st.st_size > length;
	return 0;
}

void overgrowth_find(struct overgrowth *ret, int pool_fd, const struct pool_record *record,
		     const struct pool_shelves *shelves, uint32_t lanes)
{
	struct look look = { .pool_fd = pool_fd, .record = record };

	each_file(record, shelves, lanes, find_one, &look);
	*ret = look.over;
}

int cutback_file(int fd, uint64_t length)
{
	struct stat st;
	int r;

	for (unsigned i = 0; i < CUT_SLICES; i++) {
		uint64_t size;

		if (fstat(fd, &st) < 0)
			return -errno;
		size = (uint64_t)st.st_size;
		r = file_cut(fd, size > length + CUT_SLICE ? size - CUT_SLICE : length);
		if (r < 0)
			return r;
		if (size <= length + CUT_SLICE)
			break;
	}
	/* Failing is no harm: not every file system has it, and the length is right. */
	file_punch(fd, ALIGN_UP(length, (uint64_t)MEDIA_PAGE), INT64_MAX / MEDIA_PAGE * MEDIA_PAGE);
	return 0;
}

static int cut_one(void *ctx, enum pool_file file, uint32_t index, uint64_t length)
{
	struct look *look = ctx;
	_auto_fd int fd = -1;
	struct stat st;
	int r;

	r = pool_files_open(&fd, look->pool_fd, look->record->home, file, index, O_RDWR);
	if (r == 0 && fstat(fd, &st) < 0)
		r = -errno;
	/* A file that is shorter is damage, and not to be made long again. */
	if (r == 0 && (uint64_t)st.st_size >= length && bytes_beyond(&st, length) > 0)
		r = cutback_file(fd, length);
	if (r < 0 && look->first == 0)
		look->first = r;
	return 0;
}

int overgrowth_cut(int pool_fd, const struct pool_record *record, const struct pool_shelves *shelves,
		   uint32_t lanes)
{
	struct look look = { .pool_fd = pool_fd, .record = record };

	each_file(record, shelves, lanes, cut_one, &look);
	return look.first;
}

bool cutback_held(int fd)
{
	/* A lease for writing is given only to the one who alone has the file open; mappings count. */
	if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0)
		return true;
	fcntl(fd, F_SETLEASE, F_UNLCK);
	return false;
}

static int open_one(void *ctx, enum pool_file file, uint32_t index, uint64_t length)
{
	struct look *look = ctx;
	_auto_fd int fd = -1;

	if (look->n == look->max ||
	    pool_files_open(&fd, look->pool_fd, look->record->home, file, index, O_RDWR) < 0 ||
	    !cutback_held(fd))
		return 0;
	look->lengths[look->n] = length;
	look->fds[look->n++] = fd_take(&fd);
	return 0;
}

uint32_t cutback_open_held(int *fds, uint64_t *lengths, uint32_t max, int pool_fd,
			   const struct pool_record *record, const struct pool_shelves *shelves,
			   uint32_t lanes)
{
	struct look look = { .pool_fd = pool_fd, .record = record, .max = max, .fds = fds,
			     .lengths = lengths };

	each_file(record, shelves, lanes, open_one, &look);
	return look.n;
}
