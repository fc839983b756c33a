/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Space behind sparse shelves.
 *
 * A granule of 512 units has whole pages of every kind but hints: one page of span words, and 32 to 56
 * pages of state records. The pages of hints that it needs are shared with its neighbours.
 *
 * What a crash leaves. Space that is reserved while its granule bit is clear, or while its units are
 * free, is reserved again before it is used, which changes nothing; fresh space is zero, and so is
 * space that was given back. Data of free units alone are given back, after the word that makes them free
 * is durable: a kill in the middle leaves a free run with fewer pages.
 *
 * In durability `power` the reservation itself is made durable (fsync) before anything relies on it.
 */
#include "media/backing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/macro.h"
#include "media/file.h"

enum { FD_DATA, FD_TABLE, FD_STATE, FD_COUNT };

struct backing {
	const struct state_layout *layout;
	enum durability durability;
	struct heap_shelf *shelf;
	int fd[FD_COUNT];
	uint64_t *backed; /* a bit each unit */
};

int backing_new(struct backing **ret, const struct heap *heap, struct heap_shelf *shelf,
		const int fds[3])
{
	_auto(backing_free) struct backing *b = calloc(1, sizeof(*b));

	if (!b) {
		for (unsigned i = 0; i < FD_COUNT; i++)
			close(fds[i]);
		return -ENOMEM;
	}
	memcpy(b->fd, fds, sizeof(b->fd));
	b->layout = &heap->layout;
	b->durability = heap->durability;
	b->shelf = shelf;
	b->backed = calloc(DIV_UP(shelf->limit, 64), sizeof(uint64_t));
	if (!b->backed)
		return -ENOMEM;
	*ret = take(b);
	return 0;
}

void backing_free(struct backing *b)
{
	if (!b)
		return;
	for (unsigned i = 0; i < FD_COUNT; i++)
		close(b->fd[i]);
	free(b->backed);
	free(b);
}

static int reserve_durably(int fd, enum durability durability, uint64_t from, uint64_t to)
{
	int r = file_reserve_beside(fd, from, to); /* the shelf may grow meanwhile */

	return r == 0 && durability == DURABILITY_POWER ? file_sync(fd) : r;
}

int backing_prepare(const int fds[3], const struct state_layout *layout, enum durability durability,
		    uint64_t limit, uint64_t unit)
{
	uint64_t granule = unit / GRANULE_UNITS, records = state_records_offset(limit);
	uint64_t from = granule * GRANULE_UNITS, to = MIN(from + GRANULE_UNITS, limit);
	uint64_t table = (granule + 1) * MEDIA_PAGE;
	/* The page of a hint map that holds the granule's bits. */
	uint64_t hint = granule * (GRANULE_UNITS / 8) / MEDIA_PAGE * MEDIA_PAGE;
	const struct {
		int fd;
		uint64_t from, to;
	} part[] = {
		{ FD_TABLE, table, table + MEDIA_PAGE },
		{ FD_STATE, records + from * layout->stride,
		  ALIGN_UP(records + to * layout->stride, (uint64_t)MEDIA_PAGE) },
		{ FD_STATE, MEDIA_PAGE + hint, 2 * MEDIA_PAGE + hint },
		{ FD_STATE, limbo_hints_offset(limit) + hint,
		  limbo_hints_offset(limit) + hint + MEDIA_PAGE },
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(part); i++)
		r = reserve_durably(fds[part[i].fd], durability, part[i].from, part[i].to);
	return r;
}

int backing_granule(struct backing *b, uint64_t unit)
{
	uint64_t granule = unit / GRANULE_UNITS;
	m64 *word = &b->shelf->granules[granule / 64];
	uint64_t bit = UINT64_C(1) << granule % 64;
	int r;

	if (media_load64(word) & bit)
		return 0;
	r = backing_prepare(b->fd, b->layout, b->durability, b->shelf->limit, unit);
	if (r < 0)
		return r;
	/*
	 * COMMIT: the granule's metadata may be touched.
	 *   crash before: space that nobody looks at; reserved again.
	 *   crash after:  metadata that are zero: nothing leads there.
	 *   ordering:     release; who reads a span word of the granule without having been granted the
	 *                 span loads the bit first.
	 *   durable:      drained before the first of its words.
	 */
	media_store_release(word, media_load64(word) | bit);
	media_persist(b->durability, word, sizeof(*word));
	return 0;
}

uint64_t backing_granule_cost(const struct backing *b, uint64_t unit)
{
	return shelf_has(b->shelf, unit) ? 0 : BACKING_GRANULE_BYTES(b->layout);
}

int backing_reserve(struct backing *b, uint64_t unit, uint64_t n)
{
	return reserve_durably(b->fd[FD_DATA], b->durability, unit << UNIT_SHIFT,
			       (unit + n) << UNIT_SHIFT);
}

static bool is_backed(const struct backing *b, uint64_t unit)
{
	return b->backed[unit / 64] >> unit % 64 & 1;
}

/* Sets or clears bits, whole words at once where it can. */
static void set_backed(struct backing *b, uint64_t unit, uint64_t n, bool backed)
{
	while (n > 0) {
		uint64_t bits = MIN(n, 64 - unit % 64);
		uint64_t mask = (bits == 64 ? 0 : UINT64_C(1) << bits) - 1;

		mask <<= unit % 64;
		if (backed)
			b->backed[unit / 64] |= mask;
		else
			b->backed[unit / 64] &= ~mask;
		unit += bits;
		n -= bits;
	}
}

void backing_mark(struct backing *b, uint64_t unit, uint64_t n)
{
	set_backed(b, unit, n, true);
}

uint64_t backing_missing(const struct backing *b, uint64_t unit, uint64_t n)
{
	uint64_t missing = 0;

	while (n > 0) {
		uint64_t bits = MIN(n, 64 - unit % 64);
		uint64_t word = b->backed[unit / 64] >> unit % 64;

		if (bits < 64)
			word &= (UINT64_C(1) << bits) - 1;
		missing += bits - (uint64_t)__builtin_popcountll(word);
		unit += bits;
		n -= bits;
	}
	return missing;
}

/* The first unit at or behind `unit` that is backed, or not; `end` if none is. */
static uint64_t find_backed(const struct backing *b, uint64_t unit, uint64_t end, bool backed)
{
	uint64_t none = backed ? 0 : UINT64_MAX;

	while (unit < end && is_backed(b, unit) != backed)
		unit += unit % 64 == 0 && b->backed[unit / 64] == none ? 64 : 1;
	return MIN(unit, end);
}

int64_t backing_return(struct backing *b, uint64_t *unit, uint64_t end, uint64_t most)
{
	uint64_t from = find_backed(b, *unit, end, true);
	uint64_t to = find_backed(b, from, MIN(end, from + most), false);
	int r;

	if (from == to) {
		*unit = end;
		return 0;
	}
	r = backing_clear(b, from, to - from);
	*unit = to;
	return r < 0 ? r : (int64_t)(to - from);
}

int backing_clear(struct backing *b, uint64_t unit, uint64_t n)
{
	int r = file_punch(b->fd[FD_DATA], unit << UNIT_SHIFT, (unit + n) << UNIT_SHIFT);

	/* A failure may have come in the middle: then nothing is known of them. */
	set_backed(b, unit, n, false);
	return r;
}

uint64_t backing_bytes(const struct backing *b)
{
	uint64_t bytes = 0;
	struct stat st;

	for (unsigned i = 0; i < FD_COUNT; i++)
		if (fstat(b->fd[i], &st) == 0)
			bytes += (uint64_t)st.st_blocks * 512;
	return bytes;
}
