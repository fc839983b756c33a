/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A persistent queue that any number of processes put into and take from. Whoever is killed, and wherever, the queue is
 * whole: an item is in it or not, and no block is lost.
 *
 *   put:  reserve a node, fill it, publish { commit it, link it, move the tail, count }
 *   take: publish { move the head, count, free the node }
 *
 * Nothing is repaired: a put or take that was begun is done to the end, or never was (nvmm_publish()).
 *
 * Usage: queue HEAP put NUMBER... | take | list | check | churn N
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared.h"

struct queue {
	struct shared_root root;
	nvmm_ptr head, tail; /* NVMM_NULL: empty */
	uint64_t count;
	uint64_t sum; /* of the items */
};

struct node {
	nvmm_ptr next;
	uint64_t item;
};

#define WORD(s, field) shared_word(s, offsetof(struct queue, field))

static int put(struct shared *s, uint64_t item)
{
	const struct queue *q = s->root;
	nvmm_ptr ptr = nvmm_reserve(s->heap, sizeof(struct node));
	struct node *node = nvmm_local(s->nvmm, ptr);
	struct nvmm_action actions[] = {
		NVMM_COMMIT(ptr),
		/* Behind the last node, whose first word is `next`, or at the head. */
		NVMM_STORE(q->tail ? q->tail : WORD(s, head), ptr),
		NVMM_STORE(WORD(s, tail), ptr),
		NVMM_STORE(WORD(s, count), q->count + 1),
		NVMM_STORE(WORD(s, sum), q->sum + item),
	};

	if (!node)
		return shared_failed(s, "reserve");
	*node = (struct node){ .next = NVMM_NULL, .item = item };
	nvmm_persist(node, sizeof(*node));
	return nvmm_publish(s->heap, actions, 5) < 0 ? shared_failed(s, "put") : 0;
}

/* 1: an item was taken; 0: there is none. */
static int take(struct shared *s, uint64_t *item)
{
	const struct queue *q = s->root;
	const struct node *node = nvmm_local(s->nvmm, q->head);
	struct nvmm_action actions[5];

	if (!node)
		return q->head ? shared_failed(s, "head") : 0;
	*item = node->item;
	actions[0] = (struct nvmm_action)NVMM_STORE(WORD(s, head), node->next);
	actions[1] = (struct nvmm_action)NVMM_STORE(WORD(s, tail), node->next ? q->tail : NVMM_NULL);
	actions[2] = (struct nvmm_action)NVMM_STORE(WORD(s, count), q->count - 1);
	actions[3] = (struct nvmm_action)NVMM_STORE(WORD(s, sum), q->sum - node->item);
	actions[4] = (struct nvmm_action)NVMM_FREE(q->head);
	return nvmm_publish(s->heap, actions, 5) < 0 ? shared_failed(s, "take") : 1;
}

static int list(struct shared *s, int quiet)
{
	const struct queue *q = s->root;
	uint64_t n = 0, sum = 0;
	nvmm_ptr last = NVMM_NULL;

	for (nvmm_ptr p = q->head; p && n <= q->count; n++) {
		const struct node *node = nvmm_local(s->nvmm, p);

		if (!quiet)
			printf("%" PRIu64 "\n", node->item);
		sum += node->item;
		last = p;
		p = node->next;
	}
	if (n != q->count || sum != q->sum || last != q->tail) {
		fprintf(stderr, "queue: it is broken: %" PRIu64 " items of %" PRIu64 "\n", n, q->count);
		return -1;
	}
	return 0;
}

/* Puts and takes at random, n times, each under the lock. */
static int churn(struct shared *s, unsigned long n)
{
	const struct queue *q = s->root;
	uint64_t item;
	int r = 0;

	for (unsigned long i = 0; i < n && r >= 0; i++) {
		if (shared_lock(s) < 0)
			return -1;
		r = q->count < 100 && (i * 7919 / 13 % 2 || q->count == 0) ? put(s, i) :
									      take(s, &item);
		shared_unlock(s);
	}
	return r < 0 ? -1 : 0;
}

static int run(struct shared *s, char **words, int n)
{
	uint64_t item;
	int r = 0;

	if (strcmp(words[0], "churn") == 0)
		return churn(s, n > 1 ? strtoul(words[1], NULL, 10) : 1000);
	if (shared_lock(s) < 0)
		return -1;
	if (strcmp(words[0], "put") == 0)
		for (int i = 1; i < n && r == 0; i++)
			r = put(s, strtoull(words[i], NULL, 10));
	else if (strcmp(words[0], "take") == 0 && (r = take(s, &item)) == 1)
		printf("%" PRIu64 "\n", item);
	else if (strcmp(words[0], "list") == 0 || strcmp(words[0], "check") == 0)
		r = list(s, words[0][0] == 'c');
	shared_unlock(s);
	return r < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
	struct shared s;
	int r;

	if (argc < 3) {
		fprintf(stderr, "usage: queue HEAP put NUMBER... | take | list | check | churn N\n");
		return 2;
	}
	r = shared_open(&s, argv[1], sizeof(struct queue));
	if (r == 0)
		r = run(&s, argv + 2, argc - 2);
	shared_close(&s);
	return r < 0 ? 1 : 0;
}
