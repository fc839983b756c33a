/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A persistent queue that any number of processes put into and take from. Whoever is killed, and wherever, or power
 * cut, the queue is whole: an item is in it or not, and no block is lost.
 *
 * Functions are called under shared_lock(); they return 0 unless said otherwise, or -1 and a message.
 */
#pragma once

#include "shared.h"

/* The root block: zeroed, it is an empty queue. */
struct queue {
	struct shared_root root;
	nvmm_ptr head, tail; /* NVMM_NULL: empty */
	uint64_t count;
	uint64_t sum; /* of the items */
};

int queue_put(struct shared *s, uint64_t item);
/* 1: an item was taken; 0: there is none. */
int queue_take(struct shared *s, uint64_t *item);

/* Calls fn for each item and the node that holds it, the oldest first, and checks that all fits together. fn may be NULL. */
int queue_walk(struct shared *s, void (*fn)(uint64_t item, nvmm_ptr node, void *arg), void *arg);
