/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two red-black trees over the same nodes: by place, to find neighbours, and by length and place, to
 * find the best fit. Both operations are O(log runs); taking an aligned run looks at more of them when
 * none is long enough to hold it wherever it begins.
 */
#include "media/runs.h"

#include <errno.h>
#include <stdlib.h>
#include <bsd/sys/queue.h>
#include <bsd/sys/tree.h>

#include "common/macro.h"

#define ALIGNED_LOOKS 64 /* runs that may or may not hold an aligned one, before a longer one is taken */

struct node {
	struct run run;
	RB_ENTRY(node) by_place;
	RB_ENTRY(node) by_length;
	SLIST_ENTRY(node) ready;
};

static int compare_place(const struct node *a, const struct node *b)
{
	if (a->run.shelf != b->run.shelf)
		return a->run.shelf < b->run.shelf ? -1 : 1;
	if (a->run.unit != b->run.unit)
		return a->run.unit < b->run.unit ? -1 : 1;
	return 0;
}

static int compare_length(const struct node *a, const struct node *b)
{
	if (a->run.length != b->run.length)
		return a->run.length < b->run.length ? -1 : 1;
	return compare_place(a, b);
}

RB_HEAD(place_tree, node);
RB_HEAD(length_tree, node);
RB_GENERATE_INTERNAL(place_tree, node, by_place, compare_place, _unused static)
RB_GENERATE_INTERNAL(length_tree, node, by_length, compare_length, _unused static)

struct runs {
	struct place_tree places;
	struct length_tree lengths;
	uint64_t units;
	SLIST_HEAD(, node) ready;
	unsigned n_ready;
};

int runs_new(struct runs **ret)
{
	struct runs *runs = calloc(1, sizeof(*runs));

	if (!runs)
		return -ENOMEM;
	RB_INIT(&runs->places);
	RB_INIT(&runs->lengths);
	SLIST_INIT(&runs->ready);
	*ret = runs;
	return 0;
}

static void unlink_node(struct runs *runs, struct node *n)
{
	RB_REMOVE(place_tree, &runs->places, n);
	RB_REMOVE(length_tree, &runs->lengths, n);
	runs->units -= n->run.length;
}

static void link_node(struct runs *runs, struct node *n)
{
	RB_INSERT(place_tree, &runs->places, n);
	RB_INSERT(length_tree, &runs->lengths, n);
	runs->units += n->run.length;
}

void runs_free(struct runs *runs)
{
	struct node *n;

	if (!runs)
		return;
	while ((n = RB_ROOT(&runs->places))) {
		unlink_node(runs, n);
		free(n);
	}
	while ((n = SLIST_FIRST(&runs->ready))) {
		SLIST_REMOVE_HEAD(&runs->ready, ready);
		free(n);
	}
	free(runs);
}

static bool touches(const struct run *left, const struct run *right)
{
	return left->shelf == right->shelf && left->unit + left->length == right->unit;
}

static void add_node(struct runs *runs, struct node *n, struct run run)
{
	struct node *next, *prev;

	n->run = run;
	next = RB_NFIND(place_tree, &runs->places, n);
	prev = next ? RB_PREV(place_tree, &runs->places, next)
		    : RB_MAX(place_tree, &runs->places);
	if (next && touches(&n->run, &next->run)) {
		unlink_node(runs, next);
		n->run.length += next->run.length;
		free(next);
	}
	if (prev && touches(&prev->run, &n->run)) {
		unlink_node(runs, prev);
		n->run.unit = prev->run.unit;
		n->run.length += prev->run.length;
		free(prev);
	}
	link_node(runs, n);
}

int runs_add(struct runs *runs, struct run run)
{
	struct node *n = malloc(sizeof(*n));

	if (!n)
		return -ENOMEM;
	add_node(runs, n, run);
	return 0;
}

int runs_ready(struct runs *runs, unsigned n)
{
	while (runs->n_ready < n) {
		struct node *node = malloc(sizeof(*node));

		if (!node)
			return -ENOMEM;
		SLIST_INSERT_HEAD(&runs->ready, node, ready);
		runs->n_ready++;
	}
	return 0;
}

int runs_add_ready(struct runs *runs, struct run run)
{
	struct node *n = SLIST_FIRST(&runs->ready);

	if (!n)
		return runs_add(runs, run);
	SLIST_REMOVE_HEAD(&runs->ready, ready);
	runs->n_ready--;
	add_node(runs, n, run);
	return 0;
}

static bool fits(const struct run *run, uint64_t length, uint64_t align)
{
	uint64_t lead = run_aligned(run, align) - run->unit;

	return lead < run->length && run->length - lead >= length;
}

/* The run to take from; NULL: there is none. */
static struct node *find(struct runs *runs, uint64_t length, uint64_t align)
{
	struct node key = { .run = { .length = length } };
	struct node *n = RB_NFIND(length_tree, &runs->lengths, &key);

	for (int i = 0; n && i < ALIGNED_LOOKS; i++) {
		if (fits(&n->run, length, align))
			return n;
		n = RB_NEXT(length_tree, &runs->lengths, n);
	}
	/* Only runs that are shorter than this may fail to have them: if the shortest of the longer
	 * ones does not exist, all that are left are looked at. */
	key.run.length = length + align - 1;
	if (n && n->run.length < key.run.length) {
		struct node *longer = RB_NFIND(length_tree, &runs->lengths, &key);

		if (longer)
			return longer;
	}
	while (n && !fits(&n->run, length, align))
		n = RB_NEXT(length_tree, &runs->lengths, n);
	return n;
}

/* Puts a part of a run that is taken apart back, in `n`, which is freed if there is nothing of it. */
static void put_part(struct runs *runs, struct node *n, struct run part)
{
	if (part.length == 0) {
		free(n);
		return;
	}
	n->run = part;
	link_node(runs, n);
}

int runs_take(struct runs *runs, uint64_t length, uint64_t align, struct run *ret)
{
	struct node *n = find(runs, length, align), *before = NULL;
	uint64_t lead;
	struct run run;

	if (!n)
		return -ENOSPC;
	run = n->run;
	lead = run_aligned(&run, align) - run.unit;
	if (lead > 0) {
		before = malloc(sizeof(*before));
		if (!before)
			return -ENOMEM;
	}
	unlink_node(runs, n);
	put_part(runs, before, (struct run){ .shelf = run.shelf, .unit = run.unit, .length = lead });
	put_part(runs, n, (struct run){ .shelf = run.shelf,
					.unit = run.unit + (uint32_t)(lead + length),
					.length = run.length - lead - length });
	*ret = run;
	return 0;
}

bool runs_at(const struct runs *runs, uint32_t shelf, uint64_t unit, struct run *ret)
{
	struct place_tree *places = (struct place_tree *)(uintptr_t)&runs->places;
	struct node key = { .run = { .shelf = shelf, .unit = (uint32_t)unit } };
	struct node *n = RB_NFIND(place_tree, places, &key);
	struct node *prev = n ? RB_PREV(place_tree, places, n) : RB_MAX(place_tree, places);

	/* The run before it may reach over the place. */
	if (prev && prev->run.shelf == shelf && prev->run.unit + prev->run.length > unit)
		n = prev;
	if (n)
		*ret = n->run;
	return n != NULL;
}

uint64_t runs_units(const struct runs *runs)
{
	return runs->units;
}

uint64_t runs_longest(const struct runs *runs)
{
	const struct node *n = RB_MAX(length_tree, (struct length_tree *)(uintptr_t)&runs->lengths);

	return n ? n->run.length : 0;
}
