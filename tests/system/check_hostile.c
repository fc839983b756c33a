/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Clients that write rubbish where they may write, and shorten what they may shorten: state, hints and
 * lanes of a heap. The daemon answers every request about that heap, whatever it answers, and serves the
 * other heap as if nothing was; a descriptor of a reader is no way in.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/system/raw.h"

#define MIB (UINT64_C(1) << 20)
#define ROUNDS 6u

static struct harness h;
static struct nvmm_client *honest;
static struct nvmm_heap *good;
static nvmm_pool_id good_id, bad_id;

static nvmm_pool_id make_bad(void)
{
	nvmm_pool_id id = 0;

	ck_assert_int_eq(nvmm_heap_create(honest, &id, 16 * MIB, NULL), 0);
	return id;
}

static void start(void)
{
	harness_init(&h, NULL);
	harness_start(&h);
	honest = harness_connect(&h);
	good = harness_heap(honest, &good_id, 4 * MIB, "good", 0);
	bad_id = make_bad();
}

/* The good heap serves: through the daemon, too. */
static void still_good(void)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };
	nvmm_ptr p = nvmm_alloc(good, MIB), q = nvmm_alloc(good, 40);

	ck_assert_msg(p != NVMM_NULL && q != NVMM_NULL, "the good heap: %s", nvmm_errmsg(honest));
	ck_assert_int_eq(nvmm_root_set(good, "q", q), 0);
	ck_assert_int_eq(nvmm_heap_stat(good, &info), 0);
	ck_assert_int_eq(nvmm_free(good, p), 0);
	ck_assert_int_eq(nvmm_free(good, q), 0);
}

static void stop(void)
{
	still_good();
	nvmm_heap_close(good);
	nvmm_disconnect(honest);
	harness_stop(&h);
}

static void file_path(char *path, size_t room, nvmm_pool_id id, const char *file)
{
	snprintf(path, room, "%s/pool-%u/%s", h.base, id, file);
}

/* A request about the bad heap: any answer, but one. */
#define ASK(raw, field, case_name, type, init, ...)                             \
	({                                                                      \
		Nvmm__Request request_ = NVMM__REQUEST__INIT;                   \
		type op = init;                                                 \
		__VA_ARGS__;                                                    \
		request_.op_case = NVMM__REQUEST__OP_##case_name;               \
		request_.field = &op;                                           \
		raw_error(raw, &request_);                                      \
	})

static int open_bad(struct raw *raw, bool write)
{
	return ASK(raw, pool_open, POOL_OPEN, Nvmm__PoolOpen, NVMM__POOL_OPEN__INIT, op.id = bad_id;
		   op.write = write);
}

static int take_lane(struct raw *raw)
{
	return ASK(raw, lane_take, LANE_TAKE, Nvmm__LaneTake, NVMM__LANE_TAKE__INIT, op.id = bad_id;
		   op.count = 4);
}

static void opened(struct raw *raw)
{
	raw_connect(raw, &h);
	raw_hello(raw);
	ck_assert_int_eq(open_bad(raw, true), 0);
	ck_assert_int_eq(take_lane(raw), 0);
}

/* Everything that makes the daemon read what clients write. */
static void ask_all(struct raw *raw)
{
	uint32_t lanes[] = { 0, 1 };

	for (uint32_t class = 0; class < 51; class += 7)
		ASK(raw, span_get, SPAN_GET, Nvmm__SpanGet, NVMM__SPAN_GET__INIT, op.id = bad_id;
		    op.class_ = class; op.count = 64);
	for (uint64_t units = 1; units < 2048; units *= 3)
		ASK(raw, run_get, RUN_GET, Nvmm__RunGet, NVMM__RUN_GET__INIT, op.id = bad_id;
		    op.units = units);
	ASK(raw, heap_stat, HEAP_STAT, Nvmm__HeapStat, NVMM__HEAP_STAT__INIT, op.id = bad_id);
	ASK(raw, lane_return, LANE_RETURN, Nvmm__LaneReturn, NVMM__LANE_RETURN__INIT, op.id = bad_id;
	    op.lanes = lanes; op.n_lanes = 2);
	take_lane(raw);
	ASK(raw, pool_resize, POOL_RESIZE, Nvmm__PoolResize, NVMM__POOL_RESIZE__INIT, op.id = bad_id;
	    op.size = 17 * MIB);
}

/* Words that could mean something, and others. */
static uint64_t rubbish(unsigned *seed, unsigned kind)
{
	uint64_t any = (uint64_t)rand_r(seed) << 40 ^ (uint64_t)rand_r(seed) << 20 ^
		       (uint64_t)rand_r(seed);

	switch (kind % 6) {
	case 0:
		return 0;
	case 1:
		return UINT64_MAX;
	case 2: /* refs, of units that there are and that there are not */
		return UINT64_C(1) << 63 | (any & 0x7ff) | (any & 15 ? 0 : any & 0x3ffffffff);
	case 3: /* owner words */
		return any & 1 ? any & 3 : UINT64_C(1) << 63 | UINT64_C(1) << 40 | (any & 7);
	case 4: /* revoke, busy */
		return any & 3;
	default:
		return any * UINT64_C(0x9e3779b97f4a7c15);
	}
}

/* Overwrites a file behind its header. */
static void scribble(const char *file, unsigned *seed, unsigned kind)
{
	char path[300];
	struct stat st;
	volatile uint64_t *p;
	int fd;

	file_path(path, sizeof(path), bad_id, file);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne((void *)(uintptr_t)p, MAP_FAILED);
	for (size_t i = 4096 / 8; i < (size_t)st.st_size / 8; i++)
		p[i] = rubbish(seed, kind);
	munmap((void *)(uintptr_t)p, (size_t)st.st_size);
	close(fd);
}

/* Each kind of rubbish, while the heap is in use, at the end of who used it, and when it is loaded. */
START_TEST(rubbish_in_writable_files)
{
	unsigned seed = (unsigned)_i + 1;
	struct raw raw, dead;

	for (unsigned round = 0; round < ROUNDS; round++) {
		bad_id = make_bad();
		opened(&raw);
		opened(&dead);
		ask_all(&raw);
		scribble("state-0", &seed, (unsigned)_i + round);
		scribble("lanes.1", &seed, round % 2 ? (unsigned)_i : (unsigned)_i + round);
		ask_all(&raw);
		raw_close(&dead);
		ask_all(&raw);
		raw_close(&raw);
		still_good();
		/* As the only writer, if it can be opened at all: loaded anew. */
		raw_connect(&raw, &h);
		raw_hello(&raw);
		if (open_bad(&raw, true) == 0)
			ask_all(&raw);
		raw_close(&raw);
		still_good();
	}
}
END_TEST

/* The next daemon finds the rubbish as well. */
START_TEST(rubbish_outlives_the_daemon)
{
	unsigned seed = 77;
	struct raw raw;

	opened(&raw);
	ask_all(&raw);
	scribble("state-0", &seed, (unsigned)_i);
	scribble("lanes.1", &seed, (unsigned)_i + 2);
	harness_signal(&h, SIGKILL);
	harness_start(&h);
	raw_close(&raw);
	raw_connect(&raw, &h);
	raw_hello(&raw);
	if (open_bad(&raw, true) == 0)
		ask_all(&raw);
	raw_close(&raw);
}
END_TEST

static const struct cut {
	const char *file;
	off_t length; /* negative: punched, not cut */
} cuts[] = {
	{ "state-0", 0 },    { "state-0", 4096 }, { "state-0", -1 }, { "lanes.1", 0 },
	{ "lanes.1", 4096 }, { "lanes.1", 8192 }, { "lanes.1", -1 }, { "lanes.1", 1 << 30 },
	{ "shelf-0", 0 },    { "shelf-0", 4096 }, { "shelf-0", -1 }, { "state-0", 1 << 30 },
};

START_TEST(cut_files)
{
	const struct cut *c = &cuts[_i];
	struct raw raw, dead;
	char path[300];
	int fd;

	opened(&raw);
	opened(&dead);
	ask_all(&raw);
	file_path(path, sizeof(path), bad_id, c->file);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	if (c->length >= 0)
		ck_assert_int_eq(ftruncate(fd, c->length), 0);
	else
		ck_assert_int_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
					   16 * (off_t)MIB), 0);
	close(fd);
	ask_all(&raw);
	raw_close(&dead);
	ask_all(&raw);
	still_good();
	raw_close(&raw);
	raw_connect(&raw, &h);
	raw_hello(&raw);
	if (open_bad(&raw, true) == 0)
		ask_all(&raw);
	/* Damaged or not, its owner can be rid of it. */
	ck_assert_int_eq(ASK(&raw, pool_destroy, POOL_DESTROY, Nvmm__PoolDestroy,
			     NVMM__POOL_DESTROY__INIT, op.id = bad_id; op.force = true), 0);
	raw_close(&raw);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("hostile");
	TCase *tc = harness_case(suite, "files", 120);

	tcase_add_checked_fixture(tc, start, stop);
	tcase_add_loop_test(tc, rubbish_in_writable_files, 0, 6);
	tcase_add_loop_test(tc, rubbish_outlives_the_daemon, 0, 6);
	tcase_add_loop_test(tc, cut_files, 0, sizeof(cuts) / sizeof(cuts[0]));
	return harness_run(suite);
}
