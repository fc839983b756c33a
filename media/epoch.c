/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Epochs.
 *
 * The daemon frees what is in limbo by this order of its own: limbo bits are read (the snapshot),
 * then the number is raised, then every running thread passes a barrier, then slots are read. Take
 * any reader and the barrier that it passed. If it stored its word before the barrier, the scan
 * sees the word. If after it, its loads come after it as well, so they see what the writers did who
 * unlinked the blocks of the snapshot, and it can meet none of them. A word with a number above the
 * stamp was read from the page after the number was raised, by acquire, and so proves the same.
 *
 * A number that was read and is stored late, however late, is a low one: it holds back more than it
 * need, never less.
 */
#include "media/epoch.h"

#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/macro.h"
#include "media/barrier.h"

uint64_t epoch_current(const struct epoch_page *page)
{
	/* ordering: acquire; as a reader's, see epoch_raise(). */
	return epoch_of(__atomic_load_n(&page->current, __ATOMIC_ACQUIRE));
}

uint64_t epoch_frontier(const struct epoch_page *page)
{
	/* ordering: acquire; pairs with epoch_publish_frontier(). */
	return __atomic_load_n(&page->frontier, __ATOMIC_ACQUIRE);
}

/* The clock */

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t clock_epoch(const struct epoch_clock *clock, uint64_t now)
{
	/* Of another boot, the clock's begin may lie ahead. */
	int64_t passed = (int64_t)(now - clock->since);

	if (clock->interval == 0 || passed <= 0)
		return clock->epoch;
	return clock->epoch + (uint64_t)passed / clock->interval;
}

/* Reads the clock that holds. One that was filled again meanwhile is read again: that takes two
 * turns. */
static struct epoch_clock clock_read(const struct epoch_page *page)
{
	struct epoch_clock clock;
	uint32_t turn;

	do {
		const struct epoch_clock *c;

		/* ordering: acquire; pairs with the release in clock_set(). */
		turn = __atomic_load_n(&page->turn, __ATOMIC_ACQUIRE);
		c = &page->clock[turn & 1];
		/* ordering: relaxed, all three; the fence below tells whether they are of one
		 * turn. */
		clock.epoch = __atomic_load_n(&c->epoch, __ATOMIC_RELAXED);
		clock.since = __atomic_load_n(&c->since, __ATOMIC_RELAXED);
		clock.interval = __atomic_load_n(&c->interval, __ATOMIC_RELAXED);
		/* ordering: acquire fence; the fields were loaded before the turn is looked at
		 * again. */
		barrier_acquire();
		/* ordering: relaxed; after the fence. */
	} while (__atomic_load_n(&page->turn, __ATOMIC_RELAXED) != turn);
	return clock;
}

/*
 * Sets the clock. A daemon that dies in between leaves the old clock as it was: the other one
 * counts only from the turn on.
 */
static void clock_set(struct epoch_page *page, struct epoch_clock clock)
{
	uint32_t turn = page->turn + 1;
	struct epoch_clock *c = &page->clock[turn & 1];

	/* ordering: release fence; who sees one of the stores below sees the last turn. */
	barrier_release();
	/* ordering: relaxed, all three; see clock_read(). */
	__atomic_store_n(&c->epoch, clock.epoch, __ATOMIC_RELAXED);
	__atomic_store_n(&c->since, clock.since, __ATOMIC_RELAXED);
	__atomic_store_n(&c->interval, clock.interval, __ATOMIC_RELAXED);
	/* ordering: release; pairs with the acquire in clock_read(). */
	__atomic_store_n(&page->turn, turn, __ATOMIC_RELEASE);
}

static uint64_t epoch_at(const struct epoch_page *page, const struct epoch_clock *clock,
			 uint64_t now)
{
	return MAX(epoch_current(page), clock_epoch(clock, now));
}

uint64_t epoch_now(const struct epoch_page *page)
{
	struct epoch_clock clock = clock_read(page);

	return epoch_at(page, &clock, monotonic_ns());
}

void epoch_set_interval(struct epoch_page *page, uint64_t interval_ms)
{
	struct epoch_clock clock = clock_read(page);
	uint64_t now = monotonic_ns();

	clock.epoch = epoch_at(page, &clock, now);
	clock.since = now;
	clock.interval = interval_ms * 1000000u;
	clock_set(page, clock);
}

/* The daemon's number */

uint64_t epoch_page_init(struct epoch_page *page)
{
	uint64_t now = MAX(epoch_now(page), epoch_frontier(page)) + 1;

	/* ordering: release; as epoch_raise(). */
	__atomic_store_n(&page->current, epoch_word(now), __ATOMIC_RELEASE);
	return now;
}

uint64_t epoch_raise(struct epoch_page *page)
{
	struct epoch_clock clock = clock_read(page);
	uint64_t now = monotonic_ns(), stamp = epoch_at(page, &clock, now);

	/* From here the clock goes on: after many raises it would stand still until it has
	 * caught up. */
	if (clock_epoch(&clock, now) < stamp + 1) {
		clock.epoch = stamp + 1;
		clock.since = now;
		clock_set(page, clock);
	}
	/*
	 * ordering: release; pairs with the acquire of who enters: a reader with the new number
	 * sees all that the daemon saw when it took its snapshot. The fence: the raise comes before
	 * the scan also for readers that fence by themselves.
	 */
	__atomic_store_n(&page->current, epoch_word(stamp + 1), __ATOMIC_RELEASE);
	/* ordering: full barrier; as said. */
	barrier_full();
	return stamp;
}

/* Shared, as the page is between processes; waiting and waking only read it. */
void epoch_page_wake(const struct epoch_page *page)
{
	syscall(SYS_futex, &page->calls, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

uint32_t epoch_page_calls(const struct epoch_page *page)
{
	/* ordering: acquire; pairs with epoch_page_call(). */
	return __atomic_load_n(&page->calls, __ATOMIC_ACQUIRE);
}

void epoch_page_wait(const struct epoch_page *page, uint32_t seen)
{
	syscall(SYS_futex, &page->calls, FUTEX_WAIT, seen, NULL, NULL, 0);
}

void epoch_page_call(struct epoch_page *page)
{
	/* ordering: release; what there is to ask for was noted before. */
	__atomic_store_n(&page->calls, page->calls + 1, __ATOMIC_RELEASE);
	epoch_page_wake(page);
}

void epoch_publish_frontier(struct epoch_page *page, uint64_t frontier)
{
	if (frontier > epoch_frontier(page))
		/* ordering: release; pairs with epoch_frontier(): the readers were seen gone
		 * before. */
		__atomic_store_n(&page->frontier, frontier, __ATOMIC_RELEASE);
}

/*
 * The copy may have bytes of several values that a word had while it was taken. That does no harm.
 * While a visit lasts its epoch's bits do not change, so they are read as they are. If any byte is
 * of a later value, the visit was over, and its last use of a block came before: see the fence.
 */
uint32_t epoch_scan(const struct epoch_slot *copy, uint32_t first, uint32_t n,
		    struct epoch_reading *ret)
{
	uint32_t found = 0;

	/* ordering: acquire fence; pairs with the release of who leaves: its last use of a block
	 * comes before the block is given away. The kernel's loads came before on this thread. */
	barrier_acquire();
	for (uint32_t i = 0; i < n; i++)
		if (epoch_of(copy[i].word) != 0)
			ret[found++] = (struct epoch_reading){
				.epoch = epoch_of(copy[i].word),
				.slot = first + i,
				.tid = copy[i].tid,
			};
	return found;
}

void epoch_slot_give(struct epoch_slot *slot, uint32_t tid)
{
	/* ordering: relaxed; for people's eyes. */
	__atomic_store_n(&slot->tid, tid, __ATOMIC_RELAXED);
}

void epoch_slot_clear(struct epoch_slot *slot)
{
	epoch_slot_give(slot, 0);
	/* ordering: release; as leaving: all use of blocks comes before. */
	__atomic_store_n(&slot->word, 0, __ATOMIC_RELEASE);
}
