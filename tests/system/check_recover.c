/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Recovery with the real daemon: unclean starts, walks, sweeps, check, what is rotten and mended.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/macro.h"
#include "media/span.h"
#include "tests/system/harness.h"

#define MIB (UINT64_C(1) << 20)
#define BLOCKS 500u

static struct harness h;

static int ctl(const char *first, const char *second, const char *third, const char *fourth)
{
	const char *const argv[] = { "ctl/nvmmctl", first, second, third, fourth, NULL };
	char out[65536];

	return harness_command(&h, out, sizeof(out), argv);
}

/* A heap with blocks of several sizes, every other one reachable: `live` has them. */
struct filled {
	nvmm_pool_id id;
	nvmm_ptr live[BLOCKS];
};

static void fill(struct nvmm_heap *heap, struct filled *f)
{
	for (unsigned i = 0; i < BLOCKS; i++) {
		f->live[i] = nvmm_alloc(heap, 16 + i * 7 % 3000);
		must(f->live[i], "alloc: %s", strerror(errno));
		must(nvmm_alloc(heap, 16 + i * 5 % 3000), "alloc: %s", strerror(errno));
	}
}

struct counted {
	uint64_t blocks;
};

static int count_block(nvmm_ptr ptr, size_t size, enum nvmm_block_state state, void *arg)
{
	struct counted *c = arg;

	must(ptr != NVMM_NULL && size >= 16 && state == NVMM_BLOCK_ALLOCATED, "walk");
	c->blocks++;
	return 0;
}

static uint64_t blocks_of(struct nvmm_heap *heap)
{
	struct counted c = { 0 };

	ck_assert_int_eq(nvmm_heap_walk(heap, count_block, &c), 0);
	return c.blocks;
}

static bool is_live(nvmm_ptr ptr, size_t size, void *arg)
{
	const struct filled *f = arg;

	for (unsigned i = 0; i < BLOCKS; i++)
		if (f->live[i] == ptr)
			return true;
	return false;
}

START_TEST(walk_and_sweep)
{
	struct nvmm_sweep_info info = { .size = sizeof(info) };
	struct nvmm_heap *heap, *other;
	struct nvmm_client *nvmm, *second;
	struct filled f;

	harness_init(&h, NULL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	heap = harness_heap(nvmm, &f.id, 16 * MIB, "h", 0);
	fill(heap, &f);
	ck_assert_uint_eq(blocks_of(heap), 2 * BLOCKS);
	second = harness_connect(&h);
	other = harness_open(second, f.id);
	ck_assert_int_eq(nvmm_heap_sweep(heap, NVMM_SWEEP_ALL, is_live, &f, &info), -EBUSY);
	ck_assert_int_eq(nvmm_heap_recover(heap, NVMM_RECOVER_OFFLINE, NULL, NULL), -EBUSY);
	ck_assert_int_eq(nvmm_heap_recover(heap, NVMM_RECOVER_ONLINE, NULL, NULL), 0);
	nvmm_heap_close(other);
	nvmm_disconnect(second);
	ck_assert_int_eq(nvmm_heap_sweep(heap, NVMM_SWEEP_SUSPECTS, is_live, &f, &info), 0);
	ck_assert_uint_eq(info.asked, 0);
	ck_assert_int_eq(nvmm_heap_sweep(heap, NVMM_SWEEP_ALL, is_live, &f, &info), 0);
	ck_assert_uint_eq(info.asked, 2 * BLOCKS);
	ck_assert_uint_eq(info.freed, BLOCKS);
	ck_assert_uint_eq(blocks_of(heap), BLOCKS);
	ck_assert_int_eq(nvmm_heap_recover(heap, NVMM_RECOVER_OFFLINE, NULL, NULL), 0);
	ck_assert_uint_eq(blocks_of(heap), BLOCKS);
	for (unsigned i = 0; i < BLOCKS; i++)
		ck_assert_int_eq(nvmm_free(heap, f.live[i]), 0);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

static struct filled *filled; /* shared with the client */

static void client(void *arg)
{
	struct nvmm_client *nvmm = harness_connect(&h);

	for (unsigned i = 0; i < 3; i++)
		fill(harness_heap(nvmm, &filled[i].id, (8 + 8 * i) * MIB, NULL, 0), &filled[i]);
	for (;;) {
		filled[3].id = 1;
		pause();
	}
}

static bool client_ready(void *arg)
{
	return ((volatile struct filled *)filled)[3].id == 1;
}

/* Three heaps in use, client and daemon killed. */
static void crash(const char *recovery)
{
	struct harness_options options = { .limits = recovery };
	pid_t pid;

	harness_init(&h, recovery ? &options : NULL);
	harness_start(&h);
	filled = harness_shared(4 * sizeof(*filled));
	pid = harness_fork(client, NULL);
	harness_until(client_ready, NULL, 20000);
	harness_signal(&h, SIGKILL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void expect_blocks(nvmm_pool_id id)
{
	struct nvmm_heap_report report = { .size = sizeof(report) };
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, id);

	ck_assert_uint_eq(blocks_of(heap), 2 * BLOCKS);
	ck_assert_int_eq(nvmm_heap_check(heap, &report), 0);
	ck_assert_uint_eq(report.violations, 0);
	ck_assert_uint_eq(report.blocks, 2 * BLOCKS);
	nvmm_disconnect(nvmm);
}

/* As many at a time as configured. */
START_TEST(unclean_start_in_parallel)
{
	static const unsigned parallel[] = { 1, 2, 3, 8 };
	char config[64], says[32];

	snprintf(config, sizeof(config), "  clients: 100\nrecovery:\n  parallel: %u\n", parallel[_i]);
	snprintf(says, sizeof(says), "up to %u at a time", MIN(parallel[_i], 3u));
	crash(config);
	harness_start(&h);
	ck_assert_int_eq(ctl("recover", "--watch", NULL, NULL), 0);
	ck_assert(harness_logged(&h, says));
	harness_stop(&h);
}
END_TEST

START_TEST(unclean_start)
{
	crash(NULL);
	harness_start(&h);
	for (unsigned i = 0; i < 3; i++)
		expect_blocks(filled[i].id);
	ck_assert_int_eq(ctl("recover", "--watch", NULL, NULL), 0);
	ck_assert(harness_logged(&h, "3 heaps of"));
	harness_stop(&h);
	harness_start(&h);
	ck_assert_int_eq(ctl("recover", NULL, NULL, NULL), 0);
	harness_stop(&h);
}
END_TEST

START_TEST(unclean_start_manual)
{
	struct nvmm_heap *heap;
	struct nvmm_client *nvmm;

	crash("  clients: 100\nrecovery:\n  on_start: manual\n");
	harness_start(&h);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(nvmm_heap_open(&heap, nvmm, filled[0].id, O_RDWR), -EAGAIN);
	ck_assert_ptr_nonnull(strstr(nvmm_errmsg(nvmm), "nvmmctl recover"));
	nvmm_disconnect(nvmm);
	ck_assert_int_eq(ctl("status", NULL, NULL, NULL), 5);
	ck_assert_int_eq(ctl("pools", NULL, NULL, NULL), 5);
	ck_assert_int_eq(ctl("recover", "--all", NULL, NULL), 0);
	ck_assert_int_eq(ctl("status", NULL, NULL, NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		expect_blocks(filled[i].id);
	harness_stop(&h);
}
END_TEST

START_TEST(unclean_start_offline)
{
	crash("  clients: 100\nrecovery:\n  on_start: offline\n  parallel: 1\n");
	harness_start(&h);
	for (unsigned i = 3; i-- > 0;)
		expect_blocks(filled[i].id);
	harness_stop(&h);
}
END_TEST

/* By the command: refused beside one that has the heap open. */
START_TEST(offline_by_command)
{
	char number[16], out[65536];
	const char *const argv[] = { "ctl/nvmmctl", "recover", number, "--offline", NULL };
	struct nvmm_client *nvmm;
	struct filled f;

	harness_init(&h, NULL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	fill(harness_heap(nvmm, &f.id, 16 * MIB, NULL, 0), &f);
	snprintf(number, sizeof(number), "%u", f.id);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), argv), 1);
	ck_assert_int_eq(ctl("recover", number, NULL, NULL), 0);
	nvmm_disconnect(nvmm);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), argv), 0);
	ck_assert_msg(strstr(out, "done") != NULL, "%s", out);
	expect_blocks(f.id);
	harness_stop(&h);
}
END_TEST

/* By priority */

static nvmm_pool_id *ranked; /* shared; by the order of creation; the last: it is done */

static void rank_client(void *arg)
{
	static const uint32_t priorities[] = { 1, 200, 0, 7 };
	struct nvmm_client *nvmm = harness_connect(&h);

	(void)arg;
	for (unsigned i = 0; i < 4; i++) {
		struct nvmm_pool_options options = { .size = sizeof(options),
						     .priority = priorities[i] };

		must(nvmm_heap_create(nvmm, &ranked[i], (4 + i) * MIB, &options) == 0, "create");
		must(nvmm_alloc(harness_open(nvmm, ranked[i]), 64), "alloc");
	}
	ranked[4] = 1;
	for (;;)
		pause();
}

static bool rank_ready(void *arg)
{
	(void)arg;
	return ((volatile nvmm_pool_id *)ranked)[4] == 1;
}

static bool all_recovered(void *arg)
{
	(void)arg;
	return harness_logged(&h, "4 heaps of") && harness_logged(&h, "bytes were recovered in");
}

/* Pools in the order in which the log says that they were recovered. */
static unsigned recovered_order(unsigned order[4])
{
	FILE *f = fopen(h.log, "re");
	char line[512];
	unsigned n = 0;

	ck_assert_ptr_nonnull(f);
	while (n < 4 && fgets(line, sizeof(line), f)) {
		const char *at = strstr(line, "pool ");

		if (at && strstr(at, "is recovered") && sscanf(at, "pool %u", &order[n]) == 1)
			n++;
	}
	fclose(f);
	return n;
}

START_TEST(unclean_start_by_priority)
{
	struct harness_options options = { .limits = "  clients: 100\nrecovery:\n  parallel: 1\n" };
	static const unsigned want[] = { 1, 3, 0, 2 };
	unsigned order[4];
	pid_t pid;

	harness_init(&h, &options);
	harness_start(&h);
	ranked = harness_shared(5 * sizeof(*ranked));
	pid = harness_fork(rank_client, NULL);
	harness_until(rank_ready, NULL, 20000);
	harness_signal(&h, SIGKILL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	harness_start(&h);
	harness_until(all_recovered, NULL, 20000);
	ck_assert_uint_eq(recovered_order(order), 4);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_uint_eq(order[i], ranked[want[i]]);
	harness_stop(&h);
}
END_TEST

static void recover_on(void *arg)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, *(nvmm_pool_id *)arg);

	for (unsigned i = 0; i < 20000; i++)
		must(nvmm_alloc(heap, 900), "alloc");
	ranked[4] = 1;
	while (nvmm_heap_recover(heap, NVMM_RECOVER_ONLINE, NULL, NULL) == 0)
		;
	_exit(0);
}

/* A heap is destroyed by force while it is recovered beside its user: the next one has its turn. */
START_TEST(destroyed_meanwhile)
{
	struct harness_options options = { .limits = "  clients: 100\nrecovery:\n  parallel: 1\n" };
	nvmm_pool_id gone = 0, stays;
	struct nvmm_client *nvmm;
	char number[16];
	pid_t pid;

	harness_init(&h, &options);
	harness_start(&h);
	ranked = harness_shared(5 * sizeof(*ranked));
	nvmm = harness_connect(&h);
	harness_heap(nvmm, &stays, 4 * MIB, "stays", 0);
	for (unsigned i = 0; i < 6; i++) {
		gone = 0;
		ck_assert_int_eq(nvmm_heap_create(nvmm, &gone, 64 * MIB, NULL), 0);
		ranked[4] = 0;
		pid = harness_fork(recover_on, &gone);
		harness_until(rank_ready, NULL, 20000);
		harness_sleep_ms(3 * i);
		snprintf(number, sizeof(number), "%u", gone);
		ck_assert_int_eq(ctl("pool", "destroy", "--force", number), 0);
		harness_join(pid);
		ck_assert_int_eq(ctl("recover", "stays", NULL, NULL), 0);
	}
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

/* One of many is damaged: the others are recovered, and it is among them in the list. */
START_TEST(all_but_one)
{
	const char *const argv[] = { "ctl/nvmmctl", "recover", "--all", NULL };
	char path[300], out[65536], *at = out;
	struct nvmm_client *nvmm;
	nvmm_pool_id id[3];
	unsigned done = 0;

	harness_init(&h, NULL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	for (unsigned i = 0; i < 3; i++)
		harness_heap(nvmm, &id[i], 4 * MIB, NULL, 0);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
	snprintf(path, sizeof(path), "%s/pool-%u/table-0.1", h.base, id[1]);
	ck_assert_int_eq(truncate(path, 4096), 0);
	harness_start(&h);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), argv), 5);
	ck_assert_msg(strstr(out, "refused") != NULL, "%s", out);
	for (; (at = strstr(at, "done")); at++)
		done++;
	ck_assert_msg(done == 2, "%s", out);
	harness_stop(&h);
}
END_TEST

/* Rot */

/* Stands for where the state record of the first unit is that is given: the second one. */
#define RECORDS (1 << 30)

static void spoil(nvmm_pool_id id, const char *file, off_t at, size_t len, uint8_t xor)
{
	char path[512];
	uint8_t *bytes = calloc(1, len);
	int fd;

	snprintf(path, sizeof(path), "%s/pool-%u/%s", h.base, id, file);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	if (at >= RECORDS) {
		struct file_header_df header;
		struct state_layout layout;

		ck_assert_int_eq(pread(fd, &header, sizeof(header), 0), sizeof(header));
		ck_assert_int_eq(state_layout_init(&layout, header.min_block.raw), 0);
		at += (off_t)(state_records_offset(header.limit.raw) + layout.stride) - RECORDS;
	}
	if (xor) {
		ck_assert_int_eq(pread(fd, bytes, len, at), (ssize_t)len);
		for (size_t i = 0; i < len; i++)
			bytes[i] ^= xor;
	}
	ck_assert_int_eq(pwrite(fd, bytes, len, at), (ssize_t)len);
	close(fd);
	free(bytes);
}

/* What of a heap is rotten, and how many blocks there are at least when it was mended. */
static const struct rot {
	const char *file;
	off_t at;
	size_t len;
	uint8_t xor; /* 0: zeroed */
} rots[] = {
	{ "table-0.1", 4096 + 8, 8, 0x10 },       /* the first span's word: its class */
	{ "table-0.1", 4096 + 9, 1, 0x30 },
	{ "table-0.1", 4096, 4096, 0 },       /* a page of words */
	{ "table-0.1", 4096 + 8 * 16, 64, 0xff },
	{ "state-0", RECORDS, 4096, 0 },     /* a page of records */
	{ "state-0", RECORDS + 384, 32, 0x55 }, /* a record's tail */
	{ "state-0", RECORDS + 127, 1, 0x80 }, /* a bit that stands for no block, or does */
	{ "table-0.1", 0, 64, 0xff },         /* headers */
	{ "state-0", 0, 64, 0 },
	{ "lanes.1", 0, 64, 0x01 },
	{ "lanes.1", 8192 + offsetof(struct lane_df, owned), 1024, 0xaa }, /* a lane's table */
	{ "meta.1", 0, 64, 0x01 },
	{ "meta.1", 4096, 128, 0x01 },        /* a shelf's record */
	{ "meta.1", 36864, 256, 0x01 },       /* a root's */
};

/* Every rot: the daemon lives, the neighbour serves, the pool is usable or says that it is not, and is so
 * after repair; no block that was allocated is given again. */
START_TEST(rot)
{
	const struct rot *r = &rots[_i];
	struct nvmm_heap *heap, *neighbour;
	struct filled f, g;
	struct nvmm_client *nvmm;
	int code;

	harness_init(&h, NULL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	heap = harness_heap(nvmm, &f.id, 16 * MIB, "rotten", 0);
	fill(heap, &f);
	ck_assert_int_eq(nvmm_root_set(heap, "root", f.live[0]), 0);
	neighbour = harness_heap(nvmm, &g.id, 16 * MIB, "neighbour", 0);
	fill(neighbour, &g);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
	spoil(f.id, r->file, r->at, r->len, r->xor);
	code = ctl("check", "--base", h.base, NULL);
	ck_assert_msg(code == 5 || r->at == RECORDS + 127, "%s at %ld: check said %d", r->file,
		      (long)r->at, code);
	harness_start(&h);
	expect_blocks(g.id);
	code = ctl("check", "rotten", NULL, NULL);
	ck_assert_msg(code == 5 || r->at == RECORDS + 127 || r->at == 8192 + 128,
		      "%s at %ld: check said %d", r->file, (long)r->at, code);
	code = ctl("recover", "--repair", "rotten", NULL);
	ck_assert_msg(code == 0, "%s at %ld: repair said %d", r->file, (long)r->at, code);
	nvmm = harness_connect(&h);
	heap = harness_open(nvmm, f.id);
	ck_assert_uint_ge(blocks_of(heap) + (r->at == RECORDS + 127), BLOCKS);
	for (unsigned i = 0; i < 4096; i++) {
		nvmm_ptr ptr = nvmm_alloc(heap, 16 + i * 11 % 3000);

		if (!ptr)
			break;
		for (unsigned k = 0; k < BLOCKS && r->at != RECORDS + 127; k++)
			must(ptr != f.live[k], "block %u is given twice", k);
	}
	nvmm_disconnect(nvmm);
	ck_assert_int_eq(ctl("check", "rotten", NULL, NULL), 0);
	harness_stop(&h);
}
END_TEST

static void spoil_registry(nvmm_pool_id id, bool both)
{
	char path[512];
	uint8_t bytes[512];
	off_t at = 4096 + 512 * (off_t)id;
	int fd;

	snprintf(path, sizeof(path), "%s/registry", h.base);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, bytes, sizeof(bytes), at), sizeof(bytes));
	for (unsigned i = 0; i < (both ? 2 : 1); i++)
		bytes[256 * i + 40] ^= 0xff;
	ck_assert_int_eq(pwrite(fd, bytes, sizeof(bytes), at), sizeof(bytes));
	close(fd);
}

/* One slot of a pool's record rotten, or both; repaired, or destroyed by force and made anew. */
START_TEST(rotten_record)
{
	bool both = _i & 1, destroy = _i & 2;
	struct nvmm_client *nvmm;
	struct filled f;
	char id[16];

	harness_init(&h, NULL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	fill(harness_heap(nvmm, &f.id, 16 * MIB, "rotten", 0), &f);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
	spoil_registry(f.id, both);
	harness_start(&h);
	snprintf(id, sizeof(id), "%u", f.id);
	ck_assert_int_eq(ctl("check", id, NULL, NULL), 5);
	ck_assert_int_eq(ctl("pool", "destroy", id, NULL), 5);
	if (destroy) {
		ck_assert_int_eq(ctl("pool", "destroy", "--force", id), 0);
		nvmm = harness_connect(&h);
		harness_heap(nvmm, &f.id, 16 * MIB, "rotten", 0);
		nvmm_disconnect(nvmm);
	} else {
		ck_assert_int_eq(ctl("recover", "--repair", id, NULL), 0);
		expect_blocks(f.id);
	}
	harness_stop(&h);
	harness_start(&h);
	ck_assert_int_eq(ctl("check", id, NULL, NULL), 0);
	harness_stop(&h);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("recover");
	TCase *tcase = harness_case(suite, "recover", 60);

	tcase_add_test(tcase, walk_and_sweep);
	tcase_add_test(tcase, unclean_start);
	tcase_add_loop_test(tcase, unclean_start_in_parallel, 0, 4);
	tcase_add_test(tcase, unclean_start_manual);
	tcase_add_test(tcase, unclean_start_offline);
	tcase_add_test(tcase, offline_by_command);
	tcase_add_test(tcase, unclean_start_by_priority);
	tcase_add_test(tcase, all_but_one);
	tcase_add_test(tcase, destroyed_meanwhile);
	tcase = harness_case(suite, "rot", 60);
	tcase_add_loop_test(tcase, rot, 0, sizeof(rots) / sizeof(rots[0]));
	tcase_add_loop_test(tcase, rotten_record, 0, 4);
	return harness_run(suite);
}
