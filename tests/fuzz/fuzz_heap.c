/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A heap's metadata: span tables, state records, hints, lanes, logs, reservations. An input is a program of
 * three kinds of steps, in any order: changes of metadata words; what the daemon does to a heap (load, grant, settle,
 * snapshot, release, trim, grow, count, check, repair); what the library does (alloc, free, reserve, publish,
 * cancel, give up). Each may refuse. None may follow what it finds out of the heap, or go on for ever.
 *
 * A build with debug checks ends a process that finds a rule broken in what it owns, which is what they are
 * for. There, the library's part ends with the first change, and a change of a span table has the daemon's part
 * load the heap anew.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "media/debug.h"
#include "media/limbo.h"
#include "media/publish.h"
#include "media/repair.h"
#include "tests/fuzz/choice.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/heap_fixture.h"

const char fuzz_name[] = "heap";

#define UNITS 64u
#define LANES 3u
#define FIRST_LANE 4u
#define BLOCKS 8u
#define STEPS 128u

/* A heap of each durability, as lanes left it. */
static struct {
	struct fixture fix;
	char *whole; /* its metadata */
} heaps[2];

static struct fixture *fix;
static struct limbo *limbo;
static struct lane *lanes[LANES];
static struct reservations *reserved;
static uint64_t blocks[BLOCKS];
static bool changed;
static struct check_report report;
static unsigned long long loads, refusals, allocs, frees, publishes, findings;

/* Lanes */

static int source_spans(void *ctx, unsigned class, uint32_t want, uint64_t *refs)
{
	(void)ctx;
	return fix->grant ? grant_spans(fix->grant, class, want, refs) : -ENOSPC;
}

static int source_run(void *ctx, uint64_t units, uint64_t align, uint64_t *ref)
{
	(void)ctx;
	return fix->grant ? grant_run(fix->grant, units, align, ref) : -ENOSPC;
}

static int source_resolve(void *ctx, uint64_t ref)
{
	(void)ctx;
	(void)ref;
	return -ENXIO;
}

/* The daemon is this thread: there is nothing to wait for. */
static long source_patience(void *ctx)
{
	(void)ctx;
	return 0;
}

static const struct lane_source source = {
	.spans = source_spans,
	.run = source_run,
	.resolve = source_resolve,
	.patience = source_patience,
};

static void begin_heap(unsigned i)
{
	struct fixture *f = &heaps[i].fix;
	struct lane *lane;
	uint64_t ptr[64];

	if (i == 0)
		fixture_init(f, UNITS, 16);
	else
		fixture_init_power(f, UNITS, 64, NULL);
	fix = f;
	fuzz_must(lane_new(&lane, &f->heap, 1, &source, NULL) == 0, "no memory");
	for (unsigned k = 0; k < 64; k++)
		ptr[k] = lane_alloc(lane, (size_t)16 << k % 12);
	for (unsigned k = 0; k < 64; k += 3)
		fuzz_must(ptr[k] == 0 || lane_dealloc(lane, ptr[k]) == 0, "a block cannot be freed");
	lane_forget(lane);
	grant_free(f->grant);
	f->grant = NULL;
	heaps[i].whole = malloc(f->mapping_len);
	fuzz_must(heaps[i].whole, "no memory");
	memcpy(heaps[i].whole, f->mapping, f->mapping_len);
}

void fuzz_begin(void)
{
	begin_heap(0);
	begin_heap(1);
}

void fuzz_end(void)
{
	printf("%llu loads, %llu refused; %llu allocs, %llu frees, %llu publishes, %llu findings\n", loads, refusals,
	       allocs, frees, publishes, findings);
	for (unsigned i = 0; i < 2; i++) {
		fixture_deinit(&heaps[i].fix);
		free(heaps[i].whole);
	}
}

/* Changes */

static uint64_t odd_word(struct choice *c)
{
	switch (choose(c, 6)) {
	case 0:
		return UINT64_C(1) << 63 | choose(c, 2 * UNITS); /* a ref */
	case 1:
		return UINT64_C(1) << 63 | UINT64_C(1) << 40 | choose(c, 8); /* an owner */
	case 2:
		return blocks[choose(c, BLOCKS)];
	case 3:
		return choose_bytes(c, 8);
	default:
		return choose_number(c);
	}
}

static void unload(void)
{
	limbo_free(limbo);
	limbo = NULL;
	grant_free(fix->grant);
	fix->grant = NULL;
}

static void note_change(const void *at, size_t size)
{
	const char *from = at;

	changed = true;
	if (!DEBUG_CHECKS)
		return;
	for (unsigned i = 0; i < 2; i++) {
		const char *table = (const char *)fix->shelf[i].table;

		if (from < table + table_file_size(UNITS) && from + size > table)
			unload();
	}
}

static void change(struct choice *c)
{
	size_t words = fix->mapping_len / sizeof(uint64_t);
	size_t lane0 = ((char *)fix->heap.lanes->lane - (char *)fix->mapping) / sizeof(uint64_t);
	size_t at = choose(c, 2) ? lane0 + FIRST_LANE * 512 + choose(c, LANES * 512) : choose_bytes(c, 3);
	uint64_t *word = (uint64_t *)fix->mapping + at % words;

	note_change(word, sizeof(*word));
	switch (choose(c, 4)) {
	case 0:
		*word ^= UINT64_C(1) << choose(c, 64);
		break;
	case 1:
		*word += choose(c, 2) ? 1 : UINT64_MAX;
		break;
	default:
		*word = odd_word(c);
		break;
	}
}

/* Of another word of the same kind: a record, a line, a page. */
static void copy(struct choice *c)
{
	static const size_t sizes[] = { 8, 64, 448, 4096 };
	size_t size = sizes[choose(c, 4)], n = fix->mapping_len / size;
	size_t from = choose(c, n) % n, to = choose(c, n) % n;

	note_change((char *)fix->mapping + to * size, size);
	memmove((char *)fix->mapping + to * size, (char *)fix->mapping + from * size, size);
}

/* The daemon */

static bool alive(void *ctx, uint32_t lane)
{
	(void)ctx;
	return lane >= FIRST_LANE && lane < FIRST_LANE + LANES && lanes[lane - FIRST_LANE];
}

static void load(struct choice *c)
{
	struct grant_lanes of = { .alive = alive, .count = FIXTURE_LANES, .words = &fix->words };
	unsigned how = choose(c, 4);
	const char *why = "";
	uint64_t where = 0;

	unload();
	of.power_cut = how == 3;
	of.no_readers = how >= 2;
	if (grant_new(&fix->grant, &fix->heap, &of, &why, &where) < 0) {
		fix->grant = NULL;
		refusals++;
		return;
	}
	loads++;
	fuzz_must(limbo_new(&limbo, &fix->heap) == 0, "no memory");
}

static void settle(struct choice *c)
{
	uint32_t list[LANES + 2];
	uint32_t n = 1 + choose(c, LANES + 1);

	for (uint32_t i = 0; i < n; i++)
		list[i] = choose(c, FIXTURE_LANES);
	(void)grant_settle_lanes(fix->grant, list, n);
}

static void snapshot(struct choice *c)
{
	struct limbo_tally tally = { 0 };
	uint32_t budget = 1 + choose(c, 256);

	switch (choose(c, 5)) {
	case 0:
		(void)limbo_watch(limbo);
		break;
	case 1:
		(void)limbo_unwatch(limbo);
		break;
	case 2:
		(void)limbo_count(limbo, &budget, &tally);
		break;
	default:
		if (limbo_snapshot(limbo, budget) == 0)
			(void)limbo_release(limbo, budget);
		break;
	}
}

static void grow(void)
{
	if (fix->heap.shelf[1])
		return;
	heap_shelf_add(&fix->heap, 1, &fix->shelf[1]);
	heap_shelf_grow(&fix->heap, &fix->shelf[1], UNITS);
	(void)grant_grow(fix->grant, 1, 0, UNITS);
}

static void look(struct choice *c)
{
	struct heap_totals totals;
	struct heap_cell cells[16];
	const char *why = "";
	uint64_t where = 0;

	memset(&report, 0, sizeof(report));
	switch (choose(c, 4)) {
	case 0:
		(void)heap_count(&fix->heap, &totals);
		break;
	case 1:
		(void)heap_map(&fix->heap, choose(c, UNITS * 2), 1 + choose(c, UNITS), cells, 16);
		break;
	case 2:
		(void)heap_check(&fix->heap, &why, &where);
		break;
	default:
		(void)heap_audit(&fix->heap, choose(c, 2), &report);
		fuzz_must(report.n_findings <= CHECK_FINDINGS, "more findings than there is room for");
		findings += report.n_findings;
		break;
	}
}

/* A repair leaves nothing that a second one would change. Lanes are gone before, as the daemon has it. */
static void repair(struct choice *c)
{
	for (unsigned i = 0; i < LANES; i++) {
		if (lanes[i])
			lane_forget(lanes[i]);
		lanes[i] = NULL;
	}
	unload();
	memset(&report, 0, sizeof(report));
	(void)heap_repair(&fix->heap, &report);
	memset(&report, 0, sizeof(report));
	fuzz_must(heap_repair(&fix->heap, &report) == 0, "a second repair finds more: %s at 0x%llx",
		  report.n_findings ? report.finding[0].what : "", (unsigned long long)report.finding[0].offset);
	load(c);
	fuzz_must(fix->grant, "a repaired heap is refused");
	changed = false;
}

static void daemon_step(struct choice *c)
{
	uint64_t refs[GRANT_SPANS_MAX], holder;

	if (!fix->grant) {
		load(c);
		return;
	}
	switch (choose(c, 12)) {
	case 0:
	case 1:
		(void)grant_spans(fix->grant, choose(c, CLASS_COUNT + 2), 1 + choose(c, GRANT_SPANS_MAX), refs);
		break;
	case 2:
		(void)grant_run(fix->grant, choose_number(c), UINT64_C(1) << choose(c, 9), refs);
		break;
	case 3:
	case 4:
		settle(c);
		break;
	case 5:
	case 6:
		snapshot(c);
		break;
	case 7:
		(void)grant_trim(fix->grant);
		break;
	case 8:
		load(c);
		break;
	case 9:
		grow();
		break;
	case 10:
		(void)grant_lane_holder(fix->grant, choose(c, FIXTURE_LANES), &holder);
		break;
	default:
		repair(c);
		break;
	}
}

/* The library */

static void new_lane(struct choice *c, unsigned i)
{
	if (lanes[i]) {
		switch (choose(c, 4)) {
		case 0:
			lane_free(lanes[i]);
			lanes[i] = NULL;
			break;
		case 1:
			lane_release(lanes[i]);
			break;
		default: /* it dies */
			lane_forget(lanes[i]);
			lanes[i] = NULL;
			break;
		}
		return;
	}
	/* As the daemon gives it: settled. */
	if (fix->grant && grant_settle(fix->grant, FIRST_LANE + i) == 0)
		fuzz_must(lane_new(&lanes[i], &fix->heap, FIRST_LANE + i, &source, NULL) == 0, "no memory");
}

static void publish(struct lane *lane, struct choice *c)
{
	struct publish_action action[4];
	static m64 word[4];
	uint64_t watch;
	size_t bad, n = 1 + choose(c, 4);
	bool wake;

	for (size_t i = 0; i < n; i++)
		action[i] = (struct publish_action){ .kind = (enum log_kind)(1 + choose(c, 3)),
						     .where = blocks[choose(c, BLOCKS)] + choose(c, 2) * choose(c, 256),
						     .value = choose_number(c),
						     .word = &word[i] };
	publishes += lane_publish(lane, reserved, action, n, &bad, &wake, &watch) == 0;
}

static void lane_step(struct choice *c)
{
	unsigned i = choose(c, LANES);
	struct lane *lane = lanes[i];
	uint64_t *block = &blocks[choose(c, BLOCKS)], ptr = 0, watch;
	size_t size = choose(c, 2) ? (size_t)choose_number(c) : 1 + choose(c, 4096);
	bool wake;

	if (!lane || choose(c, 16) == 15) {
		new_lane(c, i);
		return;
	}
	switch (choose(c, 8)) {
	case 0:
	case 1:
		ptr = lane_alloc(lane, size);
		break;
	case 2:
		ptr = lane_alloc_aligned(lane, (size_t)1 << choose(c, 22), size);
		break;
	case 3:
		frees += lane_dealloc_unreserved(lane, reserved, *block + choose(c, 16) % 3 * 8) == 0;
		break;
	case 4:
		(void)lane_defer_unreserved(lane, reserved, *block, &wake, &watch);
		lane_deferred(lane);
		break;
	case 5:
		(void)lane_reserve(lane, reserved, size, &ptr);
		break;
	case 6:
		(void)lane_cancel(lane, reserved, *block, &wake, &watch);
		break;
	default:
		publish(lane, c);
		break;
	}
	if (ptr != 0) {
		allocs++;
		*block = ptr;
	}
}

static void end_input(void)
{
	for (unsigned i = 0; i < LANES; i++) {
		if (lanes[i])
			lane_forget(lanes[i]);
		lanes[i] = NULL;
	}
	reservations_free(reserved);
	unload();
	fix->heap.shelf[1] = NULL;
	fix->heap.bytes = UNITS << UNIT_SHIFT;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct choice c = choice_of(data, len);
	unsigned which = choose(&c, 2), how;

	fix = &heaps[which].fix;
	memcpy(fix->mapping, heaps[which].whole, fix->mapping_len);
	memset(blocks, 0, sizeof(blocks));
	changed = false;
	fuzz_must(reservations_new(&reserved) == 0, "no memory");
	for (unsigned i = 0; i < STEPS && !choice_done(&c); i++) {
		how = choose(&c, 8);
		if (how < 2)
			change(&c);
		else if (how == 2 && choose(&c, 4) == 0)
			copy(&c);
		else if (how < 5)
			daemon_step(&c);
		else if (how == 5)
			look(&c);
		else if (!DEBUG_CHECKS || !changed)
			lane_step(&c);
	}
	end_input();
	return 0;
}
