/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mending of files.
 *
 * Every fact about a file stands twice: that a shelf is there, in meta and as a file; its length, in
 * its record and as the file's; to what it may grow, in its record and in the header of its state
 * file; what the pool is, in the registry and in each header. Of two the one that is readable is
 * taken. What stands once (a root) is dropped when it is rotten, and said to be.
 *
 * A file that is too short is made longer: what was cut off is zero then, which table and state
 * records tell each other (media/repair.c). A header that is as it was sealed, and yet is refused, is
 * not rot: another release made the file, or it is another pool's, and it is left alone. So are
 * tables and states of sparse heaps that are not there whole: where they had space, nobody knows.
 *
 * A mending may be killed at any step and is done again then. What is rotten stays so until it is
 * what it is to be (slot_replace()): a record that is right by chance meanwhile would be believed.
 */
#include "media/mend.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/macro.h"
#include "media/file.h"
#include "media/slot.h"

struct mend {
	struct check_report *report;
	const struct pool_record *record;
	int dir;
};

static int file_bytes(int pool_fd, const char *name, uint64_t *ret)
{
	struct stat st;

	if (fstatat(pool_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	*ret = (uint64_t)st.st_size;
	return 0;
}

/* Reads a file's header, whether or not it is right. */
static int header_read(struct file_header_df *ret, int pool_fd, const char *name)
{
	_auto_fd int fd = -1;
	int r = file_open(&fd, pool_fd, name, O_RDONLY);

	if (r < 0)
		return r;
	return pread(fd, ret, sizeof(*ret), 0) == sizeof(*ret) ? 0 : -EIO;
}

/* Whether a header is a true one of this kind, of whichever incarnation. */
static bool header_true(const struct file_header_df *h, uint64_t magic, uint16_t pool,
			uint32_t index)
{
	const char *why;

	return file_header_check(h, magic, pool, h->incarnation.raw, index, &why) == 0;
}

/* A sparse heap's table has its map of granules behind words for all units that there can be. */
static bool is_sparse_table(int pool_fd, uint16_t node, uint64_t limit)
{
	uint64_t bytes = 0;
	char name[64];

	pool_file_name(name, node, POOL_FILE_TABLE, 0);
	return file_bytes(pool_fd, name, &bytes) == 0 && limit > 0 &&
	       limit <= SHELF_SIZE_MAX >> UNIT_SHIFT && bytes == sparse_table_size(limit);
}

int mend_identify(struct pool_record *ret, int pool_fd, uint16_t pool, uint16_t node)
{
	struct pool_record p = { .pool = pool, .home = node, .state = POOL_LIVE, .mode = 0600 };
	struct file_header_df meta, state;
	uint64_t incarnation = 0;
	char name[64];
	bool heap;

	snprintf(name, sizeof(name), "meta.%u", node);
	if (header_read(&meta, pool_fd, name) == 0 && header_true(&meta, FILE_MAGIC_META, pool, 0))
		incarnation = meta.incarnation.raw;
	pool_file_name(name, node, POOL_FILE_STATE, 0);
	heap = header_read(&state, pool_fd, name) == 0;
	if (heap && !header_true(&state, FILE_MAGIC_STATE, pool, 0))
		return -ENOENT;
	p.incarnation = heap ? state.incarnation.raw : incarnation;
	if (p.incarnation == 0)
		return -ENOENT;
	p.kind = heap ? POOL_HEAP : POOL_REGION;
	p.min_block = heap ? state.min_block.raw : 0;
	if (heap && is_sparse_table(pool_fd, node, state.limit.raw))
		p.flags = POOL_SPARSE;
	*ret = p;
	return 0;
}

/* Says of a file that its header is no rot. */
static int left_alone(struct mend *m, const char *name)
{
	check_note(m->report, name, 0, 0,
		   "the file is another release's, or another pool's: it is left alone",
		   "the pool cannot be repaired");
	return -EUCLEAN;
}

/* meta */

static void note_meta(struct mend *m, uint64_t offset, const char *what, const char *so)
{
	char file[24];

	snprintf(file, sizeof(file), "meta.%u", m->record->home);
	check_note(m->report, file, offset, 0, what, so);
}

/* Makes sure of a meta file of its size. */
static int meta_present(struct mend *m, const char *name)
{
	const struct pool_record *p = m->record;
	_auto_fd int fd = -1;
	uint64_t bytes = 0;
	int r = file_bytes(m->dir, name, &bytes);

	if (r == -ENOENT) {
		note_meta(m, 0, "the file was missing and was made anew", "roots are lost");
		return meta_create(m->dir, p->home, p->pool, p->incarnation);
	}
	if (r < 0 || bytes >= sizeof(struct meta_file_df))
		return r;
	note_meta(m, bytes, "the file was too short and was made longer",
		  "roots that stood there are lost");
	r = file_open(&fd, m->dir, name, O_RDWR);
	return r < 0 ? r : file_reserve(fd, bytes, sizeof(struct meta_file_df));
}

static bool meta_header_ok(const struct mend *m, const struct file_header_df *h)
{
	const char *why;

	return file_header_check(h, FILE_MAGIC_META, m->record->pool, m->record->incarnation, 0,
				 &why) == 0 &&
	       media_load16(&h->node) == m->record->home;
}

/* The header page: what is behind the header is zero. -EUCLEAN: it is whole, and not this pool's. */
static int mend_meta_header(struct mend *m, struct meta_file_df *meta)
{
	const m64 *word = (const m64 *)(const void *)meta;
	bool ok = meta_header_ok(m, &meta->header);
	uint64_t padding = 0;

	for (size_t i = sizeof(meta->header) / 8; i < MEDIA_PAGE / 8; i++)
		padding |= media_load64(&word[i]);
	if (!ok && file_header_whole(&meta->header))
		return left_alone(m, "meta");
	if (ok && padding == 0)
		return 0;
	media_zero((char *)meta + sizeof(meta->header), MEDIA_PAGE - sizeof(meta->header));
	if (!ok)
		file_header_seal(&meta->header, FILE_MAGIC_META, m->record->home, m->record->pool,
				 m->record->incarnation, 0, 0, 0);
	note_meta(m, 0, "the header was rotten and was made anew", "nothing is lost");
	return 0;
}

static void mend_roots(struct mend *m, struct meta_file_df *meta, enum durability d)
{
	for (uint32_t i = 0; i < POOL_ROOTS_MAX; i++)
		if (slot_mend(d, &meta->root[i], sizeof(struct root_record_df)))
			note_meta(m, offsetof(struct meta_file_df, root) +
					     i * sizeof(struct root_entry_df),
				  "the record of a root was rotten",
				  "the root is lost, or is what it was one change before");
}

static int mend_meta(struct mend *m)
{
	_auto_fd int fd = -1;
	char name[64];
	enum durability d;
	void *addr;
	int r;

	snprintf(name, sizeof(name), "meta.%u", m->record->home);
	r = meta_present(m, name);
	if (r == 0)
		r = file_open(&fd, m->dir, name, O_RDWR);
	if (r == 0)
		r = file_map(&addr, fd, sizeof(struct meta_file_df), 0, true);
	if (r < 0)
		return r;
	d = file_durability(fd, addr, sizeof(struct meta_file_df));
	r = mend_meta_header(m, addr);
	if (r == 0) {
		mend_roots(m, addr, d);
		r = media_sync(d, addr, sizeof(struct meta_file_df));
	}
	file_unmap(addr, sizeof(struct meta_file_df));
	return r < 0 ? r : file_sync(fd);
}

/* Shelves */

/* What a shelf is by its files. -ENOENT: there is none. */
static int shelf_by_files(struct mend *m, uint32_t index, struct shelf_record *ret)
{
	struct file_header_df header;
	char name[64];
	int r;

	pool_file_name(name, m->record->home, POOL_FILE_SHELF, index);
	r = file_bytes(m->dir, name, &ret->size);
	if (r < 0)
		return r;
	ret->limit = ret->size;
	pool_file_name(name, m->record->home, POOL_FILE_STATE, index);
	if (m->record->kind == POOL_HEAP && header_read(&header, m->dir, name) == 0 &&
	    header_true(&header, FILE_MAGIC_STATE, m->record->pool, index))
		ret->limit = header.limit.raw << UNIT_SHIFT;
	return ret->size > ret->limit || ret->limit > SHELF_SIZE_MAX ? -EUCLEAN : 0;
}

/* A record that can still be read in part, and files, agree on the longer of the two. */
static int shelf_of_rotten(struct mend *m, struct meta *meta, uint32_t index,
			   struct shelf_record *ret)
{
	struct shelf_record old;
	int r = shelf_by_files(m, index, ret);

	if (!meta_shelf_salvage(meta, index, &old) || old.size == 0)
		return r;
	if (r < 0 || ret->size < old.size)
		*ret = old;
	else if (ret->size <= old.limit)
		ret->limit = old.limit;
	return 0;
}

/*
 * Puts the record of shelf `index` right; *ret is it. `lacking`: the pool is longer than the shelves before it.
 * 1: it is there, 0: there is no such shelf.
 */
static int mend_shelf(struct mend *m, struct meta *meta, uint32_t index, bool lacking,
		      struct shelf_record *ret)
{
	static const struct shelf_record none;
	int r = meta_shelf_get(meta, index, ret);
	bool rotten = r == -EUCLEAN;

	if (r < 0 && !rotten)
		return r;
	if (!rotten && (ret->size > 0 || !lacking))
		return ret->size > 0;
	r = !lacking ? -ENOENT : rotten ? shelf_of_rotten(m, meta, index, ret) :
					  shelf_by_files(m, index, ret);
	if (r == -ENOENT)
		*ret = none;
	else if (r < 0)
		return r;
	if (!rotten && ret->size == 0)
		return 0;
	r = meta_shelf_replace(meta, index, ret);
	note_meta(m, offsetof(struct meta_file_df, shelf) + index * sizeof(struct shelf_entry_df),
		  "the record of a shelf was rotten or not there",
		  ret->size > 0 ? "nothing: its files tell the same" :
				  "nothing: the pool has no such shelf");
	return r < 0 ? r : ret->size > 0;
}

/* Puts records that are lost back, shelf by shelf, up to the pool's size; those behind it go. */
static int mend_shelves(struct mend *m, struct meta *meta, uint64_t *size)
{
	uint64_t whole = m->record->size ? m->record->size : UINT64_MAX;
	bool end = false;
	int r = 0;

	*size = 0;
	for (uint32_t i = 0; r >= 0 && i < POOL_SHELVES_MAX; i++) {
		struct shelf_record s;

		r = mend_shelf(m, meta, i, !end && *size < whole, &s);
		if (r > 0 && !end)
			*size += s.size;
		end |= r == 0 || s.size < s.limit;
	}
	return MIN(r, 0);
}

/*
 * Whether the heap was in use nobody can tell by a meta of which something was rotten. It was: then open
 * marks count as after a power cut; of a heap that was closed there are none.
 */
static int mend_service(struct mend *m, struct meta *meta)
{
	const struct service_record in_use = { .in_use = true };
	struct service_record now;

	if (m->record->kind != POOL_HEAP)
		return 0;
	if (meta_service_get(meta, &now) < 0)
		note_meta(m, offsetof(struct meta_file_df, service),
			  "the service record was rotten", "nothing: the heap is recovered");
	return meta_service_replace(meta, &in_use);
}

static int mend_records(struct mend *m, uint64_t *size)
{
	const struct pool_record *p = m->record;
	struct meta *meta = NULL;
	const char *why;
	int r;

	r = meta_open(&meta, m->dir, p->home, p->pool, p->incarnation, p->durability, &why);
	if (r == 0)
		r = mend_shelves(m, meta, size);
	if (r == 0)
		r = mend_service(m, meta);
	meta_free(meta);
	return r;
}

/* Files */

static int write_header(struct mend *m, int fd, enum pool_file file, uint32_t index,
			const struct shelf_record *s)
{
	const struct pool_record *p = m->record;
	void *addr;
	int r = file_map(&addr, fd, MEDIA_PAGE, 0, true);

	if (r < 0)
		return r;
	file_header_seal(addr, pool_file_magic(file), p->home, p->pool, p->incarnation, index,
			 p->min_block, pool_file_limit(file, s));
	media_persist(p->durability, addr, sizeof(struct file_header_df));
	file_unmap(addr, MEDIA_PAGE);
	return file_sync(fd);
}

static int mend_length(struct mend *m, int fd, const char *name, uint64_t length)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size >= length)
		return 0;
	check_note(m->report, name, (uint64_t)st.st_size, 0,
		   "the file was too short and was made longer", "what stood there is lost");
	return file_reserve(fd, (uint64_t)st.st_size, length);
}

static int mend_header(struct mend *m, int fd, const char *name, enum pool_file file,
		       uint32_t index, const struct shelf_record *s)
{
	struct file_header_df h;
	const char *why;

	if (pool_file_magic(file) == 0)
		return 0;
	if (pread(fd, &h, sizeof(h), 0) != sizeof(h))
		return -EIO;
	if (file_header_check(&h, pool_file_magic(file), m->record->pool, m->record->incarnation,
			      index, &why) == 0)
		return 0;
	if (file_header_whole(&h))
		return left_alone(m, name);
	check_note(m->report, name, 0, 0, "the header was rotten and was made anew",
		   "nothing is lost");
	return write_header(m, fd, file, index, s);
}

/* What a sparse heap's table and state had, and where, nothing else tells. */
static bool is_unknown(const struct mend *m, enum pool_file file)
{
	return (m->record->flags & POOL_SPARSE) &&
	       (file == POOL_FILE_TABLE || file == POOL_FILE_STATE);
}

static int mend_file(struct mend *m, enum pool_file file, uint32_t index,
		     const struct shelf_record *s)
{
	uint64_t length = pool_file_length(m->record, file, s);
	_auto_fd int fd = -1;
	struct stat st;
	char name[64];
	int r;

	pool_file_name(name, m->record->home, file, index);
	r = file_open(&fd, m->dir, name, O_RDWR);
	if (r == 0 && fstat(fd, &st) < 0)
		r = -errno;
	if (is_unknown(m, file) && (r == -ENOENT || (r == 0 && (uint64_t)st.st_size < length))) {
		check_note(m->report, name, 0, 0, "the file is not there whole, of a sparse heap",
			   "the pool cannot be repaired");
		return -EUCLEAN;
	}
	if (r == -ENOENT && file != POOL_FILE_SHELF) {
		check_note(m->report, name, 0, 0, "the file was missing and was made anew",
			   "what stood there is lost");
		r = file_create(&fd, m->dir, name, length);
	}
	if (r == 0)
		r = mend_length(m, fd, name, length);
	return r < 0 ? r : mend_header(m, fd, name, file, index, s);
}

static int mend_all_files(struct mend *m)
{
	const struct pool_record *p = m->record;
	struct pool_shelves shelves;
	struct meta *meta = NULL;
	const char *why;
	int r;

	r = meta_view(&meta, m->dir, p->home, p->pool, p->incarnation, &why);
	if (r < 0)
		return r;
	r = pool_shelves_read(&shelves, meta);
	meta_free(meta);
	for (uint32_t i = 0; r == 0 && i < shelves.n; i++)
		for (uint32_t f = 0; r == 0 && f < pool_files_of_shelf(p); f++)
			r = mend_file(m, (enum pool_file)f, i, &shelves.shelf[i]);
	if (r == 0 && p->kind == POOL_HEAP && shelves.n > 0)
		r = mend_file(m, POOL_FILE_LANES, 0, &shelves.shelf[0]);
	return r < 0 ? r : file_sync(m->dir);
}

int mend_files(struct check_report *report, int pool_fd, const struct pool_record *record,
	       uint64_t *size)
{
	struct mend m = { .report = report, .record = record, .dir = pool_fd };
	int r;

	r = mend_meta(&m);
	if (r == 0)
		r = mend_records(&m, size);
	return r < 0 ? r : mend_all_files(&m);
}
