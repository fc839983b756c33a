/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many clients: 300 processes in one heap at once, each with a block of its own; and the limits
 * that the administrator set on them.
 */
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/raw.h"

#define CLIENTS 300
#define HEAP_BYTES (UINT64_C(1) << 30)

static struct harness h;

static void stop(void)
{
	if (h.daemon)
		harness_stop(&h);
}

struct meeting {
	nvmm_pool_id heap;
	_Atomic unsigned there;
	_Atomic bool leave;
	nvmm_ptr block[CLIENTS];
};

struct seat {
	struct meeting *meeting;
	unsigned number;
};

static void attend(void *arg)
{
	struct seat *seat = arg;
	struct meeting *m = seat->meeting;
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, m->heap);
	nvmm_ptr ptr = nvmm_alloc(heap, 1 << 20);
	unsigned *words;

	ck_assert_msg(ptr != NVMM_NULL, "client %u: %s", seat->number, nvmm_errmsg(nvmm));
	words = nvmm_local(nvmm, ptr);
	words[0] = words[(1 << 18) - 1] = seat->number;
	m->block[seat->number] = ptr;
	atomic_fetch_add(&m->there, 1);
	while (!atomic_load(&m->leave))
		harness_sleep_ms(20);
	ck_assert_uint_eq(words[0], seat->number);
	ck_assert_uint_eq(words[(1 << 18) - 1], seat->number);
	ck_assert_int_eq(nvmm_free(heap, ptr), 0);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

static bool all_there(void *arg)
{
	return atomic_load(&((struct meeting *)arg)->there) == CLIENTS;
}

START_TEST(three_hundred)
{
	struct meeting *m = harness_shared(sizeof(*m));
	static struct seat seats[CLIENTS];
	static pid_t pids[CLIENTS];
	struct nvmm_pool_info info = { .size = sizeof(info) };
	struct nvmm_heap *heap;
	struct nvmm_client *nvmm;

	harness_init(&h, NULL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	heap = harness_heap(nvmm, &m->heap, HEAP_BYTES, NULL, 0);
	for (unsigned i = 0; i < CLIENTS; i++) {
		seats[i] = (struct seat){ m, i };
		pids[i] = harness_fork(attend, &seats[i]);
	}
	harness_until(all_there, m, 100000);
	ck_assert_int_eq(nvmm_pool_stat(nvmm, m->heap, &info), 0);
	ck_assert_uint_eq(info.openers, CLIENTS + 1);
	for (unsigned i = 0; i < CLIENTS; i++) {
		unsigned *words = nvmm_local(nvmm, m->block[i]);

		ck_assert_ptr_nonnull(words);
		ck_assert_uint_eq(words[0], i);
	}
	atomic_store(&m->leave, true);
	for (unsigned i = 0; i < CLIENTS; i++)
		harness_join(pids[i]);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

START_TEST(limit_on_clients)
{
	struct harness_options limited = { .limits = "  clients: 3\n" };
	struct nvmm_options options = { .size = sizeof(options) };
	struct nvmm_client *nvmm[3], *more;

	harness_init(&h, &limited);
	harness_start(&h);
	options.socket = h.socket;
	for (int i = 0; i < 3; i++)
		nvmm[i] = harness_connect(&h);
	ck_assert_int_eq(nvmm_connect(&more, &options), -EUSERS);
	ck_assert_str_ne(nvmm_errmsg(NULL), "");
	nvmm_disconnect(nvmm[1]);
	nvmm[1] = harness_connect(&h);
	for (int i = 0; i < 3; i++)
		nvmm_disconnect(nvmm[i]);
}
END_TEST

START_TEST(limit_on_pools)
{
	struct harness_options limited = { .limits = "  pools: 3\n" };
	nvmm_pool_id id;
	struct nvmm_client *nvmm;

	harness_init(&h, &limited);
	harness_start(&h);
	nvmm = harness_connect(&h);
	for (int i = 0; i < 3; i++) {
		id = 0;
		ck_assert_int_eq(nvmm_region_create(nvmm, &id, 4096, NULL), 0);
	}
	id = 0;
	ck_assert_int_lt(nvmm_region_create(nvmm, &id, 4096, NULL), 0);
	ck_assert_str_ne(nvmm_errmsg(nvmm), "");
	ck_assert_int_eq(nvmm_region_destroy(nvmm, 2), 0);
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, 4096, NULL), 0);
	nvmm_disconnect(nvmm);
}
END_TEST

static void become(uid_t uid)
{
	if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
		_exit(1);
}

#define GREEDY_UID 61011u
#define OTHER_UID 61012u
#define GREEDY_SESSIONS 12u
#define GREEDY_SILENT 200u

struct greed {
	unsigned sessions;
	bool done;
};

/* As many sessions as it may have, then connections that say nothing. */
static void greedy_main(void *arg)
{
	static struct raw raw[GREEDY_SESSIONS], silent[GREEDY_SILENT];
	struct greed *greed = arg;
	Nvmm__Hello hello = NVMM__HELLO__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	uint8_t cookie[16];

	become(GREEDY_UID);
	hello.version = 1;
	hello.cookie.data = cookie;
	hello.cookie.len = sizeof(cookie);
	hello.name = (char *)(uintptr_t)"greedy";
	request.op_case = NVMM__REQUEST__OP_HELLO;
	request.hello = &hello;
	for (unsigned i = 0; i < GREEDY_SESSIONS; i++) {
		memset(cookie, (int)i + 1, sizeof(cookie));
		raw_connect(&raw[i], &h);
		greed->sessions += raw_error(&raw[i], &request) == 0;
	}
	for (unsigned i = 0; i < GREEDY_SILENT; i++)
		raw_connect(&silent[i], &h);
	greed->done = true;
	pause();
}

static void modest_main(void *arg)
{
	struct nvmm_client *nvmm[3];

	become(OTHER_UID);
	for (unsigned i = 0; i < 3; i++)
		nvmm[i] = harness_connect(&h);
	for (unsigned i = 0; i < 3; i++)
		nvmm_disconnect(nvmm[i]);
}

static bool greedy_done(void *arg)
{
	return ((volatile struct greed *)arg)->done;
}

/* Where nothing else is configured, an ordinary user has half of the clients, and no more by connections. */
START_TEST(nobody_has_all_places)
{
	struct harness_options limited = { .limits = "  clients: 20\n" };
	struct greed *greed = harness_shared(sizeof(*greed));
	pid_t greedy;

	if (geteuid() != 0)
		return; /* nobody else to be */
	harness_init(&h, &limited);
	harness_start(&h);
	greedy = harness_fork(greedy_main, greed);
	harness_until(greedy_done, greed, 10000);
	ck_assert_uint_eq(greed->sessions, 10);
	harness_join(harness_fork(modest_main, NULL));
	kill(greedy, SIGKILL);
	waitpid(greedy, NULL, 0);
	harness_stop(&h);
}
END_TEST

/* Lanes */

#define TAKER_UID 61012u
#define LANE_BYTES 4096u

struct taking {
	nvmm_pool_id id;
	uint32_t taken;
	int error;
};

/* Takes lanes, in its own session, until it may have no more. */
static void taker_main(void *arg)
{
	Nvmm__PoolOpen open = NVMM__POOL_OPEN__INIT;
	Nvmm__LaneTake take = NVMM__LANE_TAKE__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	struct taking *t = arg;
	struct raw raw;

	become(TAKER_UID);
	raw_connect(&raw, &h);
	raw_hello(&raw);
	open.id = t->id;
	open.write = true;
	request.op_case = NVMM__REQUEST__OP_POOL_OPEN;
	request.pool_open = &open;
	ck_assert_int_eq(raw_error(&raw, &request), 0);
	take.id = t->id;
	take.count = 64;
	request.op_case = NVMM__REQUEST__OP_LANE_TAKE;
	request.lane_take = &take;
	while ((t->error = raw_error(&raw, &request)) == 0)
		t->taken += take.count;
	raw_close(&raw);
}

static uint64_t reserved(void)
{
	Nvmm__Status op = NVMM__STATUS__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__Reply *reply;
	struct raw raw;
	uint64_t bytes;

	raw_connect(&raw, &h);
	raw_hello(&raw);
	request.op_case = NVMM__REQUEST__OP_STATUS;
	request.status = &op;
	reply = raw_ask(&raw, &request);
	ck_assert_ptr_nonnull(reply);
	bytes = reply->status->reserved;
	nvmm__reply__free_unpacked(reply, NULL);
	raw_close(&raw);
	return bytes;
}

static bool is_short_again(void *arg)
{
	return reserved() <= *(uint64_t *)arg;
}

/* In a heap of another user, whose account they do not touch; and they come back when the heap is closed. */
START_TEST(lanes_count_for_who_takes_them)
{
	struct harness_options limited = { .limits = "  bytes_per_user: 4MiB\n" };
	struct nvmm_pool_options shared = { .size = sizeof(shared), .mode = 0666 };
	struct taking *t = harness_shared(sizeof(*t));
	struct nvmm_client *nvmm;
	uint64_t before;
	nvmm_pool_id id = 0;

	if (geteuid() != 0)
		return; /* nobody else to be */
	harness_init(&h, &limited);
	harness_start(&h);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(nvmm_heap_create(nvmm, &t->id, 1 << 20, &shared), 0);
	before = reserved();
	for (unsigned i = 0; i < 2; i++) {
		t->taken = 0;
		harness_join(harness_fork(taker_main, t));
		ck_assert_int_eq(t->error, -EDQUOT);
		/* As many as its 4 MiB hold, and those that the heap was made with. */
		ck_assert_uint_ge(t->taken * LANE_BYTES, (4 << 20) - 64 * LANE_BYTES);
		ck_assert_uint_le(t->taken * LANE_BYTES, (4 << 20) + 64 * LANE_BYTES);
		harness_until(is_short_again, &before, 5000);
	}
	/* The owner has what is left of its own. */
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, 2 << 20, NULL), 0);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

START_TEST(lanes_count_for_the_capacity)
{
	struct harness_options limited = { .capacity = "4MiB" };
	struct nvmm_pool_options shared = { .size = sizeof(shared), .mode = 0666 };
	struct taking *t = harness_shared(sizeof(*t));
	struct nvmm_client *nvmm;

	if (geteuid() != 0)
		return;
	harness_init(&h, &limited);
	harness_start(&h);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(nvmm_heap_create(nvmm, &t->id, 1 << 20, &shared), 0);
	harness_join(harness_fork(taker_main, t));
	ck_assert_int_eq(t->error, -ENOSPC);
	ck_assert_uint_le(t->taken * LANE_BYTES, 3 << 20);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("many");
	TCase *tcase = harness_case(suite, "many", 180);

	tcase_add_checked_fixture(tcase, NULL, stop);
	tcase_add_test(tcase, three_hundred);
	tcase_add_test(tcase, limit_on_clients);
	tcase_add_test(tcase, limit_on_pools);
	tcase_add_test(tcase, nobody_has_all_places);
	tcase_add_test(tcase, lanes_count_for_who_takes_them);
	tcase_add_test(tcase, lanes_count_for_the_capacity);
	return harness_run(suite);
}
