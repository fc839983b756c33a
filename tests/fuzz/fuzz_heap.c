/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A heap's metadata: span table, state records, hints, lanes. The input is a list of changes of words of
 * it; then the heap is loaded, checked, counted, used and settled by the daemon's side, which may refuse, and must
 * not follow what it finds out of the heap.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "media/limbo.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/heap_fixture.h"

#define UNITS 64u
#define ACTOR 5u

#ifdef __SANITIZE_ADDRESS__
const unsigned fuzz_inputs = 2000;
#else
const unsigned fuzz_inputs = 10000;
#endif

static struct fixture fix;
static unsigned loaded, refused;
static char *whole; /* the metadata of a heap in use */

/* A change: which word, and what it becomes; xor if the first byte is odd. */
struct change {
	uint8_t how;
	uint8_t at[3];
	uint8_t value[8];
};

size_t fuzz_seed(unsigned i, uint8_t *buf)
{
	struct change *c = (struct change *)(void *)buf;

	if (i >= 64)
		return 0;
	memset(buf, 0, 4 * sizeof(*c));
	for (unsigned k = 0; k < 4; k++) {
		c[k].how = 1;
		c[k].at[0] = (uint8_t)(i * 37 + k);
		c[k].at[1] = (uint8_t)(i >> 1);
		c[k].value[i % 8] = (uint8_t)(1u << (i + k) % 8);
	}
	return 4 * sizeof(*c);
}

void fuzz_begin(void)
{
	struct lane *lane;
	uint64_t ptr[64];

	fixture_init(&fix, UNITS, 16);
	lane = fixture_lane(&fix, ACTOR);
	for (unsigned i = 0; i < 64; i++)
		ptr[i] = lane_alloc(lane, 16u << i % 12);
	for (unsigned i = 0; i < 64; i += 3)
		if (lane_dealloc(lane, ptr[i]) < 0)
			abort();
	lane_forget(lane);
	grant_free(fix.grant);
	whole = malloc(fix.mapping_len);
	if (!whole)
		abort();
	memcpy(whole, fix.mapping, fix.mapping_len);
}

void fuzz_end(void)
{
	printf("%u loaded, %u refused\n", loaded, refused);
	if (loaded == 0 || refused == 0)
		abort();
	fix.grant = NULL;
	fixture_deinit(&fix);
	free(whole);
}

static bool nobody(void *ctx, uint32_t lane)
{
	(void)ctx;
	return lane % 2 == 0;
}

/* All that the daemon does to a heap. */
static void use(struct grant *grant)
{
	struct limbo *limbo = NULL;
	struct heap_totals totals;
	uint64_t refs[16];

	for (unsigned class = 0; class < CLASS_COUNT; class += 10)
		(void)grant_spans(grant, class, 16, refs);
	(void)grant_run(grant, 9, 1, refs);
	(void)grant_settle(grant, ACTOR);
	if (limbo_new(&limbo, &fix.heap) == 0) {
		(void)limbo_snapshot(limbo, 1000);
		(void)limbo_release(limbo, 1000);
		limbo_free(limbo);
	}
	(void)grant_trim(grant);
	(void)heap_count(&fix.heap, &totals);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct grant_lanes lanes = { .alive = nobody, .count = FIXTURE_LANES, .words = &fix.words };
	struct grant *grant = NULL;
	struct change c;
	const char *why = "";
	uint64_t where = 0, value;

	memcpy(fix.mapping, whole, fix.mapping_len);
	for (; len >= sizeof(c); data += sizeof(c), len -= sizeof(c)) {
		size_t words = fix.mapping_len / sizeof(uint64_t), at;
		uint64_t *word;

		memcpy(&c, data, sizeof(c));
		at = ((size_t)c.at[0] | (size_t)c.at[1] << 8 | (size_t)c.at[2] << 16) % words;
		word = (uint64_t *)fix.mapping + at;
		memcpy(&value, c.value, sizeof(value));
		*word = c.how % 2 ? *word ^ value : value;
	}
	(void)heap_check(&fix.heap, &why, &where);
	if (grant_new(&grant, &fix.heap, &lanes, &why, &where) < 0) {
		refused++;
	} else {
		loaded++;
		use(grant);
		grant_free(grant);
	}
	return 0;
}
