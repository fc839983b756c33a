/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Remote free and collect, with deaths: media/span.c, heap_hint() and heap_unhint() of media/heap.c,
 * free_foreign() and adopt() of media/lane*.c, grant_settle() of media/grant_lanes.c.
 *
 * One span of two blocks. Lane 0 adopts, allocates, frees, collects and gives up; lanes 1 and 2 free
 * from outside; the daemon settles. Any lane and the daemon die before any step, as often as they
 * like; a settled lane's number goes to a new thread. A step, S(), is one access to shared memory,
 * joined at most with ghosts and with what its maker alone sees.
 *
 * Ghosts: held[b], from the store that allocates b to the store that frees it; freer[b]; busy[].
 *
 * Wrong on purpose, each to be found: REMOTE_FIRST, HINT_BEFORE_OR, HINT_NO_BARRIER, NO_FREEING,
 * ENTRY_FIRST, UNHINT_LATE with DISOWN_BLIND, HINT_UNOWNED with DISOWN_BLIND. Right as well, each
 * alone: UNHINT_LATE, DISOWN_BLIND, HINT_UNOWNED.
 */

#define S(step) if :: step :: goto died fi

#define FULL 3 /* a bit for each block */
#define NOBODY 7
#define OWNER_NONE 0
#define OWNER_LANE 1 /* lane 0's */

#define bit(b) (1 << (b))

byte alloc, remote;
byte owner = OWNER_NONE;
bool hint = true;
bool entry;       /* lane 0's owned-span table names the span */
bool freeing[3];  /* a lane's freeing word names it */

bool held[2];
byte freer[2] = NOBODY; /* who is about to free it */
bool dead[3];
bool busy[4]; /* in the middle of something; 3: the daemon */

#define room ((alloc & ~remote) != FULL)
#define used(b) ((alloc & ~remote & bit(b)) != 0)
#define can_free(b) (held[b] && freer[b] == NOBODY)
#define quiet (!busy[0] && !busy[1] && !busy[2] && !busy[3] && !dead[0] && !dead[1] && !dead[2])

/* heap_hint() */
inline set_hint(h) {
	S(h = hint);
	if
	:: h
	:: else -> S(hint = true)
	fi
}

/* heap_unhint() */
inline unset_hint(h) {
	S(h = hint);
	if
	:: h -> S(hint = false)
	:: else
	fi
}

/* span_collect(): alloc is the owner's alone, so loading and storing it is one step. */
inline collect(freed) {
	S(freed = remote);
	if
	:: freed != 0 ->
#ifdef REMOTE_FIRST
		S(remote = remote & ~freed);
		S(d_step { assert(owner == OWNER_LANE); alloc = alloc & ~freed });
#else
		S(d_step { assert(owner == OWNER_LANE); alloc = alloc & ~freed });
		S(remote = remote & ~freed);
#endif
		freed = 0
	:: else
	fi
}

/* span_disown() */
inline disown(h, a) {
	S(owner = OWNER_NONE);
	/* Loaded in any order: of an unowned span alloc bits only fall, remote bits of them only rise. */
	S(a = alloc);
#ifndef DISOWN_BLIND
	S(a = a & ~remote);
#endif
	if
	:: a != FULL -> a = 0; set_hint(h)
	:: else -> a = 0
	fi
}

inline free_owned(x) {
	S(d_step {
		if
		:: can_free(x) ->
			assert(owner == OWNER_LANE && used(x));
			alloc = alloc & ~bit(x);
			held[x] = false;
			mask = mask | bit(x)
		:: else
		fi
	})
}

/* Lane 0. `mask`: blocks that are free by its own knowledge. */
proctype allocator()
{
	byte mask, freed, a, b;
	bool h, own;

restart:
	do
	:: goto died
	:: !own && hint -> /* adopt() */
		d_step { busy[0] = true; h = false };
		S(entry = true);
		assert(owner == OWNER_NONE); /* nobody else claims here */
		S(owner = OWNER_LANE);
#ifdef UNHINT_LATE
		collect(freed);
		unset_hint(h);
#else
		unset_hint(h);
		collect(freed);
#endif
		d_step { mask = FULL & ~alloc; own = true; h = false };
		if
		:: mask == 0 -> own = false; goto release
		:: else -> busy[0] = false
		fi
	:: own && mask != 0 -> /* alloc_small() */
		S(d_step {
			b = (mask & 1 -> 0 : 1);
			mask = mask & ~bit(b);
			assert(owner == OWNER_LANE && !held[b]); /* not given twice */
			alloc = alloc | bit(b);
			held[b] = true;
			b = 0
		})
	:: own && can_free(0) -> free_owned(0)
	:: own && can_free(1) -> free_owned(1)
	:: own && mask == 0 && remote != 0 -> /* owned_collect() */
		busy[0] = true;
		collect(freed);
		d_step { mask = FULL & ~alloc; busy[0] = false }
	:: own -> /* owned_release() */
		d_step { own = false; mask = 0; h = false; busy[0] = true };
release:
		disown(h, a);
		S(d_step { h = false; entry = false; busy[0] = false })
	od;
died:
	atomic { dead[0] = true; mask = 0; freed = 0; a = 0; b = 0; h = false; own = false };
	d_step { !dead[0] -> busy[0] = false };
	goto restart
}

/* Lanes 1 and 2: span_free_remote() within free_foreign(). */
proctype remote_freer(byte me)
{
	byte b;
	bool h;

restart:
	do
	:: goto died
	:: atomic {
		if
		:: can_free(0) -> b = 0
		:: can_free(1) -> b = 1
		fi;
		freer[b] = me; busy[me] = true; h = false
	   };
#ifndef NO_FREEING
		S(freeing[me] = true);
#endif
		assert(used(b)); /* or a free of what is allocated would fail with -EALREADY */
#if defined(HINT_BEFORE_OR)
		set_hint(h);
		S(d_step { remote = remote | bit(b); held[b] = false; freer[b] = NOBODY });
#elif defined(HINT_NO_BARRIER)
		S(h = hint); /* passes the store of the remote bit, which waits in the buffer */
		S(d_step { remote = remote | bit(b); held[b] = false; freer[b] = NOBODY });
		if
		:: h
		:: else -> S(hint = true)
		fi;
#else
		S(d_step { remote = remote | bit(b); held[b] = false; freer[b] = NOBODY });
#ifdef HINT_UNOWNED
		S(h = (owner != OWNER_NONE));
		if
		:: h
		:: else -> set_hint(h)
		fi;
#else
		set_hint(h);
#endif
#endif
		S(d_step { h = false; b = 0; busy[me] = false }) /* freeing stays */
	od;
died:
	/* What it had not freed yet, others may free. */
	atomic {
		dead[me] = true;
		if :: freer[0] == me -> freer[0] = NOBODY :: else fi;
		if :: freer[1] == me -> freer[1] = NOBODY :: else fi;
		b = 0; h = false
	};
	d_step { !dead[me] -> busy[me] = false };
	goto restart
}

/* grant_settle(): settle_entry() of the owned-span table and of the freeing word. */
proctype settler()
{
	byte freed, a, i;
	bool h;

restart:
	do
	:: atomic {
		if
		:: dead[0] -> i = 0
		:: dead[1] -> i = 1
		:: dead[2] -> i = 2
		fi;
		busy[3] = true
	   };
		if
		:: i == 0 && entry ->
#ifdef ENTRY_FIRST
			S(entry = false);
#endif
			if
			:: owner == OWNER_LANE ->
				collect(freed);
				disown(h, a)
			:: else ->
				set_hint(h)
			fi;
			h = false;
			S(entry = false)
		:: else
		fi;
		if
		:: freeing[i] ->
			set_hint(h); /* lanes 1 and 2 own nothing */
			h = false;
			S(freeing[i] = false)
		:: else
		fi;
		d_step { dead[i] = false; i = 0; busy[3] = false }
	od;
died:
	atomic { freed = 0; a = 0; i = 0; h = false; busy[3] = false };
	goto restart
}

/* What must hold whenever all is done and settled. */
init {
	atomic { run allocator(); run remote_freer(1); run remote_freer(2); run settler() };
end:	do
	:: quiet && (used(0) != held[0] || used(1) != held[1]) -> assert(false) /* lost */
	:: quiet && owner == OWNER_NONE && room && !hint -> assert(false) /* invariant H */
	:: quiet && (owner == OWNER_LANE) != entry -> assert(false)
	od
}
