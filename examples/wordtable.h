/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The word index of wordindex: a hash table in a shared heap, used by any number of processes at
 * once. wordtable.c says what stands in the heap and why it is safe.
 */
#ifndef WORDTABLE_H
#define WORDTABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <nvmm/client.h>

/* A word as it stands in the heap. */
struct word {
	_Atomic nvmm_ptr next;  /* lowest bit: the word goes */
	_Atomic uint64_t count; /* read it with word_count() */
	uint32_t hash;
	uint32_t length;
	char text[]; /* not terminated */
};

/* One process's view of a table. */
struct table {
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	_Atomic nvmm_ptr *buckets;
	uint64_t n_buckets;
	bool power; /* what words lead to is to be durable before: the heap survives a power cut */
};

struct table_options {
	const char *socket;  /* NULL: the library's default */
	const char *heap;    /* its name */
	uint64_t heap_bytes; /* size, if it is to be made */
};

/* All return 0, or -1 after a message on stderr, unless said otherwise. */

/* Connects and finds the table; with `create`, makes heap and table where they are missing. A process connects for itself: after fork(), not before. */
int table_open(struct table *t, const struct table_options *options, bool write, bool create);
void table_close(struct table *t);

/* Counts one occurrence of a word, or takes one back (nothing, if there is none). Lock-free. */
int table_add(struct table *t, const char *text, size_t length);
int table_take(struct table *t, const char *text, size_t length);

/* How often the word was counted. */
int table_count(struct table *t, const char *text, uint64_t *ret);

/* Calls fn for every word that is counted at all; `word` is valid until it returns. While others change
 * the table, a word of theirs may be told or not. False: fn returned false, or it failed. */
bool table_walk(struct table *t, bool (*fn)(void *ctx, const struct word *word), void *ctx);

/* The count of a word that is in the table; 0: none, it goes. */
uint64_t word_count(const struct word *word);

/* Says on stderr what failed, with the library's text of why; returns -1. */
int failed(struct nvmm_client *nvmm, const char *what);

#endif
