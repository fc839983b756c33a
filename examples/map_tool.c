/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The map of map.h from the command line; any number of them at a time.
 *
 * Usage: map HEAP set KEY VALUE | get KEY | remove KEY... | check | churn N
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "map.h"

static int get(struct shared *s, uint64_t key)
{
	uint64_t value;
	int r = map_get(s, key, &value);

	if (r > 0)
		printf("%" PRIu64 "\n", value);
	return r > 0 ? 0 : -1;
}

static int removes(struct shared *s, char **keys, int n)
{
	int r = 0;

	for (int i = 0; i < n && r == 0; i++)
		r = map_remove(s, strtoull(keys[i], NULL, 10));
	return r;
}

static int churn(struct shared *s, unsigned long n)
{
	uint64_t seed = (uint64_t)n * 2654435761u + 1;
	int r = 0;

	for (unsigned long i = 0; i < n && r == 0; i++) {
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
		if (shared_lock(s) < 0)
			return -1;
		if (seed >> 63)
			r = map_set(s, seed >> 32 & 511, i);
		else
			r = map_remove(s, seed >> 32 & 511);
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
		r = map_set(s, key, strtoull(words[2], NULL, 10));
	else if (strcmp(words[0], "remove") == 0)
		r = removes(s, words + 1, n - 1);
	else if (strcmp(words[0], "check") == 0)
		r = map_walk(s, NULL, NULL);
	shared_unlock(s);
	return r;
}

int main(int argc, char **argv)
{
	struct shared s;
	int r;

	if (argc < 3) {
		fprintf(stderr, "usage: map HEAP set KEY VALUE | get KEY | remove KEY... | check | churn N\n");
		return 2;
	}
	r = shared_open(&s, argv[1], sizeof(struct map));
	if (r == 0)
		r = run(&s, argv + 2, argc - 2);
	shared_close(&s);
	return r < 0 ? 1 : 0;
}
