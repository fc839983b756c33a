/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power cuts. A point is announced before its store takes effect, so what a store did is looked at when
 * the next point comes. Words are independent of each other, also in one line: more can be lost here
 * than on any machine.
 */
#include "tests/crash/cut.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/macro.h"
#include "media/format.h"
#include "tests/crash/doomed.h"

#define PENDING_MAX 65536u
#define RANGES 8u
#define CHUNK 512u /* words that are compared at a time */

/* A store that need not have reached the medium. */
struct pending {
	uint64_t value;
	uint32_t word;
	bool flushed; /* the next drain makes it durable */
};

/* Words that are looked through. */
struct range {
	size_t from, n;
	bool own;
};

struct cut {
	uint64_t *words;
	size_t n_words;
	uint64_t *durable;
	uint64_t *seen; /* as they were when last looked at */
	struct range range[RANGES];
	unsigned n_ranges;
	const void *(*place)(const void *addr);
	void (*at)(void);
	uint32_t last; /* word of the store that was announced, */
	uint64_t was;  /* its value then */
	bool announced;
	long left;
	uint32_t n;
	struct pending pending[PENDING_MAX];
};

static struct cut *the;

static void *shared(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}

static void add(struct cut *c, uint32_t word)
{
	if (c->n == PENDING_MAX) {
		fprintf(stderr, "cut: too many stores that are not drained\n");
		abort();
	}
	c->seen[word] = c->words[word];
	c->pending[c->n++] = (struct pending){ .word = word, .value = c->seen[word] };
}

/* Another process has stored and drained a word: of what was pending there nothing can come back. */
static void settle_word(struct cut *c, uint32_t word)
{
	uint32_t kept = 0;

	c->seen[word] = c->durable[word] = c->words[word];
	for (uint32_t i = 0; i < c->n; i++)
		if (c->pending[i].word != word)
			c->pending[kept++] = c->pending[i];
	c->n = kept;
}

static void scan(struct cut *c, const struct range *r)
{
	for (size_t from = r->from; from < r->from + r->n; from += CHUNK) {
		size_t n = MIN(CHUNK, r->from + r->n - from);

		if (memcmp(&c->words[from], &c->seen[from], n * sizeof(uint64_t)) == 0)
			continue;
		for (size_t w = from; w < from + n; w++)
			if (c->words[w] != c->seen[w])
				(r->own ? add : settle_word)(c, (uint32_t)w);
	}
}

/* The announced store has been done since. */
static void look_announced(struct cut *c)
{
	if (!c->announced)
		return;
	c->announced = false;
	if (c->words[c->last] != c->was)
		add(c, c->last);
}

/* What is announced comes first: the rest is not. */
static void look(struct cut *c)
{
	look_announced(c);
	for (unsigned i = 0; i < c->n_ranges; i++)
		scan(c, &c->range[i]);
}

static uintptr_t place_of(const struct cut *c, const void *addr)
{
	return (uintptr_t)(c->place && addr ? c->place(addr) : addr);
}

static void point(enum media_point kind, const void *addr, size_t len)
{
	struct cut *c = the;
	size_t offset;

	(void)len;
	look(c);
	if (c->left-- == 0)
		doomed_end();
	if (c->at)
		c->at();
	offset = place_of(c, addr) - (uintptr_t)c->words;
	if (kind != MEDIA_POINT_STORE || offset / sizeof(uint64_t) >= c->n_words)
		return;
	c->last = (uint32_t)(offset / sizeof(uint64_t));
	c->was = c->words[c->last];
	c->announced = true;
}

static void flush(const void *addr, size_t len)
{
	struct cut *c = the;
	uintptr_t start = place_of(c, addr);
	uintptr_t from = start & ~(uintptr_t)(MEDIA_LINE - 1);
	uintptr_t to = start + len;

	look(c);
	for (uint32_t i = 0; i < c->n; i++) {
		uintptr_t at = (uintptr_t)&c->words[c->pending[i].word];

		if (at >= from && (at & ~(uintptr_t)(MEDIA_LINE - 1)) < to)
			c->pending[i].flushed = true;
	}
}

static void drain(void)
{
	struct cut *c = the;
	uint32_t kept = 0;

	look(c);
	for (uint32_t i = 0; i < c->n; i++)
		if (c->pending[i].flushed)
			c->durable[c->pending[i].word] = c->pending[i].value;
		else
			c->pending[kept++] = c->pending[i];
	c->n = kept;
}

static const struct media_backend backend = { .flush = flush, .drain = drain, .point = point };

struct cut *cut_new(void *addr, size_t len)
{
	struct cut *c = shared(sizeof(*c));

	c->words = addr;
	c->n_words = len / sizeof(uint64_t);
	c->durable = shared(len);
	c->seen = shared(len);
	c->left = -1;
	cut_settle(c);
	the = c;
	media_backend = &backend;
	return c;
}

void cut_free(struct cut *c)
{
	munmap(c->durable, c->n_words * sizeof(uint64_t));
	munmap(c->seen, c->n_words * sizeof(uint64_t));
	munmap(c, sizeof(*c));
	the = NULL;
	media_backend = &media_backend_pmem;
}

bool cut_run(struct cut *c, long k, void (*fn)(void *arg), void *arg)
{
	bool stopped;

	c->left = k;
	stopped = doomed_run(fn, arg);
	c->left = -1;
	return stopped;
}

void cut_settle(struct cut *c)
{
	memcpy(c->durable, c->words, c->n_words * sizeof(uint64_t));
	if (c->n_ranges)
		memcpy(c->seen, c->durable, c->n_words * sizeof(uint64_t));
	c->announced = false;
	c->n = 0;
	c->left = -1;
}

void cut_scan(struct cut *c, const void *addr, size_t len, bool own)
{
	size_t from = ((uintptr_t)addr - (uintptr_t)c->words) / sizeof(uint64_t);

	if (c->n_ranges == RANGES)
		abort();
	memcpy(&c->seen[from], &c->words[from], len);
	c->range[c->n_ranges++] = (struct range){ .from = from, .n = len / sizeof(uint64_t), .own = own };
}

void cut_hook(struct cut *c, const void *(*place)(const void *addr), void (*at)(void))
{
	c->place = place;
	c->at = at;
}

size_t cut_pending(struct cut *c)
{
	look(c);
	return c->n;
}

/* Images */

struct cut_images {
	struct cut *cut;
	uint64_t *durable;
	struct pending *pending; /* by word, in their order */
	size_t n;
	uint32_t *first; /* of each word, and n */
	size_t words;
	uint64_t random;
	unsigned most;
	unsigned next;
	bool all;
};

/* By word; those of one word stay in their order. */
static void sort_pending(struct pending *p, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		struct pending one = p[i];
		size_t k = i;

		for (; k > 0 && p[k - 1].word > one.word; k--)
			p[k] = p[k - 1];
		p[k] = one;
	}
}

struct cut_images *cut_images_new(struct cut *c, uint64_t seed, unsigned most)
{
	struct cut_images *m = calloc(1, sizeof(*m));
	uint64_t product = 1;

	look(c);
	if (!m)
		abort();
	m->cut = c;
	m->random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
	m->most = most;
	m->n = c->n;
	m->durable = malloc(c->n_words * sizeof(uint64_t));
	m->pending = malloc((m->n + 1) * sizeof(*m->pending));
	m->first = malloc((m->n + 2) * sizeof(*m->first));
	if (!m->durable || !m->pending || !m->first)
		abort();
	memcpy(m->durable, c->durable, c->n_words * sizeof(uint64_t));
	memcpy(m->pending, c->pending, m->n * sizeof(*m->pending));
	sort_pending(m->pending, m->n);
	for (size_t i = 0; i < m->n; i++)
		if (i == 0 || m->pending[i].word != m->pending[i - 1].word)
			m->first[m->words++] = (uint32_t)i;
	m->first[m->words] = (uint32_t)m->n;
	for (size_t w = 0; w < m->words && product <= most; w++)
		product *= m->first[w + 1] - m->first[w] + 1;
	m->all = product <= most;
	if (m->all)
		m->most = (unsigned)product;
	return m;
}

void cut_images_free(struct cut_images *m)
{
	if (!m)
		return;
	free(m->durable);
	free(m->pending);
	free(m->first);
	free(m);
}

/* xorshift64 (Marsaglia, "Xorshift RNGs", 2003). */
static uint64_t next_random(struct cut_images *m)
{
	m->random ^= m->random << 13;
	m->random ^= m->random >> 7;
	m->random ^= m->random << 17;
	return m->random >> 8;
}

/* Which of its pending stores a word has, from 1; 0: none. */
static uint32_t choose(struct cut_images *m, size_t w, unsigned image, uint64_t *rest)
{
	uint32_t n = m->first[w + 1] - m->first[w], choice;

	if (m->all) {
		choice = (uint32_t)(*rest % (n + 1));
		*rest /= n + 1;
		return choice;
	}
	if (image < 2)
		return image ? n : 0;
	switch (image % 4) {
	case 0: /* one word alone has reached the medium */
		return *rest % m->words == w ? n : 0;
	case 1: /* one word alone has not */
		return *rest % m->words == w ? 0 : n;
	case 2:
		return next_random(m) % 2 ? (uint32_t)(next_random(m) % (n + 1)) : n;
	default:
		return next_random(m) % 4 ? 0 : (uint32_t)(next_random(m) % (n + 1));
	}
}

bool cut_images_copy(struct cut_images *m, void *to)
{
	uint64_t rest = m->all ? m->next : next_random(m), *words = to;

	if (m->next == m->most)
		return false;
	memcpy(words, m->durable, m->cut->n_words * sizeof(uint64_t));
	for (size_t w = 0; w < m->words; w++) {
		uint32_t choice = choose(m, w, m->next, &rest);

		if (choice > 0)
			words[m->pending[m->first[w]].word] =
				m->pending[m->first[w] + choice - 1].value;
	}
	m->next++;
	return true;
}

bool cut_images_next(struct cut_images *m)
{
	if (!cut_images_copy(m, m->cut->words))
		return false;
	cut_settle(m->cut);
	return true;
}
