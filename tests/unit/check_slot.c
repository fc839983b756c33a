/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Built with NVMM_MEDIA_POINTS: slot_put() is stopped at each of its points, and the power is cut
 * there, with what was not drained kept or dropped word by word.
 */
#include "media/slot.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include "common/macro.h"
#include "tests/unit/tempdir.h"

#define SIZE 64u
#define WORDS (2 * SIZE / 8)
#define LINE_WORDS 8u
#define IMAGES 64

/* The pair of slots. */
static uint64_t media[WORDS] __attribute__((aligned(64)));

static uint64_t random_state = 88172645463325252u;

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* A record whose every byte tells its number. */
static void record_make(uint64_t record[SIZE / 8], unsigned number)
{
	memset(record, (int)number, SIZE);
}

static int put(enum durability d, unsigned number)
{
	uint64_t record[SIZE / 8];

	record_make(record, number);
	return slot_put(d, media, record, SIZE);
}

/* The number of the record there is; 0: blank; -EUCLEAN: rotten. Fails on a mixed one. */
static int get(void)
{
	uint64_t record[SIZE / 8], whole[SIZE / 8];
	enum slot_state state = slot_read(record, media, SIZE);
	const void *current = slot_current(media, SIZE);

	ck_assert_int_eq(slot_find(media, SIZE), state);
	if (state == SLOT_BLANK || state == SLOT_ROTTEN) {
		ck_assert_ptr_null(current);
		return state == SLOT_BLANK ? 0 : -EUCLEAN;
	}
	ck_assert_ptr_eq(current, (char *)media + (state == SLOT_SECOND ? SIZE : 0));
	ck_assert_mem_eq(current, record, SIZE);
	record_make(whole, ((uint8_t *)record)[SIZE - 1]);
	ck_assert_mem_eq(record + 2, whole + 2, SIZE - 16);
	return ((uint8_t *)record)[SIZE - 1];
}

/* The world: what of `media` is durable, and what a power cut may leave of each word. */

static uint64_t durable[WORDS];
static uint64_t stored[WORDS][8]; /* values since the durable one */
static unsigned n_stored[WORDS], n_flushed[WORDS];
static unsigned stop_at, points;
static jmp_buf stopped;

static void world_flush(const void *addr, size_t len)
{
	size_t from = (size_t)((const char *)addr - (const char *)media) / 8;
	size_t to = from + DIV_UP(len, 8u);

	from -= from % LINE_WORDS;
	to = ALIGN_UP(to, (size_t)LINE_WORDS);
	for (size_t i = from; i < to; i++) {
		/* what was stored since the last look is in `media` */
		n_flushed[i] = n_stored[i];
	}
}

/* Takes over stores that have happened since the last point. */
static void world_catch_up(void)
{
	for (size_t i = 0; i < WORDS; i++) {
		uint64_t last = n_stored[i] ? stored[i][n_stored[i] - 1] : durable[i];

		if (media[i] == last)
			continue;
		ck_assert_uint_lt(n_stored[i], 8);
		stored[i][n_stored[i]++] = media[i];
	}
}

static void world_drain(void)
{
	for (size_t i = 0; i < WORDS; i++) {
		unsigned n = n_flushed[i];

		if (n == 0)
			continue;
		durable[i] = stored[i][n - 1];
		memmove(stored[i], stored[i] + n, (n_stored[i] - n) * sizeof(stored[i][0]));
		n_stored[i] -= n;
		n_flushed[i] = 0;
	}
}

static void world_point(enum media_point kind, const void *addr, size_t len)
{
	world_catch_up();
	if (points++ == stop_at)
		longjmp(stopped, 1);
}

static const struct media_backend world = {
	.flush = world_flush,
	.drain = world_drain,
	.point = world_point,
};

static void world_start(void)
{
	media_backend = &world;
	memcpy(durable, media, sizeof(media));
	memset(n_stored, 0, sizeof(n_stored));
	memset(n_flushed, 0, sizeof(n_flushed));
}

/* Leaves of each word what is durable or any value stored since. */
static void world_cut(void)
{
	for (size_t i = 0; i < WORDS; i++) {
		unsigned n = (unsigned)(random_next() % (n_stored[i] + 1));

		media[i] = n == 0 ? durable[i] : stored[i][n - 1];
	}
}

/* Puts `number` and stops at point k. Whether it came to its end before. */
static bool put_stopped(enum durability d, unsigned number, unsigned k)
{
	points = 0;
	stop_at = k;
	if (setjmp(stopped) != 0)
		return false;
	ck_assert_int_eq(put(d, number), 0);
	world_catch_up();
	return true;
}

/* Puts 1..n on blank slots. */
static void prepare(unsigned n)
{
	media_backend = &media_backend_pmem;
	memset(media, 0, sizeof(media));
	for (unsigned i = 1; i <= n; i++)
		ck_assert_int_eq(put(DURABILITY_PROCESS, i), 0);
	ck_assert_int_eq(get(), (int)n);
}

START_TEST(put_and_read)
{
	for (unsigned i = 0; i < 5; i++)
		prepare(i);
	ck_assert_int_eq(slot_find(media, SIZE), SLOT_SECOND);
	ck_assert_int_eq(put(DURABILITY_PROCESS, 99), 0);
	ck_assert_int_eq(slot_find(media, SIZE), SLOT_FIRST);
	ck_assert_int_eq(get(), 99);
}
END_TEST

/* Makes the slot there is the one with this sequence number, CRC right. */
static void renumber(uint64_t slot[SIZE / 8], uint32_t sequence)
{
	slot[0] = SLOT_COMMIT | sequence;
	slot[1] = 0;
	slot[1] = crc32(0, (const Bytef *)slot, SIZE);
}

START_TEST(sequence_wraps)
{
	prepare(1);
	renumber(media, UINT32_MAX);
	ck_assert_int_eq(get(), 1);
	ck_assert_int_eq(put(DURABILITY_PROCESS, 2), 0);
	ck_assert_uint_eq(media[SIZE / 8], SLOT_COMMIT);
	ck_assert_int_eq(get(), 2);
	ck_assert_int_eq(put(DURABILITY_PROCESS, 3), 0);
	ck_assert_uint_eq(media[0], SLOT_COMMIT | 1);
	ck_assert_int_eq(get(), 3);
}
END_TEST

/* `_i` records were there; slot_put() of the next is killed at each point. */
START_TEST(killed_at_each_point)
{
	unsigned old = (unsigned)_i, new = old + 1, k = 0;
	bool done;

	do {
		prepare(old);
		world_start();
		done = put_stopped(DURABILITY_PROCESS, new, k++);
		ck_assert_int_eq(get(), (int)(done ? new : old));
		stop_at = UINT32_MAX;
		ck_assert_int_eq(put(DURABILITY_PROCESS, 77), 0);
		ck_assert_int_eq(get(), 77);
	} while (!done);
	ck_assert_uint_ge(k, SIZE / 8 + 1);
	printf("slot_put after %u: killed at %u points\n", old, k - 1);
}
END_TEST

/* Whether all that is stored would survive any power cut. */
static bool all_durable(void)
{
	for (size_t i = 0; i < WORDS; i++) {
		if (n_stored[i] > 0)
			return false;
	}
	return true;
}

/* The same with the power cut there: each word not drained is old or new. */
START_TEST(power_cut_at_each_point)
{
	unsigned old = (unsigned)_i, new = old + 1, k = 0, images = 0;
	bool done;
	int now;

	do {
		for (unsigned i = 0; i < IMAGES; i++, images++) {
			prepare(old);
			world_start();
			done = put_stopped(DURABILITY_POWER, new, k);
			if (done)
				ck_assert(all_durable());
			world_cut();
			now = get();
			ck_assert_msg(now == (int)new || (!done && now == (int)old),
				      "point %u: record %d after %u", k, now, old);
		}
		k++;
	} while (!done);
	printf("slot_put after %u: power cut at %u points, %u images\n", old, k - 1, images);
}
END_TEST

/* A kill without a power cut, a second put, and the power cut in that. */
START_TEST(power_cut_after_kill)
{
	unsigned old = (unsigned)_i, k = 0, k2, images = 0;
	bool done, done2;
	int seen, now;

	do {
		k2 = 0;
		do {
			prepare(old);
			world_start();
			done = put_stopped(DURABILITY_POWER, old + 1, k);
			seen = get();
			/* the next writer starts with what the dead one left undrained */
			done2 = put_stopped(DURABILITY_POWER, 77, k2++);
			for (unsigned i = 0; i < 8; i++, images++) {
				world_cut();
				now = get();
				ck_assert_msg(now == 77 || (!done2 && (now == seen ||
								       now == (int)old)),
					      "points %u, %u: record %d", k, k2 - 1, now);
			}
		} while (!done2);
		k++;
	} while (!done);
	printf("slot_put after %u: kill, then power cut: %u images\n", old, images);
}
END_TEST

START_TEST(flipped_bit_is_rot_or_harmless)
{
	unsigned n = (unsigned)_i;
	uint64_t before[WORDS];
	int now;

	prepare(n);
	memcpy(before, media, sizeof(media));
	for (size_t bit = 0; bit < 64 * WORDS; bit++) {
		media[bit / 64] ^= UINT64_C(1) << bit % 64;
		now = get();
		if (n >= 2 || (n == 1 && bit < 8 * SIZE)) {
			ck_assert_int_eq(now, -EUCLEAN);
			ck_assert_int_eq(put(DURABILITY_PROCESS, 99), -EUCLEAN);
		} else {
			/* in a blank slot: only its commit word counts */
			ck_assert_int_eq(now, bit % (8 * SIZE) < 64 ? -EUCLEAN : (int)n);
		}
		media[bit / 64] ^= UINT64_C(1) << bit % 64;
		ck_assert_mem_eq(before, media, sizeof(media));
	}
}
END_TEST

/* Makes two records and spoils slots: bit 0 of `which` the first, bit 1 the second, bit 2 none of them, but the
 * two do not belong together. */
static void prepare_rotten(unsigned which)
{
	uint64_t two[SIZE / 8];

	prepare(2);
	memcpy(two, media + WORDS / 2, SIZE);
	if (which & 4) {
		prepare(5);
		memcpy(media + WORDS / 2, two, SIZE);
	}
	for (unsigned i = 0; i < 2; i++)
		if (which >> i & 1)
			media[i * WORDS / 2 + 3] ^= 0x100;
	ck_assert_int_eq(get(), -EUCLEAN);
}

static bool replace_stopped(enum durability d, unsigned number, unsigned k)
{
	uint64_t record[SIZE / 8];

	points = 0;
	stop_at = k;
	record_make(record, number);
	if (setjmp(stopped) != 0)
		return false;
	ck_assert_int_eq(slot_replace(d, media, record, SIZE), 0);
	world_catch_up();
	return true;
}

/* A rotten record is rotten until it is the new one: killed anywhere, or with the power cut. */
START_TEST(replaced_over_rot)
{
	unsigned which = (unsigned)_i + 1, k = 0;
	uint64_t end[WORDS];
	bool done;
	int now;

	prepare_rotten(which);
	world_start();
	ck_assert(replace_stopped(DURABILITY_POWER, 88, UINT32_MAX));
	ck_assert(all_durable());
	ck_assert_int_eq(get(), 88);
	memcpy(end, media, sizeof(end));
	do {
		for (unsigned i = 0; i < IMAGES; i++) {
			prepare_rotten(which);
			world_start();
			done = replace_stopped(DURABILITY_POWER, 88, k);
			if (i > 0)
				world_cut();
			now = get();
			ck_assert_msg(now == 88 || (!done && now == -EUCLEAN), "point %u: %d", k, now);
			world_start();
			ck_assert(replace_stopped(DURABILITY_POWER, 88, UINT32_MAX));
			ck_assert_int_eq(get(), 88);
			ck_assert(now == 88 || memcmp(media, end, sizeof(end)) == 0);
		}
		k++;
	} while (!done);
	ck_assert_uint_gt(k, SIZE / 8);
}
END_TEST

START_TEST(salvaged)
{
	static const int want[] = { 2, 1, 0, 5 }; /* which slot is rotten: the first, the second, both; none */
	unsigned which = (unsigned)_i + 1;
	uint64_t record[SIZE / 8];
	bool any;

	prepare_rotten(which);
	any = slot_salvage(record, media, SIZE);
	ck_assert_int_eq(any ? ((uint8_t *)record)[SIZE - 1] : 0, want[_i]);
	ck_assert(slot_mend(DURABILITY_PROCESS, media, SIZE));
	ck_assert_int_eq(get(), want[_i]);
	ck_assert(!slot_mend(DURABILITY_PROCESS, media, SIZE));
}
END_TEST

START_TEST(impossible_pairs_are_rotten)
{
	prepare(1);
	memcpy(media + WORDS / 2, media, SIZE);
	ck_assert_int_eq(get(), -EUCLEAN); /* the same record twice */
	prepare(2);
	{
		uint64_t two[SIZE / 8];

		memcpy(two, media + WORDS / 2, SIZE);
		prepare(5);
		memcpy(media + WORDS / 2, two, SIZE);
		ck_assert_int_eq(get(), -EUCLEAN); /* a record that skips others */
	}
}
END_TEST

START_TEST(sizes_are_checked)
{
	uint64_t record[SIZE / 8] = { 0 };

	prepare(0);
	ck_assert_int_eq(slot_put(DURABILITY_PROCESS, media, record, 8), -EINVAL);
	ck_assert_int_eq(slot_put(DURABILITY_PROCESS, media, record, 63), -EINVAL);
	ck_assert_int_eq(slot_put(DURABILITY_PROCESS, media, record, SLOT_SIZE_MAX + 8), -EINVAL);
	ck_assert_int_eq(get(), 0);
}
END_TEST

/* This program's msync(2) fails at its n-th call. */
static int fail_at = -1;

int msync(void *addr, size_t len, int flags)
{
	ck_assert_uint_eq((uintptr_t)addr % (uintptr_t)sysconf(_SC_PAGESIZE), 0);
	if (fail_at-- != 0)
		return 0;
	errno = EIO;
	return -1;
}

START_TEST(failed_medium_leaves_the_old)
{
	unsigned n;

	for (n = 0;; n++) {
		prepare((unsigned)_i);
		fail_at = (int)n;
		if (put(DURABILITY_SYNC, 99) == 0)
			break;
		ck_assert_int_eq(fail_at, -1);
		ck_assert_int_eq(get(), _i);
		ck_assert_int_eq(put(DURABILITY_SYNC, 98), 0);
		ck_assert_int_eq(get(), 98);
	}
	/* the current slot if there is one, the blank word, the body, the commit word */
	ck_assert_uint_eq(n, _i == 0 ? 3 : 4);
	ck_assert_int_eq(get(), 99);
}
END_TEST

static unsigned flushes, drains;

static void count_flush(const void *addr, size_t len)
{
	flushes++;
}

static void count_drain(void)
{
	drains++;
}

static void no_point(enum media_point kind, const void *addr, size_t len)
{
}

START_TEST(golden_counts)
{
	static const struct media_backend counter = {
		.flush = count_flush,
		.drain = count_drain,
		.point = no_point,
	};

	prepare(3);
	media_backend = &counter;
	ck_assert_int_eq(put(DURABILITY_PROCESS, 9), 0);
	ck_assert_uint_eq(flushes + drains, 0);
	/* the current slot, the blank word, the body, the commit word */
	ck_assert_int_eq(put(DURABILITY_POWER, 9), 0);
	ck_assert_uint_eq(flushes, 4);
	ck_assert_uint_eq(drains, 4);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("slot");
	TCase *tc = tcase_create("slot");

	tcase_add_test(tc, put_and_read);
	tcase_add_test(tc, sequence_wraps);
	tcase_add_loop_test(tc, killed_at_each_point, 0, 4);
	tcase_add_loop_test(tc, power_cut_at_each_point, 0, 4);
	tcase_add_loop_test(tc, power_cut_after_kill, 0, 4);
	tcase_add_loop_test(tc, flipped_bit_is_rot_or_harmless, 0, 4);
	tcase_add_test(tc, impossible_pairs_are_rotten);
	tcase_add_loop_test(tc, replaced_over_rot, 0, 4);
	tcase_add_loop_test(tc, salvaged, 0, 4);
	tcase_add_test(tc, sizes_are_checked);
	tcase_add_loop_test(tc, failed_medium_leaves_the_old, 0, 4);
	tcase_add_test(tc, golden_counts);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
