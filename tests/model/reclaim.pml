/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Epochs and background reclamation, on a machine with store buffers (TSO): readers, slots, the
 * daemon's snapshots, limbo, collect, and the block's next life.
 *
 * One block and one link to it. A writer links the block, unlinks it and frees it with delay; two
 * readers enter, follow the link, use the block, leave. A reader may stop anywhere, so it enters with an
 * epoch read long ago. The daemon: limbo word, stamp s = G, raise G, barrier, scan until each slot was
 * seen zero or greater than s, limbo again, remote. The owner collects, and the writer has the block
 * again. The readers' stores of their slots wait in a buffer of one; the other stores here are
 * followed by locked instructions. Readers and the daemon die at any step; a reader's slot falls once it
 * is settled; the daemon's number G stands in its page and outlives it. It is counted up to GMAX; then
 * nothing is reclaimed any more.
 *
 * FENCED: readers fence, the daemon has no barrier. Wrong on purpose: RIPE_AT (>= s), NO_BARRIER,
 * SCAN_FIRST (before the barrier and the raise), RAISE_FIRST (before the snapshot, stamped with the old
 * number), QUEUE (of a pointer with its client's epoch), G_LOST (counted from 1 by the next daemon),
 * TWO_SNAPSHOTS (of the same limbo bit at once).
 */

#ifndef GMAX
#define GMAX 4
#endif
#ifdef TWO_SNAPSHOTS
#define DAEMONS 2
#else
#define DAEMONS 1
#endif

#define S(step) if :: step :: goto died fi

byte G = 1;
byte slot[2];
bool waits[2];       /* a reader's store of its slot waits in its buffer: */
byte waiting[2];
bool using[2];       /* ghost: the reader has the block's address */
bool dead[2];
bool link;           /* leads to the block */
bool alloc, limbo, remote;
#ifdef QUEUE
byte queued;         /* the epoch that the client wrote beside its pointer */
#endif

proctype memory()
{
end:	do
	:: d_step { waits[0] -> slot[0] = waiting[0]; waits[0] = false; waiting[0] = 0 }
	:: d_step { waits[1] -> slot[1] = waiting[1]; waits[1] = false; waiting[1] = 0 }
	od
}

proctype reader(byte me)
{
	byte e;

restart:
end:	do
	:: goto died
	:: e = G;
		/* Here it may stop for as long as it likes. */
#ifdef FENCED
		S(d_step { !waits[me] -> slot[me] = e; e = 0 });
#else
		S(d_step { !waits[me] -> waits[me] = true; waiting[me] = e; e = 0 });
#endif
		S(using[me] = link);
		/* Here it uses the block. */
		S(using[me] = false);
		S(d_step { !waits[me] -> waits[me] = true; waiting[me] = 0 })
	od;
died:
	atomic { using[me] = false; e = 0; dead[me] = true };
	!dead[me];
	goto restart
}

/* Owns the block's span, and frees the block with delay. */
proctype writer()
{
	byte e;

end:	do
	:: !alloc -> alloc = true
	:: alloc && !limbo && !remote ->
		link = true;
#ifdef QUEUE
		e = G;
#endif
		link = false;
#ifdef QUEUE
		queued = e; e = 0;
#endif
		limbo = true
	:: remote -> /* span_collect() */
		limbo = false;
		d_step {
			assert(!using[0] && !using[1]); /* no reader has what is given anew */
			alloc = false
		};
		remote = false
	od
}

#define passed(r) (slot[r] == 0 || slot[r] > s)

/* A slot is looked at as often as it takes. */
inline scan() {
#ifdef RIPE_AT
	if :: slot[0] == 0 || slot[0] >= s :: goto died fi;
	if :: slot[1] == 0 || slot[1] >= s :: goto died fi
#else
	if :: passed(0) :: goto died fi;
	if :: passed(1) :: goto died fi
#endif
}

proctype reclaimer()
{
	byte s;

restart:
end:	do
	:: G < GMAX -> G = G + 1 /* for other blocks */
#ifndef RAISE_FIRST
	:: limbo && !remote && G < GMAX ->
#ifdef QUEUE
		s = queued;
#else
		S(s = G);
#endif
#ifdef SCAN_FIRST
		scan();
#endif
		S(G = G + 1);
#if !defined(NO_BARRIER) && !defined(FENCED)
		S(!waits[0]);
		S(!waits[1]);
#endif
#ifndef SCAN_FIRST
		scan();
#endif
		if
		:: limbo -> S(remote = true)
		:: else
		fi;
		s = 0
#else
	:: G < GMAX ->
		S(s = G);
		S(G = G + 1);
		if :: limbo && !remote :: goto died fi;
		S(!waits[0]);
		S(!waits[1]);
		scan();
		if
		:: limbo -> S(remote = true)
		:: else
		fi;
		s = 0
#endif
	:: atomic { dead[0] && !waits[0] -> slot[0] = 0; dead[0] = false }
	:: atomic { dead[1] && !waits[1] -> slot[1] = 0; dead[1] = false }
	:: goto died
	od;
died:
	s = 0;
#ifdef G_LOST
	G = 1;
#endif
	goto restart
}

init {
	atomic {
		run memory(); run reader(0); run reader(1); run writer(); run reclaimer();
#if DAEMONS == 2
		run reclaimer()
#endif
	}
}
