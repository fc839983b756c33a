/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the dead had begun: their logs are applied to the end, then what they had reserved is freed.
 *
 * The order, over all lanes of a session: every log, then every reservation, then the spans (grant_lanes.c).
 * A log of one lane may commit what another lane has reserved; and a reservation may name a block whose alloc
 * bit was not set yet, which others could get as soon as its span is given up. Each log and each entry is
 * cleared after what it says is done, so that a death in between does it again; and all of it is done
 * before the session's pins fall and before the daemon reclaims anything in this heap, also if it died in
 * between: so a block that is in limbo by an earlier attempt is still in limbo.
 *
 * In durability `power` the dead's stores may be in a cache alone, where the settler sees them as done. So
 * all that it relies on is made durable, found done or not: a log's commit word, valid, before anything is
 * applied, else the cut would leave a half; cleared, or an entry, before the pins fall, else the cut would
 * bring back what frees a block that is another's by then; what was applied, before the log is cleared.
 *
 * Logs and entries are clients' to write: a log is read once, and each address in it is looked up in the
 * daemon's own tables. Words stand in blocks, which the daemon maps for this alone.
 */
#include <errno.h>

#include "media/grant_private.h"
#include "media/guard.h"
#include "media/limbo.h"
#include "media/publish.h"

struct redo {
	struct grant *grant;
	uint32_t lane;
	const struct grant_settle *dead; /* all that are settled together: a log names entries of these alone */
	struct log_copy copy;
	m64 *word;     /* of one action, mapped */
	unsigned i;    /* that action */
};

static struct log_df *log_of(const struct redo *redo)
{
	return &redo->grant->heap->lanes->lane[redo->lane].log;
}

static enum log_kind action_kind(const struct redo *redo, unsigned i)
{
	return (enum log_kind)(redo->copy.action[i].where >> 48);
}

static uint64_t action_place(const struct redo *redo, unsigned i)
{
	return redo->copy.action[i].where & ((UINT64_C(1) << 48) - 1);
}

/* Guarded. Reads the log: 1, it is valid; 0: it is none, or torn or rotten, which is none. */
static int log_read(void *arg)
{
	struct redo *redo = arg;
	const struct log_df *log = log_of(redo);
	struct log_copy *copy = &redo->copy;

	/* ordering: acquire; pairs with the release that made it valid. */
	copy->commit = media_load_acquire(&log->commit);
	media_flush(redo->grant->heap->durability, &log->commit, sizeof(log->commit));
	copy->n = (unsigned)(copy->commit & 0xff);
	if ((copy->commit & LOG_COMMIT_MASK) != LOG_COMMIT || copy->n == 0 || copy->n > LOG_ACTIONS)
		return 0;
	for (unsigned i = 0; i < copy->n; i++) {
		copy->action[i].where = media_load64(&log->action[i].where);
		copy->action[i].old = media_load64(&log->action[i].old);
		copy->action[i].value = media_load64(&log->action[i].value);
	}
	if (log_crc(copy) != media_load32(&log->crc))
		return 0;
	/* What is not applied waits for the drain after the reservations. */
	media_drain(redo->grant->heap->durability);
	return 1;
}

/* Words */

/* Guarded. Whether the action's word is an aligned one in an allocated block. */
static int word_ok(void *arg)
{
	const struct redo *redo = arg;
	struct heap *heap = redo->grant->heap;
	uint64_t place = action_place(redo, redo->i);
	struct span_at at;
	uint32_t index;

	return place % sizeof(m64) == 0 && heap_block_around(heap, place, &at, &index) == 0 &&
	       span_block_live(heap, &at, index);
}

/* Guarded. */
static int word_store(void *arg)
{
	const struct redo *redo = arg;

	/* ordering: full barrier, more than it needs: nobody else writes the word before the death is
	 * settled. It fails if the word was stored already. */
	media_cas(redo->word, redo->copy.action[redo->i].old, redo->copy.action[redo->i].value);
	media_persist(redo->grant->heap->durability, redo->word, sizeof(m64));
	return 0;
}

static int redo_word(struct redo *redo, unsigned i)
{
	const struct grant_words *words = redo->grant->lanes.words;
	int r;

	redo->i = i;
	r = guard_run(word_ok, redo, NULL);
	if (r <= 0)
		return r;
	if (!words)
		return -EOPNOTSUPP;
	r = words->map(words->ctx, action_place(redo, i), &redo->word);
	/* The shelf is gone with its pool, and the word with it. */
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	return guard_run(word_store, redo, NULL);
}

static int redo_words(struct redo *redo)
{
	int r = 0;

	for (unsigned i = 0; i < redo->copy.n && r == 0; i++)
		if (action_kind(redo, i) == LOG_STORE)
			r = redo_word(redo, i);
	return r;
}

/* Blocks */

/* Guarded. Puts a block into limbo unless it is there, or free; durable. The place may be anything. */
static void limbo_block(struct grant *g, uint64_t place)
{
	struct span_at at;
	uint32_t index;

	if (heap_block(g->heap, place, &at, &index) < 0)
		return;
	if (span_block_live(g->heap, &at, index))
		(void)span_defer(g->heap, &at, index);
	span_limbo_persist(g->heap, &at, index);
	span_limbo_hint(g->heap, &at);
}

/* Guarded. Clears the entry that a commit names, if it still names the block; durable. */
static void redo_commit(struct redo *redo, unsigned i)
{
	struct heap *heap = redo->grant->heap;
	uint64_t lane = redo->copy.action[i].value >> 8, place = redo->copy.action[i].value & 0xff;
	m64 *entry;

	if (lane >= LANES_MAX || !redo->dead->has(redo->dead->ctx, (uint32_t)lane) ||
	    place >= LANE_RESERVED)
		return;
	entry = &heap->lanes->lane[lane].reserved[place];
	if (((media_load64(entry) ^ action_place(redo, i)) & ((UINT64_C(1) << 48) - 1)) == 0)
		media_store64(entry, 0);
	media_persist(heap->durability, entry, sizeof(*entry));
}

/* Guarded. What is left after the words, then the log's end. */
static int redo_blocks(void *arg)
{
	struct redo *redo = arg;
	struct log_df *log = log_of(redo);

	for (unsigned i = 0; i < redo->copy.n; i++)
		if (action_kind(redo, i) == LOG_COMMIT_BLOCK)
			redo_commit(redo, i);
	for (unsigned i = 0; i < redo->copy.n; i++)
		if (action_kind(redo, i) == LOG_FREE_BLOCK)
			limbo_block(redo->grant, action_place(redo, i));
	/*
	 * COMMIT: the publish of the dead is done.
	 *   crash before: all of it is done again.
	 *   crash after:  it is done.
	 *   ordering:     release; it comes after what it vouches for.
	 *   durable:      all of that is drained before.
	 */
	media_store_release(&log->commit, redo->copy.commit & ~LOG_COMMIT_MASK & ~UINT64_C(0xff));
	media_persist(redo->grant->heap->durability, &log->commit, sizeof(log->commit));
	return 0;
}

int grant_settle_log(struct grant *g, const struct grant_settle *dead, uint32_t lane)
{
	const struct grant_words *words = g->lanes.words;
	struct redo redo = { .grant = g, .lane = lane, .dead = dead };
	int r = guard_run(log_read, &redo, NULL);

	if (r <= 0)
		return r;
	r = redo_words(&redo);
	if (words)
		words->done(words->ctx);
	return r < 0 ? r : guard_run(redo_blocks, &redo, NULL);
}

/* Reservations */

struct unreserve {
	struct grant *grant;
	uint32_t lane;
};

/* Guarded. Frees what the lane has reserved: the block, then the entry. */
static int unreserve(void *arg)
{
	const struct unreserve *u = arg;
	struct heap *heap = u->grant->heap;
	m64 *entries = heap->lanes->lane[u->lane].reserved;

	for (unsigned i = 0; i < LANE_RESERVED; i++) {
		uint64_t ptr = media_load64(&entries[i]);

		if (ptr == 0)
			continue;
		limbo_block(u->grant, ptr);
		/* ordering: release; the limbo bit, durable by now, comes before. */
		media_store_release(&entries[i], 0);
	}
	media_flush(heap->durability, entries, LANE_RESERVED * sizeof(m64));
	media_drain(heap->durability);
	return 0;
}

int grant_settle_reserved(struct grant *g, uint32_t lane)
{
	struct unreserve u = { .grant = g, .lane = lane };

	return guard_run(unreserve, &u, NULL);
}
