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
 * records tell each other (media/repair.c).
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
	*ret = p;
	return 0;
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

static void mend_meta_records(struct mend *m, struct meta_file_df *meta, enum durability d)
{
	struct file_header_df copy = meta->header;
	const char *why;

	if (file_header_check(&copy, FILE_MAGIC_META, m->record->pool, m->record->incarnation, 0,
			      &why) < 0 ||
	    copy.node.raw != m->record->home) {
		media_zero(meta, MEDIA_PAGE);
		file_header_seal(&meta->header, FILE_MAGIC_META, m->record->home, m->record->pool,
				 m->record->incarnation, 0, 0, 0);
		note_meta(m, 0, "the header was rotten and was made anew", "nothing is lost");
	}
	for (uint32_t i = 0; i < POOL_SHELVES_MAX; i++)
		if (slot_mend(d, &meta->shelf[i], sizeof(struct shelf_record_df)))
			note_meta(m, offsetof(struct meta_file_df, shelf) +
					     i * sizeof(struct shelf_entry_df),
				  "the record of a shelf was rotten",
				  "nothing: its files tell the same");
	for (uint32_t i = 0; i < POOL_ROOTS_MAX; i++)
		if (slot_mend(d, &meta->root[i], sizeof(struct root_record_df)))
			note_meta(m, offsetof(struct meta_file_df, root) +
					     i * sizeof(struct root_entry_df),
				  "the record of a root was rotten",
				  "the root is lost, or is what it was one change before");
	if (slot_mend(d, &meta->service, sizeof(struct service_record_df)))
		note_meta(m, offsetof(struct meta_file_df, service),
			  "the service record was rotten", "nothing: the heap is recovered");
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
	mend_meta_records(m, addr, d);
	r = media_sync(d, addr, sizeof(struct meta_file_df));
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

/* Puts records that are lost back, shelf by shelf, up to the pool's size. */
static int mend_shelves(struct mend *m, uint64_t *size)
{
	const struct pool_record *p = m->record;
	struct shelf_record s, by_files;
	struct meta *meta = NULL;
	const char *why;
	int r;

	r = meta_open(&meta, m->dir, p->home, p->pool, p->incarnation, p->durability, &why);
	*size = 0;
	for (uint32_t i = 0; r == 0 && i < POOL_SHELVES_MAX; i++) {
		r = meta_shelf_get(meta, i, &s);
		if (r == 0 && s.size == 0 && (p->size == 0 || *size < p->size)) {
			r = shelf_by_files(m, i, &by_files);
			if (r == 0)
				r = meta_shelf_put(meta, i, &by_files);
			s = by_files;
			r = r == -ENOENT ? 1 : r;
		}
		if (r != 0 || s.size == 0)
			break;
		*size += s.size;
		if (s.size < s.limit)
			break;
	}
	meta_free(meta);
	return MIN(r, 0);
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
	if (pread(fd, &h, sizeof(h), 0) == sizeof(h) &&
	    file_header_check(&h, pool_file_magic(file), m->record->pool, m->record->incarnation,
			      index, &why) == 0)
		return 0;
	check_note(m->report, name, 0, 0, "the header was rotten and was made anew",
		   "nothing is lost");
	return write_header(m, fd, file, index, s);
}

static int mend_file(struct mend *m, enum pool_file file, uint32_t index,
		     const struct shelf_record *s)
{
	uint64_t length = pool_file_length(m->record, file, s);
	_auto_fd int fd = -1;
	char name[64];
	int r;

	pool_file_name(name, m->record->home, file, index);
	r = file_open(&fd, m->dir, name, O_RDWR);
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
		r = mend_shelves(&m, size);
	return r < 0 ? r : mend_all_files(&m);
}
