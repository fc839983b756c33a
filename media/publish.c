/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Publishing.
 *
 * Everything is looked up and judged first. Then the actions are written to the lane's log, with the value
 * that each word has; the log is made valid, applied, cleared. Applying again does no harm: a word is
 * stored by compare-and-swap from its old value, an entry is cleared if it still names the block, a block
 * goes to limbo if it is not there.
 *
 * Frees are limbo bits, and the caller is in an epoch from before the log is valid until it is cleared. So a
 * block that the first attempt freed is still in limbo when a settler repeats it; freed at once, it might be
 * another's by then. A dead session's pins fall after its logs are settled.
 *
 * In durability `power` four drains: actions and the words' old values, commit word, what was applied, cleared
 * commit word.
 */
#include "media/publish.h"

#include <errno.h>
#include <zlib.h>

#include "common/macro.h"
#include "media/lane_private.h"
#include "media/limbo.h"

/* An action, looked up. */
struct step {
	struct span_at at; /* of the block */
	uint32_t index;
	struct reservation *reservation; /* of a block to commit */
};

struct publish {
	struct lane *lane;
	struct reservations *res;
	const struct publish_action *action;
	size_t n;
	struct step *step;
};

uint32_t log_crc(const struct log_copy *copy)
{
	uLong crc = crc32(0, (const Bytef *)&copy->commit, sizeof(copy->commit));

	return (uint32_t)crc32(crc, (const Bytef *)copy->action,
			       (uInt)(copy->n * sizeof(copy->action[0])));
}

/* Judging */

/* Blocks of the same kind of name must not be named twice, nor words. */
static bool named_before(const struct publish *p, size_t i)
{
	bool store = p->action[i].kind == LOG_STORE;

	for (size_t k = 0; k < i; k++)
		if (p->action[k].where == p->action[i].where &&
		    (p->action[k].kind == LOG_STORE) == store)
			return true;
	return false;
}

/* Whether the action before, on a word too, stands in the same block as `where`: in s then. */
static bool same_block(const struct publish *p, size_t i, uint64_t where)
{
	const struct step *before = i > 0 ? &p->step[i - 1] : NULL;
	uint64_t start;

	if (!before || p->action[i - 1].kind != LOG_STORE)
		return false;
	start = lane_pool(p->lane) | (before->at.ref & REF_MASK) << UNIT_SHIFT;
	return where - (start + before->index * before->at.block_size) < before->at.block_size;
}

/* A word must stand in an allocated block. */
static int judge_word(struct publish *p, size_t i)
{
	uint64_t where = p->action[i].where;
	struct step *s = &p->step[i];
	int r;

	if (where % sizeof(m64) != 0 || !p->action[i].word)
		return -EINVAL;
	if (same_block(p, i, where)) {
		*s = p->step[i - 1];
		return 0;
	}
	r = heap_block_around(p->lane->heap, where, &s->at, &s->index);
	if (r < 0)
		return r == -ENXIO ? -EINVAL : r;
	return span_block_live(p->lane->heap, &s->at, s->index) ? 0 : -EINVAL;
}

static int judge_free(struct publish *p, size_t i)
{
	struct step *s = &p->step[i];
	int r = lane_find_block(p->lane, p->action[i].where, &s->at, &s->index);

	if (r < 0)
		return r;
	if (!span_block_live(p->lane->heap, &s->at, s->index))
		return -EALREADY;
	return reservations_have(p->res, p->action[i].where) ? -EBUSY : 0;
}

static int judge(struct publish *p, size_t i)
{
	const struct publish_action *a = &p->action[i];

	if (a->where >> 48 != p->lane->heap->pool || named_before(p, i))
		return -EINVAL;
	switch (a->kind) {
	case LOG_COMMIT_BLOCK:
		return reservation_take(p->res, a->where, &p->step[i].reservation);
	case LOG_FREE_BLOCK:
		return judge_free(p, i);
	case LOG_STORE:
		return judge_word(p, i);
	}
	return -EINVAL;
}

/* Gives back the reservations of the first `n` actions. */
static void unjudge(struct publish *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p->action[i].kind == LOG_COMMIT_BLOCK)
			reservation_put(p->res, p->step[i].reservation);
}

static int judge_all(struct publish *p, size_t *bad)
{
	for (size_t i = 0; i < p->n; i++) {
		int r = judge(p, i);

		if (r < 0) {
			unjudge(p, i);
			*bad = i;
			return r;
		}
	}
	return 0;
}

/* The log */

/* What an action's `value` says. */
static uint64_t log_value(const struct publish *p, size_t i)
{
	const m64 *lanes = (const m64 *)(const void *)p->lane->heap->lanes->lane;
	uint64_t distance;

	if (p->action[i].kind != LOG_COMMIT_BLOCK)
		return p->action[i].value;
	/* Which entry it is: of a lane of this process, not of this lane alone. */
	distance = (uint64_t)(reservation_entry(p->step[i].reservation) - lanes) * sizeof(m64);
	return distance / sizeof(struct lane_df) << 8 |
	       (distance % sizeof(struct lane_df) - offsetof(struct lane_df, reserved)) /
		       sizeof(m64);
}

static void log_fill(struct log_copy *copy, const struct publish *p)
{
	uint64_t last = media_load64(&p->lane->df->log.commit);

	copy->n = (unsigned)p->n;
	copy->commit = LOG_COMMIT | (((last >> 8) + 1) & 0xffffff) << 8 | p->n;
	for (size_t i = 0; i < p->n; i++) {
		const struct publish_action *a = &p->action[i];

		copy->action[i].where = log_where(a->kind, a->where);
		copy->action[i].old = a->kind == LOG_STORE ? media_load64(a->word) : 0;
		copy->action[i].value = log_value(p, i);
	}
}

/*
 * A settler knows a word by the value that it had, so the medium must have that one before the log is valid:
 * the program may have stored it without a drain. Waits for nothing.
 */
static void flush_words(const struct publish *p, enum durability d)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->action[i].kind == LOG_STORE)
			media_flush(d, p->action[i].word, sizeof(m64));
}

static void log_write(struct log_df *log, enum durability d, const struct log_copy *copy)
{
	media_copy(log->action, copy->action, copy->n * sizeof(copy->action[0]));
	media_store32(&log->crc, log_crc(copy));
	media_persist(d, log, sizeof(*log) - (LOG_ACTIONS - copy->n) * sizeof(log->action[0]));
	/*
	 * COMMIT: the publish has happened.
	 *   crash before: the log says nothing, and nothing was changed.
	 *   crash after:  settling the lane does what is missing.
	 *   ordering:     release; the actions and their CRC are there for who finds the log valid.
	 *   durable:      drained before anything is changed.
	 */
	media_store_release(&log->commit, copy->commit);
	media_persist(d, &log->commit, sizeof(log->commit));
}

static void log_clear(struct log_df *log, enum durability d)
{
	/*
	 * COMMIT: nothing is left to do.
	 *   crash before: all that was done is done again, without effect.
	 *   crash after:  it is done.
	 *   ordering:     release; all of it comes before, and the caller leaves its epoch after.
	 *   durable:      what was applied is drained before; this, before the epoch is left.
	 */
	media_store_release(&log->commit, media_load64(&log->commit) & ~LOG_COMMIT_MASK & ~UINT64_C(0xff));
	media_persist(d, &log->commit, sizeof(log->commit));
}

/* Applying */

static void store_words(const struct publish *p, enum durability d)
{
	for (size_t i = 0; i < p->n; i++) {
		if (p->action[i].kind != LOG_STORE)
			continue;
		/* ordering: release; what the caller wrote into a block is seen by who finds it here, and
		 * words are seen in the order of the actions. */
		media_store_release(p->action[i].word, p->action[i].value);
		media_flush(d, p->action[i].word, sizeof(m64));
	}
}

static void clear_entries(const struct publish *p, enum durability d)
{
	for (size_t i = 0; i < p->n; i++) {
		m64 *entry;

		if (p->action[i].kind != LOG_COMMIT_BLOCK)
			continue;
		entry = reservation_entry(p->step[i].reservation);
		/* ordering: release; pairs with the acquire in entry_get(). */
		media_store_release(entry, 0);
		media_flush(d, entry, sizeof(*entry));
	}
}

/* Whether any block went to limbo. One that another thread freed meanwhile, against the contract, did not. */
static bool free_blocks(const struct publish *p, struct heap *heap)
{
	bool any = false;

	for (size_t i = 0; i < p->n; i++) {
		const struct step *s = &p->step[i];

		if (p->action[i].kind != LOG_FREE_BLOCK)
			continue;
		(void)span_defer(heap, &s->at, s->index);
		media_flush(heap->durability,
			    &state_limbo(&heap->layout, s->at.record)[s->index / 64], sizeof(m64));
		any = true;
	}
	return any;
}

static void publish_entered(struct publish *p, bool *wake, uint64_t *watch)
{
	struct heap *heap = p->lane->heap;
	struct log_df *log = &p->lane->df->log;
	struct log_copy copy;
	bool freed;

	log_fill(&copy, p);
	if (!FAULT(WORDS_UNFLUSHED))
		flush_words(p, heap->durability);
	if (FAULT(LOG_LATE))
		store_words(p, heap->durability);
	log_write(log, heap->durability, &copy);
	store_words(p, heap->durability);
	if (FAULT(LOG_CLEARED_FIRST))
		log_clear(log, heap->durability);
	clear_entries(p, heap->durability);
	freed = free_blocks(p, heap);
	if (!FAULT(APPLIED_UNDRAINED))
		media_drain(heap->durability);
	log_clear(log, heap->durability);
	for (size_t i = 0; i < p->n; i++)
		if (p->action[i].kind == LOG_COMMIT_BLOCK)
			reservation_drop(p->res, p->step[i].reservation);
	if (freed)
		lane_defer_done(p->lane, wake, watch);
	else
		lane_leave(p->lane);
}

int lane_publish(struct lane *lane, struct reservations *res,
		 const struct publish_action *actions, size_t n, size_t *bad, bool *wake,
		 uint64_t *watch)
{
	struct step step[LOG_ACTIONS];
	struct publish p = { .lane = lane, .res = res, .action = actions, .n = n, .step = step };
	int r;

	*bad = n;
	*wake = false;
	if (n == 0 || n > LOG_ACTIONS)
		return -EINVAL;
	r = lane_enter(lane);
	if (r < 0)
		return r;
	r = judge_all(&p, bad);
	if (r < 0) {
		lane_leave(lane);
		return r;
	}
	publish_entered(&p, wake, watch);
	return 0;
}
