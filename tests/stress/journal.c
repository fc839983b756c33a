/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Settling goes by what the operation changed last: a ring's counter, a word of the exchange, the pointer
 * that an allocation returned. What is done twice does the same twice, since who settles may be killed too.
 */
#include "tests/stress/journal.h"

#include "tests/stress/campaign.h"
#include "tests/stress/stamp.h"

void journal_begin(struct journal *j, enum intent intent)
{
	j->number++;
	/* ordering: release; what it is about stands there before. */
	atomic_store_explicit(&j->intent, intent, memory_order_release);
}

void journal_end(struct journal *j)
{
	/* ordering: release; its outcome stands there before. */
	atomic_store_explicit(&j->intent, INTENT_NONE, memory_order_release);
}

unsigned journal_cell(const struct journal *j, unsigned from, bool full)
{
	for (unsigned i = 0; i < CELLS; i++)
		if ((j->held[(from + i) % CELLS] != NVMM_NULL) == full)
			return (from + i) % CELLS;
	return NO_CELL;
}

bool journal_apart(const struct journal *j, nvmm_ptr ptr)
{
	for (unsigned i = 0; i < CELLS; i++)
		if (j->held[i] == ptr)
			return false;
	return true;
}

struct ring *journal_source(struct exchange *x, unsigned seat, unsigned thread, unsigned which)
{
	if (which == 0)
		return &x->ring[(seat + SEATS - 1) % SEATS][thread][0];
	return &x->ring[seat][(thread + THREADS - 1) % THREADS][1];
}

/* Written before the intent is crossed out: it may stand there already. */
static void doubt_add(struct place *p, nvmm_ptr ptr)
{
	struct journal *j = p->j;

	if (j->doubts > 0 && j->doubt[j->doubts - 1].number == j->number)
		return;
	client_must(p->desk->c, j->doubts < DOUBTS, "%u doubts of one thread", j->doubts);
	j->doubt[j->doubts] = (struct doubt){ ptr, j->size, j->heap, j->number };
	j->doubts++;
}

static void settle_alloc(struct place *p)
{
	struct journal *j = p->j;
	nvmm_ptr ptr = j->ptr;

	if (ptr == NVMM_NULL) {
		doubt_add(p, NVMM_NULL);
		return;
	}
	stamp_write(nvmm_local(p->desk->nvmm, ptr), j->size, j->serial);
	j->held[j->cell] = ptr;
}

static void settle_free(struct place *p)
{
	p->j->held[p->j->cell] = NVMM_NULL;
	p->j->seen[p->j->cell] = false;
	doubt_add(p, p->j->ptr);
}

static void settle_put(struct place *p, struct ring *ring)
{
	if (ring->tail > p->j->mark)
		p->j->held[p->j->cell] = NVMM_NULL;
}

static void settle_take(struct place *p, struct ring *ring)
{
	p->j->held[p->j->cell] = ring->head > p->j->mark ? p->j->ptr : NVMM_NULL;
}

static void settle_swap(struct place *p)
{
	struct journal *j = p->j;

	if (p->desk->exchange->word[p->seat][p->thread][j->mark] != j->ptr)
		return;
	j->seen[j->cell] = j->old != NVMM_NULL;
	j->held[j->cell] = j->old;
}

/* All or nothing, once the daemon has settled the dead one. */
static void settle_publish(struct place *p)
{
	struct journal *j = p->j;
	struct desk *d = p->desk;
	int r = nvmm_wait_settled(desk_heap(d, j->board));
	nvmm_ptr is;

	client_must(d->c, r == 0, "wait_settled: %d: %s", r, nvmm_errmsg(d->nvmm));
	is = ((const uint64_t *)nvmm_local(d->nvmm, j->board))[j->mark];
	client_must(d->c, is == j->ptr || is == j->old, "a word is 0x%llx, not 0x%llx or 0x%llx",
		    (unsigned long long)is, (unsigned long long)j->ptr, (unsigned long long)j->old);
	j->posted[j->mark] = is;
}

void journal_settle(struct place *p)
{
	struct exchange *x = p->desk->exchange;
	struct journal *j = p->j;

	switch (j->intent) {
	case INTENT_ALLOC:
		settle_alloc(p);
		break;
	case INTENT_FREE:
		settle_free(p);
		break;
	case INTENT_PUT:
		settle_put(p, &x->ring[p->seat][p->thread][j->ring]);
		break;
	case INTENT_TAKE:
		settle_take(p, journal_source(x, p->seat, p->thread, j->ring));
		break;
	case INTENT_SWAP:
		settle_swap(p);
		break;
	case INTENT_PUBLISH:
		settle_publish(p);
		break;
	default:
		break;
	}
	journal_end(j);
}
