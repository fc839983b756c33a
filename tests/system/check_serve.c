/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The main path through the real daemon: regions, heaps, roots, names, modes and sizes, seen from
 * other processes, and found again after the daemon was stopped, and after it was killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/system/harness.h"

#define MIB (UINT64_C(1) << 20)

static struct harness h;

static void store_text(struct nvmm_client *nvmm, nvmm_pool_id id, uint64_t at, const char *text)
{
	struct nvmm_region *region;
	void *addr;

	ck_assert_int_eq(nvmm_region_open(&region, nvmm, id, O_RDWR), 0);
	ck_assert_int_eq(nvmm_region_map(region, NULL, 4096, PROT_READ | PROT_WRITE, 0, at, &addr),
			 0);
	strcpy(addr, text);
	ck_assert_int_eq(nvmm_region_unmap(region, addr, 4096), 0);
	nvmm_region_close(region);
}

static void expect_text(struct nvmm_client *nvmm, nvmm_pool_id id, uint64_t at, const char *text)
{
	struct nvmm_region *region;
	void *addr;

	ck_assert_int_eq(nvmm_region_open(&region, nvmm, id, O_RDONLY), 0);
	ck_assert_int_eq(nvmm_region_map(region, NULL, 4096, PROT_READ, 0, at, &addr), 0);
	ck_assert_str_eq(addr, text);
	ck_assert_int_eq(nvmm_region_unmap(region, addr, 4096), 0);
	nvmm_region_close(region);
}

START_TEST(region_life)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id id = 0, again;
	struct nvmm_region *region;
	struct harness_usage before = harness_usage(h.base), after;

	ck_assert_int_eq(nvmm_region_create(nvmm, &id, 128 * MIB, NULL), 0);
	after = harness_usage(h.base);
	ck_assert_msg(after.bytes - before.bytes >= 128 * MIB, "space is not reserved");
	store_text(nvmm, id, 128 * MIB - 4096, "the last page");
	expect_text(nvmm, id, 128 * MIB - 4096, "the last page");
	expect_text(nvmm, id, 0, "");

	ck_assert_int_eq(nvmm_region_open(&region, nvmm, id, O_RDWR), 0);
	ck_assert_uint_eq(nvmm_region_size(region), 128 * MIB);
	nvmm_region_close(region);

	again = id;
	ck_assert_int_eq(nvmm_region_create(nvmm, &again, MIB, NULL), -EEXIST);
	ck_assert_str_ne(nvmm_errmsg(nvmm), "");
	ck_assert_int_eq(nvmm_region_destroy(nvmm, id), 0);
	ck_assert_int_eq(nvmm_region_destroy(nvmm, id), -ENOENT);
	ck_assert_int_eq(nvmm_region_open(&region, nvmm, id, O_RDWR), -ENOENT);
	after = harness_usage(h.base);
	ck_assert_uint_eq(after.files, before.files);
	nvmm_disconnect(nvmm);
}
END_TEST

static nvmm_pool_id shared_id;

static void read_int(void *arg)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap *heap = harness_open(nvmm, shared_id);
	nvmm_ptr ptr;
	int *number;

	ck_assert_int_eq(nvmm_root_get(heap, "number", &ptr), 0);
	number = nvmm_local(nvmm, ptr);
	ck_assert_ptr_nonnull(number);
	ck_assert_int_eq(*number, 42);
	*number = 43;
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

START_TEST(heap_life)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_heap_info info = { .size = sizeof(info) };
	struct nvmm_heap *heap = harness_heap(nvmm, &shared_id, 128 * MIB, "numbers", 0);
	nvmm_ptr ptr = nvmm_alloc(heap, sizeof(int));
	int *number = nvmm_local(nvmm, ptr);

	ck_assert_uint_ne(ptr, NVMM_NULL);
	ck_assert_uint_eq(nvmm_ptr_pool(ptr), shared_id);
	ck_assert_ptr_nonnull(number);
	ck_assert_uint_eq(nvmm_global(nvmm, number), ptr);
	ck_assert_uint_eq(nvmm_usable_size(heap, ptr), 16);
	*number = 42;
	ck_assert_int_eq(nvmm_root_set(heap, "number", ptr), 0);
	harness_join(harness_fork(read_int, NULL));
	ck_assert_int_eq(*number, 43);

	ck_assert_int_eq(nvmm_free(heap, ptr), 0);
	ck_assert_int_eq(nvmm_free(heap, ptr), -EALREADY);
	ck_assert_int_eq(nvmm_free(heap, ptr + 8), -EINVAL);
	ck_assert_int_eq(nvmm_heap_stat(heap, &info), 0);
	ck_assert_uint_eq(info.blocks, 0);
	nvmm_heap_close(heap);
	ck_assert_int_eq(nvmm_heap_destroy(nvmm, shared_id), 0);
	nvmm_disconnect(nvmm);
}
END_TEST

START_TEST(busy_pool_is_not_destroyed)
{
	struct nvmm_client *nvmm = harness_connect(&h), *other = harness_connect(&h);
	nvmm_pool_id id, same;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, MIB, "busy", 0);

	ck_assert_int_eq(nvmm_pool_lookup(other, "busy", &same), 0);
	ck_assert_uint_eq(same, id);
	ck_assert_int_eq(nvmm_heap_destroy(other, id), -EBUSY);
	nvmm_heap_close(heap);
	ck_assert_int_eq(nvmm_heap_destroy(other, id), 0);
	ck_assert_int_eq(nvmm_pool_lookup(other, "busy", &same), -ENOENT);
	nvmm_disconnect(other);
	nvmm_disconnect(nvmm);
}
END_TEST

/* An open that fails for want of a descriptor leaves nothing open behind. */
START_TEST(no_descriptor_left)
{
	struct nvmm_client *nvmm = harness_connect(&h), *other = harness_connect(&h);
	nvmm_pool_id id = 0;
	struct nvmm_heap *heap;
	struct rlimit all, none;
	int next = dup(0);

	ck_assert_int_eq(nvmm_heap_create(nvmm, &id, MIB, NULL), 0);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &all), 0);
	close(next);
	none = all;
	none.rlim_cur = (rlim_t)next;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	ck_assert_int_eq(nvmm_heap_open(&heap, nvmm, id, O_RDWR), -EMFILE);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &all), 0);
	ck_assert_int_eq(nvmm_heap_destroy(other, id), 0);
	nvmm_disconnect(other);
	nvmm_disconnect(nvmm);
}
END_TEST

/* A daemon that has lost what its runtime directory said gives lanes out that a process still takes
 * for its own: that process is told, and gives no block that another has. */
START_TEST(session_file_is_lost)
{
	struct nvmm_client *nvmm = harness_connect(&h), *other;
	struct nvmm_heap *heap, *same;
	char command[300];
	nvmm_pool_id id;
	nvmm_ptr mine, its;

	heap = harness_heap(nvmm, &id, MIB, "lost", 0);
	mine = nvmm_alloc(heap, 64);
	ck_assert_uint_ne(mine, NVMM_NULL);
	harness_signal(&h, SIGKILL);
	/* Cut, it is damaged; removed, it is not there. */
	snprintf(command, sizeof(command), "%s %s/session-*", _i ? "rm" : "truncate -s 20", h.runtime);
	ck_assert_int_eq(system(command), 0);
	harness_start(&h);
	other = harness_connect(&h);
	same = harness_open(other, id);
	its = nvmm_alloc(same, 64);
	ck_assert_uint_ne(its, NVMM_NULL);
	ck_assert_uint_ne(its, mine);
	ck_assert_uint_eq(nvmm_alloc(heap, 64), NVMM_NULL);
	ck_assert_int_eq(errno, ECONNRESET);
	ck_assert_ptr_nonnull(strstr(nvmm_errmsg(nvmm), "connect anew"));
	ck_assert_int_eq(nvmm_free(heap, mine), -ECONNRESET);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	ck_assert_int_eq(nvmm_free(same, mine), 0);
	ck_assert_int_eq(nvmm_free(same, its), 0);
	nvmm_heap_close(same);
	ck_assert_int_eq(nvmm_heap_destroy(other, id), 0);
	nvmm_disconnect(other);
}
END_TEST

/* What a restart must find: two pools, a root, a chain of blocks. */

struct node {
	nvmm_ptr next;
	uint64_t value;
};
#define CHAIN 10000u

static nvmm_pool_id fill_base(struct nvmm_client *nvmm)
{
	struct nvmm_pool_options named = { .size = sizeof(named), .name = "text", .mode = 0640 };
	nvmm_pool_id region = 0, id;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, 8 * MIB, "chain", 0);
	nvmm_ptr head = NVMM_NULL;

	ck_assert_int_eq(nvmm_region_create(nvmm, &region, MIB, &named), 0);
	store_text(nvmm, region, 4096, "still here");
	for (unsigned i = 0; i < CHAIN; i++) {
		nvmm_ptr ptr = nvmm_alloc(heap, sizeof(struct node));
		struct node *node = nvmm_local(nvmm, ptr);

		must(node != NULL, "alloc: %s", nvmm_errmsg(nvmm));
		*node = (struct node){ .next = head, .value = i };
		head = ptr;
	}
	ck_assert_int_eq(nvmm_root_set(heap, "head", head), 0);
	nvmm_heap_close(heap);
	return id;
}

static void expect_base(void)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_pool_info info = { .size = sizeof(info) };
	struct nvmm_heap_info count = { .size = sizeof(count) };
	nvmm_pool_id region, id;
	struct nvmm_heap *heap;
	nvmm_ptr ptr;
	unsigned left = CHAIN;

	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "text", &region), 0);
	ck_assert_int_eq(nvmm_pool_stat(nvmm, region, &info), 0);
	ck_assert_uint_eq(info.mode, 0640);
	ck_assert_uint_eq(info.uid, getuid());
	expect_text(nvmm, region, 4096, "still here");

	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "chain", &id), 0);
	heap = harness_open(nvmm, id);
	ck_assert_int_eq(nvmm_root_get(heap, "head", &ptr), 0);
	while (ptr != NVMM_NULL) {
		struct node *node = nvmm_local(nvmm, ptr);

		must(node && node->value == --left, "the chain is not as it was");
		ptr = node->next;
	}
	ck_assert_uint_eq(left, 0);
	ck_assert_int_eq(nvmm_heap_stat(heap, &count), 0);
	ck_assert_uint_eq(count.blocks, CHAIN);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

START_TEST(found_after_stop)
{
	struct nvmm_client *nvmm = harness_connect(&h);

	fill_base(nvmm);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
	harness_start(&h);
	expect_base();
}
END_TEST

START_TEST(found_after_kill)
{
	struct nvmm_client *nvmm = harness_connect(&h);

	fill_base(nvmm);
	nvmm_disconnect(nvmm);
	harness_signal(&h, SIGKILL);
	harness_start(&h);
	expect_base();
}
END_TEST

/* A client that was there when the daemon went is told so, and may connect anew. */
START_TEST(client_outlives_daemon)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id id = fill_base(nvmm), other;
	struct nvmm_heap *heap = harness_open(nvmm, id);
	nvmm_ptr ptr = nvmm_alloc(heap, 64);
	int r;

	ck_assert_uint_ne(ptr, NVMM_NULL);
	harness_signal(&h, SIGKILL);
	ck_assert_int_eq(nvmm_free(heap, ptr), 0);
	harness_start(&h);
	r = nvmm_pool_lookup(nvmm, "chain", &other);
	ck_assert_msg(r == 0 || nvmm_errmsg(nvmm)[0] != '\0', "an error without text");
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	expect_base();
}
END_TEST

START_TEST(resize_grows_what_is_in_use)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_pool_info info = { .size = sizeof(info) };
	nvmm_pool_id id;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, 2 * MIB, NULL, 0);
	nvmm_ptr first = nvmm_alloc(heap, MIB), second;

	ck_assert_uint_ne(first, NVMM_NULL);
	strcpy(nvmm_local(nvmm, first), "from before");
	ck_assert_uint_eq(nvmm_alloc(heap, 4 * MIB), NVMM_NULL);
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_int_eq(nvmm_pool_resize(nvmm, id, 16 * MIB), 0);
	ck_assert_int_eq(nvmm_pool_resize(nvmm, id, MIB), -EINVAL);
	second = nvmm_alloc(heap, 8 * MIB);
	ck_assert_msg(second != NVMM_NULL, "errno %d: %s", errno, nvmm_errmsg(nvmm));
	memset(nvmm_local(nvmm, second), 1, 8 * MIB);
	ck_assert_str_eq(nvmm_local(nvmm, first), "from before");
	ck_assert_int_eq(nvmm_pool_stat(nvmm, id, &info), 0);
	ck_assert_uint_eq(info.bytes, 16 * MIB);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

START_TEST(list_pages_through_all)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	struct nvmm_pool_info infos[7];
	nvmm_pool_id last = 0;
	unsigned seen = 0;
	int n;

	for (unsigned i = 0; i < 50; i++) {
		nvmm_pool_id id = 0;

		ck_assert_int_eq(nvmm_region_create(nvmm, &id, 4096, NULL), 0);
	}
	while ((n = nvmm_pool_list(nvmm, last, infos, 7)) > 0) {
		for (int i = 0; i < n; i++) {
			ck_assert_uint_gt(infos[i].id, last);
			last = infos[i].id;
			seen++;
		}
	}
	ck_assert_int_eq(n, 0);
	ck_assert_uint_eq(seen, 50);
	nvmm_disconnect(nvmm);
}
END_TEST

START_TEST(operator_sees_it)
{
	struct nvmm_client *nvmm = harness_connect(&h);
	static char out[65536];
	nvmm_pool_id id;
	struct nvmm_heap *heap = harness_heap(nvmm, &id, MIB, "visible", 0);
	const char *const pools[] = { "ctl/nvmmctl", "pools", NULL };
	const char *const status[] = { "ctl/nvmmctl", "status", "--json", NULL };

	ck_assert_int_eq(harness_command(&h, out, sizeof(out), pools), 0);
	ck_assert_msg(strstr(out, "visible") != NULL, "%s", out);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), status), 0);
	ck_assert_int_eq(out[0], '{');
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), status), 3);
}
END_TEST

static bool connects(void *arg)
{
	struct nvmm_options options = { .size = sizeof(options), .socket = h.socket };
	struct nvmm_client *nvmm;

	(void)arg;
	if (nvmm_connect(&nvmm, &options) < 0)
		return false;
	nvmm_disconnect(nvmm);
	return true;
}

static int listen_there(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	memcpy(addr.sun_path, h.socket, strlen(h.socket) + 1);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	return fd;
}

/* The socket's file is removed while the daemon serves: it comes back, and who is connected does not notice. */
START_TEST(socket_file_comes_back)
{
	struct nvmm_client *nvmm;
	struct stat before, after;
	nvmm_pool_id id = 0;
	int fd;

	nvmm = harness_connect(&h);
	ck_assert_int_eq(stat(h.socket, &before), 0);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(unlink(h.socket), 0);
		harness_until(connects, NULL, 5000);
		ck_assert_int_eq(stat(h.socket, &after), 0);
		ck_assert_uint_eq(after.st_mode, before.st_mode);
	}
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, 4096, NULL), 0);
	ck_assert(harness_logged(&h, "was removed: it is made anew"));
	/* What others put there stays, until it goes. */
	ck_assert_int_eq(unlink(h.socket), 0);
	fd = listen_there();
	harness_signal(&h, SIGHUP);
	harness_sleep_ms(300);
	ck_assert_int_eq(stat(h.socket, &before), 0);
	close(fd); /* the file stays, and nobody listens */
	harness_until(connects, NULL, 5000);
	ck_assert_int_eq(unlink(h.socket), 0);
	fd = listen_there();
	nvmm_disconnect(nvmm);
	ck_assert_int_eq(stat(h.socket, &before), 0);
	harness_stop(&h);
	ck_assert_int_eq(stat(h.socket, &after), 0);
	ck_assert_uint_eq(after.st_ino, before.st_ino);
	close(fd);
}
END_TEST

#define WAITING 300u

/* Who waits to be accepted when the file goes is not sent away. */
START_TEST(waiting_when_the_file_goes)
{
	static int waiting[WAITING];
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	char byte;

	memcpy(addr.sun_path, h.socket, strlen(h.socket) + 1);
	harness_signal(&h, SIGSTOP);
	for (unsigned i = 0; i < WAITING; i++) {
		waiting[i] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		must(waiting[i] >= 0 && connect(waiting[i], (struct sockaddr *)&addr, sizeof(addr)) == 0, "connect");
	}
	ck_assert_int_eq(unlink(h.socket), 0);
	harness_signal(&h, SIGHUP);
	harness_signal(&h, SIGCONT);
	harness_until(connects, NULL, 5000);
	harness_sleep_ms(300);
	for (unsigned i = 0; i < WAITING; i++) {
		must(recv(waiting[i], &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN, "%u is sent away: %s", i,
		     strerror(errno));
		close(waiting[i]);
	}
}
END_TEST

/* The directory goes with it. */
START_TEST(socket_directory_comes_back)
{
	char dir[256];
	FILE *f;

	harness_stop(&h);
	snprintf(dir, sizeof(dir), "%.100s/own", h.dir);
	snprintf(h.socket, sizeof(h.socket), "%.120s/s", dir);
	f = fopen(h.config, "we");
	ck_assert_ptr_nonnull(f);
	fprintf(f, "shelves: { base: %s }\nruntime: %s\nsocket: { path: %s }\n", h.base, h.runtime, h.socket);
	ck_assert_int_eq(fclose(f), 0);
	ck_assert_int_eq(mkdir(dir, 0755), 0);
	harness_start(&h);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(unlink(h.socket), 0);
		ck_assert_int_eq(rmdir(dir), 0);
		harness_sleep_ms(200);
		ck_assert(!connects(NULL));
		ck_assert_int_eq(mkdir(dir, 0755), 0);
		harness_until(connects, NULL, 10000);
	}
	/* The new directory is watched. */
	ck_assert_int_eq(unlink(h.socket), 0);
	harness_until(connects, NULL, 5000);
	ck_assert(harness_logged(&h, "its directory is gone"));
}
END_TEST

/* A daemon that is stopped costs an operator no more than was said. */
START_TEST(stopped_daemon)
{
	const char *const argv[] = { "ctl/nvmmctl", "--timeout", "1", "status", NULL };
	char out[4096];

	harness_signal(&h, SIGSTOP);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), argv), 3);
	harness_signal(&h, SIGCONT);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("serve");
	TCase *tcase = harness_case_served(suite, "serve", 60, &h);

	tcase_add_test(tcase, region_life);
	tcase_add_test(tcase, heap_life);
	tcase_add_test(tcase, busy_pool_is_not_destroyed);
	tcase_add_test(tcase, no_descriptor_left);
	tcase_add_loop_test(tcase, session_file_is_lost, 0, 2);
	tcase_add_test(tcase, found_after_stop);
	tcase_add_test(tcase, found_after_kill);
	tcase_add_test(tcase, client_outlives_daemon);
	tcase_add_test(tcase, resize_grows_what_is_in_use);
	tcase_add_test(tcase, list_pages_through_all);
	tcase_add_test(tcase, operator_sees_it);
	tcase_add_test(tcase, socket_file_comes_back);
	tcase_add_test(tcase, waiting_when_the_file_goes);
	tcase_add_test(tcase, socket_directory_comes_back);
	tcase_add_test(tcase, stopped_daemon);
	return harness_run(suite);
}
