/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A pool's record that is found rotten while somebody has the pool open, is repaired or destroys it.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/macro.h"
#include "tests/system/raw.h"
#include "tests/system/rot.h"

#define MIB (UINT64_C(1) << 20)

static struct harness h;
static struct victim *victims; /* one; shared with its users */

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
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap;
	nvmm_ptr ptr;

	v->id = rot_make(nvmm, 0, false);
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

	return rot_ctl_pool(&h, out, sizeof(out), victims[0].id, "recover", "--repair", NULL) == 0;
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
	rot_spoil(&h, &victims[0], REGISTRY, *row);
	for (int i = 0; i < 2; i++) {
		harness_start(&h);
		ck_assert(!repaired(NULL));
		ck_assert_int_ne(rot_ctl_pool(&h, out, sizeof(out), victims[0].id, "pool", "destroy", NULL), 0);
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
	ck_assert_int_eq(rot_ctl_pool(&h, out, sizeof(out), victims[0].id, "check", NULL, NULL), 0);
	rot_expect_kept(&h, &victims[0], 0);
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
	return rot_ctl(&h, out, sizeof(out), "clients", NULL, NULL, NULL) == 0 && !strstr(out, pid);
}

static int make_again(struct nvmm_client *nvmm)
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
	struct nvmm_client *nvmm;
	pid_t user[2];
	int *opened;

	harness_init(&h, NULL);
	harness_start(&h);
	victims = harness_shared(sizeof(*victims));
	opened = harness_shared(2 * sizeof(*opened));
	nvmm = harness_connect(&h);
	victims[0].id = rot_make(nvmm, 0, false);
	nvmm_disconnect(nvmm);
	for (int i = 0; i < 2; i++) {
		user[i] = harness_fork(in_use_opener, &opened[i]);
		harness_until(is_opened, &opened[i], 30000);
	}
	harness_signal(&h, SIGKILL);
	rot_spoil(&h, &victims[0], REGISTRY, in_use_rows[0]);
	harness_start(&h);
	ck_assert_int_eq(rot_ctl_pool(&h, out, sizeof(out), victims[0].id, "pool", "destroy", "--force"), 0);
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
	struct nvmm_client *nvmm;

	harness_init(&h, NULL);
	harness_start(&h);
	victims = harness_shared(sizeof(*victims));
	nvmm = harness_connect(&h);
	victims[0].id = rot_make(nvmm, 0, false);
	nvmm_disconnect(nvmm);
	harness_signal(&h, SIGKILL);
	rot_spoil(&h, &victims[0], REGISTRY, in_use_rows[0]);
	harness_start(&h);
	repair_and_destroy(victims[0].id);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(make_again(nvmm), 0);
	ck_assert_int_eq(rot_ctl_pool(&h, out, sizeof(out), victims[0].id, "check", NULL, NULL), 0);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("rot of what is in use");
	TCase *tcase = harness_case(suite, "records", 120);

	tcase_add_loop_test(tcase, record_of_one_in_use, 0, 2 * (int)ARRAY_SIZE(in_use_rows));
	tcase_add_loop_test(tcase, record_of_one_destroyed_in_use, 0, 2);
	tcase_add_loop_test(tcase, record_of_one_destroyed_in_repair, 0, 3);
	return harness_run(suite);
}
