/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table is a row of buckets, each the head of a chain of words:
 *
 *   root "wordindex" -> struct index -> buckets[0..n-1] -> struct word -> struct word -> 0
 *
 * Every arrow is a global pointer (nvmm_ptr), so that it means the same in each process. Nobody locks;
 * all may run together, in any number of processes:
 *
 *   who       does
 *   adder     looks for its word; if it is there adds 1 to its count; else fills a new one and swaps it
 *             in as the bucket's head by compare-and-swap
 *   taker     takes 1 from a count; if that was the last it makes the word dead (0 -> COUNT_DEAD), marks
 *             its `next`, swaps it out of the chain by compare-and-swap, frees it with delay
 *   reader    walks chains, also on through words that are swapped out under it
 *
 * All of them are in an epoch while they hold a word's address: what they hold is not given to another
 * before they leave. Hence also no pointer comes back under a compare-and-swap that is under way.
 *
 * A mark is the lowest bit of a word's own `next` (blocks are multiples of 8): it says that this word
 * goes, and makes each compare-and-swap of that `next` fail, so that nothing is swapped out behind a word
 * that is itself gone. Whoever writes and comes by a dead word does what is left to do for it.
 * (Michael, High performance dynamic lock-free hash tables and list-based sets, SPAA 2002.)
 *
 * Linearisation: a new word at the compare-and-swap of the head, an occurrence at the change of the
 * count, a word's end at 0 -> COUNT_DEAD: who adds to a dead word has added nothing, and makes a new one.
 *
 * If a process is killed, between any two steps: the table is whole. It may leave one block that nobody
 * reaches (a new word not yet swapped in; an old one swapped out, not yet freed), one word with a count
 * of 0, which no reader tells of and the next adder takes up, or a dead one, which the next writer that
 * comes by removes. What it had counted of its file stays counted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "wordtable.h"

#define ROOT_NAME "wordindex"
#define INDEX_MAGIC UINT64_C(0x31786469646f7277) /* "wordidx1" */
#define INDEX_BUCKETS (UINT64_C(1) << 18)
#define COUNT_DEAD (UINT64_C(1) << 63)
#define MARK ((nvmm_ptr)1)

/* What the root points to. */
struct index {
	uint64_t magic;
	uint64_t n_buckets; /* a power of two */
	nvmm_ptr buckets;   /* of n_buckets atomic nvmm_ptr */
};

int failed(struct nvmm_client *nvmm, const char *what)
{
	fprintf(stderr, "wordindex: %s: %s\n", what, nvmm_errmsg(nvmm));
	return -1;
}

/* The table */

/* FNV-1a. */
static uint32_t hash_of(const char *text, size_t length)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < length; i++)
		h = (h ^ (unsigned char)text[i]) * 16777619u;
	return h ^ h >> 15;
}

static _Atomic nvmm_ptr *bucket_of(struct table *t, uint32_t hash)
{
	return &t->buckets[hash & (t->n_buckets - 1)];
}

static nvmm_ptr arrow(_Atomic nvmm_ptr *from)
{
	/* ordering: acquire; pairs with the release of the compare-and-swap in bucket_push(): whoever
	 * sees the pointer sees the word behind it, and all words behind that one. */
	return atomic_load_explicit(from, memory_order_acquire);
}

static bool swap_arrow(_Atomic nvmm_ptr *from, nvmm_ptr old, nvmm_ptr new)
{
	/* ordering: release; hands on what was acquired with the pointer, and comes before the word that
	 * goes is freed. */
	return atomic_compare_exchange_strong_explicit(from, &old, new, memory_order_release,
						       memory_order_relaxed);
}

static uint64_t count_of(const struct word *w)
{
	/* ordering: relaxed; a counter, nothing else goes with it. */
	return atomic_load_explicit(&w->count, memory_order_relaxed);
}

uint64_t word_count(const struct word *w)
{
	uint64_t count = count_of(w);

	return count & COUNT_DEAD ? 0 : count;
}

static bool word_is(const struct word *w, uint32_t hash, const char *text, size_t length)
{
	return w->hash == hash && w->length == length && memcmp(w->text, text, length) == 0;
}

/* Where the bucket's chain is looked through: at `cur`, to which *from leads. */
struct place {
	_Atomic nvmm_ptr *from;
	nvmm_ptr cur;
};

/*
 * Takes a dead word, which p is at, out of its chain; p moves on. False: others changed the chain here.
 */
static bool word_unlink(struct table *t, struct place *p, struct word *w)
{
	nvmm_ptr next = arrow(&w->next);

	while (!(next & MARK) && !swap_arrow(&w->next, next, next | MARK))
		next = arrow(&w->next);
	next &= ~MARK;
	if (!swap_arrow(p->from, p->cur, next))
		return false;
	/* No arrow that a power cut leaves may lead to it. It may have been the bucket's head, and what was put in
	 * front of it since not be durable there. */
	if (t->power) {
		nvmm_persist(bucket_of(t, w->hash), sizeof(nvmm_ptr));
		nvmm_persist(p->from, sizeof(nvmm_ptr));
	}
	/* Whose compare-and-swap took it out frees it: once. */
	nvmm_free_deferred(t->heap, p->cur);
	p->cur = next;
	return true;
}

/*
 * Looks for a word, for writing: removes dead ones on its way. *head: what the bucket led to. NULL: it is
 * not there. In an epoch.
 */
static struct word *chain_find(struct table *t, nvmm_ptr *head, uint32_t hash, const char *text,
			       size_t length)
{
	struct place p;

again:
	p.from = bucket_of(t, hash);
	p.cur = *head = arrow(p.from);
	while (p.cur != NVMM_NULL) {
		struct word *w = nvmm_local(t->nvmm, p.cur);
		nvmm_ptr next;

		if (w == NULL)
			return NULL;
		next = arrow(&w->next);
		if ((next & MARK) || (count_of(w) & COUNT_DEAD)) {
			if (!word_unlink(t, &p, w))
				goto again;
			if (p.from == bucket_of(t, hash))
				*head = p.cur;
			continue;
		}
		if (word_is(w, hash, text, length))
			return w;
		p.from = &w->next;
		p.cur = next;
	}
	return NULL;
}

static nvmm_ptr word_new(struct table *t, uint32_t hash, const char *text, size_t length)
{
	nvmm_ptr ptr = nvmm_alloc(t->heap, sizeof(struct word) + length);
	struct word *w = nvmm_local(t->nvmm, ptr);

	if (w == NULL)
		return NVMM_NULL;
	atomic_init(&w->count, 1);
	w->hash = hash;
	w->length = (uint32_t)length;
	memcpy(w->text, text, length);
	return ptr;
}

/* Puts `fresh` in front of `head`. False: the bucket leads elsewhere by now. */
static bool bucket_push(struct table *t, uint32_t hash, nvmm_ptr head, nvmm_ptr fresh)
{
	struct word *w = nvmm_local(t->nvmm, fresh);

	atomic_init(&w->next, head);
	if (t->power)
		nvmm_persist(w, sizeof(*w) + w->length);
	return swap_arrow(bucket_of(t, hash), head, fresh);
}

/* Adds 1 to a word that was found. False: it is dead. */
static bool word_add(struct word *w)
{
	/* ordering: relaxed; a counter. What is added to a dead one is of no account. */
	return !(atomic_fetch_add_explicit(&w->count, 1, memory_order_relaxed) & COUNT_DEAD);
}

/* In an epoch. It goes round again only if another process changed the bucket's head meanwhile. */
static bool add(struct table *t, uint32_t hash, const char *text, size_t length)
{
	nvmm_ptr fresh = NVMM_NULL, head;

	for (;;) {
		struct word *w = chain_find(t, &head, hash, text, length);

		if (w != NULL && word_add(w)) {
			if (fresh != NVMM_NULL)
				nvmm_free(t->heap, fresh);
			return true;
		}
		if (w != NULL)
			continue;
		if (fresh == NVMM_NULL)
			fresh = word_new(t, hash, text, length);
		if (fresh == NVMM_NULL)
			return false;
		if (bucket_push(t, hash, head, fresh))
			return true;
	}
}

int table_add(struct table *t, const char *text, size_t length)
{
	bool done;

	if (nvmm_epoch_enter(t->nvmm) < 0)
		return failed(t->nvmm, "enter an epoch");
	done = add(t, hash_of(text, length), text, length);
	nvmm_epoch_exit(t->nvmm);
	return done ? 0 : failed(t->nvmm, "allocate a word");
}

/* Takes 1 from a word's count, if there is any. True: the word is dead, by this. */
static bool word_take(struct word *w)
{
	uint64_t count = count_of(w), none = 0;

	do {
		if (count == 0 || (count & COUNT_DEAD))
			return false;
		/* ordering: relaxed; a counter. */
	} while (!atomic_compare_exchange_weak_explicit(&w->count, &count, count - 1,
							memory_order_relaxed, memory_order_relaxed));
	/* ordering: relaxed; who loses to an adder leaves it alone. */
	return count == 1 && atomic_compare_exchange_strong_explicit(&w->count, &none, COUNT_DEAD,
								     memory_order_relaxed,
								     memory_order_relaxed);
}

int table_take(struct table *t, const char *text, size_t length)
{
	uint32_t hash = hash_of(text, length);
	struct word *w;
	nvmm_ptr head;

	if (nvmm_epoch_enter(t->nvmm) < 0)
		return failed(t->nvmm, "enter an epoch");
	w = chain_find(t, &head, hash, text, length);
	/* Looked for again, it is taken out. */
	if (w != NULL && word_take(w))
		chain_find(t, &head, hash, text, length);
	nvmm_epoch_exit(t->nvmm);
	return 0;
}

/* Calls fn for the words of a bucket that count. In an epoch. */
static bool bucket_walk(struct table *t, uint64_t i, bool (*fn)(void *ctx, const struct word *word),
			void *ctx)
{
	nvmm_ptr ptr = arrow(&t->buckets[i]);

	while (ptr != NVMM_NULL) {
		struct word *w = nvmm_local(t->nvmm, ptr);

		if (w == NULL || (word_count(w) > 0 && !fn(ctx, w)))
			return false;
		ptr = arrow(&w->next) & ~MARK;
	}
	return true;
}

struct search {
	uint32_t hash;
	const char *text;
	size_t length;
	uint64_t count;
};

static bool search_word(void *ctx, const struct word *w)
{
	struct search *s = ctx;

	if (word_is(w, s->hash, s->text, s->length))
		s->count = word_count(w);
	return s->count == 0;
}

int table_count(struct table *t, const char *text, uint64_t *ret)
{
	struct search s = { .text = text, .length = strlen(text) };

	s.hash = hash_of(text, s.length);
	if (nvmm_epoch_enter(t->nvmm) < 0)
		return failed(t->nvmm, "enter an epoch");
	bucket_walk(t, s.hash & (t->n_buckets - 1), search_word, &s);
	nvmm_epoch_exit(t->nvmm);
	*ret = s.count;
	return 0;
}

/* An epoch for each bucket: a reader that was in one for the whole table would hold up all that is freed
 * meanwhile. */
bool table_walk(struct table *t, bool (*fn)(void *ctx, const struct word *word), void *ctx)
{
	bool go_on = true;

	for (uint64_t i = 0; i < t->n_buckets && go_on; i++) {
		if (nvmm_epoch_enter(t->nvmm) < 0)
			return failed(t->nvmm, "enter an epoch") == 0;
		go_on = bucket_walk(t, i, fn, ctx);
		nvmm_epoch_exit(t->nvmm);
	}
	return go_on;
}

/* Making and finding it */

/*
 * Makes the heap, or finds it. Several processes may try at once: one makes it, the others
 * are told -EEXIST, also while it is only being made, and look again until they find it.
 */
static int heap_make(struct table *t, const struct table_options *options, nvmm_pool_id *id)
{
	struct nvmm_pool_options pool = { .size = sizeof(pool), .name = options->heap };
	const struct timespec moment = { .tv_nsec = 10000000 };
	int r = -ENOENT;

	for (unsigned tries = 0; tries < 1000; tries++) {
		*id = 0;
		r = nvmm_heap_create(t->nvmm, id, options->heap_bytes, &pool);
		if (r != -EEXIST)
			break;
		r = nvmm_pool_lookup(t->nvmm, options->heap, id);
		if (r != -ENOENT)
			break;
		nanosleep(&moment, NULL);
	}
	return r;
}

static int heap_find(struct table *t, const struct table_options *options, bool write, bool create)
{
	struct nvmm_pool_info info = { .size = sizeof(info) };
	nvmm_pool_id id;
	int r;

	r = nvmm_pool_lookup(t->nvmm, options->heap, &id);
	if (r == -ENOENT && create)
		r = heap_make(t, options, &id);
	if (r == 0)
		r = nvmm_heap_open(&t->heap, t->nvmm, id, write ? O_RDWR : O_RDONLY);
	if (r == 0)
		r = nvmm_pool_stat(t->nvmm, id, &info);
	t->power = info.durability == NVMM_DURABILITY_POWER;
	return r < 0 ? failed(t->nvmm, options->heap) : 0;
}

/* An empty index that nobody knows of yet. */
static nvmm_ptr index_new(struct table *t)
{
	nvmm_ptr buckets = nvmm_zalloc(t->heap, INDEX_BUCKETS * sizeof(nvmm_ptr));
	nvmm_ptr ptr = buckets ? nvmm_alloc(t->heap, sizeof(struct index)) : NVMM_NULL;
	struct index *index;

	if (ptr == NVMM_NULL) {
		nvmm_free(t->heap, buckets);
		return NVMM_NULL;
	}
	index = nvmm_local(t->nvmm, ptr);
	*index = (struct index){
		.magic = INDEX_MAGIC,
		.n_buckets = INDEX_BUCKETS,
		.buckets = buckets,
	};
	if (t->power)
		nvmm_persist(index, sizeof(*index));
	return ptr;
}

/*
 * Makes the index the root, unless another process did meanwhile: then ours is thrown away, and
 * theirs is used. The root changes all or nothing, whoever dies.
 */
static int index_install(struct table *t, nvmm_ptr *ret)
{
	nvmm_ptr ours = index_new(t);
	nvmm_ptr seen = NVMM_NULL;
	struct index *index;
	int r;

	if (ours == NVMM_NULL)
		return failed(t->nvmm, "allocate the index");
	r = nvmm_root_cas(t->heap, ROOT_NAME, &seen, ours);
	if (r == 0) {
		*ret = ours;
		return 0;
	}

	index = nvmm_local(t->nvmm, ours);
	nvmm_free(t->heap, index->buckets);
	nvmm_free(t->heap, ours);
	if (r != -EAGAIN)
		return failed(t->nvmm, "set the root");
	*ret = seen;
	return 0;
}

static int index_find(struct table *t, bool create)
{
	struct index *index;
	nvmm_ptr ptr;
	int r;

	r = nvmm_root_get(t->heap, ROOT_NAME, &ptr);
	if (r == -ENOENT && create)
		r = index_install(t, &ptr);
	else if (r < 0)
		failed(t->nvmm, "root " ROOT_NAME);
	if (r < 0)
		return r;

	index = nvmm_local(t->nvmm, ptr);
	if (index == NULL || index->magic != INDEX_MAGIC) {
		fprintf(stderr, "wordindex: the heap's root %s is no word index\n", ROOT_NAME);
		return -1;
	}
	t->n_buckets = index->n_buckets;
	t->buckets = nvmm_local(t->nvmm, index->buckets);
	return t->buckets ? 0 : failed(t->nvmm, "map the buckets");
}

void table_close(struct table *t)
{
	nvmm_heap_close(t->heap);
	nvmm_disconnect(t->nvmm);
}

int table_open(struct table *t, const struct table_options *options, bool write, bool create)
{
	struct nvmm_options how = {
		.size = sizeof(how),
		.socket = options->socket,
		.name = "wordindex",
	};

	*t = (struct table){ 0 };
	if (nvmm_connect(&t->nvmm, &how) < 0)
		return failed(NULL, "connect");
	if (heap_find(t, options, write, create) < 0 || index_find(t, create) < 0) {
		table_close(t);
		return -1;
	}
	return 0;
}
