/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Counting and mapping.
 *
 * Both walk each shelf from unit 0: a free run or a span, then what stands behind it. Beside a running
 * daemon the next place may have been granted across, retired and cut anew meanwhile: a step that leads into
 * a span goes to its end, one that leads to nothing begins the shelf again. What is rotten stays so.
 *
 * The largest block. Above the largest class it is the longest row of free units, of empty spans that
 * nobody owns, and of those of lanes, which give them up when room is short: a block of whole units. Else it
 * is the largest class whose span fits there as the daemon would cut it, or that has a free block in a span.
 */
#include "media/count.h"

#include <errno.h>

#include "common/macro.h"
#include "media/mark.h"

#define COUNT_TRIES 64u /* walks of a shelf beside a running daemon before it counts as rotten */

/* What is done with what a walk meets: `units` from `unit` on, as far as they are new to it. */
struct visitor {
	void (*run)(struct visitor *v, uint32_t shelf, uint64_t unit, uint64_t units);
	void (*kept)(struct visitor *v, uint32_t shelf, uint64_t unit); /* a unit that is never given */
	void (*span)(struct visitor *v, const struct span_at *at, uint64_t unit, uint64_t units);
};

/* The units of a span that nobody owns and whose blocks are all free: as good as a free run. */
static bool is_spare(struct heap *heap, const struct span_at *at)
{
	return span_used(heap, at) == 0 &&
	       media_load64(&state_tail(&heap->layout, at->record)->owner) == OWNER_NONE;
}

/*
 * Units from `unit`, an interior one of a span that was retired, to the end of the free run that its
 * head became; 0 if it is none. Only a walk beside a running daemon comes here.
 */
static uint64_t free_behind(const struct heap_shelf *shelf, uint64_t units, uint64_t unit)
{
	struct span s = span_unpack(shelf_word(shelf, unit));
	uint32_t back = s.length;

	if (s.kind != SPAN_INTERIOR || back > unit)
		return 0;
	s = span_unpack(shelf_word(shelf, unit - back));
	if (s.kind != SPAN_FREE || s.length <= back || s.length > units - (unit - back))
		return 0;
	return s.length - back;
}

/* One step of the walk: visits what stands at `unit`, returns its length, 0 if nothing can. */
static uint64_t walk_step(struct heap *heap, struct visitor *v, uint32_t index, uint64_t unit,
			  uint64_t units)
{
	const struct heap_shelf *shelf = heap->shelf[index];
	struct span s = span_unpack(shelf_word(shelf, unit));
	struct span_at at;
	uint64_t n;

	if (span_is_kept(&s, index, unit)) {
		v->kept(v, index, unit);
		return s.length;
	}
	if (s.kind == SPAN_FREE && s.length > 0 && s.length <= units - unit) {
		v->run(v, index, unit, s.length);
		return s.length;
	}
	if (heap_covering(heap, ref_make(index, (uint32_t)unit), &at) < 0)
		return free_behind(shelf, units, unit);
	n = at.span.length - (unit - ref_unit(at.ref));
	if (is_spare(heap, &at))
		v->run(v, index, unit, n);
	else
		v->span(v, &at, unit, n);
	return n;
}

static int walk_shelf(struct heap *heap, struct visitor *v, uint32_t index, uint64_t units)
{
	uint64_t step;

	for (uint64_t unit = 0; unit < units; unit += step) {
		step = walk_step(heap, v, index, unit, units);
		if (step == 0)
			return -EUCLEAN;
	}
	return 0;
}

/* Blocks of a span that are in limbo. */
static uint32_t span_limbo(struct heap *heap, const struct span_at *at)
{
	const m64 *limbo = state_limbo(&heap->layout, at->record);
	const m64 *remote = state_remote(&heap->layout, at->record);
	uint32_t n = 0;

	for (uint32_t w = 0; w < DIV_UP(at->blocks, 64u); w++)
		n += (uint32_t)__builtin_popcountll(media_load64(&limbo[w]) & ~media_load64(&remote[w]));
	return MIN(n, at->blocks);
}

/* Counting */

struct counting {
	struct visitor visitor;
	struct heap *heap;
	struct heap_totals totals;
	uint64_t row;     /* units free in a row up to here */
	uint64_t longest; /* such rows */
	uint64_t free_block; /* the largest in a span */
};

static void count_row(struct counting *c, uint64_t units)
{
	c->row += units;
	c->longest = MAX(c->longest, c->row);
}

static void count_run(struct visitor *v, uint32_t shelf, uint64_t unit, uint64_t units)
{
	struct counting *c = container_of(v, struct counting, visitor);

	(void)shelf;
	(void)unit;
	c->totals.free += units << UNIT_SHIFT;
	c->totals.free_units += units << UNIT_SHIFT;
	count_row(c, units);
}

static void count_kept(struct visitor *v, uint32_t shelf, uint64_t unit)
{
	struct counting *c = container_of(v, struct counting, visitor);

	(void)shelf;
	(void)unit;
	c->totals.overhead += UNIT_SIZE;
	c->row = 0;
}

static void count_class(struct counting *c, const struct span_at *at, uint32_t used, uint32_t limbo)
{
	bool small = at->span.kind == SPAN_SMALL;
	struct heap_class_totals *class = &c->totals.class[small ? at->span.class : CLASS_COUNT];

	class->spans++;
	class->bytes += (uint64_t)at->span.length << UNIT_SHIFT;
	class->blocks += at->blocks;
	class->used += used;
	class->limbo += limbo;
}

static void count_span(struct visitor *v, const struct span_at *at, uint64_t unit, uint64_t units)
{
	struct counting *c = container_of(v, struct counting, visitor);
	uint32_t used = MIN(span_used(c->heap, at), at->blocks), limbo = span_limbo(c->heap, at);
	struct heap_totals *t = &c->totals;

	(void)unit;
	t->spans++;
	t->blocks += used;
	t->used += used * at->block_size;
	t->limbo += limbo * at->block_size;
	t->free += (at->blocks - used) * at->block_size;
	t->overhead += ((uint64_t)at->span.length << UNIT_SHIFT) - at->blocks * at->block_size;
	count_class(c, at, used, limbo);
	if (span_suspect(c->heap, at)) {
		t->suspects += used;
		t->suspect_bytes += used * at->block_size;
	} else if (used < at->blocks) {
		c->free_block = MAX(c->free_block, at->block_size);
	}
	if (used == 0)
		count_row(c, units);
	else
		c->row = 0;
}

static uint64_t largest_block(const struct counting *c)
{
	const struct heap *heap = c->heap;
	uint64_t most = MIN(c->longest, c->totals.bytes >> UNIT_SHIFT >> 6);
	uint64_t fits = 0;

	if (c->longest << UNIT_SHIFT > CLASS_SIZE_MAX)
		return MAX(c->longest << UNIT_SHIFT, c->free_block);
	for (unsigned class = heap->first_class; class < CLASS_COUNT; class ++)
		if (class_span_units(class, heap->layout.bits, (uint32_t)MIN(most, UINT64_C(64))) <=
		    c->longest)
			fits = size_classes[class].size;
	return MAX(fits, c->free_block);
}

int heap_count(struct heap *heap, struct heap_totals *ret)
{
	struct counting c = { .visitor = { .run = count_run, .kept = count_kept, .span = count_span }, .heap = heap };

	for (uint32_t i = 0; i < POOL_SHELVES_MAX; i++) {
		uint64_t units = heap_shelf_units(heap, i);
		struct counting before;
		int r = 0;

		if (units == 0)
			continue;
		c.row = 0;
		c.totals.bytes += units << UNIT_SHIFT;
		before = c;
		for (unsigned tries = 0; tries < COUNT_TRIES; tries++) {
			c = before;
			r = walk_shelf(heap, &c.visitor, i, units);
			if (r == 0)
				break;
		}
		if (r < 0)
			return r;
	}
	c.totals.largest = largest_block(&c);
	*ret = c.totals;
	return 0;
}

/* Mapping */

struct mapping {
	struct visitor visitor;
	struct heap *heap;
	uint64_t base; /* of the shelf's units among all */
	uint64_t first;
	uint64_t per_cell;
	struct heap_cell *cells;
	size_t n;
};

/* What of a span falls into a cell: `part` of its `whole` units. */
static uint64_t share(uint64_t bytes, uint64_t part, uint64_t whole)
{
	return (uint64_t)((unsigned __int128)bytes * part / whole);
}

/* Adds units to the cells that they fall into; `add` is of a whole span of `whole` units. */
static void map_units(struct mapping *m, uint64_t unit, uint64_t units, const struct heap_cell *add,
		      uint64_t whole)
{
	uint64_t from = m->base + unit, to = from + units;

	from = MAX(from, m->first);
	to = MIN(to, m->first + m->per_cell * m->n);
	while (from < to) {
		struct heap_cell *cell = &m->cells[(from - m->first) / m->per_cell];
		uint64_t room = m->per_cell - (from - m->first) % m->per_cell;
		uint64_t part = MIN(room, to - from);

		cell->units += part;
		cell->free += add->free ? part : 0;
		cell->small += add->small ? part : 0;
		cell->large += add->large ? part : 0;
		cell->used += share(add->used, part, whole);
		cell->limbo += share(add->limbo, part, whole);
		cell->suspect += share(add->suspect, part, whole);
		from += part;
	}
}

static void map_run(struct visitor *v, uint32_t shelf, uint64_t unit, uint64_t units)
{
	struct mapping *m = container_of(v, struct mapping, visitor);

	(void)shelf;
	map_units(m, unit, units, &(struct heap_cell){ .free = 1 }, units);
}

static void map_kept(struct visitor *v, uint32_t shelf, uint64_t unit)
{
	map_run(v, shelf, unit, 1);
}

static void map_span(struct visitor *v, const struct span_at *at, uint64_t unit, uint64_t units)
{
	struct mapping *m = container_of(v, struct mapping, visitor);
	uint64_t used = MIN(span_used(m->heap, at), at->blocks) * at->block_size;
	bool small = at->span.kind == SPAN_SMALL;
	struct heap_cell add = {
		.small = small,
		.large = !small,
		.used = used,
		.limbo = span_limbo(m->heap, at) * at->block_size,
		.suspect = span_suspect(m->heap, at) ? used : 0,
	};

	map_units(m, unit, units, &add, at->span.length);
}

int heap_map(struct heap *heap, uint64_t first, uint64_t per_cell, struct heap_cell *cells, size_t n)
{
	struct mapping m = { .visitor = { .run = map_run, .kept = map_kept, .span = map_span }, .heap = heap,
			     .first = first, .per_cell = per_cell, .cells = cells, .n = n };

	if (per_cell == 0 || n == 0)
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		cells[i] = (struct heap_cell){ 0 };
	for (uint32_t i = 0; i < POOL_SHELVES_MAX; i++) {
		uint64_t units = heap_shelf_units(heap, i);
		int r = units > 0 ? walk_shelf(heap, &m.visitor, i, units) : 0;

		/* Changed under the walk, or rotten: the picture is what was seen of it. */
		if (r < 0 && r != -EUCLEAN)
			return r;
		m.base += units;
	}
	return 0;
}
