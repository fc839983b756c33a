/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Deaths under load: clients are killed in the middle of whatever they do, and the others go on;
 * what the dead held in spans can be had again; the operator no longer sees them. And with the
 * daemon stopped, a thread that has spans goes on by itself.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/stress/load.h"

#define MIB (UINT64_C(1) << 20)
#define PROCESSES 6

static struct harness h;

/* Whether nvmmctl lists a process. Its pid stands between bytes that are no digits. */
static bool listed(pid_t pid)
{
	static char out[1 << 20];
	const char *const argv[] = { "ctl/nvmmctl", "clients",
			       "--json", NULL };
	char text[32];

	ck_assert_int_eq(harness_command(&h, out, sizeof(out), argv), 0);
	snprintf(text, sizeof(text), "\"pid\": %d", (int)pid);
	for (char *p = out; (p = strstr(p, text)) != NULL; p++) {
		char next = p[strlen(text)];

		if (next < '0' || next > '9')
			return true;
	}
	return false;
}

static bool not_listed(void *arg)
{
	return !listed(*(pid_t *)arg);
}

static void kill_client(pid_t pid)
{
	int status;

	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFSIGNALED(status), "a client ended by itself with 0x%x", status);
}

START_TEST(killed_under_load)
{
	struct load load = { .most = 65536, .held = MIB, .threads = 2 };
	uint64_t end = harness_now_us() + harness_seconds(6) * UINT64_C(1000000);
	pid_t pids[PROCESSES];
	unsigned killed = 0;

	load_seed(&load);
	load_init(&load, &h, 256 * MIB);
	srandom((unsigned)load.seed);
	for (int i = 0; i < PROCESSES; i++)
		pids[i] = harness_fork(load_process, &load);
	while (harness_now_us() < end) {
		pid_t *victim = &pids[random() % PROCESSES];

		harness_sleep_ms(20 + (unsigned)random() % 100);
		kill_client(*victim);
		killed++;
		*victim = harness_fork(load_process, &load);
	}
	kill_client(pids[0]);
	harness_until(not_listed, &pids[0], 5000);
	atomic_store(&load.counts->stop, true);
	for (int i = 1; i < PROCESSES; i++)
		harness_join(pids[i]);
	printf("deaths: %u killed while %llu blocks were allocated\n", killed + 1,
	       (unsigned long long)load.counts->allocated);
	harness_alive(&h);
}
END_TEST

/* A client that fills a heap, frees every second block, and waits for its end. */

#define BLOCK 1000u
#define MOST 20000u

struct holder {
	nvmm_pool_id heap;
	_Atomic uint64_t freed; /* set when it is done */
};

static void hold_spans(void *arg)
{
	struct holder *holder = arg;
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, holder->heap);
	static nvmm_ptr blocks[MOST];
	uint64_t n = 0, freed = 0;

	while (n < MOST && (blocks[n] = nvmm_alloc(heap, BLOCK)) != NVMM_NULL)
		n++;
	ck_assert_uint_lt(n, MOST);
	for (uint64_t i = 0; i < n; i += 2, freed++)
		must(nvmm_free(heap, blocks[i]) == 0, "%s", nvmm_errmsg(nvmm));
	atomic_store(&holder->freed, freed);
	for (;;)
		pause();
}

static bool holder_done(void *arg)
{
	return atomic_load(&((struct holder *)arg)->freed) > 0;
}

static uint64_t take_all(struct nvmm_heap *heap)
{
	uint64_t n = 0;

	while (nvmm_alloc(heap, BLOCK) != NVMM_NULL)
		n++;
	ck_assert_int_eq(errno, ENOSPC);
	return n;
}

static struct nvmm_heap *waiting_heap;

static bool has_room(void *arg)
{
	return nvmm_alloc(waiting_heap, BLOCK) != NVMM_NULL;
}

START_TEST(spans_of_the_dead)
{
	struct holder *holder = harness_shared(sizeof(*holder));
	struct nvmm_client *nvmm = harness_connect(&h);
	uint64_t got, took = 0;
	pid_t pid;

	waiting_heap = harness_heap(nvmm, &holder->heap, 8 * MIB, NULL, 0);
	pid = harness_fork(hold_spans, holder);
	harness_until(holder_done, holder, 20000);
	ck_assert(listed(pid));
	got = take_all(waiting_heap);
	printf("deaths: of %llu freed blocks, %llu could be had while their freer idled\n",
	       (unsigned long long)holder->freed, (unsigned long long)got);
	kill_client(pid);
	if (got < holder->freed) {
		took = harness_until(has_room, NULL, 5000);
		got += 1 + take_all(waiting_heap);
		printf("deaths: the rest %llu us after the kill\n", (unsigned long long)took);
	}
	/* Settling takes one span after the other. */
	for (int i = 0; i < 500 && got < holder->freed; i++) {
		harness_sleep_ms(10);
		got += take_all(waiting_heap);
	}
	ck_assert_uint_eq(got, holder->freed);
	harness_until(not_listed, &pid, 5000);
	nvmm_heap_close(waiting_heap);
	nvmm_disconnect(nvmm);
}
END_TEST

/* The socket of a dead client that a child of it still holds open does not keep it alive. */
static void die_with_child(void *arg)
{
	struct nvmm_client *nvmm = harness_connect(&h);

	nvmm_heap_close(harness_open(nvmm, *(nvmm_pool_id *)arg));
	if (fork() == 0) {
		harness_sleep_ms(10000);
		_exit(0);
	}
	raise(SIGKILL);
}

START_TEST(child_holds_the_socket)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id id;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, MIB, NULL, 0);
	pid_t pid = harness_fork(die_with_child, &id);
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(WTERMSIG(status), SIGKILL);
	harness_until(not_listed, &pid, 5000);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

/* The daemon stands still */

#define OWN 100u

START_TEST(daemon_stopped)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id id;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, MIB, NULL, 0);
	nvmm_ptr blocks[OWN];
	uint64_t took;

	/* One block brings a span of hundreds. */
	blocks[0] = nvmm_alloc(heap, 64);
	ck_assert_uint_ne(blocks[0], NVMM_NULL);
	ck_assert_ptr_nonnull(nvmm_local(nvmm, blocks[0]));
	harness_signal(&h, SIGSTOP);
	took = harness_now_us();
	for (unsigned round = 0; round < 1000; round++) {
		for (unsigned i = 1; i < OWN; i++) {
			blocks[i] = nvmm_alloc(heap, 64);
			must(blocks[i] != NVMM_NULL, "alloc: %s", nvmm_errmsg(nvmm));
			memset(nvmm_local(nvmm, blocks[i]), (int)i, 64);
			must(nvmm_global(nvmm, nvmm_local(nvmm, blocks[i])) == blocks[i],
			     "an address does not translate back");
		}
		for (unsigned i = 1; i < OWN; i++)
			must(nvmm_free(heap, blocks[i]) == 0, "%s", nvmm_errmsg(nvmm));
	}
	took = harness_now_us() - took;
	harness_signal(&h, SIGCONT);
	printf("deaths: daemon stopped, %u blocks in %llu us\n", 1000 * (OWN - 1),
	       (unsigned long long)took);
	harness_alive(&h);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

/* A slow call waits as long as it was told to, then says why not; afterwards all is well. */
START_TEST(slow_call_of_a_stopped_daemon)
{
	struct nvmm_options options = {
		.size = sizeof(options),
		.socket = h.socket,
		.timeout_ms = 300,
	};
	struct nvmm_client *nvmm;
	nvmm_pool_id id;

	ck_assert_int_eq(nvmm_connect(&nvmm, &options), 0);
	harness_signal(&h, SIGSTOP);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "none", &id), -ETIMEDOUT);
	ck_assert_str_ne(nvmm_errmsg(nvmm), "");
	harness_signal(&h, SIGCONT);
	nvmm_disconnect(nvmm);
	harness_alive(&h);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("death");
	TCase *tcase = harness_case_served(suite, "death", 180, &h);

	tcase_add_test(tcase, killed_under_load);
	tcase_add_test(tcase, spans_of_the_dead);
	tcase_add_test(tcase, child_holds_the_socket);
	tcase_add_test(tcase, daemon_stopped);
	tcase_add_test(tcase, slow_call_of_a_stopped_daemon);
	return harness_run(suite);
}
