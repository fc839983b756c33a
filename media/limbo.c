/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Limbo.
 *
 * Hints. A freer ORs its limbo bit, a full barrier, then looks at the span's limbo hint and sets it if
 * it is clear. The daemon clears the hint, a full barrier, then reads the limbo bits. Either the
 * freer finds the hint cleared and sets it for the next snapshot, or the daemon sees its bit. A death in
 * between is covered by the lane's owned-span table or, for the spans of others, by lane.freeing: who settles
 * the lane sets the hints of both.
 *
 * Watching. The daemon sleeps while no heap has limbo. A freer that finds the watch word even wakes it,
 * and only then makes the word odd, so that no death or stop of a freer keeps the others from waking;
 * and only if the word is still the one that it saw, so that a late freer cannot make a word odd
 * behind the daemon's back: each time the daemon looks away it takes the next even number, then looks
 * at all hints once more. A freer that saw an odd word did so before that, and its hint is found then.
 *
 * Reading. For each word `remote` is read before `limbo`: collecting clears limbo first and remote
 * last, so a block that was freed and collected meanwhile is seen either as remote or as not in
 * limbo, never as in limbo alone. The daemon is the only one who makes limbo blocks remote, hence what
 * is in its snapshot stays in limbo until it says so; a client that clears bits by itself spoils its
 * own pool.
 *
 * State records, hints and watch words are clients' to write and to truncate: what the daemon does to
 * them is in functions run by guard_run(), which touch media and their argument alone.
 */
#include "media/limbo.h"

#include <errno.h>
#include <stdlib.h>

#include "common/macro.h"
#include "media/guard.h"
#include "media/lane_quick.h"
#include "media/mark.h"

/* Hints */

static m64 *hint_word(const struct heap_shelf *shelf, uint64_t unit)
{
	return shelf->limbo_hints + unit / 64;
}

static void set_hint(const struct span_at *at)
{
	limbo_hint(at->shelf, ref_unit(at->ref));
}

/* Freers */

int span_defer(struct heap *heap, const struct span_at *at, uint32_t index)
{
	uint64_t bit = UINT64_C(1) << (index % 64);
	m64 *alloc = &state_alloc(at->record)[index / 64];
	m64 *limbo = &state_limbo(&heap->layout, at->record)[index / 64];
	m64 *remote = &state_remote(&heap->layout, at->record)[index / 64];

	if (!(media_load64(alloc) & ~media_load64(remote) & bit))
		return -EALREADY;
	span_open(heap, at);
	/*
	 * COMMIT: the block is freed with delay.
	 *   crash before: it is allocated, as it was.
	 *   crash after:  lane.freeing, written before, makes the settler set the limbo hint.
	 *   ordering:     full barrier: the caller's unlinking of the block comes before it, the look
	 *                 at the hint after. Pairs with take_hints() and read_span().
	 */
	if (media_or(limbo, bit) & bit)
		return -EALREADY;
	/* Freed by another thread at the same moment: the bit must not meet the block's next life. */
	if (_unlikely(!(media_load64(alloc) & bit))) {
		media_and(limbo, ~bit);
		media_persist(heap->durability, limbo, sizeof(*limbo));
		return -EALREADY;
	}
	span_changed(heap, at, limbo);
	set_hint(at);
	return 0;
}

int lane_defer_more(struct lane *lane, uint64_t ptr, bool *wake, uint64_t *watch)
{
	const struct span_at *at;
	uint32_t index;
	int r;

	r = lane_enter(lane);
	if (_unlikely(r < 0))
		return r;
	r = lane_block(lane, ptr, &at, &index);
	if (_likely(r == 0)) {
		lane_freeing(lane, at->ref);
		r = span_defer(lane->heap, at, index);
	}
	*wake = false;
	if (_likely(r == 0))
		lane_defer_done(lane, wake, watch);
	else
		lane_deferred(lane);
	return r;
}

int lane_defer(struct lane *lane, uint64_t ptr, bool *wake, uint64_t *watch)
{
	if (_unlikely(!lane_defer_quick(lane, ptr, watch)))
		return lane_defer_more(lane, ptr, wake, watch);
	*wake = !limbo_watched(*watch);
	return 0;
}

void lane_defer_done(struct lane *lane, bool *wake, uint64_t *watch)
{
	*watch = limbo_watch_word(lane->heap);
	*wake = !limbo_watched(*watch);
	if (_likely(!*wake))
		lane_deferred(lane);
}

void lane_deferred(struct lane *lane)
{
	lane_leave(lane);
}

void limbo_woken(struct heap *heap, uint64_t watch)
{
	/* ordering: full barrier; fails if the daemon has looked at the heap and away since. */
	media_cas(&heap->lanes->watch, watch, watch | 1);
}

/* Spans */

/* Blocks of word `w` that are in limbo and not freed yet. */
static uint64_t limbo_bits(struct heap *heap, const struct span_at *at, uint32_t w)
{
	/* ordering: acquire; remote before limbo, as told above. Pairs with collect_word(). */
	uint64_t remote = media_load_acquire(&state_remote(&heap->layout, at->record)[w]);

	/* ordering: acquire; pairs with the OR of span_defer(). */
	return media_load_acquire(&state_limbo(&heap->layout, at->record)[w]) & ~remote &
	       media_load64(&state_alloc(at->record)[w]) & span_valid(at, w);
}

void span_limbo_persist(struct heap *heap, const struct span_at *at, uint32_t index)
{
	media_persist(heap->durability, &state_limbo(&heap->layout, at->record)[index / 64],
		      sizeof(m64));
}

void span_limbo_hint(struct heap *heap, const struct span_at *at)
{
	for (uint32_t w = 0; w < span_words(at); w++)
		if (limbo_bits(heap, at, w)) {
			set_hint(at);
			return;
		}
}

/* Makes blocks in limbo remote. */
static void release_bits(struct heap *heap, const struct span_at *at, uint32_t w, uint64_t bits)
{
	m64 *remote = &state_remote(&heap->layout, at->record)[w];

	/*
	 * COMMIT: the blocks are free; whoever owns the span next or now collects them.
	 *   crash before: they are in limbo.
	 *   crash after:  loading the heap sets every hint.
	 *   ordering:     full barrier: the readers were seen gone before; as span_free_remote().
	 *   durable:      whenever it likes: after a power cut nobody reads, so the limbo bits, which
	 *                 are as durable as their freers made them, say the same.
	 */
	media_or(remote, bits);
}

void span_limbo_free(struct heap *heap, const struct span_at *at)
{
	for (uint32_t w = 0; w < span_words(at); w++) {
		uint64_t bits = limbo_bits(heap, at, w);

		if (bits)
			release_bits(heap, at, w, bits);
	}
}

/* Snapshots */

/* Blocks in limbo of one word of a span. */
struct held {
	uint64_t ref;
	uint64_t bits;
	uint32_t word;
	uint32_t generation;
};

#define SPAN_WORDS_MAX 16u /* UNIT_SIZE / 16 blocks */
#define HELD_FIRST 256u

struct limbo {
	struct heap *heap;
	struct held *held;
	size_t n;
	size_t room;
	size_t released; /* of n */
	bool whole;      /* the snapshot; else it goes on at: */
	uint32_t shelf;
	uint64_t at;     /* word of the hint map */
	uint64_t hints;  /* of that word, taken and not looked at */
	uint64_t blocks;
	uint64_t bytes;
	uint64_t freed;
	uint32_t budget; /* of the present step */
};

int limbo_new(struct limbo **ret, struct heap *heap)
{
	struct limbo *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->heap = heap;
	*ret = l;
	return 0;
}

void limbo_free(struct limbo *limbo)
{
	if (!limbo)
		return;
	free(limbo->held);
	free(limbo);
}

uint64_t limbo_blocks(const struct limbo *l)
{
	return l->blocks;
}

uint64_t limbo_bytes(const struct limbo *l)
{
	return l->bytes;
}

uint64_t limbo_freed(const struct limbo *l)
{
	return l->freed;
}

static uint64_t shelf_words(const struct limbo *l, uint32_t shelf)
{
	const struct heap_shelf *s = l->heap->shelf[shelf];

	return s ? DIV_UP(s->units, 64) : 0;
}

/* Guarded. Takes the next hints that are set; whether there are any. */
static bool take_hints(struct limbo *l)
{
	for (; l->shelf < POOL_SHELVES_MAX; l->shelf++, l->at = 0)
		for (uint64_t n = shelf_words(l, l->shelf); l->at < n; l->at++) {
			m64 *word;

			l->at = shelf_hint_word(l->heap->shelf[l->shelf], l->at, n);
			if (l->at == n)
				break;
			word = hint_word(l->heap->shelf[l->shelf], l->at * 64);
			if (media_load64(word) == 0)
				continue;
			/* ordering: full barrier, before the limbo bits are read; pairs with
			 * set_hint(). */
			l->hints = media_swap(word, 0);
			if (l->hints)
				return true;
		}
	return false;
}

/* Guarded. Notes what of the span is in limbo; there is room for it. */
static void read_span(struct limbo *l, uint64_t ref)
{
	struct span_at at;

	if (heap_span(l->heap, ref, &at) < 0)
		return;
	for (uint32_t w = 0; w < MIN(span_words(&at), SPAN_WORDS_MAX); w++) {
		uint64_t bits = limbo_bits(l->heap, &at, w);
		uint64_t n = (uint64_t)__builtin_popcountll(bits);

		if (!bits)
			continue;
		l->held[l->n++] = (struct held){ .ref = at.ref, .bits = bits, .word = w,
						 .generation = at.span.generation };
		l->blocks += n;
		l->bytes += n * at.block_size;
	}
}

/* Guarded. 0: all hints were looked at; 1: the budget is used up; 2: there must be more room. */
static int snapshot_step(void *arg)
{
	struct limbo *l = arg;

	for (;;) {
		while (l->hints) {
			uint32_t bit = (uint32_t)__builtin_ctzll(l->hints);

			if (l->room - l->n < SPAN_WORDS_MAX)
				return 2;
			if (l->budget == 0)
				return 1;
			l->budget--;
			read_span(l, ref_make(l->shelf, (uint32_t)(l->at * 64 + bit)));
			l->hints &= l->hints - 1;
		}
		if (!take_hints(l))
			return 0;
	}
}

/* Guarded. Puts hints back that were taken and not looked at. */
static int put_back(void *arg)
{
	struct limbo *l = arg;

	/* ordering: more than it needs; the next snapshot finds them. */
	if (l->hints)
		media_or(hint_word(l->heap->shelf[l->shelf], l->at * 64), l->hints);
	l->hints = 0;
	return 0;
}

static int more_room(struct limbo *l)
{
	size_t room = MAX(l->room * 2, (size_t)HELD_FIRST);
	struct held *held = realloc(l->held, room * sizeof(*held));

	if (!held)
		return -ENOMEM;
	l->held = held;
	l->room = room;
	return 0;
}

static void snapshot_begin(struct limbo *l)
{
	l->n = l->released = 0;
	l->blocks = l->bytes = 0;
	l->shelf = 0;
	l->at = 0;
	l->hints = 0;
	l->whole = false;
}

int limbo_snapshot(struct limbo *l, uint32_t budget)
{
	int r;

	if (l->whole && l->released == l->n)
		snapshot_begin(l);
	if (l->whole)
		return 0;
	l->budget = budget;
	while ((r = guard_run(snapshot_step, l, NULL)) == 2) {
		r = more_room(l);
		if (r < 0) {
			/* What is noted is a snapshot, if a smaller one. */
			(void)guard_run(put_back, l, NULL);
			break;
		}
	}
	l->whole = r <= 0;
	return r == -ENOMEM && l->n > 0 ? 0 : r;
}

/* Guarded. Frees what is still in limbo of one word. */
static void release_word(struct limbo *l, const struct held *h)
{
	struct span_at at;
	uint64_t bits;

	if (heap_span(l->heap, h->ref, &at) < 0 || at.span.generation != h->generation ||
	    h->word >= span_words(&at))
		return;
	bits = limbo_bits(l->heap, &at, h->word) & h->bits;
	if (!bits)
		return;
	release_bits(l->heap, &at, h->word, bits);
	heap_hint(l->heap, &at);
	l->freed += (uint64_t)__builtin_popcountll(bits);
}

/* Guarded. */
static int release_step(void *arg)
{
	struct limbo *l = arg;

	for (; l->released < l->n; l->released++) {
		if (l->budget == 0)
			return 1;
		l->budget--;
		release_word(l, &l->held[l->released]);
	}
	return 0;
}

int limbo_release(struct limbo *l, uint32_t budget)
{
	int r;

	l->budget = budget;
	r = guard_run(release_step, l, NULL);
	if (r == 1)
		return 1;
	l->released = l->n;
	l->blocks = l->bytes = 0;
	return r;
}

/* Counting */

struct count {
	struct limbo *limbo;
	struct limbo_tally tally;
	size_t held; /* behind those of spans before this one: both are in the order of refs */
	uint32_t budget;
};

/* What of a word of a span is in the snapshot. */
static uint64_t held_bits(struct count *c, uint64_t ref, uint32_t word)
{
	const struct limbo *l = c->limbo;

	while (c->held < l->n && (l->held[c->held].ref < ref ||
				  (l->held[c->held].ref == ref && l->held[c->held].word < word)))
		c->held++;
	return c->held < l->n && l->held[c->held].ref == ref && l->held[c->held].word == word ?
	       l->held[c->held].bits : 0;
}

/* Guarded. */
static void count_span(struct count *c, uint64_t ref)
{
	struct span_at at;

	if (heap_span(c->limbo->heap, ref, &at) < 0)
		return;
	for (uint32_t w = 0; w < MIN(span_words(&at), SPAN_WORDS_MAX); w++) {
		uint64_t bits = limbo_bits(c->limbo->heap, &at, w) & ~held_bits(c, at.ref, w);
		uint64_t n = (uint64_t)__builtin_popcountll(bits);

		c->tally.blocks += n;
		c->tally.bytes += n * at.block_size;
	}
}

/* Guarded. Spans of one word of the hint map. 1: the budget is used up. */
static int count_hints(struct count *c, uint32_t shelf, uint64_t w)
{
	uint64_t hints = media_load64(hint_word(c->limbo->heap->shelf[shelf], w * 64));

	for (; hints; hints &= hints - 1) {
		if (c->budget == 0)
			return 1;
		c->budget--;
		count_span(c, ref_make(shelf, (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(hints)));
	}
	return 0;
}

/* Guarded. */
static int count_step(void *arg)
{
	struct count *c = arg;

	for (uint32_t i = 0; i < POOL_SHELVES_MAX; i++)
		for (uint64_t w = 0, n = shelf_words(c->limbo, i); w < n; w++)
			if (count_hints(c, i, w))
				return 1;
	return 0;
}

int limbo_count(struct limbo *l, uint32_t *budget, struct limbo_tally *ret)
{
	struct count c = { .limbo = l, .budget = *budget };
	int r = guard_run(count_step, &c, NULL);

	*budget = c.budget;
	ret->blocks = l->blocks + c.tally.blocks;
	ret->bytes = l->bytes + c.tally.bytes;
	return r;
}

/* Watching */

/* Guarded. */
static int watch_step(void *arg)
{
	struct limbo *l = arg;
	m64 *watch = &l->heap->lanes->watch;
	uint64_t v = media_load64(watch);

	/* ordering: full barrier; a swap, since it is clients' to write and may be anything. */
	if (!(v & 1))
		media_swap(watch, v + 1);
	return 0;
}

int limbo_watch(struct limbo *l)
{
	return guard_run(watch_step, l, NULL);
}

/* Guarded. Whether any hint is set: 1 or 0. */
static int hinted_step(void *arg)
{
	struct limbo *l = arg;

	for (uint32_t i = 0; i < POOL_SHELVES_MAX; i++)
		for (uint64_t w = 0, n = shelf_words(l, i); w < n; w++) {
			w = shelf_hint_word(l->heap->shelf[i], w, n);
			if (w < n && media_load64(hint_word(l->heap->shelf[i], w * 64)) != 0)
				return 1;
		}
	return 0;
}

/* Guarded. */
static int unwatch_step(void *arg)
{
	struct limbo *l = arg;
	m64 *watch = &l->heap->lanes->watch;

	/* ordering: full barrier; the hints are looked at after it. Pairs with lane_defer(): who saw
	 * the word odd had set its hint before. */
	media_swap(watch, (media_load64(watch) | 1) + 1);
	if (!hinted_step(l))
		return 0;
	watch_step(l);
	return 1;
}

int limbo_unwatch(struct limbo *l)
{
	return guard_run(unwatch_step, l, NULL);
}
