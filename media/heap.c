/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A heap's mapped metadata: from a pointer to its span and block, hints.
 *
 * Nothing read here is trusted before it is bounded: a word is loaded once, unpacked, checked against
 * the shelf's length, then used. So a rotten or hostile table makes a call fail, never fault. A hint
 * is a bit in the shelf's bitmap (never lost but to a kill, which lane.freeing and the owned-span
 * table cover) and, when the bit was newly set, a ref in a small array of the span's class, which
 * may be overwritten or lost at will.
 */
#include "media/heap.h"

#include <errno.h>
#include <string.h>

#include "common/macro.h"
#include "media/mark.h"

int heap_init(struct heap *heap, uint16_t pool, uint16_t node, enum durability durability,
	      uint32_t min_block)
{
	struct state_layout layout;
	int r = state_layout_init(&layout, min_block);

	if (r < 0)
		return r;
	memset(heap, 0, sizeof(*heap));
	heap->pool = pool;
	heap->node = node;
	heap->durability = durability;
	heap->min_block = min_block;
	heap->first_class = class_of(min_block);
	heap->layout = layout;
	return 0;
}

void heap_shelf_init(struct heap_shelf *shelf, void *table, void *state, uint64_t units, uint64_t limit,
		     bool sparse)
{
	char *t = table, *s = state;

	*shelf = (struct heap_shelf){
		.table = ((struct table_file_df *)table)->word,
		.state = s + state_records_offset(limit),
		.hints = (m64 *)(void *)(s + MEDIA_PAGE),
		.limbo_hints = (m64 *)(void *)(s + limbo_hints_offset(limit)),
		.units = units,
		.limit = limit,
		.granules = sparse ? (m64 *)(void *)(t + table_file_size(limit)) : NULL,
	};
}

void heap_shelf_add(struct heap *heap, uint32_t index, struct heap_shelf *shelf)
{
	/* ordering: the count needs none; who finds the shelf reads `units` with acquire. */
	__atomic_fetch_add(&heap->bytes, shelf->units << UNIT_SHIFT, __ATOMIC_RELAXED);
	/* ordering: release; pairs with the acquire in shelf_get(): the shelf is filled before. */
	__atomic_store_n(&heap->shelf[index], shelf, __ATOMIC_RELEASE);
}

void heap_shelf_grow(struct heap *heap, struct heap_shelf *shelf, uint64_t units)
{
	/* ordering: as in heap_shelf_add(). */
	__atomic_fetch_add(&heap->bytes, (units - shelf->units) << UNIT_SHIFT, __ATOMIC_RELAXED);
	/* ordering: release; pairs with the acquire in shelf_units(). */
	__atomic_store_n(&shelf->units, units, __ATOMIC_RELEASE);
}

static struct heap_shelf *shelf_get(struct heap *heap, uint32_t index)
{
	/* ordering: acquire; pairs with the release in heap_shelf_add(). */
	return __atomic_load_n(&heap->shelf[index], __ATOMIC_ACQUIRE);
}

static uint64_t shelf_units(const struct heap_shelf *shelf)
{
	/* ordering: acquire; pairs with the release in heap_shelf_grow(). */
	return __atomic_load_n(&shelf->units, __ATOMIC_ACQUIRE);
}

/* Unpacks the word of a unit; whether it is a typed head that stays within its shelf. */
static bool read_head(const struct heap_shelf *shelf, uint64_t units, uint32_t unit,
		      struct span *ret)
{
	struct span s = span_unpack(shelf_word(shelf, unit));

	if (s.length == 0 || s.length > units - unit)
		return false;
	if (s.kind == SPAN_SMALL ? s.class >= CLASS_COUNT || s.length > CLASS_SPAN_UNITS_MAX
				 : s.kind != SPAN_LARGE)
		return false;
	*ret = s;
	return true;
}

/* What is to be said of a head that read_head() refused: -ENXIO if it ends behind what is known of the
 * shelf, which may have grown meanwhile under a run that was free at its old end; else -EINVAL. */
static int refused(const struct heap_shelf *shelf, uint64_t units, uint32_t unit)
{
	struct span s = span_unpack(shelf_word(shelf, unit));

	if ((s.kind == SPAN_SMALL || s.kind == SPAN_LARGE) && s.length > units - unit &&
	    s.length <= shelf->limit - unit)
		return -ENXIO;
	return -EINVAL;
}

static void fill_at(struct heap *heap, struct heap_shelf *shelf, uint64_t ref, struct span span,
		    struct span_at *ret)
{
	ret->shelf = shelf;
	ret->ref = ref;
	ret->record = shelf->state + (uint64_t)ref_unit(ref) * heap->layout.stride;
	ret->span = span;
	if (span.kind == SPAN_SMALL) {
		ret->blocks = class_span_blocks(span.class, span.length, heap->layout.bits);
		ret->block_size = size_classes[span.class].size;
	} else {
		ret->blocks = 1;
		ret->block_size = (uint64_t)span.length << UNIT_SHIFT;
	}
}

int heap_span(struct heap *heap, uint64_t ref, struct span_at *ret)
{
	struct heap_shelf *shelf = shelf_get(heap, ref_shelf(ref));
	uint32_t unit = ref_unit(ref);
	struct span span;
	uint64_t units;

	if (!shelf)
		return -ENXIO;
	units = shelf_units(shelf);
	if (unit >= units)
		return -ENXIO;
	if (!read_head(shelf, units, unit, &span))
		return refused(shelf, units, unit);
	fill_at(heap, shelf, ref, span, ret);
	return 0;
}

/* The head of the span that covers a unit: itself, or what its back-offset says, if that is true. */
static int find_head(struct heap_shelf *shelf, uint64_t units, uint32_t *unit, struct span *ret)
{
	struct span s = span_unpack(shelf_word(shelf, *unit));
	uint32_t back = 0;

	if (s.kind == SPAN_INTERIOR) {
		back = s.length;
		if (back > *unit)
			return -EINVAL;
	}
	if (!read_head(shelf, units, *unit - back, &s))
		return refused(shelf, units, *unit - back);
	if (s.length <= back)
		return -EINVAL;
	*unit -= back;
	*ret = s;
	return 0;
}

/*
 * find_head() for a unit inside of a large block, whose interior words say nothing: no head stands inside
 * of a typed span, so the nearest one before the unit covers it or nothing does.
 */
static int find_large(struct heap_shelf *shelf, uint64_t units, uint32_t *unit, struct span *ret)
{
	for (uint32_t head = *unit; head-- > 0;) {
		struct span s;

		if (!shelf_has(shelf, head)) {
			head -= head % GRANULE_UNITS; /* no head is in a granule without metadata */
			continue;
		}
		s = span_unpack(media_load64(&shelf->table[head]));
		if (s.kind != SPAN_SMALL && s.kind != SPAN_LARGE)
			continue;
		if (s.kind == SPAN_SMALL || !read_head(shelf, units, head, &s) ||
		    s.length <= *unit - head)
			return -EINVAL;
		*unit = head;
		*ret = s;
		return 0;
	}
	return -EINVAL;
}

/* heap_block_around(); *rest is how far behind the block's start `ptr` is. */
static int block_around(struct heap *heap, uint64_t ptr, struct span_at *ret, uint32_t *index,
			uint64_t *rest, bool inside)
{
	uint64_t ref = ref_of_ptr(ptr);
	struct heap_shelf *shelf = shelf_get(heap, ref_shelf(ref));
	uint32_t unit = ref_unit(ref);
	uint64_t units, offset;
	struct span_at at;
	struct span span;
	uint32_t i = 0;
	int r;

	if (!shelf)
		return -ENXIO;
	units = shelf_units(shelf);
	if (unit >= units)
		return -ENXIO;
	r = find_head(shelf, units, &unit, &span);
	if (r == -EINVAL && inside)
		r = find_large(shelf, units, &unit, &span);
	if (r < 0)
		return r;
	fill_at(heap, shelf, ref_make(ref_shelf(ref), unit), span, &at);
	offset = (ptr & ((UINT64_C(1) << 40) - 1)) - ((uint64_t)unit << UNIT_SHIFT);
	if (span.kind == SPAN_SMALL)
		i = class_index(span.class, offset);
	if (i >= at.blocks)
		return -EINVAL;
	*ret = at;
	*index = i;
	*rest = offset - i * at.block_size;
	return 0;
}

int heap_covering(struct heap *heap, uint64_t ref, struct span_at *ret)
{
	struct heap_shelf *shelf = shelf_get(heap, ref_shelf(ref));
	uint64_t units = shelf ? shelf_units(shelf) : 0;
	uint32_t unit = ref_unit(ref);
	struct span span;
	int r;

	if (unit >= units)
		return -ENXIO;
	r = find_head(shelf, units, &unit, &span);
	if (r == 0)
		fill_at(heap, shelf, ref_make(ref_shelf(ref), unit), span, ret);
	return r;
}

uint64_t heap_shelf_units(struct heap *heap, uint32_t index)
{
	struct heap_shelf *shelf = shelf_get(heap, index);

	return shelf ? shelf_units(shelf) : 0;
}

int heap_block(struct heap *heap, uint64_t ptr, struct span_at *ret, uint32_t *index)
{
	uint64_t rest;
	int r = block_around(heap, ptr, ret, index, &rest, false);

	return r == 0 && rest != 0 ? -EINVAL : r;
}

int heap_block_around(struct heap *heap, uint64_t ptr, struct span_at *ret, uint32_t *index)
{
	uint64_t rest;

	return block_around(heap, ptr, ret, index, &rest, true);
}

/* Puts a ref where allocators of the class look first; an occupied place is left alone. */
static void hint_class(struct heap *heap, const struct span_at *at)
{
	m64 *place;

	if (!heap->lanes || at->span.kind != SPAN_SMALL)
		return;
	place = &heap->lanes->hint[at->span.class][ref_unit(at->ref) % CLASS_HINTS];
	/* ordering: full barrier, more than it needs; the taker validates the ref against the table. */
	if (media_load64(place) == 0)
		media_cas(place, 0, at->ref);
}

void heap_hint(struct heap *heap, const struct span_at *at)
{
	uint32_t unit = ref_unit(at->ref);
	m64 *word = &at->shelf->hints[unit / 64];
	uint64_t bit = UINT64_C(1) << (unit % 64);

	/*
	 * A bit that is set is left alone: what the caller did before was a full barrier, so if the
	 * bit was cleared by an adopter after this load, the adopter collects what the caller did.
	 * ordering: the OR is a full barrier; pairs with heap_unhint().
	 */
	if ((media_load64(word) & bit) == 0 && (media_or(word, bit) & bit) == 0)
		hint_class(heap, at);
}

void heap_unhint(const struct span_at *at)
{
	uint32_t unit = ref_unit(at->ref);
	m64 *word = &at->shelf->hints[unit / 64];
	uint64_t bit = UINT64_C(1) << (unit % 64);

	/* ordering: full barrier, before the caller reads the remote bits; pairs with heap_hint(). */
	if (media_load64(word) & bit)
		media_and(word, ~bit);
}

uint64_t heap_hint_take(struct heap *heap, unsigned class)
{
	if (!heap->lanes)
		return 0;
	for (unsigned i = 0; i < CLASS_HINTS; i++) {
		m64 *place = &heap->lanes->hint[class][i];
		uint64_t ref = 0;

		if (media_load64(place) != 0)
			/* ordering: full barrier; the taker alone has the ref from here on. */
			ref = media_swap(place, 0);
		if (ref != 0)
			return ref;
	}
	return 0;
}

/* Hint words of a granule: the steps in which a sparse heap's maps are walked. */
#define GRANULE_WORDS (GRANULE_UNITS / 64)

uint64_t shelf_hint_word(const struct heap_shelf *shelf, uint64_t w, uint64_t end)
{
	uint64_t granule = w / GRANULE_WORDS;

	if (!shelf->granules || w >= end || shelf_has(shelf, w * 64))
		return MIN(w, end);
	for (granule++; granule * GRANULE_WORDS < end; granule++) {
		uint64_t bits = media_load64(&shelf->granules[granule / 64]) >> granule % 64;

		if (bits)
			return MIN((granule + (uint64_t)__builtin_ctzll(bits)) * GRANULE_WORDS, end);
		granule |= 63;
	}
	return end;
}

uint64_t shelf_hint_words(const struct heap_shelf *shelf, uint64_t end)
{
	uint64_t n = 0;

	if (!shelf->granules)
		return end;
	for (uint64_t i = 0; i * 64 * GRANULE_WORDS < end; i++)
		n += (uint64_t)__builtin_popcountll(media_load64(&shelf->granules[i]));
	return n * GRANULE_WORDS;
}
