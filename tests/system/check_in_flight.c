/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Replies with descriptors that nobody reads. The daemon runs as an ordinary user that may have few descriptors, so that
 * the kernel refuses more in flight than those. Who leaves replies unread waits; others do not notice.
 */
#include <errno.h>
#include <ftw.h>
#include <fcntl.h>
#include <grp.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/macro.h"
#include "tests/system/attacks.h"
#include "tests/system/raw.h"

#define DAEMON_UID 61013u
#define FOE_UID 61011u
#define VICTIM_UID 61012u
#define OPEN_MAX_ 512u
#define FOES 100u
#define VICTIM_OPENS 64u

static struct harness h;

static void become(uid_t uid)
{
	if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
		_exit(1);
}

/* In the daemon's process. */
static void few_descriptors(void)
{
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){ OPEN_MAX_, OPEN_MAX_ });
	become(DAEMON_UID);
}

static int give_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return lchown(path, DAEMON_UID, DAEMON_UID);
}

static bool start(void)
{
	if (geteuid() != 0)
		return false; /* nobody else to be */
	harness_init(&h, &(struct harness_options){ .limits = "  clients: 300\n  clients_per_user: 120\n" });
	ck_assert_int_eq(nftw(h.dir, give_one, 16, FTW_PHYS), 0);
	h.prepare = few_descriptors;
	harness_start(&h);
	return true;
}

static uint64_t counter(const char *name)
{
	Nvmm__Status op = NVMM__STATUS__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	uint64_t value = UINT64_MAX;
	Nvmm__Reply *reply;
	struct raw raw;

	raw_connect(&raw, &h);
	raw_hello(&raw);
	request.op_case = NVMM__REQUEST__OP_STATUS;
	request.status = &op;
	reply = raw_ask(&raw, &request);
	ck_assert_ptr_nonnull(reply);
	for (size_t i = 0; i < reply->status->n_counters; i++)
		if (strcmp(reply->status->counters[i]->name, name) == 0)
			value = reply->status->counters[i]->value;
	nvmm__reply__free_unpacked(reply, NULL);
	raw_close(&raw);
	ck_assert_uint_ne(value, UINT64_MAX);
	return value;
}

static void send_open(struct raw *raw, nvmm_pool_id id)
{
	Nvmm__PoolOpen open = NVMM__POOL_OPEN__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	uint8_t packed[256];

	open.id = id;
	open.write = true;
	request.seq = ++raw->seq;
	request.op_case = NVMM__REQUEST__OP_POOL_OPEN;
	request.pool_open = &open;
	ck_assert_int_eq(raw_send(raw, packed, nvmm__request__pack(&request, packed)), 0);
}

static void send_shelf_open(struct raw *raw, nvmm_pool_id id)
{
	Nvmm__ShelfOpen open = NVMM__SHELF_OPEN__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	uint8_t packed[256];

	open.id = id;
	open.write = true;
	request.seq = ++raw->seq;
	request.op_case = NVMM__REQUEST__OP_SHELF_OPEN;
	request.shelf_open = &open;
	ck_assert_int_eq(raw_send(raw, packed, nvmm__request__pack(&request, packed)), 0);
}

static nvmm_pool_id make_heap(mode_t mode)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .mode = mode };
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id id = 0;

	ck_assert_int_eq(nvmm_heap_create(nvmm, &id, 1 << 20, &options), 0);
	nvmm_disconnect(nvmm);
	return id;
}

/* Each opens a heap, which it is told of with descriptors; nobody reads. */
static void foes_main(void *arg)
{
	const nvmm_pool_id *id = arg;
	static struct raw raw[FOES];
	Nvmm__Reply *reply;

	become(FOE_UID);
	for (unsigned i = 0; i < FOES; i++) {
		raw_connect(&raw[i], &h);
		raw_hello(&raw[i]);
	}
	for (unsigned i = 0; i < FOES; i++) {
		send_open(&raw[i], *id);
		reply = raw_receive(&raw[i]);
		ck_assert_ptr_nonnull(reply);
		ck_assert_int_eq(reply->error, 0);
		nvmm__reply__free_unpacked(reply, NULL);
		frame_close_fds(&raw[i].frame);
	}
	for (unsigned i = 0; i < FOES; i++)
		send_shelf_open(&raw[i], *id);
	harness_sleep_ms(300); /* what is answered is in flight */
	/* Whoever reads lets the others have theirs: each is answered in the end. */
	for (unsigned i = 0; i < FOES; i++) {
		reply = raw_receive(&raw[i]);
		ck_assert_ptr_nonnull(reply);
		ck_assert_int_eq(reply->error, 0);
		ck_assert_uint_gt(raw[i].frame.n_fds, 0);
		nvmm__reply__free_unpacked(reply, NULL);
		frame_close_fds(&raw[i].frame);
	}
}

static void victim_main(void *arg)
{
	const nvmm_pool_id *id = arg;
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	nvmm_ptr ptr;

	become(VICTIM_UID);
	for (unsigned i = 0; i < VICTIM_OPENS; i++) {
		nvmm = harness_connect(&h);
		ck_assert_int_eq(nvmm_heap_open(&heap, nvmm, *id, O_RDWR), 0);
		ptr = nvmm_alloc(heap, 64);
		ck_assert(ptr != NVMM_NULL);
		ck_assert_int_eq(nvmm_free(heap, ptr), 0);
		nvmm_heap_close(heap);
		nvmm_disconnect(nvmm);
	}
}

START_TEST(who_does_not_read_waits)
{
	nvmm_pool_id id;
	pid_t foes;

	if (!start())
		return;
	id = make_heap(0666);
	foes = harness_fork(foes_main, &id);
	harness_join(harness_fork(victim_main, &id));
	harness_join(foes);
	ck_assert_uint_gt(counter("requests_unread"), 0);
	harness_stop(&h);
}
END_TEST

/* The reply stays in a socket that the daemon has closed, and the session attaches again. */
START_TEST(replies_left_behind)
{
	const struct attack *attack = attacks;
	struct attacker attacker;
	nvmm_pool_id id;

	if (!start())
		return;
	id = make_heap(0666);
	while (strcmp(attack->name, "unread descriptors") != 0)
		attack++;
	attack_start(&attacker, attack, &h);
	harness_sleep_ms(500);
	for (unsigned i = 0; i < 3; i++)
		harness_join(harness_fork(victim_main, &id));
	attack_end(&attacker);
	/* All that lingered is let go: the same user has all of its connections again. */
	harness_sleep_ms(500);
	harness_join(harness_fork(foes_main, &id));
	harness_stop(&h);
}
END_TEST

/* Another program of the daemon's user has as many in flight as that user may have, for a while. */
static void other_program(void *arg)
{
	volatile bool *full = arg;
	int pair[2], r = 0, own[FRAME_FDS_MAX] = { 0, 0, 0, 0 };

	setrlimit(RLIMIT_NOFILE, &(struct rlimit){ OPEN_MAX_, OPEN_MAX_ });
	become(DAEMON_UID);
	while (r == 0) {
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
		while ((r = frame_send(pair[0], "x", 1, own, FRAME_FDS_MAX, MSG_DONTWAIT)) == 0)
			;
		r = r == -EAGAIN ? 0 : r;
	}
	ck_assert_int_eq(r, -ETOOMANYREFS);
	*full = true;
	harness_sleep_ms(500);
}

START_TEST(no_fault_of_the_client)
{
	volatile bool *full;
	nvmm_pool_id id;
	pid_t other;

	if (!start())
		return;
	full = harness_shared(sizeof(*full));
	id = make_heap(0666);
	other = harness_fork(other_program, (void *)(uintptr_t)full);
	while (!*full)
		harness_sleep_ms(1);
	harness_join(harness_fork(victim_main, &id));
	harness_join(other);
	ck_assert_uint_gt(counter("replies_kept"), 0);
	harness_stop(&h);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("in flight");
	TCase *tcase = harness_case(suite, "descriptors", 60);

	tcase_add_test(tcase, who_does_not_read_waits);
	tcase_add_test(tcase, replies_left_behind);
	tcase_add_test(tcase, no_fault_of_the_client);
	return harness_run(suite);
}
