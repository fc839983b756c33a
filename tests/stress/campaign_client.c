/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A client: each thread goes on with what its journal says that it holds, and takes one random step after
 * the other until all are told to stop. Blocks stay where they are then.
 *
 * Nothing here may fail because a daemon died: calls wait. What does fail is written into the seat, and
 * the process ends in a way that the controller tells from a kill.
 */
#include "tests/stress/campaign.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/macro.h"
#include "tests/stress/stamp.h"

#define WAIT_MS 240000 /* a call that waits longer has found a bug, not a busy machine */
#define SMALL_MOST (UINT64_C(64) << 10)
#define LARGE_LEAST (UINT64_C(160) << 10)
#define LARGE_MOST (UINT64_C(1) << 20)

struct worker {
	struct place place;
	struct desk *d;
	struct journal *j;
	uint64_t random;
	pthread_t thread;
};

uint64_t campaign_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

void client_fail(struct campaign *c, const char *fmt, ...)
{
	struct seat *seat = &c->shadow->seat[c->seat];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(seat->failure, sizeof(seat->failure), fmt, ap);
	va_end(ap);
	fprintf(stderr, "campaign: client %u: %s\n", c->seat, seat->failure);
	_exit(3);
}

static unsigned dice(struct worker *w, unsigned sides)
{
	return (unsigned)(campaign_random(&w->random) % sides);
}

/* Desks */

static void desk_connect(struct desk *d)
{
	struct nvmm_options options = {
		.size = sizeof(options), .socket = d->c->h.socket, .timeout_ms = WAIT_MS };
	int r;

	/* A program that starts finds no daemon, or one that dies meanwhile: it tries again. */
	while ((r = nvmm_connect(&d->nvmm, &options)) < 0) {
		client_must(d->c, r == -ENOENT || r == -ECONNREFUSED || r == -ECONNRESET ||
			    r == -EPIPE, "connect: %d: %s", r, nvmm_errmsg(NULL));
		harness_sleep_ms(2);
	}
}

static struct exchange *desk_map(struct desk *d)
{
	struct nvmm_region *region;
	void *addr;
	int r = nvmm_region_open(&region, d->nvmm, d->c->region, O_RDWR);

	client_must(d->c, r == 0, "region: %d: %s", r, nvmm_errmsg(d->nvmm));
	r = nvmm_region_map(region, NULL, sizeof(struct exchange), PROT_READ | PROT_WRITE, 0, 0, &addr);
	client_must(d->c, r == 0, "map: %d: %s", r, nvmm_errmsg(d->nvmm));
	nvmm_region_close(region);
	return addr;
}

void desk_open(struct desk *d, struct campaign *c)
{
	int r;

	*d = (struct desk){ .c = c };
	desk_connect(d);
	for (unsigned i = 0; i < HEAPS; i++) {
		r = nvmm_heap_open(&d->heap[i], d->nvmm, c->heap[i], O_RDWR);
		client_must(c, r == 0, "heap: %d: %s", r, nvmm_errmsg(d->nvmm));
	}
	d->exchange = desk_map(d);
}

void desk_close(struct desk *d)
{
	for (unsigned i = 0; i < HEAPS; i++)
		nvmm_heap_close(d->heap[i]);
	nvmm_disconnect(d->nvmm);
}

struct nvmm_heap *desk_heap(struct desk *d, nvmm_ptr ptr)
{
	unsigned i = 0;

	while (i < HEAPS - 1 && nvmm_ptr_pool(ptr) != d->c->heap[i])
		i++;
	return d->heap[i];
}

/* Blocks */

static void *local(struct worker *w, nvmm_ptr ptr)
{
	void *p = nvmm_local(w->d->nvmm, ptr);

	client_must(w->d->c, p != NULL, "0x%llx has no address: %s", (unsigned long long)ptr,
		    nvmm_errmsg(w->d->nvmm));
	return p;
}

static void block_check(struct worker *w, nvmm_ptr ptr, const char *when)
{
	const uint64_t *p = local(w, ptr);

	client_must(w->d->c, stamp_whole(p), "%s: 0x%llx holds another's bytes: 0x%llx 0x%llx", when,
		    (unsigned long long)ptr, (unsigned long long)p[0], (unsigned long long)p[1]);
}

/* From 16 bytes on, each doubling as likely as the next; seldom a large one. */
static size_t random_size(struct worker *w)
{
	uint64_t base = UINT64_C(16) << dice(w, 12);

	if (dice(w, 100) == 0)
		return LARGE_LEAST + campaign_random(&w->random) % (LARGE_MOST - LARGE_LEAST);
	return MIN(base + campaign_random(&w->random) % base, SMALL_MOST);
}

/* Allocates into an empty cell; false: no room. */
static bool take_block(struct worker *w, unsigned cell, size_t size, unsigned heap)
{
	struct journal *j = w->j;
	nvmm_ptr ptr;

	j->cell = cell;
	j->size = size;
	j->heap = heap;
	j->ptr = NVMM_NULL;
	j->serial++;
	journal_begin(j, INTENT_ALLOC);
	ptr = nvmm_alloc(w->d->heap[j->heap], size);
	if (ptr == NVMM_NULL) {
		client_must(w->d->c, errno == ENOSPC, "alloc of %zu: %s: %s", size, strerror(errno),
			    nvmm_errmsg(w->d->nvmm));
		journal_end(j);
		return false;
	}
	j->ptr = ptr;
	stamp_write(local(w, ptr), size, j->serial);
	j->held[cell] = ptr;
	journal_end(j);
	return true;
}

static void drop_block(struct worker *w, unsigned cell)
{
	struct journal *j = w->j;
	nvmm_ptr ptr = j->held[cell];
	bool later = j->seen[cell];
	int r;

	block_check(w, ptr, "freeing");
	j->cell = cell;
	j->ptr = ptr;
	journal_begin(j, INTENT_FREE);
	j->held[cell] = NVMM_NULL;
	if (later) {
		r = nvmm_free_deferred(desk_heap(w->d, ptr), ptr);
	} else {
		stamp_spoil(local(w, ptr));
		r = nvmm_free(desk_heap(w->d, ptr), ptr);
	}
	client_must(w->d->c, r == 0, "%s of 0x%llx: %d: %s", later ? "deferred free" : "free",
		    (unsigned long long)ptr, r, nvmm_errmsg(w->d->nvmm));
	j->seen[cell] = false;
	journal_end(j);
}

/* Steps */

static void step_alloc(struct worker *w)
{
	unsigned cell = journal_cell(w->j, dice(w, CELLS), false);

	if (cell != NO_CELL && take_block(w, cell, random_size(w), dice(w, HEAPS)))
		return;
	/* No room, of one kind or the other. */
	for (unsigned i = 0; i < CELLS / 4; i++) {
		cell = journal_cell(w->j, dice(w, CELLS), true);
		if (cell != NO_CELL)
			drop_block(w, cell);
	}
}

static void step_free(struct worker *w)
{
	unsigned cell = journal_cell(w->j, dice(w, CELLS), true);

	if (cell != NO_CELL)
		drop_block(w, cell);
}

/* Hands a block to the next process, or to the next thread of this one. */
static void step_put(struct worker *w)
{
	struct place *p = &w->place;
	struct journal *j = w->j;
	unsigned cell = journal_cell(j, dice(w, CELLS), true), which = dice(w, RINGS);
	struct ring *ring = &w->d->exchange->ring[p->seat][p->thread][which];
	/* ordering: acquire; the place is empty that the taker counts as taken. */
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire), tail = ring->tail;

	if (cell == NO_CELL || j->seen[cell] || tail - head == RING)
		return;
	j->cell = cell;
	j->ring = which;
	j->mark = tail;
	journal_begin(j, INTENT_PUT);
	ring->ptr[tail % RING] = j->held[cell];
	/* ordering: release; the block's bytes and its pointer go with the count. */
	atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
	j->held[cell] = NVMM_NULL;
	journal_end(j);
}

static void step_take(struct worker *w)
{
	struct place *p = &w->place;
	struct journal *j = w->j;
	unsigned cell = journal_cell(j, dice(w, CELLS), false), which = dice(w, RINGS);
	struct ring *ring = journal_source(w->d->exchange, p->seat, p->thread, which);
	uint64_t head = ring->head;

	/* ordering: acquire; pairs with the release of step_put(). */
	if (cell == NO_CELL || atomic_load_explicit(&ring->tail, memory_order_acquire) == head)
		return;
	j->cell = cell;
	j->ring = which;
	j->mark = head;
	j->ptr = ring->ptr[head % RING];
	journal_begin(j, INTENT_TAKE);
	/* ordering: release; the pointer was read before. */
	atomic_store_explicit(&ring->head, head + 1, memory_order_release);
	j->held[cell] = j->ptr;
	journal_end(j);
	block_check(w, j->ptr, "taking");
}

/* Replaces a word that others read, and frees with delay what was there. */
static void step_swap(struct worker *w)
{
	struct place *p = &w->place;
	struct journal *j = w->j;
	unsigned cell = journal_cell(j, dice(w, CELLS), true), which = dice(w, WORDS);
	_Atomic nvmm_ptr *word = &w->d->exchange->word[p->seat][p->thread][which];

	if (cell == NO_CELL || j->seen[cell])
		return;
	j->cell = cell;
	j->mark = which;
	j->ptr = j->held[cell];
	j->old = *word;
	journal_begin(j, INTENT_SWAP);
	/* ordering: seq_cst; who enters an epoch after the block is freed finds the new one. */
	atomic_store(word, j->ptr);
	j->seen[cell] = j->old != NVMM_NULL;
	j->held[cell] = j->old;
	journal_end(j);
	if (j->seen[cell])
		drop_block(w, cell);
}

/* A block in a word of the thread's board, in place of the one that is there, which is freed. */
static void publish(struct worker *w, nvmm_ptr ptr, unsigned which)
{
	struct journal *j = w->j;
	nvmm_ptr old = j->posted[which];
	struct nvmm_action action[3] = { NVMM_STORE(j->board + which * sizeof(uint64_t), ptr) };
	unsigned n = 1;
	int r;

	if (ptr != NVMM_NULL)
		action[n++] = (struct nvmm_action)NVMM_COMMIT(ptr);
	if (old != NVMM_NULL)
		action[n++] = (struct nvmm_action)NVMM_FREE(old);
	j->ptr = ptr;
	j->old = old;
	j->mark = which;
	journal_begin(j, INTENT_PUBLISH);
	r = nvmm_publish(desk_heap(w->d, j->board), action, n);
	client_must(w->d->c, r == 0, "publish: %d: %s", r, nvmm_errmsg(w->d->nvmm));
	j->posted[which] = ptr;
	journal_end(j);
}

/* A reserved block is nobody's until it is published: no intent says that it may be there. */
static void step_publish(struct worker *w)
{
	struct journal *j = w->j;
	unsigned which = dice(w, POSTS), fate = dice(w, 8);
	nvmm_ptr ptr = NVMM_NULL;
	size_t size = random_size(w);
	int r;

	if (!j->board_ready)
		return;
	if (fate > 0) {
		ptr = nvmm_reserve(desk_heap(w->d, j->board), size);
		client_must(w->d->c, ptr != NVMM_NULL || errno == ENOSPC, "reserve of %zu: %s: %s", size,
			    strerror(errno), nvmm_errmsg(w->d->nvmm));
		if (ptr == NVMM_NULL)
			return;
		stamp_write(local(w, ptr), size, ++j->serial);
	}
	if (fate != 1) {
		publish(w, ptr, which);
		return;
	}
	r = nvmm_free(desk_heap(w->d, ptr), ptr);
	client_must(w->d->c, r == -EBUSY, "free of a reserved block: %d", r);
	r = nvmm_cancel(desk_heap(w->d, ptr), ptr);
	client_must(w->d->c, r == 0, "cancel: %d: %s", r, nvmm_errmsg(w->d->nvmm));
}

/* A word that another thread changes, its block in it: one of the exchange, or of a board. */
static _Atomic nvmm_ptr *random_word(struct worker *w)
{
	unsigned seat = dice(w, SEATS), thread = dice(w, THREADS);
	struct journal *j = &w->d->c->shadow->seat[seat].journal[thread];
	nvmm_ptr *words;

	if (dice(w, 2) || !j->board_ready)
		return &w->d->exchange->word[seat][thread][dice(w, WORDS)];
	words = local(w, j->board);
	return (_Atomic nvmm_ptr *)&words[dice(w, POSTS)];
}

/* What is found in an epoch stays as it is until its end. */
static void step_read(struct worker *w)
{
	_Atomic nvmm_ptr *word = random_word(w);
	uint64_t serial;
	nvmm_ptr ptr;
	int r = nvmm_epoch_enter(w->d->nvmm);

	client_must(w->d->c, r == 0, "epoch: %d: %s", r, nvmm_errmsg(w->d->nvmm));
	/* ordering: acquire; the bytes go with the pointer. */
	ptr = atomic_load_explicit(word, memory_order_acquire);
	if (ptr != NVMM_NULL) {
		block_check(w, ptr, "reading");
		serial = stamp_serial(local(w, ptr));
		for (unsigned i = dice(w, 4); i > 0; i--)
			sched_yield();
		block_check(w, ptr, "reading again");
		client_must(w->d->c, stamp_serial(local(w, ptr)) == serial,
			    "0x%llx changed while it was read", (unsigned long long)ptr);
	}
	nvmm_epoch_exit(w->d->nvmm);
}

/* Seldom ones, by the daemon */

/* What is empty is free for any use; in the sparse heap its memory goes back, and is reserved anew by who needs it. */
static void step_trim(struct worker *w)
{
	int64_t r = nvmm_heap_trim(w->d->heap[dice(w, HEAPS)]);

	client_must(w->d->c, r >= 0, "trim: %lld: %s", (long long)r, nvmm_errmsg(w->d->nvmm));
}

static void step_root(struct worker *w)
{
	struct campaign *c = w->d->c;
	struct journal *j = w->j;
	unsigned to = dice(w, 3);
	char name[16];
	int r;

	for (unsigned i = 0; i < 2; i++)
		if (j->root[i] == NVMM_NULL)
			return;
	snprintf(name, sizeof(name), "%u.%u", w->place.seat, w->place.thread);
	j->root_may |= 1u << to;
	r = to == 0 ? nvmm_root_remove(w->d->heap[0], name) :
		      nvmm_root_set(w->d->heap[0], name, j->root[to - 1]);
	client_must(c, r == 0 || (to == 0 && r == -ENOENT), "root: %d: %s", r, nvmm_errmsg(w->d->nvmm));
	j->root_may = 1u << to;
}

static void pool_name(struct worker *w, char name[32])
{
	snprintf(name, 32, "own-%u.%u-%llu", w->place.seat, w->place.thread,
		 (unsigned long long)w->j->pool);
}

static void pool_make(struct worker *w, const char *name)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .name = name };
	uint64_t bytes = UINT64_C(65536) << dice(w, 3);
	nvmm_pool_id id = 0;
	int r;

	w->j->pool_bytes = w->j->pool_wanted = bytes;
	w->j->pool_may = 3;
	r = dice(w, 2) ? nvmm_heap_create(w->d->nvmm, &id, bytes, &options) :
			 nvmm_region_create(w->d->nvmm, &id, bytes, &options);
	client_must(w->d->c, r == 0, "create %s: %d: %s", name, r, nvmm_errmsg(w->d->nvmm));
	w->j->pool_may = 2;
}

static void pool_remove(struct worker *w, const struct nvmm_pool_info *info)
{
	int r;

	w->j->pool_may = 3;
	r = info->kind == NVMM_POOL_HEAP ? nvmm_heap_destroy(w->d->nvmm, info->id) :
					   nvmm_region_destroy(w->d->nvmm, info->id);
	client_must(w->d->c, r == 0, "destroy %s: %d: %s", info->name, r, nvmm_errmsg(w->d->nvmm));
	w->j->pool_may = 1;
}

static void pool_grow(struct worker *w, const struct nvmm_pool_info *info)
{
	int r;

	w->j->pool_bytes = info->bytes;
	w->j->pool_wanted = info->bytes + 65536;
	r = nvmm_pool_resize(w->d->nvmm, info->id, w->j->pool_wanted);
	client_must(w->d->c, r == 0, "resize %s: %d: %s", info->name, r, nvmm_errmsg(w->d->nvmm));
	w->j->pool_bytes = w->j->pool_wanted;
}

static void step_pool(struct worker *w)
{
	struct nvmm_pool_info info = { .size = sizeof(info) };
	struct campaign *c = w->d->c;
	nvmm_pool_id id;
	char name[32];
	int r;

	pool_name(w, name);
	r = nvmm_pool_lookup(w->d->nvmm, name, &id);
	client_must(c, r == 0 || r == -ENOENT, "lookup of %s: %d: %s", name, r, nvmm_errmsg(w->d->nvmm));
	client_must(c, w->j->pool_may & (r == 0 ? 2 : 1), "%s is %s", name, r == 0 ? "there" : "gone");
	if (r < 0) {
		w->j->pool_may = 1;
		w->j->pool++;
		pool_name(w, name);
		pool_make(w, name);
		return;
	}
	r = nvmm_pool_stat(w->d->nvmm, id, &info);
	client_must(c, r == 0, "stat of %s: %d: %s", name, r, nvmm_errmsg(w->d->nvmm));
	if (dice(w, 3) == 0)
		pool_grow(w, &info);
	else
		pool_remove(w, &info);
}

static void step(struct worker *w)
{
	unsigned n = dice(w, 4096);

	if (n < 1200)
		step_alloc(w);
	else if (n < 2000)
		step_free(w);
	else if (n < 2600)
		step_put(w);
	else if (n < 3300)
		step_take(w);
	else if (n < 3500)
		step_swap(w);
	else if (n < 3600)
		step_publish(w);
	else if (n < 4091)
		step_read(w);
	else if (n < 4092)
		step_trim(w);
	else if (n < 4094)
		step_root(w);
	else
		step_pool(w);
}

/* The two blocks that the root goes between, and the board; they are the thread's for ever. */
static void own_take(struct worker *w, _Atomic nvmm_ptr *own, unsigned heap)
{
	unsigned cell = journal_cell(w->j, 0, false);

	/* Who was killed between the two stores below has it twice. */
	for (unsigned i = 0; *own != NVMM_NULL && i < CELLS; i++)
		if (w->j->held[i] == *own)
			w->j->held[i] = NVMM_NULL;
	if (*own != NVMM_NULL || cell == NO_CELL || !take_block(w, cell, 64, heap))
		return;
	*own = w->j->ptr;
	w->j->held[cell] = NVMM_NULL;
}

static void owns_take(struct worker *w)
{
	struct journal *j = w->j;

	own_take(w, &j->root[0], 0);
	own_take(w, &j->root[1], 0);
	own_take(w, &j->board, w->place.thread % HEAPS);
	if (j->board == NVMM_NULL || j->board_ready)
		return;
	memset(local(w, j->board), 0, POSTS * sizeof(uint64_t));
	j->board_ready = true;
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;
	struct shadow *shadow = w->d->c->shadow;

	owns_take(w);
	/* ordering: relaxed; it alone says something. */
	while (!atomic_load_explicit(&shadow->stop, memory_order_relaxed)) {
		step(w);
		atomic_fetch_add_explicit(&shadow->seat[w->place.seat].steps, 1,
					  memory_order_relaxed);
	}
	return NULL;
}

static void worker_init(struct worker *w, struct desk *d, unsigned thread)
{
	struct seat *seat = &d->c->shadow->seat[d->c->seat];
	struct journal *j = &seat->journal[thread];

	*w = (struct worker){
		.place = { .desk = d, .seat = d->c->seat, .thread = thread, .j = j },
		.d = d,
		.j = j,
		.random = d->c->seed ^ seat->life << 16 ^ d->c->seat << 8 ^ thread,
	};
	if (j->serial == 0) {
		j->serial = (uint64_t)(d->c->seat + 1) << 48 | (uint64_t)(thread + 1) << 40;
		j->root_may = 1;
		j->pool_may = 1;
	}
	journal_settle(&w->place);
}

void campaign_client(void *arg)
{
	struct worker worker[THREADS];
	struct desk desk;

	desk_open(&desk, arg);
	for (unsigned i = 0; i < THREADS; i++)
		worker_init(&worker[i], &desk, i);
	for (unsigned i = 0; i < THREADS; i++)
		client_must(desk.c, pthread_create(&worker[i].thread, NULL, worker_run, &worker[i]) == 0,
			    "%s", "no thread");
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(worker[i].thread, NULL);
	desk_close(&desk);
}
