/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Clients and daemon are killed, stopped, restarted at random while six clients of three threads work.
 * After each round all is accounted for: every block that a client was told of is there once, nothing else
 * is but what the killed were doing at that instant, and no client failed because a daemon died.
 *
 * NVMMD_TEST_SEED=N repeats the decisions of a run, which prints its seed; what the machine makes of
 * them is another matter. NVMMD_TEST_CAMPAIGN=CLIENTS,DAEMONS goes on until so many were killed; else
 * it is seconds: a minute.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/stress/campaign.h"

#ifdef __SANITIZE_ADDRESS__
#define SECONDS 20u
#else
#define SECONDS 60u
#endif

#define MIB (UINT64_C(1) << 20)
#define HEAP_BYTES (40 * MIB)
#define ROUND_KILLS 60u /* so that a journal has room for the doubts */
#define END_MS 120000u

struct controller {
	struct campaign c;
	uint64_t random;
	pid_t pid[SEATS];
	bool stopped[SEATS]; /* by SIGSTOP */
	bool daemon_stopped;
	unsigned clients_killed, daemons_killed, daemons_ended, stops, rounds;
	unsigned clients_wanted, daemons_wanted; /* 0: until `end` */
	uint64_t end;
	struct account account;
};

static unsigned dice(struct controller *k, unsigned sides)
{
	return (unsigned)(campaign_random(&k->random) % sides);
}

/* Into the daemon's log, which is shown if the test fails. */
static void say(struct controller *k, const char *what, unsigned which)
{
	FILE *f = fopen(k->c.h.log, "ae");

	ck_assert_ptr_nonnull(f);
	fprintf(f, "campaign: %llu us: %s %u\n", (unsigned long long)harness_now_us(), what, which);
	fclose(f);
}

/* Clients */

static void client_start(struct controller *k, unsigned seat)
{
	k->c.seat = seat;
	k->c.shadow->seat[seat].life++;
	k->pid[seat] = harness_fork(campaign_client, &k->c);
}

/* Asserts that it ended as it should: killed by us, or of itself with 0. */
static void client_reap(struct controller *k, unsigned seat, int status, bool killed)
{
	must(killed ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL : status == 0,
	     "client %u ended with 0x%x: %s (seed %llu)", seat, status,
	     k->c.shadow->seat[seat].failure, (unsigned long long)k->c.seed);
	k->pid[seat] = 0;
	k->stopped[seat] = false;
}

static void client_kill(struct controller *k, unsigned seat)
{
	int status;

	/* It may have failed just before. */
	if (waitpid(k->pid[seat], &status, WNOHANG) == k->pid[seat]) {
		client_reap(k, seat, status, true);
		return;
	}
	say(k, "kills client", seat);
	kill(k->pid[seat], SIGKILL);
	ck_assert_int_eq(waitpid(k->pid[seat], &status, 0), k->pid[seat]);
	client_reap(k, seat, status, true);
	k->clients_killed++;
}

static void clients_look(struct controller *k)
{
	int status;

	for (unsigned s = 0; s < SEATS; s++)
		if (k->pid[s] && waitpid(k->pid[s], &status, WNOHANG) == k->pid[s])
			client_reap(k, s, status, true);
}

static void client_toggle(struct controller *k, unsigned seat)
{
	k->stopped[seat] = !k->stopped[seat];
	k->stops += k->stopped[seat];
	say(k, k->stopped[seat] ? "stops client" : "continues client", seat);
	kill(k->pid[seat], k->stopped[seat] ? SIGSTOP : SIGCONT);
}

/* Daemon */

static void daemon_look(struct controller *k)
{
	int status;

	must(waitpid(k->c.h.daemon, &status, WNOHANG) == 0, "the daemon ended with 0x%x (seed %llu)",
	     status, (unsigned long long)k->c.seed);
}

static void daemon_kill(struct controller *k)
{
	daemon_look(k);
	say(k, "kills daemon", k->daemons_killed);
	harness_signal(&k->c.h, SIGKILL);
	k->daemon_stopped = false;
	k->daemons_killed++;
}

/* Kills it, now and then another time while it starts; clients may be killed before it is back. */
static void daemon_replace(struct controller *k)
{
	daemon_kill(k);
	for (; dice(k, 3) == 0; daemon_kill(k)) {
		harness_spawn(&k->c.h);
		harness_sleep_ms(dice(k, 30));
	}
	if (dice(k, 2) && k->pid[0])
		client_kill(k, 0);
	harness_sleep_ms(dice(k, 100));
	harness_spawn(&k->c.h);
}

/* As `systemctl restart` and an upgrade do; clients may be killed while it ends, and before the next. */
static void daemon_restart(struct controller *k)
{
	int status;

	daemon_look(k);
	/* One that has not begun to run yet has Check's handler, which ends the test. */
	harness_await(&k->c.h);
	say(k, "ends daemon", k->daemons_ended);
	harness_signal(&k->c.h, SIGTERM);
	if (dice(k, 2) && k->pid[0])
		client_kill(k, 0);
	status = harness_wait_daemon(&k->c.h);
	must(status == 0, "the daemon ended with 0x%x (seed %llu)", status, (unsigned long long)k->c.seed);
	k->daemons_ended++;
	if (dice(k, 2) && k->pid[1])
		client_kill(k, 1);
	harness_spawn(&k->c.h);
}

static void daemon_toggle(struct controller *k)
{
	k->daemon_stopped = !k->daemon_stopped;
	say(k, k->daemon_stopped ? "stops daemon" : "continues daemon", 0);
	harness_signal(&k->c.h, k->daemon_stopped ? SIGSTOP : SIGCONT);
}

/* Rounds */

static void event_client(struct controller *k, unsigned seat)
{
	unsigned n = dice(k, 10);

	if (!k->pid[seat])
		client_start(k, seat);
	else if (n < 6)
		client_kill(k, seat);
	else
		client_toggle(k, seat);
}

/* One of them; nobody is stopped for long, and no seat stays empty. */
static void event(struct controller *k)
{
	unsigned n = dice(k, 100);

	harness_sleep_ms(2 + dice(k, 60));
	clients_look(k);
	daemon_look(k);
	for (unsigned s = 0; s < SEATS; s++)
		if (!k->pid[s] || k->stopped[s])
			event_client(k, s);
	if (k->daemon_stopped || n < 6)
		daemon_toggle(k);
	else if (n < 18)
		daemon_replace(k);
	else if (n < 22)
		daemon_restart(k);
	else if (n < 72)
		event_client(k, dice(k, SEATS));
}

static bool goes_on(const struct controller *k)
{
	if (k->clients_wanted || k->daemons_wanted)
		return k->clients_killed < k->clients_wanted || k->daemons_killed < k->daemons_wanted;
	return harness_now_us() < k->end;
}

/* All are told to end, and do: nobody waits for anything. */
static void clients_end(struct controller *k)
{
	uint64_t end = harness_now_us() + END_MS * UINT64_C(1000);

	if (k->daemon_stopped)
		daemon_toggle(k);
	for (unsigned s = 0; s < SEATS; s++)
		if (k->stopped[s])
			client_toggle(k, s);
	/* ordering: relaxed; they look at it again and again. */
	atomic_store_explicit(&k->c.shadow->stop, true, memory_order_relaxed);
	for (unsigned s = 0; s < SEATS; s++) {
		int status;

		while (k->pid[s] && waitpid(k->pid[s], &status, WNOHANG) == 0) {
			must(harness_now_us() < end, "client %u does not end: intents %u %u %u (seed %llu)",
			     s, k->c.shadow->seat[s].journal[0].intent,
			     k->c.shadow->seat[s].journal[1].intent,
			     k->c.shadow->seat[s].journal[2].intent, (unsigned long long)k->c.seed);
			harness_sleep_ms(2);
		}
		if (k->pid[s])
			client_reap(k, s, status, false);
	}
	/* ordering: relaxed; no client runs. */
	atomic_store_explicit(&k->c.shadow->stop, false, memory_order_relaxed);
}

static void round_run(struct controller *k)
{
	unsigned before = k->clients_killed;

	for (unsigned s = 0; s < SEATS; s++)
		client_start(k, s);
	while (goes_on(k) && k->clients_killed < before + ROUND_KILLS)
		event(k);
	clients_end(k);
	harness_await(&k->c.h);
	/* In every other round the heaps are recovered from a kill, not from an orderly stop. */
	if (k->rounds % 2) {
		daemon_kill(k);
		harness_start(&k->c.h);
	}
	say(k, "accounts", k->rounds);
	account_take(&k->c, &k->account);
	k->rounds++;
}

/* The campaign */

static void pools_make(struct campaign *c)
{
	static const enum nvmm_durability durability[HEAPS] = {
		NVMM_DURABILITY_PROCESS, NVMM_DURABILITY_POWER, NVMM_DURABILITY_PROCESS };
	struct nvmm_client *nvmm = harness_connect(&c->h);
	int r;

	for (unsigned i = 0; i < HEAPS; i++) {
		struct nvmm_pool_options o = { .size = sizeof(o), .durability = durability[i], .sparse = i == 2 };

		r = nvmm_heap_create(nvmm, &c->heap[i], HEAP_BYTES, &o);
		must(r == 0, "heap: %d: %s", r, nvmm_errmsg(nvmm));
	}
	r = nvmm_region_create(nvmm, &c->region, sizeof(struct exchange), NULL);
	must(r == 0, "region: %d: %s", r, nvmm_errmsg(nvmm));
	nvmm_disconnect(nvmm);
}

static void read_environment(struct controller *k)
{
	const char *seed = getenv("NVMMD_TEST_SEED"), *counts = getenv("NVMMD_TEST_CAMPAIGN");

	if (seed)
		k->c.seed = strtoull(seed, NULL, 0);
	else
		ck_assert_int_eq(getrandom(&k->c.seed, sizeof(k->c.seed), 0), sizeof(k->c.seed));
	k->random = k->c.seed;
	if (counts)
		ck_assert_int_eq(sscanf(counts, "%u,%u", &k->clients_wanted, &k->daemons_wanted), 2);
	/* It survives whatever happens to this process's standard output. */
	fprintf(stderr, "campaign: NVMMD_TEST_SEED=%llu\n", (unsigned long long)k->c.seed);
}

static uint64_t steps(const struct controller *k)
{
	uint64_t n = 0;

	for (unsigned s = 0; s < SEATS; s++)
		n += k->c.shadow->seat[s].steps;
	return n;
}

START_TEST(nothing_is_lost)
{
	static struct controller k;

	read_environment(&k);
	/* tmpfs passes for persistent memory, so that a heap can be of durability `power`. */
	ck_assert_int_eq(setenv("PMEM_IS_PMEM_FORCE", "1", 1), 0);
	harness_init(&k.c.h, NULL);
	harness_start(&k.c.h);
	pools_make(&k.c);
	k.c.shadow = harness_shared(sizeof(*k.c.shadow));
	k.end = harness_now_us() + SECONDS * UINT64_C(1000000);
	do
		round_run(&k);
	while (goes_on(&k));
	account_close(&k.c);
	harness_stop(&k.c.h);
	printf("campaign: seed %llu: %u clients and %u daemons killed, %u clients stopped, %u daemons "
	       "restarted, %llu steps; "
	       "%u accounts of %llu blocks, %llu operations in flight, %llu of them left a block: "
	       "0 lost, 0 doubled, 0 clients failed\n",
	       (unsigned long long)k.c.seed, k.clients_killed, k.daemons_killed, k.stops, k.daemons_ended,
	       (unsigned long long)steps(&k), k.rounds, (unsigned long long)k.account.blocks,
	       (unsigned long long)k.account.doubts, (unsigned long long)k.account.happened);
	ck_assert_uint_gt(k.clients_killed, 0);
	ck_assert_uint_gt(k.daemons_killed, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("campaign");
	TCase *tcase = harness_case(suite, "campaign", getenv("NVMMD_TEST_CAMPAIGN") ? 7200 : 600);

#ifdef __SANITIZE_THREAD__
	srunner_free(srunner_create(suite));
	(void)tcase;
	return 77; /* TSan sees one process at a time: nothing here is for it */
#endif
	tcase_add_test(tcase, nothing_is_lost);
	return harness_run(suite);
}
