/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reserve, publish, cancel, and settling a process that dies in one of them: media/reserve.c, media/publish.c,
 * media/grant_log.c.
 *
 * Two blocks. OLD is what a word leads to; NEW is reserved, then published in its place (the word stored, NEW
 * committed, OLD freed with delay), or cancelled. Another process takes whatever block is free and can be
 * had, and frees it at once; NEW only when its span was given up. The daemon reclaims what is in limbo when
 * no pin holds it, and settles the dead one, one after the other; both die at any step, and the next daemon
 * settles before it reclaims.
 *
 * Wrong on purpose: PINS_FIRST (they fall before the logs are settled), UNPINNED (publish is in no epoch),
 * FREE_AT_ONCE (not by limbo), SPANS_FIRST (given up before reservations are settled), RESERVATIONS_FIRST
 * (before logs), ENTRY_FIRST (the settler clears the entry, then frees the block), ALLOC_FIRST (the bit before
 * the entry), LOG_LATE (valid after the word is stored), CLEAR_FIRST (the log is cleared before the free),
 * LEAVE_FIRST (cancel leaves its epoch before it clears the entry), RECLAIM_FIRST (the next daemon does, before
 * it settles).
 */

#define OLD 0
#define NEW 1

#define S(step) if :: step :: goto died fi

bool alloc[2], limbo[2];
bool held[2];    /* ghost: the other process has it */
bool word;       /* leads to NEW; else to OLD */
bool entry;      /* names NEW */
bool log;        /* is valid */
bool pin;        /* the publisher's */
bool owned;      /* NEW's span is the publisher's */
bool settling;   /* the daemon is at it, or has died in it: it reclaims nothing before it is done */
bool dead, over; /* the publisher: settling is to be done; nothing is left to do */

inline free_with_delay(b) {
#ifdef FREE_AT_ONCE
	S(alloc[b] = false)
#else
	S(limbo[b] = true)
#endif
}

proctype publisher()
{
	/* nvmm_reserve() */
#ifdef ALLOC_FIRST
	S(alloc[NEW] = true);
	S(entry = true);
#else
	S(entry = true);
	S(alloc[NEW] = true);
#endif
	if
	:: S(owned = false) /* the span was exhausted and given up */
	:: true
	fi;
	if
	:: true -> /* nvmm_publish() */
#ifndef UNPINNED
		S(pin = true);
#endif
#ifdef LOG_LATE
		S(word = true);
		S(log = true);
#else
		S(log = true);
		S(word = true);
#endif
		S(entry = false);
#ifdef CLEAR_FIRST
		S(log = false);
		free_with_delay(OLD);
#else
		free_with_delay(OLD);
		S(log = false);
#endif
	:: true -> /* nvmm_cancel() */
		S(pin = true);
		free_with_delay(NEW);
#ifdef LEAVE_FIRST
		S(pin = false);
#endif
		S(entry = false)
	fi;
	S(pin = false);
	over = true;
	goto end;
died:
	dead = true;
end:	skip
}

inline settle_log() {
	if
	:: log ->
		if :: !word -> S(word = true) :: else fi;
		if :: entry -> S(entry = false) :: else fi;
		if
		:: d_step { alloc[OLD] && !limbo[OLD] -> skip } -> free_with_delay(OLD)
		:: else
		fi;
		S(log = false)
	:: else
	fi
}

inline settle_reservation() {
	if
	:: entry ->
#ifdef ENTRY_FIRST
		S(entry = false);
#endif
		if
		:: d_step { alloc[NEW] && !limbo[NEW] -> skip } -> free_with_delay(NEW)
		:: else
		fi;
#ifndef ENTRY_FIRST
		S(entry = false)
#endif
	:: else
	fi
}

proctype settler()
{
	dead;
#ifdef PINS_FIRST
	pin = false;
#endif
	settling = true;
restart:
#ifdef SPANS_FIRST
	S(owned = false);
#endif
#ifdef RESERVATIONS_FIRST
	settle_reservation();
	settle_log();
#else
	settle_log();
	settle_reservation();
#endif
	S(owned = false);
	S(pin = false);
	atomic { settling = false; over = true };
	goto end;
died:
#ifdef RECLAIM_FIRST
	settling = false;
#endif
	goto restart;
end:	skip
}

proctype reclaimer()
{
	byte b;

end:	do
	:: atomic { limbo[OLD] && !pin && !settling -> b = OLD } -> d_step { limbo[b] = false; alloc[b] = false }
	:: atomic { limbo[NEW] && !pin && !settling -> b = NEW } -> d_step { limbo[b] = false; alloc[b] = false }
	:: atomic { over && !limbo[OLD] && !limbo[NEW] && !held[OLD] && !held[NEW] ->
		/* All or nothing, and nothing is lost. */
		assert(alloc[NEW] == word && alloc[OLD] == !word) }
	od
}

#define mine(b) (alloc[b] && !limbo[b])

/* Takes a block, checks that it stays its own, frees it. */
proctype other()
{
end:	do
	:: d_step { !alloc[OLD] -> alloc[OLD] = true; held[OLD] = true };
		assert(mine(OLD));
		d_step { assert(mine(OLD)); held[OLD] = false; alloc[OLD] = false }
	:: d_step { !alloc[NEW] && !owned -> alloc[NEW] = true; held[NEW] = true };
		assert(mine(NEW));
		d_step { assert(mine(NEW)); held[NEW] = false; alloc[NEW] = false }
	od
}

init {
	atomic {
		alloc[OLD] = true;
		owned = true;
		run publisher(); run settler(); run reclaimer(); run other()
	}
}
