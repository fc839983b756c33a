/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Open marks: media/mark.c, span_collect(), span_free_remote(), span_defer(), with power cut anywhere.
 *
 * One span of one block, two owners one after the other, who may end to close it when the other has it;
 * a freer, who frees at once or with delay; the daemon, who makes limbo remote. Each word has the value
 * that all see and the one on the medium, to which it may get at any moment by itself (evict), and must
 * by a drain after its flush. What a flush took down is kept for each process.
 *
 * Ghost: life. ORED: freed, and its freer has not returned.
 *
 * Holds, at any cut: without a mark on the medium the bits there say what is true; with one, no block
 * that is held has a limbo bit there.
 *
 * Wrong on purpose, each to be found: CLEAR_EARLY, NO_RELOOK, TRUST_EARLY, NO_VERSION, END_BLIND,
 * FLUSH_FIRST, LIMBO_UNDRAINED.
 */

#ifndef OPENS
#define OPENS 2 /* claims, of both owners together */
#endif

mtype = { FREE, HELD, FLUX, ORED };

#define ALLOC 0
#define LIMBO 1
#define REMOTE 2
#define MARK 3
#define WORDS 4
#define FREER 2 /* owners are 0 and 1 */

bit now[WORDS], medium[WORDS];
bit trust, left;
byte version;
byte owner = 3; /* nobody */
byte claims;
mtype life = FREE;
bool off;

/* What each process has flushed and not drained; false again if the medium got something later. */
typedef Pending { bit value[WORDS]; bit flushed[WORDS]; byte newer[WORDS] }; /* newer: bits of others */
Pending pending[3];
bit done[WORDS]; /* inside drain() alone */

inline forget_one(p, w) {
	pending[p].flushed[w] = 0;
	pending[p].value[w] = 0;
	pending[p].newer[w] = 0
}

inline forget(w) {
	forget_one(0, w);
	forget_one(1, w);
	forget_one(2, w)
}

#define p_bit(p) (1 << (p))

inline flush(w) {
	d_step {
		pending[0].newer[w] = (pending[0].flushed[w] -> pending[0].newer[w] | p_bit(me) : 0);
		pending[1].newer[w] = (pending[1].flushed[w] -> pending[1].newer[w] | p_bit(me) : 0);
		pending[2].newer[w] = (pending[2].flushed[w] -> pending[2].newer[w] | p_bit(me) : 0);
		pending[me].value[w] = now[w];
		pending[me].flushed[w] = 1;
		pending[me].newer[w] = 0
	}
}

/* What another flushed before is older than what the medium gets. */
inline drain_other(p, w) {
	pending[p].flushed[w] = (done[w] && !(pending[me].newer[w] & p_bit(p)) -> 0 : pending[p].flushed[w]);
	pending[p].value[w] = (pending[p].flushed[w] -> pending[p].value[w] : 0);
	pending[p].newer[w] = (pending[p].flushed[w] -> pending[p].newer[w] & ~p_bit(me) : 0)
}

inline drain_one(w) {
	medium[w] = (pending[me].flushed[w] -> pending[me].value[w] : medium[w]);
	done[w] = pending[me].flushed[w];
	drain_other((me + 1) % 3, w);
	drain_other((me + 2) % 3, w);
	forget_one(me, w);
	done[w] = 0
}

inline drain() {
	d_step { drain_one(ALLOC); drain_one(LIMBO); drain_one(REMOTE); drain_one(MARK) }
}

#ifdef NO_VERSION
#define raise
#define same true
#else
#define raise version++;
#define same (version == v)
#endif

/* Compare-and-swap of the word `open`, read when the version was v. */
#define CAS(is, steps) if :: same && (is) -> steps :: else fi

/* span_open() */
inline open_span() {
	do
	:: atomic { trust -> break }
	:: atomic { !trust && left -> v = version };
		atomic { CAS(left && !trust, left = 0; trust = 1) }
	:: atomic { !trust && !left && !now[MARK] -> v = version };
		atomic { CAS(!now[MARK], now[MARK] = 1) }
	:: atomic { !trust && !left && now[MARK] -> v = version };
#ifndef TRUST_EARLY
		flush(MARK);
		drain();
#endif
		atomic { CAS(now[MARK] && !trust && !left, trust = 1) }
	od
}

/* span_close_begin() */
inline take_trust() {
	atomic { left = left | trust; trust = 0; raise v = version }
}

/* close_one() */
inline clear_mark() {
#ifdef END_BLIND
	atomic { now[MARK] = 0; left = 0; trust = 0; raise v = 0 }
#else
	atomic { CAS(now[MARK] && !trust, now[MARK] = 0; left = 0; raise skip); v = 0 }
#endif
}

inline flush_maps() {
	flush(ALLOC);
	flush(LIMBO);
	flush(REMOTE)
}

/* span_collect() of an open span */
inline collect() {
	if
	:: now[REMOTE] ->
		limbo = now[LIMBO];
		if
		:: limbo -> now[LIMBO] = 0
		:: else
		fi;
		d_step { assert(owner == me); now[ALLOC] = 0 };
		now[REMOTE] = 0;
		if
		:: limbo ->
			limbo = false;
			flush(LIMBO);
#ifndef LIMBO_UNDRAINED
			drain()
#endif
		:: else
		fi
	:: else
	fi
}

proctype allocator(byte me)
{
	byte v;
	bool limbo;

	do
	:: off -> break
	:: atomic { !off && owner == 3 && claims < OPENS -> owner = me; claims++ };
		open_span();
		collect();
		do
		:: d_step { now[ALLOC] == 0 -> assert(life == FREE || life == ORED);
			    now[ALLOC] = 1; life = HELD }
		:: d_step { now[ALLOC] == 1 && life == HELD && !now[LIMBO] && !now[REMOTE] ->
			    now[ALLOC] = 0; life = FREE }
		:: collect()
		:: break
		od;
#ifdef FLUSH_FIRST
		flush_maps();
		take_trust();
		owner = 3;
#else
		take_trust();
		owner = 3;
		flush_maps();
#endif
#ifdef CLEAR_EARLY
		clear_mark();
		drain()
#else
		drain();
		clear_mark()
#endif
	:: owner == 3 && claims == OPENS -> break
	od
}

/* span_free_remote(), span_defer() */
proctype freer()
{
	byte me = FREER, v, w;

	do
	:: off -> break
	:: atomic { !off && life == HELD -> life = FLUX };
		open_span();
		if
		:: w = REMOTE
		:: w = LIMBO
		fi;
		d_step { now[w] = 1; life = ORED };
#ifndef NO_RELOOK
		if
		:: trust
		:: else ->
			flush(w);
			drain()
		fi;
#endif
		d_step { w = 0; life = (life == ORED -> FREE : life) }
	:: timeout -> break
	od
}

/* limbo_release() */
proctype reclaimer()
{
	do
	:: off -> break
	:: d_step { now[LIMBO] && now[ALLOC] && !now[REMOTE] && !off -> now[REMOTE] = 1 }
	:: timeout -> break
	od
}

proctype evict()
{
	byte w;

	do
	:: off -> break
	:: d_step { !off && now[ALLOC] != medium[ALLOC] -> medium[ALLOC] = now[ALLOC]; forget(ALLOC) }
	:: d_step { !off && now[LIMBO] != medium[LIMBO] -> medium[LIMBO] = now[LIMBO]; forget(LIMBO) }
	:: d_step { !off && now[REMOTE] != medium[REMOTE] -> medium[REMOTE] = now[REMOTE]; forget(REMOTE) }
	:: d_step { !off && now[MARK] != medium[MARK] -> medium[MARK] = now[MARK]; forget(MARK) }
	:: timeout -> break
	od
}

#define recovered (medium[ALLOC] && !medium[REMOTE] && !medium[LIMBO])

/* Power goes, at any moment. */
proctype power()
{
	atomic {
		off = true;
		assert(medium[MARK] || life != HELD || recovered);
		assert(medium[MARK] || life != FREE || !recovered);
		assert(!medium[MARK] || life != HELD || !medium[LIMBO])
	}
}

init {
	atomic {
		run allocator(0);
		run allocator(1);
		run freer();
		run reclaimer();
		run evict();
		run power()
	}
}
