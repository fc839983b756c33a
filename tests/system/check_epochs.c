/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Epochs between processes: what is freed with delay comes back when its readers have left, not before,
 * whoever dies or stops in between.
 *
 * The poison test: a table of pointers in a shared heap, which writers exchange for new nodes, freeing
 * the old ones with delay; whoever gets a block poisons it before it fills it, so that a reader that
 * still looks at it sees poison, or another entry's node. Readers and writers are killed, stopped and
 * let go on at random; NVMMD_TEST_SEED replays the choices.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/harness.h"

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

static struct nvmm_heap_info heap_info(struct nvmm *nvmm, struct nvmm_heap *heap)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };

	must(nvmm_heap_stat(heap, &info) == 0, "%s", nvmm_errmsg(nvmm));
	return info;
}

/* A connection with a heap. */
struct view {
	struct nvmm *nvmm;
	struct nvmm_heap *heap;
};

static bool no_limbo(void *arg)
{
	const struct view *v = arg;

	return heap_info(v->nvmm, v->heap).limbo == 0;
}

static struct view view_new(nvmm_pool_id *id, uint64_t bytes)
{
	struct view v = { .nvmm = harness_connect(&h) };

	*id = 0;
	v.heap = harness_heap(v.nvmm, id, bytes, NULL, 16);
	return v;
}

static void defer_some(const struct view *v, unsigned n, size_t size)
{
	for (unsigned i = 0; i < n; i++) {
		nvmm_ptr ptr = nvmm_alloc(v->heap, size);

		must(ptr != NVMM_NULL, "%s", nvmm_errmsg(v->nvmm));
		must(nvmm_free_deferred(v->heap, ptr) == 0, "%s", nvmm_errmsg(v->nvmm));
	}
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
	struct nvmm *nvmm;

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

static void kill_child(pid_t pid)
{
	int status;

	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
}

START_TEST(comes_back_by_itself)
{
	nvmm_pool_id id;
	struct view v = view_new(&id, 16 * MIB);

	defer_some(&v, 10000, 100);
	harness_until(no_limbo, &v, 5000);
	ck_assert_uint_eq(heap_info(v.nvmm, v.heap).blocks, 0);
	nvmm_disconnect(v.nvmm);
}
END_TEST

START_TEST(refusals)
{
	nvmm_pool_id id;
	struct view v = view_new(&id, 16 * MIB);
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
	ck_assert_uint_gt(heap_info(v.nvmm, v.heap).limbo, 0);
	nvmm_epoch_exit(v.nvmm);
	ck_assert_int_eq(nvmm_epoch_synchronize(v.nvmm), 0);
	harness_until(no_limbo, &v, 5000);
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
	struct view v = view_new(&id, 16 * MIB);
	pid_t pid;

	r->fence = _i;
	pid = reader_start(r, id);
	defer_some(&v, 1000, 64);
	harness_sleep_ms(200);
	ck_assert_uint_eq(heap_info(v.nvmm, v.heap).limbo, 64000);
	atomic_store(&r->leave, true);
	harness_until(no_limbo, &v, 5000);
	harness_join(pid);
	nvmm_disconnect(v.nvmm);
}
END_TEST

START_TEST(dead_reader_holds_nothing)
{
	struct reader *r = harness_shared(sizeof(*r));
	nvmm_pool_id id;
	struct view v = view_new(&id, 16 * MIB);
	pid_t pid = reader_start(r, id);

	defer_some(&v, 1000, 64);
	harness_sleep_ms(50);
	ck_assert_uint_gt(heap_info(v.nvmm, v.heap).limbo, 0);
	kill_child(pid);
	harness_until(no_limbo, &v, 5000);
	nvmm_disconnect(v.nvmm);
}
END_TEST

static void defer_and_hang(void *arg)
{
	struct reader *r = arg;
	struct view v = { .nvmm = harness_connect(&h) };

	v.heap = harness_open(v.nvmm, r->id);
	defer_some(&v, 5000, 48);
	atomic_store(&r->inside, true);
	for (;;)
		pause();
}

START_TEST(dead_freer_leaves_no_limbo)
{
	struct reader *r = harness_shared(sizeof(*r));
	nvmm_pool_id id;
	struct view v = view_new(&id, 16 * MIB);
	pid_t pid;

	r->id = id;
	pid = harness_fork(defer_and_hang, r);
	harness_until(is_inside, &r->inside, 10000);
	kill_child(pid);
	harness_until(no_limbo, &v, 5000);
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
	struct view a = view_new(&id_a, 16 * MIB), b = view_new(&id_b, 16 * MIB);
	pid_t pid = reader_start(r, id_a);
	char text[32];

	kill(pid, SIGSTOP);
	for (int i = 0; i < 10; i++) {
		defer_some(&a, 100, 64);
		defer_some(&b, 1000, 64);
		harness_until(no_limbo, &b, 2000);
	}
	ck_assert_uint_eq(heap_info(a.nvmm, a.heap).limbo, 64000);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), argv), 0);
	snprintf(text, sizeof(text), "\"pid\": %d", (int)pid);
	ck_assert_msg(strstr(out, text) != NULL, "the reader is not named:\n%s", out);
	kill(pid, SIGCONT);
	atomic_store(&r->leave, true);
	harness_until(no_limbo, &a, 5000);
	harness_join(pid);
	nvmm_disconnect(a.nvmm);
	nvmm_disconnect(b.nvmm);
}
END_TEST

START_TEST(daemon_dies)
{
	struct reader *r = harness_shared(sizeof(*r));
	nvmm_pool_id id;
	struct view v = view_new(&id, 16 * MIB);
	pid_t pid = reader_start(r, id);

	defer_some(&v, 1000, 64);
	harness_sleep_ms(50);
	harness_signal(&h, SIGKILL);
	/* Without a daemon: frees with delay, enters and leaves. */
	ck_assert_int_eq(nvmm_epoch_enter(v.nvmm), 0);
	defer_some(&v, 100, 64);
	nvmm_epoch_exit(v.nvmm);
	harness_start(&h);
	harness_sleep_ms(200);
	ck_assert_uint_eq(heap_info(v.nvmm, v.heap).limbo, 1100 * 64);
	atomic_store(&r->leave, true);
	harness_until(no_limbo, &v, 5000);
	harness_join(pid);
	/* And with nobody asking anything of it. */
	defer_some(&v, 100, 64);
	harness_until(no_limbo, &v, 5000);
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

	v = view_new(&id, 16 * MIB);
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
	ck_assert_uint_eq(heap_info(v.nvmm, v.heap).limbo, 0);
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
	struct view v = view_new(&id, 4 * MIB);
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

/* Threads */

static void *enter_and_end(void *arg)
{
	must(nvmm_epoch_enter(arg) == 0, "%s", nvmm_errmsg(arg));
	return NULL;
}

START_TEST(threads_end_inside)
{
	nvmm_pool_id id;
	struct view v = view_new(&id, 16 * MIB);

	for (int i = 0; i < 100; i++) {
		pthread_t threads[8];

		for (int t = 0; t < 8; t++)
			ck_assert_int_eq(pthread_create(&threads[t], NULL, enter_and_end, v.nvmm),
					 0);
		for (int t = 0; t < 8; t++)
			pthread_join(threads[t], NULL);
	}
	defer_some(&v, 100, 64);
	harness_until(no_limbo, &v, 5000);
	nvmm_disconnect(v.nvmm);
}
END_TEST

START_TEST(forked_child_has_no_slot)
{
	nvmm_pool_id id;
	struct view v = view_new(&id, 16 * MIB);
	int status;
	pid_t pid;

	ck_assert_int_eq(nvmm_epoch_enter(v.nvmm), 0);
	defer_some(&v, 100, 64);
	pid = fork();
	if (pid == 0) {
		/* It cannot unpin its parent. */
		nvmm_epoch_exit(v.nvmm);
		_exit(nvmm_epoch_enter(v.nvmm) == -ENOTCONN &&
		      nvmm_epoch_synchronize(v.nvmm) == -ENOTCONN ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	harness_sleep_ms(100);
	ck_assert_uint_eq(heap_info(v.nvmm, v.heap).limbo, 6400);
	nvmm_epoch_exit(v.nvmm);
	harness_until(no_limbo, &v, 5000);
	nvmm_disconnect(v.nvmm);
}
END_TEST

START_TEST(two_connections)
{
	nvmm_pool_id id_a, id_b;
	struct view a = view_new(&id_a, 16 * MIB), b = view_new(&id_b, 16 * MIB);

	for (int i = 0; i < 100; i++) {
		ck_assert_int_eq(nvmm_epoch_enter(a.nvmm), 0);
		ck_assert_int_eq(nvmm_epoch_enter(b.nvmm), 0);
		nvmm_epoch_exit(a.nvmm);
		nvmm_epoch_exit(b.nvmm);
	}
	ck_assert_int_eq(nvmm_epoch_enter(a.nvmm), 0);
	defer_some(&a, 100, 64);
	defer_some(&b, 100, 64);
	harness_until(no_limbo, &b, 5000);
	ck_assert_uint_eq(heap_info(a.nvmm, a.heap).limbo, 6400);
	nvmm_disconnect(b.nvmm);
	nvmm_epoch_exit(a.nvmm);
	harness_until(no_limbo, &a, 5000);
	nvmm_disconnect(a.nvmm);
}
END_TEST

/* The poison test */

#define ENTRIES 512u
#define CHAIN 3u /* nodes of an entry, linked */
#define POISON UINT64_C(0xdddddddddddddddd)
#define READERS 3
#define WRITERS 3

struct node {
	uint64_t entry;
	uint64_t stamp;
	nvmm_ptr next;
	uint64_t check;
	char rest[32];
};

struct poison {
	nvmm_pool_id id;
	_Atomic bool stop;
	_Atomic uint64_t read;
	_Atomic uint64_t written;
	_Atomic uint64_t full;
};

static uint64_t node_check(const struct node *n)
{
	return n->entry * 31 + n->stamp * 17 + n->next + 1;
}

static _Atomic uint64_t *table_of(struct view *v)
{
	nvmm_ptr root;

	must(nvmm_root_get(v->heap, "table", &root) == 0, "%s", nvmm_errmsg(v->nvmm));
	return nvmm_local(v->nvmm, root);
}

/* Walks an entry's chain twice, with time for others between. */
static void read_entry(struct view *v, uint64_t entry, nvmm_ptr first)
{
	for (int again = 0; again < 2; again++) {
		nvmm_ptr ptr = first;

		for (unsigned i = 0; i < CHAIN; i++) {
			const volatile struct node *n = nvmm_local(v->nvmm, ptr);
			struct node copy = { .entry = n->entry, .stamp = n->stamp, .next = n->next };

			must(copy.entry == entry && n->check == node_check(&copy),
			     "entry %llu: a freed block was read: entry %llx, stamp %llx",
			     (unsigned long long)entry, (unsigned long long)copy.entry,
			     (unsigned long long)copy.stamp);
			ptr = copy.next;
		}
		must(ptr == NVMM_NULL, "the chain is too long");
		if (!again && entry % 16 == 0)
			usleep(200);
	}
}

static void poison_reader(void *arg)
{
	struct poison *p = arg;
	struct view v = { .nvmm = harness_connect(&h) };
	unsigned seed = (unsigned)getpid();
	_Atomic uint64_t *table;

	v.heap = harness_open(v.nvmm, p->id);
	table = table_of(&v);
	while (!atomic_load(&p->stop)) {
		uint64_t entry = (unsigned)rand_r(&seed) % ENTRIES;

		must(nvmm_epoch_enter(v.nvmm) == 0, "%s", nvmm_errmsg(v.nvmm));
		read_entry(&v, entry, atomic_load(&table[entry]));
		nvmm_epoch_exit(v.nvmm);
		atomic_fetch_add(&p->read, 1);
	}
	nvmm_disconnect(v.nvmm);
}

static void fenced_reader(void *arg)
{
	setenv("NVMM_NO_MEMBARRIER", "1", 1);
	poison_reader(arg);
}

static nvmm_ptr node_new(struct view *v, uint64_t entry, nvmm_ptr next, unsigned *seed)
{
	nvmm_ptr ptr = nvmm_alloc(v->heap, sizeof(struct node));
	volatile uint64_t *words;
	struct node *n;

	if (ptr == NVMM_NULL)
		return NVMM_NULL;
	words = nvmm_local(v->nvmm, ptr);
	for (unsigned i = 0; i < sizeof(struct node) / 8; i++)
		words[i] = POISON;
	n = nvmm_local(v->nvmm, ptr);
	n->entry = entry;
	n->stamp = (uint64_t)rand_r(seed);
	n->next = next;
	n->check = node_check(n);
	return ptr;
}

/* A whole chain, or none. */
static nvmm_ptr chain_new(struct view *v, uint64_t entry, unsigned *seed)
{
	nvmm_ptr first = NVMM_NULL;

	for (unsigned i = 0; i < CHAIN; i++) {
		nvmm_ptr ptr = node_new(v, entry, first, seed);

		if (ptr != NVMM_NULL) {
			first = ptr;
			continue;
		}
		while (first != NVMM_NULL) {
			nvmm_ptr next = ((struct node *)nvmm_local(v->nvmm, first))->next;

			must(nvmm_free(v->heap, first) == 0, "%s", nvmm_errmsg(v->nvmm));
			first = next;
		}
		return NVMM_NULL;
	}
	return first;
}

/* The chain is its unlinker's to free; its nodes stay as they are meanwhile. */
static void chain_free(struct view *v, nvmm_ptr ptr)
{
	must(nvmm_epoch_enter(v->nvmm) == 0, "%s", nvmm_errmsg(v->nvmm));
	while (ptr != NVMM_NULL) {
		nvmm_ptr next = ((struct node *)nvmm_local(v->nvmm, ptr))->next;

		must(nvmm_free_deferred(v->heap, ptr) == 0, "%s", nvmm_errmsg(v->nvmm));
		ptr = next;
	}
	nvmm_epoch_exit(v->nvmm);
}

static void poison_writer(void *arg)
{
	struct poison *p = arg;
	struct view v = { .nvmm = harness_connect(&h) };
	unsigned seed = (unsigned)getpid();
	_Atomic uint64_t *table;

	v.heap = harness_open(v.nvmm, p->id);
	table = table_of(&v);
	while (!atomic_load(&p->stop)) {
		uint64_t entry = (unsigned)rand_r(&seed) % ENTRIES;
		nvmm_ptr first = chain_new(&v, entry, &seed);

		if (first == NVMM_NULL) {
			must(errno == ENOSPC, "%s", nvmm_errmsg(v.nvmm));
			atomic_fetch_add(&p->full, 1);
			continue;
		}
		chain_free(&v, atomic_exchange(&table[entry], first));
		atomic_fetch_add(&p->written, 1);
	}
	nvmm_disconnect(v.nvmm);
}

static void (*const roles[])(void *) = { poison_reader, poison_reader, fenced_reader,
					 poison_writer, poison_writer, poison_writer };
#define ACTORS (sizeof(roles) / sizeof(roles[0]))

struct actor {
	pid_t pid;
	uint64_t stopped_until; /* us; 0: it runs */
};

static void actor_kill(struct actor *a)
{
	int status;

	ck_assert_int_eq(kill(a->pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(a->pid, &status, 0), a->pid);
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
		      "an actor ended by itself with 0x%x", status);
	a->stopped_until = 0;
}

static void let_go_on(struct actor *actors, uint64_t now)
{
	for (size_t i = 0; i < ACTORS; i++)
		if (actors[i].stopped_until != 0 && now >= actors[i].stopped_until) {
			kill(actors[i].pid, SIGCONT);
			actors[i].stopped_until = 0;
		}
}

/* Kills, stops and lets go on until the time is over: how many writers were killed. */
static unsigned disturb(struct poison *p, struct actor *actors, unsigned seconds)
{
	uint64_t end = harness_now_us() + seconds * UINT64_C(1000000), now;
	const char *given = getenv("NVMMD_TEST_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)getpid();
	unsigned killed = 0;

	printf("poison: NVMMD_TEST_SEED=%u\n", seed);
	while ((now = harness_now_us()) < end) {
		size_t i = (size_t)rand_r(&seed) % ACTORS;
		unsigned what = (unsigned)rand_r(&seed) % 4;

		let_go_on(actors, now);
		if (what == 0) {
			actor_kill(&actors[i]);
			killed += roles[i] == poison_writer;
			actors[i].pid = harness_fork(roles[i], p);
		} else if (what == 1 && actors[i].stopped_until == 0) {
			kill(actors[i].pid, SIGSTOP);
			actors[i].stopped_until = now + (unsigned)rand_r(&seed) % 100000;
		}
		harness_sleep_ms((unsigned)rand_r(&seed) % 30);
	}
	let_go_on(actors, UINT64_MAX);
	return killed;
}

static void table_make(struct view *v)
{
	nvmm_ptr root = nvmm_zalloc(v->heap, ENTRIES * sizeof(nvmm_ptr));
	_Atomic uint64_t *table = nvmm_local(v->nvmm, root);
	unsigned seed = 1;

	ck_assert_ptr_nonnull(table);
	for (uint64_t i = 0; i < ENTRIES; i++)
		atomic_store(&table[i], chain_new(v, i, &seed));
	ck_assert_int_eq(nvmm_root_set(v->heap, "table", root), 0);
}

START_TEST(poisoned_on_reuse)
{
	struct poison *p = harness_shared(sizeof(*p));
	struct actor actors[ACTORS] = { 0 };
	struct view v = view_new(&p->id, 4 * MIB);
	struct nvmm_heap_info info;
	unsigned killed;

	table_make(&v);
	for (size_t i = 0; i < ACTORS; i++)
		actors[i].pid = harness_fork(roles[i], p);
	killed = disturb(p, actors, harness_seconds(8));
	atomic_store(&p->stop, true);
	for (size_t i = 0; i < ACTORS; i++)
		harness_join(actors[i].pid);
	harness_until(no_limbo, &v, 5000);
	info = heap_info(v.nvmm, v.heap);
	printf("poison: %llu read, %llu written, %llu times full, %u writers killed, %llu blocks left "
	       "behind by them\n", (unsigned long long)p->read, (unsigned long long)p->written,
	       (unsigned long long)p->full, killed,
	       (unsigned long long)(info.blocks - ENTRIES * CHAIN - 1));
	/* All that is there can be reached, but for what the killed had in their hands: a new chain,
	 * and an old one. */
	ck_assert_uint_ge(info.blocks, ENTRIES * CHAIN + 1);
	ck_assert_uint_le(info.blocks, ENTRIES * CHAIN + 1 + killed * 2 * CHAIN);
	ck_assert_uint_gt(p->read, 0);
	ck_assert_uint_gt(p->written, 0);
	nvmm_disconnect(v.nvmm);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("epochs");
	TCase *tc = harness_case(suite, "epochs", 60), *poison = harness_case(suite, "poison", 150);

	tcase_add_checked_fixture(tc, start, stop);
	tcase_add_test(tc, comes_back_by_itself);
	tcase_add_test(tc, refusals);
	tcase_add_loop_test(tc, reader_holds, 0, 2);
	tcase_add_test(tc, dead_reader_holds_nothing);
	tcase_add_test(tc, dead_freer_leaves_no_limbo);
	tcase_add_test(tc, other_pools_go_on);
	tcase_add_test(tc, daemon_dies);
	tcase_add_test(tc, all_die);
	tcase_add_test(tc, pressure);
	tcase_add_test(tc, threads_end_inside);
	tcase_add_test(tc, forked_child_has_no_slot);
	tcase_add_test(tc, two_connections);
	tcase_add_checked_fixture(poison, start, stop);
	tcase_add_test(poison, poisoned_on_reuse);
	return harness_run(suite);
}
