/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Each change of the queue is one nvmm_publish():
 *
 *   put:  reserve a node, fill it, make it durable; publish { commit it, link it, move the tail, count }
 *   take: publish { move the head, count, free the node }
 *
 * Nothing is repaired: a put or take that was begun is done to the end, or never was.
 */
#include "queue.h"

#include <inttypes.h>
#include <stdio.h>

struct node {
	nvmm_ptr next;
	uint64_t item;
};

#define WORD(s, field) shared_word(s, offsetof(struct queue, field))

int queue_put(struct shared *s, uint64_t item)
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

int queue_take(struct shared *s, uint64_t *item)
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

int queue_walk(struct shared *s, void (*fn)(uint64_t item, nvmm_ptr node, void *arg), void *arg)
{
	const struct queue *q = s->root;
	uint64_t n = 0, sum = 0;
	nvmm_ptr last = NVMM_NULL;

	for (nvmm_ptr p = q->head; p && n <= q->count; n++) {
		const struct node *node = nvmm_local(s->nvmm, p);

		if (!node)
			return shared_failed(s, "node");
		if (fn)
			fn(node->item, p, arg);
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
