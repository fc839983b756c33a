/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The mutex of libclient/mutex.c: sessions that lock, wait, unlock, and die at any step; the daemon, which settles
 * deaths some time later, calls all sleepers, and answers whether an owner is settled. Sequentially consistent: each
 * step is one atomic instruction. A slice ends in the model only where the owner is settled: who sleeps on a free lock must
 * be woken by somebody. Turns (LOCK_TURN) are not in the model.
 *
 * A session that died begins again with a new number, before the daemon has settled the death or after.
 * `half` is what the lock guards: true while it is half changed; `publishing` what the daemon settles.
 *
 * Wrong on purpose: TAKE_UNSETTLED (the daemon tells of a death before it is settled), TAKE_BLIND (the take-over is a
 * store), NO_CALLS (the daemon's call wakes nobody), WAKE_FIRST (unlock wakes before it swaps), NO_FLAG (who has slept
 * takes the lock without WAITERS), SLEEP_BLIND (a sleeper does not compare the word).
 */
#define N 3
#ifndef NUMBERS
#define NUMBERS 4
#endif

#define FREE 0

byte owner = FREE;      /* a number */
bool waiters;
bool marked;            /* DEAD */
bool asleep[N];
byte number[N];         /* of each session, from 1 */
byte given = N;         /* numbers that were given out */
bool dead[NUMBERS + 1]; /* by number: died */
bool settled[NUMBERS + 1];
bool half, publishing;
byte inside;            /* ghost: living threads between lock and unlock */
bool calling;           /* ghost: the daemon settles a death, and has not called yet */
byte busy[N];           /* ghost: between unlock's swap and its wake-up, or woken and not yet looking */

#define S(step) if :: step :: atomic { given < NUMBERS -> given++; next = given; goto died } fi

inline wake_one() {
	d_step {
		if
		:: asleep[0] -> asleep[0] = false; busy[0] = 1
		:: !asleep[0] && asleep[1] -> asleep[1] = false; busy[1] = 1
		:: !asleep[0] && !asleep[1] && asleep[2] -> asleep[2] = false; busy[2] = 1
		:: else
		fi
	}
}

proctype session(byte i)
{
	byte seen, next;
	bool slept, had;

again:
	atomic { seen = 0; slept = false; had = false };
	/* mutex_take() */
look: skip;
	S(d_step {
		busy[i] = 1;
		if
		:: owner == FREE ->
			owner = number[i];
#ifdef NO_FLAG
			waiters = false;
#else
			waiters = slept;
#endif
			had = true; busy[i] = 0;
			assert(inside == 0); inside++
		:: else -> seen = owner
		fi
	});
	if
	:: had -> goto locked
	:: else
	fi;
	/* WAITERS, if the owner is the same still. */
	S(d_step { if :: owner == seen -> waiters = true :: else -> seen = FREE fi });
	if
	:: seen == FREE -> goto look
	:: else
	fi;
	/* The kernel compares the word and sleeps, in one step. */
#ifdef SLEEP_BLIND
	S(d_step { asleep[i] = true; busy[i] = 0 });
#else
	S(d_step { if :: owner == seen && waiters -> asleep[i] = true; busy[i] = 0 :: else fi });
#endif
	/* Woken, or called; or the slice ends while the owner is dead. */
	if
	:: d_step { !asleep[i] -> busy[i] = 1; slept = true }
	:: d_step { asleep[i] && settled[seen] -> asleep[i] = false; busy[i] = 1; slept = true }
	:: atomic { given < NUMBERS -> given++; next = given; goto died }
	fi;
	/* Asks. */
#ifdef TAKE_UNSETTLED
	if :: dead[seen] :: else -> goto look fi;
#else
	if :: settled[seen] :: else -> goto look fi;
#endif
#ifdef TAKE_BLIND
	S(d_step {
		owner = number[i]; waiters = true; marked = true; had = true; busy[i] = 0;
		assert(inside == 0); inside++
	});
#else
	S(d_step {
		if
		:: owner == seen ->
			owner = number[i]; waiters = true; had = true; busy[i] = 0;
			marked = true;
			assert(inside == 0); inside++
		:: else
		fi
	});
#endif
	if
	:: had
	:: else -> goto look
	fi;
locked:
	assert(owner == number[i]);
	/* What the dead one was publishing is settled, and who may find half a change is told. */
	d_step { assert(!publishing); assert(!half || marked) };
	if
	:: marked -> S(half = false); S(marked = false) /* repair, consistent */
	:: else
	fi;
	S(d_step { half = true; publishing = true });
	S(publishing = false);
	S(half = false);
	/* mutex_give() */
#ifdef WAKE_FIRST
	if :: waiters -> wake_one() :: else fi;
	S(d_step { assert(owner == number[i]); owner = FREE; waiters = false; inside--; had = false });
#else
	S(d_step {
		assert(owner == number[i]);
		slept = waiters; owner = FREE; waiters = false; inside--; had = false; busy[i] = 1
	});
	if
	:: slept -> S(wake_one())
	:: else
	fi;
#endif
	busy[i] = 0;
	goto again;

died:	skip;
	/* Its threads are gone in one step; the daemon learns of it later. */
	d_step {
		if :: had -> inside-- :: else fi;
		dead[number[i]] = true; asleep[i] = false; busy[i] = 0;
		seen = 0; slept = false; had = false
	};
	d_step { number[i] = next; next = 0 };
	goto again
}

proctype daemon()
{
	byte n;

end:	do
	:: atomic {
		if
		:: dead[1] && !settled[1] -> n = 1
		:: dead[2] && !settled[2] -> n = 2
		:: dead[3] && !settled[3] -> n = 3
		:: dead[4] && !settled[4] -> n = 4
		fi;
		calling = true
	   };
		/* Its publish is done to the end, then it is settled, then all sleepers are called. */
		d_step { if :: owner == n -> publishing = false :: else fi };
		settled[n] = true;
#ifndef NO_CALLS
		d_step {
			busy[0] = busy[0] || asleep[0]; asleep[0] = false;
			busy[1] = busy[1] || asleep[1]; asleep[1] = false;
			busy[2] = busy[2] || asleep[2]; asleep[2] = false
		};
#endif
		d_step { n = 0; calling = false }
	od
}

#define unsettled(n) (dead[n] && !settled[n])
#define at_rest (!(unsettled(1) || unsettled(2) || unsettled(3) || unsettled(4)))

/* Nobody sleeps on a free lock, with nobody about to wake him or to look. */
init {
	atomic {
		number[0] = 1; number[1] = 2; number[2] = 3;
		run session(0); run session(1); run session(2); run daemon()
	};
end:	do
	:: d_step {
		at_rest && !calling && (asleep[0] || asleep[1] || asleep[2]) && !busy[0] && !busy[1] && !busy[2] &&
		owner == FREE -> assert(false)
	   }
	od
}
