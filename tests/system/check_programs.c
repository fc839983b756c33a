/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What would surprise a program: locked memory, pools that a pointer opened, destroying by force,
 * blocks at offset 0, and the library loaded by an interpreter.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/system/harness.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static struct harness h;

static struct nvmm_heap *sparse_heap(struct nvmm_client *nvmm, nvmm_pool_id *id, uint64_t bytes)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .sparse = true };
	struct nvmm_heap *heap;

	*id = 0;
	must(nvmm_heap_create(nvmm, id, bytes, &options) == 0, "%s", nvmm_errmsg(nvmm));
	must(nvmm_heap_open(&heap, nvmm, *id, O_RDWR) == 0, "%s", nvmm_errmsg(nvmm));
	return heap;
}

/* Opens a sparse heap of 8 GiB, uses it a little, enters an epoch, maps a range of it. */
static void use_sparse(void)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap;
	struct harness_usage usage;
	nvmm_pool_id id;
	nvmm_ptr ptr;
	void *range;
	int r;

	heap = sparse_heap(nvmm, &id, 8 * GIB);
	ptr = nvmm_alloc(heap, 100);
	must(ptr != NVMM_NULL, "%s", nvmm_errmsg(nvmm));
	memset(nvmm_local(nvmm, ptr), 1, 100);
	ck_assert_int_eq(nvmm_epoch_enter(nvmm), 0);
	nvmm_epoch_exit(nvmm);
	r = nvmm_map(nvmm, (nvmm_ptr)id << 48 | GIB, MIB, NULL, PROT_READ | PROT_WRITE, MAP_POPULATE,
		     &range);
	must(r == 0, "%s", nvmm_errmsg(nvmm));
	usage = harness_usage(h.base);
	must(usage.bytes < 64 * MIB, "%llu bytes", (unsigned long long)usage.bytes);
	usage = harness_usage(h.runtime);
	must(usage.bytes < 3 * MIB, "%llu bytes at runtime", (unsigned long long)usage.bytes);
	nvmm_heap_close(heap);
	ck_assert_int_eq(nvmm_heap_destroy(nvmm, id), 0);
	nvmm_disconnect(nvmm);
}

static bool lock_future(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	/* Sanitizers take mlockall() for themselves and lock nothing. */
	return false;
#else
	if (mlockall(MCL_FUTURE) == 0)
		return true;
	printf("mlockall: %s: skipped\n", strerror(errno));
	return false;
#endif
}

START_TEST(locked_memory)
{
	if (lock_future())
		use_sparse();
}
END_TEST

/* Root is not held to the limit while it has the capability. */
static bool limit_locked(rlim_t bytes)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[2];
	struct rlimit limit = { bytes, bytes };

	if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0 || syscall(SYS_capget, &header, caps) < 0)
		return false;
	caps[0].effective &= ~(1u << CAP_IPC_LOCK);
	caps[0].permitted &= ~(1u << CAP_IPC_LOCK);
	return syscall(SYS_capset, &header, caps) == 0;
}

/* A limit on locked memory: the library's mappings do not count, the program's fail and say why. */
static void limited(void *arg)
{
	struct nvmm_client *nvmm;
	struct nvmm_region *region;
	nvmm_pool_id id = 0;
	void *addr;

	(void)arg;
	nvmm = harness_connect(&h);
	ck_assert(limit_locked(4 * MIB));
	if (!lock_future())
		return;
	use_sparse();
	must(nvmm_region_create(nvmm, &id, 64 * MIB, NULL) == 0, "%s", nvmm_errmsg(nvmm));
	ck_assert_int_eq(nvmm_region_open(&region, nvmm, id, O_RDWR), 0);
	ck_assert_int_eq(nvmm_region_map(region, NULL, 64 * MIB, PROT_READ, 0, 0, &addr), -EAGAIN);
	ck_assert_ptr_nonnull(strstr(nvmm_errmsg(nvmm), "ulimit -l"));
	nvmm_region_close(region);
	nvmm_disconnect(nvmm);
}

START_TEST(locked_memory_limited)
{
	harness_join(harness_fork(limited, NULL));
}
END_TEST

/* Pools that a pointer opened */

START_TEST(own_implicit_opening)
{
	struct nvmm_client *nvmm = harness_connect(&h), *other = harness_connect(&h);
	nvmm_pool_id id;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, MIB, NULL, 0);
	nvmm_ptr ptr = nvmm_alloc(heap, 64);
	char *p;

	nvmm_heap_close(heap);
	p = nvmm_local(nvmm, ptr);
	ck_assert_ptr_nonnull(p);
	ck_assert_ptr_nonnull(nvmm_local(other, ptr));
	/* The other connection keeps it; what this one has translated stays valid. */
	ck_assert_int_eq(nvmm_heap_destroy(nvmm, id), -EBUSY);
	*p = 1;
	ck_assert_ptr_eq(nvmm_local(nvmm, ptr), p);
	ck_assert_int_eq(nvmm_pool_release(other, id), 0);
	must(nvmm_heap_destroy(nvmm, id) == 0, "%s", nvmm_errmsg(nvmm));
	ck_assert_ptr_null(nvmm_local(nvmm, ptr));
	ck_assert_uint_eq(nvmm_global(nvmm, p), NVMM_NULL);
	nvmm_disconnect(nvmm);
	nvmm_disconnect(other);
}
END_TEST

START_TEST(release)
{
	struct nvmm_client *nvmm = harness_connect(&h), *other = harness_connect(&h);
	struct harness_holdings before;
	nvmm_pool_id id;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, MIB, NULL, 0);
	nvmm_ptr ptr = nvmm_alloc(heap, 64);

	ck_assert_int_eq(nvmm_pool_release(nvmm, id), -EBUSY);
	ck_assert_ptr_nonnull(strstr(nvmm_errmsg(nvmm), "handle"));
	ck_assert_int_eq(nvmm_pool_release(nvmm, 0), -EINVAL);
	before = harness_holdings(getpid());
	for (int i = 0; i < 3; i++) {
		ck_assert_ptr_nonnull(nvmm_local(other, ptr));
		ck_assert_uint_gt(harness_holdings(getpid()).maps, before.maps);
		ck_assert_int_eq(nvmm_pool_release(other, id), 0);
		ck_assert_uint_eq(harness_holdings(getpid()).maps, before.maps);
		/* There is nothing to give back any more. */
		ck_assert_int_eq(nvmm_pool_release(other, id), 0);
	}
	/* Opened by a pointer first, then by a handle, which goes. */
	nvmm_heap_close(heap);
	ck_assert_ptr_nonnull(nvmm_local(nvmm, ptr));
	heap = harness_open(nvmm, id);
	ck_assert_int_eq(nvmm_pool_release(nvmm, id), -EBUSY);
	ck_assert_int_eq(nvmm_heap_destroy(nvmm, id), -EBUSY);
	ck_assert_ptr_nonnull(strstr(nvmm_errmsg(nvmm), "close"));
	nvmm_heap_close(heap);
	ck_assert_int_eq(nvmm_pool_release(nvmm, id), 0);
	ck_assert_int_eq(nvmm_heap_destroy(nvmm, id), 0);
	nvmm_disconnect(nvmm);
	nvmm_disconnect(other);
}
END_TEST

/* Destroying by force */

START_TEST(force)
{
	struct nvmm_client *nvmm = harness_connect(&h), *other = harness_connect(&h);
	struct nvmm_region *region;
	struct nvmm_heap *heap;
	nvmm_pool_id id;
	void *addr;

	for (int i = 0; i < 3; i++) {
		id = 0;
		ck_assert_int_eq(nvmm_region_create(nvmm, &id, MIB, NULL), 0);
		ck_assert_int_eq(nvmm_region_open(&region, other, id, O_RDWR), 0);
		ck_assert_int_eq(nvmm_region_map(region, NULL, MIB, PROT_READ | PROT_WRITE, 0, 0, &addr), 0);
		ck_assert_int_eq(nvmm_region_destroy(nvmm, id), -EBUSY);
		ck_assert_int_eq(nvmm_pool_destroy(nvmm, id, 0), -EBUSY);
		ck_assert_int_eq(nvmm_pool_destroy(nvmm, id, 2), -EINVAL);
		ck_assert_int_eq(i == 0   ? nvmm_region_destroy_forced(nvmm, id)
				 : i == 1 ? nvmm_pool_destroy(nvmm, id, NVMM_DESTROY_FORCED)
					  : nvmm_heap_destroy_forced(nvmm, id),
				 0);
		memset(addr, 1, MIB); /* it stays theirs */
		nvmm_region_close(region);
	}
	heap = harness_heap(other, &id, MIB, NULL, 0);
	ck_assert_int_eq(nvmm_region_destroy(nvmm, id), -EINVAL);
	ck_assert_int_eq(nvmm_region_destroy_forced(nvmm, id), -EINVAL);
	ck_assert_int_eq(nvmm_pool_destroy(nvmm, id, NVMM_DESTROY_FORCED), 0);
	ck_assert_int_eq(nvmm_pool_destroy(nvmm, id, 0), -ENOENT);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	nvmm_disconnect(other);
}
END_TEST

/* An interpreter that loads the library */

static void run_python(void *arg)
{
	(void)arg;
	setenv("NVMM_SOCKET", h.socket, 1);
	setenv("LD_LIBRARY_PATH", BUILD_DIR "/libclient/.libs", 1);
	execlp("python3", "python3", SOURCE_DIR "/tests/system/ctypes_client.py", NULL);
	printf("python3: %s: skipped\n", strerror(errno));
}

START_TEST(interpreter)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	(void)run_python; /* which does not have the sanitizer's library */
#else
	harness_join(harness_fork(run_python, NULL));
#endif
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("programs");
	TCase *tcase = harness_case_served(suite, "programs", 60, &h);

	tcase_add_test(tcase, locked_memory);
	tcase_add_test(tcase, locked_memory_limited);
	tcase_add_test(tcase, own_implicit_opening);
	tcase_add_test(tcase, release);
	tcase_add_test(tcase, force);
	tcase_add_test(tcase, interpreter);
	return suite;
}

int main(void)
{
	return harness_run(suite());
}
