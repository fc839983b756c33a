/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A heap grows while four threads allocate in it: 200 times, by the library and by nvmmctl, in place and at
 * last by a further shelf; sparse or not. Nothing is leaked on either side, and every byte is of use afterwards.
 *
 * A daemon that lacks descriptors or address space for it, at whatever step, refuses to grow and serves as before;
 * asked again when it has them, it grows.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/system/harness.h"

#define MIB (UINT64_C(1) << 20)
#define THREADS 4
#define HELD 64u
#define RESIZES 200
#define FURTHER 4             /* the last so many go beyond the first shelf */
#define SHELF_LIMIT (1024 * MIB) /* of a small heap */

static struct harness h;

/* Threads that allocate */

struct user {
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	unsigned number;
	atomic_bool *stop;
	uint64_t done;
	pthread_t thread;
};

static void use_one(struct user *u, nvmm_ptr *held, size_t *size, unsigned *seed)
{
	unsigned char *p;

	if (*held != NVMM_NULL) {
		p = nvmm_local(u->nvmm, *held);
		must(p && p[0] == (unsigned char)u->number && p[*size - 1] == (unsigned char)u->number,
		     "a block of thread %u was written to", u->number);
		must(nvmm_free(u->heap, *held) == 0, "%s", nvmm_errmsg(u->nvmm));
	}
	*size = 1 + (size_t)rand_r(seed) % (rand_r(seed) % 16 ? 4000 : 200000);
	*held = nvmm_alloc(u->heap, *size);
	/* The heap is small at first, and may be full. */
	must(*held != NVMM_NULL || errno == ENOSPC, "%s", nvmm_errmsg(u->nvmm));
	if (*held == NVMM_NULL)
		return;
	p = nvmm_local(u->nvmm, *held);
	must(p, "%s", nvmm_errmsg(u->nvmm));
	p[0] = p[*size - 1] = (unsigned char)u->number;
	u->done++;
}

static void *use(void *arg)
{
	struct user *u = arg;
	nvmm_ptr held[HELD] = { NVMM_NULL };
	size_t sizes[HELD] = { 0 };
	unsigned seed = u->number;

	while (!atomic_load(u->stop)) {
		unsigned i = (unsigned)rand_r(&seed) % HELD;

		use_one(u, &held[i], &sizes[i], &seed);
	}
	for (unsigned i = 0; i < HELD; i++)
		must(nvmm_free(u->heap, held[i]) == 0, "%s", nvmm_errmsg(u->nvmm));
	return NULL;
}

/* Growing */

static void grow(struct nvmm_client *nvmm, nvmm_pool_id id, uint64_t bytes, bool by_command)
{
	char pool[16], size[32], out[4096];
	const char *argv[] = { "ctl/nvmmctl", "pool", "resize", pool, size, NULL };

	if (!by_command) {
		ck_assert_msg(nvmm_pool_resize(nvmm, id, bytes) == 0, "%s", nvmm_errmsg(nvmm));
		return;
	}
	snprintf(pool, sizeof(pool), "%u", id);
	snprintf(size, sizeof(size), "%llu", (unsigned long long)bytes);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), argv), 0);
}

/* Fills the heap, writes to every byte, and empties it: bytes of it that were of use. */
static uint64_t fill(struct nvmm_client *nvmm, struct nvmm_heap *heap)
{
	static nvmm_ptr blocks[4096];
	size_t n = 0;

	while ((blocks[n] = nvmm_alloc(heap, MIB)) != NVMM_NULL) {
		memset(nvmm_local(nvmm, blocks[n]), (int)n, MIB);
		ck_assert_uint_lt(++n, sizeof(blocks) / sizeof(blocks[0]));
	}
	ck_assert_int_eq(errno, ENOSPC);
	for (size_t i = 0; i < n; i++) {
		const unsigned char *p = nvmm_local(nvmm, blocks[i]);

		must(p[0] == (unsigned char)i && p[MIB - 1] == (unsigned char)i, "block %zu", i);
		must(nvmm_free(heap, blocks[i]) == 0, "%s", nvmm_errmsg(nvmm));
	}
	return n * MIB;
}

static bool daemon_as_before(void *arg)
{
	return harness_holdings(h.daemon).fds <= *(unsigned *)arg;
}

/* Reserved in full, or as it is granted. */
static struct nvmm_heap *make_heap(struct nvmm_client *nvmm, nvmm_pool_id *id, bool sparse)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .sparse = sparse };

	*id = 0;
	must(nvmm_heap_create(nvmm, id, 4 * MIB, &options) == 0, "%s", nvmm_errmsg(nvmm));
	return harness_open(nvmm, *id);
}

START_TEST(grows_in_use)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id id;
	struct nvmm_heap *heap = make_heap(nvmm, &id, _i);
	struct nvmm_heap_info info = { .size = sizeof(info) };
	struct harness_holdings mine = { 0, 0 }, daemons = { 0, 0 }, now;
	struct nvmm_shelf shelves[8];
	struct user users[THREADS];
	atomic_bool over = false;
	uint64_t bytes = 4 * MIB;

	for (unsigned i = 0; i < THREADS; i++) {
		users[i] = (struct user){ .nvmm = nvmm, .heap = heap, .number = i + 1, .stop = &over };
		ck_assert_int_eq(pthread_create(&users[i].thread, NULL, use, &users[i]), 0);
	}
	for (int i = 0; i < RESIZES; i++) {
		/* Both sides have done each thing once by the tenth. */
		if (i == 10) {
			mine = harness_holdings(getpid());
			daemons = harness_holdings(h.daemon);
		}
		bytes += i == RESIZES - FURTHER ? SHELF_LIMIT : MIB / 4;
		grow(nvmm, id, bytes, i % 8 == 7);
	}
	atomic_store(&over, true);
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(users[i].thread, NULL);
		ck_assert_uint_gt(users[i].done, 0);
	}
	ck_assert_int_eq(nvmm_heap_stat(heap, &info), 0);
	ck_assert_uint_eq(info.bytes, bytes);
	ck_assert_uint_eq(info.blocks, 0);
	ck_assert_int_eq(nvmm_heap_shelves(heap, shelves, 8), 2);
	ck_assert_uint_ge(fill(nvmm, heap), bytes / 100 * 95);

	/* Of a sparse heap's shelf the daemon has three files open, to reserve and give back. */
	daemons.fds += _i ? 3 : 0;
	now = harness_holdings(getpid());
	ck_assert_uint_le(now.fds, mine.fds);
	/* A further shelf has three files, and what was grown in place may be mapped in pieces. */
	ck_assert_msg(now.maps <= mine.maps + 20, "%u mappings, %u before", now.maps, mine.maps);
	harness_until(daemon_as_before, &daemons.fds, 10000);
	now = harness_holdings(h.daemon);
	ck_assert_msg(now.maps <= daemons.maps + 20, "the daemon: %u mappings, %u before", now.maps,
		      daemons.maps);
	nvmm_heap_close(heap);
	ck_assert_int_eq(nvmm_heap_destroy(nvmm, id), 0);
	nvmm_disconnect(nvmm);
}
END_TEST

/* What the daemon lacks */

/* Sets a limit of the daemon. */
static void limit(__rlimit_resource_t what, rlim_t value)
{
	struct rlimit old;

	ck_assert_int_eq(prlimit(h.daemon, what, NULL, &old), 0);
	old.rlim_cur = value < old.rlim_max ? value : old.rlim_max;
	ck_assert_int_eq(prlimit(h.daemon, what, &old, NULL), 0);
}

/* Bytes of address space that it has taken. */
static rlim_t address_space(void)
{
	unsigned long pages;
	char path[32];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/statm", h.daemon);
	f = fopen(path, "re");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fscanf(f, "%lu", &pages), 1);
	fclose(f);
	return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

/* The pool is as it was, and serves. */
static void unchanged(struct nvmm_client *nvmm, nvmm_pool_id id, struct nvmm_heap *heap, uint64_t bytes)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };
	struct nvmm_pool_info pool = { .size = sizeof(pool) };
	nvmm_ptr large;

	ck_assert_msg(nvmm_pool_stat(nvmm, id, &pool) == 0, "%s", nvmm_errmsg(nvmm));
	ck_assert_uint_eq(pool.bytes, bytes);
	/* Of whole units: the daemon is asked for it, and for its room when it is taken back. */
	large = nvmm_alloc(heap, MIB);
	ck_assert_msg(large != NVMM_NULL, "%s", nvmm_errmsg(nvmm));
	memset(nvmm_local(nvmm, large), 1, MIB);
	ck_assert_int_eq(nvmm_free(heap, large), 0);
	ck_assert_msg(nvmm_heap_stat(heap, &info) == 0, "%s", nvmm_errmsg(nvmm));
	ck_assert_uint_eq(info.blocks, 0);
	ck_assert(!harness_logged(&h, "is damaged"));
}

/* From the first size on, which its first shelf has room for, to one that takes two further ones. */
#define WANTED (600 * MIB)
#define FURTHER_WANTED (64 * 1024 * MIB)

START_TEST(lacks_descriptors)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id id;
	struct nvmm_heap *heap = make_heap(nvmm, &id, true);
	uint64_t bytes = 4 * MIB, wanted = _i ? FURTHER_WANTED : WANTED;
	unsigned refused = 0, had = harness_holdings(h.daemon).fds;
	int r;

	unchanged(nvmm, id, heap, bytes);
	for (rlim_t fds = 4;; fds++) { /* fewer than it has open */
		limit(RLIMIT_NOFILE, fds);
		r = nvmm_pool_resize(nvmm, id, wanted);
		limit(RLIMIT_NOFILE, RLIM_INFINITY);
		if (r == 0)
			break;
		ck_assert_msg(r == -EMFILE, "%d: %s", r, nvmm_errmsg(nvmm));
		unchanged(nvmm, id, heap, bytes);
		ck_assert_uint_lt(++refused, 64);
	}
	ck_assert_uint_ge(refused, had / 2);
	unchanged(nvmm, id, heap, wanted);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

START_TEST(lacks_address_space)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id id;
	struct nvmm_heap *heap = make_heap(nvmm, &id, true);
	struct nvmm_shelf shelves[8];

	for (int i = 0; i < 2; i++) {
		int r;

		/* Enough for all but the state of a shelf of FURTHER_WANTED, with its room to grow. */
		limit(RLIMIT_AS, address_space() + 512 * MIB);
		r = nvmm_pool_resize(nvmm, id, FURTHER_WANTED);
		ck_assert_msg(r == -ENOMEM, "%d: %s", r, nvmm_errmsg(nvmm));
		unchanged(nvmm, id, heap, 4 * MIB);
		limit(RLIMIT_AS, RLIM_INFINITY);
	}
	/* What was made and taken back is in the way of nobody, neither of this daemon nor of the next. */
	if (_i) {
		harness_signal(&h, SIGKILL);
		harness_start(&h);
	}
	ck_assert_msg(nvmm_pool_resize(nvmm, id, FURTHER_WANTED) == 0, "%s", nvmm_errmsg(nvmm));
	unchanged(nvmm, id, heap, FURTHER_WANTED);
	/* More than the first shelf had. */
	must(nvmm_alloc(heap, 1100 * MIB) != NVMM_NULL || errno == ENOSPC, "%s", nvmm_errmsg(nvmm));
	ck_assert_int_eq(nvmm_heap_shelves(heap, shelves, 8), 2);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("resize");
	TCase *tcase = harness_case_served(suite, "resize", 180, &h);

	tcase_add_loop_test(tcase, grows_in_use, 0, 2);
	tcase_add_loop_test(tcase, lacks_descriptors, 0, 2);
	tcase_add_loop_test(tcase, lacks_address_space, 0, 2);
	return harness_run(suite);
}
