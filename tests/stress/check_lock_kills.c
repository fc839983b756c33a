/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Read-write locks and conditions while those who use them are killed and stopped at any moment:
 * what they guard stays whole, what was acknowledged is there, and afterwards each goes on.
 * NVMMD_TEST_SEED replays the choice of victims.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

#include "common/macro.h"
#include "tests/system/harness.h"

#define NAME "lock-kills"
#define HEAP_BYTES (UINT64_C(1) << 20)
#define WORKERS 4u
#define KILLS 60u
#define AFTERWARDS 50u /* what each does once nobody dies any more */
#define ROOM 3u        /* of the queue */
#define LINE 8u        /* words */
#define PAUSE 300u     /* looks at a word: deaths fall between the steps of a change, too */

struct shared_locks {
	struct nvmm_rwlock rwlock;
	struct nvmm_mutex mutex;
	struct nvmm_cond filled, emptied;
	uint64_t a, b;       /* equal whenever nobody writes */
	uint64_t put, taken; /* never more than ROOM apart */
	uint64_t repairs;    /* a dead one's lock was taken over */
};

struct view {
	struct nvmm_client *nvmm;
	struct shared_locks *l;
};

static struct harness h;
static uint64_t *done;    /* by worker, a line each: what it has done */
static uint64_t *written; /* by worker, likewise: of the one count that is compared */

static struct view look(void)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .name = NAME };
	struct view v = { .nvmm = harness_connect(&h) };
	nvmm_ptr expected = NVMM_NULL, at;
	struct nvmm_heap *heap;
	nvmm_pool_id id = 0;

	if (nvmm_pool_lookup(v.nvmm, NAME, &id) < 0)
		must(nvmm_heap_create(v.nvmm, &id, HEAP_BYTES, &options) == 0, "create");
	must(nvmm_heap_open(&heap, v.nvmm, id, O_RDWR) == 0, "open: %s", nvmm_errmsg(v.nvmm));
	if (nvmm_root_get(heap, "locks", &at) == -ENOENT) {
		at = nvmm_zalloc(heap, sizeof(struct shared_locks));
		must(nvmm_root_cas(heap, "locks", &expected, at) == 0, "root");
	}
	v.l = nvmm_local(v.nvmm, at);
	return v;
}

static uint64_t get(const uint64_t *word)
{
	/* ordering: acquire; what was done before it was counted is seen. */
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* Only its one writer, or who has the lock. */
static void raise_by_one(uint64_t *word)
{
	/* ordering: release; in the order of the program for whoever comes after a death. */
	__atomic_store_n(word, get(word) + 1, __ATOMIC_RELEASE);
}

static void pause_a_little(const uint64_t *word)
{
	for (unsigned i = 0; i < PAUSE; i++)
		(void)get(word);
}

/* Readers and writers */

static void write_once(struct view *v, uint64_t *mine)
{
	struct shared_locks *l = v->l;
	int r = nvmm_rwlock_wrlock(v->nvmm, &l->rwlock);

	if (r == -EOWNERDEAD) {
		/* Repair: the first half decides. */
		l->b = l->a;
		raise_by_one(&l->repairs);
		r = nvmm_rwlock_consistent(v->nvmm, &l->rwlock);
	}
	must(r == 0, "wrlock: %d", r);
	must(get(&l->a) == get(&l->b), "half a change");
	raise_by_one(&l->a);
	pause_a_little(&l->a);
	raise_by_one(&l->b);
	pause_a_little(&l->a);
	raise_by_one(mine);
	r = nvmm_rwlock_unlock(v->nvmm, &l->rwlock);
	must(r == 0, "unlock: %d", r);
}

/* False: a writer has died, and somebody must write. */
static bool read_once(struct view *v)
{
	struct shared_locks *l = v->l;
	int r = nvmm_rwlock_rdlock(v->nvmm, &l->rwlock);
	uint64_t before;

	if (r == -EOWNERDEAD)
		return false;
	must(r == 0, "rdlock: %d", r);
	before = get(&l->a);
	must(get(&l->b) == before, "a reader saw half a change");
	for (unsigned i = 0; i < 100; i++)
		must(get(&l->a) == before && get(&l->b) == before, "written while it was read");
	r = nvmm_rwlock_unlock(v->nvmm, &l->rwlock);
	must(r == 0, "unlock: %d", r);
	return true;
}

static void read_and_write(void *arg)
{
	size_t me = (size_t)(uintptr_t)arg;
	struct view v = look();

	for (unsigned i = 0;; i++) {
		if (i % 4 == 0 || !read_once(&v))
			write_once(&v, &written[me * LINE]);
		raise_by_one(&done[me * LINE]);
	}
}

/* A queue */

static int mend(struct view *v, int r)
{
	if (r != -EOWNERDEAD)
		return r;
	/* Each change is one store: what a dead one left is whole. */
	raise_by_one(&v->l->repairs);
	return nvmm_mutex_consistent(v->nvmm, &v->l->mutex);
}

static bool may_go_on(struct shared_locks *l, bool puts)
{
	uint64_t n = get(&l->put) - get(&l->taken);

	must(n <= ROOM, "%lu in a queue for %u", (unsigned long)n, ROOM);
	return puts ? n < ROOM : n > 0;
}

static void pass(struct view *v, bool puts, uint64_t *mine)
{
	struct shared_locks *l = v->l;
	int r = mend(v, nvmm_mutex_lock(v->nvmm, &l->mutex));

	must(r == 0, "lock: %d", r);
	while (!may_go_on(l, puts)) {
		r = mend(v, nvmm_cond_wait(v->nvmm, puts ? &l->emptied : &l->filled, &l->mutex));
		must(r == 0, "wait: %d", r);
	}
	raise_by_one(puts ? &l->put : &l->taken);
	pause_a_little(&l->put);
	if (puts)
		raise_by_one(mine);
	/* One wake-up where one is enough; by turns all, so that both ways are killed. */
	r = (get(&l->put) % 2 ? nvmm_cond_signal : nvmm_cond_broadcast)(v->nvmm,
									puts ? &l->filled : &l->emptied);
	must(r == 0, "signal: %d", r);
	r = nvmm_mutex_unlock(v->nvmm, &l->mutex);
	must(r == 0, "unlock: %d", r);
}

static void put_or_take(void *arg)
{
	size_t me = (size_t)(uintptr_t)arg;
	struct view v = look();

	for (;;) {
		pass(&v, me % 2 == 0, &written[me * LINE]);
		raise_by_one(&done[me * LINE]);
	}
}

/* Deaths */

static void kill_and_wait(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	/* One that failed has said why, and was gone before. */
	must(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "it ended before: %#x", (unsigned)status);
}

static bool all_went_on(void *arg)
{
	const uint64_t *from = arg;

	for (unsigned i = 0; i < WORKERS; i++)
		if (get(&done[i * LINE]) < from[i] + AFTERWARDS)
			return false;
	return true;
}

static void begin(void)
{
	const char *given = getenv("NVMMD_TEST_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);

	printf("seed %u\n", seed);
	srand(seed);
	done = harness_shared(WORKERS * LINE * sizeof(*done));
	written = harness_shared(WORKERS * LINE * sizeof(*written));
}

static void kill_among(void (*work)(void *arg))
{
	uint64_t from[WORKERS];
	pid_t pid[WORKERS];

	for (unsigned i = 0; i < WORKERS; i++)
		pid[i] = harness_fork(work, (void *)(uintptr_t)i);
	for (unsigned i = 0; i < KILLS; i++) {
		unsigned k = (unsigned)rand() % WORKERS, other = (k + 1) % WORKERS;

		harness_sleep_ms((unsigned)rand() % 20);
		if (rand() % 4 == 0) {
			kill(pid[other], SIGSTOP);
			harness_sleep_ms(5);
			kill(pid[other], SIGCONT);
		}
		kill_and_wait(pid[k]);
		pid[k] = harness_fork(work, (void *)(uintptr_t)k);
	}
	for (unsigned i = 0; i < WORKERS; i++)
		from[i] = get(&done[i * LINE]);
	harness_until(all_went_on, from, 60000);
	for (unsigned i = 0; i < WORKERS; i++)
		kill_and_wait(pid[i]);
}

/* Each death may have come between a change and its count. */
static void expect_counted(const struct shared_locks *l, uint64_t n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < WORKERS; i++)
		sum += get(&written[i * LINE]);
	printf("%lu changes, %lu acknowledged, %lu repairs\n", (unsigned long)n, (unsigned long)sum,
	       (unsigned long)get(&l->repairs));
	ck_assert_uint_gt(get(&l->repairs), 0);
	ck_assert_uint_ge(n, sum);
	ck_assert_uint_le(n, sum + KILLS + WORKERS);
}

START_TEST(readers_and_writers)
{
	struct view v;

	begin();
	v = look();
	kill_among(read_and_write);
	expect_counted(v.l, get(&v.l->a));
	nvmm_disconnect(v.nvmm);
}
END_TEST

START_TEST(queue)
{
	struct view v;

	begin();
	v = look();
	kill_among(put_or_take);
	ck_assert_uint_le(get(&v.l->put) - get(&v.l->taken), ROOM);
	expect_counted(v.l, get(&v.l->put));
	nvmm_disconnect(v.nvmm);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("lock kills");
	TCase *tcase = harness_case_served(suite, "lock kills", 120, &h);

	tcase_add_test(tcase, readers_and_writers);
	tcase_add_test(tcase, queue);
	return harness_run(suite);
}
