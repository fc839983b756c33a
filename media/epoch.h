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
 *   slots.used     the session's process, under its lock    the daemon
 *   slot.word      the thread that has the slot             the daemon
 *   slot.tid       the thread that has the slot             the daemon
 *
 * A word is an epoch and, in its low bits, how deep its thread is nested in it; zero: outside.
 * Words change by load, modify, store; <nvmm/client.h> has entry and exit inline. The order between
 * a reader's store and its later loads is the daemon's business (media/barrier.h).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define EPOCH_NEST_BITS 20
#define EPOCH_NEST_MASK ((UINT64_C(1) << EPOCH_NEST_BITS) - 1)
#define EPOCH_SLOTS_MAX 65536u /* threads of a process that are or were in an epoch at once */
#define EPOCH_PAGE_SIZE 4096u
#define EPOCH_MAGIC UINT64_C(0x3163657065766d6e)

struct epoch_page {
	uint64_t current;  /* epoch_word(G): what a thread that enters stores */
	uint64_t frontier; /* readers of epochs below it have left, as far as the daemon knows */
	uint32_t calls; /* raised when the daemon has something to tell those who wait for it */
	uint32_t zero[(EPOCH_PAGE_SIZE - 20) / 4];
};
_Static_assert(sizeof(struct epoch_page) == EPOCH_PAGE_SIZE, "one page");

/* A cache line of one thread. */
struct epoch_slot {
	uint64_t word;
	uint32_t tid; /* 0: no thread's */
	uint32_t zero[13];
};
_Static_assert(sizeof(struct epoch_slot) == 64, "one line");

/* A session's file. */
struct epoch_slots {
	uint64_t magic;
	uint64_t wake; /* written, with pwrite(2), to wake the daemon: what is written means nothing */
	uint32_t used; /* slots below it may be in use; never falls */
	uint32_t zero[(EPOCH_PAGE_SIZE - 20) / 4];
	struct epoch_slot slot[];
};
_Static_assert(sizeof(struct epoch_slots) == EPOCH_PAGE_SIZE, "one page");

#define EPOCH_SLOTS_BYTES (EPOCH_PAGE_SIZE + (uint64_t)EPOCH_SLOTS_MAX * sizeof(struct epoch_slot))

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
/* Raises the number; returns the stamp for what was snapshot before: the number until now. */
uint64_t epoch_raise(struct epoch_page *page);
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
 * Reads what the session's threads are in: up to `room` readings of threads inside, from slot *from
 * on, which moves behind what was read. Returns how many; less than `room`: that is all. Client memory
 * is read once and bounded; the daemon calls it under guard_run().
 */
uint32_t epoch_scan(const struct epoch_slots *slots, uint32_t *from, struct epoch_reading *ret,
		    uint32_t room);

/* The client's side */

/* How often the daemon has called; waits until it has called more often than `seen`, or for no reason; ends the
 * wait of whoever waits, here and elsewhere. */
uint32_t epoch_page_calls(const struct epoch_page *page);
void epoch_page_wait(const struct epoch_page *page, uint32_t seen);
void epoch_page_wake(const struct epoch_page *page);
/* Says that slots below `used` may be in use, before the first of them is. */
void epoch_slots_use(struct epoch_slots *slots, uint32_t used);
void epoch_slot_give(struct epoch_slot *slot, uint32_t tid);
/* Ends whatever the slot's thread was in. */
void epoch_slot_clear(struct epoch_slot *slot);
