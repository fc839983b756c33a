/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Disown, adopt, retire, grant anew, load: media/lane_span.c, media/span.c, media/grant.c,
 * media/grant_lanes.c.
 *
 * LANES lanes adopt, allocate, free, collect and give up; the daemon grants, retires, settles, and loads
 * after its death. Whoever has a ref may have it from long ago, so a lane tries any unit for any class
 * at any time: refs from hints, spares and replies are all the same here. Any lane and the daemon
 * die before any step, as often as they like; a settled lane's number goes to a new thread.
 *
 * UNITS 1: spans of class A and B have one unit. UNITS 2: those of class B have two, so runs are
 * joined and split, and heads become interior units.
 *
 * A step, S(), is one access to shared memory, joined at most with ghosts and with what its maker
 * alone sees. Ghosts: held[], from the store that allocates to the store that frees; freer[]; busy[].
 *
 * Wrong on purpose, each to be found: CLASS_BEFORE_CLAIM, ENTRY_AFTER_CLAIM, INTERIOR_NONE, NO_VERIFY, NO_JOIN,
 * RECORD_LATE, NO_REQUEST_CHECK, LOAD_NO_HINT, UNHINT_LATE with DISOWN_BLIND.
 */

#ifndef UNITS
#define UNITS 1
#define LANES 2
#endif
#ifndef BLOCKS
#define BLOCKS 1 /* of class A; B has one */
#endif

#define S(step) if :: step :: goto died fi

/* Span words */
#define FREE1 0
#define FREE2 1
#define INTERIOR 2
#define A 3
#define B 4
#define typed(w) ((w) >= A)
#define long(w) (UNITS == 2 && (w) == B)
#define full(w) ((w) == A && BLOCKS == 2 -> 3 : 1) /* a bit for each block */

#define OWNER_NOT_HEAD 0
#define OWNER_NONE 1
#define OWNER_DAEMON 2
#define owner_lane(i) ((i) + 3)

#define NO 2 /* no unit */
#define NOBODY 3
#define DAEMON 2 /* its place in busy[] */
#define bit(b) (1 << (b))

#if UNITS == 2
byte word[2] = { FREE2, INTERIOR };
#else
byte word[2] = { FREE1, INTERIOR };
#endif
byte owner[2] = OWNER_NOT_HEAD;
byte alloc[2], remote[2];
bool hint[2];
byte entry[2] = NO;   /* a lane's owned-span table */
byte freeing[2] = NO; /* a lane's freeing word */

bool held[4];           /* block: 2 * unit + index */
byte freer[4] = NOBODY; /* who is about to free it */
bool dead[2];
bool busy[3];

/* The daemon's own memory. */
byte runs = 2 * UNITS - 1; /* units that are free */
byte promised; /* units of granted spans whose hint is kept back */

#define nothing_held(u) (!held[2 * (u)] && !held[2 * (u) + 1])
#define room(u) ((alloc[u] & ~remote[u]) != full(word[u]))
#define quiet (!busy[0] && !busy[1] && !busy[DAEMON] && !dead[0] && !dead[1])

/* heap_hint() */
inline set_hint(u, h) {
	S(h = hint[u]);
	if
	:: h -> h = false
	:: else -> S(hint[u] = true)
	fi
}

/* heap_unhint() */
inline unset_hint(u, h) {
	S(h = hint[u]);
	if
	:: h -> h = false; S(hint[u] = false)
	:: else
	fi
}

/* span_collect() by whom the owner word names. */
inline collect(u, who, a) {
	S(a = remote[u]);
	if
	:: a != 0 ->
		S(d_step { assert(owner[u] == who); alloc[u] = alloc[u] & ~a });
		S(remote[u] = remote[u] & ~a);
		a = 0
	:: else
	fi
}

/* span_disown(); w: what the caller takes the span for. */
inline disown(u, w, a, h) {
	S(owner[u] = OWNER_NONE);
	S(a = alloc[u]);
#ifdef DISOWN_BLIND
	S(a = a & full(w));
#else
	S(a = a & ~remote[u] & full(w));
#endif
	if
	:: a != full(w) -> a = 0; set_hint(u, h)
	:: else -> a = 0
	fi
}

/* The owner word from none to `to`, if it is none. */
inline claim(u, to, ok) {
	S(d_step {
		if
		:: owner[u] == OWNER_NONE -> owner[u] = to; ok = true
		:: else -> ok = false
		fi
	})
}

/* alloc_small(), claim_run(): blocks do not overlap, and are of the class that was asked for. */
inline allocate(x) {
	S(d_step {
		assert(owner[u] == owner_lane(me) && word[u] == want);
		assert(!held[2 * u + x]);
		assert(!long(want) || nothing_held(1));
		alloc[u] = alloc[u] | bit(x);
		held[2 * u + x] = true
	})
}

/* free_owned() */
inline free_owned(x) {
	S(d_step {
		if
		:: held[2 * u + x] && freer[2 * u + x] == NOBODY ->
			assert(owner[u] == owner_lane(me) && (alloc[u] & ~remote[u] & bit(x)));
			alloc[u] = alloc[u] & ~bit(x);
			held[2 * u + x] = false
		:: else
		fi
	})
}

#define foreign(x) (held[x] && freer[x] == NOBODY && owner[(x) / 2] != owner_lane(me))

proctype lane(byte me)
{
	byte u, want, w, a, x;
	bool h, ok, own;

restart:
	do
	:: goto died

	:: !own -> /* adopt() */
		atomic {
			busy[me] = true;
			if
			:: u = 0; want = A
			:: u = 0; want = B
#if UNITS == 2
			:: u = 1; want = A
#endif
			fi
		};
		S(w = word[u]);
#ifdef NO_REQUEST_CHECK
		if
		:: typed(w)
		:: else -> goto done
		fi;
#else
		if
		:: w == want
		:: else -> goto done
		fi;
#endif
#ifndef ENTRY_AFTER_CLAIM
		S(entry[me] = u);
#endif
		claim(u, owner_lane(me), ok);
		if
		:: !ok -> goto clear
		:: else -> ok = false
		fi;
#ifdef ENTRY_AFTER_CLAIM
		S(entry[me] = u);
#endif
#ifndef CLASS_BEFORE_CLAIM
		S(ok = (word[u] == w));
		if
		:: !ok -> disown(u, w, a, h); goto clear
		:: else -> ok = false
		fi;
#endif
#ifdef UNHINT_LATE
		collect(u, owner_lane(me), a);
		unset_hint(u, h);
#else
		unset_hint(u, h);
		collect(u, owner_lane(me), a);
#endif
		if
		:: alloc[u] == full(w) -> goto release
		:: else -> d_step { own = true; busy[me] = false }
		fi

	:: own && !(alloc[u] & 1) -> allocate(0)
#if BLOCKS == 2
	:: own && (alloc[u] & 1) && alloc[u] != full(w) -> allocate(1)
#endif
	:: own -> free_owned(0)
#if BLOCKS == 2
	:: own && w == A -> free_owned(1)
#endif

	:: own && remote[u] != 0 -> /* owned_collect() */
		busy[me] = true;
		collect(u, owner_lane(me), a);
		busy[me] = false

	:: own -> /* owned_release(); its place_clear() as well for what was not claimed */
		d_step { busy[me] = true; own = false };
release:
		disown(u, w, a, h);
clear:
		S(entry[me] = NO);
done:
		atomic { u = 0; want = 0; w = 0; ok = false; busy[me] = false }

	:: atomic { me == LANES - 1 -> /* free_foreign() */
		if
		:: foreign(0) -> x = 0
#if BLOCKS == 2
		:: foreign(1) -> x = 1
#endif
#if UNITS == 2
		:: foreign(2) -> x = 2
#endif
#if UNITS == 2 && BLOCKS == 2
		:: foreign(3) -> x = 3
#endif
		fi;
		freer[x] = me; busy[me] = true
	   };
		S(freeing[me] = x / 2);
		assert(typed(word[x / 2]) && (alloc[x / 2] & ~remote[x / 2] & bit(x % 2)));
		S(d_step { remote[x / 2] = remote[x / 2] | bit(x % 2); held[x] = false;
			   freer[x] = NOBODY });
		set_hint(x / 2, h);
		S(d_step { freeing[me] = NO; x = 0; busy[me] = false })
	od;
died:
	atomic {
		u = 0; want = 0; w = 0; a = 0; x = 0; h = false; ok = false; own = false;
		/* What it had not freed yet, others may free. */
		if :: freer[0] == me -> freer[0] = NOBODY :: else fi;
		if :: freer[2] == me -> freer[2] = NOBODY :: else fi;
#if BLOCKS == 2
		if :: freer[1] == me -> freer[1] = NOBODY :: else fi;
		if :: freer[3] == me -> freer[3] = NOBODY :: else fi;
#endif
		dead[me] = true
	};
	d_step { !dead[me] -> busy[me] = false };
	goto restart
}

/* settle_ref() */
inline settle_ref(i, u, w, a, h) {
	S(w = word[u]);
	if
	:: typed(w) ->
		if
		:: owner[u] == owner_lane(i) ->
			collect(u, owner_lane(i), a);
			disown(u, w, a, h)
		:: else ->
			set_hint(u, h)
		fi
	:: else
	fi
}

/* grant_settle() */
inline settle(i, u, w, a, h) {
	u = entry[i];
	if
	:: u != NO -> settle_ref(i, u, w, a, h); S(entry[i] = NO)
	:: else
	fi;
	u = freeing[i];
	if
	:: u != NO -> settle_ref(i, u, w, a, h); S(freeing[i] = NO)
	:: else
	fi;
	dead[i] = false
}

/* load_span() of unit u; `a` is first the owner word, read once. */
inline load_span(u, w, a, h, gone) {
	S(a = owner[u]);
	if
	:: (a == owner_lane(0) && !(gone & 1)) || (a == owner_lane(1) && !(gone & 2))
	:: a == OWNER_NONE ->
#ifndef LOAD_NO_HINT
		S(a = alloc[u]);
		S(a = a & ~remote[u] & full(w));
		if
		:: a != full(w) -> a = 0; set_hint(u, h)
		:: else
		fi
#endif
	:: else -> /* the dead's or the daemon's: nobody else changes it now */
		collect(u, owner[u], a);
		disown(u, w, a, h)
	fi;
	a = 0
}

/* type_span(): a span of class w at unit u; `more` if it is cut from a run of two. */
inline type_span(u, w, more) {
	assert(nothing_held(u) && (!long(w) || nothing_held(1)));
#if UNITS == 2
	if
	:: w == A && more -> S(word[1] = FREE1)
	:: w == B ->
#ifndef NO_JOIN
		/* cover_span() */
		if
		:: word[0] == FREE1 -> S(word[0] = FREE2)
		:: else
		fi;
#endif
		S(word[1] = INTERIOR)
	:: else
	fi;
#endif
#ifndef RECORD_LATE
	S(d_step { alloc[u] = 0; remote[u] = 0 });
	S(owner[u] = OWNER_NOT_HEAD);
#endif
	S(word[u] = w);
	S(owner[u] = OWNER_NONE);
#ifdef RECORD_LATE
	S(d_step { alloc[u] = 0; remote[u] = 0 });
#endif
	S(promised = promised | bit(u))
}

/* retire() of a hinted span. */
inline retire(u, w, ok, a, h) {
	if
	:: owner[u] == OWNER_NONE ->
		S(a = alloc[u]);
		S(ok = ((a & ~remote[u] & full(w)) == 0));
		a = 0;
		if
		:: ok ->
			ok = false;
			claim(u, OWNER_DAEMON, ok)
		:: else
		fi;
		if
		:: ok ->
			ok = false;
			unset_hint(u, h);
			collect(u, OWNER_DAEMON, a);
#ifdef NO_VERIFY
			ok = true;
#else
			S(a = alloc[u]);
			S(ok = ((a & ~remote[u] & full(w)) == 0));
			a = 0;
#endif
			if
			:: ok ->
				ok = false;
#ifdef INTERIOR_NONE
				S(owner[u] = OWNER_NONE);
#else
				S(owner[u] = OWNER_NOT_HEAD);
#endif
				S(d_step {
					assert(nothing_held(u)); /* never with a block allocated */
					word[u] = (long(w) -> FREE2 : FREE1)
				});
				runs = runs | (long(w) -> 3 : bit(u))
			:: else -> disown(u, w, a, h)
			fi
		:: else
		fi
	:: else
	fi
}

proctype granter()
{
	byte u, w, a, i, gone;
	bool h, ok;

serve:
	do
	:: goto died

	:: runs != 0 -> /* the longest run's start */
		atomic {
			busy[DAEMON] = true;
			u = (runs & 1 -> 0 : 1);
			ok = (runs == 3);
			if
			:: w = A; runs = runs & ~bit(u)
			:: UNITS == 1 || runs == 3 -> w = B; runs = 0
			fi
		};
		type_span(u, w, ok);
		goto done

	:: promised != 0 -> /* promises_end() */
		d_step { busy[DAEMON] = true; u = (promised & 1 -> 0 : 1) };
		if
		:: typed(word[u]) -> set_hint(u, h)
		:: else
		fi;
		promised = promised & ~bit(u);
		goto done

	:: atomic { /* what a scan of the hint bits finds */
		if
		:: hint[0] && typed(word[0]) -> u = 0
		:: UNITS == 2 && hint[1] && typed(word[1]) -> u = 1
		fi;
		w = word[u]; busy[DAEMON] = true
	   };
		retire(u, w, ok, a, h);
		goto done

	:: atomic {
		if
		:: dead[0] -> i = 0
#if LANES == 2
		:: dead[1] -> i = 1
#endif
		fi;
		busy[DAEMON] = true
	   };
		settle(i, u, w, a, h);
		goto done
	od;
done:
	atomic { u = 0; w = 0; a = 0; i = 0; h = false; ok = false; busy[DAEMON] = false };
	goto serve;
died:
	/* grant_new() of the next one */
	atomic { u = 0; w = 0; a = 0; i = 0; h = false; ok = false; runs = 0; promised = 0;
		 busy[DAEMON] = true;
		 /* Who lives is decided before the walk: who dies later is settled later. */
		 gone = (dead[0] -> 1 : 0) | (dead[1] -> 2 : 0) };
	do
	:: u < UNITS ->
		w = word[u];
		if
		:: w == FREE1 -> d_step { runs = runs | bit(u); u++ }
#if UNITS == 2
		:: w == FREE2 -> d_step { assert(u == 0); runs = 3; u = 2 }
#endif
		:: w == INTERIOR -> assert(false) /* no head: the table is rotten */
		:: else -> load_span(u, w, a, h, gone); u = u + (long(w) -> 2 : 1)
		fi
	:: else -> break
	od;
	/* Lanes that are gone are settled as ever: grant_new() does it first, which is only stricter. */
	gone = 0;
	goto done
}

/* What must hold whenever all is done and settled. */
#define covered(u) ((u) == 1 && (UNITS == 1 || word[0] == B))
#define sound(u) (covered(u) || ( \
	typed(word[u]) != ((runs & bit(u)) != 0) && \
	(!typed(word[u]) || ( \
		owner[u] != OWNER_NOT_HEAD && owner[u] != OWNER_DAEMON && \
		((alloc[u] & ~remote[u] & 1) != 0) == held[2 * (u)] && \
		((alloc[u] & ~remote[u] & 2) != 0) == held[2 * (u) + 1] && \
		(owner[u] != owner_lane(0) || entry[0] == (u)) && \
		(owner[u] != owner_lane(1) || entry[1] == (u)) && \
		(owner[u] != OWNER_NONE || !room(u) || hint[u] || (promised & bit(u))) \
	)) \
))

init {
	atomic {
		run lane(0);
#if LANES == 2
		run lane(1);
#endif
		run granter()
	};
end:	do
	:: quiet && !sound(0) -> assert(false)
	:: quiet && !sound(1) -> assert(false)
	od
}
