/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Epochs.
 *
 * The daemon frees what is in limbo by this order of its own: limbo bits are read (the snapshot), then
 * the number is raised, then every running thread passes a barrier, then slots are read. Take any
 * reader and the barrier that it passed. If it stored its word before the barrier, the scan sees
 * the word. If after it, its loads come after it as well, so they see what the writers did who unlinked
 * the blocks of the snapshot, and it can meet none of them. A word with a number above the stamp
 * was read from the page after the number was raised, by acquire, and so proves the same.
 *
 * A number that was read and is stored late, however late, is a low one: it holds back more than it
 * need, never less.
 */
#include "media/epoch.h"

#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
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

uint64_t epoch_page_init(struct epoch_page *page)
{
	uint64_t now = MAX(epoch_current(page), epoch_frontier(page)) + 1;

	/* ordering: release; as epoch_raise(). */
	__atomic_store_n(&page->current, epoch_word(now), __ATOMIC_RELEASE);
	return now;
}

uint64_t epoch_raise(struct epoch_page *page)
{
	uint64_t stamp = epoch_current(page);

	/*
	 * ordering: release; pairs with the acquire of who enters: a reader with the new number sees
	 * all that the daemon saw when it took its snapshot. The fence: the raise comes before the scan
	 * also for readers that fence by themselves.
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
		/* ordering: release; pairs with epoch_frontier(): the readers were seen gone before. */
		__atomic_store_n(&page->frontier, frontier, __ATOMIC_RELEASE);
}

uint32_t epoch_scan(const struct epoch_slots *slots, uint32_t *from, struct epoch_reading *ret,
		    uint32_t room)
{
	/* ordering: acquire; pairs with epoch_slots_use(): stored before any word of a new slot, so
	 * the barrier that makes the word seen makes this seen. */
	uint32_t used = MIN(__atomic_load_n(&slots->used, __ATOMIC_ACQUIRE), EPOCH_SLOTS_MAX);
	uint32_t n = 0, i;

	for (i = *from; i < used && n < room; i++) {
		/* ordering: acquire; pairs with the release of who leaves: its last use of a block
		 * comes before the block is given away. */
		uint64_t epoch = epoch_of(__atomic_load_n(&slots->slot[i].word, __ATOMIC_ACQUIRE));

		if (epoch == 0)
			continue;
		/* ordering: relaxed; for people's eyes. */
		ret[n++] = (struct epoch_reading){
			.epoch = epoch, .slot = i,
			.tid = __atomic_load_n(&slots->slot[i].tid, __ATOMIC_RELAXED),
		};
	}
	*from = i;
	return n;
}

void epoch_slots_use(struct epoch_slots *slots, uint32_t used)
{
	/* ordering: release; before any store to the slot, see epoch_scan(). */
	__atomic_store_n(&slots->used, used, __ATOMIC_RELEASE);
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
