/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table is a row of buckets, each the head of a chain of words:
 *
 *   root "wordindex" -> struct index -> buckets[0..n-1] -> struct word -> struct word -> 0
 *
 * Every arrow is a global pointer (nvmm_ptr), so that it means the same in each process. Chains
 * only grow, at their heads, so readers and writers need no lock:
 *
 *   who        does                                               together with
 *   indexer    looks for its word; if it is there adds 1 to its   any number of others
 *              count; else fills a new one and swaps it in as the
 *              bucket's head by compare-and-swap
 *   reader     walks chains                                       all of the above
 *
 * Linearisation: a new word at the compare-and-swap, a further occurrence at the addition. If an
 * indexer dies between any two steps, the table is whole, and at most one block is allocated that
 * nobody reaches.
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

/* What the root points to. */
struct index {
	uint64_t magic;
	uint64_t n_buckets; /* a power of two */
	nvmm_ptr buckets;   /* of n_buckets atomic nvmm_ptr */
};

int failed(struct nvmm *nvmm, const char *what)
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

static nvmm_ptr bucket_head(struct table *t, uint64_t i)
{
	/* ordering: acquire; pairs with the release of the compare-and-swap in table_add(): whoever
	 * sees the pointer sees the word behind it, and all words behind that one. */
	return atomic_load_explicit(&t->buckets[i & (t->n_buckets - 1)], memory_order_acquire);
}

/* Looks through the chain from `ptr` up to, not including, `end`. NULL: it is not there. */
static struct word *chain_find(struct table *t, nvmm_ptr ptr, nvmm_ptr end, uint32_t hash,
			       const char *text, size_t length)
{
	while (ptr != end) {
		struct word *w = nvmm_local(t->nvmm, ptr);

		if (w == NULL)
			return NULL;
		if (w->hash == hash && w->length == length && memcmp(w->text, text, length) == 0)
			return w;
		ptr = w->next;
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

/* Puts `fresh` in front of `head`. False: somebody was faster, *head is what they put there. */
static bool bucket_push(struct table *t, uint32_t hash, nvmm_ptr *head, nvmm_ptr fresh)
{
	struct word *w = nvmm_local(t->nvmm, fresh);

	w->next = *head;
	nvmm_persist(w, sizeof(*w) + w->length);
	/* ordering: release publishes the filled word, and pairs with the acquire in bucket_head();
	 * acquire on failure makes the words that others put there readable. */
	return atomic_compare_exchange_strong_explicit(bucket_of(t, hash), head, fresh,
						       memory_order_release, memory_order_acquire);
}

/* Lock-free: it goes round again only if another process added a word meanwhile. */
int table_add(struct table *t, const char *text, size_t length)
{
	uint32_t hash = hash_of(text, length);
	nvmm_ptr head = bucket_head(t, hash);
	nvmm_ptr fresh = NVMM_NULL;
	nvmm_ptr searched = NVMM_NULL; /* from here on the chain was looked through */

	for (;;) {
		struct word *w = chain_find(t, head, searched, hash, text, length);

		if (w != NULL) {
			/* ordering: relaxed; a counter, read after its writers have exited. */
			atomic_fetch_add_explicit(&w->count, 1, memory_order_relaxed);
			if (fresh != NVMM_NULL)
				nvmm_free(t->heap, fresh);
			return 0;
		}
		if (fresh == NVMM_NULL) {
			fresh = word_new(t, hash, text, length);
			if (fresh == NVMM_NULL)
				return failed(t->nvmm, "allocate a word");
		}
		searched = head;
		if (bucket_push(t, hash, &head, fresh))
			return 0;
	}
}

uint64_t word_count(const struct word *word)
{
	/* ordering: relaxed; a counter, exact once its writers have exited. */
	return atomic_load_explicit(&word->count, memory_order_relaxed);
}

uint64_t table_count(struct table *t, const char *text)
{
	size_t length = strlen(text);
	uint32_t hash = hash_of(text, length);
	struct word *w = chain_find(t, bucket_head(t, hash), NVMM_NULL, hash, text, length);

	return w ? word_count(w) : 0;
}

bool table_walk(struct table *t, bool (*fn)(void *ctx, const struct word *word), void *ctx)
{
	for (uint64_t i = 0; i < t->n_buckets; i++) {
		nvmm_ptr ptr = bucket_head(t, i);

		while (ptr != NVMM_NULL) {
			struct word *w = nvmm_local(t->nvmm, ptr);

			if (w == NULL || !fn(ctx, w))
				return false;
			ptr = w->next;
		}
	}
	return true;
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

static int heap_find(struct table *t, const struct table_options *options, bool create)
{
	nvmm_pool_id id;
	int r;

	r = nvmm_pool_lookup(t->nvmm, options->heap, &id);
	if (r == -ENOENT && create)
		r = heap_make(t, options, &id);
	if (r == 0)
		r = nvmm_heap_open(&t->heap, t->nvmm, id, create ? O_RDWR : O_RDONLY);
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

int table_open(struct table *t, const struct table_options *options, bool create)
{
	struct nvmm_options how = {
		.size = sizeof(how),
		.socket = options->socket,
		.name = "wordindex",
	};

	*t = (struct table){ 0 };
	if (nvmm_connect(&t->nvmm, &how) < 0)
		return failed(NULL, "connect");
	if (heap_find(t, options, create) < 0 || index_find(t, create) < 0) {
		table_close(t);
		return -1;
	}
	return 0;
}
