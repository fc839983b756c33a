/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon killed in the middle of a change of the registry: at each of its media stores, and at
 * random moments, which fall between its file operations as well. The next daemon must find the
 * change done or not done, and the client that asks again with the same number must get it done
 * once.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "common/macro.h"
#include "media/format.h"
#include "tests/unit/daemon_child.h"
#include "tests/unit/tempdir.h"

#define KIB (UINT64_C(1) << 10)
#define GIB (UINT64_C(1) << 30)
#define COOKIE 5
#define POINTS_MAX 120 /* tried of one operation's; spread evenly if it has more */
#define RANDOM_KILLS 60

/*
 * Shared with the daemon: stores until it dies, the last included; 0 and less: unarmed. One word, so that
 * whoever disarms knows for certain whether the daemon dies, also by a store behind its reply.
 */
static struct {
	int64_t left;
} * shared;

#define NEVER INT64_MAX

static void point(enum media_point kind, const void *addr, size_t len)
{
	int64_t left;

	if (kind != MEDIA_POINT_STORE)
		return;
	/* ordering: relaxed; the word says all that there is to say. */
	left = __atomic_load_n(&shared->left, __ATOMIC_RELAXED);
	while (left > 0)
		/* ordering: relaxed; likewise. */
		if (__atomic_compare_exchange_n(&shared->left, &left, left - 1, false,
						__ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
			if (left == 1)
				kill(getpid(), SIGKILL);
			break;
		}
}

static void nothing(void)
{
}

static void flush(const void *addr, size_t len)
{
}

static const struct media_backend killer = { .flush = flush, .drain = nothing, .point = point };

static void set_backend(void)
{
	media_backend = &killer;
}

static void arm(int64_t at)
{
	/* ordering: relaxed; the daemon is idle. */
	__atomic_store_n(&shared->left, at, __ATOMIC_RELAXED);
}

/* Ends the count; what was left of it, 0 and less: the daemon has died of it or is about to. */
static int64_t disarm(void)
{
	/* ordering: relaxed; as in point(). */
	return __atomic_exchange_n(&shared->left, 0, __ATOMIC_RELAXED);
}

/* Operations: each asks with number `seq`, so that it can be asked again. */

struct operation {
	const char *name;
	void (*prepare)(struct raw_client *c);
	int (*run)(struct raw_client *c);
	void (*done)(struct raw_client *c);   /* checks that it happened */
	void (*undone)(struct raw_client *c); /* and cleans up */
	uint64_t needs;			      /* bytes of file system; 0: few */
	uint64_t points_max;		      /* tried; 0: POINTS_MAX */
};

static uint64_t expected_incarnation;

static void no_subject(struct raw_client *c)
{
	ck_assert_int_eq(raw_lookup(c, "subject"), -ENOENT);
}

static uint32_t subject(struct raw_client *c)
{
	ck_assert_int_eq(raw_lookup(c, "subject"), 0);
	ck_assert_str_eq(c->reply->pool->damage, "");
	return c->reply->pool->id;
}

static void remove_subject(struct raw_client *c)
{
	ck_assert_int_eq(raw_destroy(c, subject(c), false), 0);
}

static void make_region(struct raw_client *c)
{
	ck_assert_int_eq(raw_create(c, POOL_REGION, 64 * KIB, "subject", 0), 0);
	expected_incarnation = c->reply->pool->incarnation;
}

static void make_heap(struct raw_client *c)
{
	ck_assert_int_eq(raw_create(c, POOL_HEAP, 64 * KIB, "subject", 0), 0);
	expected_incarnation = c->reply->pool->incarnation;
}

static int create_region(struct raw_client *c)
{
	return raw_create(c, POOL_REGION, 64 * KIB, "subject", 0);
}

static int create_heap(struct raw_client *c)
{
	return raw_create(c, POOL_HEAP, 64 * KIB, "subject", 0);
}

static void is_usable(struct raw_client *c)
{
	uint32_t id = subject(c);

	ck_assert_int_eq(raw_pool_open(c, id, true), 0);
	ck_assert_int_eq(raw_stat(c, id), 0);
	ck_assert_int_eq(raw_pool_close(c, id, c->reply->pool->incarnation, true), 0);
}

static uint32_t subject_id; /* asking for it would take a number between arm() and the request */

static void note_region(struct raw_client *c)
{
	make_region(c);
	subject_id = c->reply->pool->id;
}

static void note_heap(struct raw_client *c)
{
	make_heap(c);
	subject_id = c->reply->pool->id;
}

static int destroy(struct raw_client *c)
{
	return raw_destroy(c, subject_id, false);
}

static int resize_to(struct raw_client *c, uint64_t size)
{
	Nvmm__PoolResize op = NVMM__POOL_RESIZE__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;

	request.op_case = NVMM__REQUEST__OP_POOL_RESIZE;
	request.pool_resize = &op;
	op.id = subject_id;
	op.size = size;
	return raw_call(c, &request);
}

static void has_size(struct raw_client *c, uint64_t size, uint32_t shelves)
{
	is_usable(c);
	ck_assert_int_eq(raw_stat(c, subject_id), 0);
	ck_assert_uint_eq(c->reply->pool->size, size);
	ck_assert_uint_eq(c->reply->pool->shelves, shelves);
	ck_assert_uint_eq(c->reply->pool->incarnation, expected_incarnation);
}

static int resize(struct raw_client *c)
{
	return resize_to(c, 160 * KIB);
}

static void is_larger(struct raw_client *c)
{
	has_size(c, 160 * KIB, 1);
}

/* Over the limit of the first shelf: all of it or nothing, though it takes two shelf records. */
static int resize_far(struct raw_client *c)
{
	return resize_to(c, GIB + 64 * KIB);
}

static void has_two_shelves(struct raw_client *c)
{
	has_size(c, GIB + 64 * KIB, 2);
}

static int change_mode(struct raw_client *c)
{
	Nvmm__PoolChmod op = NVMM__POOL_CHMOD__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;

	request.op_case = NVMM__REQUEST__OP_POOL_CHMOD;
	request.pool_chmod = &op;
	op.id = subject_id;
	op.mode = 0644;
	return raw_call(c, &request);
}

static void has_mode(struct raw_client *c)
{
	ck_assert_int_eq(raw_stat(c, subject(c)), 0);
	ck_assert_uint_eq(c->reply->pool->mode, 0644);
}

static const struct operation operations[] = {
	{ "create region", no_subject, create_region, is_usable, remove_subject, 0, 0 },
	{ "create heap", no_subject, create_heap, is_usable, remove_subject, 0, 0 },
	{ "destroy region", note_region, destroy, no_subject, no_subject, 0, 0 },
	{ "destroy heap", note_heap, destroy, no_subject, no_subject, 0, 0 },
	{ "resize region", note_region, resize, is_larger, remove_subject, 0, 0 },
	{ "resize heap", note_heap, resize, is_larger, remove_subject, 0, 0 },
	{ "chmod", note_region, change_mode, has_mode, remove_subject, 0, 0 },
	/* The last: it takes long, and is left out of what is drawn at random. */
	{ "resize over two shelves", note_region, resize_far, has_two_shelves, remove_subject, GIB,
	  10 },
};

/* Directories of pools: as many as there are pools. */
static unsigned count_dirs(const struct daemon_child *d)
{
	DIR *dir = opendir(d->base);
	struct dirent *e;
	unsigned n = 0;

	ck_assert_ptr_nonnull(dir);
	while ((e = readdir(dir)))
		n += strncmp(e->d_name, "pool-", 5) == 0;
	closedir(dir);
	return n;
}

static unsigned count_pools(struct raw_client *c)
{
	Nvmm__PoolList op = NVMM__POOL_LIST__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;

	request.op_case = NVMM__REQUEST__OP_POOL_LIST;
	request.pool_list = &op;
	ck_assert_int_eq(raw_call(c, &request), 0);
	return (unsigned)c->reply->pool_list->n_pools;
}

static int64_t points_left; /* when the last round ended */
static uint64_t cookie_number; /* each round has a number range of its own */

static void fresh_client(struct raw_client *c, const struct daemon_child *d)
{
	raw_open(c, d, COOKIE);
	c->seq = cookie_number += 1000;
}

/*
 * One change with a death in it (`die` brings it about), or, if `always`, behind it: then what was
 * acknowledged must be there afterwards. Whether it was in it, or at a store behind its reply.
 */
static bool one_round(struct daemon_child *d, const struct operation *op,
		      void (*die)(struct daemon_child *d, void *arg), void *arg, bool always)
{
	static struct raw_client c, again;
	bool died, behind;
	uint64_t seq;
	int r;

	fresh_client(&c, d);
	op->prepare(&c);
	seq = c.seq;
	die(d, arg);
	r = op->run(&c);
	points_left = disarm();
	died = r == -ECONNRESET;
	behind = !always && !died && points_left <= 0;
	if (died || behind || always) {
		daemon_child_wait(d);
		daemon_child_start(d);
		raw_open(&again, d, COOKIE);
		again.seq = seq;
		if (!died)
			op->done(&again);
		ck_assert_uint_eq(count_dirs(d), 1 + (raw_lookup(&again, "subject") == 0));
		raw_close(&again);
		raw_open(&again, d, COOKIE);
		again.seq = seq;
		r = op->run(&again);
		ck_assert_msg(r == 0, "%s, asked again: %d %s", op->name, r, again.reply->text);
		again.seq += 10;
		op->done(&again);
		op->undone(&again);
		ck_assert_uint_eq(count_pools(&again), 1);
		ck_assert_uint_eq(count_dirs(d), 1);
		raw_close(&again);
		raw_close(&c);
		return died || behind;
	}
	ck_assert_int_eq(r, 0);
	op->done(&c);
	op->undone(&c);
	raw_close(&c);
	return false;
}

static void die_at(struct daemon_child *d, void *arg)
{
	arm(*(int64_t *)arg);
}

static void start(struct daemon_child *d)
{
	static struct raw_client c;

	daemon_child_init(d, NULL);
	d->setup = set_backend;
	daemon_child_start(d);
	raw_open(&c, d, 1);
	ck_assert_int_eq(raw_create(&c, POOL_REGION, 64 * KIB, "bystander", 0), 0);
	raw_close(&c);
}

static uint64_t room(const struct daemon_child *d)
{
	struct statvfs st;

	ck_assert_int_eq(statvfs(d->base, &st), 0);
	return (uint64_t)st.f_bavail * st.f_frsize;
}

START_TEST(killed_at_each_store)
{
	const struct operation *op = &operations[_i];
	int64_t at = NEVER, points, step, tried = 0, hits = 0;
	struct daemon_child d;

	start(&d);
	if (op->needs > 0 && room(&d) < 2 * op->needs) {
		printf("%s: skipped, it takes %llu bytes of file system\n", op->name,
		       (unsigned long long)op->needs);
		ck_assert_int_eq(daemon_child_stop(&d), 0);
		return;
	}
	ck_assert(!one_round(&d, op, die_at, &at, false)); /* counts */
	points = NEVER - points_left;
	ck_assert_int_gt(points, 0);
	step = points / (int64_t)(op->points_max ? op->points_max : POINTS_MAX) + 1;
	for (at = 1; at <= points; at += step, tried++)
		hits += one_round(&d, op, die_at, &at, false);
	ck_assert_int_eq(daemon_child_stop(&d), 0);
	printf("%s: %lld stores, died at %lld of %lld\n", op->name, (long long)points,
	       (long long)hits, (long long)tried);
	/* The last stores are made behind the reply: who is disarmed before them does not die. */
	ck_assert_int_ge(hits, tried - tried / 8);
}
END_TEST

/* A process that kills the daemon in a while. */
static void die_soon(struct daemon_child *d, void *arg)
{
	struct timespec ts = { .tv_nsec = *(long *)arg };
	pid_t pid = d->pid;

	if (fork() == 0) {
		nanosleep(&ts, NULL);
		kill(pid, SIGKILL);
		_exit(0);
	}
}

START_TEST(killed_at_random)
{
	unsigned seed = (unsigned)time(NULL) ^ (unsigned)getpid(), deaths = 0;
	struct daemon_child d;

	srandom(seed);
	printf("killed_at_random: seed %u\n", seed);
	fflush(stdout);
	start(&d);
	for (int i = 0; i < RANDOM_KILLS; i++) {
		const struct operation *op =
			&operations[(size_t)random() % (ARRAY_SIZE(operations) - 1)];
		long ns = random() % 700000;

		deaths += one_round(&d, op, die_soon, &ns, true);
	}
	ck_assert_int_eq(daemon_child_stop(&d), 0);
	printf("killed_at_random: %u of %d inside an operation\n", deaths, RANDOM_KILLS);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("daemon crash");
	TCase *tc = tcase_create("daemon crash");

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED)
		return 1;
	tcase_set_timeout(tc, 180);
	tcase_add_loop_test(tc, killed_at_each_store, 0, (int)ARRAY_SIZE(operations));
	tcase_add_test(tc, killed_at_random);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
