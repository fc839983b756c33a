/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the text around the fragment in doc/crash-consistency.md takes for given: a list in a heap.
 */
#include <nvmm/client.h>

struct node {
	nvmm_ptr next;
	uint64_t value;
};

struct list {
	nvmm_ptr head;
	uint64_t count;
};

extern struct nvmm_client *nvmm;
extern struct nvmm_heap *heap;
extern struct list *list;
extern nvmm_ptr head_word, count_word;
extern uint64_t value;
