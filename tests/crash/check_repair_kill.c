/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Death at every store, flush and drain of heap_repair(), of each kind of rot in span tables and state records.
 *
 * The metadata of a heap in use is spoilt and repaired once without a death: that is the end. Then it is spoilt
 * the same way again and again, the repair dies one point later each time, and from some of these dies
 * a second time, before it is done to the end: which must be the same, byte for byte. In it no rule is broken, and
 * what was allocated is.
 *
 * NVMMD_TEST_LONG=1: no sampling.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"
#include "media/repair.h"
#include "tests/crash/killer.h"
#include "tests/crash/ledger.h"
#include "tests/unit/heap_fixture.h"
#include "tests/unit/suite.h"

#define UNITS 200u
#define BLOCKS 400u
#define LARGE (200u << 10)

static struct fixture f;
static uint64_t held[BLOCKS];
static unsigned n_held;
static char *spoilt, *end; /* images of the metadata */

static void repair(void *unused)
{
	struct check_report *report = calloc(1, sizeof(*report));

	(void)unused;
	heap_repair(&f.heap, report);
	free(report);
}

/* Whether a repair died at its k-th point. */
static bool repair_killed(long k)
{
	return killer_run(k, repair, NULL);
}

/* The heap */

static void hold(struct lane *lane, uint64_t size)
{
	held[n_held] = lane_alloc(lane, size);
	ck_assert(held[n_held] != 0);
	n_held++;
}

static m64 *word(uint64_t unit)
{
	return &f.shelf[0].table[unit];
}

static bool is_large(uint64_t ptr)
{
	return span_unpack(media_load64(word((ptr & ((UINT64_C(1) << 40) - 1)) >> UNIT_SHIFT))).kind ==
	       SPAN_LARGE;
}

static void release(struct lane *lane, unsigned i)
{
	ck_assert_int_eq(lane_dealloc(lane, held[i]), 0);
	held[i] = 0;
}

static void fill(enum durability durability)
{
	struct lane *lane, *dead;

	n_held = 0;
	fixture_init(&f, UNITS, 16);
	f.heap.durability = durability;
	lane = fixture_lane(&f, 0);
	dead = fixture_lane(&f, 1);
	for (unsigned i = 0; i < 100; i++) {
		hold(lane, 16 + i * 37 % 3000);
		hold(dead, 24);
		if (i % 25 == 0)
			hold(lane, LARGE);
	}
	/* Holes, and runs between spans. */
	for (unsigned i = 0; i < n_held; i += 5)
		release(lane, i);
	for (unsigned i = 0; i < n_held; i++)
		if (held[i] && is_large(held[i]) && i % 2)
			release(lane, i);
	lane_free(lane);
	lane_forget(dead);
	f.alive[0] = f.alive[1] = false;
	ck_assert_int_gt(grant_trim(f.grant), 0);
}

static char *record(uint64_t unit)
{
	return f.shelf[0].state + unit * f.heap.layout.stride;
}

static void flip(void *at, size_t len, uint8_t mask)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)at)[i] ^= mask;
}

/* Rot; `unit` is a head's. */

static void rot_word_bit(uint64_t unit)
{
	flip(word(unit), 1, 1);
}

static void rot_word_length(uint64_t unit)
{
	flip((char *)word(unit) + 1, 2, 0x30);
}

static void rot_words_zero(uint64_t unit)
{
	memset(word(unit), 0, 8 * sizeof(m64));
}

/* From a free run on that has a span behind it. */
static void rot_words_from_free(uint64_t unit)
{
	struct span s;

	for (uint64_t u = 0; u < UNITS; u += s.length) {
		s = span_unpack(media_load64(word(u)));
		if (s.kind != SPAN_FREE || u + s.length == UNITS)
			continue;
		memset(word(u), 0, (s.length + 8) * sizeof(m64));
		return;
	}
	ck_abort_msg("no free run before a span, %llu", (unsigned long long)unit);
}

static void rot_table_zero(uint64_t unit)
{
	(void)unit;
	memset(word(0), 0, UNITS * sizeof(m64));
}

static void rot_table_flip(uint64_t unit)
{
	flip(word(unit), 8 * sizeof(m64), 0xff);
}

static void rot_tail(uint64_t unit)
{
	flip(state_tail(&f.heap.layout, record(unit)), sizeof(struct state_tail_df), 0x55);
}

static void rot_owner(uint64_t unit)
{
	flip(&state_tail(&f.heap.layout, record(unit))->owner, 1, 1);
}

static void rot_record_zero(uint64_t unit)
{
	memset(record(unit), 0, f.heap.layout.stride);
}

static void rot_page_flip(uint64_t unit)
{
	char *at = (char *)((uintptr_t)record(unit) & ~(uintptr_t)(MEDIA_PAGE - 1));

	flip(at, MEDIA_PAGE, 0xff);
}

static void rot_limbo(uint64_t unit)
{
	flip(record(unit) + f.heap.layout.limbo, 128, 0xff);
}

static void rot_limbo_large(uint64_t unit)
{
	for (unit = 0; unit < UNITS; unit++)
		if (span_unpack(media_load64(word(unit))).kind == SPAN_LARGE) {
			flip(record(unit), 1, 1);
			flip(record(unit) + f.heap.layout.limbo, 1, 1);
			return;
		}
	ck_abort_msg("there is no large block");
}

static void rot_interior_owner(uint64_t unit)
{
	uint64_t u = UNITS - 2;

	(void)unit;
	flip(&state_tail(&f.heap.layout, record(u))->owner, 1, 1);
}

static void rot_both(uint64_t unit)
{
	rot_word_bit(unit);
	rot_tail(unit);
}

static const struct rot {
	const char *name;
	void (*spoil)(uint64_t unit);
	bool loading; /* it is mended when the heap is loaded */
} rots[] = {
	{ "bit of a span word", rot_word_bit, false },
	{ "length of a span", rot_word_length, false },
	{ "zeroed span words", rot_words_zero, false },
	{ "zeroed words from a free run on", rot_words_from_free, false },
	{ "zeroed table", rot_table_zero, false },
	{ "rubbish in the table", rot_table_flip, false },
	{ "tail of a record", rot_tail, false },
	{ "owner of a head", rot_owner, true },
	{ "zeroed record", rot_record_zero, false },
	{ "page of records", rot_page_flip, false },
	{ "limbo without alloc", rot_limbo, false },
	{ "limbo without alloc, large", rot_limbo_large, false },
	{ "owner of no head", rot_interior_owner, false },
	{ "word and record", rot_both, false },
};

/* The second head: it has neighbours. */
static uint64_t some_head(void)
{
	unsigned seen = 0;

	for (uint64_t u = 0; u < UNITS; u++) {
		struct span s = span_unpack(media_load64(word(u)));

		if ((s.kind == SPAN_SMALL || s.kind == SPAN_LARGE) && ++seen == 3)
			return u;
	}
	ck_abort_msg("there is no third span");
	return 0;
}

static bool is_allocated(uint64_t ptr)
{
	uint64_t unit = (ptr & ((UINT64_C(1) << 40) - 1)) >> UNIT_SHIFT, index;
	struct span s = span_unpack(media_load64(word(unit)));
	struct span_at at;

	if (s.kind == SPAN_INTERIOR)
		unit -= s.length;
	/* A stretch that is kept as one large block keeps what lies in it. */
	while (unit > 0 && span_unpack(media_load64(word(unit))).kind != SPAN_LARGE &&
	       heap_span(&f.heap, ref_make(0, (uint32_t)unit), &at) < 0)
		unit--;
	if (heap_span(&f.heap, ref_make(0, (uint32_t)unit), &at) < 0)
		return false;
	index = at.span.kind == SPAN_LARGE ?
			0 :
			((ptr & ((UINT64_C(1) << 40) - 1)) - (unit << UNIT_SHIFT)) / at.block_size;
	return media_load64(&state_alloc(at.record)[index / 64]) >> (index % 64) & 1;
}

/* Of the repaired heap: every rule holds once it is loaded, and what was allocated is. */
static void verify_end(const struct rot *rot)
{
	fixture_reload(&f);
	fixture_check(&f);
	for (unsigned i = 0; i < n_held; i++)
		ck_assert_msg(!held[i] || is_allocated(held[i]), "%s: block %u, %llx, is lost", rot->name,
			      i, (unsigned long long)held[i]);
}

static void again(void)
{
	memcpy(f.mapping, spoilt, f.mapping_len);
}

static void expect_end(const struct rot *rot, long k, long j)
{
	repair(NULL);
	for (size_t i = 0; i < f.mapping_len; i++)
		if (((char *)f.mapping)[i] != end[i])
			ck_abort_msg("%s: killed at %ld and %ld, it ends otherwise, at byte %zu", rot->name,
				     k, j, i);
}

/* Every point at first, then a sample that thins out; sooner under a sanitizer, where a fork takes long. */
static long next_point(long k, long from)
{
#ifdef __SANITIZE_ADDRESS__
	from /= 4;
#endif
	return ledger_whole() ? k + 1 : k + 1 + k / from;
}

static void sweep(const struct rot *rot, struct ledger *l)
{
	long k, n = 0;

	for (k = 0; again(), repair_killed(k); k = next_point(k, 24), n++) {
		expect_end(rot, k, -1);
		l->images++;
		if (!ledger_whole() && n % 8 != 0)
			continue;
		for (long j = 0; again(), repair_killed(k) && repair_killed(j); j = next_point(j, 8)) {
			expect_end(rot, k, j);
			l->images++;
			l->inner++;
		}
	}
	l->points = (uint64_t)k;
}

START_TEST(every_point)
{
	const struct rot *rot = &rots[_i / 2];
	enum durability durability = _i % 2 ? DURABILITY_POWER : DURABILITY_PROCESS;
	struct ledger l = { .suite = "repair", .operation = rot->name,
			    .durability = _i % 2 ? "power" : "process" };

	media_backend = &killer_backend;
	ledger_begin(&l);
	fill(durability);
	spoilt = malloc(f.mapping_len);
	end = malloc(f.mapping_len);
	rot->spoil(some_head());
	memcpy(spoilt, f.mapping, f.mapping_len);
	repair(NULL);
	memcpy(end, f.mapping, f.mapping_len);
	ck_assert_msg(rot->loading == (memcmp(spoilt, end, f.mapping_len) == 0), "%s: what was repaired?",
		      rot->name);
	verify_end(rot);
	sweep(rot, &l);
	ck_assert(rot->loading == (l.points == 0));
	free(spoilt);
	free(end);
	fixture_deinit(&f);
	ledger_end(&l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("repair kill");
	TCase *t = tcase_create("repair kill");

	tcase_set_timeout(t, ledger_whole() ? 3600 : 300);
	tcase_add_loop_test(t, every_point, 0, 2 * (int)ARRAY_SIZE(rots));
	suite_add_tcase(s, t);
	return suite_run(s);
}
