/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Epochs between processes: what is freed with delay comes back when its readers have left, not before,
 * whoever dies or stops in between.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/view.h"

#define MIB (UINT64_C(1) << 20)

static struct harness h;

static void start(void)
{
	harness_init(&h, NULL);
	harness_start(&h);
}

static void stop(void)
{
	if (h.daemon)
		harness_stop(&h);
}

static struct nvmm_heap_info heap_info(struct nvmm_client *nvmm, struct nvmm_heap *heap)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };

	must(nvmm_heap_stat(heap, &info) == 0, "%s", nvmm_errmsg(nvmm));
	return info;
}

/* A process that is in an epoch. */
struct reader {
	nvmm_pool_id id;
	_Atomic bool inside;
	_Atomic bool leave;
	_Atomic bool left;
	bool fence;
};

static void read_on(void *arg)
{
	struct reader *r = arg;
	struct nvmm_client *nvmm;

	if (r->fence)
		setenv("NVMM_NO_MEMBARRIER", "1", 1);
	nvmm = harness_connect(&h);
	harness_open(nvmm, r->id);
	must(nvmm_epoch_enter(nvmm) == 0, "%s", nvmm_errmsg(nvmm));
	must(nvmm_epoch_enter(nvmm) == 0, "%s", nvmm_errmsg(nvmm));
	nvmm_epoch_exit(nvmm);
	atomic_store(&r->inside, true);
	while (!atomic_load(&r->leave))
		usleep(1000);
	nvmm_epoch_exit(nvmm);
	atomic_store(&r->left, true);
	nvmm_disconnect(nvmm);
}

static bool is_inside(void *arg)
{
	return atomic_load((_Atomic bool *)arg);
}

static pid_t reader_start(struct reader *r, nvmm_pool_id id)
{
	pid_t pid;

	r->id = id;
	pid = harness_fork(read_on, r);
	harness_until(is_inside, &r->inside, 10000);
	return pid;
}

/* Lets a reader leave while an allocation waits. */
static void leave_soon(void *arg)
{
	harness_sleep_ms(100);
	atomic_store(&((struct reader *)arg)->leave, true);
}

/* Enters and leaves, all the time. */
static void come_and_go(void *arg)
{
	struct reader *r = arg;
	struct nvmm_client *nvmm = harness_connect(&h);

	harness_open(nvmm, r->id);
	while (!atomic_load(&r->leave)) {
		must(nvmm_epoch_enter(nvmm) == 0, "%s", nvmm_errmsg(nvmm));
		atomic_store(&r->inside, true);
		usleep(500);
		nvmm_epoch_exit(nvmm);
	}
	nvmm_disconnect(nvmm);
}

static void kill_child(pid_t pid)
{
	int status;

	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
}

START_TEST(comes_back_by_itself)
{
	nvmm_pool_id id;
	struct view v = view_new(&h, &id, 16 * MIB);

	view_defer(&v, 10000, 100);
	harness_until(view_no_limbo, &v, 5000);
	ck_assert_uint_eq(heap_info(v.nvmm, v.heap).blocks, 0);
	nvmm_disconnect(v.nvmm);
}
END_TEST

START_TEST(refusals)
{
	nvmm_pool_id id;
	struct view v = view_new(&h, &id, 16 * MIB);
	nvmm_ptr ptr = nvmm_alloc(v.heap, 100);
	uint64_t epoch;

	ck_assert_int_eq(nvmm_epoch_enter(v.nvmm), 0);
	ck_assert_int_eq(nvmm_free_deferred(v.heap, ptr + 4), -EINVAL);
	ck_assert_int_eq(nvmm_free_deferred(v.heap, ptr), 0);
	ck_assert_int_eq(nvmm_free_deferred(v.heap, ptr), -EALREADY);
	ck_assert_int_eq(nvmm_free(v.heap, ptr), -EALREADY);
	ck_assert_uint_eq(nvmm_usable_size(v.heap, ptr), 0);
	ck_assert_int_eq(nvmm_free_deferred(v.heap, NVMM_NULL), 0);
	ck_assert_int_eq(nvmm_epoch_synchronize(v.nvmm), -EDEADLK);
	harness_sleep_ms(100);
	ck_assert_uint_gt(view_limbo(&v), 0);
	nvmm_epoch_exit(v.nvmm);
	ck_assert_int_eq(nvmm_epoch_synchronize(v.nvmm), 0);
	harness_until(view_no_limbo, &v, 5000);
	epoch = nvmm_epoch_current(v.nvmm);
	ck_assert_uint_gt(epoch, 0);
	ck_assert_uint_le(nvmm_epoch_frontier(v.nvmm), nvmm_epoch_current(v.nvmm));
	nvmm_disconnect(v.nvmm);
}
END_TEST

/* Each variant of a reader: with the kernel's barrier and with its own. */
START_TEST(reader_holds)
{
	struct reader *r = harness_shared(sizeof(*r));
	nvmm_pool_id id;
	struct view v = view_new(&h, &id, 16 * MIB);
	pid_t pid;

	r->fence = _i;
	pid = reader_start(r, id);
	view_defer(&v, 1000, 64);
	harness_sleep_ms(200);
	ck_assert_uint_eq(view_limbo(&v), 64000);
	atomic_store(&r->leave, true);
	harness_until(view_no_limbo, &v, 5000);
	harness_join(pid);
	nvmm_disconnect(v.nvmm);
}
END_TEST

START_TEST(dead_reader_holds_nothing)
{
	struct reader *r = harness_shared(sizeof(*r));
	nvmm_pool_id id;
	struct view v = view_new(&h, &id, 16 * MIB);
	pid_t pid = reader_start(r, id);

	view_defer(&v, 1000, 64);
	harness_sleep_ms(50);
	ck_assert_uint_gt(view_limbo(&v), 0);
	kill_child(pid);
	harness_until(view_no_limbo, &v, 5000);
	nvmm_disconnect(v.nvmm);
}
END_TEST

static void defer_and_hang(void *arg)
{
	struct reader *r = arg;
	struct view v = { .nvmm = harness_connect(&h) };

	v.heap = harness_open(v.nvmm, r->id);
	view_defer(&v, 5000, 48);
	atomic_store(&r->inside, true);
	for (;;)
		pause();
}

START_TEST(dead_freer_leaves_no_limbo)
{
	struct reader *r = harness_shared(sizeof(*r));
	nvmm_pool_id id;
	struct view v = view_new(&h, &id, 16 * MIB);
	pid_t pid;

	r->id = id;
	pid = harness_fork(defer_and_hang, r);
	harness_until(is_inside, &r->inside, 10000);
	kill_child(pid);
	harness_until(view_no_limbo, &v, 5000);
	ck_assert_uint_eq(heap_info(v.nvmm, v.heap).blocks, 0);
	nvmm_disconnect(v.nvmm);
}
END_TEST

START_TEST(other_pools_go_on)
{
	static char out[1 << 20];
	const char *const argv[] = { "ctl/nvmmctl", "epochs", "--json", NULL };
	struct reader *r = harness_shared(sizeof(*r));
	nvmm_pool_id id_a, id_b;
	struct view a = view_new(&h, &id_a, 16 * MIB), b = view_new(&h, &id_b, 16 * MIB);
	pid_t pid = reader_start(r, id_a);
	char text[32];

	kill(pid, SIGSTOP);
	for (int i = 0; i < 10; i++) {
		view_defer(&a, 100, 64);
		view_defer(&b, 1000, 64);
		harness_until(view_no_limbo, &b, 2000);
	}
	ck_assert_uint_eq(view_limbo(&a), 64000);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), argv), 0);
	ck_assert_msg(strstr(out, "\"limbo\": 64000,") != NULL, "not all of the limbo is told:\n%s", out);
	snprintf(text, sizeof(text), "\"pid\": %d", (int)pid);
	ck_assert_msg(strstr(out, text) != NULL, "the reader is not named:\n%s", out);
	kill(pid, SIGCONT);
	atomic_store(&r->leave, true);
	harness_until(view_no_limbo, &a, 5000);
	harness_join(pid);
	nvmm_disconnect(a.nvmm);
	nvmm_disconnect(b.nvmm);
}
END_TEST

START_TEST(daemon_dies)
{
	struct reader *r = harness_shared(sizeof(*r));
	nvmm_pool_id id;
	struct view v = view_new(&h, &id, 16 * MIB);
	pid_t pid = reader_start(r, id);

	view_defer(&v, 1000, 64);
	harness_sleep_ms(50);
	harness_signal(&h, SIGKILL);
	/* Without a daemon: frees with delay, enters and leaves. */
	ck_assert_int_eq(nvmm_epoch_enter(v.nvmm), 0);
	view_defer(&v, 100, 64);
	nvmm_epoch_exit(v.nvmm);
	harness_start(&h);
	harness_sleep_ms(200);
	ck_assert_uint_eq(view_limbo(&v), 1100 * 64);
	atomic_store(&r->leave, true);
	harness_until(view_no_limbo, &v, 5000);
	harness_join(pid);
	/* And with nobody asking anything of it. */
	view_defer(&v, 100, 64);
	harness_until(view_no_limbo, &v, 5000);
	nvmm_disconnect(v.nvmm);
}
END_TEST

START_TEST(all_die)
{
	struct reader *reader = harness_shared(sizeof(*reader));
	struct reader *freer = harness_shared(sizeof(*freer));
	struct view v;
	nvmm_pool_id id;
	pid_t pids[2];

	v = view_new(&h, &id, 16 * MIB);
	nvmm_disconnect(v.nvmm);
	pids[0] = reader_start(reader, id);
	freer->id = id;
	pids[1] = harness_fork(defer_and_hang, freer);
	harness_until(is_inside, &freer->inside, 10000);
	harness_signal(&h, SIGKILL);
	kill_child(pids[0]);
	kill_child(pids[1]);
	harness_start(&h);
	v.nvmm = harness_connect(&h);
	v.heap = harness_open(v.nvmm, id);
	ck_assert_uint_eq(view_limbo(&v), 0);
	ck_assert_uint_eq(heap_info(v.nvmm, v.heap).blocks, 0);
	nvmm_disconnect(v.nvmm);
}
END_TEST

/* A full heap, all of it in limbo: the next allocation waits for a round instead of failing. */
START_TEST(pressure)
{
	struct reader *r = harness_shared(sizeof(*r));
	static nvmm_ptr ptr[20000];
	nvmm_pool_id id;
	struct view v = view_new(&h, &id, 4 * MIB);
	uint64_t began;
	unsigned n = 0;
	pid_t pid;

	while (n < 20000 && (ptr[n] = nvmm_alloc(v.heap, 1000)) != NVMM_NULL)
		n++;
	ck_assert_int_eq(errno, ENOSPC);
	pid = reader_start(r, id);
	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(nvmm_free_deferred(v.heap, ptr[i]), 0);
	began = harness_now_us();
	ck_assert(nvmm_alloc(v.heap, 1000) == NVMM_NULL);
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_uint_lt(harness_now_us() - began, 5000000);
	atomic_store(&r->leave, true);
	while (!atomic_load(&r->left))
		usleep(1000);
	ck_assert_msg(nvmm_alloc(v.heap, 1000) != NVMM_NULL, "%s", nvmm_errmsg(v.nvmm));
	ck_assert_msg(nvmm_alloc(v.heap, MIB) != NVMM_NULL, "%s", nvmm_errmsg(v.nvmm));
	harness_join(pid);
	nvmm_disconnect(v.nvmm);
}
END_TEST

/*
 * A reader holds up a snapshot of one block; all others are freed after that was taken. Whoever finds no room
 * waits for the snapshot that has them, too, not just for the one that was there. Who is slow to leave proves
 * nothing: it is tried again.
 */
static bool room_after_a_reader(const struct view *v, nvmm_pool_id id)
{
	static nvmm_ptr ptr[20000];
	struct reader *r = harness_shared(sizeof(*r));
	pid_t pid, leaver;
	unsigned n = 0;
	nvmm_ptr large;

	while (n < 20000 && (ptr[n] = nvmm_alloc(v->heap, 1000)) != NVMM_NULL)
		n++;
	ck_assert_int_eq(errno, ENOSPC);
	pid = reader_start(r, id);
	ck_assert_int_eq(nvmm_free_deferred(v->heap, ptr[0]), 0);
	harness_sleep_ms(500); /* a tick or two */
	for (unsigned i = 1; i < n; i++)
		ck_assert_int_eq(nvmm_free_deferred(v->heap, ptr[i]), 0);
	leaver = harness_fork(leave_soon, r);
	large = nvmm_alloc(v->heap, 2 * MIB);
	must(large != NVMM_NULL || errno == ENOSPC, "%s", nvmm_errmsg(v->nvmm));
	harness_join(leaver);
	harness_join(pid);
	if (large == NVMM_NULL)
		harness_until(view_no_limbo, (void *)(uintptr_t)v, 10000);
	else
		ck_assert_int_eq(nvmm_free(v->heap, large), 0);
	return large != NVMM_NULL;
}

START_TEST(pressure_behind_a_snapshot)
{
	struct harness_options options = { .limits = "  clients: 64\nepoch:\n  interval: 200\n" };
	nvmm_pool_id id;
	struct view v;
	unsigned tries = 0;

	harness_init(&h, &options);
	harness_start(&h);
	v = view_new(&h, &id, 4 * MIB);
	while (!room_after_a_reader(&v, id))
		ck_assert_msg(++tries < 8, "no room while it could be had");
	nvmm_disconnect(v.nvmm);
}
END_TEST

static bool warned_of(pid_t pid)
{
	char text[64];

	snprintf(text, sizeof(text), "of process %d (", (int)pid);
	return harness_logged(&h, text);
}

static bool is_warned_of(void *arg)
{
	return warned_of(*(const pid_t *)arg);
}

struct frontier {
	struct nvmm_client *nvmm;
	uint64_t above;
};

static bool frontier_is_above(void *arg)
{
	struct frontier *f = arg;

	return nvmm_epoch_frontier(f->nvmm) > f->above;
}

static bool number_is_above(void *arg)
{
	struct frontier *f = arg;

	return nvmm_epoch_current(f->nvmm) > f->above;
}

/* With nothing in limbo, and without a daemon, the number rises; it does not fall over restarts. The frontier follows
 * when it is asked for, unless a reader is inside. */
START_TEST(number_rises_when_idle)
{
	struct frontier f = { .nvmm = harness_connect(&h) };
	uint64_t now;

	for (unsigned i = 0; i < 3; i++) {
		f.above = nvmm_epoch_current(f.nvmm);
		ck_assert_uint_gt(f.above, 0);
		harness_until(number_is_above, &f, 10000);
	}
	harness_until(frontier_is_above, &f, 10000);
	harness_signal(&h, SIGKILL);
	f.above = nvmm_epoch_current(f.nvmm);
	harness_until(number_is_above, &f, 10000);
	now = nvmm_epoch_current(f.nvmm);
	harness_start(&h);
	ck_assert_uint_ge(nvmm_epoch_current(f.nvmm), now);
	f.above = nvmm_epoch_current(f.nvmm);
	harness_until(frontier_is_above, &f, 10000);
	ck_assert_int_eq(nvmm_epoch_enter(f.nvmm), 0);
	f.above = nvmm_epoch_current(f.nvmm);
	for (unsigned i = 0; i < 50; i++) {
		ck_assert_uint_le(nvmm_epoch_frontier(f.nvmm), f.above);
		harness_sleep_ms(2);
	}
	nvmm_epoch_exit(f.nvmm);
	harness_until(frontier_is_above, &f, 10000);
	nvmm_disconnect(f.nvmm);
}
END_TEST

/* Who stays is told of; not who was there each time that the daemon looked, but had left in between. */
START_TEST(warned_of_who_stays)
{
	struct harness_options options = { .limits = "  clients: 64\nepoch:\n  stall_warning: 300\n" };
	struct reader *stays = harness_shared(sizeof(*stays));
	struct reader *moves = harness_shared(sizeof(*moves));
	nvmm_pool_id id;
	struct view v;
	pid_t pid[2];

	harness_init(&h, &options);
	harness_start(&h);
	v = view_new(&h, &id, 16 * MIB);
	pid[0] = reader_start(stays, id);
	moves->id = id;
	pid[1] = harness_fork(come_and_go, moves);
	harness_until(is_inside, &moves->inside, 10000);
	view_defer(&v, 100, 64);
	harness_until(is_warned_of, &pid[0], 10000);
	harness_sleep_ms(900);
	ck_assert_msg(!warned_of(pid[1]), "a reader that comes and goes was warned of");
	atomic_store(&stays->leave, true);
	atomic_store(&moves->leave, true);
	harness_join(pid[0]);
	harness_join(pid[1]);
	nvmm_disconnect(v.nvmm);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("epochs");
	TCase *tc = harness_case(suite, "epochs", 60), *configured = harness_case(suite, "configured", 60);

	tcase_add_checked_fixture(tc, start, stop);
	tcase_add_test(tc, comes_back_by_itself);
	tcase_add_test(tc, refusals);
	tcase_add_test(tc, number_rises_when_idle);
	tcase_add_loop_test(tc, reader_holds, 0, 2);
	tcase_add_test(tc, dead_reader_holds_nothing);
	tcase_add_test(tc, dead_freer_leaves_no_limbo);
	tcase_add_test(tc, other_pools_go_on);
	tcase_add_test(tc, daemon_dies);
	tcase_add_test(tc, all_die);
	tcase_add_test(tc, pressure);
	tcase_add_checked_fixture(configured, NULL, stop);
	tcase_add_test(configured, warned_of_who_stays);
	tcase_add_test(configured, pressure_behind_a_snapshot);
	return harness_run(suite);
}
