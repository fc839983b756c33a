/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A sparse heap under load, while it is trimmed, grown and counted and its daemon is killed: on a file system
 * with room, and, in durability `power`, on one that is full most of the time. What is given back while others
 * allocate would show as a block that lost its pattern, what is granted without space as a SIGBUS. In the end
 * all is free and the space is the file system's again.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#include "tests/stress/load.h"

#define MIB (UINT64_C(1) << 20)
#define TIB (UINT64_C(1) << 40)
#define PROCESSES 3
#define FULL 1 /* of the loop: the base is small */

static struct harness h;

/* A file system of its own, in a mount namespace that ends with this test. */
static bool mount_small_base(void)
{
	if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", h.base, "tmpfs", 0, "size=96m,mode=0700") < 0) {
		fprintf(stderr, "full base: skipped: mounting is not allowed here\n");
		return false;
	}
	return true;
}

struct operator {
	struct load *load;
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	unsigned seed;
	uint64_t size;
	unsigned trims, resizes, kills;
};

static void grow(struct operator *o)
{
	uint64_t size = o->size + MIB * (1 + (uint64_t)rand_r(&o->seed) % 20) + 16384;
	int r = nvmm_pool_resize(o->nvmm, o->load->heap, size);

	must(r == 0 || r == -ENOSPC, "resize: %d: %s", r, nvmm_errmsg(o->nvmm));
	if (r == 0)
		o->size = size;
	o->resizes += r == 0;
}

static void count(struct operator *o)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };
	int r = nvmm_heap_stat(o->heap, &info);

	must(r == 0 && info.bytes >= o->size, "stat: %d: %s", r, nvmm_errmsg(o->nvmm));
}

static void operate(struct operator *o)
{
	int64_t r;

	switch (rand_r(&o->seed) % 8) {
	case 0:
		harness_signal(&h, SIGKILL);
		harness_start(&h);
		o->kills++;
		break;
	case 1:
	case 2:
		grow(o);
		break;
	case 3:
		count(o);
		break;
	default:
		r = nvmm_heap_trim(o->heap);
		must(r >= 0, "trim: %lld: %s", (long long)r, nvmm_errmsg(o->nvmm));
		o->trims++;
	}
	harness_sleep_ms((unsigned)rand_r(&o->seed) % 30);
}

static void expect_whole(struct operator *o)
{
	struct nvmm_heap_report report = { .size = sizeof(report) };
	int r = nvmm_heap_check(o->heap, &report);

	must(r == 0 && report.violations == 0, "check: %d, %llu violations", r,
	     (unsigned long long)report.violations);
}

static void expect_given_back(struct operator *o, uint64_t before)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };
	struct nvmm_pool_info pool = { .size = sizeof(pool) };

	load_drain(o->load, o->nvmm, o->heap);
	ck_assert_int_eq(nvmm_heap_stat(o->heap, &info), 0);
	ck_assert_uint_eq(info.blocks, 0);
	ck_assert_uint_eq(info.used, 0);
	ck_assert_int_ge(nvmm_heap_trim(o->heap), 0);
	ck_assert_int_eq(nvmm_pool_stat(o->nvmm, o->load->heap, &pool), 0);
	/* Metadata stay, of what was ever in use at once and of the first units of each resize. */
	before += 32 * MIB + o->resizes * (MIB / 4);
	ck_assert_msg(pool.file_bytes <= before, "%llu MiB too much are not given back",
		      (unsigned long long)((pool.file_bytes - before) / MIB));
	expect_whole(o);
}

static bool all_work(void *arg)
{
	const struct load *load = arg;

	return atomic_load(load->processes) == PROCESSES;
}

START_TEST(trimmed_grown_killed)
{
	struct load load = { .most = 24 * MIB, .held = 16 * MIB, .threads = 2, .sparse = true,
			     .power = _i == FULL };
	struct operator o = { .load = &load, .size = TIB / 4 };
	struct nvmm_pool_info pool = { .size = sizeof(pool) };
	pid_t pids[PROCESSES];
	uint64_t end;

	harness_init(&h, NULL);
	if (_i == FULL && !mount_small_base())
		return;
	load_seed(&load);
	harness_start(&h);
	load_init(&load, &h, o.size);
	o.seed = (unsigned)load.seed;
	o.nvmm = harness_connect(&h);
	o.heap = harness_open(o.nvmm, load.heap);
	ck_assert_int_eq(nvmm_pool_stat(o.nvmm, load.heap, &pool), 0);
	for (int i = 0; i < PROCESSES; i++)
		pids[i] = harness_fork(load_process, &load);
	/* A daemon that dies under somebody's first connection is not what this is about. */
	harness_until(all_work, &load, 30000);
	end = harness_now_us() + harness_seconds(4) * UINT64_C(1000000);
	while (harness_now_us() < end)
		operate(&o);
	atomic_store(&load.counts->stop, true);
	for (int i = 0; i < PROCESSES; i++)
		harness_join(pids[i]);
	printf("sparse: %llu allocated, %llu found no room; %u trims, %u resizes, %u daemons killed\n",
	       (unsigned long long)load.counts->allocated, (unsigned long long)load.counts->full, o.trims,
	       o.resizes, o.kills);
	expect_given_back(&o, pool.file_bytes);
	nvmm_heap_close(o.heap);
	nvmm_disconnect(o.nvmm);
	harness_stop(&h);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sparse load");
	TCase *tcase = harness_case(suite, "sparse load", 180);

	tcase_add_loop_test(tcase, trimmed_grown_killed, 0, 2);
	return harness_run(suite);
}
