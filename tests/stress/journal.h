/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A thread's journal: the blocks that it holds, and the operation that it is in.
 *
 * An operation is written down before it begins, and crossed out when it is done and its outcome stands
 * in the journal. So a journal of a thread that was killed at any instruction says which one operation
 * may or may not have happened; where the outcome can be read elsewhere (a ring's counter, a word that
 * one thread alone writes) it is, and what remains is a doubt: a block that may be allocated, or a request
 * that may have allocated one.
 *
 * One writer: the thread, and after its death whoever has its seat.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <nvmm/client.h>

#define CELLS 48u
#define DOUBTS 192u
#define NO_CELL CELLS
#define POSTS 7u /* words of a board */

enum intent {
	INTENT_NONE,
	INTENT_ALLOC, /* into `cell`; `ptr` when it is known */
	INTENT_FREE,  /* of `ptr` in `cell`, at once or with delay */
	INTENT_PUT,   /* from `cell` into `ring`, whose tail is `mark` */
	INTENT_TAKE,  /* `ptr` into `cell` from `ring`, whose head is `mark` */
	INTENT_SWAP,  /* `ptr` in `cell` against the word `mark`, which is `old` */
	INTENT_PUBLISH, /* `ptr` (or nothing) in the board's word `mark`, which is `old` */
};

/* What nobody can know who was not there. */
struct doubt {
	nvmm_ptr ptr;  /* it may be allocated; NVMM_NULL: any one block of `size` bytes of `heap` */
	uint64_t size;
	unsigned heap;
	uint64_t number; /* of the operation */
};

struct journal {
	_Atomic unsigned intent;
	uint64_t number; /* of operations that began */
	unsigned cell;
	unsigned heap;
	unsigned ring;
	uint64_t size;
	uint64_t mark;
	nvmm_ptr old;
	_Atomic nvmm_ptr ptr;

	uint64_t serial; /* of its blocks, counting */
	_Atomic nvmm_ptr held[CELLS];
	/* Readers may still see it: to be freed with delay. */
	_Atomic bool seen[CELLS];

	/* Its root is one of these, or not there; bit i: it may be i - 1, bit 0: none. */
	_Atomic nvmm_ptr root[2];
	_Atomic unsigned root_may;

	/* A block of words that are changed by publishing alone, and what they were last. */
	_Atomic nvmm_ptr board;
	_Atomic bool board_ready;
	_Atomic nvmm_ptr posted[POSTS];

	/* A pool of its own, known by `pool` in its name. */
	uint64_t pool;
	_Atomic unsigned pool_may; /* bit 0: it may be gone; bit 1: it may be there */
	uint64_t pool_bytes, pool_wanted;

	struct doubt doubt[DOUBTS];
	unsigned doubts;
};

struct desk;
struct exchange;
struct ring;

/* Whose operation is settled, or begun. */
struct place {
	struct desk *desk;
	unsigned seat, thread;
	struct journal *j;
};

void journal_begin(struct journal *j, enum intent intent);
void journal_end(struct journal *j);

/* Settles what a dead thread left; others may go on meanwhile. */
void journal_settle(struct place *p);

/* A cell that is empty, or one that is not, from `from` on; NO_CELL: there is none. */
unsigned journal_cell(const struct journal *j, unsigned from, bool full);

/* The ring that a thread takes from: 0: of the process before, 1: of the thread before. */
struct ring *journal_source(struct exchange *x, unsigned seat, unsigned thread, unsigned which);

/* Whether a block of the thread's own (a root's, the board) is in no cell besides, as it is for a moment. */
bool journal_apart(const struct journal *j, nvmm_ptr ptr);
