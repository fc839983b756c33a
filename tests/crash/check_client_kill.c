/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Death of a client at every store, flush and drain of the library's calls, with the real library and daemon.
 *
 * A process makes one call and kills itself at its k-th point, or when it has returned. The test waits for it with
 * nvmm_wait_settled(), in a connection that stays; in some of the runs the daemon is killed at once, and the
 * next one settles the dead. The oracle: the call happened or did not, and did if it returned; no block is allocated
 * that nobody knows, but for the one of a plain allocation; none that is live is given again; the check
 * finds no rule broken.
 *
 * NVMMD_TEST_LONG=1 visits every point; else a sample, another one each time, from the seed that is printed:
 * NVMMD_TEST_SEED=N has the same one again. NVMMD_TEST_OPERATION=TEXT: those calls alone whose name has this text.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/macro.h"
#include "media/store.h"
#include "tests/crash/client_calls.h"
#include "tests/crash/ledger.h"
#include "tests/system/harness.h"

#ifdef __SANITIZE_ADDRESS__
#define PER_CALL 4u
#else
#define PER_CALL 10u
#endif
#define PER_CALL_DAEMON 3u /* with the daemon */
#define HEAP_BYTES (UINT64_C(16) << 20)
#define AGAIN 50u

static struct harness h;
static struct call_stage *stage;
static const struct call *call;
static uint64_t seed;

/* Who dies */

static int64_t points_left = INT64_MAX;

static void point(enum media_point kind, const void *addr, size_t len)
{
	(void)kind;
	(void)addr;
	(void)len;
	if (points_left-- == 0)
		kill(getpid(), SIGKILL);
	stage->points++;
}

static struct caller caller_open(void)
{
	struct caller c = { .nvmm = harness_connect(&h), .stage = stage };

	c.heap = harness_open(c.nvmm, stage->id);
	c.word = nvmm_local(c.nvmm, stage->at);
	return c;
}

/* Makes the call, and dies in it or after it. */
static void run_and_die(void *arg)
{
	static struct media_backend killer;
	struct caller c = caller_open();

	if (call->prepare)
		call->prepare(&c);
	killer = media_backend_pmem;
	killer.point = point;
	stage->points = 0;
	points_left = (int64_t)(intptr_t)arg;
	media_backend = &killer;
	call->act(&c);
	stage->returned = true;
	kill(getpid(), SIGKILL);
}

/* What is left */

struct survey {
	struct caller *c;
	unsigned unknown;
	nvmm_ptr live[64];
	unsigned n;
};

static int survey_block(nvmm_ptr ptr, size_t size, enum nvmm_block_state state, void *arg)
{
	struct survey *s = arg;

	(void)size;
	if (ptr == stage->at || state == NVMM_BLOCK_LIMBO)
		return 0;
	must(state == NVMM_BLOCK_ALLOCATED && s->n < ARRAY_SIZE(s->live), "%s: block %llx", call->name,
	     (unsigned long long)ptr);
	s->unknown += !call_known(s->c, ptr);
	s->live[s->n++] = ptr;
	return 0;
}

/* What is live is not given again. */
static void expect_given_once(struct caller *c, const struct survey *s)
{
	nvmm_ptr got[AGAIN];

	for (unsigned i = 0; i < AGAIN; i++) {
		got[i] = nvmm_alloc(c->heap, i % 8 ? 64 : 40u << 10);
		must(got[i] != NVMM_NULL, "%s: %s", call->name, nvmm_errmsg(c->nvmm));
		for (unsigned k = 0; k < s->n; k++)
			must(got[i] != s->live[k], "%s: %llx is given twice", call->name,
			     (unsigned long long)got[i]);
	}
	for (unsigned i = 0; i < AGAIN; i++)
		must(nvmm_free(c->heap, got[i]) == 0, "%s: %s", call->name, nvmm_errmsg(c->nvmm));
}

static void expect_sound(struct caller *c)
{
	struct nvmm_heap_report report = { .size = sizeof(report) };

	ck_assert_int_eq(nvmm_heap_check(c->heap, &report), 0);
	ck_assert_uint_eq(report.violations, 0);
	ck_assert_uint_eq(report.suspects, 0);
}

static bool is_empty(void *arg)
{
	struct caller *c = arg;
	struct nvmm_heap_info info = { .size = sizeof(info) };

	ck_assert_int_eq(nvmm_heap_stat(c->heap, &info), 0);
	return info.blocks == 1;
}

/* Judges, and makes the heap what it was. */
static void look(struct caller *c, uint64_t k)
{
	struct survey s = { .c = c };

	call->verify(c);
	ck_assert_int_eq(nvmm_heap_walk(c->heap, survey_block, &s), 0);
	ck_assert_msg(s.unknown <= (stage->returned ? 0 : call->unknown),
		      "%s, point %llu: %u blocks that nobody knows", call->name, (unsigned long long)k,
		      s.unknown);
	expect_given_once(c, &s);
	expect_sound(c);
	for (unsigned i = 0; i < s.n; i++)
		ck_assert_int_eq(nvmm_free(c->heap, s.live[i]), 0);
	memset(c->word, 0, CALL_WORDS * sizeof(*c->word));
	harness_until(is_empty, c, 10000);
}

/* One death at point k; false: it came to the end first, and died there. */
static bool die_at(struct caller *c, uint64_t k, bool daemon_too)
{
	pid_t pid;
	int status;

	memset(stage->ptr, 0, sizeof(stage->ptr));
	stage->returned = false;
	if (call->lend)
		call->lend(c);
	pid = harness_fork(run_and_die, (void *)(intptr_t)k);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: the client failed: %x",
		      call->name, (unsigned)status);
	if (daemon_too) {
		harness_signal(&h, SIGKILL);
		harness_start(&h);
	}
	ck_assert_msg(nvmm_wait_settled(c->heap) == 0, "%s", nvmm_errmsg(c->nvmm));
	look(c, k);
	return !stage->returned;
}

/* Some of the points, or all, and the call's return. */
static void sweep(struct caller *c, struct ledger *l, unsigned visits, bool daemon_too)
{
	uint64_t step = ledger_whole() ? 1 : DIV_UP(l->points + !l->points, visits);

	for (uint64_t k = seed % step; k < l->points; k += step)
		l->images += die_at(c, k, daemon_too);
	/* Others' spans and the daemon's answers make a point more or less. */
	for (uint64_t k = l->points; die_at(c, k, daemon_too); k++)
		l->images++;
	l->images++;
}

static void start(bool power)
{
	struct nvmm_pool_options options = {
		.size = sizeof(options),
		.durability = power ? NVMM_DURABILITY_POWER : NVMM_DURABILITY_PROCESS,
	};
	struct nvmm_heap *heap;
	struct nvmm_client *nvmm;

	if (power)
		ck_assert_int_eq(setenv("PMEM_IS_PMEM_FORCE", "1", 1), 0);
	stage = harness_shared(sizeof(*stage));
	harness_init(&h, NULL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	ck_assert_msg(nvmm_heap_create(nvmm, &stage->id, HEAP_BYTES, &options) == 0, "%s",
		      nvmm_errmsg(nvmm));
	heap = harness_open(nvmm, stage->id);
	stage->at = nvmm_zalloc(heap, CALL_WORDS * sizeof(uint64_t));
	ck_assert_uint_ne(stage->at, NVMM_NULL);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

START_TEST(every_point)
{
	const char *only = getenv("NVMMD_TEST_OPERATION");
	bool power = _i % 2;
	struct ledger l = { .suite = "client", .durability = power ? "power" : "process" };
	struct caller c;

	call = &calls[_i / 2];
	if (only && !strstr(call->name, only))
		return;
	l.operation = call->name;
	ledger_begin(&l);
	start(power);
	c = caller_open();
	ck_assert(!die_at(&c, INT64_MAX, false));
	l.points = stage->points;
	sweep(&c, &l, PER_CALL, false);
	sweep(&c, &l, PER_CALL_DAEMON, true);
	nvmm_heap_close(c.heap);
	nvmm_disconnect(c.nvmm);
	harness_stop(&h);
	ledger_end(&l);
}
END_TEST

int main(void)
{
	const char *text = getenv("NVMMD_TEST_SEED");
	Suite *s = suite_create("client kill");
	TCase *t = harness_case(s, "calls", ledger_whole() ? 3600 : 120);

	seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
	if (!ledger_whole())
		printf("a sample: NVMMD_TEST_SEED=%llu for the same again, NVMMD_TEST_LONG=1 for all\n",
		       (unsigned long long)seed);
	fflush(stdout);
	tcase_add_loop_test(t, every_point, 0, 2 * (int)N_CALLS);
	return harness_run(s);
}
