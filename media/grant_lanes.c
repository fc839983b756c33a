/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lanes as the daemon sees them: settling the dead, revoking the idle, and taking a heap into service.
 *
 * Settling goes by the lane's owned-span table: an entry is written before the owner word changes and
 * cleared after, so every span that names the lane is found in it, and a death of the settler repeats
 * what it did. A span in the table that the lane does not own was disowned by it, or never adopted:
 * its hint may be missing and is set.
 *
 * Settling goes in steps, and other clients' requests and stores come between them. What keeps that right:
 *   - The lanes are nobody's until the last step: nobody writes them, no new lane is one of them, and none is revoked.
 *   - The daemon frees nothing that is in limbo in this heap until the last step, and the dead's pins stand, too. So
 *     a block that a log or a half-done cancel has put into limbo has no next life that a later step could free.
 *   - Each log, and each entry, is done and cleared within one step. So what another client finds freed is named by
 *     nothing that a later step does again.
 *   - The words of a log are the dead's until the death is settled: that is nvmm_publish()'s contract.
 *   - A span that a log or an entry speaks of stays that span: it holds a block that is allocated or in limbo, or the
 *     dead lane owns it; a span is retired only when it is empty and nobody's. Spans are given up after all entries.
 *   - The daemon may die between two steps: loading takes the same stages with every lane that nobody has, before
 *     anything in the heap is reclaimed. What is done by then is found cleared.
 *
 * Revoking is settling of a lane whose thread lives and is outside of the allocator; media/lane.c has the
 * protocol. It comes last, when room is short.
 *
 * Loading walks every span table once and needs nothing else: owners that do not live are removed, hints
 * set, free runs indexed. All of it is done again after a death in between. In durability `power` the words
 * that it goes by are drained before anybody is served: a daemon that was killed may have left its last one in
 * the caches alone, and what is then put into a span must not vanish with its word.
 */
#include "media/grant.h"

#include <errno.h>
#include <stdlib.h>

#include "common/macro.h"
#include "media/barrier.h"
#include "media/grant_private.h"
#include "media/guard.h"
#include "media/limbo.h"
#include "media/marks.h"

/* Settling */

struct settling {
	struct grant *grant;
	uint32_t lane;
};

static bool owned_by(struct grant *g, const struct span_at *at, uint32_t lane)
{
	return (media_load64(owner_word(g, at)) & OWNER_WHO_MASK) ==
	       owner_lane(g->heap->node, lane, 0);
}

/* A span that a lane may have owned or freed into: takes it from the lane, sets its hint. */
static void settle_ref(struct settling *s, uint64_t ref)
{
	struct grant *g = s->grant;
	struct span_at at;

	if (heap_span(g->heap, ref, &at) < 0)
		return;
	if (owned_by(g, &at, s->lane)) {
		span_collect(g->heap, &at);
		span_disown(g->heap, &at);
	} else {
		heap_hint(g->heap, &at);
	}
	span_limbo_hint(g->heap, &at);
}

/* Settles what an entry names, then clears it: a death in between does the same again. */
static void settle_entry(struct settling *s, m64 *entry)
{
	uint64_t ref = media_load64(entry);

	if (ref == 0)
		return;
	settle_ref(s, ref);
	media_store64(entry, 0);
}

/* Guarded. Who takes the lane for his own, though his session is gone, shall not enter any more. */
static int settle_begin(void *arg)
{
	struct settling *s = arg;
	struct lane_df *lane = &s->grant->heap->lanes->lane[s->lane];

	media_store64(&lane->revoke, (media_load64(&lane->revoke) | REVOKE_STATE) + 1);
	return 0;
}

/* Guarded. */
static int settle_lane(void *arg)
{
	struct settling *s = arg;
	struct lane_df *lane = &s->grant->heap->lanes->lane[s->lane];

	for (unsigned i = 0; i < LANE_OWNED; i++)
		settle_entry(s, &lane->owned[i]);
	settle_entry(s, &lane->freeing);
	if (media_load64(&lane->busy) != 0)
		/* ordering: release; the lane's next thread starts from an empty lane. */
		media_store_release(&lane->busy, 0);
	return 0;
}

/*
 * All lanes of a session go through one stage before any goes into the next one. The spans are last: a log and a
 * reservation name blocks by the spans that the lanes own.
 */
enum settle_stage {
	SETTLE_BEGIN,
	SETTLE_LOGS,
	SETTLE_RESERVED,
	SETTLE_SPANS,
	SETTLE_STAGES,
};

static int settle_stage(struct grant *g, const struct grant_settle *settle, uint32_t lane)
{
	struct settling s = { .grant = g, .lane = lane };

	switch (settle->stage) {
	case SETTLE_BEGIN:
		return guard_run(settle_begin, &s, NULL);
	case SETTLE_LOGS:
		return grant_settle_log(g, settle, lane);
	case SETTLE_RESERVED:
		return grant_settle_reserved(g, lane);
	default:
		return guard_run(settle_lane, &s, NULL);
	}
}

int grant_settle_step(struct grant *g, struct grant_settle *settle)
{
	int r;

	while (settle->next == settle->n) {
		if (settle->n == 0 || settle->stage + 1 >= SETTLE_STAGES)
			return 0;
		settle->stage++;
		settle->next = 0;
	}
	r = settle_stage(g, settle, settle->lanes[settle->next]);
	settle->next++;
	return r < 0 ? r : 1;
}

/* Takes steps until `end`. */
static int settle_until(struct grant *g, struct grant_settle *settle, enum settle_stage end)
{
	int r = 1;

	while (r > 0 && !(settle->next == settle->n && settle->stage + 1u >= (unsigned)end))
		r = grant_settle_step(g, settle);
	return r < 0 ? r : 0;
}

/* Lanes, by their numbers. */
struct lane_bits {
	uint64_t word[LANES_MAX / 64];
};

static bool lane_bits_has(const void *ctx, uint32_t lane)
{
	const struct lane_bits *bits = ctx;

	return bits->word[lane / 64] >> (lane % 64) & 1;
}

static struct grant_settle settle_all(struct lane_bits *bits, const uint32_t *lanes, uint32_t n)
{
	*bits = (struct lane_bits){ { 0 } };
	for (uint32_t i = 0; i < n; i++)
		bits->word[lanes[i] / 64] |= UINT64_C(1) << (lanes[i] % 64);
	return (struct grant_settle){ .lanes = lanes, .n = n, .has = lane_bits_has, .ctx = bits };
}

int grant_settle_lanes(struct grant *g, const uint32_t *lanes, uint32_t n)
{
	struct lane_bits bits;
	struct grant_settle settle = settle_all(&bits, lanes, n);

	return settle_until(g, &settle, SETTLE_STAGES);
}

int grant_settle(struct grant *g, uint32_t lane)
{
	return grant_settle_lanes(g, &lane, 1);
}

/* Holders */

struct holding {
	m64 *word;
	uint64_t holder;
};

static struct holding holding_of(const struct grant *g, uint32_t lane, uint64_t holder)
{
	return (struct holding){ .word = &g->heap->lanes->lane[lane].holder, .holder = holder };
}

/* Guarded. */
static int holding_store(void *arg)
{
	const struct holding *h = arg;

	/*
	 * COMMIT: the lane is the holder's, or nobody's. The daemon alone writes it, though clients can.
	 *   crash before: given out: no client knows of the lane; given back: it is settled, and kept back in vain.
	 *   crash after:  no session may have the lane: while the holder lives it is kept back, which costs a lane.
	 *   ordering:     none; a lane is given out by a message that is sent after it.
	 *   durable:      need not be: after a power cut no holder lives.
	 */
	media_store64(h->word, h->holder);
	return 0;
}

/* Guarded. */
static int holding_load(void *arg)
{
	struct holding *h = arg;

	h->holder = media_load64(h->word);
	return 0;
}

int grant_lane_hold(struct grant *g, uint32_t lane, uint64_t holder)
{
	struct holding h = holding_of(g, lane, holder);

	return guard_run(holding_store, &h, NULL);
}

int grant_lane_holder(struct grant *g, uint32_t lane, uint64_t *ret)
{
	struct holding h = holding_of(g, lane, 0);
	int r = guard_run(holding_load, &h, NULL);

	if (r == 0)
		*ret = h.holder;
	return r;
}

/* Revoking */

/* Guarded. Marks the lane if it owns anything; 1: it is marked. */
static int revoke_want(void *arg)
{
	struct settling *s = arg;
	struct lane_df *lane = &s->grant->heap->lanes->lane[s->lane];
	uint64_t word = media_load64(&lane->revoke);

	for (unsigned i = 0; i < LANE_OWNED; i++)
		if (media_load64(&lane->owned[i]) != 0) {
			if ((word & REVOKE_STATE) != REVOKE_NONE)
				return (word & REVOKE_STATE) == REVOKE_WANTED;
			/* ordering: full barrier; barrier_all() follows before `busy` is read. */
			return media_cas(&lane->revoke, word, word | REVOKE_WANTED);
		}
	return 0;
}

/* Guarded. Takes all that a lane in state TAKING owns. */
static int revoke_finish(void *arg)
{
	struct settling *s = arg;
	struct lane_df *lane = &s->grant->heap->lanes->lane[s->lane];

	for (unsigned i = 0; i < LANE_OWNED; i++)
		settle_entry(s, &lane->owned[i]);
	/*
	 * COMMIT: the thread may go on, owning nothing.
	 *   crash before: the lane is TAKING; loading takes the rest.
	 *   crash after:  the thread forgets its spans when it next enters.
	 *   ordering:     release; pairs with the acquire in lane_revoked().
	 */
	media_store_release(&lane->revoke, media_load64(&lane->revoke) | REVOKE_TAKEN);
	return 0;
}

/* Guarded. Takes the spans of a marked lane unless its thread is inside; 1: taken. */
static int revoke_take(void *arg)
{
	struct settling *s = arg;
	struct lane_df *lane = &s->grant->heap->lanes->lane[s->lane];
	uint64_t word = media_load64(&lane->revoke), calm = word & ~REVOKE_STATE;

	if (word != (calm | REVOKE_WANTED))
		return 0;
	/* ordering: acquire; pairs with lane_leave(): what the thread did inside is seen. */
	if (media_load_acquire(&lane->busy) != 0) {
		/* ordering: full barrier; the thread may have refused meanwhile, which is as well. */
		media_cas(&lane->revoke, word, calm);
		return 0;
	}
	/* ordering: full barrier; pairs with the compare-and-swap in lane_revoked(): one succeeds. */
	if (!media_cas(&lane->revoke, word, calm | REVOKE_TAKING))
		return 0;
	revoke_finish(s);
	return 1;
}

/* Runs a step for each living lane; how often it said 1, or -EIO. */
static int for_living_lanes(struct grant *g, int (*step)(void *arg))
{
	int n = 0;

	for (uint32_t i = 0; i < g->lanes.count; i++) {
		struct settling s = { .grant = g, .lane = i };
		int r = g->lanes.alive(g->lanes.ctx, i) ? guard_run(step, &s, NULL) : 0;

		if (r < 0)
			return r;
		n += r;
	}
	return n;
}

int grant_revoke(struct grant *g)
{
	int r = for_living_lanes(g, revoke_want);

	/* Without the barrier a thread's mark might not be seen: a lane that stays WANTED is one whose
	 * thread refuses when it next enters. */
	if (r <= 0 || !barrier_all())
		return r < 0 ? r : 0;
	return for_living_lanes(g, revoke_take);
}

static int for_some_lanes(struct grant *g, const uint32_t *lanes, uint32_t count,
			  int (*step)(void *arg))
{
	int n = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct settling s = { .grant = g, .lane = lanes[i] };
		int r = lanes[i] < g->lanes.count && g->lanes.alive(g->lanes.ctx, lanes[i])
				? guard_run(step, &s, NULL)
				: 0;

		if (r < 0)
			return r;
		n += r;
	}
	return n;
}

int grant_revoke_lanes(struct grant *g, const uint32_t *lanes, uint32_t n)
{
	int r = for_some_lanes(g, lanes, n, revoke_want);

	/* As in grant_revoke(). */
	if (r <= 0 || !barrier_all())
		return r < 0 ? r : 0;
	return for_some_lanes(g, lanes, n, revoke_take);
}

void grant_lanes_set(struct grant *g, const struct grant_lanes *lanes)
{
	g->lanes = *lanes;
}

/* Loading */

struct loading {
	struct grant *grant;
	uint32_t shelf;
	uint64_t unit;   /* where the walk goes on */
	uintptr_t line;  /* of the table, that was flushed last */
	struct run free; /* a free run that was met */
	const char *why;
};

/* A typed span whose owner does not live is unowned; an interrupted grant or retirement is done. */
static void load_span(struct loading *l, const struct span_at *at)
{
	struct grant *g = l->grant;
	uint64_t owner = media_load64(owner_word(g, at));
	uint32_t lane = (uint32_t)owner;

	if (g->lanes.no_readers)
		span_limbo_free(g->heap, at);
	else
		span_limbo_hint(g->heap, at);
	if ((owner & OWNER_LANE) && lane < g->lanes.count &&
	    (owner & OWNER_WHO_MASK) == owner_lane(g->heap->node, lane, 0) &&
	    g->lanes.alive(g->lanes.ctx, lane))
		return;
	if (owner != OWNER_NONE) {
		span_collect(g->heap, at);
		span_disown(g->heap, at);
	} else if (span_used(g->heap, at) < at->blocks) {
		heap_hint(g->heap, at);
	}
}

static void load_pass(struct loading *l, uint64_t units)
{
	uint64_t *progress = l->grant->lanes.progress;

	l->unit += units;
	if (progress)
		/* ordering: none needed; one writer, for who shows it. */
		__atomic_store_n(progress, *progress + units, __ATOMIC_RELAXED);
}

/* The head's word, with the others of its line. */
static void load_flush(struct loading *l, const struct heap_shelf *shelf)
{
	const m64 *word = &shelf->table[l->unit];

	if ((uintptr_t)word / MEDIA_LINE == l->line)
		return;
	l->line = (uintptr_t)word / MEDIA_LINE;
	media_flush(l->grant->heap->durability, word, sizeof(*word));
}

/* Guarded. Walks to the next free run, 1, or to the shelf's end, 0. */
static int load_step(void *arg)
{
	struct loading *l = arg;
	struct heap_shelf *shelf = l->grant->heap->shelf[l->shelf];

	while (l->unit < shelf->units) {
		uint64_t ref = ref_make(l->shelf, (uint32_t)l->unit);
		struct span s = span_unpack(shelf_word(shelf, l->unit));
		struct span_at at;

		load_flush(l, shelf);
		if (span_is_kept(&s, l->shelf, l->unit)) {
			load_pass(l, s.length);
			continue;
		}
		if (s.kind == SPAN_FREE && s.length > 0 && s.length <= shelf->units - l->unit) {
			l->free = (struct run){ .shelf = l->shelf, .unit = (uint32_t)l->unit,
						.length = s.length };
			load_pass(l, s.length);
			return 1;
		}
		if (heap_span(l->grant->heap, ref, &at) < 0) {
			l->why = "a span word is neither a free run nor a span";
			return -EUCLEAN;
		}
		if (!state_sealed(state_tail(&l->grant->heap->layout, at.record),
				  span_pack(at.span), l->unit)) {
			l->why = "a state record and the span table do not speak of the same span";
			return -EUCLEAN;
		}
		load_span(l, &at);
		space_loaded(l->grant, l->shelf, l->unit, at.span.length);
		load_pass(l, at.span.length);
	}
	return 0;
}

static int load_shelf(struct loading *l)
{
	int r;

	l->unit = 0;
	l->line = 0;
	while ((r = guard_run(load_step, l, NULL)) > 0) {
		r = runs_add(l->grant->runs, l->free);
		if (r < 0)
			return r;
	}
	return r;
}

/* Guarded. A revocation that a killed daemon began is ended. */
static int revoke_resume(void *arg)
{
	struct settling *s = arg;

	uint64_t word = media_load64(&s->grant->heap->lanes->lane[s->lane].revoke);

	if ((word & REVOKE_STATE) == REVOKE_TAKING)
		revoke_finish(s);
	return 0;
}

/* The lanes that nobody holds; n of them. */
struct dead {
	uint32_t *lane;
	uint32_t n;
};

static int dead_find(struct dead *ret, struct grant *g)
{
	ret->n = 0;
	ret->lane = calloc(MAX(g->lanes.count, 1u), sizeof(*ret->lane));
	if (!ret->lane)
		return -ENOMEM;
	for (uint32_t i = 0; i < g->lanes.count; i++)
		if (!g->lanes.alive(g->lanes.ctx, i))
			ret->lane[ret->n++] = i;
	return 0;
}

static int load_shelves(struct loading *l)
{
	int r = 0;

	for (l->shelf = 0; l->shelf < POOL_SHELVES_MAX && r == 0; l->shelf++)
		if (l->grant->heap->shelf[l->shelf])
			r = load_shelf(l);
	media_drain(l->grant->heap->durability);
	return r;
}

/*
 * The dead's logs and reservations come first, by what the spans are before the walk gives them up, and before
 * it frees anything that is in limbo. Then the walk, which deals with their spans; then their
 * tables are emptied.
 */
static int load(struct loading *l)
{
	struct grant *g = l->grant;
	struct grant_settle settle;
	struct lane_bits bits;
	struct dead dead;
	int r = dead_find(&dead, g);

	if (r < 0)
		return r;
	settle = settle_all(&bits, dead.lane, dead.n);
	r = settle_until(g, &settle, SETTLE_SPANS);
	if (r == 0)
		r = load_shelves(l);
	if (r == 0)
		r = for_living_lanes(g, revoke_resume);
	if (r == 0)
		r = settle_until(g, &settle, SETTLE_STAGES);
	free(dead.lane);
	return r;
}

int grant_new(struct grant **ret, struct heap *heap, const struct grant_lanes *lanes,
	      const char **why, uint64_t *where)
{
	struct grant *g = calloc(1, sizeof(*g));
	struct loading l = { .grant = g, .why = "" };
	int r = 0;

	if (!g)
		return -ENOMEM;
	g->heap = heap;
	g->lanes = *lanes;
	r = runs_new(&g->runs);
	if (r == 0 && lanes->power_cut)
		r = marks_load(heap);
	if (r == 0)
		r = load(&l);
	if (r == -EUCLEAN) {
		*why = l.why;
		*where = ref_make(l.shelf - 1, (uint32_t)l.unit);
	}
	if (r < 0) {
		grant_free(g);
		return r;
	}
	*ret = g;
	return 0;
}

void grant_free(struct grant *g)
{
	if (!g)
		return;
	runs_free(g->runs);
	free(g);
}
