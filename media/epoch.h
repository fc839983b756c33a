/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Epochs: the two kinds of memory through which readers and the daemon see each other.
 *
 * Runtime state, on tmpfs; nothing of it is durable. doc/epochs.md has the argument.
 *
 *   what           writer                                   readers
 *   page.current   the daemon                               all clients, which map it read-only
 *   page.frontier  the daemon                               all clients
 *   page.calls     the daemon                               all clients; a futex
 *   page.clock     the daemon                               all clients
 *   slot.word      the thread that has the slot             the daemon
 *   slot.tid       the thread that has the slot             the daemon
 *
 * A word is an epoch and, in its low bits, how deep its thread is nested in it; zero: outside.
 * Words change by load, modify, store; <nvmm/client.h> has entry and exit inline. The order between
 * a reader's store and its later loads is the daemon's business (media/barrier.h).
 *
 * Slots are a sealed memfd of EPOCH_SLOTS_BYTES. The daemon looks at as many slots as it granted,
 * and reads them by pread(2), of which no page comes to be and no fault can come.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define EPOCH_NEST_BITS 20
#define EPOCH_NEST_MASK ((UINT64_C(1) << EPOCH_NEST_BITS) - 1)
#define EPOCH_SLOTS_MAX 131072u /* threads of a process that are or were in an epoch at once */
#define EPOCH_SLOTS_FIRST 64u   /* that are granted at first */
#define EPOCH_PAGE_SIZE 4096u

/*
 * The clock of the number that programs see: `epoch` at `since`, and one more each `interval`.
 * There are two, and the low bit of page.turn says which one holds. The daemon fills the other one,
 * then turns.
 */
struct epoch_clock {
	uint64_t epoch;
	uint64_t since;    /* CLOCK_MONOTONIC, ns */
	uint64_t interval; /* ns; 0: it stands still */
};

struct epoch_page {
	uint64_t current;  /* epoch_word(G): what a thread that enters stores */
	uint64_t frontier; /* readers of epochs below it have left, as far as the daemon knows */
	uint32_t calls; /* raised when the daemon has something to tell those who wait for it */
	uint32_t turn;
	struct epoch_clock clock[2];
	uint32_t zero[(EPOCH_PAGE_SIZE - 72) / 4];
};
_Static_assert(sizeof(struct epoch_page) == EPOCH_PAGE_SIZE, "one page");

/* A cache line of one thread. */
struct epoch_slot {
	uint64_t word;
	uint32_t tid; /* 0: no thread's */
	uint32_t zero[13];
};
_Static_assert(sizeof(struct epoch_slot) == 64, "one line");

#define EPOCH_SLOTS_BYTES ((uint64_t)EPOCH_SLOTS_MAX * sizeof(struct epoch_slot))

static inline uint64_t epoch_word(uint64_t epoch)
{
	return epoch << EPOCH_NEST_BITS | 1;
}

/* The epoch of a word; 0: outside. */
static inline uint64_t epoch_of(uint64_t word)
{
	return word >> EPOCH_NEST_BITS;
}

/* The daemon's side */

/* Takes a page up: of a daemon before, or all zero. Returns the epoch that is now. */
uint64_t epoch_page_init(struct epoch_page *page);
uint64_t epoch_current(const struct epoch_page *page);
uint64_t epoch_frontier(const struct epoch_page *page);
/* Raises the number; returns the stamp for what was snapshot before: the number until now, as
 * programs saw it. No reader has stored a higher one. */
uint64_t epoch_raise(struct epoch_page *page);
/* Has the number that programs see rise by one each `interval_ms` from now on. */
void epoch_set_interval(struct epoch_page *page, uint64_t interval_ms);
/* Has those who wait by epoch_page_wait() ask the daemon. */
void epoch_page_call(struct epoch_page *page);
/* Tells how far readers are; never falls. */
void epoch_publish_frontier(struct epoch_page *page, uint64_t frontier);

/* Whether a snapshot stamped `stamp` is ripe for readers of whom the oldest is in `oldest`. */
static inline bool epoch_ripe(uint64_t stamp, uint64_t oldest)
{
	return oldest == 0 || oldest > stamp;
}

/* What a scan saw of one slot. */
struct epoch_reading {
	uint64_t epoch; /* 0: outside */
	uint32_t slot;
	uint32_t tid;
};

/*
 * Finds the threads that are inside in a copy of `n` slots, of which the first is number `first`.
 * `ret` has room for `n` readings. Returns how many there are.
 */
uint32_t epoch_scan(const struct epoch_slot *copy, uint32_t first, uint32_t n,
		    struct epoch_reading *ret);

/* The client's side */

/* How often the daemon has called; waits until it has called more often than `seen`, or for no
 * reason; ends the wait of whoever waits, here and elsewhere. */
uint32_t epoch_page_calls(const struct epoch_page *page);
void epoch_page_wait(const struct epoch_page *page, uint32_t seen);
void epoch_page_wake(const struct epoch_page *page);
/*
 * The number as programs see it: the page's, or the clock's if that is higher. Never falls. No
 * reader that is inside has stored a higher one; so those who are inside now have left once the
 * frontier is above it.
 */
uint64_t epoch_now(const struct epoch_page *page);
void epoch_slot_give(struct epoch_slot *slot, uint32_t tid);
/* Ends whatever the slot's thread was in. */
void epoch_slot_clear(struct epoch_slot *slot);
