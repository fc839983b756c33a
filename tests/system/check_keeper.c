/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The keeper of epoch slots: readers that are inside are known after the daemon's death, the
 * keeper's, and both; what a client can do to its slots and its bell; and that no process is left.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/raw.h"
#include "tests/system/view.h"

#define MIB (UINT64_C(1) << 20)

static struct harness h;

/* A process that is in an epoch. */
struct reader {
	nvmm_pool_id id;
	_Atomic bool inside;
	_Atomic bool leave;
};

static void read_on(void *arg)
{
	struct reader *r = arg;
	struct nvmm_client *nvmm = harness_connect(&h);

	harness_open(nvmm, r->id);
	must(nvmm_epoch_enter(nvmm) == 0, "%s", nvmm_errmsg(nvmm));
	atomic_store(&r->inside, true);
	while (!atomic_load(&r->leave))
		usleep(1000);
	nvmm_epoch_exit(nvmm);
	nvmm_disconnect(nvmm);
}

static bool is_inside(void *arg)
{
	return atomic_load(&((struct reader *)arg)->inside);
}

static pid_t reader_start(struct reader *r, nvmm_pool_id id)
{
	pid_t pid;

	r->id = id;
	pid = harness_fork(read_on, r);
	harness_until(is_inside, r, 10000);
	return pid;
}

static void kill_child(pid_t pid)
{
	int status;

	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
}

static Nvmm__Reply *ask_status(struct raw *raw)
{
	Nvmm__Status op = NVMM__STATUS__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__Reply *reply;

	request.op_case = NVMM__REQUEST__OP_STATUS;
	request.status = &op;
	reply = raw_ask(raw, &request);
	ck_assert_ptr_nonnull(reply);
	ck_assert_int_eq(reply->error, 0);
	return reply;
}

static pid_t keeper_pid(void)
{
	Nvmm__Reply *reply;
	struct raw raw;
	pid_t pid;

	raw_connect(&raw, &h);
	raw_hello(&raw);
	reply = ask_status(&raw);
	pid = (pid_t)reply->status->keeper;
	nvmm__reply__free_unpacked(reply, NULL);
	raw_close(&raw);
	return pid;
}

static uint32_t unread(void)
{
	Nvmm__Reply *reply;
	struct raw raw;
	uint32_t n;

	raw_connect(&raw, &h);
	raw_hello(&raw);
	reply = ask_status(&raw);
	n = reply->status->sessions_unread;
	nvmm__reply__free_unpacked(reply, NULL);
	raw_close(&raw);
	return n;
}

static bool another_keeper(void *arg)
{
	pid_t pid = keeper_pid();

	return pid != 0 && pid != *(pid_t *)arg && kill(pid, 0) == 0;
}

static bool is_gone(void *arg)
{
	char path[64], line[256] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)*(pid_t *)arg);
	f = fopen(path, "re");
	if (!f)
		return true;
	/* Whoever inherits it may not wait for it. */
	if (!fgets(line, sizeof(line), f))
		line[0] = '\0';
	fclose(f);
	return line[0] == '\0' || strstr(line, ") Z ") != NULL;
}

/* Kills the keeper and waits until another one has all. */
static void kill_keeper(void)
{
	pid_t pid = keeper_pid();

	ck_assert_int_gt(pid, 0);
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	harness_until(another_keeper, &pid, 20000);
}

static void restart(void)
{
	harness_signal(&h, SIGKILL);
	harness_start(&h);
}

/* The reader holds what was freed, whoever dies in which order; and nobody does when it has
 * left. */
START_TEST(reader_is_known_afterwards)
{
	struct reader *r = harness_shared(sizeof(*r));
	nvmm_pool_id id;
	struct view v = view_new(&h, &id, 16 * MIB);
	pid_t pid = reader_start(r, id);

	view_defer(&v, 1000, 64);
	for (int i = 0; i < 2; i++) {
		kill_keeper();
		restart();
		restart();
		ck_assert_uint_eq(unread(), 0);
		harness_sleep_ms(100);
		ck_assert_uint_eq(view_limbo(&v), 64000);
	}
	atomic_store(&r->leave, true);
	harness_until(view_no_limbo, &v, 10000);
	harness_join(pid);
	nvmm_disconnect(v.nvmm);
}
END_TEST

/* Nobody knows where its threads are: what it could see waits for its end, and it is told of.
 * Others' pools do not wait. */
START_TEST(both_die)
{
	struct reader *r = harness_shared(sizeof(*r));
	nvmm_pool_id id, other;
	struct view v = view_new(&h, &id, 16 * MIB), w;
	pid_t pid = reader_start(r, id), keeper = keeper_pid();

	ck_assert_int_gt(keeper, 0);
	ck_assert_int_eq(kill(keeper, SIGSTOP), 0);
	harness_signal(&h, SIGKILL);
	ck_assert_int_eq(kill(keeper, SIGKILL), 0);
	harness_until(is_gone, &keeper, 10000);
	harness_start(&h);
	ck_assert(harness_logged(&h, "its epochs cannot be read"));
	ck_assert_uint_eq(unread(), 1);
	view_defer(&v, 1000, 64);
	w = view_new(&h, &other, 16 * MIB);
	view_defer(&w, 1000, 64);
	harness_until(view_no_limbo, &w, 10000);
	harness_sleep_ms(100);
	ck_assert_uint_eq(view_limbo(&v), 64000);
	atomic_store(&r->leave, true);
	harness_join(pid);
	harness_until(view_no_limbo, &v, 10000);
	ck_assert_uint_eq(unread(), 0);
	nvmm_disconnect(w.nvmm);
	nvmm_disconnect(v.nvmm);
}
END_TEST

/* A reader that dies while no daemon runs holds nothing up, and its keeper ends. */
START_TEST(client_dies_without_a_daemon)
{
	struct reader *r = harness_shared(sizeof(*r));
	nvmm_pool_id id;
	struct view v = view_new(&h, &id, 16 * MIB);
	pid_t pid = reader_start(r, id), keeper = keeper_pid();

	view_defer(&v, 1000, 64);
	nvmm_disconnect(v.nvmm);
	harness_signal(&h, SIGKILL);
	ck_assert(!is_gone(&keeper));
	kill_child(pid);
	harness_until(is_gone, &keeper, 10000);
	harness_start(&h);
	ck_assert_uint_eq(unread(), 0);
	v.nvmm = harness_connect(&h);
	v.heap = harness_open(v.nvmm, id);
	harness_until(view_no_limbo, &v, 10000);
	nvmm_disconnect(v.nvmm);
}
END_TEST

/* A keeper that holds nothing ends with the daemon, killed or stopped; one with a living client
 * stays until that ends. */
START_TEST(no_process_is_left)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	pid_t keeper;

	ck_assert_int_eq(keeper_pid(), 0);
	ck_assert_int_eq(nvmm_epoch_enter(nvmm), 0);
	nvmm_epoch_exit(nvmm);
	keeper = keeper_pid();
	ck_assert_int_gt(keeper, 0);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
	harness_until(is_gone, &keeper, 10000);
	harness_start(&h);
}
END_TEST

/* What a raw client is given. */
struct given {
	struct raw raw;
	uint32_t slots;
	int memory;
	int bell;
};

static void open_raw(struct given *g)
{
	Nvmm__EpochOpen op = NVMM__EPOCH_OPEN__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__Reply *reply;

	raw_connect(&g->raw, &h);
	raw_hello(&g->raw);
	request.op_case = NVMM__REQUEST__OP_EPOCH_OPEN;
	request.epoch_open = &op;
	reply = raw_ask(&g->raw, &request);
	ck_assert_ptr_nonnull(reply);
	ck_assert_int_eq(reply->error, 0);
	ck_assert_uint_eq(g->raw.frame.n_fds, 3);
	g->slots = reply->epoch_opened->slots;
	g->memory = dup(g->raw.frame.fds[1]);
	g->bell = dup(g->raw.frame.fds[2]);
	nvmm__reply__free_unpacked(reply, NULL);
}

static int grow_raw(struct given *g, uint32_t slots)
{
	Nvmm__EpochGrow op = NVMM__EPOCH_GROW__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;

	op.slots = slots;
	request.op_case = NVMM__REQUEST__OP_EPOCH_GROW;
	request.epoch_grow = &op;
	return raw_error(&g->raw, &request);
}

/* Neither longer nor shorter; and no more of it is looked at than the process has threads. */
START_TEST(slots_are_sealed_and_counted)
{
	struct given g;
	struct stat st;

	open_raw(&g);
	ck_assert_uint_eq(g.slots, 64);
	ck_assert_int_eq(fstat(g.memory, &st), 0);
	ck_assert_int_lt(ftruncate(g.memory, st.st_size + 4096), 0);
	ck_assert_int_lt(ftruncate(g.memory, st.st_size - 4096), 0);
	ck_assert_int_lt(fallocate(g.memory, 0, st.st_size, 4096), 0);
	ck_assert_int_lt(fcntl(g.memory, F_ADD_SEALS, F_SEAL_WRITE), 0);
	ck_assert_int_eq(grow_raw(&g, 64), 0);
	ck_assert_int_eq(grow_raw(&g, 65), -EUSERS);
	ck_assert_int_eq(grow_raw(&g, UINT32_MAX), -EUSERS);
	close(g.memory);
	close(g.bell);
	raw_close(&g.raw);
}
END_TEST

static uint64_t ring_many(int bell)
{
	const uint64_t any = 1;
	uint64_t n = 0, until = harness_now_us() + 300000;

	while (harness_now_us() < until)
		n += write(bell, &any, sizeof(any)) == (ssize_t)sizeof(any);
	return n;
}

/*
 * A client that rings without end, fills its bell, drains it, and punches its slots out is not
 * waited for, and has the daemon look no more often than it has the ears for.
 */
START_TEST(bells_are_bounded)
{
	const uint64_t full = UINT64_MAX - 1;
	struct given g;
	uint64_t left;
	struct view v = view_new(&h, NULL, 16 * MIB);

	open_raw(&g);
	ck_assert_uint_gt(ring_many(g.bell), 1000);
	harness_alive(&h);
	ck_assert_int_eq(read(g.bell, &left, sizeof(left)), sizeof(left));
	ck_assert_int_eq(write(g.bell, &full, sizeof(full)), sizeof(full));
	ck_assert_int_eq(fallocate(g.memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
	view_defer(&v, 1000, 64);
	harness_until(view_no_limbo, &v, 10000);
	close(g.memory);
	close(g.bell);
	raw_close(&g.raw);
	nvmm_disconnect(v.nvmm);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("keeper");
	TCase *tc = harness_case_served(suite, "keeper", 60, &h);

	tcase_add_test(tc, reader_is_known_afterwards);
	tcase_add_test(tc, both_die);
	tcase_add_test(tc, client_dies_without_a_daemon);
	tcase_add_test(tc, no_process_is_left);
	tcase_add_test(tc, slots_are_sealed_and_counted);
	tcase_add_test(tc, bells_are_bounded);
	return harness_run(suite);
}
