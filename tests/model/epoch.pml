/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Epochs with store buffers: nvmm_epoch_pin() and _unpin() of <nvmm/client.h>, media/epoch.c, the
 * rounds of daemon/epochs.c, span_defer() and limbo_release() of media/limbo.c.
 *
 * One link, to one of three blocks. The writer links a free block and frees the old one with delay;
 * two readers follow the link in epochs; the daemon reclaims. A reader's store to its slot stands in
 * its buffer until it is flushed, at any time, or by the daemon's barrier; its loads do not wait for
 * it. A reader may stop for any time anywhere, so between reading the number and storing it.
 *
 * Ghost: life[b], raised when b becomes free: a reader's block must not live another life while it
 * is inside.
 *
 * Wrong on purpose, each to be found: NO_BARRIER, EQUAL_IS_RIPE, RAISE_FIRST (the number rises
 * before the snapshot), FREE_ALL (what is in limbo when the snapshot is ripe, instead of what is in
 * it), EARLY_EXIT (the slot falls before the last use). Right as well: FENCE with NO_BARRIER.
 */

#define VISITS 2
#define WRITES 3
#define ROUNDS 2

#define FREE 0
#define LINKED 1
#define LIMBO 2

byte state[3];
byte life[3];
byte link;
byte number = 1;
byte slot[2];
byte buffer[2];
bool buffered[2];
bool noted[3]; /* the snapshot */

inline flush(r) {
	d_step {
		if
		:: buffered[r] -> slot[r] = buffer[r]; buffered[r] = false
		:: else
		fi
	}
}

/* Stores leave a buffer in order: what is in it goes before, seen or not. */
inline leave(r) {
	d_step { buffered[r] = false; slot[r] = 0 }
}

proctype reader(byte me) {
	byte e, p, l, visits;

end:	do
	:: visits < VISITS ->
		e = number;
		d_step { buffer[me] = e; buffered[me] = true; e = 0 };
#ifdef FENCE
		flush(me);
#endif
		d_step { p = link; l = life[p] };
#ifdef EARLY_EXIT
		leave(me);
#endif
		d_step { assert(life[p] == l); p = 0; l = 0 };
#ifndef EARLY_EXIT
		leave(me);
#endif
		visits++
	:: buffered[me] -> flush(me)
	od
}

/* The buffer empties by itself while the reader is anywhere. */
proctype buffers() {
end:	do
	:: buffered[0] -> flush(0)
	:: buffered[1] -> flush(1)
	od
}

proctype writer() {
	byte fresh, old, written;

end:	do
	:: written < WRITES && (state[0] == FREE || state[1] == FREE || state[2] == FREE) ->
		d_step {
			if
			:: state[0] == FREE -> fresh = 0
			:: state[0] != FREE && state[1] == FREE -> fresh = 1
			:: else -> fresh = 2
			fi;
			state[fresh] = LINKED
		};
		d_step { old = link; link = fresh };
		d_step { state[old] = LIMBO; old = 0; fresh = 0 };
		written++
	od
}

inline snapshot() {
	d_step {
		noted[0] = (state[0] == LIMBO);
		noted[1] = (state[1] == LIMBO);
		noted[2] = (state[2] == LIMBO)
	}
}

inline release(b) {
	d_step {
		if
#ifdef FREE_ALL
		:: state[b] == LIMBO -> state[b] = FREE; life[b]++
#else
		:: state[b] == LIMBO && noted[b] -> state[b] = FREE; life[b]++
#endif
		:: else
		fi;
		noted[b] = false
	}
}

#ifdef EQUAL_IS_RIPE
#define ripe(r) (slot[r] == 0 || slot[r] >= stamp)
#else
#define ripe(r) (slot[r] == 0 || slot[r] > stamp)
#endif

proctype daemon() {
	byte stamp, rounds;

end:	do
	:: rounds < ROUNDS && (state[0] == LIMBO || state[1] == LIMBO || state[2] == LIMBO) ->
#ifndef RAISE_FIRST
		snapshot();
#endif
		d_step { stamp = number; number = stamp + 1 };
#ifdef RAISE_FIRST
		snapshot();
#endif
#ifndef NO_BARRIER
		flush(0);
		flush(1);
#endif
		ripe(0);
		ripe(1);
		release(0);
		release(1);
		release(2);
		stamp = 0;
		rounds++
	od
}

init {
	atomic {
		state[0] = LINKED;
		run reader(0);
		run reader(1);
		run buffers();
		run writer();
		run daemon()
	}
}
