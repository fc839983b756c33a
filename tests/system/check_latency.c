/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The latency guard. Another user's round trip (look up, create, open, close, destroy) is timed while the daemon is
 * quiet, and under each attack. What decides is the daemon's own figure: no turn of its loop takes longer than
 * TURN_MS. Medians and their ratio are printed, for doc/hostile.md, and decide nothing.
 *
 * A turn is wall time, and a machine that is busy with other tests may take the processor away in the middle
 * of one. So an attack has three tries, each with a daemon of its own.
 *
 *   tests/system/check_latency | grep '^|'     the table
 *   NVMMD_TEST_ATTACK=TEXT                     attacks whose names have the text
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/attacks.h"
#include "tests/system/raw.h"

#ifdef __SANITIZE_ADDRESS__
#define TURN_MS 1000u /* what a sanitizer costs */
#else
#define TURN_MS 250u
#endif
#define TRIES 3u
#define LOG_MS 1500u
#define STOP_AFTER_MS 200u /* an attack began */
#define TRIPS_MAX 100u
#define TRIPS_MIN 5u
#define TRIPS_MS 800u

struct trips {
	unsigned n;
	unsigned failed;
	int error; /* of the last that failed */
	uint64_t us[TRIPS_MAX];
};

static struct harness h;

#define ASK(raw, field, case_name, type, init, ...)           \
	({                                                    \
		Nvmm__Request request_ = NVMM__REQUEST__INIT; \
		type op = init;                               \
		__VA_ARGS__;                                  \
		request_.op_case = NVMM__REQUEST__OP_##case_name; \
		request_.field = &op;                         \
		raw_error(raw, &request_);                    \
	})

/* 0, or the first error. */
static int round_trip(struct raw *raw)
{
	Nvmm__PoolCreate create = NVMM__POOL_CREATE__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__Reply *reply;
	uint32_t id = 0;
	int r;

	r = ASK(raw, pool_lookup, POOL_LOOKUP, Nvmm__PoolLookup, NVMM__POOL_LOOKUP__INIT,
		op.name = (char *)(uintptr_t) "nobody's");
	if (r != -ENOENT)
		return r == 0 ? -EEXIST : r;
	create.kind = 2;
	create.size = 1 << 20;
	request.op_case = NVMM__REQUEST__OP_POOL_CREATE;
	request.pool_create = &create;
	reply = raw_ask(raw, &request);
	r = reply ? reply->error : -ECONNRESET;
	if (r == 0)
		id = reply->pool->id;
	if (reply)
		nvmm__reply__free_unpacked(reply, NULL);
	if (r == 0)
		r = ASK(raw, pool_open, POOL_OPEN, Nvmm__PoolOpen, NVMM__POOL_OPEN__INIT, op.id = id; op.write = true);
	if (r == 0)
		r = ASK(raw, pool_close, POOL_CLOSE, Nvmm__PoolClose, NVMM__POOL_CLOSE__INIT, op.id = id;
			op.write = true);
	if (r == 0)
		r = ASK(raw, pool_destroy, POOL_DESTROY, Nvmm__PoolDestroy, NVMM__POOL_DESTROY__INIT, op.id = id);
	return r;
}

/* In a process of the victim's. */
static void victim_main(void *arg)
{
	uint64_t begin = harness_now_us(), now;
	struct trips *t = arg;
	struct raw raw;
	int r;

	attack_victim();
	raw_connect(&raw, &h);
	raw_hello(&raw);
	for (; t->n < TRIPS_MAX && (t->n < TRIPS_MIN || harness_now_us() - begin < TRIPS_MS * 1000u);) {
		now = harness_now_us();
		r = round_trip(&raw);
		t->us[t->n++] = harness_now_us() - now;
		if (r < 0) {
			t->failed++;
			t->error = r;
		}
	}
	raw_close(&raw);
}

static int by_us(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void time_trips(struct trips *t)
{
	memset(t, 0, sizeof(*t));
	harness_join(harness_fork(victim_main, t));
	qsort(t->us, t->n, sizeof(t->us[0]), by_us);
}

/* A number of the Status reply by its name; 0: this daemon does not count it. */
static uint64_t field_of(const Nvmm__StatusReply *status, const char *name)
{
	const ProtobufCFieldDescriptor *field =
		protobuf_c_message_descriptor_get_field_by_name(&nvmm__status_reply__descriptor, name);
	uint64_t value = 0;

	if (field && field->type == PROTOBUF_C_TYPE_UINT64)
		memcpy(&value, (const char *)status + field->offset, sizeof(value));
	return value;
}

/* The longest turn of the daemon's loop since its start, in microseconds. */
static uint64_t longest_turn(void)
{
	Nvmm__Status status = NVMM__STATUS__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__Reply *reply;
	struct raw raw;
	uint64_t us;

	raw_connect(&raw, &h);
	raw_hello(&raw);
	request.op_case = NVMM__REQUEST__OP_STATUS;
	request.status = &status;
	reply = raw_ask(&raw, &request);
	ck_assert_ptr_nonnull(reply);
	ck_assert_int_eq(reply->error, 0);
	us = field_of(reply->status, "loop_longest_us");
	nvmm__reply__free_unpacked(reply, NULL);
	raw_close(&raw);
	return us;
}

static double ms(uint64_t us)
{
	return (double)us / 1000;
}

/* One try: the longest turn, or as if it were for ever if the victim was refused anything. */
static uint64_t attacked(const struct attack *attack)
{
	struct trips *quiet = harness_shared(sizeof(*quiet)), *under = harness_shared(sizeof(*under));
	struct attacker attacker;
	uint64_t longest, a, b;

	harness_init(&h, NULL);
	harness_start(&h);
	time_trips(quiet);
	attack_start(&attacker, attack, &h);
	time_trips(under);
	longest = longest_turn();
	attack_end(&attacker);
	harness_alive(&h);
	harness_signal(&h, SIGKILL);
	a = quiet->us[quiet->n / 2];
	b = under->us[under->n / 2];
	printf("| %-24s | %7.2f | %7.2f | %5.1f | %7.1f | %7.1f |", attack->name, ms(a), ms(b), (double)b / (double)a,
	       ms(under->us[under->n - 1]), ms(longest));
	if (under->failed)
		printf(" %u of %u refused: %s", under->failed, under->n, strerror(-under->error));
	printf("\n");
	fflush(stdout);
	ck_assert_uint_eq(quiet->failed, 0);
	return under->failed ? UINT64_MAX : longest;
}

START_TEST(others_are_served)
{
	const char *only = getenv("NVMMD_TEST_ATTACK");
	uint64_t longest = UINT64_MAX;

	if (only ? !strstr(attacks[_i].name, only) : attacks[_i].open)
		return;
	for (unsigned i = 0; i < TRIES && longest > TURN_MS * 1000u; i++)
		longest = attacked(&attacks[_i]);
	ck_assert_msg(longest != UINT64_MAX, "%s: another user is refused what he may have", attacks[_i].name);
	ck_assert_msg(longest <= TURN_MS * 1000u, "%s: a turn of the loop took %.0f ms", attacks[_i].name,
		      ms(longest));
}
END_TEST

/* A daemon that is told to stop does so in order, whatever waits; the next one serves. */
START_TEST(stops_in_order)
{
	struct attacker attacker;
	int status;

	harness_init(&h, NULL);
	harness_start(&h);
	attack_start(&attacker, &attacks[_i], &h);
	harness_sleep_ms(STOP_AFTER_MS);
	harness_signal(&h, SIGTERM);
	status = harness_wait_daemon(&h);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: status 0x%x", attacks[_i].name, status);
	attack_end(&attacker);
	harness_start(&h);
	harness_alive(&h);
	harness_stop(&h);
}
END_TEST

/* Lines of the daemon's log, and whether one has `text`. */
static unsigned count_lines(const char *text, bool *found)
{
	FILE *file = fopen(h.log, "r");
	char line[1024];
	unsigned n = 0;

	ck_assert_ptr_nonnull(file);
	while (fgets(line, sizeof(line), file)) {
		*found |= strstr(line, text) != NULL;
		n++;
	}
	fclose(file);
	return n;
}

/* However many lines one user provokes, the log stays small and has those of another one. */
START_TEST(log_stays_small)
{
	const struct attack *attack = attacks;
	struct attacker attacker;
	uint64_t began;
	unsigned lines, seconds;
	bool found = false;
	nvmm_pool_id id;
	struct nvmm_client *nvmm;

	while (strcmp(attack->name, "lines in the log") != 0)
		attack++;
	harness_init(&h, NULL);
	harness_start(&h);
	began = harness_now_us();
	attack_start(&attacker, attack, &h);
	harness_sleep_ms(LOG_MS);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, 4096, &(struct nvmm_pool_options){
		.size = sizeof(struct nvmm_pool_options), .name = "another user's" }), 0);
	nvmm_disconnect(nvmm);
	attack_end(&attacker);
	seconds = (unsigned)((harness_now_us() - began) / 1000000) + 2;
	harness_stop(&h);
	lines = count_lines("another user's created", &found);
	/* Events and complaints of one user, a line on what was left out, those of this test and of start and stop. */
	ck_assert_uint_le(lines, seconds * (20 + 10 + 1) + 20);
	ck_assert(found);
	found = false;
	count_lines("lines about clients were not logged", &found);
	ck_assert(found);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("latency");
	TCase *tcase = harness_case(suite, "attacks", 120);

	printf("| attack                   | quiet ms | under ms | ratio | worst ms | longest turn ms |\n");
	printf("| --- | --- | --- | --- | --- | --- |\n");
	fflush(stdout);
	tcase_add_loop_test(tcase, others_are_served, 0, (int)n_attacks);
	tcase = harness_case(suite, "log", 60);
	tcase_add_test(tcase, log_stays_small);
	tcase = harness_case(suite, "stops", 60);
	tcase_add_loop_test(tcase, stops_in_order, 0, (int)n_attacks);
	return harness_run(suite);
}
