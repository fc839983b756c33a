/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Blocks of every size and alignment, beside a real daemon: aligned ones, those that change their size,
 * zeroed ones, large ones.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "tests/system/harness.h"

#define MIB (UINT64_C(1) << 20)

static struct harness h;
static struct nvmm_client *nvmm;
static struct nvmm_heap *heap;

static void start(void)
{
	nvmm_pool_id id;

	harness_init(&h, NULL);
	harness_start(&h);
	nvmm = harness_connect(&h);
	heap = harness_heap(nvmm, &id, 256 * MIB, NULL, 0);
}

static void stop(void)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };

	ck_assert_int_eq(nvmm_heap_stat(heap, &info), 0);
	ck_assert_uint_eq(info.blocks, 0);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
}

static void fill(nvmm_ptr ptr, size_t size, unsigned char first)
{
	unsigned char *p = nvmm_local(nvmm, ptr);

	for (size_t i = 0; i < size; i++)
		p[i] = (unsigned char)(first + i % 251);
}

static void expect(nvmm_ptr ptr, size_t size, unsigned char first)
{
	const unsigned char *p = nvmm_local(nvmm, ptr);

	for (size_t i = 0; i < size; i++)
		must(p[i] == (unsigned char)(first + i % 251), "byte %zu is %u", i, p[i]);
}

static bool no_limbo(void *arg)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };

	(void)arg;
	ck_assert_int_eq(nvmm_heap_stat(heap, &info), 0);
	return info.limbo == 0;
}

START_TEST(aligned)
{
	static const size_t sizes[] = { 1, 100, 4096, 20000, 200000, 3 * MIB };

	for (size_t align = 1; align <= 2 * MIB; align *= 2)
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			nvmm_ptr ptr = nvmm_alloc_aligned(heap, align, sizes[i]);

			must(ptr != NVMM_NULL, "align %zu: %s", align, nvmm_errmsg(nvmm));
			must((uintptr_t)nvmm_local(nvmm, ptr) % align == 0, "align %zu: %llx", align,
			     (unsigned long long)ptr);
			must(nvmm_usable_size(heap, ptr) >= sizes[i], "size %zu", sizes[i]);
			memset(nvmm_local(nvmm, ptr), 1, sizes[i]);
			must(nvmm_free(heap, ptr) == 0, "%s", nvmm_errmsg(nvmm));
		}
	ck_assert_uint_eq(nvmm_alloc_aligned(heap, 4 * MIB, 1), NVMM_NULL);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_uint_eq(nvmm_alloc_aligned(heap, 24, 1), NVMM_NULL);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_uint_eq(nvmm_alloc_aligned(heap, 64, 0), NVMM_NULL);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_uint_eq(nvmm_alloc_aligned(heap, 2 * MIB, 300 * MIB), NVMM_NULL);
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_str_ne(nvmm_errmsg(nvmm), "");
}
END_TEST

START_TEST(realloc_sizes)
{
	nvmm_ptr ptr = nvmm_realloc(heap, NVMM_NULL, 1), moved;
	size_t old = 1;

	ck_assert_uint_ne(ptr, NVMM_NULL);
	fill(ptr, 1, 1);
	for (size_t size = 2; size < 8 * MIB; size += 1 + size / 5) {
		ptr = nvmm_realloc(heap, ptr, size);
		must(ptr != NVMM_NULL, "%zu: %s", size, nvmm_errmsg(nvmm));
		expect(ptr, old, 1);
		fill(ptr, size, 1);
		old = size;
	}
	for (size_t size = old; size > 1; size -= 1 + size / 5) {
		ptr = nvmm_realloc(heap, ptr, size);
		must(ptr != NVMM_NULL, "%zu: %s", size, nvmm_errmsg(nvmm));
		expect(ptr, size, 1);
		/* No more than a quarter lost, or the smallest block. */
		must(nvmm_usable_size(heap, ptr) <= 16 ||
			     nvmm_usable_size(heap, ptr) * 9 <= size * 16, "%zu", size);
	}
	moved = nvmm_realloc(heap, ptr, 16);
	ck_assert_uint_eq(moved, nvmm_realloc(heap, moved, 9));
	ck_assert_int_eq(nvmm_free(heap, moved), 0);
}
END_TEST

START_TEST(realloc_errors)
{
	nvmm_ptr ptr = nvmm_alloc(heap, 1000);

	fill(ptr, 1000, 3);
	ck_assert_uint_eq(nvmm_realloc(heap, ptr, 0), NVMM_NULL);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_uint_eq(nvmm_realloc(heap, ptr, 300 * MIB), NVMM_NULL);
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_uint_eq(nvmm_realloc(heap, ptr, SIZE_MAX), NVMM_NULL);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_uint_eq(nvmm_realloc(heap, ptr + 16, 10), NVMM_NULL);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_str_ne(nvmm_errmsg(nvmm), "");
	expect(ptr, 1000, 3);
	ck_assert_int_eq(nvmm_free(heap, ptr), 0);
	ck_assert_uint_eq(nvmm_realloc(heap, ptr, 10), NVMM_NULL);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_uint_eq(nvmm_realloc(heap, NVMM_NULL, 0), NVMM_NULL);
	ck_assert_int_eq(errno, EINVAL);
}
END_TEST

START_TEST(realloc_in)
{
	nvmm_ptr root = nvmm_zalloc(heap, 64);
	nvmm_ptr *word = nvmm_local(nvmm, root), before;
	size_t old = 1;

	ck_assert_uint_ne(nvmm_realloc_in(heap, root, 1), NVMM_NULL);
	fill(*word, 1, 1);
	for (size_t size = 2; size < 8 * MIB; size += 1 + size / 5) {
		nvmm_ptr ptr = nvmm_realloc_in(heap, root, size);

		must(ptr != NVMM_NULL && ptr == *word, "%zu: %s", size, nvmm_errmsg(nvmm));
		expect(ptr, old, 1);
		fill(ptr, size, 1);
		old = size;
	}
	ck_assert_uint_ne(nvmm_realloc_in(heap, root, 1000), NVMM_NULL);
	expect(*word, 1000, 1);
	before = *word;
	ck_assert_uint_eq(nvmm_realloc_in(heap, root, 990), before);
	ck_assert_int_eq(nvmm_free(heap, before), 0);
	ck_assert_int_eq(nvmm_free(heap, root), 0);
	harness_until(no_limbo, NULL, 20000);
}
END_TEST

static void expect_refused(nvmm_ptr where, size_t size, int error)
{
	ck_assert_uint_eq(nvmm_realloc_in(heap, where, size), NVMM_NULL);
	ck_assert_int_eq(errno, error);
	ck_assert_str_ne(nvmm_errmsg(nvmm), "");
}

START_TEST(realloc_in_errors)
{
	nvmm_ptr root = nvmm_zalloc(heap, 64), block = nvmm_alloc(heap, 1000);
	nvmm_ptr *word = nvmm_local(nvmm, root);

	fill(block, 1000, 3);
	*word = block;
	expect_refused(root, 0, EINVAL);
	expect_refused(root, SIZE_MAX, EINVAL);
	expect_refused(root, 300 * MIB, ENOSPC);
	expect_refused(root + 1, 5000, EINVAL);
	expect_refused(NVMM_NULL, 5000, EINVAL);
	*word = block + 16;
	expect_refused(root, 5000, EINVAL);
	*word = root;
	expect_refused(root, 5000, EINVAL);
	*word = nvmm_reserve(heap, 1000);
	expect_refused(root, 5000, EBUSY);
	ck_assert_int_eq(nvmm_cancel(heap, *word), 0);
	*word = block;
	expect(block, 1000, 3);
	ck_assert_int_eq(nvmm_free(heap, block), 0);
	expect_refused(root, 5000, EINVAL);
	ck_assert_int_eq(nvmm_free(heap, root), 0);
	expect_refused(root, 5000, EINVAL);
	harness_until(no_limbo, NULL, 20000);
}
END_TEST

struct mover {
	nvmm_pool_id id;
	nvmm_ptr root;
	uint64_t moves; /* atomic */
};

/* Makes its block larger and smaller until it is killed; all bytes of it that are filled are 7. */
static void move_for_ever(void *arg)
{
	struct mover *m = arg;
	struct nvmm_client *mine = harness_connect(&h);
	struct nvmm_heap *opened = harness_open(mine, m->id);

	for (unsigned i = 0;; i++) {
		size_t size = i % 7 == 0 ? 300000 : 100 + i * 997 % 20000;
		nvmm_ptr ptr = nvmm_realloc_in(opened, m->root, size);

		must(ptr != NVMM_NULL, "%zu: %s", size, nvmm_errmsg(mine));
		must(*(char *)nvmm_local(mine, ptr) == 7, "lost at %zu", size);
		memset(nvmm_local(mine, ptr), 7, 100);
		/* ordering: relaxed; a count for the eye. */
		__atomic_fetch_add(&m->moves, 1, __ATOMIC_RELAXED);
	}
}

static bool has_moved(void *arg)
{
	/* ordering: relaxed; as above. */
	return __atomic_load_n(&((struct mover *)arg)->moves, __ATOMIC_RELAXED) > 20;
}

static bool two_blocks(void *arg)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };

	(void)arg;
	ck_assert_int_eq(nvmm_heap_stat(heap, &info), 0);
	return info.limbo == 0 && info.blocks == 2;
}

START_TEST(realloc_in_killed)
{
	struct mover *m = harness_shared(sizeof(*m));
	nvmm_ptr *word;

	m->root = nvmm_zalloc(heap, 64);
	m->id = nvmm_ptr_pool(m->root);
	word = nvmm_local(nvmm, m->root);
	memset(nvmm_local(nvmm, nvmm_realloc_in(heap, m->root, 100)), 7, 100);
	for (unsigned round = 0; round < 40; round++) {
		pid_t pid = harness_fork(move_for_ever, m);

		harness_until(has_moved, m, 20000);
		for (volatile unsigned i = 0; i < round * 977 % 5000; i++)
			;
		kill(pid, SIGKILL);
		ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
		ck_assert_int_eq(nvmm_wait_settled(heap), 0);
		ck_assert_uint_ge(nvmm_usable_size(heap, *word), 100);
		for (unsigned i = 0; i < 100; i++)
			ck_assert_int_eq(((char *)nvmm_local(nvmm, *word))[i], 7);
		harness_until(two_blocks, NULL, 20000);
		m->moves = 0;
	}
	ck_assert_int_eq(nvmm_free(heap, *word), 0);
	ck_assert_int_eq(nvmm_free(heap, m->root), 0);
}
END_TEST

/* Pages of shared memory that this process has touched, in bytes. */
static uint64_t touched_bytes(void)
{
	unsigned long long kib = 0;
	char line[256];
	FILE *f = fopen("/proc/self/status", "r");

	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f) && sscanf(line, "RssShmem: %llu kB", &kib) != 1)
		;
	fclose(f);
	return kib << 10;
}

static void expect_zero(nvmm_ptr ptr, size_t size)
{
	const unsigned char *p = nvmm_local(nvmm, ptr);

	for (size_t i = 0; i < size; i++)
		must(p[i] == 0, "byte %zu is %u", i, p[i]);
}

/* Fresh memory is not written; used memory is. */
START_TEST(zeroed)
{
	static const size_t sizes[] = { 1, 1000, 100000, 131073, MIB, 64 * MIB };
	uint64_t before = touched_bytes();
	nvmm_ptr ptr = nvmm_zalloc(heap, 64 * MIB);

	ck_assert_uint_ne(ptr, NVMM_NULL);
	ck_assert_uint_lt(touched_bytes() - before, 16 * MIB);
	expect_zero(ptr, 64 * MIB);
	fill(ptr, 64 * MIB, 1);
	ck_assert_int_eq(nvmm_free(heap, ptr), 0);
	for (unsigned round = 0; round < 4; round++)
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			ptr = nvmm_zalloc(heap, sizes[i]);
			must(ptr != NVMM_NULL, "%zu: %s", sizes[i], nvmm_errmsg(nvmm));
			expect_zero(ptr, sizes[i]);
			fill(ptr, sizes[i], 1);
			ck_assert_int_eq(nvmm_free(heap, ptr), 0);
			if (round % 2)
				ck_assert_int_ge(nvmm_heap_trim(heap), 0);
		}
}
END_TEST

static void *hoard(void *arg)
{
	nvmm_ptr *kept = arg;
	nvmm_ptr ptr[200];

	for (unsigned i = 0; i < 200; i++) {
		ptr[i] = nvmm_alloc(heap, 16 + i * 100);
		must(ptr[i] != NVMM_NULL, "%s", nvmm_errmsg(nvmm));
	}
	for (unsigned i = 1; i < 200; i++)
		must(nvmm_free(heap, ptr[i]) == 0, "%s", nvmm_errmsg(nvmm));
	*kept = ptr[0];
	must(nvmm_free(heap, nvmm_alloc(heap, MIB)) == 0, "%s", nvmm_errmsg(nvmm));
	return NULL;
}

/* What threads hold of large blocks and empty spans is free for a block of nearly all after it. */
START_TEST(trim)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };
	nvmm_ptr kept[2], deferred = nvmm_alloc(heap, 2 * MIB);
	pthread_t thread;
	int64_t bytes;

	hoard(&kept[0]);
	ck_assert_int_eq(pthread_create(&thread, NULL, hoard, &kept[1]), 0);
	pthread_join(thread, NULL);
	ck_assert_int_eq(nvmm_free_deferred(heap, deferred), 0);
	bytes = nvmm_heap_trim(heap);
	ck_assert_msg(bytes >= (int64_t)(3 * MIB), "%lld: %s", (long long)bytes, nvmm_errmsg(nvmm));
	ck_assert_int_eq(nvmm_heap_stat(heap, &info), 0);
	ck_assert_uint_eq(info.limbo, 0);
	ck_assert_uint_eq(info.blocks, 2);
	/* Only the spans of the two blocks are not free runs. */
	ck_assert_uint_le(info.spans, 2);
	ck_assert_int_eq(nvmm_heap_trim(heap), 0);
	ck_assert_int_eq(nvmm_free(heap, kept[0]), 0);
	ck_assert_int_eq(nvmm_free(heap, kept[1]), 0);
	ck_assert_uint_ne(kept[0] = nvmm_alloc(heap, 16), NVMM_NULL);
	ck_assert_int_eq(nvmm_free(heap, kept[0]), 0);
}
END_TEST

START_TEST(shelves)
{
	struct nvmm_shelf shelf[2], again[2];
	nvmm_ptr ptr = nvmm_alloc(heap, 100);
	char *p = nvmm_local(nvmm, ptr);

	ck_assert_int_eq(nvmm_heap_shelves(heap, NULL, 0), 1);
	ck_assert_int_eq(nvmm_heap_shelves(heap, shelf, 2), 1);
	ck_assert_uint_eq(shelf[0].index, 0);
	ck_assert_uint_eq(shelf[0].len, 256 * MIB);
	ck_assert(p >= (char *)shelf[0].addr && p < (char *)shelf[0].addr + shelf[0].len);
	ck_assert_int_eq(nvmm_pool_resize(nvmm, nvmm_ptr_pool(ptr), 257 * MIB), 0);
	ck_assert_int_eq(nvmm_heap_shelves(heap, again, 2), 1);
	ck_assert_ptr_eq(again[0].addr, shelf[0].addr);
	ck_assert_uint_eq(again[0].len, 257 * MIB);
	ck_assert_int_eq(nvmm_free(heap, ptr), 0);
}
END_TEST

/* Whoever has it open keeps what he has; it is gone for all others. */
START_TEST(destroyed_by_force)
{
	struct nvmm_client *other = harness_connect(&h);
	struct nvmm_heap *doomed, *again;
	nvmm_pool_id id;
	nvmm_ptr ptr;
	char *p;

	doomed = harness_heap(other, &id, MIB, NULL, 0);
	ptr = nvmm_alloc(doomed, 100);
	p = nvmm_local(other, ptr);
	ck_assert_ptr_nonnull(p);
	ck_assert_int_eq(nvmm_heap_destroy(nvmm, id), -EBUSY);
	ck_assert_int_eq(nvmm_heap_destroy_forced(nvmm, id), 0);
	strcpy(p, "still there");
	ck_assert_int_eq(nvmm_heap_open(&again, nvmm, id, O_RDONLY), -ENOENT);
	ck_assert_int_eq(nvmm_heap_destroy_forced(nvmm, id), -ENOENT);
	ck_assert_str_eq(p, "still there");
	nvmm_heap_close(doomed);
	nvmm_disconnect(other);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sizes");
	TCase *tcase = harness_case(suite, "sizes", 120);

	tcase_add_checked_fixture(tcase, start, stop);
	tcase_add_test(tcase, aligned);
	tcase_add_test(tcase, realloc_sizes);
	tcase_add_test(tcase, realloc_errors);
	tcase_add_test(tcase, realloc_in);
	tcase_add_test(tcase, realloc_in_errors);
	tcase_add_test(tcase, realloc_in_killed);
	tcase_add_test(tcase, zeroed);
	tcase_add_test(tcase, trim);
	tcase_add_test(tcase, shelves);
	tcase_add_test(tcase, destroyed_by_force);
	return harness_run(suite);
}
