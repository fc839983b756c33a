/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Poison on reuse: no reader ever meets a freed block, and nothing is lost.
 *
 * A table of pointers in a shared heap leads to chains of nodes. Writers exchange chains for new ones and
 * free the old ones with delay; whoever gets a block poisons it before it fills it, so that a reader
 * that still looks at it sees poison, or another entry's node. Readers and writers are killed, stopped and
 * let go on at random, and so is the daemon. NVMMD_TEST_SEED replays the choices.
 *
 * Each writer has entries of its own, and notes what it has in hand in memory that the test shares with
 * it. So the test can go on with what a killed one had begun, but for one block: that which was being
 * allocated or freed. All else that is allocated in the end is in the table.
 *
 * It runs for a minute, or ten with NVMMD_TEST_LONG=1; for some seconds under a sanitizer.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/system/harness.h"

#define HEAP_BYTES (UINT64_C(4) << 20)
#define ENTRIES 513u /* a multiple of the writers */
#define CHAIN 3u     /* nodes of an entry, linked */
#define POISON UINT64_C(0xdddddddddddddddd)
#define READERS 3u
#define WRITERS 3u
#define ACTORS (READERS + WRITERS)

#ifdef __has_feature /* clang's way to tell */
#define FEATURE(name) __has_feature(name)
#else
#define FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || FEATURE(address_sanitizer) || \
	FEATURE(thread_sanitizer)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

struct node {
	uint64_t entry;
	uint64_t stamp;
	nvmm_ptr next;
	uint64_t check;
	char rest[32];
};

/* What a writer has begun. */
struct hand {
	uint64_t entry;
	_Atomic uint32_t fresh;   /* blocks of `chain` that it has: not yet in the table */
	_Atomic uint32_t unfreed; /* blocks of `old` that it has still to free; the last is begun if */
	_Atomic bool freeing;     /* set */
	_Atomic bool linking;     /* the chain may be in the table already */
	nvmm_ptr chain[CHAIN];    /* the last is the first of the chain */
	nvmm_ptr old[CHAIN];
};

struct poison {
	nvmm_pool_id id;
	_Atomic bool stop;
	_Atomic uint64_t read;
	_Atomic uint64_t written;
	_Atomic uint64_t full;
	struct hand hand[WRITERS];
};

struct view {
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	_Atomic nvmm_ptr *table;
};

struct actor {
	pid_t pid;
	uint64_t stopped_until; /* us; 0: it runs */
};

struct tally {
	unsigned writers;
	unsigned readers;
	unsigned daemons;
	unsigned stops;
};

static struct harness h;
static struct poison *poison;
static struct actor actors[ACTORS];

/* The daemon may die meanwhile: whoever comes then comes again. */
static struct view attach(void)
{
	struct nvmm_options options = { .size = sizeof(options), .socket = h.socket };
	uint64_t end = harness_now_us() + UINT64_C(20000000);
	struct view v = { 0 };
	nvmm_ptr root;

	while (nvmm_connect(&v.nvmm, &options) < 0) {
		must(harness_now_us() < end, "%s", nvmm_errmsg(NULL));
		harness_sleep_ms(5);
	}
	must(nvmm_heap_open(&v.heap, v.nvmm, poison->id, O_RDWR) == 0, "%s", nvmm_errmsg(v.nvmm));
	must(nvmm_root_get(v.heap, "table", &root) == 0, "%s", nvmm_errmsg(v.nvmm));
	v.table = nvmm_local(v.nvmm, root);
	must(v.table != NULL, "%s", nvmm_errmsg(v.nvmm));
	return v;
}

/* Readers */

static uint64_t node_check(const struct node *n)
{
	return n->entry * 31 + n->stamp * 17 + n->next + 1;
}

static void look_at(struct view *v, uint64_t entry, nvmm_ptr *ptr)
{
	const volatile struct node *n = nvmm_local(v->nvmm, *ptr);
	struct node copy = { .entry = n->entry, .stamp = n->stamp, .next = n->next };

	must(copy.entry == entry && n->check == node_check(&copy),
	     "entry %llu: a freed block was read: entry %llx, stamp %llx", (unsigned long long)entry,
	     (unsigned long long)copy.entry, (unsigned long long)copy.stamp);
	*ptr = copy.next;
}

/* Walks an entry's chain twice, with time for others between. */
static void read_entry(struct view *v, uint64_t entry)
{
	nvmm_ptr first = atomic_load(&v->table[entry]);

	for (int again = 0; again < 2; again++) {
		nvmm_ptr ptr = first;

		for (unsigned i = 0; i < CHAIN; i++)
			look_at(v, entry, &ptr);
		must(ptr == NVMM_NULL, "the chain is too long");
		if (!again && entry % 16 == 0)
			nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
	}
}

static void reader(struct view *v)
{
	unsigned seed = (unsigned)getpid();

	while (!atomic_load(&poison->stop)) {
		uint64_t entry = (unsigned)rand_r(&seed) % ENTRIES;

		must(nvmm_epoch_enter(v->nvmm) == 0, "%s", nvmm_errmsg(v->nvmm));
		read_entry(v, entry);
		nvmm_epoch_exit(v->nvmm);
		atomic_fetch_add(&poison->read, 1);
	}
}

/* Writers */

static void node_fill(struct view *v, nvmm_ptr ptr, uint64_t entry, nvmm_ptr next, unsigned *seed)
{
	volatile uint64_t *words = nvmm_local(v->nvmm, ptr);
	struct node *n = nvmm_local(v->nvmm, ptr);

	for (unsigned i = 0; i < sizeof(struct node) / 8; i++)
		words[i] = POISON;
	n->entry = entry;
	n->stamp = (uint64_t)rand_r(seed);
	n->next = next;
	n->check = node_check(n);
}

/* Blocks that are in nobody's sight yet. */
static void drop_fresh(struct view *v, struct hand *hand)
{
	while (hand->fresh > 0) {
		nvmm_ptr ptr = hand->chain[hand->fresh - 1];

		atomic_fetch_sub(&hand->fresh, 1);
		must(nvmm_free(v->heap, ptr) == 0, "%s", nvmm_errmsg(v->nvmm));
	}
}

/* A whole chain, or none: false. */
static bool make_chain(struct view *v, struct hand *hand, unsigned *seed)
{
	for (unsigned i = 0; i < CHAIN; i++) {
		nvmm_ptr ptr = nvmm_alloc(v->heap, sizeof(struct node));

		if (ptr == NVMM_NULL) {
			must(errno == ENOSPC, "%s", nvmm_errmsg(v->nvmm));
			drop_fresh(v, hand);
			return false;
		}
		hand->chain[i] = ptr;
		atomic_store(&hand->fresh, i + 1);
		node_fill(v, ptr, hand->entry, i ? hand->chain[i - 1] : NVMM_NULL, seed);
	}
	return true;
}

/* Puts the chain in the table, and has the old one in hand. It can be done again. */
static void link_chain(struct view *v, struct hand *hand)
{
	atomic_store(&hand->linking, true);
	atomic_store(&v->table[hand->entry], hand->chain[CHAIN - 1]);
	atomic_store(&hand->unfreed, CHAIN);
	atomic_store(&hand->fresh, 0);
	atomic_store(&hand->linking, false);
}

static void note_old(struct view *v, struct hand *hand)
{
	nvmm_ptr ptr = atomic_load(&v->table[hand->entry]);

	for (unsigned i = 0; i < CHAIN; i++) {
		hand->old[i] = ptr;
		ptr = ((struct node *)nvmm_local(v->nvmm, ptr))->next;
	}
}

static void free_old(struct view *v, struct hand *hand)
{
	while (hand->unfreed > 0) {
		atomic_store(&hand->freeing, true);
		must(nvmm_free_deferred(v->heap, hand->old[hand->unfreed - 1]) == 0, "%s",
		     nvmm_errmsg(v->nvmm));
		atomic_fetch_sub(&hand->unfreed, 1);
		atomic_store(&hand->freeing, false);
	}
}

/* What a writer that was killed had begun. */
static void finish_for(struct view *v, struct hand *hand)
{
	if (hand->linking)
		link_chain(v, hand);
	else
		drop_fresh(v, hand);
	if (hand->freeing && hand->unfreed > 0)
		hand->unfreed--; /* may be free, and another's by now */
	hand->freeing = false;
	free_old(v, hand);
}

static void writer(struct view *v, unsigned me)
{
	struct hand *hand = &poison->hand[me];
	unsigned seed = (unsigned)getpid();

	finish_for(v, hand);
	while (!atomic_load(&poison->stop)) {
		hand->entry = (unsigned)rand_r(&seed) % (ENTRIES / WRITERS) * WRITERS + me;
		if (!make_chain(v, hand, &seed)) {
			atomic_fetch_add(&poison->full, 1);
			continue;
		}
		note_old(v, hand);
		link_chain(v, hand);
		free_old(v, hand);
		atomic_fetch_add(&poison->written, 1);
	}
}

/* The test */

static void act(void *arg)
{
	unsigned i = (unsigned)((struct actor *)arg - actors);
	struct view v;

	/* One of the readers has its own fence instead of the kernel's. */
	if (i == 0)
		setenv("NVMM_NO_MEMBARRIER", "1", 1);
	v = attach();
	if (i < READERS)
		reader(&v);
	else
		writer(&v, i - READERS);
	nvmm_disconnect(v.nvmm);
}

static void actor_kill(struct actor *a)
{
	int status;

	ck_assert_int_eq(kill(a->pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(a->pid, &status, 0), a->pid);
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
		      "an actor ended by itself with 0x%x", status);
	a->stopped_until = 0;
}

static void let_go_on(uint64_t now)
{
	for (struct actor *a = actors; a < actors + ACTORS; a++)
		if (a->stopped_until != 0 && now >= a->stopped_until) {
			kill(a->pid, SIGCONT);
			a->stopped_until = 0;
		}
}

static void disturb_one(struct actor *a, unsigned *seed, struct tally *tally)
{
	switch ((unsigned)rand_r(seed) % 4) {
	case 0:
		actor_kill(a);
		*(a < actors + READERS ? &tally->readers : &tally->writers) += 1;
		a->pid = harness_fork(act, a);
		break;
	case 1:
		if (a->stopped_until != 0)
			break;
		kill(a->pid, SIGSTOP);
		a->stopped_until = harness_now_us() + (unsigned)rand_r(seed) % 100000;
		tally->stops++;
		break;
	}
}

static void disturb(unsigned seconds, struct tally *tally)
{
	uint64_t end = harness_now_us() + seconds * UINT64_C(1000000);
	const char *given = getenv("NVMMD_TEST_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)getpid();

	printf("poison: NVMMD_TEST_SEED=%u, %u s\n", seed, seconds);
	fflush(stdout);
	while (harness_now_us() < end) {
		let_go_on(harness_now_us());
		disturb_one(&actors[(unsigned)rand_r(&seed) % ACTORS], &seed, tally);
		if ((unsigned)rand_r(&seed) % 64 == 0) {
			harness_signal(&h, SIGKILL);
			harness_start(&h);
			tally->daemons++;
		}
		harness_sleep_ms((unsigned)rand_r(&seed) % 30);
	}
	let_go_on(UINT64_MAX);
}

static void make_table(struct nvmm_client *nvmm)
{
	struct nvmm_heap *heap = harness_heap(nvmm, &poison->id, HEAP_BYTES, NULL, 16);
	nvmm_ptr root = nvmm_zalloc(heap, ENTRIES * sizeof(nvmm_ptr));
	struct view v = { .nvmm = nvmm, .heap = heap, .table = nvmm_local(nvmm, root) };
	unsigned seed = 1;

	ck_assert_ptr_nonnull(v.table);
	for (uint64_t i = 0; i < ENTRIES; i++) {
		struct hand hand = { .entry = i };

		ck_assert(make_chain(&v, &hand, &seed));
		atomic_store(&v.table[i], hand.chain[CHAIN - 1]);
	}
	ck_assert_int_eq(nvmm_root_set(heap, "table", root), 0);
	nvmm_heap_close(heap);
}

static bool no_limbo(void *arg)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };
	struct view *v = arg;

	must(nvmm_heap_stat(v->heap, &info) == 0, "%s", nvmm_errmsg(v->nvmm));
	return info.limbo == 0;
}

/* Everything that is allocated is in the table, but for what killed writers were about to. */
static void check_all(const struct tally *tally)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };
	const uint64_t reachable = ENTRIES * CHAIN + 1;
	struct view v = attach();

	for (unsigned i = 0; i < WRITERS; i++)
		finish_for(&v, &poison->hand[i]);
	for (uint64_t i = 0; i < ENTRIES; i++)
		read_entry(&v, i);
	harness_until(no_limbo, &v, 10000);
	must(nvmm_heap_stat(v.heap, &info) == 0, "%s", nvmm_errmsg(v.nvmm));
	printf("poison: %llu read, %llu written, %llu times full; killed: %u readers, %u writers, "
	       "%u daemons; %u stopped; %lld blocks were in killed hands\n",
	       (unsigned long long)poison->read, (unsigned long long)poison->written,
	       (unsigned long long)poison->full, tally->readers, tally->writers, tally->daemons,
	       tally->stops, (long long)(info.blocks - reachable));
	ck_assert_uint_ge(info.blocks, reachable);
	ck_assert_uint_le(info.blocks, reachable + tally->writers);
	nvmm_disconnect(v.nvmm);
}

static unsigned seconds(void)
{
	const char *text = getenv("NVMMD_TEST_LONG");

	if (text && *text != '\0' && *text != '0')
		return 600;
	return SANITIZED ? 10 : 60;
}

START_TEST(poisoned_on_reuse)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct tally tally = { 0 };

	poison = harness_shared(sizeof(*poison));
	make_table(nvmm);
	nvmm_disconnect(nvmm);
	for (struct actor *a = actors; a < actors + ACTORS; a++)
		a->pid = harness_fork(act, a);
	disturb(seconds(), &tally);
	atomic_store(&poison->stop, true);
	for (struct actor *a = actors; a < actors + ACTORS; a++)
		harness_join(a->pid);
	check_all(&tally);
	ck_assert_uint_gt(poison->read, 0);
	ck_assert_uint_gt(poison->written, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("poison");
	TCase *tc = harness_case_served(suite, "poison", seconds() + 90, &h);

	tcase_add_test(tc, poisoned_on_reuse);
	return harness_run(suite);
}
