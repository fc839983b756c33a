/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Accounting: three lists.
 *
 *   known   what the shadow says is allocated: cells, rings, words, roots' blocks
 *   there   what the heaps' files say, read without daemon and library; what they say is granted has its space
 *   doubts  what operations in flight may have left, when their client was killed
 *
 * known must be in there, each once. What else is there must be a doubt: a block that was being freed, or
 * one of the class that was being allocated, each doubt good for one block. Such blocks are freed, so that the
 * next account begins without doubts.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"
#include "media/class.h"
#include "media/format.h"
#include "tests/crash/audit.h"
#include "tests/stress/campaign.h"
#include "tests/stress/stamp.h"

#define POOLS_MAX 64u
#define BOARD 1u /* as a size: it has no stamp */

struct block {
	nvmm_ptr ptr;
	uint64_t size;
};

struct list {
	struct block *block;
	size_t n, room;
};

static void list_add(void *arg, nvmm_ptr ptr, uint64_t size)
{
	struct list *l = arg;

	if (l->n == l->room) {
		l->room = l->room ? 2 * l->room : 1024;
		l->block = reallocarray(l->block, l->room, sizeof(*l->block));
		ck_assert_ptr_nonnull(l->block);
	}
	l->block[l->n++] = (struct block){ ptr, size };
}

static int by_ptr(const void *a, const void *b)
{
	nvmm_ptr x = ((const struct block *)a)->ptr, y = ((const struct block *)b)->ptr;

	return (x > y) - (x < y);
}

static void list_sort(struct list *l)
{
	if (l->n > 0)
		qsort(l->block, l->n, sizeof(*l->block), by_ptr);
}

static void list_deinit(struct list *l)
{
	free(l->block);
	*l = (struct list){ 0 };
}

static const struct block *list_find(const struct list *l, nvmm_ptr ptr)
{
	struct block key = { .ptr = ptr };

	return l->n ? bsearch(&key, l->block, l->n, sizeof(key), by_ptr) : NULL;
}

/* The shadow */

static struct journal *journal_at(struct campaign *c, unsigned i)
{
	return &c->shadow->seat[i / THREADS].journal[i % THREADS];
}

static void list_add_some(struct list *l, nvmm_ptr ptr)
{
	if (ptr != NVMM_NULL)
		list_add(l, ptr, 0);
}

static void list_ring(struct list *l, struct ring *ring)
{
	must(ring->tail - ring->head <= RING, "%s", "a ring holds more than it can");
	for (uint64_t i = ring->head; i < ring->tail; i++)
		list_add_some(l, ring->ptr[i % RING]);
}

/* All that the shadow knows to be allocated, sorted, none twice. */
static struct list known_blocks(struct desk *d)
{
	struct list l = { 0 };

	for (unsigned i = 0; i < SEATS * THREADS; i++) {
		unsigned s = i / THREADS, t = i % THREADS;
		struct journal *j = journal_at(d->c, i);

		for (unsigned k = 0; k < CELLS; k++)
			list_add_some(&l, j->held[k]);
		for (unsigned k = 0; k < WORDS; k++)
			list_add_some(&l, d->exchange->word[s][t][k]);
		for (unsigned k = 0; k < RINGS; k++)
			list_ring(&l, &d->exchange->ring[s][t][k]);
		for (unsigned k = 0; k < 2; k++)
			if (journal_apart(j, j->root[k]))
				list_add_some(&l, j->root[k]);
		for (unsigned k = 0; k < POSTS; k++)
			list_add_some(&l, j->posted[k]);
		if (j->board != NVMM_NULL && journal_apart(j, j->board))
			list_add(&l, j->board, BOARD);
	}
	list_sort(&l);
	for (size_t i = 1; i < l.n; i++)
		must(l.block[i].ptr != l.block[i - 1].ptr, "0x%llx was given twice",
		     (unsigned long long)l.block[i].ptr);
	return l;
}

static void check_stamps(struct desk *d, const struct list *known)
{
	for (size_t i = 0; i < known->n; i++)
		must(known->block[i].size == BOARD ||
		     stamp_whole(nvmm_local(d->nvmm, known->block[i].ptr)), "0x%llx holds another's bytes", (unsigned long long)known->block[i].ptr);
}

static void check_boards(struct desk *d)
{
	for (unsigned i = 0; i < SEATS * THREADS; i++) {
		struct journal *j = journal_at(d->c, i);
		const uint64_t *word = j->board_ready ? nvmm_local(d->nvmm, j->board) : NULL;

		for (unsigned k = 0; word && k < POSTS; k++)
			must(word[k] == j->posted[k], "a published word is 0x%llx, not 0x%llx",
			     (unsigned long long)word[k], (unsigned long long)j->posted[k]);
	}
}

/* Pools and roots */

static bool pool_is_own(struct campaign *c, const struct nvmm_pool_info *info)
{
	unsigned long long number;
	struct journal *j;
	unsigned seat, thread;

	for (unsigned i = 0; i < HEAPS; i++)
		if (info->id == c->heap[i])
			return false;
	if (info->id == c->region)
		return false;
	must(sscanf(info->name, "own-%u.%u-%llu", &seat, &thread, &number) == 3 && seat < SEATS &&
	     thread < THREADS, "pool %u '%s' is nobody's", info->id, info->name);
	j = &c->shadow->seat[seat].journal[thread];
	must(j->pool == number && j->pool_may & 2, "pool '%s' was destroyed, and is there", info->name);
	must(info->bytes == j->pool_bytes || info->bytes == j->pool_wanted,
	     "pool '%s' has %llu bytes", info->name, (unsigned long long)info->bytes);
	return true;
}

/* Each thread has a pool of its own or not, as it was told. */
static void check_pools(struct desk *d)
{
	struct nvmm_pool_info info[POOLS_MAX];
	unsigned own = 0, least = 0;
	int n = nvmm_pool_list(d->nvmm, 0, info, POOLS_MAX);

	must(n >= 0, "list: %d: %s", n, nvmm_errmsg(d->nvmm));
	for (int i = 0; i < n; i++) {
		must(!info[i].damaged, "pool %u is damaged", info[i].id);
		own += pool_is_own(d->c, &info[i]);
	}
	for (unsigned i = 0; i < SEATS * THREADS; i++) {
		struct journal *j = journal_at(d->c, i);
		nvmm_pool_id id;
		char name[32];
		int r;

		snprintf(name, sizeof(name), "own-%u.%u-%llu", i / THREADS, i % THREADS,
			 (unsigned long long)j->pool);
		r = nvmm_pool_lookup(d->nvmm, name, &id);
		must(r == 0 || j->pool_may != 2, "pool '%s' was made, and is not there", name);
		least += r == 0;
	}
	must(own == least && (unsigned)n == own + HEAPS + 1, "%d pools, %u of them threads'", n, own);
}

static void check_roots(struct desk *d)
{
	for (unsigned i = 0; i < SEATS * THREADS; i++) {
		struct journal *j = journal_at(d->c, i);
		nvmm_ptr ptr = NVMM_NULL;
		unsigned is = 0;
		char name[16];
		int r;

		snprintf(name, sizeof(name), "%u.%u", i / THREADS, i % THREADS);
		r = nvmm_root_get(d->heap[0], name, &ptr);
		must(r == 0 || r == -ENOENT, "root %s: %d: %s", name, r, nvmm_errmsg(d->nvmm));
		if (r == 0)
			is = ptr == j->root[0] ? 1 : ptr == j->root[1] ? 2 : 3;
		must(j->root_may == 0 ? is == 0 : j->root_may >> is & 1,
		     "root %s is 0x%llx (%u), which is none of %x", name, (unsigned long long)ptr, is,
		     j->root_may);
	}
}

/* Heaps */

static struct list blocks_there(struct campaign *c, const struct nvmm_pool_info *info)
{
	struct list l = { 0 };

	for (unsigned i = 0; i < HEAPS; i++) {
		audit_heap(c->h.base, &info[i]);
		audit_blocks(c->h.base, &info[i], list_add, &l);
	}
	list_sort(&l);
	return l;
}

/* The usable size of a block that was asked for. */
static uint64_t size_of_request(uint64_t size)
{
	return size <= CLASS_SIZE_MAX ? size_classes[class_of(size)].size : ALIGN_UP(size, UNIT_SIZE);
}

/* Takes out the doubt that explains a block; false: none does. */
static bool explain_by(struct campaign *c, const struct block *b, bool freed)
{
	for (unsigned i = 0; i < SEATS * THREADS; i++) {
		struct journal *j = journal_at(c, i);

		for (unsigned k = 0; k < j->doubts; k++) {
			struct doubt *d = &j->doubt[k];
			bool fits = freed ? d->ptr == b->ptr :
				d->ptr == NVMM_NULL && d->size != 0 &&
				size_of_request(d->size) == b->size &&
				c->heap[d->heap] == nvmm_ptr_pool(b->ptr);

			if (!fits)
				continue;
			*d = (struct doubt){ 0 };
			return true;
		}
	}
	return false;
}

/* What is there and not known, each explained by one doubt. */
static struct list blocks_extra(struct campaign *c, const struct list *there, const struct list *known)
{
	struct list extra = { 0 };

	for (size_t i = 0; i < there->n; i++) {
		const struct block *b = &there->block[i];

		if (list_find(known, b->ptr))
			continue;
		must(explain_by(c, b, true) || explain_by(c, b, false),
		     "0x%llx of %llu bytes is allocated, and nobody's", (unsigned long long)b->ptr,
		     (unsigned long long)b->size);
		list_add(&extra, b->ptr, b->size);
	}
	return extra;
}

static unsigned doubts_clear(struct campaign *c)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SEATS * THREADS; i++) {
		n += journal_at(c, i)->doubts;
		journal_at(c, i)->doubts = 0;
	}
	return n;
}

static void free_all(struct desk *d, const struct list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		int r = nvmm_free(desk_heap(d, l->block[i].ptr), l->block[i].ptr);

		must(r == 0, "free of 0x%llx: %d: %s", (unsigned long long)l->block[i].ptr, r,
		     nvmm_errmsg(d->nvmm));
	}
}

/* Settles what the last clients left, and says what the heaps' files are. */
static struct list settle_all(struct campaign *c, struct nvmm_pool_info info[HEAPS])
{
	struct nvmm_heap_info figures = { .size = sizeof(figures) };
	struct list known;
	struct desk d;

	desk_open(&d, c);
	for (unsigned i = 0; i < SEATS * THREADS; i++) {
		struct place p = { &d, i / THREADS, i % THREADS, journal_at(c, i) };

		journal_settle(&p);
	}
	for (unsigned i = 0; i < HEAPS; i++) {
		info[i] = (struct nvmm_pool_info){ .size = sizeof(info[i]) };
		must(nvmm_pool_stat(d.nvmm, c->heap[i], &info[i]) == 0, "%s", nvmm_errmsg(d.nvmm));
		must(nvmm_wait_settled(d.heap[i]) == 0, "%s", nvmm_errmsg(d.nvmm));
		must(nvmm_heap_stat(d.heap[i], &figures) == 0, "%s", nvmm_errmsg(d.nvmm));
	}
	check_boards(&d);
	check_pools(&d);
	check_roots(&d);
	known = known_blocks(&d);
	desk_close(&d);
	return known;
}

void account_take(struct campaign *c, struct account *account)
{
	struct nvmm_pool_info info[HEAPS];
	struct list known = settle_all(c, info), there, extra;
	struct desk d;

	harness_stop(&c->h);
	there = blocks_there(c, info);
	for (size_t i = 0; i < known.n; i++)
		must(list_find(&there, known.block[i].ptr), "0x%llx is lost",
		     (unsigned long long)known.block[i].ptr);
	extra = blocks_extra(c, &there, &known);
	account->blocks += known.n;
	account->happened += extra.n;
	account->doubts += doubts_clear(c);
	harness_start(&c->h);
	desk_open(&d, c);
	check_stamps(&d, &known);
	free_all(&d, &extra);
	desk_close(&d);
	list_deinit(&known);
	list_deinit(&there);
	list_deinit(&extra);
}

/* Nothing is allocated, and one block of nearly all can be had. */
static void expect_empty(struct desk *d, struct nvmm_heap *heap)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };
	nvmm_ptr ptr;

	must(nvmm_heap_stat(heap, &info) == 0, "%s", nvmm_errmsg(d->nvmm));
	must(info.blocks == 0 && info.used == 0, "%llu blocks of %llu bytes are left",
	     (unsigned long long)info.blocks, (unsigned long long)info.used);
	ptr = nvmm_alloc(heap, info.bytes / 100 * 99);
	must(ptr != NVMM_NULL, "no block of 99 %%: %s", nvmm_errmsg(d->nvmm));
	must(nvmm_free(heap, ptr) == 0, "%s", nvmm_errmsg(d->nvmm));
}

void account_close(struct campaign *c)
{
	struct list known;
	struct desk d;

	desk_open(&d, c);
	known = known_blocks(&d);
	free_all(&d, &known);
	for (unsigned i = 0; i < HEAPS; i++)
		expect_empty(&d, d.heap[i]);
	desk_close(&d);
	list_deinit(&known);
}
