/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The fixture of heap_fixture.h. Metadata stands in one MAP_SHARED mapping, so that a test can kill a
 * child in the middle of an operation and look at what it left.
 */
#include "tests/unit/heap_fixture.h"

#include <check.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "common/macro.h"

static void *map_shared(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(p, MAP_FAILED);
	return p;
}

static bool lane_alive(void *ctx, uint32_t lane)
{
	struct fixture *f = ctx;

	return f->alive[lane];
}

static int word_map(void *ctx, uint64_t place, m64 **ret)
{
	*ret = fixture_at(ctx, place);
	return 0;
}

static void words_done(void *ctx)
{
	(void)ctx;
}

static void make_grant(struct fixture *f, bool power_cut)
{
	struct grant_lanes lanes = { .alive = lane_alive, .ctx = f, .count = FIXTURE_LANES,
				     .power_cut = power_cut, .no_readers = power_cut,
				     .words = &f->words };
	const char *why = "";
	uint64_t where = 0;
	int r = grant_new(&f->grant, &f->heap, &lanes, &why, &where);

	ck_assert_msg(r == 0, "grant_new: %d %s at %llx", r, why, (unsigned long long)where);
}

static void init(struct fixture *f, uint64_t units, uint32_t min_block, enum durability durability,
		 void (*watch)(void *metadata, size_t len))
{
	size_t table = table_file_size(units), state, lanes = lanes_file_size(FIXTURE_LANES);
	char *at;

	memset(f, 0, sizeof(*f));
	ck_assert_int_eq(heap_init(&f->heap, 7, 1, durability, min_block), 0);
	state = state_file_size(&f->heap.layout, units, units);
	f->mapping_len = 2 * (table + state) + lanes;
	f->mapping = at = map_shared(f->mapping_len);
	if (watch)
		watch(f->mapping, f->mapping_len);
	for (int i = 0; i < 2; i++) {
		heap_shelf_init(&f->shelf[i], at, at + table, 0, units, false);
		at += table + state;
		f->memory[i] = map_shared(units << UNIT_SHIFT);
	}
	f->heap.lanes = (struct lanes_file_df *)(void *)at;
	f->words = (struct grant_words){ .map = word_map, .done = words_done, .ctx = f };
	pthread_mutex_init(&f->lock, NULL);
	heap_shelf_add(&f->heap, 0, &f->shelf[0]);
	make_grant(f, false);
	heap_shelf_grow(&f->heap, &f->shelf[0], units);
	ck_assert_int_eq(grant_grow(f->grant, 0, 0, units), 0);
}

void fixture_init(struct fixture *f, uint64_t units, uint32_t min_block)
{
	init(f, units, min_block, DURABILITY_PROCESS, NULL);
}

void fixture_init_power(struct fixture *f, uint64_t units, uint32_t min_block,
			void (*watch)(void *metadata, size_t len))
{
	init(f, units, min_block, DURABILITY_POWER, watch);
}

void fixture_deinit(struct fixture *f)
{
	grant_free(f->grant);
	for (int i = 0; i < 2; i++)
		munmap(f->memory[i], f->shelf[i].limit << UNIT_SHIFT);
	munmap(f->mapping, f->mapping_len);
	pthread_mutex_destroy(&f->lock);
}

void fixture_second_shelf(struct fixture *f, uint64_t units)
{
	heap_shelf_add(&f->heap, 1, &f->shelf[1]);
	heap_shelf_grow(&f->heap, &f->shelf[1], units);
	ck_assert_int_eq(grant_grow(f->grant, 1, 0, units), 0);
}

void fixture_reload(struct fixture *f)
{
	grant_free(f->grant);
	make_grant(f, false);
}

void fixture_reload_cut(struct fixture *f)
{
	memset(f->alive, 0, sizeof(f->alive));
	grant_free(f->grant);
	make_grant(f, true);
}

static int source_spans(void *ctx, unsigned class, uint32_t want, uint64_t *refs)
{
	struct fixture *f = ctx;
	int r;

	pthread_mutex_lock(&f->lock);
	f->calls++;
	r = f->away ? -ENOSPC : grant_spans(f->grant, class, want, refs);
	pthread_mutex_unlock(&f->lock);
	return r;
}

static int source_run(void *ctx, uint64_t units, uint64_t align, uint64_t *ref)
{
	struct fixture *f = ctx;
	int r;

	pthread_mutex_lock(&f->lock);
	f->calls++;
	r = f->away ? -ENOSPC : grant_run(f->grant, units, align, ref);
	pthread_mutex_unlock(&f->lock);
	return r;
}

static int source_resolve(void *ctx, uint64_t ref)
{
	(void)ctx;
	(void)ref;
	return -ENXIO;
}

static const struct lane_source source = {
	.spans = source_spans,
	.run = source_run,
	.resolve = source_resolve,
};

struct lane *fixture_lane(struct fixture *f, uint32_t number)
{
	struct lane *lane = NULL;

	ck_assert_int_eq(lane_new(&lane, &f->heap, number, &source, f), 0);
	f->alive[number] = true;
	return lane;
}

void *fixture_at(struct fixture *f, uint64_t ptr)
{
	return f->memory[(ptr >> 40) & 255] + (ptr & ((UINT64_C(1) << 40) - 1));
}

void fixture_check(struct fixture *f)
{
	const char *why = "";
	uint64_t where = 0;
	int n = heap_check(&f->heap, &why, &where);

	ck_assert_msg(n == 0, "%d violations, first at %llx: %s", n, (unsigned long long)where, why);
}

void fixture_expect_used(struct fixture *f, uint64_t used)
{
	struct heap_totals t;

	ck_assert_int_eq(heap_count(&f->heap, &t), 0);
	ck_assert_uint_eq(t.used, used);
}
