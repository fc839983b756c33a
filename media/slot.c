/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two-slot records.
 *
 * A slot is valid if its commit word has the magic half and the CRC over the slot, commit word
 * included, is right; torn or blank if the commit word is zero; else rotten. A writer never touches
 * the current slot. In the other one it takes the commit word away first and puts it back last,
 * each made durable before the next step, so that no crash and no cache's write-back order leaves
 * a commit word above a half-written body. Hence a slot with a commit word and a wrong CRC is no
 * crash's doing, and the pair is refused: the damaged slot might have been the newer.
 *
 * Sequence numbers of two valid slots are neighbours, since each put writes the current one's plus
 * one; they wrap at 2^32, which the comparison of their difference survives.
 *
 * The current slot is made durable before the other is touched: a writer that was killed between
 * its commit and the flush has left a record that is seen but might not survive the power.
 */
#include "media/slot.h"

#include <errno.h>
#include <string.h>
#include <zlib.h>

#include "common/macro.h"

struct slot_copy {
	uint64_t word[SLOT_SIZE_MAX / sizeof(uint64_t)];
};

enum slot_health {
	SLOT_TORN,
	SLOT_VALID,
	SLOT_BAD,
};

static uint64_t slot_crc(const struct slot_copy *slot, size_t size)
{
	struct slot_copy copy = *slot;

	memset((char *)copy.word + offsetof(struct slot_head_df, crc), 0, sizeof(uint32_t));
	return crc32(0, (const Bytef *)copy.word, (uInt)size);
}

/* The CRC that stands in a slot: the low half of its second word. */
static uint64_t slot_stored_crc(const struct slot_copy *slot)
{
	return slot->word[1] & UINT32_MAX;
}

/* Reads a slot once and judges what was read. */
static enum slot_health slot_load(struct slot_copy *ret, const void *slot, size_t size)
{
	const m64 *from = slot;

	for (size_t i = 0; i < size / sizeof(uint64_t); i++)
		ret->word[i] = media_load64(&from[i]);
	if (ret->word[0] == 0)
		return SLOT_TORN;
	if ((ret->word[0] & ~SLOT_SEQ_MASK) != SLOT_COMMIT)
		return SLOT_BAD;
	return slot_stored_crc(ret) == slot_crc(ret, size) ? SLOT_VALID : SLOT_BAD;
}

static bool size_ok(size_t size)
{
	return size >= sizeof(struct slot_head_df) && size <= SLOT_SIZE_MAX && size % 8 == 0;
}

/* Loads both slots and says which one counts. */
static enum slot_state slot_load_pair(struct slot_copy copy[2], const void *slots, size_t size)
{
	enum slot_health first, second;
	uint32_t ahead;

	if (!size_ok(size))
		return SLOT_ROTTEN;
	first = slot_load(&copy[0], slots, size);
	second = slot_load(&copy[1], (const char *)slots + size, size);
	if (first == SLOT_BAD || second == SLOT_BAD)
		return SLOT_ROTTEN;
	if (first == SLOT_TORN)
		return second == SLOT_TORN ? SLOT_BLANK : SLOT_SECOND;
	if (second == SLOT_TORN)
		return SLOT_FIRST;
	ahead = (uint32_t)(copy[0].word[0] - copy[1].word[0]);
	if (ahead == 1)
		return SLOT_FIRST;
	return ahead == UINT32_MAX ? SLOT_SECOND : SLOT_ROTTEN;
}

enum slot_state slot_find(const void *slots, size_t size)
{
	struct slot_copy copy[2];

	return slot_load_pair(copy, slots, size);
}

const void *slot_current(const void *slots, size_t size)
{
	switch (slot_find(slots, size)) {
	case SLOT_FIRST:
		return slots;
	case SLOT_SECOND:
		return (const char *)slots + size;
	case SLOT_BLANK:
	case SLOT_ROTTEN:
		break;
	}
	return NULL;
}

enum slot_state slot_read(void *ret, const void *slots, size_t size)
{
	struct slot_copy copy[2];
	enum slot_state state = slot_load_pair(copy, slots, size);

	if (state == SLOT_FIRST || state == SLOT_SECOND)
		memcpy(ret, copy[state - SLOT_FIRST].word, size);
	return state;
}

int slot_get(void *ret, const void *slots, size_t size)
{
	switch (slot_read(ret, slots, size)) {
	case SLOT_FIRST:
	case SLOT_SECOND:
		return 1;
	case SLOT_BLANK:
		return 0;
	case SLOT_ROTTEN:
		break;
	}
	return -EUCLEAN;
}

/* The record as the slot will hold it, with commit word and CRC. */
static void slot_seal(struct slot_copy *ret, const void *record, size_t size, uint64_t commit)
{
	memcpy(ret->word, record, size);
	ret->word[0] = commit;
	ret->word[1] = 0;
	ret->word[1] = slot_crc(ret, size);
}

/* Takes the commit word of a slot away, before its body changes. */
static int slot_blank(enum durability d, void *slot)
{
	struct slot_head_df *head = slot;

	media_store64(&head->commit, 0);
	/*
	 * ordering: compiler fence; the body's stores stay behind the blank word. Who reads them
	 * after this process was killed sees what it executed, in its order; media_sync() is for
	 * the power cut.
	 */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	return media_sync(d, &head->commit, sizeof(head->commit));
}

/* Fills a slot that has no commit word with a sealed record and commits it. */
static int slot_fill(enum durability d, void *slot, const struct slot_copy *sealed, size_t size)
{
	struct slot_head_df *head = slot;
	int r;

	media_copy((char *)slot + sizeof(uint64_t), &sealed->word[1], size - sizeof(uint64_t));
	r = media_sync(d, slot, size);
	if (r < 0)
		return r;
	/*
	 * COMMIT: one aligned 8-byte store makes the slot the record.
	 *   crash before: the slot is torn (slot_replace(): rotten), the record is as before.
	 *   crash after:  the slot's sequence is the higher one, it is the record.
	 *   ordering:     release; the body is stored before it, for who finds it after a death.
	 *   durable:      synced before slot_put() returns; the body was synced above.
	 */
	media_store_release(&head->commit, sealed->word[0]);
	return media_sync(d, &head->commit, sizeof(head->commit));
}

int slot_put(enum durability d, void *slots, const void *record, size_t size)
{
	struct slot_copy pair[2], sealed;
	enum slot_state state = slot_load_pair(pair, slots, size);
	char *current = (char *)slots + (state == SLOT_SECOND ? size : 0);
	char *target = (char *)slots + (state == SLOT_FIRST ? size : 0);
	uint32_t sequence = 0;
	int r;

	if (state == SLOT_ROTTEN)
		return size_ok(size) ? -EUCLEAN : -EINVAL;
	if (state != SLOT_BLANK) {
		sequence = (uint32_t)pair[state - SLOT_FIRST].word[0];
		r = media_sync(d, current, size);
		if (r < 0)
			return r;
	}
	slot_seal(&sealed, record, size, SLOT_COMMIT | (uint32_t)(sequence + 1));
	r = slot_blank(d, target);
	if (r < 0)
		return r;
	r = slot_fill(d, target, &sealed, size);
	if (r < 0)
		media_store64(&((struct slot_head_df *)(void *)target)->commit, 0);
	return r;
}

/* Of two slots that no put can have left side by side, which one is behind. */
static unsigned slot_behind(const struct slot_copy pair[2])
{
	return (int32_t)(uint32_t)(pair[0].word[0] - pair[1].word[0]) < 0 ? 0 : 1;
}

bool slot_mend(enum durability d, void *slots, size_t size)
{
	struct slot_copy pair[2];
	bool mended = false;

	if (!size_ok(size) || slot_load_pair(pair, slots, size) != SLOT_ROTTEN)
		return false;
	for (unsigned i = 0; i < 2; i++) {
		char *slot = (char *)slots + i * size;

		if (slot_load(&pair[i], slot, size) != SLOT_BAD)
			continue;
		slot_blank(d, slot);
		mended = true;
	}
	if (!mended)
		slot_blank(d, (char *)slots + slot_behind(pair) * size);
	return true;
}

bool slot_salvage(void *ret, const void *slots, size_t size)
{
	struct slot_copy pair[2];
	bool valid[2];
	unsigned best;

	if (!size_ok(size))
		return false;
	for (unsigned i = 0; i < 2; i++)
		valid[i] = slot_load(&pair[i], (const char *)slots + i * size, size) == SLOT_VALID;
	if (!valid[0] && !valid[1])
		return false;
	best = valid[0] && valid[1] ? !slot_behind(pair) : valid[1];
	memcpy(ret, pair[best].word, size);
	return true;
}

/* Which slot of a rotten pair is written anew: a rotten one, or of two valid ones the one behind. */
static unsigned slot_worst(const struct slot_copy pair[2], const enum slot_health health[2])
{
	for (unsigned i = 0; i < 2; i++)
		if (health[i] == SLOT_BAD)
			return i;
	return slot_behind(pair);
}

/* Writes the slot `to` of a rotten pair over, `next` being its commit word. */
static int slot_write_over(enum durability d, void *slot, const void *record, size_t size,
			   uint64_t next)
{
	struct slot_head_df *head = slot;
	struct slot_copy sealed;
	int r;

	slot_seal(&sealed, record, size, next);
	/* Rotten by its commit word, whatever its body is meanwhile. */
	media_store64(&head->commit, ~UINT64_C(0));
	r = media_sync(d, &head->commit, sizeof(head->commit));
	return r < 0 ? r : slot_fill(d, slot, &sealed, size);
}

static bool slot_is(const struct slot_copy *slot, const void *record, size_t size)
{
	struct slot_copy sealed;

	slot_seal(&sealed, record, size, slot->word[0]);
	return memcmp(&sealed, slot, size) == 0;
}

int slot_replace(enum durability d, void *slots, const void *record, size_t size)
{
	struct slot_copy pair[2];
	enum slot_health health[2];
	char *slot[2] = { slots, (char *)slots + size };
	unsigned to;
	int r;

	if (!size_ok(size) || slot_load_pair(pair, slots, size) != SLOT_ROTTEN)
		return slot_put(d, slots, record, size);
	for (unsigned i = 0; i < 2; i++)
		health[i] = slot_load(&pair[i], slot[i], size);
	to = slot_worst(pair, health);
	if (health[!to] == SLOT_VALID && slot_is(&pair[!to], record, size)) {
		r = media_sync(d, slot[!to], size); /* an earlier call that was killed came so far */
		return r < 0 ? r : slot_blank(d, slot[to]);
	}
	if (health[!to] != SLOT_BAD)
		return slot_write_over(d, slot[to], record, size,
				       SLOT_COMMIT | (uint32_t)(pair[!to].word[0] + 1));
	r = slot_write_over(d, slot[to], record, size, SLOT_COMMIT | 1);
	if (r < 0)
		return r;
	/*
	 * COMMIT: of two rotten slots, the one that is left goes.
	 *   crash before: the pair is rotten still, as the record was.
	 *   crash after:  the other slot is the record.
	 *   ordering:     the fence and the sync in slot_blank(); slot_fill() came before it.
	 *   durable:      synced before the return.
	 */
	return slot_blank(d, slot[!to]);
}
