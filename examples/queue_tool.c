/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The queue of queue.h from the command line; any number of them at a time.
 *
 * Usage: queue HEAP put NUMBER... | take [N] | list | check | churn N
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue.h"

static void print(uint64_t item, nvmm_ptr node, void *arg)
{
	(void)node;
	(void)arg;
	printf("%" PRIu64 "\n", item);
}

/* Up to n items. */
static int takes(struct shared *s, unsigned long n)
{
	uint64_t item;
	int r = 1;

	for (unsigned long i = 0; i < n && r == 1; i++) {
		r = queue_take(s, &item);
		if (r == 1)
			print(item, NVMM_NULL, NULL);
	}
	return r;
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
		if (q->count < 100 && (i * 7919 / 13 % 2 || q->count == 0))
			r = queue_put(s, i);
		else
			r = queue_take(s, &item);
		shared_unlock(s);
	}
	return r < 0 ? -1 : 0;
}

static int run(struct shared *s, char **words, int n)
{
	int r = 0;

	if (strcmp(words[0], "churn") == 0)
		return churn(s, n > 1 ? strtoul(words[1], NULL, 10) : 1000);
	if (shared_lock(s) < 0)
		return -1;
	if (strcmp(words[0], "put") == 0)
		for (int i = 1; i < n && r == 0; i++)
			r = queue_put(s, strtoull(words[i], NULL, 10));
	else if (strcmp(words[0], "take") == 0)
		r = takes(s, n > 1 ? strtoul(words[1], NULL, 10) : 1);
	else if (strcmp(words[0], "list") == 0)
		r = queue_walk(s, print, NULL);
	else if (strcmp(words[0], "check") == 0)
		r = queue_walk(s, NULL, NULL);
	shared_unlock(s);
	return r < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
	struct shared s;
	int r;

	if (argc < 3) {
		fprintf(stderr, "usage: queue HEAP put NUMBER... | take [N] | list | check | churn N\n");
		return 2;
	}
	r = shared_open(&s, argv[1], sizeof(struct queue));
	if (r == 0)
		r = run(&s, argv + 2, argc - 2);
	shared_close(&s);
	return r < 0 ? 1 : 0;
}
