/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The fixture of sparse_fixture.h. The files are memfds, which behave as files of a tmpfs do: a read of a
 * hole through a mapping takes a page, so that their size tells who touched what was not reserved.
 */
#include "tests/unit/sparse_fixture.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/macro.h"
#include "media/backing.h"
#include "media/check.h"
#include "media/file.h"

static bool lane_alive(void *ctx, uint32_t lane)
{
	struct sparse *s = ctx;

	return lane == 0 && s->alive;
}

static bool allow(void *ctx, uint64_t bytes)
{
	struct sparse *s = ctx;

	if (bytes > s->allowed)
		return false;
	s->allowed -= bytes;
	return true;
}

static int file_of(const char *name, uint64_t reserved, uint64_t size, void **map)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(file_reserve(fd, 0, reserved), 0);
	ck_assert_int_eq(file_lengthen(fd, size), 0);
	ck_assert_int_eq(file_map(map, fd, size, size, true), 0);
	return fd;
}

static void make_grant(struct sparse *s)
{
	struct grant_lanes lanes = { .alive = lane_alive, .ctx = s, .count = SPARSE_LANES };
	const char *why = "";
	uint64_t where = 0;
	int fds[3], r;

	for (int i = 0; i < 3; i++)
		fds[i] = fcntl(s->fd[i], F_DUPFD_CLOEXEC, 0);
	ck_assert_int_eq(backing_new(&s->shelf.backing, &s->heap, &s->shelf, fds), 0);
	r = grant_new(&s->grant, &s->heap, &lanes, &why, &where);
	ck_assert_msg(r == 0, "grant_new: %d %s", r, why);
	grant_allow_set(s->grant, allow, s);
}

static int source_spans(void *ctx, unsigned class, uint32_t want, uint64_t *refs)
{
	struct sparse *s = ctx;

	return grant_spans(s->grant, class, want, refs);
}

static int source_run(void *ctx, uint64_t units, uint64_t align, uint64_t *ref)
{
	struct sparse *s = ctx;
	struct grant_wish wish;
	int r;

	while ((r = grant_run(s->grant, units, align, ref)) == -EINPROGRESS) {
		ck_assert(grant_wished(s->grant, &wish));
		grant_wish_begin(s->grant, &wish);
		grant_wish_run(&wish);
		grant_wish_end(s->grant, &wish);
		s->wishes++;
	}
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

void sparse_init(struct sparse *s, uint64_t units, uint64_t limit)
{
	uint64_t table = sparse_table_size(limit), state;
	uint64_t words = table_file_size(limit);
	void *memory;
	*s = (struct sparse){ .limit = limit, .allowed = UINT64_MAX, .alive = true };
	ck_assert_int_eq(heap_init(&s->heap, 7, 1, DURABILITY_PROCESS, 16), 0);
	state = state_file_size(&s->heap.layout, limit, limit);
	s->fd[0] = file_of("shelf", 0, limit << UNIT_SHIFT, &memory);
	s->memory = memory;
	s->fd[1] = file_of("table", MEDIA_PAGE, table, &s->table);
	ck_assert_int_eq(file_reserve(s->fd[1], words, table), 0);
	s->fd[2] = file_of("state", MEDIA_PAGE, state, &s->state);
	s->lanes = mmap(NULL, lanes_file_size(SPARSE_LANES), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(s->lanes, MAP_FAILED);
	s->heap.lanes = s->lanes;
	heap_shelf_init(&s->shelf, s->table, s->state, 0, limit, true);
	heap_shelf_add(&s->heap, 0, &s->shelf);
	make_grant(s);
	heap_shelf_grow(&s->heap, &s->shelf, units);
	ck_assert_int_eq(grant_grow(s->grant, 0, 0, units), 0);
	ck_assert_int_eq(lane_new(&s->lane, &s->heap, 0, &source, s), 0);
}

void sparse_reload(struct sparse *s, bool lane_gone)
{
	grant_free(s->grant);
	backing_free(s->shelf.backing);
	if (lane_gone) {
		s->alive = false;
		/* Its thread died, maybe as another process that this memory knows nothing of. */
		lane_forget(s->lane);
	}
	make_grant(s);
	if (lane_gone) {
		s->alive = true;
		ck_assert_int_eq(lane_new(&s->lane, &s->heap, 0, &source, s), 0);
	}
}

void sparse_deinit(struct sparse *s)
{
	lane_free(s->lane);
	grant_free(s->grant);
	backing_free(s->shelf.backing);
	file_unmap(s->memory, s->limit << UNIT_SHIFT);
	file_unmap(s->table, sparse_table_size(s->limit));
	file_unmap(s->state, state_file_size(&s->heap.layout, s->limit, s->limit));
	munmap(s->lanes, lanes_file_size(SPARSE_LANES));
	for (int i = 0; i < 3; i++)
		close(s->fd[i]);
}

void *sparse_at(struct sparse *s, uint64_t ptr)
{
	return s->memory + (ptr & ((UINT64_C(1) << 40) - 1));
}

uint64_t sparse_alloc(struct sparse *s, uint64_t size)
{
	uint64_t ptr = lane_alloc(s->lane, size);

	for (uint64_t at = 0; ptr != 0 && at < size; at += MEDIA_PAGE)
		((char *)sparse_at(s, ptr))[at] = 1;
	return ptr;
}

static uint64_t held(int fd)
{
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

uint64_t sparse_data(const struct sparse *s)
{
	return held(s->fd[0]);
}

uint64_t sparse_meta(const struct sparse *s)
{
	return held(s->fd[1]) + held(s->fd[2]);
}

uint64_t sparse_trim(struct sparse *s)
{
	struct grant_place place = { 0 };
	uint64_t bytes = 0;
	int64_t r;

	ck_assert_int_ge(grant_trim(s->grant), 0);
	while (!place.whole) {
		r = grant_space_return(s->grant, &place, UINT64_C(1) << 20);
		ck_assert_int_ge(r, 0);
		bytes += (uint64_t)r;
	}
	return bytes;
}

/* Asserts that a range of a file is reserved: doing it again takes nothing. */
static void expect_there(int fd, uint64_t from, uint64_t to, const char *what)
{
	uint64_t before = held(fd);

	ck_assert_int_eq(file_reserve(fd, from, to), 0);
	ck_assert_msg(held(fd) == before, "%s at %llx is a hole", what, (unsigned long long)from);
}

static void expect_unit(struct sparse *s, uint64_t unit)
{
	uint64_t stride = s->heap.layout.stride, records = state_records_offset(s->limit);
	uint64_t word = MEDIA_PAGE + unit * sizeof(m64), hint = MEDIA_PAGE + unit / 8;
	uint64_t limbo = limbo_hints_offset(s->limit) + unit / 8, record = records + unit * stride;

	expect_there(s->fd[1], word, word + 1, "a span word");
	expect_there(s->fd[2], hint, hint + 1, "a hint");
	expect_there(s->fd[2], limbo, limbo + 1, "a limbo hint");
	expect_there(s->fd[2], record, record + stride, "a state record");
}

/* Whatever the table leads to is reserved. */
static void expect_reserved(struct sparse *s)
{
	for (uint64_t unit = 0; unit < s->shelf.units;) {
		struct span span = span_unpack(shelf_word(&s->shelf, unit));
		uint64_t end = unit + span.length;

		ck_assert_uint_gt(span.length, 0);
		expect_unit(s, unit);
		if (span.kind != SPAN_FREE)
			expect_there(s->fd[0], unit << UNIT_SHIFT, end << UNIT_SHIFT, "a block");
		unit = end;
	}
}

/* Of metadata nothing else is: nobody touched a hole. */
static void expect_holes(const struct sparse *s)
{
	uint64_t granules = shelf_hint_words(&s->shelf, DIV_UP(s->limit, 64)) / 8;
	uint64_t fixed = 2 * MEDIA_PAGE + sparse_table_size(s->limit) - table_file_size(s->limit);
	uint64_t each = MEDIA_PAGE + GRANULE_UNITS * s->heap.layout.stride;

	/* Two pages of hints serve 64 granules, which may be anywhere. */
	ck_assert_uint_le(sparse_meta(s), fixed + (granules + s->torn) * (each + 2 * MEDIA_PAGE));
	ck_assert_uint_ge(sparse_meta(s), fixed + granules * each);
}

void sparse_check(struct sparse *s)
{
	expect_reserved(s);
	expect_holes(s);
	const char *why = "";
	uint64_t where = 0;
	int n = heap_check(&s->heap, &why, &where);

	ck_assert_msg(n == 0, "%d violations, first at %llx: %s", n, (unsigned long long)where, why);
}
