/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A persistent hash map from numbers to numbers, for any number of processes. Whoever is killed, and wherever, a change is
 * in it or not, and no block is lost.
 *
 *   set:    a new node takes the place of the old one, which is freed when no reader can be at it any more
 *   get:    inside an epoch, without a lock
 *   remove: the link to the node passes it by, and the node is freed
 *
 * Each change is one nvmm_publish(). Links are words: of the table, or the first of a node.
 *
 * Usage: map HEAP set KEY VALUE | get KEY | remove KEY | check | churn N
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared.h"

#define BUCKETS 256u

struct map {
	struct shared_root root;
	uint64_t count;
	nvmm_ptr bucket[BUCKETS];
};

struct node {
	nvmm_ptr next; /* first: its address is the node's */
	uint64_t key, value;
};

/* A node and the word that leads to it; the word at the chain's end if there is none. */
struct found {
	nvmm_ptr link, at;
	const struct node *node;
};

static struct found find(struct shared *s, uint64_t key)
{
	const struct map *m = s->root;
	unsigned bucket = key * UINT64_C(0x9e3779b97f4a7c15) >> 56;
	struct found f = { .link = shared_word(s, offsetof(struct map, bucket)) + 8 * bucket,
			   .at = m->bucket[bucket] };

	while (f.at) {
		f.node = nvmm_local(s->nvmm, f.at);
		if (f.node->key == key)
			break;
		f.link = f.at;
		f.at = f.node->next;
	}
	return f;
}

static int set(struct shared *s, uint64_t key, uint64_t value)
{
	const struct map *m = s->root;
	struct found f = find(s, key);
	nvmm_ptr ptr = nvmm_reserve(s->heap, sizeof(struct node));
	struct node *node = nvmm_local(s->nvmm, ptr);
	struct nvmm_action actions[] = {
		NVMM_COMMIT(ptr),
		NVMM_STORE(f.link, ptr),
		f.at ? (struct nvmm_action)NVMM_FREE(f.at) :
		       (struct nvmm_action)NVMM_STORE(shared_word(s, offsetof(struct map, count)),
						      m->count + 1),
	};

	if (!node)
		return shared_failed(s, "reserve");
	*node = (struct node){ .next = f.at ? f.node->next : NVMM_NULL, .key = key, .value = value };
	nvmm_persist(node, sizeof(*node));
	return nvmm_publish(s->heap, actions, 3) < 0 ? shared_failed(s, "set") : 0;
}

static int erase(struct shared *s, uint64_t key)
{
	const struct map *m = s->root;
	struct found f = find(s, key);

	if (!f.at)
		return 0;
	struct nvmm_action actions[] = {
		NVMM_STORE(f.link, f.node->next),
		NVMM_STORE(shared_word(s, offsetof(struct map, count)), m->count - 1),
		NVMM_FREE(f.at),
	};
	return nvmm_publish(s->heap, actions, 3) < 0 ? shared_failed(s, "remove") : 0;
}

static int get(struct shared *s, uint64_t key)
{
	struct found f;

	if (nvmm_epoch_enter(s->nvmm) < 0)
		return shared_failed(s, "get");
	f = find(s, key);
	if (f.at)
		printf("%" PRIu64 "\n", f.node->value);
	nvmm_epoch_exit(s->nvmm);
	return f.at ? 0 : -1;
}

/* Each node is in its bucket, and there are as many as are counted. */
static int check(struct shared *s)
{
	const struct map *m = s->root;
	uint64_t n = 0;

	for (unsigned b = 0; b < BUCKETS; b++)
		for (nvmm_ptr p = m->bucket[b]; p && n <= m->count; n++) {
			const struct node *node = nvmm_local(s->nvmm, p);

			if (find(s, node->key).at != p) {
				fprintf(stderr, "map: key %" PRIu64 " is twice in it\n", node->key);
				return -1;
			}
			p = node->next;
		}
	if (n == m->count)
		return 0;
	fprintf(stderr, "map: it is broken: %" PRIu64 " of %" PRIu64 " nodes\n", n, m->count);
	return -1;
}

static int churn(struct shared *s, unsigned long n)
{
	uint64_t seed = (uint64_t)n * 2654435761u + 1;
	int r = 0;

	for (unsigned long i = 0; i < n && r == 0; i++) {
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
		if (shared_lock(s) < 0)
			return -1;
		r = seed >> 63 ? set(s, seed >> 32 & 511, i) : erase(s, seed >> 32 & 511);
		shared_unlock(s);
	}
	return r;
}

static int run(struct shared *s, char **words, int n)
{
	uint64_t key = n > 1 ? strtoull(words[1], NULL, 10) : 0;
	int r = -1;

	if (strcmp(words[0], "churn") == 0)
		return churn(s, key);
	if (strcmp(words[0], "get") == 0)
		return get(s, key);
	if (shared_lock(s) < 0)
		return -1;
	if (strcmp(words[0], "set") == 0 && n > 2)
		r = set(s, key, strtoull(words[2], NULL, 10));
	else if (strcmp(words[0], "remove") == 0)
		r = erase(s, key);
	else if (strcmp(words[0], "check") == 0)
		r = check(s);
	shared_unlock(s);
	return r;
}

int main(int argc, char **argv)
{
	struct shared s;
	int r;

	if (argc < 3) {
		fprintf(stderr, "usage: map HEAP set KEY VALUE | get KEY | remove KEY | check | churn N\n");
		return 2;
	}
	r = shared_open(&s, argv[1], sizeof(struct map));
	if (r == 0)
		r = run(&s, argv + 2, argc - 2);
	shared_close(&s);
	return r < 0 ? 1 : 0;
}
