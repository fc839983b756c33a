/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mending of a pool's files (media/mend.h): what becomes of each damage, and death at every step of it.
 *
 * A pool of two shelves, a root and a service record stands in a directory. It is damaged and mended once
 * without a death: that is the end, of which is known what it kept and said. Then it is damaged the same way
 * again and again, and the mending dies one step later each time, at a store, a flush or a system call that
 * changes a file, before it is done to the end: which must be the same, file by file, byte by byte.
 *
 * NVMMD_TEST_LONG=1: no sampling.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/macro.h"
#include "media/file.h"
#include "media/mend.h"
#include "media/span.h"
#include "tests/crash/killer.h"
#include "tests/crash/ledger.h"
#include "tests/unit/tempdir.h"

#define POOL 9u
#define NODE 1u
#define INCARNATION 4u
#define LIMIT (UINT64_C(8) << UNIT_SHIFT)
#define SECOND (UINT64_C(3) << UNIT_SHIFT)
#define ROOT_PTR UINT64_C(0x0009000000004000)

static const char *base; /* absolute */
static int base_fd;

/* The pool */

enum sort { REGION, HEAP, POWER, SPARSE };

static struct pool_record record_of(enum sort sort)
{
	return (struct pool_record){
		.pool = POOL,
		.kind = sort == REGION ? POOL_REGION : POOL_HEAP,
		.state = POOL_LIVE,
		.home = NODE,
		.durability = sort == POWER ? DURABILITY_POWER : DURABILITY_PROCESS,
		.flags = sort == SPARSE ? POOL_SPARSE : 0,
		.incarnation = INCARNATION,
		.mode = 0600,
		.min_block = sort == REGION ? 0 : 16,
		.size = LIMIT + SECOND,
	};
}

static void command(const char *what, const char *a, const char *b)
{
	char line[600];

	snprintf(line, sizeof(line), "cd %s && %s %s %s", base, what, a, b);
	ck_assert_int_eq(system(line), 0);
}

static int open_pool(const char *name)
{
	int fd = openat(base_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static void make_file(int dir, const struct pool_record *record, enum pool_file file, uint32_t index,
		      const struct shelf_record *s)
{
	char name[64];
	void *addr;
	int fd;

	pool_file_name(name, NODE, file, index);
	ck_assert_int_eq(file_create(&fd, dir, name, pool_file_length(record, file, s)), 0);
	if (pool_file_magic(file) != 0) {
		ck_assert_int_eq(file_map(&addr, fd, MEDIA_PAGE, 0, true), 0);
		file_header_seal(addr, pool_file_magic(file), NODE, POOL, INCARNATION, index,
				 record->min_block, pool_file_limit(file, s));
		file_unmap(addr, MEDIA_PAGE);
	} else {
		ck_assert_int_eq(pwrite(fd, "user's", 6, 4000), 6);
	}
	close(fd);
}

static struct meta *meta_of(int dir)
{
	struct meta *meta = NULL;
	const char *why = "";
	int r = meta_open(&meta, dir, NODE, POOL, INCARNATION, DURABILITY_PROCESS, &why);

	ck_assert_msg(r == 0, "%s: %s", strerror(-r), why);
	return meta;
}

static void make_pool(enum sort sort)
{
	const struct shelf_record shelves[] = { { LIMIT, LIMIT }, { SECOND, LIMIT } };
	const struct root_record root = { .name = "root", .ptr = ROOT_PTR };
	const struct service_record service = { .in_use = false };
	struct pool_record record = record_of(sort);
	struct meta *meta;
	int dir;

	ck_assert_int_eq(mkdirat(base_fd, "good", 0700), 0);
	dir = open_pool("good");
	ck_assert_int_eq(meta_create(dir, NODE, POOL, INCARNATION), 0);
	meta = meta_of(dir);
	for (uint32_t i = 0; i < 2; i++) {
		struct shelf_record smaller = { UNIT_SIZE, LIMIT };

		for (uint32_t file = 0; file < pool_files_of_shelf(&record); file++)
			make_file(dir, &record, (enum pool_file)file, i, &shelves[i]);
		/* Resized since: the older slot has another size. */
		ck_assert_int_eq(meta_shelf_put(meta, i, &smaller), 0);
		ck_assert_int_eq(meta_shelf_put(meta, i, &shelves[i]), 0);
	}
	ck_assert_int_eq(meta_root_put(meta, 3, &root), 0);
	if (sort != REGION) {
		ck_assert_int_eq(meta_service_put(meta, &(struct service_record){ .in_use = true }), 0);
		ck_assert_int_eq(meta_service_put(meta, &service), 0);
		make_file(dir, &record, POOL_FILE_LANES, 0, &shelves[0]);
	}
	meta_free(meta);
	close(dir);
}

/* Damages */

enum damage { FLIP, ZERO, CUT, GONE, OTHER };

enum {
	ROOT_LOST = 1,
	REFUSED = 2, /* it cannot be mended */
	SILENT = 4,  /* and need not be */
	LIMIT_LOST = 8, /* of a region's shelf: it is what it is long */
};

static const struct row {
	enum sort sort;
	const char *file;
	enum damage damage;
	long at;
	long len;
	unsigned flags;
} rows[] = {
#define SHELF(i) ((long)offsetof(struct meta_file_df, shelf) + (i) * 128)
#define ROOT(i) ((long)offsetof(struct meta_file_df, root) + (i) * 256)
#define SERVICE ((long)offsetof(struct meta_file_df, service))
	{ HEAP, "meta.1", FLIP, 0, 64, 0 },
	{ HEAP, "meta.1", ZERO, 0, 4096, 0 },
	{ HEAP, "meta.1", FLIP, 200, 1, 0 },
	{ HEAP, "meta.1", FLIP, SHELF(0), 64, 0 },
	{ HEAP, "meta.1", FLIP, SHELF(0) + 64, 64, 0 },
	{ HEAP, "meta.1", FLIP, SHELF(0), 256, 0 },
	{ HEAP, "meta.1", FLIP, SHELF(1) + 64, 8, 0 },
	{ HEAP, "meta.1", FLIP, SHELF(2), 128, 0 },
	{ HEAP, "meta.1", ZERO, SHELF(0), 4096, 0 },
	{ HEAP, "meta.1", FLIP, ROOT(3), 128, ROOT_LOST },
	{ HEAP, "meta.1", FLIP, ROOT(3) + 128, 128, 0 },
	{ HEAP, "meta.1", FLIP, SERVICE, 128, 0 },
	{ HEAP, "meta.1", CUT, 0, 0, ROOT_LOST },
	{ HEAP, "meta.1", CUT, 5000, 0, ROOT_LOST },
	{ HEAP, "meta.1", GONE, 0, 0, ROOT_LOST },
	{ HEAP, "meta.1", OTHER, 0, 0, REFUSED },
	{ HEAP, "table-0.1", FLIP, 0, 64, 0 },
	{ HEAP, "table-1.1", CUT, 4100, 0, 0 },
	{ HEAP, "table-0.1", GONE, 0, 0, 0 },
	{ HEAP, "table-0.1", OTHER, 0, 0, REFUSED },
	{ HEAP, "state-0", ZERO, 0, 64, 0 },
	{ HEAP, "state-1", CUT, 0, 0, 0 },
	{ HEAP, "state-1", GONE, 0, 0, 0 },
	{ HEAP, "state-0", OTHER, 0, 0, REFUSED },
	{ HEAP, "lanes.1", FLIP, 0, 64, 0 },
	{ HEAP, "lanes.1", CUT, 5000, 0, 0 },
	{ HEAP, "lanes.1", GONE, 0, 0, 0 },
	{ HEAP, "shelf-0", CUT, 5000, 0, 0 },
	{ HEAP, "shelf-1", GONE, 0, 0, REFUSED },
	{ HEAP, "shelf-0", CUT, LIMIT, 0, SILENT },
	{ POWER, "meta.1", FLIP, SERVICE, 8, 0 },
	{ POWER, "meta.1", FLIP, SHELF(0), 256, 0 },
	{ POWER, "table-0.1", GONE, 0, 0, 0 },
	{ REGION, "meta.1", FLIP, SHELF(0), 64, 0 },
	{ REGION, "meta.1", FLIP, SHELF(1) + 64, 64, 0 },
	{ REGION, "meta.1", FLIP, SHELF(1), 128, LIMIT_LOST },
	{ REGION, "meta.1", GONE, 0, 0, ROOT_LOST | LIMIT_LOST },
	{ REGION, "shelf-1", CUT, 5000, 0, 0 },
	{ SPARSE, "meta.1", FLIP, SHELF(0), 128, 0 },
	{ SPARSE, "table-0.1", CUT, 5000, 0, REFUSED },
	{ SPARSE, "table-0.1", GONE, 0, 0, REFUSED },
	{ SPARSE, "state-0", GONE, 0, 0, REFUSED },
	{ SPARSE, "state-1", FLIP, 0, 64, 0 },
};

/* The header of another pool's file: whole. */
static void seal_other(int fd, const char *file)
{
	static const struct {
		const char *begins;
		uint64_t magic;
	} magics[] = { { "meta", FILE_MAGIC_META }, { "table", FILE_MAGIC_TABLE },
		       { "state", FILE_MAGIC_STATE } };
	void *addr;

	ck_assert_int_eq(file_map(&addr, fd, MEDIA_PAGE, 0, true), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(magics); i++)
		if (strncmp(file, magics[i].begins, 4) == 0)
			file_header_seal(addr, magics[i].magic, NODE, POOL, INCARNATION - 1, 0, 16,
					 LIMIT >> UNIT_SHIFT);
	file_unmap(addr, MEDIA_PAGE);
}

static void spoil_bytes(int fd, const struct row *row)
{
	uint8_t bytes[8192] = { 0 };
	size_t len = (size_t)row->len;

	if (row->damage == FLIP)
		ck_assert_int_eq(pread(fd, bytes, len, row->at), row->len);
	for (size_t i = 0; i < len && row->damage == FLIP; i++)
		bytes[i] ^= 0xff;
	ck_assert_int_eq(pwrite(fd, bytes, len, row->at), row->len);
}

/* A pool in the directory `name`, damaged. */
static int spoil(const char *name, const struct row *row)
{
	int dir, fd;

	command("rm -rf", name, "");
	command("cp -a", "good", name);
	dir = open_pool(name);
	if (row->damage == GONE) {
		ck_assert_int_eq(unlinkat(dir, row->file, 0), 0);
		return dir;
	}
	fd = openat(dir, row->file, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	if (row->damage == CUT)
		ck_assert_int_eq(ftruncate(fd, row->at), 0);
	else if (row->damage == OTHER)
		seal_other(fd, row->file);
	else
		spoil_bytes(fd, row);
	close(fd);
	return dir;
}

static int mend(int dir, const struct row *row, struct check_report *report, uint64_t *size)
{
	struct pool_record record = record_of(row->sort);

	memset(report, 0, sizeof(*report));
	return mend_files(report, dir, &record, size);
}

struct mending {
	int dir;
	const struct row *row;
};

static void mend_once(void *arg)
{
	static struct check_report report;
	const struct mending *m = arg;
	uint64_t size;

	mend(m->dir, m->row, &report, &size);
}

/* Whether it died at its k-th step. */
static bool mend_killed(int dir, const struct row *row, long k)
{
	struct mending m = { dir, row };

	return killer_run(k, mend_once, &m);
}

static bool names(const struct check_report *report, const char *file)
{
	for (uint32_t i = 0; i < report->n_findings; i++)
		if (strcmp(report->finding[i].file, file) == 0)
			return true;
	return false;
}

/* What is known of the end: every shelf, the root, and of a heap that it was in use. */
static void verify_end(int dir, const struct row *row)
{
	struct meta *meta = meta_of(dir);
	struct service_record service;
	struct pool_shelves shelves;
	struct root_record root;

	ck_assert_int_eq(pool_shelves_read(&shelves, meta), 0);
	ck_assert_uint_eq(shelves.n, 2);
	ck_assert_uint_eq(shelves.shelf[0].size, LIMIT);
	ck_assert_uint_eq(shelves.shelf[0].limit, LIMIT);
	ck_assert_uint_eq(shelves.shelf[1].size, SECOND);
	ck_assert_uint_eq(shelves.shelf[1].limit, row->flags & LIMIT_LOST ? SECOND : LIMIT);
	ck_assert_int_eq(meta_root_get(meta, 3, &root), row->flags & ROOT_LOST ? 0 : 1);
	ck_assert(row->flags & ROOT_LOST || root.ptr == ROOT_PTR);
	ck_assert_int_eq(meta_service_get(meta, &service), 0);
	ck_assert(service.in_use == (row->sort != REGION));
	meta_free(meta);
}

static void run_row(const struct row *row, struct ledger *l)
{
	static struct check_report report;
	uint64_t size = 0;
	int dir = spoil("end", row), r = mend(dir, row, &report, &size);
	long k;

	if (row->flags & REFUSED) {
		ck_assert_int_lt(r, 0);
		close(dir);
		return;
	}
	ck_assert_msg(r == 0, "%s: %s", row->file, strerror(-r));
	ck_assert_uint_eq(size, LIMIT + SECOND);
	ck_assert(names(&report, row->file) == !(row->flags & SILENT));
	verify_end(dir, row);
	/* Again, and there is nothing to say. */
	ck_assert_int_eq(mend(dir, row, &report, &size), 0);
	ck_assert_uint_eq(report.violations, 0);
	close(dir);
	for (k = 0;; k = ledger_whole() ? k + 1 : k + 1 + k / 6) {
		bool died;

		dir = spoil("again", row);
		died = mend_killed(dir, row, k);
		r = mend(dir, row, &report, &size);
		ck_assert_msg(r == 0, "killed at %ld: %s", k, strerror(-r));
		ck_assert_uint_eq(size, LIMIT + SECOND);
		close(dir);
		command("diff -rq", "end", "again");
		if (!died)
			break;
		l->images++;
	}
	/* Where there was something to mend there were steps to die at. */
	ck_assert(k > 0 || row->flags & SILENT);
	l->points = (uint64_t)k;
}

START_TEST(every_step)
{
	static const char *const damages[] = { "flipped", "zeroed", "cut", "gone", "another's" };
	const struct row *row = &rows[_i];
	char operation[80];
	struct ledger l = { .suite = "mend", .operation = operation,
			    .durability = row->sort == POWER ? "power" : "process" };

	snprintf(operation, sizeof(operation), "%s %s from %ld", row->file, damages[row->damage], row->at);
	ledger_begin(&l);
	base_fd = tempdir_new(&base);
	make_pool(row->sort);
	run_row(row, &l);
	ledger_end(&l);
}
END_TEST

static void fill_up(const char *name)
{
	uint64_t size = UINT64_C(1) << 30;
	int fd = openat(base_fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	for (; size >= MEDIA_PAGE; size /= 2)
		while (posix_fallocate(fd, lseek(fd, 0, SEEK_END), (off_t)size) == 0)
			;
	close(fd);
}

/* The base is full: what is missing cannot be made, and can when there is room again. */
START_TEST(no_space)
{
	static struct check_report report;
	const struct row row = { .sort = HEAP };
	uint64_t size;
	int dir;

	base_fd = tempdir_small(4 << 20);
	if (base_fd < 0)
		return;
	make_pool(HEAP);
	dir = open_pool("good");
	ck_assert_int_eq(unlinkat(dir, "state-0", 0), 0);
	ck_assert_int_eq(unlinkat(dir, "meta.1", 0), 0);
	fill_up("full");
	ck_assert_int_eq(mend(dir, &row, &report, &size), -ENOSPC);
	ck_assert_int_eq(mend(dir, &row, &report, &size), -ENOSPC);
	ck_assert_int_eq(unlinkat(base_fd, "full", 0), 0);
	ck_assert_int_eq(mend(dir, &row, &report, &size), 0);
	ck_assert_uint_eq(size, LIMIT + SECOND);
	ck_assert(names(&report, "state-0") && names(&report, "meta.1"));
	ck_assert_int_eq(mend(dir, &row, &report, &size), 0);
	ck_assert_uint_eq(report.violations, 0);
	close(dir);
}
END_TEST

/* What a pool is that the registry does not know, by its files. */
START_TEST(identified)
{
	enum sort sort = (enum sort)_i;
	struct pool_record want = record_of(sort), got;
	int dir;

	base_fd = tempdir_new(&base);
	make_pool(sort);
	dir = open_pool("good");
	ck_assert_int_eq(mend_identify(&got, dir, POOL, NODE), 0);
	ck_assert_int_eq(got.kind, want.kind);
	ck_assert_uint_eq(got.incarnation, INCARNATION);
	ck_assert_uint_eq(got.min_block, want.min_block);
	ck_assert_uint_eq(got.flags, want.flags);
	ck_assert_uint_eq(got.mode, 0600);
	ck_assert_int_eq(mend_identify(&got, dir, POOL + 1, NODE), -ENOENT);
	ck_assert_int_eq(unlinkat(dir, "meta.1", 0), 0);
	ck_assert_int_eq(mend_identify(&got, dir, POOL, NODE), sort == REGION ? -ENOENT : 0);
	close(dir);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("mend kill");
	TCase *t = tcase_create("mend kill");

	tcase_set_timeout(t, ledger_whole() ? 3600 : 120);
	tcase_add_loop_test(t, every_step, 0, (int)ARRAY_SIZE(rows));
	tcase_add_test(t, no_space);
	tcase_add_loop_test(t, identified, 0, 4);
	suite_add_tcase(s, t);
	return tempdir_run_suite(s);
}
