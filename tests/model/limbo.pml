/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Limbo, hints, waking, collecting, with deaths of the freers, of the span's owner and of the daemon, which
 * starts again: media/limbo.c, daemon/epochs.c, grant_settle() and grant_new() of media/grant*.c.
 *
 * One span. Lane 0 adopts, collects, allocates and gives up, with OWNER_DEFERS also frees with delay what it
 * owns; lanes 1 and 2 free with delay; the daemon is woken, takes snapshots, frees what is in them at any later
 * time (when readers leave is reclaim.pml's), looks away, and settles who died. Whoever is in the middle of
 * something may also stay there for ever: what is done must not wait for him. A step, S(), is one access to
 * shared memory, joined at most with ghosts and with what its maker alone sees.
 *
 * Ghosts: held[b], from the store that allocates b to the OR that frees it; freer[b], until its freer is
 * done with it; young[b], in limbo and in no snapshot since: it must not be freed.
 *
 * Two configurations, as all at once is too much: BLOCKS=1, with lane 1 alone, and two blocks
 * with STAYS: lane 0 owns the span for ever, and collects in one step.
 *
 * `watch` is counted up to WMAX; then the daemon looks away no more.
 *
 * Wrong on purpose, each to be found: HINT_FIRST, NO_FREEING, LIMBO_FIRST (read before remote),
 * LOOK_FIRST (at the hints, before it looks away), ODD_BLIND (the word made odd, whatever it is by
 * now), ODD_FIRST (before the daemon is woken), LOAD_BLIND (the next daemon looks for no limbo),
 * LOAD_NO_HINT, REMOTE_FIRST, OWNED_NO_LHINT (with OWNER_DEFERS: who settles a lane hints what others freed into
 * its spans, but not what is in limbo). Right as well: NOT_AGAIN (limbo is not read again before it is freed; the
 * code does, for clients that clear bits).
 */

#define S(step) if :: step :: goto died fi

#ifndef WMAX
#define WMAX 2
#endif
#ifndef BLOCKS
#define BLOCKS 2
#endif
#define FULL (BLOCKS == 2 -> 3 : 1)
#define NOBODY 7

#define bit(b) (1 << (b))

byte alloc, limbo, remote;
bool owned, entry;   /* by lane 0; its table says so */
bool hint = true;    /* of the allocator */
bool lhint;          /* of limbo */
byte watch;
bool event;          /* the daemon will be woken */
bool freeing[3];
bool dead[3];

bool looking;         /* the daemon looks at the heap; its own */
byte noted;          /* its snapshot */

bool held[2], young[2];
byte freer[2] = NOBODY;
bool busy[4];        /* 3: the daemon */

inline set_hint(h) {
	S(h = hint);
	if
	:: h
	:: else -> S(hint = true)
	fi;
	h = false
}

inline set_lhint(h) {
	S(h = lhint);
	if
	:: h
	:: else -> S(lhint = true)
	fi;
	h = false
}

inline collect(freed) {
	S(freed = remote);
	if
	:: freed != 0 ->
#ifdef REMOTE_FIRST
		S(remote = remote & ~freed);
		S(limbo = limbo & ~freed);
		S(alloc = alloc & ~freed);
#else
		S(limbo = limbo & ~freed);
		S(alloc = alloc & ~freed);
		S(remote = remote & ~freed);
#endif
		freed = 0
	:: else
	fi
}

inline disown(h, a) {
	S(owned = false);
	S(a = alloc & ~remote);
	if
	:: a != FULL -> a = 0; set_hint(h)
	:: else -> a = 0
	fi
}

inline or_limbo(me, b) {
	S(d_step {
		assert((alloc & bit(b)) && !(limbo & bit(b)) && !(remote & bit(b)));
		limbo = limbo | bit(b);
		held[b] = false;
		young[b] = true
	})
}

inline wake(w) {
	S(w = watch);
	if
	:: w % 2 == 0 ->
#ifdef ODD_FIRST
		S(d_step { if :: watch == w -> watch = w + 1 :: else fi });
		S(event = true);
#else
		S(event = true);
#ifdef ODD_BLIND
		S(watch = watch | 1);
#else
		S(d_step { if :: watch == w -> watch = w + 1 :: else fi });
#endif
#endif
		w = 0
	:: else -> w = 0
	fi
}

#ifdef STAYS
proctype allocator()
{
	byte b;

	d_step { owned = true; entry = true };
	do
	:: d_step {
		remote != 0 ->
		limbo = limbo & ~remote; alloc = alloc & ~remote; remote = 0
	   }
	:: d_step {
		(alloc & FULL) != FULL ->
		b = (alloc & 1 -> 1 : 0);
		assert(!held[b] && !(limbo & bit(b)) && !(remote & bit(b)));
		alloc = alloc | bit(b);
		held[b] = true;
		b = 0
	   }
	od
}
#else
proctype allocator()
{
	byte freed, a, b, w;
	bool h, own;

restart:
	do
	:: goto died
	:: !own && hint ->
		d_step { busy[0] = true };
		S(entry = true);
		S(d_step { assert(!owned); owned = true });
		S(hint = false);
		collect(freed);
		d_step { own = true; busy[0] = false }
	:: own && (alloc & FULL) != FULL -> /* by its own knowledge */
		S(d_step {
			b = (alloc & 1 -> 1 : 0);
			assert(!held[b] && !(limbo & bit(b)) && !(remote & bit(b)));
			alloc = alloc | bit(b);
			held[b] = true;
			b = 0
		})
	:: own && remote != 0 ->
		busy[0] = true;
		collect(freed);
		busy[0] = false
#ifdef OWNER_DEFERS
	/* lane_defer_quick(): a block of an owned span. Its table names the span, so `freeing` need not. */
	:: atomic { own && held[0] && freer[0] == NOBODY -> freer[0] = 0; busy[0] = true };
		or_limbo(0, 0);
		set_lhint(h);
		wake(w);
		S(d_step { freer[0] = NOBODY; busy[0] = false })
#endif
	:: own ->
		d_step { own = false; busy[0] = true };
		disown(h, a);
		S(d_step { entry = false; busy[0] = false })
	od;
died:
	atomic {
		dead[0] = true; freed = 0; a = 0; b = 0; w = 0; h = false; own = false;
		if :: freer[0] == 0 && held[0] -> freer[0] = NOBODY :: else fi
	};
	d_step {
		!dead[0] ->
		if :: freer[0] == 0 -> freer[0] = NOBODY :: else fi;
		busy[0] = false
	};
	goto restart
}

#endif

/* span_defer(), lane_defer(), nvmm_free_deferred(). */
proctype deferrer(byte me)
{
	byte b, w;
	bool h;

restart:
	do
	:: goto died
	:: atomic {
		if
		:: held[0] && freer[0] == NOBODY -> b = 0
		:: held[1] && freer[1] == NOBODY -> b = 1
		fi;
		freer[b] = me; busy[me] = true
	   };
#ifndef NO_FREEING
		S(freeing[me] = true);
#endif
#ifdef HINT_FIRST
		set_lhint(h);
		or_limbo(me, b);
#else
		or_limbo(me, b);
		set_lhint(h);
#endif
		wake(w);
		S(d_step { freer[b] = NOBODY; b = 0; freeing[me] = false; busy[me] = false })
	od;
died:
	atomic {
		dead[me] = true;
		/* What it had not freed yet, others may free. */
		if :: freer[0] == me && held[0] -> freer[0] = NOBODY :: else fi;
		if :: freer[1] == me && held[1] -> freer[1] = NOBODY :: else fi;
		b = 0; w = 0; h = false
	};
	d_step {
		!dead[me] ->
		if :: freer[0] == me -> freer[0] = NOBODY :: else fi;
		if :: freer[1] == me -> freer[1] = NOBODY :: else fi;
		busy[me] = false
	};
	goto restart
}

/* limbo_bits(), of the snapshot. */
inline read_limbo(x) {
#ifdef LIMBO_FIRST
	S(d_step { x = limbo; if :: x & 1 -> young[0] = false :: else fi;
		   if :: x & 2 -> young[1] = false :: else fi });
	S(x = x & ~remote);
#else
	S(x = remote);
	S(d_step { x = limbo & ~x; if :: x & 1 -> young[0] = false :: else fi;
		   if :: x & 2 -> young[1] = false :: else fi });
#endif
	S(x = x & alloc)
}

inline make_odd() {
	S(d_step { if :: watch % 2 == 0 -> watch = watch + 1 :: else fi })
}

/* epochs_kick() */
inline kick() {
	if
	:: looking
	:: else -> make_odd(); looking = true
	fi
}

inline round(x, h) {
	S(d_step { h = lhint; lhint = false });
	if
	:: h -> h = false; read_limbo(x); noted = x; x = 0
	:: else ->
		if
		:: watch < WMAX -> /* limbo_unwatch() */
#ifdef LOOK_FIRST
			S(h = lhint);
			S(watch = (watch | 1) + 1);
#else
			S(watch = (watch | 1) + 1);
			S(h = lhint);
#endif
			if
			:: h -> h = false; make_odd()
			:: else -> looking = false
			fi
		:: else
		fi
	fi
}

/* limbo_release() */
inline release(x, h) {
#ifdef NOT_AGAIN
	x = noted;
#else
	S(x = remote);
	S(x = limbo & ~x & noted);
	S(x = x & alloc);
#endif
	if
	:: x != 0 ->
		S(d_step {
			assert(!(x & 1) || (!young[0] && (limbo & 1)));
			assert(!(x & 2) || (!young[1] && (limbo & 2)));
			remote = remote | x
		});
		set_hint(h)
	:: else
	fi;
	d_step { noted = 0; x = 0 }
}

inline settle(i, x, h) {
	if
	:: i == 0 && entry ->
		if
		:: owned -> collect(x); disown(h, x)
		:: else -> set_hint(h)
		fi;
#ifndef OWNED_NO_LHINT
		S(x = remote);
		S(x = limbo & ~x);
		S(x = x & alloc);
		if
		:: x != 0 -> x = 0; set_lhint(h)
		:: else
		fi;
#endif
		kick();
		S(entry = false)
	:: else
	fi;
	if
	:: freeing[i] ->
		set_lhint(h);
		set_hint(h);
		kick();
		S(freeing[i] = false)
	:: else
	fi;
	dead[i] = false
}

proctype daemon()
{
	byte x, i;
	bool h;

serve:
	do
	:: goto died
	:: event && !looking ->
		d_step { event = false; busy[3] = true };
		kick();
		goto done
	:: event && looking -> event = false
	:: looking && noted == 0 -> busy[3] = true; round(x, h); goto done
	:: noted != 0 -> busy[3] = true; release(x, h); goto done
	:: atomic {
		if
		:: dead[0] -> i = 0
		:: dead[1] -> i = 1
		:: dead[2] -> i = 2
		fi;
		busy[3] = true
	   };
		settle(i, x, h);
		goto done
	od;
done:
	atomic { x = 0; i = 0; h = false; busy[3] = false };
	goto serve;
died:
	/* The next one: it hears of what is written from now on, then loads the heap. */
	atomic { x = 0; i = 0; h = false; looking = false; noted = 0; event = false; busy[3] = true };
#ifndef LOAD_BLIND
	read_limbo(x);
	if
	:: x != 0 -> x = 0; set_lhint(h)
	:: else
	fi;
#endif
#ifndef LOAD_NO_HINT
	set_hint(h);
#endif
	kick();
	goto done
}

#define in_limbo(b) ((limbo & ~remote & bit(b)) != 0 && freer[b] == NOBODY)
#define used(b) ((alloc & ~limbo & ~remote & bit(b)) != 0)
#define quiet (!busy[0] && !busy[1] && !busy[2] && !busy[3] && !dead[0] && !dead[1] && !dead[2])

init {
	atomic { run allocator(); run deferrer(1); run daemon();
#if BLOCKS == 2
		 run deferrer(2)
#endif
	};
end:	do
	/* Whoever else is in the middle of something: what is freed is looked for, and found. */
	:: !busy[3] && (in_limbo(0) || in_limbo(1)) && !looking && !event -> assert(false)
	:: !busy[3] && looking && noted == 0 && (in_limbo(0) || in_limbo(1)) && !lhint -> assert(false)
	/* All is done and settled: nothing is lost. */
	:: quiet && (used(0) != held[0] || used(1) != held[1]) -> assert(false)
	:: quiet && owned != entry -> assert(false)
	:: quiet && !owned && (alloc & ~remote) != FULL && !hint -> assert(false)
	od
}
