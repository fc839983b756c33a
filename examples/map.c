/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Each change of the map is one nvmm_publish():
 *
 *   set:    a new node takes the place of the old one, which is freed when no reader can be at it any more
 *   remove: the link to the node passes it by, and the node is freed
 *
 * Links are words: of the table, or the first of a node. Readers follow them inside an epoch, without a lock.
 */
#include "map.h"

#include <inttypes.h>
#include <stdio.h>

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
	unsigned bucket = map_bucket(key);
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

int map_set(struct shared *s, uint64_t key, uint64_t value)
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

int map_remove(struct shared *s, uint64_t key)
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

int map_get(struct shared *s, uint64_t key, uint64_t *value)
{
	struct found f;

	if (nvmm_epoch_enter(s->nvmm) < 0)
		return shared_failed(s, "get");
	f = find(s, key);
	if (f.at)
		*value = f.node->value;
	nvmm_epoch_exit(s->nvmm);
	return f.at != NVMM_NULL;
}

int map_walk(struct shared *s, void (*fn)(uint64_t key, uint64_t value, nvmm_ptr node, void *arg), void *arg)
{
	const struct map *m = s->root;
	uint64_t n = 0;

	for (unsigned b = 0; b < MAP_BUCKETS; b++)
		for (nvmm_ptr p = m->bucket[b]; p && n <= m->count; n++) {
			const struct node *node = nvmm_local(s->nvmm, p);

			if (!node)
				return shared_failed(s, "node");
			if (find(s, node->key).at != p) {
				fprintf(stderr, "map: key %" PRIu64 " is twice in it, or misplaced\n", node->key);
				return -1;
			}
			if (fn)
				fn(node->key, node->value, p, arg);
			p = node->next;
		}
	if (n == m->count)
		return 0;
	fprintf(stderr, "map: it is broken: %" PRIu64 " of %" PRIu64 " nodes\n", n, m->count);
	return -1;
}
