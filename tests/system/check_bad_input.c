/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What no client of ours would send: the daemon refuses it with a reason or hangs up, and serves
 * on. An honest client has a heap open throughout, and finds it as it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/system/raw.h"

#define MIB (UINT64_C(1) << 20)
#define RANDOM_MESSAGES 3000u

static struct harness h;
static struct nvmm_client *honest;
static struct nvmm_heap *heap;
static nvmm_pool_id heap_id;
static nvmm_ptr kept;

static void start(void)
{
	harness_init(&h, NULL);
	harness_start(&h);
	honest = harness_connect(&h);
	heap = harness_heap(honest, &heap_id, MIB, "honest", 0);
	kept = nvmm_alloc(heap, 100);
	ck_assert_uint_ne(kept, NVMM_NULL);
	strcpy(nvmm_local(honest, kept), "undisturbed");
}

/* The honest client's words, after all of it. */
static void stop(void)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };
	nvmm_pool_id id;
	nvmm_ptr large;

	harness_alive(&h);
	ck_assert_str_eq(nvmm_local(honest, kept), "undisturbed");
	ck_assert_int_eq(nvmm_heap_stat(heap, &info), 0);
	ck_assert_uint_eq(info.blocks, 1);
	large = nvmm_alloc(heap, 500000);
	ck_assert_uint_ne(large, NVMM_NULL);
	ck_assert_int_eq(nvmm_free(heap, large), 0);
	ck_assert_int_eq(nvmm_free(heap, kept), 0);
	ck_assert_int_eq(nvmm_pool_lookup(honest, "honest", &id), 0);
	ck_assert_uint_eq(id, heap_id);
	nvmm_heap_close(heap);
	nvmm_disconnect(honest);
	harness_stop(&h);
}

static void send_and_close(const void *data, size_t len, bool hello)
{
	struct raw raw;
	Nvmm__Reply *reply;

	raw_connect(&raw, &h);
	if (hello)
		raw_hello(&raw);
	if (raw_send(&raw, data, len) == 0) {
		/* Half-closed, so that an answer that never comes is told by the hang-up. */
		shutdown(raw.sock, SHUT_WR);
		reply = raw_receive(&raw);
		if (reply)
			nvmm__reply__free_unpacked(reply, NULL);
	}
	raw_close(&raw);
}

START_TEST(oversized)
{
	static uint8_t data[150000];
	static const size_t lengths[] = { 65535, 65536, 65537, 100000, sizeof(data) };

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		send_and_close(data, lengths[i], true);
		send_and_close(data, lengths[i], false);
	}
}
END_TEST

static size_t pack_create(uint8_t *out, const char *name)
{
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__PoolCreate op = NVMM__POOL_CREATE__INIT;

	op.kind = 7;
	op.size = MIB;
	op.name = (char *)(uintptr_t)name;
	op.mode = 0600;
	request.seq = 1;
	request.op_case = NVMM__REQUEST__OP_POOL_CREATE;
	request.pool_create = &op;
	return nvmm__request__pack(&request, out);
}

/* No kind is 7, so that none of these makes a pool. */
START_TEST(truncated)
{
	uint8_t packed[256];
	size_t len = pack_create(packed, "truncated");

	for (size_t n = 1; n <= len; n++)
		send_and_close(packed, n, true);
}
END_TEST

START_TEST(without_hello)
{
	uint8_t packed[256];
	size_t len = pack_create(packed, "early");

	send_and_close(packed, len, false);
}
END_TEST

static void fill_random(uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)random();
}

/* Random bytes, and valid messages with a few bytes changed. */
START_TEST(random_messages)
{
	uint8_t data[512];
	unsigned seed = (unsigned)harness_now_us();

	printf("random_messages: seed %u\n", seed);
	srandom(seed);
	for (unsigned i = 0; i < RANDOM_MESSAGES; i++) {
		size_t len;

		if (i % 2) {
			len = 1 + (size_t)random() % (sizeof(data) - 1);
			fill_random(data, len);
		} else {
			len = pack_create(data, "random");
			for (long n = random() % 4; n >= 0; n--)
				data[(size_t)random() % len] = (uint8_t)random();
		}
		send_and_close(data, len, i % 4 < 2);
	}
}
END_TEST

START_TEST(unknown_operations)
{
	static const uint8_t only_seq[] = { 0x08, 0x01 };
	static const uint8_t field_100[] = { 0x08, 0x01, 0xa2, 0x06, 0x02, 0x08, 0x01 };

	send_and_close(only_seq, sizeof(only_seq), true);
	send_and_close(field_100, sizeof(field_100), true);
}
END_TEST

/* More descriptors than any message has. */
START_TEST(descriptors)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * 200)];
	} control;
	struct iovec iov = { .iov_base = (void *)(uintptr_t)"x", .iov_len = 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	static const size_t counts[] = { 1, 4, 5, 200 };
	struct raw raw;

	for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
		struct cmsghdr *cmsg;

		memset(&control, 0, sizeof(control));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * counts[c]);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * counts[c]);
		raw_connect(&raw, &h);
		raw_hello(&raw);
		for (size_t i = 0; i < counts[c]; i++)
			memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &raw.sock, sizeof(int));
		/* Kernels from 6.16 on refuse it, as the daemon asks them to. */
		ck_assert(sendmsg(raw.sock, &msg, MSG_NOSIGNAL) == 1 || errno == EPERM);
		raw_close(&raw);
	}
}
END_TEST

/* Values out of range, each in an otherwise valid request. */

#define SET(op_name, OP_NAME, OpType, TYPE, ...)                           \
	do {                                                               \
		Nvmm__Request request = NVMM__REQUEST__INIT;               \
		OpType op = NVMM__##TYPE##__INIT;                          \
		__VA_ARGS__;                                               \
		request.op_case = NVMM__REQUEST__OP_##OP_NAME;             \
		request.op_name = &op;                                     \
		ck_assert_msg(raw_error(&raw, &request) < 0, "accepted: %s", #__VA_ARGS__); \
	} while (0)

#define CREATE(...)                                                        \
	SET(pool_create, POOL_CREATE, Nvmm__PoolCreate, POOL_CREATE, op.kind = 2; op.size = MIB; \
	    op.mode = 0600; __VA_ARGS__)

static void start_raw(struct raw *raw)
{
	raw_connect(raw, &h);
	raw_hello(raw);
}

START_TEST(create_out_of_range)
{
	static const uint64_t wrong_sizes[] = { 0, UINT64_C(1) << 63, UINT64_MAX,
						UINT64_MAX - 4095, (UINT64_C(1) << 48) + 1 };
	static const uint32_t wrong_ids[] = { 65536, 65537, UINT32_MAX };
	static const uint32_t wrong_blocks[] = { 1, 8, 24, 512, UINT32_MAX };
	struct raw raw;

	start_raw(&raw);
	for (size_t i = 0; i < sizeof(wrong_sizes) / sizeof(wrong_sizes[0]); i++) {
		CREATE(op.size = wrong_sizes[i]);
		CREATE(op.size = wrong_sizes[i]; op.kind = 1);
	}
	for (size_t i = 0; i < sizeof(wrong_ids) / sizeof(wrong_ids[0]); i++)
		CREATE(op.id = wrong_ids[i]);
	for (size_t i = 0; i < sizeof(wrong_blocks) / sizeof(wrong_blocks[0]); i++)
		CREATE(op.min_block = wrong_blocks[i]);
	CREATE(op.kind = 0);
	CREATE(op.kind = 3);
	CREATE(op.kind = UINT32_MAX);
	CREATE(op.mode = 07777);
	CREATE(op.mode = UINT32_MAX);
	CREATE(op.durability = 3);
	CREATE(op.id = heap_id);
	raw_close(&raw);
}
END_TEST

START_TEST(names)
{
	static const char *const wrong[] = {
		".", "..", "a/b", "/", "a\nb", "a\x7f", "\x01", "\xff\xfe",
		"0123456789012345678901234567890123456789012345678901234567890123",
	};
	static const uint8_t with_nul[] = { 0x08, 0x02, 0x22, 0x0f, 0x10, 0x02, 0x18, 0x80, 0x80,
					    0x40, 0x22, 0x03, 'a',  0,	  'b',	0x28, 0x80, 0x03,
					    0 };
	struct raw raw;

	start_raw(&raw);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		char *name = (char *)(uintptr_t)wrong[i];

		CREATE(op.name = name);
		SET(pool_lookup, POOL_LOOKUP, Nvmm__PoolLookup, POOL_LOOKUP, op.name = name);
	}
	CREATE(op.name = (char *)(uintptr_t)"honest");
	raw_close(&raw);
	send_and_close(with_nul, sizeof(with_nul), true);
}
END_TEST

START_TEST(pool_requests_out_of_range)
{
	static const uint32_t ids[] = { 0, 2, 65535, 65536, UINT32_MAX };
	struct raw raw;

	start_raw(&raw);
	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		if (ids[i] == heap_id)
			continue;
		SET(pool_stat, POOL_STAT, Nvmm__PoolStat, POOL_STAT, op.id = ids[i]);
		SET(pool_open, POOL_OPEN, Nvmm__PoolOpen, POOL_OPEN, op.id = ids[i]);
		SET(pool_chmod, POOL_CHMOD, Nvmm__PoolChmod, POOL_CHMOD, op.id = ids[i]);
		SET(pool_destroy, POOL_DESTROY, Nvmm__PoolDestroy, POOL_DESTROY, op.id = ids[i]);
		SET(pool_resize, POOL_RESIZE, Nvmm__PoolResize, POOL_RESIZE, op.id = ids[i];
		    op.size = MIB);
		SET(shelf_open, SHELF_OPEN, Nvmm__ShelfOpen, SHELF_OPEN, op.id = ids[i]);
		SET(heap_stat, HEAP_STAT, Nvmm__HeapStat, HEAP_STAT, op.id = ids[i]);
	}
	SET(pool_chmod, POOL_CHMOD, Nvmm__PoolChmod, POOL_CHMOD, op.id = heap_id; op.mode = 010000);
	SET(pool_resize, POOL_RESIZE, Nvmm__PoolResize, POOL_RESIZE, op.id = heap_id; op.size = 0);
	SET(pool_resize, POOL_RESIZE, Nvmm__PoolResize, POOL_RESIZE, op.id = heap_id;
	    op.size = UINT64_C(1) << 63);
	SET(pool_destroy, POOL_DESTROY, Nvmm__PoolDestroy, POOL_DESTROY, op.id = heap_id);
	SET(pool_destroy, POOL_DESTROY, Nvmm__PoolDestroy, POOL_DESTROY, op.id = heap_id; op.kind = 9);
	raw_close(&raw);
}
END_TEST

static void open_heap(struct raw *raw)
{
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__PoolOpen op = NVMM__POOL_OPEN__INIT;

	op.id = heap_id;
	op.write = true;
	request.op_case = NVMM__REQUEST__OP_POOL_OPEN;
	request.pool_open = &op;
	ck_assert_int_eq(raw_error(raw, &request), 0);
}

/* What only an opener may ask, before the open and, with wrong values, after it. */
START_TEST(heap_requests_out_of_range)
{
	uint32_t nobodys[] = { 65535, UINT32_MAX };
	struct raw raw;

	start_raw(&raw);
	SET(span_get, SPAN_GET, Nvmm__SpanGet, SPAN_GET, op.id = heap_id; op.count = 1);
	SET(run_get, RUN_GET, Nvmm__RunGet, RUN_GET, op.id = heap_id; op.units = 1);
	SET(lane_take, LANE_TAKE, Nvmm__LaneTake, LANE_TAKE, op.id = heap_id; op.count = 1);
	SET(root_set, ROOT_SET, Nvmm__RootSet, ROOT_SET, op.id = heap_id;
	    op.name = (char *)(uintptr_t)"r");

	open_heap(&raw);
	SET(span_get, SPAN_GET, Nvmm__SpanGet, SPAN_GET, op.id = heap_id; op.class_ = 51;
	    op.count = 1);
	SET(span_get, SPAN_GET, Nvmm__SpanGet, SPAN_GET, op.id = heap_id; op.class_ = UINT32_MAX;
	    op.count = 1);
	SET(span_get, SPAN_GET, Nvmm__SpanGet, SPAN_GET, op.id = heap_id; op.count = 0);
	SET(run_get, RUN_GET, Nvmm__RunGet, RUN_GET, op.id = heap_id; op.units = 0);
	SET(run_get, RUN_GET, Nvmm__RunGet, RUN_GET, op.id = heap_id; op.units = 1000000);
	SET(run_get, RUN_GET, Nvmm__RunGet, RUN_GET, op.id = heap_id; op.units = UINT64_MAX);
	SET(lane_take, LANE_TAKE, Nvmm__LaneTake, LANE_TAKE, op.id = heap_id; op.count = 0);
	SET(lane_return, LANE_RETURN, Nvmm__LaneReturn, LANE_RETURN, op.id = heap_id;
	    op.lanes = nobodys; op.n_lanes = 2);
	SET(shelf_open, SHELF_OPEN, Nvmm__ShelfOpen, SHELF_OPEN, op.id = heap_id; op.index = 1);
	SET(shelf_open, SHELF_OPEN, Nvmm__ShelfOpen, SHELF_OPEN, op.id = heap_id; op.index = 256);
	SET(root_set, ROOT_SET, Nvmm__RootSet, ROOT_SET, op.id = heap_id);
	SET(root_set, ROOT_SET, Nvmm__RootSet, ROOT_SET, op.id = heap_id;
	    op.name = (char *)(uintptr_t)"012345678901234567890123456789012345678901234567");
	SET(root_get, ROOT_GET, Nvmm__RootGet, ROOT_GET, op.id = heap_id;
	    op.name = (char *)(uintptr_t)"none");
	SET(pool_close, POOL_CLOSE, Nvmm__PoolClose, POOL_CLOSE, op.id = heap_id;
	    op.incarnation = 99);
	raw_close(&raw);
}
END_TEST

/* One that asks and never reads is hung up on; the daemon queues nothing for it. */
START_TEST(never_reads)
{
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__Status op = NVMM__STATUS__INIT;
	uint8_t packed[64];
	struct raw raw;
	int r = 0;

	start_raw(&raw);
	request.op_case = NVMM__REQUEST__OP_STATUS;
	request.status = &op;
	for (unsigned i = 0; i < 100000 && r == 0; i++) {
		request.seq = i + 2;
		r = raw_send(&raw, packed, nvmm__request__pack(&request, packed));
	}
	ck_assert_msg(r < 0, "100000 requests taken from a client that reads no answer");
	raw_close(&raw);
}
END_TEST

START_TEST(wrong_hello)
{
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__Hello op = NVMM__HELLO__INIT;
	uint8_t cookie[16] = { 1 };
	struct raw raw;

	request.op_case = NVMM__REQUEST__OP_HELLO;
	request.hello = &op;
	op.cookie.data = cookie;
	op.cookie.len = sizeof(cookie);
	for (uint32_t version = 0; version < 4; version += 2) {
		op.version = version;
		raw_connect(&raw, &h);
		ck_assert_int_lt(raw_error(&raw, &request), 0);
		raw_close(&raw);
	}
	op.version = 1;
	for (op.cookie.len = 0; op.cookie.len < sizeof(cookie); op.cookie.len += 15) {
		raw_connect(&raw, &h);
		ck_assert_int_lt(raw_error(&raw, &request), 0);
		raw_close(&raw);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("bad input");
	TCase *tcase = harness_case(suite, "bad input", 120);

	tcase_add_checked_fixture(tcase, start, stop);
	tcase_add_test(tcase, oversized);
	tcase_add_test(tcase, truncated);
	tcase_add_test(tcase, without_hello);
	tcase_add_test(tcase, random_messages);
	tcase_add_test(tcase, unknown_operations);
	tcase_add_test(tcase, descriptors);
	tcase_add_test(tcase, create_out_of_range);
	tcase_add_test(tcase, names);
	tcase_add_test(tcase, pool_requests_out_of_range);
	tcase_add_test(tcase, heap_requests_out_of_range);
	tcase_add_test(tcase, never_reads);
	tcase_add_test(tcase, wrong_hello);
	return harness_run(suite);
}
