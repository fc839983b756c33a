/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Built with NVMM_MEDIA_POINTS: each store, flush and drain must be seen, before it takes effect.
 */
#include "media/store.h"

#include <string.h>

#include "common/macro.h"
#include "tests/unit/tempdir.h"

struct seen {
	enum media_point kind;
	const void *addr;
	size_t len;
	uint64_t before; /* what stood there at that moment */
};

static struct seen seen[64];
static size_t n_seen, n_flushes, n_drains;

static void observe(enum media_point kind, const void *addr, size_t len)
{
	ck_assert_uint_lt(n_seen, ARRAY_SIZE(seen));
	seen[n_seen] = (struct seen){ .kind = kind, .addr = addr, .len = len };
	if (addr)
		memcpy(&seen[n_seen].before, addr, MIN(len, sizeof(uint64_t)));
	n_seen++;
}

static void count_flush(const void *addr, size_t len)
{
	n_flushes++;
}

static void count_drain(void)
{
	n_drains++;
}

static const struct media_backend observer = {
	.flush = count_flush,
	.drain = count_drain,
	.point = observe,
};

static void expect(enum media_point kind, const void *addr, size_t len, uint64_t before)
{
	ck_assert_uint_eq(n_seen, 1);
	ck_assert_int_eq(seen[0].kind, kind);
	ck_assert_ptr_eq(seen[0].addr, addr);
	ck_assert_uint_eq(seen[0].len, len);
	ck_assert_uint_eq(seen[0].before, before);
	n_seen = 0;
}

#define EXPECT_STORE(p, old, new)                                            \
	do {                                                                 \
		expect(MEDIA_POINT_STORE, p, sizeof(*(p)), old);             \
		ck_assert_uint_eq((p)->raw, new);                            \
	} while (0)

/* Bytes that stand for media: an object with a const member may not be changed. */
static uint64_t media[16];

START_TEST(typed_stores)
{
	m8 *p8 = (void *)&media[0];
	m16 *p16 = (void *)&media[1];
	m32 *p32 = (void *)&media[2];
	m64 *p64 = (void *)&media[3];

	media_backend = &observer;
	media_store8(p8, 0x12);
	EXPECT_STORE(p8, 0, 0x12);
	media_store16(p16, 0x1234);
	EXPECT_STORE(p16, 0, 0x1234);
	media_store32(p32, 0x12345678);
	EXPECT_STORE(p32, 0, 0x12345678);
	media_store64(p64, UINT64_C(0x123456789abcdef0));
	EXPECT_STORE(p64, 0, UINT64_C(0x123456789abcdef0));
	media_store_release(p64, 5);
	EXPECT_STORE(p64, UINT64_C(0x123456789abcdef0), 5);
	ck_assert_uint_eq(media_load8(p8), 0x12);
	ck_assert_uint_eq(media_load16(p16), 0x1234);
	ck_assert_uint_eq(media_load32(p32), 0x12345678);
	ck_assert_uint_eq(media_load64(p64), 5);
	ck_assert_uint_eq(media_load_acquire(p64), 5);
	ck_assert_uint_eq(n_seen, 0);
}
END_TEST

START_TEST(read_modify_write)
{
	m64 *p = (void *)&media[0];

	media_backend = &observer;
	ck_assert(media_cas(p, 0, 5));
	EXPECT_STORE(p, 0, 5);
	ck_assert(!media_cas(p, 0, 6));
	EXPECT_STORE(p, 5, 5);
	ck_assert_uint_eq(media_swap(p, 0x0f), 5);
	EXPECT_STORE(p, 5, 0x0f);
	ck_assert_uint_eq(media_or(p, 0xf0), 0x0f);
	EXPECT_STORE(p, 0x0f, 0xff);
	ck_assert_uint_eq(media_and(p, 0x3c), 0xff);
	EXPECT_STORE(p, 0xff, 0x3c);
}
END_TEST

START_TEST(copies_are_a_point_a_word)
{
	uint64_t from[4] = { 1, 2, 3, 4 };

	media_backend = &observer;
	media_copy(&media[1], from, sizeof(from));
	ck_assert_uint_eq(n_seen, 4);
	for (size_t i = 0; i < 4; i++) {
		ck_assert_ptr_eq(seen[i].addr, &media[1 + i]);
		ck_assert_uint_eq(seen[i].before, 0);
	}
	ck_assert_mem_eq(&media[1], from, sizeof(from));
	n_seen = 0;
	media_zero(&media[2], 16);
	ck_assert_uint_eq(n_seen, 2);
	ck_assert_uint_eq(seen[1].before, 3);
	ck_assert_uint_eq(media[1], 1);
	ck_assert_uint_eq(media[2] | media[3], 0);
	ck_assert_uint_eq(media[4], 4);
	ck_assert_uint_eq(media[0] | media[5], 0);
}
END_TEST

START_TEST(flush_and_drain)
{
	media_backend = &observer;
	media_persist(DURABILITY_PROCESS, media, 8);
	ck_assert_uint_eq(n_seen + n_flushes + n_drains, 0);
	ck_assert_int_eq(media_sync(DURABILITY_PROCESS, media, 8), 0);
	ck_assert_uint_eq(n_seen + n_flushes + n_drains, 0);
	media_flush(DURABILITY_POWER, media, 8);
	expect(MEDIA_POINT_FLUSH, media, 8, 0);
	ck_assert_uint_eq(n_flushes, 1);
	media_drain(DURABILITY_POWER);
	expect(MEDIA_POINT_DRAIN, NULL, 0, 0);
	ck_assert_uint_eq(n_drains, 1);
	ck_assert_int_eq(media_sync(DURABILITY_POWER, media, 8), 0);
	ck_assert_uint_eq(n_seen, 2);
	ck_assert_uint_eq(n_flushes, 2);
	ck_assert_uint_eq(n_drains, 2);
	n_seen = 0;
	/* static memory is a private mapping: msync has nothing to do, and says so */
	ck_assert_int_eq(media_sync(DURABILITY_SYNC, media, 8), 0);
	expect(MEDIA_POINT_FLUSH, media, 8, 0);
	ck_assert_uint_eq(n_flushes + n_drains, 4);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("store");
	TCase *tc = tcase_create("store");

	tcase_add_test(tc, typed_stores);
	tcase_add_test(tc, read_modify_write);
	tcase_add_test(tc, copies_are_a_point_a_word);
	tcase_add_test(tc, flush_and_drain);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
