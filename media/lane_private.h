/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the lane's modules share: lane_quick.h and lane.c (the fast paths), lane_span.c (owning and
 * finding spans), those that add kinds of allocation. Nobody else includes this.
 *
 * The alloc word is the truth and the free list: a class allocates from one word of one owned span,
 * its `current` one. Invariant: an alloc word of an owned span that has a free block is its class's
 * current word, or the span's place is in the class's `room`. A mark in `room` promises nothing.
 *
 * The blocks freed last are given first, while they are in the cache: a class has a stack of some (a magazine, as
 * of Bonwick and Adams, 2001); when it is full, what is freed is found by its word alone. They are hints: the alloc
 * bit of each says whether it is free. Invariant: each is in a span that the lane owns and has not counted as
 * empty.
 */
#pragma once

#include "common/macro.h"
#include "media/fault.h"
#include "media/lane.h"
#include "media/mark.h"

#define SPARES_MAX 256u    /* spans known to be unowned that the lane tries first, a class */
#define SHED_MAX 256u      /* spans that were given up full, and may have room by now, a class */
#define CLAIM_TRIES 64     /* grants that others may snatch away before a request gives up */
#define NEAR_UNITS 4096u   /* units whose owned span is found without the span table */
#define NEAR_STEP 8u       /* the processor's addresses have that factor */
#define FOREIGN_UNITS 64u  /* units of others whose span is remembered */
#define CLOSING_MAX 128u   /* spans given up whose marks stand for a while, that adopting them be cheap */
#define QUICK_SIZE 1024u   /* sizes whose class is looked up */
#define RECENT 31u         /* freed blocks of a class that are remembered */
#define PLACE_WORDS (LANE_OWNED / 64)
_Static_assert(PLACE_WORDS == 2, "place_get()");
#define STATE_WORDS_MAX 64u /* from a span's alloc word to its remote word */

struct owned;

/* A block that was freed lately, and where its alloc bit is: that says whether it still is free. */
struct recent {
	uint64_t ptr; /* 0: there is none, or its span is not the lane's any more; word: lane.full */
	m64 *word;
	uint64_t bit;
};

/* Where a class allocates. What an allocation reads beside the word comes first. */
struct current {
	uint64_t top;       /* bytes of `recent` in use: the block freed last is before it */
	m64 *word;          /* of span->alloc; of nothing if there is no span */
	uint64_t valid;     /* bits of the word that stand for blocks: the low ones; none: no span */
	uint64_t here;      /* global pointer of the word's first block */
	uint64_t size;      /* bytes of a block */
	struct owned *span; /* NULL: none */
	struct recent recent[RECENT];
	uint8_t room[LANE_OWNED]; /* 1: the place may have a free block beside the current word */
} __attribute__((__aligned__(MEDIA_LINE)));

/* A span that the lane owns: place i of the owned-span table. What freeing reads comes first. */
struct owned {
	uint64_t base;  /* global pointer of block 0 */
	uint64_t bytes; /* of all its blocks; 0: the place is empty */
	uint64_t recip; /* as recip_index() has it */
	m64 *alloc;
	struct current *current; /* its class's, */
	uint8_t *room;           /* and its mark there */
	m64 *last;               /* its last alloc word, */
	uint64_t last_valid;     /* and the bits of that which stand for blocks */

	struct span_at at;
	bool empty; /* found without a block: counted in lane->empty */
} __attribute__((__aligned__(MEDIA_LINE)));
_Static_assert(sizeof(struct owned) == 128, "places are found by a shift");

/* Of no pointer: a small one, NVMM_NULL too, has unit 0. */
#define FOREIGN_NONE UINT64_MAX

/* A unit of a span that is not the lane's, as it was when a block of it was freed last. */
struct foreign {
	uint64_t unit; /* pointer >> UNIT_SHIFT, the pool included; FOREIGN_NONE */
	const m64 *head; /* the span's word, */
	uint64_t word;   /* and what it was: while it is that, the rest is right */
	uint64_t base;   /* global pointer of block 0 */
	uint64_t recip; /* 0: the span has one block */
	struct span_at at;
};

struct class_state {
	uint64_t places[PLACE_WORDS]; /* that hold spans of the class */
	unsigned look;    /* place after which remote frees are looked for */
	uint32_t grown;   /* spans that the next request to the source asks for */
	uint32_t spares;
	uint32_t shed_head;
	uint32_t sheds;
};

/* A span of one large block that the lane keeps, empty (lane_run.c). */
struct kept_run {
	struct span_at at;
	struct owned *place; /* its bytes are 0: the fast paths do not know it */
};

#define RUNS_KEPT 8u

struct kept_runs {
	struct kept_run run[RUNS_KEPT]; /* oldest first */
	unsigned n;
	uint64_t bytes;
	uint64_t bytes_max;
	uint64_t clear; /* the run given last, if it reads zero */
};

struct lane {
	struct lane_df *df; /* on media; `nowhere` once the lane is lost */
	uint64_t quiet; /* df->revoke while the fast paths may be used: `calm`, or no value it has */
	size_t limbo;   /* bytes from an alloc word to its limbo and remote words */
	size_t remote;
	uint64_t calm;  /* df->revoke as long as the lane is ours and nobody wants anything */
	bool lost;      /* it is another's */
	bool fence;     /* the kernel has no asymmetric barrier: entering pays for one */
	int error;      /* of the last allocation that failed */
	m64 full;       /* no bit of it is free: the word of no recent block */
	m64 nothing[STATE_WORDS_MAX]; /* the first is the word of classes without a span */
	m64 *entry;     /* where the block being allocated is written first: it is reserved; NULL: nowhere */
	unsigned reserve_next; /* where an empty entry is looked for first */
	struct current *quick[QUICK_SIZE / 8 + 1]; /* a small size's, by 8 bytes */
	struct current current[CLASS_COUNT + 1]; /* the last has nothing: what size 0 gets */
	uint16_t near[NEAR_UNITS]; /* where in `owned`, by NEAR_STEP bytes, a unit's is: a guess by its low bits */
	struct owned owned[LANE_OWNED];

	struct heap *heap;
	uint32_t number;
	const struct lane_source *source;
	void *ctx;
	uint64_t unused[PLACE_WORDS]; /* empty places */
	unsigned hand;     /* place after which one to give up is looked for */
	uint64_t held;     /* bytes of owned spans */
	uint64_t held_max;
	uint64_t empty;    /* bytes of those that were found empty */
	uint64_t empty_max;
	struct closing closing[CLOSING_MAX];
	unsigned closings;
	struct kept_runs runs;
	struct foreign foreign[FOREIGN_UNITS];
	struct class_state class[CLASS_COUNT];
	struct lane_df nowhere; /* zero but for `busy`: what is entered instead of another's lane */

	/* What is behind is not initialised. */
	uint64_t spare[CLASS_COUNT][SPARES_MAX]; /* stacks */
	uint64_t shed[CLASS_COUNT][SHED_MAX];    /* queues */
};

static inline uint64_t lane_pool(const struct lane *lane)
{
	return (uint64_t)lane->heap->pool << 48;
}

/* Marks the thread busy in its lane. 0; -EDEADLK: a signal handler interrupted the allocator;
 * -ETIMEDOUT; -ESTALE. */
int lane_enter(struct lane *lane);
/* The thread is marked busy: 0; or -ETIMEDOUT, -ESTALE, and it is not marked. */
int lane_entered(struct lane *lane);
void lane_leave(struct lane *lane);

/* The thread has entered. Allocates a block of any size. 0 or -errno. */
int lane_alloc_entered(struct lane *lane, size_t size, uint64_t *ret);

/* What block `ptr` is being allocated: before its alloc bit is set. */
static inline void lane_reserving(struct lane *lane, uint64_t ptr)
{
	if (_likely(!lane->entry))
		return;
	/*
	 * COMMIT: the block is reserved, or about to be.
	 *   crash before: it is free.
	 *   crash after:  the lane's settler frees it if its alloc bit is set.
	 *   ordering:     release; the store of the alloc bit comes after it, as a release.
	 *   durable:      drained before the alloc bit is set: no bit without an entry.
	 */
	media_store_release(lane->entry, ptr);
	media_persist(lane->heap->durability, lane->entry, sizeof(m64));
}

/* The block of a pointer, its shelf mapped if need be. As heap_block(), but for -ENXIO. */
int lane_find_block(struct lane *lane, uint64_t ptr, struct span_at *at, uint32_t *index);

/* The thread made limbo bits: whether the daemon is to be woken; if not, lane_deferred() is done. */
void lane_defer_done(struct lane *lane, bool *wake, uint64_t *watch);

/* Gives a span up, as span_disown(); it may be adopted again before its mark goes. */
void lane_disown(struct lane *lane, const struct span_at *at);
/* Ends closing the spans that were given up. */
void lane_closings_end(struct lane *lane);

/* Makes every place empty, without touching media: what they named is nobody's or another's. */
void lane_reset(struct lane *lane);

/* An empty place, not in `unused` any more; another span may be given up for it. */
struct owned *place_get(struct lane *lane, unsigned class);
/* Empties a place; its span is disowned already, or was never claimed. */
void place_clear(struct lane *lane, struct owned *o);
/* heap_span(), mapping what is not mapped yet. */
int lane_find_span(struct lane *lane, uint64_t ref, struct span_at *ret);
/* Claims the span of `at` into place `o`. Fails if somebody has it, or its kind, class or length are not what `at`
 * says; that gets the generation that it has. */
bool place_claim(struct lane *lane, struct owned *o, struct span_at *at);

/* Gives a span up: swap of the owner word, hint, then its place. */
void owned_release(struct lane *lane, struct owned *o);

/* Takes back what others freed into owned spans and gives up those that are empty. */
void lane_release_empty(struct lane *lane);

/* Checks (lane_check.c) */

/* Which rule of a lane that is between two steps is broken, or NULL; *where: of which span, if any. The bits of
 * place `turn` (modulo LANE_OWNED) are looked at. For its thread, entered. */
const char *lane_check(struct lane *lane, unsigned turn, uint64_t *where);
/* The same, the places in turn; ends the process. For builds with DEBUG_CHECKS. */
void lane_check_now(struct lane *lane);

/* The class's current word gets a free block. 0 or -errno. */
int lane_refill(struct lane *lane, unsigned class);

/*
 * The span and block that `ptr` starts, owned or not, its shelf mapped if need be; *ret lies in the lane
 * and is good until it is left. -EINVAL: not a block's start; source's.
 */
int lane_block(struct lane *lane, uint64_t ptr, const struct span_at **ret, uint32_t *index);

/* Says that the lane is about to set a bit of a span that it does not own. */
static inline void lane_freeing(struct lane *lane, uint64_t ref)
{
	/* ordering: release, and setting the bit is a full barrier: the settler of a lane whose bit was
	 * set finds the span here and sets its hints. The entry stays: a hint promises nothing. */
	if (media_load64(&lane->df->freeing) != ref && !FAULT(FREEING_MISSING))
		media_store_release(&lane->df->freeing, ref);
}

/* Frees the block of an unowned large span and keeps the span. -EAGAIN: it cannot, and another's way is to
 * be used; -EALREADY. */
int lane_free_run(struct lane *lane, const struct span_at *at);
/* Gives up all that are kept. */
void lane_runs_release(struct lane *lane);

/* Grants a run whose first unit is a multiple of `align`, claims it, allocates its block. */
int lane_take_run(struct lane *lane, uint64_t units, uint64_t align, uint64_t *ret);

/* A bit of an alloc word of an owned span, not the current one, was cleared. */
void owned_freed(struct lane *lane, struct owned *o, m64 *word);

static inline struct owned *owned_near(struct lane *lane, uint64_t ptr)
{
	uint64_t where = lane->near[(ptr >> UNIT_SHIFT) % NEAR_UNITS];

	return (struct owned *)(void *)((char *)lane->owned + where * NEAR_STEP);
}

static inline unsigned place_of(const struct lane *lane, const struct owned *o)
{
	return (unsigned)(o - lane->owned);
}

static inline void place_set(uint64_t *places, unsigned place)
{
	places[place / 64] |= UINT64_C(1) << (place % 64);
}

static inline void place_unset(uint64_t *places, unsigned place)
{
	places[place / 64] &= ~(UINT64_C(1) << (place % 64));
}

static inline bool place_isset(const uint64_t *places, unsigned place)
{
	return places[place / 64] >> (place % 64) & 1;
}

/* Allocating from the current word */

/* The free blocks of a current word that reads `word`. */
static inline uint64_t current_free(const struct current *c, uint64_t word)
{
	return ~word & c->valid;
}

/* Makes `word` of `o` its class's current one; the one before is full. */
static inline void current_set(struct owned *o, m64 *word)
{
	struct current *c = o->current;

	c->word = word;
	c->valid = word == o->last ? o->last_valid : UINT64_MAX;
	c->here = o->base + (uint64_t)(word - o->alloc) * 64 * o->at.block_size;
	c->size = o->at.block_size;
	c->span = o;
}

/* Where a block of an owned span stands: its alloc word and bit. */
struct place {
	m64 *word;
	uint64_t bits; /* of the word */
	uint64_t bit;
};

/* False: ptr, in an owned span, is not the start of a block. */
static inline bool find_place(const struct owned *o, uint64_t ptr, struct place *ret)
{
	bool start;
	uint64_t index = recip_index(o->recip, ptr - o->base, &start);

	if (_unlikely(!start))
		return false;
	ret->word = &o->alloc[index / 64];
	ret->bit = UINT64_C(1) << (index % 64);
	return true;
}

/* What the word reads without the block. */
static inline uint64_t place_rest(const struct place *p)
{
	return p->bits & ~p->bit;
}

/* The word of another map that belongs to an alloc word. */
static inline uint64_t map_word(const m64 *word, size_t distance)
{
	return media_load64((const m64 *)(const void *)((const char *)word + distance));
}

/* Reads the maps; whether the block is allocated, and freed by nobody. */
static inline bool place_allocated(const struct lane *lane, struct place *p)
{
	uint64_t freed = map_word(p->word, lane->remote) | map_word(p->word, lane->limbo);

	p->bits = media_load64(p->word);
	return (p->bits & p->bit) && !(freed & p->bit);
}

/* Stores an alloc word without the bit of a block that is freed. */
static inline void place_store(m64 *word, uint64_t bits)
{
	/*
	 * COMMIT: the block is free. The owner is the word's only writer.
	 *   crash before: it is allocated.
	 *   crash after:  it is free.
	 *   ordering:     release; the caller's last use of the block comes before.
	 *   durable:      the span is open (media/mark.h).
	 */
	media_store_release(word, bits);
}
