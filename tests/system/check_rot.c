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
#include "tests/system/rot.h"

#define ROWS 32u

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
		{ FLIP, KEPT, 8, 0 },
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

static struct harness h;
static struct victim *victims; /* by row; the last is the neighbour; shared with who fills them */
static volatile int *filled;

static void fill(struct nvmm_client *nvmm, struct victim *v, bool sparse)
{
	struct nvmm_heap *heap;

	v->id = rot_make(nvmm, 0, sparse);
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
	struct nvmm_client *nvmm = harness_connect(&h);

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

/* Looking */

static void expect_neighbour(void)
{
	struct nvmm_heap_report report = { .size = sizeof(report) };
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, victims[ROWS].id);

	must(nvmm_heap_check(heap, &report) == 0 && report.violations == 0, "neighbour");
	must(nvmm_free(heap, nvmm_alloc(heap, 100)) == 0, "neighbour");
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
	int code = rot_ctl_pool(&h, out, sizeof(out), v->id, "check", NULL, NULL);

	expect_said(code, out, file, row, i);
}

/* The same without a daemon. */
static void expect_report_of_base(const struct victim *v, const char *file, const struct row *row,
				  unsigned i)
{
	char out[65536];
	int code = rot_ctl_pool(&h, out, sizeof(out), v->id, "check", "--base", h.base);

	expect_said(code, out, file, row, i);
}

static void expect_repair(const struct victim *v, const struct row *row, unsigned i)
{
	char out[65536];
	int code = rot_ctl_pool(&h, out, sizeof(out), v->id, "recover", "--repair", NULL);

	if (row->flags & LOST) {
		must(code == 5 || code == 1, "row %u: repair said %d:\n%s", i, code, out);
		return;
	}
	must(code == 0, "row %u: repair said %d:\n%s", i, code, out);
	code = rot_ctl_pool(&h, out, sizeof(out), v->id, "check", NULL, NULL);
	must(code == 0, "row %u: check after repair said %d:\n%s", i, code, out);
	if (!(row->flags & BITS))
		rot_expect_kept(&h, v, i);
}

/* The pool goes, and its id is another's. */
static void expect_reuse(const struct victim *v, unsigned i)
{
	char out[65536];
	int code = rot_ctl_pool(&h, out, sizeof(out), v->id, "pool", "destroy", "--force");
	struct nvmm_client *nvmm;

	must(code == 0, "row %u: destroy said %d:\n%s", i, code, out);
	nvmm = harness_connect(&h);
	rot_make(nvmm, v->id, false);
	must(nvmm_free(harness_open(nvmm, v->id), NVMM_NULL) == 0, "free");
	nvmm_disconnect(nvmm);
	code = rot_ctl_pool(&h, out, sizeof(out), v->id, "check", NULL, NULL);
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
		rot_spoil(&h, &victims[i], now->file, now->row[i]);
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
		rot_spoil_bytes(fd, row);
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
	rot_expect_kept(&h, &victims[ROWS], 0);
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
	ck_assert_int_eq(rot_ctl(&h, out, sizeof(out), "check", "--base", h.base, NULL), 5);
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

int main(void)
{
	Suite *suite = suite_create("rot");
	TCase *tcase = harness_case(suite, "pools", 120);

	tcase_add_loop_test(tcase, rot, 0, 2 * (int)ARRAY_SIZE(groups));
	tcase_add_loop_test(tcase, node_file, 0, (int)ARRAY_SIZE(node_rows));
	tcase_add_test(tcase, registry_anew);
	return harness_run(suite);
}
