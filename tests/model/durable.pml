/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reserve, publish, cancel and settle in durability `power`: what is durable, with power cut anywhere, between a
 * death and its settling and within that. media/reserve.c, media/publish.c, media/grant_log.c, media/grant_lanes.c.
 *
 * The two blocks, the publisher, the other process and the daemon of publish.pml. Each word that a load goes
 * by has the value that all see and the one on the medium, to which it may get at any moment by itself (evict), and
 * must by a drain after its flush; what a flush took down is kept for each process, and lost with it. The program
 * has stored the word that it publishes before, without a drain.
 *
 * Alloc bits stand under a durable open mark (open.pml): after a cut each block without a durable limbo bit is
 * allocated, if it was free as a suspect. Who collects has drained the cleared limbo bit. A cut ends all processes;
 * what the other has is still its own afterwards, by a pointer that it kept. The next daemon settles before it serves.
 *
 * Holds: publish has happened or not, and once it returned or its death was settled it stays so, whatever is
 * cut; what the other has is never freed; nothing is lost, a block that was free may be suspect.
 *
 * Wrong on purpose. The publisher does not drain: CONTENT_UNDRAINED (the log's actions before it is valid),
 * COMMIT_UNDRAINED (the valid log before the word), WORD_UNFLUSHED (the word's old value), APPLIED_UNDRAINED (before the
 * log is cleared), CLEARED_UNDRAINED (before it leaves its epoch), ENTRY_UNDRAINED (reserving), CANCEL_UNDRAINED (limbo
 * before the entry), LEFT_UNDRAINED (the entry before it leaves its epoch). The settler does not drain what it finds done:
 * FOUND_VALID (the log), FOUND_WORD, FOUND_CLEAR (the log), FOUND_GONE (the entry that the log names), FOUND_LIMBO,
 * FOUND_CANCELLED (an entry); or does before (SETTLE_CLEARS_FIRST: the log is cleared, then drained what was applied).
 */

#define OLD 0
#define NEW 1

#define W_PREV 0 /* durable at first */
#define W_OLD 1  /* leads to OLD */
#define W_NEW 2

#define WORD 0
#define ENTRY 1   /* names NEW */
#define COMMIT 2  /* the log is valid, if its actions are */
#define ACTIONS 3
#define LIMBO 4   /* of OLD; of NEW */
#define WORDS 6

#define PUBLISHER 0
#define SETTLER 1

byte now[WORDS], medium[WORDS];
typedef Pending { byte value[WORDS]; bit flushed[WORDS] };
Pending pending[2];

bit alloc[2];
bit held[2];    /* ghost: the other process has it */
bit suspect[2]; /* ghost: was free when power was cut */
bit pin;        /* the publisher's */
bit owned;      /* NEW's span is the publisher's */
bit gone;       /* the publisher: it is done, or dead */
bit settle;     /* is to be done; nothing is served or reclaimed before */
bit off;        /* power was cut, and the daemon has not noticed */
byte fate;      /* ghost: 1, publish has not happened; 2, it has: for ever */

hidden byte w_;

inline forget(w) {
	pending[PUBLISHER].flushed[w] = 0;
	pending[PUBLISHER].value[w] = 0;
	pending[SETTLER].flushed[w] = 0;
	pending[SETTLER].value[w] = 0
}

inline take_down(p, w) {
	pending[p].flushed[w] = 1;
	pending[p].value[w] = now[w]
}

inline drain_all(p) {
	w_ = 0;
	do
	:: w_ < WORDS ->
		if
		:: pending[p].flushed[w_] -> medium[w_] = pending[p].value[w_]
		:: else
		fi;
		pending[p].flushed[w_] = 0;
		pending[p].value[w_] = 0;
		w_++
	:: else -> break
	od;
	w_ = 0
}

inline lose(p) {
	w_ = 0;
	do
	:: w_ < WORDS -> pending[p].flushed[w_] = 0; pending[p].value[w_] = 0; w_++
	:: else -> break
	od;
	w_ = 0
}

/* A step of a process that may die before it. A flush is its own. */
#define P(step) if :: d_step { !off && !gone -> step } :: goto died fi
#define D(step) if :: d_step { !off -> step } :: goto died fi

#define p_flush(w) P(take_down(PUBLISHER, w))
#define p_drain P(drain_all(PUBLISHER))
#define d_flush(w) D(take_down(SETTLER, w))
#define d_drain D(drain_all(SETTLER))

proctype publisher()
{
	/* nvmm_reserve() */
	P(now[ENTRY] = 1);
#ifndef ENTRY_UNDRAINED
	p_flush(ENTRY);
	p_drain;
#endif
	P(alloc[NEW] = 1);
	if
	:: P(owned = 0) /* the span was exhausted and given up */
	:: true
	fi;
	if
	:: true -> /* nvmm_publish() */
		P(pin = 1);
#ifndef WORD_UNFLUSHED
		p_flush(WORD);
#endif
		P(now[ACTIONS] = 1);
#ifndef CONTENT_UNDRAINED
		p_flush(ACTIONS);
		p_drain;
#endif
		P(now[COMMIT] = 1);
#ifndef COMMIT_UNDRAINED
		p_flush(COMMIT);
		p_drain;
#endif
		P(now[WORD] = W_NEW);
		p_flush(WORD);
		P(now[ENTRY] = 0);
		p_flush(ENTRY);
		P(now[LIMBO + OLD] = 1);
		p_flush(LIMBO + OLD);
#ifndef APPLIED_UNDRAINED
		p_drain;
#endif
		P(now[COMMIT] = 0);
#ifndef CLEARED_UNDRAINED
		p_flush(COMMIT);
		p_drain;
#endif
		P(pin = 0);
		P(fate = 2; gone = 1)
	:: true -> /* nvmm_cancel() */
		P(pin = 1);
		P(now[LIMBO + NEW] = 1);
#ifndef CANCEL_UNDRAINED
		p_flush(LIMBO + NEW);
		p_drain;
#endif
		P(now[ENTRY] = 0);
#ifndef LEFT_UNDRAINED
		p_flush(ENTRY);
		p_drain;
#endif
		P(pin = 0);
		P(fate = 1; gone = 1)
	fi;
	goto end;
died:	skip;
	d_step {
		lose(PUBLISHER);
		gone = 1;
		settle = 1
	};
end:	skip
}

/* Puts a block into limbo unless it is there, or free; durable. */
inline limbo_block(b) {
	if
	:: d_step { alloc[b] && !now[LIMBO + b] -> skip } ->
		D(now[LIMBO + b] = 1);
		d_flush(LIMBO + b);
		d_drain
	:: else ->
#ifndef FOUND_LIMBO
		d_flush(LIMBO + b);
		d_drain
#else
		skip
#endif
	fi
}

inline settle_log() {
	if
	:: d_step { now[COMMIT] && now[ACTIONS] -> skip } ->
#ifndef FOUND_VALID
		d_flush(COMMIT);
		d_drain;
#endif
#ifdef SETTLE_CLEARS_FIRST
		D(now[COMMIT] = 0);
		d_flush(COMMIT);
		d_drain;
#endif
		if
		:: now[WORD] == W_OLD ->
			D(now[WORD] = W_NEW);
			d_flush(WORD);
			d_drain
		:: else ->
#ifndef FOUND_WORD
			d_flush(WORD);
			d_drain
#else
			skip
#endif
		fi;
		if
		:: now[ENTRY] ->
			D(now[ENTRY] = 0);
			d_flush(ENTRY);
			d_drain
		:: else ->
#ifndef FOUND_GONE
			d_flush(ENTRY);
			d_drain
#else
			skip
#endif
		fi;
		limbo_block(OLD);
		D(now[COMMIT] = 0);
		d_flush(COMMIT);
		d_drain
	:: else ->
#ifndef FOUND_CLEAR
		d_flush(COMMIT)
#else
		skip
#endif
	fi
}

inline settle_reservation() {
	if
	:: now[ENTRY] ->
		limbo_block(NEW);
		D(now[ENTRY] = 0);
		d_flush(ENTRY)
	:: else ->
#ifndef FOUND_CANCELLED
		d_flush(ENTRY)
#else
		skip
#endif
	fi;
	d_drain
}

/* Settles the dead one, and what a cut leaves: the next daemon, too. */
proctype settler()
{
end:	settle && gone;
	d_step { off = 0 };
	settle_log();
	settle_reservation();
	D(owned = 0);
	d_step {
		if
		:: !off ->
			pin = 0;
			settle = 0;
			assert(fate == 0 || (fate == 2) == (now[WORD] == W_NEW));
			fate = (now[WORD] == W_NEW -> 2 : 1)
		:: else
		fi
	};
	goto end;
died:	skip;
	d_step { lose(SETTLER) };
	goto end
}

#define quiet (gone && !settle && !off)

/* Collects, the cleared limbo bit durable before the block may be had. */
inline collect(b) {
	d_step {
		now[LIMBO + b] = 0;
		medium[LIMBO + b] = 0;
		forget(LIMBO + b);
		alloc[b] = 0
	}
}

proctype reclaimer()
{
end:	do
	:: atomic { now[LIMBO + OLD] && !pin && !settle && !off -> collect(OLD) }
	:: atomic { now[LIMBO + NEW] && !pin && !settle && !off -> collect(NEW) }
	:: d_step { quiet && !now[LIMBO + OLD] && !now[LIMBO + NEW] && !held[OLD] && !held[NEW] ->
		/* All or nothing, and nothing is lost. */
		assert(alloc[NEW] == (now[WORD] == W_NEW) || (suspect[NEW] && now[WORD] != W_NEW));
		assert(alloc[OLD] == (now[WORD] != W_NEW) || (suspect[OLD] && now[WORD] == W_NEW)) }
	od
}

/* Takes a block; it stays its own, over any cut that is settled; frees it. */
proctype other()
{
end:	do
	:: d_step { !settle && !off && !alloc[OLD] && !now[LIMBO + OLD] -> alloc[OLD] = 1; held[OLD] = 1 }
	:: d_step { !settle && !off && !alloc[NEW] && !owned -> alloc[NEW] = 1; held[NEW] = 1 }
	:: d_step { !settle && !off && held[OLD] ->
		assert(alloc[OLD] && !now[LIMBO + OLD]);
		held[OLD] = 0; alloc[OLD] = 0 }
	:: d_step { !settle && !off && held[NEW] ->
		assert(alloc[NEW] && !now[LIMBO + NEW]);
		held[NEW] = 0; alloc[NEW] = 0 }
	od
}

/* After a cut. */
inline bits(b) {
	suspect[b] = suspect[b] || !alloc[b];
	alloc[b] = 1
}

proctype power()
{
	byte w;

end:	do
	:: atomic { now[WORD] != medium[WORD] -> w = WORD }; goto evict
	:: atomic { now[ENTRY] != medium[ENTRY] -> w = ENTRY }; goto evict
	:: atomic { now[COMMIT] != medium[COMMIT] -> w = COMMIT }; goto evict
	:: atomic { now[ACTIONS] != medium[ACTIONS] -> w = ACTIONS }; goto evict
	:: atomic { now[LIMBO + OLD] != medium[LIMBO + OLD] -> w = LIMBO + OLD }; goto evict
	:: atomic { now[LIMBO + NEW] != medium[LIMBO + NEW] -> w = LIMBO + NEW }; goto evict
	:: d_step { !off ->
		off = 1;
		settle = 1;
		pin = 0;
		lose(PUBLISHER);
		lose(SETTLER);
		w_ = 0;
		do
		:: w_ < WORDS -> now[w_] = medium[w_]; w_++
		:: else -> break
		od;
		w_ = 0;
		bits(OLD);
		bits(NEW) }
	od;
evict:	skip;
	d_step {
		medium[w] = now[w];
		forget(w);
		w = 0
	};
	goto end
}

init {
	d_step {
		alloc[OLD] = 1;
		owned = 1;
		now[WORD] = W_OLD;
		medium[WORD] = W_PREV
	};
	atomic { run publisher(); run settler(); run reclaimer(); run other(); run power() }
}
