/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rot, file by file and field by field, with the real daemon.
 *
 * A group is a file of a pool. Each of its rows has a heap of its own in one base, which is filled, and
 * spoilt while no daemon runs: so all damages of a group are there at once when the next daemon starts.
 * It has to live, serve the heap beside them, say of each what is wrong and in which file, mend it or
 * have it destroyed, and give its id out again. What was allocated is not given again after a repair.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/macro.h"
#include "media/span.h"
#include "tests/system/harness.h"
#include "tests/system/raw.h"

#define MIB (UINT64_C(1) << 20)
#define BLOCKS 150u
#define ROWS 32u

/* Stands for where the state records begin. */
#define RECORDS (1 << 30)
#define TAIL (RECORDS + 384)
#define LANE(field) (long)(offsetof(struct lanes_file_df, lane) + offsetof(struct lane_df, field))
#define SHELF_RECORD (long)offsetof(struct meta_file_df, shelf)
#define ROOT_RECORD (long)offsetof(struct meta_file_df, root)
#define SERVICE_RECORD (long)offsetof(struct meta_file_df, service)
#define WORD (long)offsetof(struct table_file_df, word)

/* The registry's rows are of the pool's own record. */
#define RECORD(field) (long)offsetof(struct pool_record_df, field)
#define SECOND(field) (RECORD(field) + (long)sizeof(struct pool_record_df))
#define REGISTRY "registry"

enum damage {
	FLIP, /* `len` bytes at `at`, all their bits */
	BIT,  /* one bit of each */
	ZERO,
	CUT, /* to `at` bytes */
	LONG, /* by `len` bytes of rubbish */
	GONE,
};

enum {
	QUIET = 1, /* cannot be told, or is derived and made anew: check may say nothing */
	BITS = 2,  /* bits of blocks, of which nobody else tells: blocks may be lost */
	LOST = 4,  /* what is gone is user bytes: the pool cannot be kept */
};

struct row {
	enum damage damage;
	long at;
	size_t len;
	unsigned flags;
};

struct group {
	const char *file;
	bool sparse;
	struct row row[ROWS];
};

#define HEADER                                                                                     \
	{ FLIP, 0, 8, 0 }, { BIT, 8, 4, 0 }, { FLIP, 12, 4, 0 }, { BIT, 16, 1, 0 }, { BIT, 20, 1, 0 },            \
		{ BIT, 24, 1, 0 }, { BIT, 28, 2, 0 }, { BIT, 30, 2, 0 }, { BIT, 32, 8, 0 }, { BIT, 40, 4, 0 },    \
		{ ZERO, 0, 64, 0 }, { FLIP, 0, 64, 0 }

static const struct group groups[] = {
	{ "meta.1", false, {
		HEADER,
		{ FLIP, SHELF_RECORD, 64, 0 },     /* one slot */
		{ BIT, SHELF_RECORD, 128, 0 },     /* both */
		{ ZERO, SHELF_RECORD, 4096, 0 },
		{ FLIP, ROOT_RECORD, 256, 0 },
		{ BIT, SERVICE_RECORD, 128, 0 },
		{ BIT, 100, 8, 0 },                /* behind the header, where nothing is */
		{ CUT, 0, 0, 0 }, { CUT, 4096, 0, 0 }, { CUT, ROOT_RECORD + 128, 0, 0 }, { GONE, 0, 0, 0 },
		{ LONG, 0, 5000, QUIET },
	} },
	{ "table-0.1", false, {
		HEADER,
		{ BIT, WORD, 1, 0 },               /* kind and class */
		{ FLIP, WORD + 1, 1, 0 },          /* class and length */
		{ FLIP, WORD + 4, 1, 0 },          /* length and node */
		{ FLIP, WORD + 7, 1, QUIET },   /* generation */
		{ ZERO, WORD, 8, 0 }, { ZERO, WORD, 512, 0 }, { FLIP, WORD, 2048, 0 }, { BIT, WORD + 8, 8, 0 },
		{ CUT, 0, 0, 0 }, { CUT, 4096, 0, 0 }, { CUT, WORD + 20, 0, 0 }, { GONE, 0, 0, 0 },
		{ LONG, 0, 5000, QUIET },
	} },
	{ "state-0", false, {
		{ FLIP, 0, 8, 0 }, { FLIP, 12, 4, 0 }, { BIT, 44, 4, 0 }, { BIT, 48, 8, 0 }, { ZERO, 0, 64, 0 },
		{ FLIP, 4096, 4096, QUIET },    /* hints */
		{ FLIP, 8192, 4096, QUIET },
		{ FLIP, RECORDS, 8, QUIET | BITS },
		{ FLIP, RECORDS + 128, 8, QUIET | BITS },
		{ FLIP, RECORDS + 256, 8, QUIET | BITS },
		{ FLIP, TAIL, 8, QUIET },       /* owner: a lane's that is not there; loading ends it */
		{ BIT, TAIL, 1, QUIET },        /* owner: not a head */
		{ FLIP, TAIL + 8, 8, QUIET },   /* open */
		{ BIT, TAIL + 16, 8, 0 }, { BIT, TAIL + 24, 8, 0 }, { ZERO, TAIL, 32, 0 },
		{ ZERO, RECORDS, 4096, 0 }, { FLIP, RECORDS, 4096, 0 }, { FLIP, RECORDS + 4096, 8192, 0 },
		{ CUT, 0, 0, 0 }, { CUT, 4096, 0, 0 }, { CUT, 3 * 4096, 0, 0 }, { CUT, 5 * 4096 + 100, 0, 0 }, { GONE, 0, 0, 0 },
		{ LONG, 0, 5000, QUIET },
	} },
	{ "lanes.1", false, {
		HEADER,
		{ FLIP, 64, 8, QUIET },         /* watch */
		{ FLIP, 4096, 4096, QUIET },    /* hints */
		{ FLIP, LANE(busy), 8, QUIET }, { FLIP, LANE(freeing), 8, QUIET },
		{ FLIP, LANE(revoke), 8, QUIET }, { FLIP, LANE(owned), 1024, QUIET },
		{ FLIP, LANE(reserved), 1024, QUIET }, { FLIP, LANE(log), 1552, QUIET },
		{ CUT, 0, 0, 0 }, { CUT, 4096, 0, 0 }, { CUT, 8192 + 4096 + 10, 0, QUIET }, { GONE, 0, 0, 0 },
		{ LONG, 0, 3 * 4096 + 5, QUIET }, /* lanes that nobody had, full of rubbish */
	} },
	{ "shelf-0", false, {
		{ CUT, 0, 0, 0 }, { CUT, 65536 + 5, 0, 0 }, { LONG, 0, 5000, QUIET }, { GONE, 0, 0, LOST },
	} },
	{ REGISTRY, false, {
		{ BIT, RECORD(head), 1, 0 }, { FLIP, RECORD(head) + 4, 4, 0 }, { BIT, RECORD(head) + 8, 4, 0 },
		{ BIT, RECORD(pool), 2, 0 }, { FLIP, RECORD(kind), 1, 0 }, { BIT, RECORD(state), 1, 0 },
		{ FLIP, RECORD(home), 2, 0 }, { BIT, RECORD(durability), 2, 0 }, { FLIP, RECORD(incarnation), 8, 0 },
		{ BIT, RECORD(uid), 12, 0 }, { FLIP, RECORD(min_block), 4, 0 }, { FLIP, RECORD(size), 8, 0 },
		{ BIT, RECORD(name), 64, 0 }, { BIT, RECORD(zero), 1, 0 },
		{ BIT, SECOND(head), 1, 0 }, { FLIP, SECOND(state), 1, 0 }, { BIT, SECOND(size), 8, 0 },
		{ FLIP, SECOND(head), 256, 0 },
		{ BIT, RECORD(pool), 256, 0 },     /* both */
		{ FLIP, RECORD(head), 512, 0 },
		{ ZERO, RECORD(head), 512, 0 },    /* as if there never was a pool */
	} },
	{ REGISTRY, true, {
		{ FLIP, RECORD(kind), 1, 0 }, { BIT, SECOND(size), 8, 0 }, { FLIP, RECORD(head), 512, 0 },
		{ ZERO, RECORD(head), 512, 0 },
	} },
	{ "meta.1", true, {
		{ FLIP, 0, 64, 0 }, { BIT, SHELF_RECORD, 128, 0 }, { CUT, 0, 0, 0 }, { GONE, 0, 0, 0 },
	} },
	{ "table-0.1", true, {
		{ FLIP, 0, 64, 0 }, { BIT, WORD, 1, LOST }, { ZERO, WORD, 4096, LOST },
		{ CUT, 0, 0, LOST }, { GONE, 0, 0, LOST },
	} },
	{ "state-0", true, {
		{ FLIP, 0, 64, 0 }, { ZERO, TAIL, 32, LOST }, { ZERO, RECORDS, 4096, LOST },
		{ CUT, 0, 0, LOST }, { GONE, 0, 0, LOST },
	} },
};

struct victim {
	nvmm_pool_id id;
	nvmm_ptr live[BLOCKS];
};

static struct harness h;
static struct victim *victims; /* by row; the last is the neighbour; shared with who fills them */
static volatile int *filled;

static int ctl(char *out, size_t room, const char *a, const char *b, const char *c, const char *d)
{
	const char *const argv[] = { "ctl/nvmmctl", a, b, c, d, NULL };

	return harness_command(&h, out, room, argv);
}

/* A command on one pool: its exit code. */
static int ctl_pool(char *out, size_t room, nvmm_pool_id id, const char *a, const char *b,
		    const char *c)
{
	char number[16];

	snprintf(number, sizeof(number), "%u", id);
	return b ? ctl(out, room, a, b, c ? c : number, c ? number : NULL) :
		   ctl(out, room, a, number, NULL, NULL);
}

static nvmm_pool_id make(struct nvmm *nvmm, nvmm_pool_id id, bool sparse)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .sparse = sparse };
	int r = nvmm_heap_create(nvmm, &id, 4 * MIB, &options);

	must(r == 0, "create: %s", nvmm_errmsg(nvmm));
	return id;
}

static void fill(struct nvmm *nvmm, struct victim *v, bool sparse)
{
	struct nvmm_heap *heap;

	v->id = make(nvmm, 0, sparse);
	heap = harness_open(nvmm, v->id);
	for (unsigned i = 0; i < BLOCKS; i++) {
		v->live[i] = nvmm_alloc(heap, 16 + i * 7 % 3000);
		must(v->live[i], "alloc: %s", strerror(errno));
	}
	must(nvmm_root_set(heap, "root", v->live[0]) == 0, "root");
	nvmm_heap_close(heap);
}

static unsigned rows_of(const struct group *g)
{
	unsigned n = 0;

	while (n < ROWS && (g->row[n].len || g->row[n].damage >= CUT))
		n++;
	return n;
}

static const struct group *now;

/* Fills all heaps of the group; then one is in use until the process dies. */
static void filler(void *arg)
{
	struct nvmm *nvmm = harness_connect(&h);

	for (unsigned i = 0; i < rows_of(now); i++)
		fill(nvmm, &victims[i], now->sparse);
	fill(nvmm, &victims[ROWS], false);
	for (unsigned i = 0; i <= ROWS; i++)
		if (victims[i].id)
			must(nvmm_alloc(harness_open(nvmm, victims[i].id), 64), "alloc");
	*filled = 1;
	for (;;)
		pause();
}

static bool is_filled(void *arg)
{
	return *filled != 0;
}

/* Spoiling */

static void spoil_bytes(int fd, const struct row *row)
{
	uint8_t *bytes = calloc(1, row->len);
	off_t at = row->at;

	if (at >= RECORDS) {
		struct file_header_df header;

		ck_assert_int_eq(pread(fd, &header, sizeof(header), 0), sizeof(header));
		at += (off_t)state_records_offset(header.limit.raw) - RECORDS;
	}
	if (row->damage != ZERO) {
		must(pread(fd, bytes, row->len, at) == (ssize_t)row->len, "read");
		for (size_t i = 0; i < row->len; i++)
			bytes[i] ^= row->damage == FLIP ? 0xff : 0x01;
	}
	must(pwrite(fd, bytes, row->len, at) == (ssize_t)row->len, "write");
	free(bytes);
}

static void lengthen(int fd, size_t len)
{
	off_t end = lseek(fd, 0, SEEK_END);
	uint8_t *bytes = malloc(len);

	memset(bytes, 0xa5, len);
	must(end >= 0 && pwrite(fd, bytes, len, end) == (ssize_t)len, "write");
	free(bytes);
}

static void spoil(const struct victim *v, const char *file, struct row row)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/pool-%u/%s", h.base, v->id, file);
	if (strcmp(file, REGISTRY) == 0) {
		snprintf(path, sizeof(path), "%s/%s", h.base, file);
		row.at += (long)offsetof(struct registry_file_df, entry) +
			  v->id * (long)sizeof(struct registry_entry_df);
	}
	if (row.damage == GONE) {
		ck_assert_int_eq(unlink(path), 0);
		return;
	}
	fd = open(path, O_RDWR | O_CLOEXEC);
	must(fd >= 0, "%s: %s", path, strerror(errno));
	if (row.damage == CUT)
		ck_assert_int_eq(ftruncate(fd, row.at), 0);
	else if (row.damage == LONG)
		lengthen(fd, row.len);
	else
		spoil_bytes(fd, &row);
	close(fd);
}

/* Looking */

static void expect_neighbour(void)
{
	struct nvmm_heap_report report = { .size = sizeof(report) };
	struct nvmm *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, victims[ROWS].id);

	must(nvmm_heap_check(heap, &report) == 0 && report.violations == 0, "neighbour");
	must(nvmm_free(heap, nvmm_alloc(heap, 100)) == 0, "neighbour");
	nvmm_disconnect(nvmm);
}

/* Allocates until nothing is left: none of it may be what was allocated before. */
static void expect_kept(const struct victim *v, unsigned row)
{
	struct nvmm *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, v->id);
	nvmm_ptr ptr;

	for (unsigned n = 0; n < 1000 && (ptr = nvmm_alloc(heap, 16 + n * 7 % 3000)); n++)
		for (unsigned k = 0; k < BLOCKS; k++)
			must(ptr != v->live[k], "row %u: block %u is given twice", row, k);
	nvmm_disconnect(nvmm);
}

static void expect_said(int code, const char *out, const char *file, const struct row *row,
			unsigned i)
{
	must(code == 5 || (code == 0 && (row->flags & QUIET)), "row %u: check said %d:\n%s", i, code,
	     out);
	must(code == 0 || strstr(out, file), "row %u: check does not name %s:\n%s", i, file, out);
}

/* What stands in the report, or nothing that can be told. */
static void expect_report(const struct victim *v, const char *file, const struct row *row,
			  unsigned i)
{
	char out[65536];
	int code = ctl_pool(out, sizeof(out), v->id, "check", NULL, NULL);

	expect_said(code, out, file, row, i);
}

/* The same without a daemon. */
static void expect_report_of_base(const struct victim *v, const char *file, const struct row *row,
				  unsigned i)
{
	char out[65536];
	int code = ctl_pool(out, sizeof(out), v->id, "check", "--base", h.base);

	expect_said(code, out, file, row, i);
}

static void expect_repair(const struct victim *v, const struct row *row, unsigned i)
{
	char out[65536];
	int code = ctl_pool(out, sizeof(out), v->id, "recover", "--repair", NULL);

	if (row->flags & LOST) {
		must(code == 5 || code == 1, "row %u: repair said %d:\n%s", i, code, out);
		return;
	}
	must(code == 0, "row %u: repair said %d:\n%s", i, code, out);
	code = ctl_pool(out, sizeof(out), v->id, "check", NULL, NULL);
	must(code == 0, "row %u: check after repair said %d:\n%s", i, code, out);
	if (!(row->flags & BITS))
		expect_kept(v, i);
}

/* The pool goes, and its id is another's. */
static void expect_reuse(const struct victim *v, unsigned i)
{
	char out[65536];
	int code = ctl_pool(out, sizeof(out), v->id, "pool", "destroy", "--force");
	struct nvmm *nvmm;

	must(code == 0, "row %u: destroy said %d:\n%s", i, code, out);
	nvmm = harness_connect(&h);
	make(nvmm, v->id, false);
	must(nvmm_free(harness_open(nvmm, v->id), NVMM_NULL) == 0, "free");
	nvmm_disconnect(nvmm);
	code = ctl_pool(out, sizeof(out), v->id, "check", NULL, NULL);
	must(code == 0, "row %u: check of the new pool said %d:\n%s", i, code, out);
}

static void prepare(bool killed)
{
	pid_t pid;

	harness_init(&h, NULL);
	harness_start(&h);
	victims = harness_shared((ROWS + 1) * sizeof(*victims));
	filled = harness_shared(sizeof(*filled));
	pid = harness_fork(filler, NULL);
	harness_until(is_filled, NULL, 30000);
	if (killed)
		harness_signal(&h, SIGKILL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	if (!killed)
		harness_stop(&h);
}

START_TEST(rot)
{
	bool repair = _i & 1;

	now = &groups[_i / 2];
	prepare(!repair);
	for (unsigned i = 0; i < rows_of(now); i++) {
		spoil(&victims[i], now->file, now->row[i]);
		expect_report_of_base(&victims[i], now->file, &now->row[i], i);
	}
	harness_start(&h);
	expect_neighbour();
	for (unsigned i = 0; i < rows_of(now); i++) {
		expect_report(&victims[i], now->file, &now->row[i], i);
		if (repair)
			expect_repair(&victims[i], &now->row[i], i);
		expect_reuse(&victims[i], i);
	}
	expect_neighbour();
	harness_stop(&h);
}
END_TEST

/* The file of the daemon itself: it can be done without. */

static const struct row node_rows[] = {
	{ FLIP, 0, 64, 0 }, { BIT, 40, 1, 0 }, { ZERO, 0, 4096, 0 }, { FLIP, 4096, 8, 0 }, { BIT, 4096 + 20, 248, 0 },
	{ CUT, 0, 0, 0 }, { CUT, 100, 0, 0 }, { CUT, 4100, 0, 0 }, { GONE, 0, 0, 0 },
};

static void spoil_base(const char *file, const struct row *row)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", h.base, file);
	if (row->damage == GONE) {
		ck_assert_int_eq(unlink(path), 0);
		return;
	}
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	if (row->damage == CUT)
		ck_assert_int_eq(ftruncate(fd, row->at), 0);
	else
		spoil_bytes(fd, row);
	close(fd);
}

/* One heap that was in use when all were killed. */
static void prepare_one(void)
{
	static const struct group none = { .file = "none" };

	now = &none;
	prepare(true);
}

START_TEST(node_file)
{
	prepare_one();
	spoil_base("node-1", &node_rows[_i]);
	harness_start(&h);
	ck_assert(harness_logged(&h, "1 heaps of"));
	ck_assert(node_rows[_i].damage == GONE || harness_logged(&h, "node-1.damaged"));
	expect_neighbour();
	expect_kept(&victims[ROWS], 0);
	harness_stop(&h);
	harness_start(&h);
	expect_neighbour();
	harness_stop(&h);
}
END_TEST

/* A registry that is refused, moved away: every pool is there by its files. */
START_TEST(registry_anew)
{
	const struct row header = { FLIP, 0, 64, 0 };
	char path[300], aside[300], out[4096];
	int status;

	prepare_one();
	spoil_base(REGISTRY, &header);
	ck_assert_int_eq(ctl(out, sizeof(out), "check", "--base", h.base, NULL), 5);
	harness_spawn(&h);
	status = harness_wait_daemon(&h);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) != 0);
	snprintf(path, sizeof(path), "%s/registry", h.base);
	snprintf(aside, sizeof(aside), "%s/old", h.dir);
	ck_assert_int_eq(rename(path, aside), 0);
	harness_start(&h);
	expect_report(&victims[ROWS], REGISTRY, &header, 0);
	expect_repair(&victims[ROWS], &header, 0);
	harness_stop(&h);
}
END_TEST

/* The record of a pool that somebody has open, found rotten at a restart. */

static volatile int *stage; /* of who has it open */

static void in_use_wait(int which)
{
	while (*stage < which)
		harness_sleep_ms(1);
}

static void in_use_user(void *arg)
{
	struct victim *v = &victims[0];
	struct nvmm *nvmm = harness_connect(&h);
	struct nvmm_heap *heap;
	nvmm_ptr ptr;

	v->id = make(nvmm, 0, false);
	heap = harness_open(nvmm, v->id);
	for (unsigned i = 0; i < BLOCKS; i++)
		must((v->live[i] = nvmm_alloc(heap, 16 + i * 7 % 3000)), "alloc: %s", strerror(errno));
	*stage = 1;
	in_use_wait(2);
	/* What it has goes on; what it has not is refused, by its name. */
	must((ptr = nvmm_alloc(heap, 16)) && nvmm_free(heap, ptr) == 0, "%s", nvmm_errmsg(nvmm));
	must(nvmm_alloc(heap, MIB) == NVMM_NULL && errno == EUCLEAN, "%d: %s", errno,
	     nvmm_errmsg(nvmm));
	*stage = 3;
	in_use_wait(4);
	nvmm_heap_close(heap);
	*stage = 5;
	for (;;)
		pause();
}

static bool stage_reached(void *arg)
{
	return *stage >= *(int *)arg;
}

static bool repaired(void *arg)
{
	char out[65536];

	return ctl_pool(out, sizeof(out), victims[0].id, "recover", "--repair", NULL) == 0;
}

static const struct row in_use_rows[] = {
	{ FLIP, RECORD(head), 512, 0 },
	{ ZERO, RECORD(head), 512, 0 },
};

/* It has the pool open as before: nobody repairs it, or destroys it unforced, until it has closed it or died; and
 * a further restart knows that, too. */
START_TEST(record_of_one_in_use)
{
	static const int filled_at = 1, refused_at = 3, closed_at = 5;
	const struct row *row = &in_use_rows[_i / 2];
	bool closes = _i & 1;
	char out[65536];
	pid_t user;

	harness_init(&h, NULL);
	harness_start(&h);
	victims = harness_shared(sizeof(*victims));
	stage = harness_shared(sizeof(*stage));
	user = harness_fork(in_use_user, NULL);
	harness_until(stage_reached, (void *)(uintptr_t)&filled_at, 30000);
	harness_signal(&h, SIGKILL);
	spoil(&victims[0], REGISTRY, *row);
	for (int i = 0; i < 2; i++) {
		harness_start(&h);
		ck_assert(!repaired(NULL));
		ck_assert_int_ne(ctl_pool(out, sizeof(out), victims[0].id, "pool", "destroy", NULL), 0);
		if (i == 0)
			harness_signal(&h, SIGKILL);
	}
	*stage = 2;
	harness_until(stage_reached, (void *)(uintptr_t)&refused_at, 30000);
	ck_assert(!repaired(NULL));
	if (closes) {
		*stage = 4;
		harness_until(stage_reached, (void *)(uintptr_t)&closed_at, 30000);
		ck_assert(repaired(NULL));
	}
	kill(user, SIGKILL);
	waitpid(user, NULL, 0);
	harness_until(repaired, NULL, 30000);
	ck_assert_int_eq(ctl_pool(out, sizeof(out), victims[0].id, "check", NULL, NULL), 0);
	expect_kept(&victims[0], 0);
	harness_stop(&h);
}
END_TEST

/* Destroyed by force, with another incarnation than its users opened: its id stays taken until the last one is gone,
 * over a restart. */

static void in_use_opener(void *arg)
{
	int *opened = arg;

	harness_open(harness_connect(&h), victims[0].id);
	*opened = 1;
	for (;;)
		pause();
}

static bool is_opened(void *arg)
{
	return *(volatile int *)arg != 0;
}

/* Whether no session is the process's any more. */
static bool is_forgotten(void *arg)
{
	char out[65536], pid[32];

	snprintf(pid, sizeof(pid), " %d ", (int)*(const pid_t *)arg);
	return ctl(out, sizeof(out), "clients", NULL, NULL, NULL) == 0 && !strstr(out, pid);
}

static int make_again(struct nvmm *nvmm)
{
	nvmm_pool_id id = victims[0].id;

	return nvmm_heap_create(nvmm, &id, 4 * MIB, NULL);
}

static bool is_made_again(void *arg)
{
	return make_again(arg) == 0;
}

START_TEST(record_of_one_destroyed_in_use)
{
	char out[65536];
	struct nvmm *nvmm;
	pid_t user[2];
	int *opened;

	harness_init(&h, NULL);
	harness_start(&h);
	victims = harness_shared(sizeof(*victims));
	opened = harness_shared(2 * sizeof(*opened));
	nvmm = harness_connect(&h);
	victims[0].id = make(nvmm, 0, false);
	nvmm_disconnect(nvmm);
	for (int i = 0; i < 2; i++) {
		user[i] = harness_fork(in_use_opener, &opened[i]);
		harness_until(is_opened, &opened[i], 30000);
	}
	harness_signal(&h, SIGKILL);
	spoil(&victims[0], REGISTRY, in_use_rows[0]);
	harness_start(&h);
	ck_assert_int_eq(ctl_pool(out, sizeof(out), victims[0].id, "pool", "destroy", "--force"), 0);
	harness_signal(&h, SIGKILL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(make_again(nvmm), -EBUSY);
	for (int i = 0; i < 2; i++) {
		pid_t dies = user[i ^ _i];

		kill(dies, SIGKILL);
		waitpid(dies, NULL, 0);
		harness_until(is_forgotten, &dies, 30000);
		if (i == 0)
			ck_assert_int_eq(make_again(nvmm), -EBUSY);
	}
	harness_until(is_made_again, nvmm, 30000);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

/* Destroyed by force while it is repaired: one after the other, and there is nothing left of it. */

static void send_only(struct raw *raw, Nvmm__Request *request)
{
	uint8_t packed[256];

	request->seq = ++raw->seq;
	ck_assert_uint_le(nvmm__request__get_packed_size(request), sizeof(packed));
	ck_assert_int_eq(raw_send(raw, packed, nvmm__request__pack(request, packed)), 0);
}

static void expect_done(struct raw *raw, const char *refusal)
{
	Nvmm__Reply *reply = raw_receive(raw);

	ck_assert_ptr_nonnull(reply);
	ck_assert_msg(reply->error == 0 || (refusal && strstr(reply->text, refusal)), "%d: %s", reply->error, reply->text);
	nvmm__reply__free_unpacked(reply, NULL);
	raw_close(raw);
}

/* Both requests are there when the daemon looks: it takes one up while a thread has the other. */
static void repair_and_destroy(nvmm_pool_id id)
{
	Nvmm__PoolDestroy destroy = NVMM__POOL_DESTROY__INIT;
	Nvmm__Recover recover = NVMM__RECOVER__INIT;
	Nvmm__Request first = NVMM__REQUEST__INIT, second = NVMM__REQUEST__INIT;
	struct raw one, other;

	raw_connect(&one, &h);
	raw_hello(&one);
	raw_connect(&other, &h);
	raw_hello(&other);
	recover.id = destroy.id = id;
	recover.offline = recover.repair = destroy.force = true;
	first.op_case = NVMM__REQUEST__OP_RECOVER;
	first.recover = &recover;
	second.op_case = NVMM__REQUEST__OP_POOL_DESTROY;
	second.pool_destroy = &destroy;
	harness_signal(&h, SIGSTOP);
	send_only(&one, &first);
	send_only(&other, &second);
	harness_signal(&h, SIGCONT);
	expect_done(&one, "there is no pool");
	expect_done(&other, NULL);
}

START_TEST(record_of_one_destroyed_in_repair)
{
	char out[65536];
	struct nvmm *nvmm;

	harness_init(&h, NULL);
	harness_start(&h);
	victims = harness_shared(sizeof(*victims));
	nvmm = harness_connect(&h);
	victims[0].id = make(nvmm, 0, false);
	nvmm_disconnect(nvmm);
	harness_signal(&h, SIGKILL);
	spoil(&victims[0], REGISTRY, in_use_rows[0]);
	harness_start(&h);
	repair_and_destroy(victims[0].id);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(make_again(nvmm), 0);
	ck_assert_int_eq(ctl_pool(out, sizeof(out), victims[0].id, "check", NULL, NULL), 0);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("rot");
	TCase *tcase = harness_case(suite, "pools", 120);

	tcase_add_loop_test(tcase, rot, 0, 2 * (int)ARRAY_SIZE(groups));
	tcase_add_loop_test(tcase, node_file, 0, (int)ARRAY_SIZE(node_rows));
	tcase_add_test(tcase, registry_anew);
	tcase_add_loop_test(tcase, record_of_one_in_use, 0, 2 * (int)ARRAY_SIZE(in_use_rows));
	tcase_add_loop_test(tcase, record_of_one_destroyed_in_use, 0, 2);
	tcase_add_loop_test(tcase, record_of_one_destroyed_in_repair, 0, 3);
	return harness_run(suite);
}
