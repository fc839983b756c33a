/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * State records: where their parts stand, and the steps that owner, freer, daemon and settler share.
 *
 * Two cache-line groups: alloc and limbo, written by the owner and whoever collects; remote and the
 * tail with the owner word, written by those who free from outside. For the smallest block 64 each is
 * one line. In durability `power` the bits of a span that is open need not be drained (media/mark.h);
 * those of others are drained where they are changed, in the order that span_collect() needs. In
 * `process` all of that does nothing.
 */
#include "media/span.h"

#include <errno.h>

#include "common/macro.h"
#include "media/fault.h"
#include "media/heap.h"
#include "media/mark.h"

int state_layout_init(struct state_layout *ret, uint32_t min_block)
{
	struct state_layout l;

	if (min_block < 16 || min_block > 256 || (min_block & (min_block - 1)) != 0)
		return -EINVAL;
	l.bits = (uint32_t)UNIT_SIZE / min_block;
	l.words = l.bits / 64;
	l.limbo = l.words * (uint32_t)sizeof(m64);
	l.remote = ALIGN_UP(2 * l.limbo, MEDIA_LINE);
	l.tail = l.remote + l.limbo;
	l.stride = ALIGN_UP(l.tail + (uint32_t)sizeof(struct state_tail_df), MEDIA_LINE);
	*ret = l;
	return 0;
}

static uint64_t page_up(uint64_t bytes)
{
	return ALIGN_UP(bytes, (uint64_t)MEDIA_PAGE);
}

static uint64_t hints_size(uint64_t limit_units)
{
	return page_up(DIV_UP(limit_units, 64) * sizeof(m64));
}

uint64_t limbo_hints_offset(uint64_t limit_units)
{
	return MEDIA_PAGE + hints_size(limit_units);
}

uint64_t state_records_offset(uint64_t limit_units)
{
	return limbo_hints_offset(limit_units) + hints_size(limit_units);
}

uint64_t state_file_size(const struct state_layout *l, uint64_t limit_units, uint64_t units)
{
	return page_up(state_records_offset(limit_units) + units * l->stride);
}

uint64_t table_file_size(uint64_t units)
{
	return page_up(sizeof(struct table_file_df) + units * sizeof(m64));
}

uint64_t sparse_table_size(uint64_t limit_units)
{
	uint64_t granules = DIV_UP(limit_units, GRANULE_UNITS);

	return table_file_size(limit_units) + page_up(DIV_UP(granules, 64) * sizeof(m64));
}

uint64_t lanes_file_size(uint32_t lanes)
{
	return sizeof(struct lanes_file_df) + lanes * sizeof(struct lane_df);
}

uint32_t span_used(struct heap *heap, const struct span_at *at)
{
	const m64 *alloc = state_alloc(at->record);
	const m64 *remote = state_remote(&heap->layout, at->record);
	uint32_t used = 0;

	for (uint32_t w = 0; w < span_words(at); w++) {
		uint64_t bits = media_load64(&alloc[w]) & ~media_load64(&remote[w]);

		used += (uint32_t)__builtin_popcountll(bits & span_valid(at, w));
	}
	return used;
}

bool span_block_live(struct heap *heap, const struct span_at *at, uint32_t index)
{
	uint32_t w = index / 64;
	/* ordering: acquire; remote before limbo, as in media/limbo.c: a block that is being collected
	 * is seen as remote, as not in limbo and not allocated, or as not allocated. */
	uint64_t freed = media_load_acquire(&state_remote(&heap->layout, at->record)[w]);

	/* ordering: acquire; as above. */
	freed |= media_load_acquire(&state_limbo(&heap->layout, at->record)[w]);
	return media_load64(&state_alloc(at->record)[w]) & ~freed & UINT64_C(1) << (index % 64);
}

/* Takes the blocks of `freed` out of alloc and limbo, then out of remote; `exact`: each step drained. */
static void collect_word(struct heap *heap, const struct span_at *at, uint32_t w, uint64_t freed,
			 bool exact)
{
	m64 *alloc = &state_alloc(at->record)[w];
	m64 *limbo = &state_limbo(&heap->layout, at->record)[w];
	m64 *remote = &state_remote(&heap->layout, at->record)[w];

	if ((media_load64(limbo) & freed) && !FAULT(COLLECT_LIMBO_KEPT)) {
		/* The daemon does not drain what it makes remote. */
		if (exact)
			media_persist(DURABILITY_POWER, remote, sizeof(*remote));
		/* ordering: full barrier, before the alloc bit falls: a reader never sees limbo
		 * alone. */
		media_and(limbo, ~freed);
	}
	/*
	 * COMMIT: the block is free when its alloc bit is zero; until then its remote bit says so.
	 *   crash before: remote still names the blocks; collecting again does the same.
	 *   crash after:  remote names free blocks; collecting again clears it. Nobody has allocated
	 *                 one meanwhile: the span is still the dead owner's.
	 *   ordering:     release; pairs with the acquire of who adopts the span.
	 *   durable:      alloc and limbo are drained before remote is cleared, and that before any
	 *                 of the blocks is given again. In an open span: limbo before any is given.
	 */
	if (FAULT(COLLECT_REMOTE_FIRST))
		media_and(remote, ~freed);
	media_store_release(alloc, media_load64(alloc) & ~freed);
	if (exact)
		media_persist(DURABILITY_POWER, alloc, heap->layout.limbo + sizeof(*alloc));
	/* ordering: full barrier, after all else, as above. */
	media_and(remote, ~freed);
	if (exact)
		media_persist(DURABILITY_POWER, remote, sizeof(*remote));
}

/* Blocks that others have freed of word `w`. */
static uint64_t freed_bits(struct heap *heap, const struct span_at *at, uint32_t w)
{
	/* ordering: acquire; pairs with the OR of who freed: its last use of the block comes before
	 * our next. */
	return media_load_acquire(&state_remote(&heap->layout, at->record)[w]);
}

uint32_t span_collect(struct heap *heap, const struct span_at *at)
{
	const m64 *alloc = state_alloc(at->record);
	const m64 *limbo = state_limbo(&heap->layout, at->record);
	bool power = heap->durability == DURABILITY_POWER;
	bool exact = power && !span_trusted(heap, at);
	bool undrained = false;
	uint32_t collected = 0;

	for (uint32_t w = 0; w < span_words(at); w++) {
		uint64_t freed = freed_bits(heap, at, w);
		bool limbos;

		if (freed == 0)
			continue;
		limbos = power && !exact && (media_load64(&limbo[w]) & freed);
		collected += (uint32_t)__builtin_popcountll(media_load64(&alloc[w]) & freed);
		collect_word(heap, at, w, freed, exact);
		if (limbos)
			media_flush(DURABILITY_POWER, &limbo[w], sizeof(*limbo));
		undrained |= limbos;
	}
	/* A limbo bit that is durable proves that the block is free: it must be gone before the block
	 * is given again. */
	if (undrained && !FAULT(LIMBO_UNDRAINED))
		media_drain(DURABILITY_POWER);
	return collected;
}

bool span_claim(struct heap *heap, const struct span_at *at, uint64_t owner)
{
	m64 *word = &state_tail(&heap->layout, at->record)->owner;

	/*
	 * COMMIT: the span is the claimer's.
	 *   crash before: it is unowned, as it was.
	 *   crash after:  the settler finds it through the lane's owned-span table, written before;
	 *                 the daemon's own claim is undone at its next start.
	 *   ordering:     full barrier; pairs with the swap of span_disown().
	 */
	return media_cas(word, OWNER_NONE, owner);
}

/* Whether anything could be had of the span: a free block, or one to collect. */
static bool span_has_room(struct heap *heap, const struct span_at *at)
{
	return span_used(heap, at) < at->blocks;
}

void span_release(struct heap *heap, const struct span_at *at)
{
	m64 *word = &state_tail(&heap->layout, at->record)->owner;

	/*
	 * COMMIT: the span is nobody's.
	 *   crash before: it is the dead owner's, and its settler's to disown.
	 *   crash after:  the owned-span entry, cleared later, makes the settler set the hint.
	 *   ordering:     full barrier: the bits are read after it, so a block freed into the span
	 *                 while it was ours is either seen here or hinted by its freer.
	 */
	media_swap(word, OWNER_NONE);
	if (span_has_room(heap, at) && !FAULT(DISOWN_WITHOUT_HINT))
		heap_hint(heap, at);
}

void span_disown(struct heap *heap, const struct span_at *at)
{
	span_close(heap, at);
	span_release(heap, at);
}

int span_free_remote(struct heap *heap, const struct span_at *at, uint32_t index)
{
	m64 *remote = &state_remote(&heap->layout, at->record)[index / 64];
	uint64_t alloc = media_load64(&state_alloc(at->record)[index / 64]);
	uint64_t limbo = media_load64(&state_limbo(&heap->layout, at->record)[index / 64]);
	uint64_t bit = UINT64_C(1) << (index % 64);

	if (!(alloc & bit) || (limbo & bit))
		return -EALREADY;
	span_open(heap, at);
	/*
	 * COMMIT: the block is free; whoever owns the span next or now collects it.
	 *   crash before: it is allocated, as it was.
	 *   crash after:  lane.freeing, written before, makes the settler set the hint.
	 *   ordering:     full barrier: our use of the block comes before, the load of the hint bit
	 *                 in heap_hint() after. Pairs with heap_unhint() and span_collect().
	 */
	if (media_or(remote, bit) & bit)
		return -EALREADY;
	span_changed(heap, at, remote);
	heap_hint(heap, at);
	return 0;
}

const char *span_check(struct heap *heap, const struct span_at *at)
{
	const struct state_layout *l = &heap->layout;
	uint64_t owner = media_load64(&state_tail(l, at->record)->owner);
	uint64_t open = media_load64(span_open_word(heap, at));

	for (uint32_t w = 0; w < l->words; w++) {
		uint64_t alloc = media_load64(&state_alloc(at->record)[w]);
		uint64_t limbo = media_load64(&state_limbo(l, at->record)[w]);
		uint64_t remote = media_load64(&state_remote(l, at->record)[w]);
		uint64_t valid = w < span_words(at) ? span_valid(at, w) : 0;

		if ((alloc | limbo | remote) & ~valid)
			return "a bit stands for no block";
		if (limbo & ~alloc)
			return "a block is in limbo and not allocated";
		if (remote & ~alloc)
			return "a block is freed and not allocated";
	}
	if (!state_sealed(state_tail(l, at->record), span_pack(at->span), ref_unit(at->ref)))
		return "a state record and the span table do not speak of the same span";
	if ((open & (OPEN_TRUST | OPEN_LEFT)) && !(open & OPEN_MARK))
		return "a span is trusted to be open and has no mark";
	if (owner == OWNER_NOT_HEAD)
		return "a typed span's owner word says that it is no head";
	if (owner != OWNER_NONE && owner != OWNER_DAEMON && !(owner & OWNER_LANE))
		return "an owner word names nobody";
	return NULL;
}
