/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Revoking the spans of idle lanes, on a machine with store buffers (TSO): the protocol atop of
 * media/lane.c, and revoke_want(), revoke_take(), revoke_finish(), revoke_resume() of
 * media/grant_lanes.c.
 *
 * One span of one block; a lane that adopts, allocates, frees and gives up; the daemon revokes; an
 * other lane, whose stores are seen at once, adopts and allocates what is unowned. The lane's plain
 * stores wait in its buffer, in order, until they are seen; its loads look there first. The
 * daemon's are in a buffer as well. A locked instruction waits for its own buffer to be empty; so does
 * the barrier that the daemon passes through the lane's thread. Both die at any step, what is in the
 * buffer is then seen; the dead lane is settled, the daemon loads and goes on with what it left.
 *
 * FENCED: the kernel has no such barrier; the lane marks itself busy by a locked instruction.
 * Wrong on purpose: NO_BARRIER, TAKE_UNASKED (TAKING is stored, not compared and swapped), TAKEN_EARLY,
 * NO_WAIT (the thread goes on in TAKING), NO_RESET (it does not forget its spans), NO_BUSY_LOOK.
 */

#define S(step) if :: step :: goto died fi

/* Addresses */
#define BUSY 0
#define REVOKE 1
#define ENTRY 2
#define ALLOC 3
#define ADDRESSES 4

#define NONE 0
#define WANTED 1
#define TAKING 2
#define TAKEN 3

#define OWNER_NONE 0
#define OWNER_LANE 1
#define OWNER_OTHER 2

byte mem[ADDRESSES];
byte owner = OWNER_NONE; /* changed by locked instructions alone */
bool held;               /* ghost: the block is somebody's */
bool own;                /* what the lane's thread believes */
bool dead;
bool lane_busy, daemon_busy; /* ghosts: in the middle of something */

/* Store buffers: of the lane's thread and of the daemon. */
byte lane_at[3], lane_value[3], lane_n;
byte daemon_at[2], daemon_value[2], daemon_n;

inline lane_store(at, v) {
	S(d_step { lane_n < 3 -> lane_at[lane_n] = at; lane_value[lane_n] = v; lane_n++ })
}

inline lane_load(ret, at) {
	S(d_step {
		ret = mem[at];
		if :: lane_n > 0 && lane_at[0] == at -> ret = lane_value[0] :: else fi;
		if :: lane_n > 1 && lane_at[1] == at -> ret = lane_value[1] :: else fi;
		if :: lane_n > 2 && lane_at[2] == at -> ret = lane_value[2] :: else fi
	})
}

inline daemon_store(at, v) {
	S(d_step { daemon_n < 2 -> daemon_at[daemon_n] = at; daemon_value[daemon_n] = v; daemon_n++ })
}

inline daemon_load(ret, at) {
	S(d_step {
		ret = mem[at];
		if :: daemon_n > 0 && daemon_at[0] == at -> ret = daemon_value[0] :: else fi;
		if :: daemon_n > 1 && daemon_at[1] == at -> ret = daemon_value[1] :: else fi
	})
}

/* Compare-and-swap of the revoke word by whoever's buffer has n stores. */
inline cas(n, from, to, ok) {
	S(d_step {
		n == 0 ->
		if
		:: mem[REVOKE] == from -> mem[REVOKE] = to; ok = true
		:: else -> ok = false
		fi
	})
}

/* Stores are seen in their order, some time. */
proctype memory()
{
end:	do
	:: d_step {
		lane_n > 0 -> mem[lane_at[0]] = lane_value[0];
		lane_at[0] = lane_at[1]; lane_value[0] = lane_value[1];
		lane_at[1] = lane_at[2]; lane_value[1] = lane_value[2];
		lane_at[2] = 0; lane_value[2] = 0; lane_n--
	   }
	:: d_step {
		daemon_n > 0 -> mem[daemon_at[0]] = daemon_value[0];
		daemon_at[0] = daemon_at[1]; daemon_value[0] = daemon_value[1];
		daemon_at[1] = 0; daemon_value[1] = 0; daemon_n--
	   }
	od
}

proctype lane()
{
	byte r;
	bool ok;

restart:
	do
	:: goto died
	:: lane_busy = true;
		/* lane_enter() */
#ifdef FENCED
		S(d_step { lane_n == 0 -> mem[BUSY] = 1 });
#else
		lane_store(BUSY, 1);
#endif
		lane_load(r, REVOKE);
		if
		:: r == NONE -> goto inside
		:: else
		fi;
		/* lane_revoked() */
revoked:
		lane_load(r, REVOKE);
		if
		:: r == TAKEN ->
#ifndef NO_RESET
			own = false;
#endif
			lane_store(REVOKE, NONE);
			goto inside
		:: r == NONE -> goto inside
		:: r == WANTED ->
			cas(lane_n, WANTED, NONE, ok);
			if
			:: ok -> ok = false; goto inside
			:: else -> goto revoked
			fi
#ifdef NO_WAIT
		:: r == TAKING -> goto inside
#else
		:: r == TAKING -> goto revoked
		:: r == TAKING -> goto leave /* -ETIME */
#endif
		fi;
inside:
		lane_load(r, ALLOC);
		if
		:: own && r == 0 -> /* allocates */
			S(d_step {
				lane_n < 3 -> assert(owner == OWNER_LANE && !held); held = true;
				lane_at[lane_n] = ALLOC; lane_value[lane_n] = 1; lane_n++
			})
		:: own && r == 1 && held -> /* frees */
			S(d_step {
				lane_n < 3 -> assert(owner == OWNER_LANE && held); held = false;
				lane_at[lane_n] = ALLOC; lane_value[lane_n] = 0; lane_n++
			})
		:: own -> /* gives the span up */
			S(d_step { lane_n == 0 -> assert(owner == OWNER_LANE); owner = OWNER_NONE;
				   own = false });
			lane_store(ENTRY, 0)
		:: !own -> /* adopts */
			lane_store(ENTRY, 1);
			S(d_step {
				lane_n == 0 ->
				if
				:: owner == OWNER_NONE -> owner = OWNER_LANE; own = true
				:: else
				fi
			});
			if
			:: !own -> lane_store(ENTRY, 0)
			:: else
			fi
		:: true
		fi;
leave:
		lane_store(BUSY, 0);
		d_step { r = 0; lane_busy = false }
	od;
died:
	lane_n == 0;
	atomic { dead = true; own = false; r = 0; ok = false };
	d_step { !dead -> lane_busy = false };
	goto restart
}

/* settle_entry(): what the lane owns is unowned, then its entry is cleared. */
inline settle_entry(r) {
	daemon_load(r, ENTRY);
	if
	:: r != 0 ->
		S(d_step {
			daemon_n == 0 ->
			if
			:: owner == OWNER_LANE -> owner = OWNER_NONE
			:: else
			fi
		});
		daemon_store(ENTRY, 0)
	:: else
	fi
}

inline revoke_finish(r) {
#ifdef TAKEN_EARLY
	daemon_store(REVOKE, TAKEN);
	settle_entry(r);
#else
	settle_entry(r);
	daemon_store(REVOKE, TAKEN);
#endif
}

proctype granter()
{
	byte r;
	bool ok;

serve:
	do
	:: goto died

	:: !dead -> daemon_busy = true;
		/* revoke_want() */
		daemon_load(r, ENTRY);
		if
		:: r == 0 -> goto done
		:: else
		fi;
		cas(daemon_n, NONE, WANTED, ok);
		daemon_load(r, REVOKE);
		if
		:: r != WANTED -> goto done
		:: else
		fi;
		/* barrier_all() */
#if !defined(FENCED) && !defined(NO_BARRIER)
		if
		:: lane_n == 0
		:: goto done /* not done: nothing is taken */
		:: goto died
		fi;
#endif
		/* revoke_take() */
#ifndef NO_BUSY_LOOK
		daemon_load(r, BUSY);
		if
		:: r != 0 -> cas(daemon_n, WANTED, NONE, ok); goto done
		:: else
		fi;
#endif
#ifdef TAKE_UNASKED
		daemon_store(REVOKE, TAKING);
#else
		cas(daemon_n, WANTED, TAKING, ok);
		if
		:: !ok -> goto done
		:: else
		fi;
#endif
		revoke_finish(r);
		goto done

	:: dead -> /* grant_settle() */
		daemon_busy = true;
		settle_entry(r);
		daemon_store(REVOKE, NONE);
		daemon_store(BUSY, 0);
		daemon_n == 0; /* the reply that gives the lane to another thread comes after */
		dead = false;
		goto done
	od;
done:
	atomic { r = 0; ok = false; daemon_busy = false };
	goto serve;
died:
	daemon_n == 0;
	atomic { r = 0; ok = false; daemon_busy = true };
	/* revoke_resume() of the next daemon */
	daemon_load(r, REVOKE);
	if
	:: r == TAKING && !dead -> revoke_finish(r)
	:: else
	fi;
	goto done
}

/* Another thread, which adopts what it finds unowned. */
proctype other()
{
end:	do
	:: d_step { owner == OWNER_NONE -> owner = OWNER_OTHER }
	:: d_step { owner == OWNER_OTHER && mem[ALLOC] == 0 ->
		assert(!held); mem[ALLOC] = 1; held = true }
	:: d_step { owner == OWNER_OTHER && mem[ALLOC] == 1 && held ->
		mem[ALLOC] = 0; held = false }
	:: d_step { owner == OWNER_OTHER -> owner = OWNER_NONE }
	od
}

#define quiet (!lane_busy && !daemon_busy && !dead && lane_n == 0 && daemon_n == 0)

init {
	atomic { run memory(); run lane(); run granter(); run other() };
end:	do
	:: quiet && (mem[ALLOC] == 1) != held -> assert(false) /* lost */
	:: quiet && (owner == OWNER_LANE) != (mem[ENTRY] == 1) -> assert(false)
	:: quiet && own && owner != OWNER_LANE && mem[REVOKE] != TAKEN -> assert(false)
	:: quiet && mem[REVOKE] == TAKING -> assert(false) /* it would wait for ever */
	od
}
