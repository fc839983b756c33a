/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The client library beside a real daemon that is stopped, killed and started again; handles, and what may be done by
 * those that read.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/system/harness.h"

#define MIB (UINT64_C(1) << 20)

static struct harness h;

static struct nvmm_client *connect_ms(int timeout_ms)
{
	struct nvmm_options options = {
		.size = sizeof(options),
		.socket = h.socket,
		.timeout_ms = timeout_ms,
	};
	struct nvmm_client *nvmm;

	ck_assert_int_eq(nvmm_connect(&nvmm, &options), 0);
	return nvmm;
}

/* Daemon */

/* A process goes on with its session and lanes when the daemon was killed and started again. */
START_TEST(daemon_killed)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id id;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, 64 * MIB, NULL, 0);
	nvmm_ptr small = nvmm_alloc(heap, 100), large, root;

	ck_assert_uint_ne(small, NVMM_NULL);
	for (int i = 0; i < 3; i++) {
		harness_signal(&h, SIGKILL);
		harness_start(&h);
		large = nvmm_alloc(heap, 5 * MIB);
		ck_assert_msg(large != NVMM_NULL, "%s", nvmm_errmsg(nvmm));
		ck_assert_int_eq(nvmm_root_set(heap, "large", large), 0);
		ck_assert_int_eq(nvmm_root_get(heap, "large", &root), 0);
		ck_assert_uint_eq(root, large);
		ck_assert_int_eq(nvmm_free(heap, large), 0);
	}
	ck_assert_int_eq(nvmm_free(heap, small), 0);
	ck_assert_uint_eq(harness_blocks(heap), 0);
	nvmm_heap_close(heap);
	ck_assert_int_eq(nvmm_heap_destroy(nvmm, id), 0);
	nvmm_disconnect(nvmm);
}
END_TEST

/* An orderly restart, as an upgrade does it: clients that hold blocks and clients that hold nothing attach
 * again; if only these are there, the daemon has stopped clean. */
START_TEST(daemon_restarted)
{
	struct nvmm_client *nvmm = harness_connect(&h), *idle = harness_connect(&h);
	nvmm_pool_id id, found;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, 64 * MIB, "held", 0);
	nvmm_ptr small;

	for (int i = 0; i < 3; i++) {
		small = nvmm_alloc(heap, 100);
		ck_assert_uint_ne(small, NVMM_NULL);
		harness_stop(&h);
		ck_assert_int_eq(nvmm_free(heap, small), 0);
		harness_start(&h);
		must(nvmm_pool_lookup(idle, "held", &found) == 0, "%s", nvmm_errmsg(idle));
		ck_assert_uint_eq(found, id);
		must(nvmm_alloc(heap, 5 * MIB) != NVMM_NULL, "%s", nvmm_errmsg(nvmm));
	}
	ck_assert(harness_logged(&h, "was not stopped in order"));
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
	ck_assert_int_eq(unlink(h.log), 0);
	harness_start(&h);
	ck_assert(!harness_logged(&h, "was not stopped in order"));
	must(nvmm_heap_destroy(idle, id) == 0, "%s", nvmm_errmsg(idle));
	nvmm_disconnect(idle);
}
END_TEST

struct asker {
	struct nvmm_client *nvmm;
	nvmm_pool_id id;
	atomic_bool stop;
	atomic_uint asked;
};

static void *ask(void *arg)
{
	struct asker *a = arg;
	struct nvmm_pool_info info = { .size = sizeof(info) };
	int r;

	while (!atomic_load(&a->stop)) {
		r = nvmm_pool_stat(a->nvmm, a->id, &info);
		must(r == 0, "stat: %d: %s", r, nvmm_errmsg(a->nvmm));
		must(info.bytes == MIB, "%llu bytes", (unsigned long long)info.bytes);
		atomic_fetch_add(&a->asked, 1);
	}
	return NULL;
}

/* Calls that are under way when the daemon dies are answered by the next one. */
START_TEST(daemon_killed_in_calls)
{
	struct asker a = { .nvmm = harness_connect(&h) };
	pthread_t threads[3];
	unsigned asked;

	ck_assert_int_eq(nvmm_region_create(a.nvmm, &a.id, MIB, NULL), 0);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, ask, &a), 0);
	for (int i = 0; i < 5; i++) {
		asked = atomic_load(&a.asked);
		while (atomic_load(&a.asked) < asked + 100)
			harness_sleep_ms(1);
		harness_signal(&h, SIGKILL);
		harness_start(&h);
	}
	atomic_store(&a.stop, true);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	nvmm_disconnect(a.nvmm);
}
END_TEST

START_TEST(daemon_stopped)
{
	struct nvmm_client *nvmm = connect_ms(300);
	struct nvmm_pool_info info = { .size = sizeof(info) };
	nvmm_pool_id id;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, 16 * MIB, NULL, 0);
	nvmm_ptr ptr = nvmm_alloc(heap, 64);
	uint64_t from, took;

	harness_signal(&h, SIGSTOP);
	from = harness_now_us();
	ck_assert_int_eq(nvmm_pool_stat(nvmm, id, &info), -ETIMEDOUT);
	took = harness_now_us() - from;
	ck_assert_uint_ge(took, 299000);
	ck_assert_uint_eq(nvmm_alloc(heap, MIB), NVMM_NULL);
	ck_assert_int_eq(errno, ETIMEDOUT);
	/* Without the daemon. */
	ck_assert_int_eq(nvmm_free(heap, ptr), 0);
	ptr = nvmm_alloc(heap, 64);
	ck_assert_uint_ne(ptr, NVMM_NULL);
	harness_signal(&h, SIGCONT);
	ck_assert_int_eq(nvmm_free(heap, ptr), 0);
	ptr = nvmm_alloc(heap, MIB);
	ck_assert_msg(ptr != NVMM_NULL, "%s", nvmm_errmsg(nvmm));
	ck_assert_int_eq(nvmm_free(heap, ptr), 0);
	ck_assert_int_eq(nvmm_pool_stat(nvmm, id, &info), 0);
	ck_assert_uint_eq(harness_blocks(heap), 0);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

/* A program can end beside a stopped daemon, which finds the rest out when it runs again. */
START_TEST(disconnect_beside_stopped_daemon)
{
	struct nvmm_client *nvmm = connect_ms(300), *other = harness_connect(&h);
	nvmm_pool_id id;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, 16 * MIB, NULL, 0);

	ck_assert_uint_ne(nvmm_alloc(heap, 64), NVMM_NULL);
	harness_signal(&h, SIGSTOP);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	harness_signal(&h, SIGCONT);
	for (int i = 0; i < 1000 && nvmm_heap_destroy(other, id) == -EBUSY; i++)
		harness_sleep_ms(5);
	ck_assert_int_eq(nvmm_heap_destroy(other, id), -ENOENT);
	nvmm_disconnect(other);
}
END_TEST

/* Handles */

/* What free() of a pointer never set does, before the thread has seen any block, and after. */
START_TEST(null_is_freed)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id id;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, 4 * MIB, NULL, 0);
	nvmm_ptr ptr;

	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(nvmm_free(heap, NVMM_NULL), 0);
		ck_assert_int_eq(nvmm_free_deferred(heap, NVMM_NULL), 0);
		ck_assert_int_eq(nvmm_cancel(heap, NVMM_NULL), 0);
		ck_assert_int_eq(nvmm_free(heap, 16), -EINVAL);
		ck_assert_int_eq(nvmm_free_deferred(heap, 16), -EINVAL);
		ck_assert_uint_eq(nvmm_usable_size(heap, NVMM_NULL), 0);
		ck_assert_uint_eq(nvmm_usable_size(heap, 16), 0);
		ck_assert_uint_eq(nvmm_realloc(heap, 16, 100), NVMM_NULL);
		ck_assert_int_eq(errno, EINVAL);
		ptr = nvmm_alloc(heap, 100);
		ck_assert_uint_ne(ptr, NVMM_NULL);
		ck_assert_int_eq(nvmm_free(heap, NVMM_NULL), 0);
		ck_assert_int_eq(nvmm_free(heap, ptr), 0);
	}
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

/* Several connections and handles of one process on one heap. */
START_TEST(connections_and_handles)
{
	struct nvmm_client *a = harness_connect(&h), *b = harness_connect(&h);
	nvmm_pool_id id;
	struct nvmm_heap *first = harness_heap(a, &id, 4 * MIB, NULL, 0);
	struct nvmm_heap *second = harness_open(a, id), *other = harness_open(b, id);
	nvmm_ptr ptr[3];

	for (int round = 0; round < 20; round++) {
		ptr[0] = nvmm_alloc(first, 100);
		ptr[1] = nvmm_alloc(second, 100);
		ptr[2] = nvmm_alloc(other, 100);
		*(int *)nvmm_local(a, ptr[2]) = round;
		ck_assert_int_eq(*(int *)nvmm_local(b, ptr[2]), round);
		ck_assert_uint_eq(nvmm_global(b, nvmm_local(b, ptr[1])), ptr[1]);
		ck_assert_int_eq(nvmm_free(other, ptr[0]), 0);
		ck_assert_int_eq(nvmm_free(other, ptr[1]), 0);
		ck_assert_int_eq(nvmm_free(first, ptr[2]), 0);
		ck_assert_int_eq(nvmm_free(first, ptr[2]), -EALREADY);
		nvmm_heap_close(second);
		second = harness_open(a, id);
	}
	ck_assert_int_eq(nvmm_heap_destroy(a, id), -EBUSY);
	ck_assert_uint_eq(harness_blocks(first), 0);
	nvmm_heap_close(first);
	nvmm_heap_close(second);
	ck_assert_int_eq(nvmm_heap_destroy(a, id), -EBUSY);
	/* What is still open goes with its connection. */
	nvmm_disconnect(b);
	ck_assert_int_eq(nvmm_heap_destroy(a, id), 0);
	nvmm_disconnect(a);
}
END_TEST

/* Rights */

START_TEST(read_only)
{
	struct nvmm_client *writer = harness_connect(&h), *reader = harness_connect(&h);
	nvmm_pool_id id;
	struct nvmm_heap *heap = harness_heap(writer, &id, 4 * MIB, NULL, 0), *ro;
	nvmm_ptr ptr = nvmm_alloc(heap, 64), root;
	char *p;

	strcpy(nvmm_local(writer, ptr), "text");
	ck_assert_int_eq(nvmm_root_set(heap, "text", ptr), 0);
	ck_assert_int_eq(nvmm_heap_open(&ro, reader, id, O_RDONLY), 0);
	ck_assert_int_eq(nvmm_root_get(ro, "text", &root), 0);
	p = nvmm_local(reader, root);
	ck_assert_str_eq(p, "text");
	ck_assert_uint_eq(nvmm_alloc(ro, 64), NVMM_NULL);
	ck_assert_int_eq(errno, EROFS);
	ck_assert_int_eq(nvmm_free(ro, ptr), -EROFS);
	ck_assert_int_eq(nvmm_root_set(ro, "text", NVMM_NULL), -EACCES);
	ck_assert_int_eq(nvmm_root_remove(ro, "text"), -EACCES);
	ck_assert_uint_ge(nvmm_usable_size(ro, ptr), 64);
	ck_assert_uint_eq(nvmm_usable_size(ro, ptr + 1), 0);
	ck_assert_uint_eq(harness_blocks(ro), 1);
	/* Opened for writing as well, it is writable where it was. */
	nvmm_heap_close(heap);
	ck_assert_int_eq(nvmm_heap_open(&heap, reader, id, O_RDWR), 0);
	strcpy(p, "more");
	ck_assert_str_eq(nvmm_local(writer, ptr), "more");
	ck_assert_int_eq(nvmm_free(heap, ptr), 0);
	ck_assert_uint_eq(nvmm_usable_size(ro, ptr), 0);
	nvmm_heap_close(heap);
	nvmm_heap_close(ro);
	nvmm_disconnect(reader);
	nvmm_disconnect(writer);
}
END_TEST

START_TEST(writes_to_read_only)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_region *region;
	nvmm_pool_id id = 0;
	char *p;

	ck_assert_int_eq(nvmm_region_create(nvmm, &id, MIB, NULL), 0);
	ck_assert_int_eq(nvmm_region_open(&region, nvmm, id, O_RDONLY), 0);
	p = nvmm_local(nvmm, (nvmm_ptr)id << 48);
	ck_assert_ptr_nonnull(p);
	*(volatile char *)p = 1; /* SIGSEGV */
}
END_TEST

static void expect_refused(struct nvmm_options options, int error, const char *text)
{
	struct nvmm_client *nvmm;

	ck_assert_int_eq(nvmm_connect(&nvmm, &options), error);
	ck_assert_msg(strstr(nvmm_errmsg(NULL), text), "'%s', not '%s'", nvmm_errmsg(NULL), text);
}

/* A text names the value that is wrong, and what would be right. */
START_TEST(texts_name_the_value)
{
	char path[256], expected[320];
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	nvmm_pool_id id = 0;
	FILE *f;

	expect_refused((struct nvmm_options){ .size = 3 }, -EINVAL, "nvmm_options.size is 3");
	expect_refused((struct nvmm_options){ .size = sizeof(struct nvmm_options), .timeout_ms = -7 }, -EINVAL,
		       "a timeout of -7 ms");
	expect_refused((struct nvmm_options){ .size = sizeof(struct nvmm_options), .socket = "" }, -EINVAL,
		       "is empty");
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	expect_refused((struct nvmm_options){ .size = sizeof(struct nvmm_options), .socket = path }, -ENAMETOOLONG,
		       "has 255 bytes: the kernel takes 107");
	snprintf(path, sizeof(path), "%.100s/x", h.dir);
	f = fopen(path, "we");
	ck_assert_ptr_nonnull(f);
	fclose(f);
	snprintf(expected, sizeof(expected), "%s is no socket", path);
	expect_refused((struct nvmm_options){ .size = sizeof(struct nvmm_options), .socket = path }, -ECONNREFUSED,
		       expected);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "", &id), -EINVAL);
	ck_assert_str_eq(nvmm_errmsg(nvmm), "a name of 0 bytes: a pool's has 1 to 63");
	heap = harness_heap(nvmm, &id, 1 << 20, NULL, 0);
	ck_assert_int_eq(nvmm_root_set(heap, "", 0), -EINVAL);
	ck_assert_str_eq(nvmm_errmsg(nvmm), "a name of 0 bytes: a root's has 1 to 47");
	ck_assert_int_eq(nvmm_heap_recover(heap, (enum nvmm_recover_mode)5, NULL, NULL), -EINVAL);
	ck_assert_ptr_nonnull(strstr(nvmm_errmsg(nvmm), "a recovery of mode 5"));
	ck_assert_int_eq(nvmm_heap_sweep(heap, 8, NULL, NULL, NULL), -EINVAL);
	ck_assert_ptr_nonnull(strstr(nvmm_errmsg(nvmm), "flags 0x8"));
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("client");
	TCase *tcase = harness_case_served(suite, "client", 120, &h);

	tcase_add_test(tcase, daemon_killed);
	tcase_add_test(tcase, daemon_restarted);
	tcase_add_test(tcase, daemon_killed_in_calls);
	tcase_add_test(tcase, daemon_stopped);
	tcase_add_test(tcase, disconnect_beside_stopped_daemon);
	tcase_add_test(tcase, null_is_freed);
	tcase_add_test(tcase, connections_and_handles);
	tcase_add_test(tcase, read_only);
	tcase_add_test(tcase, texts_name_the_value);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	tcase_add_test_raise_signal(tcase, writes_to_read_only, SIGSEGV);
#else
	(void)writes_to_read_only;
#endif
	return harness_run(suite);
}
