/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inspection of a pool.
 *
 * From the outside in: the registry's record says what the pool is, meta which shelves it has, these
 * how long the files are; then headers; then what stands behind them. What is rotten is noted, and
 * what hangs on it is not looked at: a length that cannot be known is not guessed.
 *
 * Everything is mapped for reading only, so that nothing here can make it worse.
 */
#include "media/inspect.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/macro.h"
#include "media/file.h"
#include "media/guard.h"

struct inspected {
	void *addr;
	uint64_t len;
};

struct inspection {
	struct check_report *report;
	const struct pool_record *record;
	int dir;
	uint32_t given; /* lanes, as the daemon knows them; 0: unknown */
	bool live;
	int lanes_fd;
	uint64_t lanes_len; /* bytes that are looked at */
	struct pool_shelves shelves;
	struct inspected file[POOL_SHELVES_MAX][POOL_FILE_LANES];
	struct heap_shelf shelf[POOL_SHELVES_MAX];
	struct heap heap;
};

static const char unusable[] = "the pool cannot be used until it is repaired";

static void inspection_free(struct inspection *in)
{
	if (!in)
		return;
	for (uint32_t i = 0; i < POOL_SHELVES_MAX; i++)
		for (unsigned f = 0; f < POOL_FILE_LANES; f++)
			if (in->file[i][f].addr)
				file_unmap(in->file[i][f].addr, in->file[i][f].len);
	fd_close_p(&in->lanes_fd);
	fd_close_p(&in->dir);
	free(in);
}
DEFINE_AUTO(struct inspection, inspection_free)

/* Whether there is something under the name of a pool's directory. */
static bool has_directory(int base_fd, uint16_t id)
{
	struct stat st;
	char name[32];

	pool_dir_name(name, id);
	return fstatat(base_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

int inspect_record(struct check_report *report, struct registry *registry, int base_fd, uint16_t id,
		   struct pool_record *ret)
{
	const char *why = "there is no record of the pool, and its directory is there";
	int r = registry_get(registry, id, ret, &why);

	if (r > 0 && ret->state != POOL_FREE)
		return 1;
	if (r >= 0 && !has_directory(base_fd, id))
		return 0;
	*ret = (struct pool_record){ .pool = id };
	check_note(report, "registry",
		   offsetof(struct registry_file_df, entry) + id * sizeof(struct registry_entry_df),
		   0, why, "nobody can tell what the pool is; repair asks its files");
	return 1;
}

/* meta */

static void note_meta(struct inspection *in, uint64_t offset, const char *what, const char *so)
{
	char file[24];

	snprintf(file, sizeof(file), "meta.%u", in->record->home);
	check_note(in->report, file, offset, 0, what, so);
}

static void inspect_roots(struct inspection *in, struct meta *meta)
{
	struct root_record root;

	for (uint32_t i = 0; i < POOL_ROOTS_MAX; i++)
		if (meta_root_get(meta, i, &root) < 0)
			note_meta(in, offsetof(struct meta_file_df, root) +
					      i * sizeof(struct root_entry_df),
				  "the record of a root is rotten",
				  "the root cannot be read or changed; repair drops it");
}

static void inspect_service(struct inspection *in, struct meta *meta)
{
	struct service_record service;

	if (meta_service_get(meta, &service) < 0)
		note_meta(in, offsetof(struct meta_file_df, service),
			  "the service record is rotten", unusable);
}

/* A blank record looks like the pool's end: the registry says where that is. */
static int inspect_sizes(struct inspection *in)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < in->shelves.n; i++)
		bytes += in->shelves.shelf[i].size;
	if (bytes == in->record->size || in->record->state != POOL_LIVE)
		return 0;
	note_meta(in, offsetof(struct meta_file_df, shelf) +
			      in->shelves.n * sizeof(struct shelf_entry_df),
		  "the records of shelves do not add up to the pool's size", unusable);
	return -EUCLEAN;
}

static int inspect_meta(struct inspection *in)
{
	const struct pool_record *p = in->record;
	struct meta *meta = NULL;
	const char *why = "it cannot be read";
	int r;

	r = meta_view(&meta, in->dir, p->home, p->pool, p->incarnation, &why);
	if (r == -ENOENT)
		why = "the file is not there";
	if (r == -EUCLEAN || r == -ENOENT || r == -EIO || r == -ENODATA) {
		note_meta(in, 0, why, unusable);
		return 1;
	}
	if (r < 0)
		return r;
	r = pool_shelves_read(&in->shelves, meta);
	if (r < 0)
		note_meta(in, offsetof(struct meta_file_df, shelf) +
				      in->shelves.n * sizeof(struct shelf_entry_df),
			  "the record of a shelf is rotten", unusable);
	else
		r = inspect_sizes(in);
	inspect_roots(in, meta);
	inspect_service(in, meta);
	meta_free(meta);
	return r < 0;
}

/* Files */

struct header_copy {
	const volatile uint64_t *from;
	struct file_header_df to;
};

static int copy_header(void *arg)
{
	struct header_copy *copy = arg;

	for (size_t i = 0; i < sizeof(copy->to) / 8; i++)
		((uint64_t *)(void *)&copy->to)[i] = copy->from[i];
	return 0;
}

static bool inspect_header(struct inspection *in, const char *name, enum pool_file file,
			   uint32_t index, const void *addr)
{
	const struct pool_record *p = in->record;
	struct header_copy copy = { .from = addr };
	const char *why = "it cannot be read";
	int r;

	if (pool_file_magic(file) == 0)
		return true;
	r = guard_run(copy_header, &copy, NULL);
	if (r == 0)
		r = file_header_check(&copy.to, pool_file_magic(file), p->pool, p->incarnation,
				      index, &why);
	if (r < 0)
		check_note(in->report, name, 0, 0, why, unusable);
	return r == 0;
}

/* Bytes that a file never exceeds; UINT64_MAX: no client can make it longer. */
static uint64_t length_max(struct inspection *in, enum pool_file file, const struct shelf_record *s)
{
	struct shelf_record whole = *s;

	switch (file) {
	case POOL_FILE_SHELF:
		return s->limit;
	case POOL_FILE_STATE:
		whole.size = s->limit;
		return pool_file_length(in->record, file, &whole);
	case POOL_FILE_LANES:
		return lanes_file_size(LANES_MAX);
	case POOL_FILE_TABLE:
		break;
	}
	return UINT64_MAX;
}

/* Lanes are read, not mapped: a mapping would fill the file's holes. */
static int inspect_lanes(struct inspection *in, int *fd, uint64_t bytes)
{
	uint64_t most = lanes_file_size(in->given ? in->given : LANES_MAX);

	in->lanes_len = MIN(bytes, most);
	in->lanes_fd = fd_take(fd);
	return 0;
}

/* Opens a file, and maps it for reading if it is metadata and long enough; notes it else. 0, 1: it was noted. */
static int inspect_file(struct inspection *in, enum pool_file file, uint32_t index,
			const struct shelf_record *s, struct inspected *ret)
{
	uint64_t len = pool_file_length(in->record, file, s);
	_auto_fd int fd = -1;
	struct stat st;
	char name[64];
	int r;

	pool_file_name(name, in->record->home, file, index);
	r = pool_files_open(&fd, in->dir, in->record->home, file, index, O_RDONLY);
	if (r == 0 && fstat(fd, &st) < 0)
		r = -errno;
	if (r == -ENOENT || r == -EINVAL || r == -ELOOP) {
		check_note(in->report, name, 0, 0, "the file is not there, or is no file", unusable);
		return 1;
	}
	if (r < 0)
		return r;
	if ((uint64_t)st.st_size < len) {
		check_note(in->report, name, (uint64_t)st.st_size, 0,
			   "the file is shorter than it should be", unusable);
		return 1;
	}
	if ((uint64_t)st.st_size > length_max(in, file, s))
		check_note(in->report, name, (uint64_t)st.st_size, 0, "the file is longer than it can be",
			   "a program made it so; what is past its end is not looked at");
	if (file == POOL_FILE_SHELF)
		return 0; /* user bytes */
	if (file == POOL_FILE_LANES)
		return inspect_lanes(in, &fd, (uint64_t)st.st_size);
	r = file_map(&ret->addr, fd, len, 0, false);
	if (r < 0)
		return r;
	ret->len = len;
	return !inspect_header(in, name, file, index, ret->addr);
}

/* 0, 1: something was noted, or an error. */
static int inspect_shelf(struct inspection *in, uint32_t index)
{
	const struct shelf_record *s = &in->shelves.shelf[index];
	uint64_t units = s->size >> UNIT_SHIFT, limit = s->limit >> UNIT_SHIFT;
	int noted = 0, r;

	for (uint32_t f = 0; f < pool_files_of_shelf(in->record); f++) {
		r = inspect_file(in, (enum pool_file)f, index, s, &in->file[index][f]);
		if (r < 0)
			return r;
		noted |= r;
	}
	if (noted || in->record->kind != POOL_HEAP)
		return noted;
	heap_shelf_init(&in->shelf[index], in->file[index][POOL_FILE_TABLE].addr,
			in->file[index][POOL_FILE_STATE].addr, units, limit, in->record->flags & POOL_SPARSE);
	heap_shelf_add(&in->heap, index, &in->shelf[index]);
	return 0;
}

/* Spans */

static int audit_guarded(void *arg)
{
	struct inspection *in = arg;

	heap_audit(&in->heap, in->live, in->report);
	return check_stopped(in->report) ? -ECANCELED : 0;
}

/* Entries of a lane's owned-span table name units. */
static void inspect_lane(struct inspection *in, const char *name, uint32_t lane,
			 const uint64_t owned[LANE_OWNED])
{
	for (unsigned i = 0; i < LANE_OWNED; i++) {
		uint64_t ref = le64toh(owned[i]);
		const struct heap_shelf *shelf = in->heap.shelf[ref_shelf(ref)];

		if (ref == 0 || ((ref & REF_VALID) && shelf && ref_unit(ref) < shelf->units))
			continue;
		check_note(in->report, name,
			   lanes_file_size(lane) + offsetof(struct lane_df, owned) + i * sizeof(m64), 0,
			   "a lane's table names no unit of the heap",
			   "nothing: settling passes it over");
	}
}

/* The first lane from `lane` on that has a page, or the end. */
static uint32_t next_lane(const struct inspection *in, uint32_t lane, uint32_t end)
{
	off_t at = lseek(in->lanes_fd, (off_t)lanes_file_size(lane), SEEK_DATA);

	if (at < 0)
		return errno == ENXIO ? end : lane; /* a file system that cannot tell */
	return (uint32_t)MIN(((uint64_t)at - lanes_file_size(0)) / sizeof(struct lane_df), (uint64_t)end);
}

static void inspect_all_lanes(struct inspection *in)
{
	uint32_t end = (uint32_t)((in->lanes_len - lanes_file_size(0)) / sizeof(struct lane_df));
	uint64_t owned[LANE_OWNED];
	char name[24];

	snprintf(name, sizeof(name), "lanes.%u", in->record->home);
	for (uint32_t lane = next_lane(in, 0, end); lane < end && !check_stopped(in->report);
	     lane = next_lane(in, lane + 1, end)) {
		off_t at = (off_t)(lanes_file_size(lane) + offsetof(struct lane_df, owned));

		if (pread(in->lanes_fd, owned, sizeof(owned), at) == (ssize_t)sizeof(owned))
			inspect_lane(in, name, lane, owned);
		else
			check_note(in->report, name, (uint64_t)at, 0, "a page of a file cannot be read",
				   unusable);
	}
}

/* The header is read, too; 0, 1: it was noted. */
static int inspect_lanes_header(struct inspection *in)
{
	struct file_header_df header;
	char name[24];

	snprintf(name, sizeof(name), "lanes.%u", in->record->home);
	if (pread(in->lanes_fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header))
		return !inspect_header(in, name, POOL_FILE_LANES, 0, &header);
	check_note(in->report, name, 0, 0, "it cannot be read", unusable);
	return 1;
}

static int inspect_heap(struct inspection *in)
{
	int r;

	r = guard_run(audit_guarded, in, NULL);
	if (r == 0 && in->lanes_fd >= 0 && inspect_lanes_header(in) == 0)
		inspect_all_lanes(in);
	if (r == -EIO) {
		check_note(in->report, "?", 0, 0, "a page of a file cannot be read", unusable);
		r = 0;
	}
	return r;
}

static int inspect_files(struct inspection *in)
{
	int noted, r;

	noted = inspect_meta(in);
	if (noted < 0)
		return noted;
	if (noted == 0 && in->record->kind == POOL_HEAP &&
	    heap_init(&in->heap, in->record->pool, in->record->home, in->record->durability,
		      in->record->min_block) < 0)
		return -EUCLEAN;
	for (uint32_t i = 0; i < in->shelves.n && noted == 0; i++) {
		r = inspect_shelf(in, i);
		if (r < 0)
			return r;
	}
	if (in->record->kind != POOL_HEAP || in->shelves.n == 0)
		return 0;
	r = inspect_file(in, POOL_FILE_LANES, 0, &in->shelves.shelf[0], NULL);
	return r < 0 ? r : inspect_heap(in);
}

int inspect_pool(struct check_report *report, int base_fd, const struct pool_record *record,
		 uint32_t lanes, bool live)
{
	_auto(inspection_free) struct inspection *in = calloc(1, sizeof(*in));
	char name[32];
	int r;

	if (!in)
		return -ENOMEM;
	in->dir = in->lanes_fd = -1;
	in->given = lanes;
	in->report = report;
	in->record = record;
	in->live = live;
	if (record->kind == 0)
		return 0;
	r = pool_files_dir(&in->dir, base_fd, record->pool);
	if (r == -ENOENT) {
		pool_dir_name(name, record->pool);
		check_note(report, name, 0, 0, "the pool's directory is not there",
			   "all of the pool is lost");
		return 0;
	}
	return r < 0 ? r : inspect_files(in);
}
