/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Connections and requests against a daemon that is late, gone, forgetful or talks rubbish.
 */
#include <nvmm/client.h>

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "media/format.h"
#include "media/span.h"
#include "tests/unit/call_fixture.h"
#include "tests/unit/suite.h"

/* Connecting */

START_TEST(test_connect)
{
	fake_start(&fake);
	ck_assert_int_eq(call_connect(2000), 0);
	nvmm_disconnect(nvmm);
	nvmm = NULL;
	ck_assert_uint_eq(fake_count(&fake.hellos), 1);
	ck_assert_uint_eq(fake_count(&fake.goodbyes), 1);
	ck_assert_uint_eq(fake_count(&fake.early), 0);
}
END_TEST

START_TEST(test_connect_refused)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct nvmm_options options = { .size = sizeof(options), .socket = fake.path };
	char longer[200];
	int sock;

	ck_assert_int_eq(call_connect(2000), -ENOENT);
	ck_assert_ptr_nonnull(strstr(nvmm_errmsg(NULL), fake.path));
	/* A socket file that nobody listens on. */
	sock = socket(AF_UNIX, SOCK_STREAM, 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", fake.path);
	ck_assert_int_eq(bind(sock, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(sock, 1), 0);
	ck_assert_int_eq(call_connect(2000), -EPROTO);
	close(sock);
	unlink(fake.path);
	sock = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	ck_assert_int_eq(bind(sock, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(call_connect(2000), -ECONNREFUSED);
	/* Somebody who listens and does not answer. */
	ck_assert_int_eq(listen(sock, 1), 0);
	ck_assert_int_eq(call_connect(100), -ETIMEDOUT);
	close(sock);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	options.socket = longer;
	ck_assert_int_eq(nvmm_connect(&nvmm, &options), -ENAMETOOLONG);
	ck_assert_ptr_null(nvmm);
}
END_TEST

START_TEST(test_options)
{
	struct {
		struct nvmm_options o;
		uint64_t later;
	} options = { .o = { .size = 0, .socket = fake.path } };

	fake_start(&fake);
	ck_assert_int_eq(nvmm_connect(&nvmm, &options.o), -EINVAL);
	options.o.size = sizeof(options.o) - 1;
	ck_assert_int_eq(nvmm_connect(&nvmm, &options.o), -EINVAL);
	options.o.size = sizeof(options);
	options.later = 1; /* asks for what this library does not know */
	ck_assert_int_eq(nvmm_connect(&nvmm, &options.o), -EINVAL);
	options.o.timeout_ms = -2;
	options.later = 0;
	ck_assert_int_eq(nvmm_connect(&nvmm, &options.o), -EINVAL);
	options.o.timeout_ms = 0;
	ck_assert_int_eq(nvmm_connect(&nvmm, &options.o), 0);
}
END_TEST

START_TEST(test_other_version)
{
	fake.version = 2;
	fake_start(&fake);
	ck_assert_int_eq(call_connect(2000), -EPROTO);
	ck_assert_ptr_null(nvmm);
}
END_TEST

/* Infos are filled as far as the program's struct goes. */
START_TEST(test_info_size)
{
	struct {
		struct nvmm_pool_info info;
		uint64_t later;
	} p;
	nvmm_pool_id id;

	fake.serve = call_serve_lookup;
	fake_start(&fake);
	ck_assert_int_eq(call_connect(2000), 0);
	p.info.size = 0;
	ck_assert_int_eq(nvmm_pool_stat(nvmm, 5, &p.info), -EINVAL);
	ck_assert_uint_eq(fake_count(&fake.requests), 0);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "five5", &id), 0);
	ck_assert_uint_eq(id, 5);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "", &id), -EINVAL);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, NULL, &id), -EINVAL);
}
END_TEST

static enum fake_action serve_stat(struct fake *f, int conn, const Nvmm__Request *request,
				   Nvmm__Reply *reply, int *fds, size_t *n_fds)
{
	return call_answer_pool(reply, request->pool_stat->id, NVMM_POOL_HEAP);
}

START_TEST(test_info_versions)
{
	struct {
		struct nvmm_pool_info info;
		uint64_t later;
	} p;

	fake.serve = serve_stat;
	fake_start(&fake);
	ck_assert_int_eq(call_connect(2000), 0);
	memset(&p, 0xaa, sizeof(p));
	p.info.size = offsetof(struct nvmm_pool_info, incarnation);
	ck_assert_int_eq(nvmm_pool_stat(nvmm, 9, &p.info), 0);
	ck_assert_uint_eq(p.info.id, 9);
	ck_assert_uint_eq(p.info.incarnation, UINT64_C(0xaaaaaaaaaaaaaaaa));
	p.info.size = sizeof(p);
	ck_assert_int_eq(nvmm_pool_stat(nvmm, 9, &p.info), 0);
	ck_assert_uint_eq(p.info.incarnation, 3);
	ck_assert_uint_eq(p.info.size, sizeof(p));
	ck_assert_uint_eq(p.later, 0);
}
END_TEST

/* Late replies */

START_TEST(test_late_reply)
{
	nvmm_pool_id id = 0;

	fake.serve = call_serve_lookup;
	fake_start(&fake);
	ck_assert_int_eq(call_connect(100), 0);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "late", &id), -ETIMEDOUT);
	ck_assert_uint_eq(id, 0);
	/* Still late: nothing new may be asked. */
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "abc", &id), -ETIMEDOUT);
	ck_assert_uint_eq(fake_count(&fake.requests), 1);
	usleep(500000);
	/* The late reply is not taken for this one's. */
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "abc", &id), 0);
	ck_assert_uint_eq(id, 3);
	ck_assert_uint_eq(fake_count(&fake.requests), 2);
	ck_assert_uint_eq(fake_count(&fake.early), 0);
}
END_TEST

static int lanes_file;

/* A heap whose lanes come late and which has no room. */
static enum fake_action serve_heap(struct fake *f, int conn, const Nvmm__Request *request,
				   Nvmm__Reply *reply, int *fds, size_t *n_fds)
{
	static uint32_t lane;
	static __thread Nvmm__PoolOpened opened;
	static __thread Nvmm__Shelf last;
	static __thread Nvmm__Lanes lanes;

	switch (request->op_case) {
	case NVMM__REQUEST__OP_POOL_OPEN:
		call_answer_pool(reply, request->pool_open->id, NVMM_POOL_HEAP);
		nvmm__pool_opened__init(&opened);
		nvmm__shelf__init(&last);
		last.size = last.limit = 1 << 20;
		opened.pool = reply->pool;
		opened.last = &last;
		reply->result_case = NVMM__REPLY__RESULT_OPENED;
		reply->opened = &opened;
		if (request->pool_open->id == 2)
			usleep(300000);
		fds[0] = lanes_file;
		*n_fds = 1;
		return FAKE_REPLY;
	case NVMM__REQUEST__OP_SHELF_OPEN:
		/* What is in the files does not matter here. */
		nvmm__shelf__init(&last);
		last.size = last.limit = 1 << 20;
		reply->result_case = NVMM__REPLY__RESULT_SHELF;
		reply->shelf = &last;
		fds[0] = fds[1] = fds[2] = lanes_file;
		*n_fds = 3;
		return FAKE_REPLY;
	case NVMM__REQUEST__OP_LANE_TAKE:
		usleep(300000);
		lane = 5;
		nvmm__lanes__init(&lanes);
		lanes.lanes = &lane;
		lanes.n_lanes = 1;
		reply->result_case = NVMM__REPLY__RESULT_LANES;
		reply->lanes = &lanes;
		return FAKE_REPLY;
	case NVMM__REQUEST__OP_SPAN_GET:
		reply->error = -ENOSPC;
		return FAKE_REPLY;
	case NVMM__REQUEST__OP_LANE_RETURN:
		ck_assert_uint_eq(request->lane_return->n_lanes, 1);
		ck_assert_uint_eq(request->lane_return->lanes[0], 5);
		return FAKE_REPLY;
	case NVMM__REQUEST__OP_POOL_CLOSE:
		/* 0: of an open whose reply nobody waited for. */
		ck_assert(request->pool_close->incarnation == 3 ||
			  request->pool_close->incarnation == 0);
		ck_assert(request->pool_close->write);
		return FAKE_REPLY;
	default:
		ck_abort_msg("request %d", request->op_case);
	}
}

static void make_lanes_file(void)
{
	lanes_file = memfd_create("lanes", MFD_CLOEXEC);
	ck_assert_int_eq(ftruncate(lanes_file, (off_t)lanes_file_size(16)), 0);
}

/* What a late reply gives is kept: the lane is used without being asked for again. */
START_TEST(test_late_lanes)
{
	struct nvmm_heap *heap;
	unsigned before;

	make_lanes_file();
	fake.serve = serve_heap;
	fake_start(&fake);
	ck_assert_int_eq(call_connect(100), 0);
	before = open_fds();
	ck_assert_int_eq(nvmm_heap_open(&heap, nvmm, 1, O_RDWR), 0);
	ck_assert_uint_eq(open_fds(), before);
	errno = 0;
	ck_assert_uint_eq(nvmm_alloc(heap, 64), NVMM_NULL);
	ck_assert_int_eq(errno, ETIMEDOUT);
	ck_assert_uint_eq(fake_count(&fake.requests), 3);
	usleep(300000);
	/* Takes lane 5, asks for spans, once more after it gave up what it holds. */
	ck_assert_uint_eq(nvmm_alloc(heap, 64), NVMM_NULL);
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_ptr_nonnull(strstr(nvmm_errmsg(nvmm), "no room"));
	nvmm_heap_close(heap);
	/* Open, shelf, take, one or two times spans, return, close. */
	ck_assert_uint_ge(fake_count(&fake.requests), 6);
	ck_assert_uint_le(fake_count(&fake.requests), 7);
	ck_assert_uint_eq(fake_count(&fake.early), 0);
	close(lanes_file);
}
END_TEST

/* A pool whose opening came late is closed again, its descriptor too. */
START_TEST(test_late_open)
{
	struct nvmm_heap *heap;
	unsigned before;

	make_lanes_file();
	fake.serve = serve_heap;
	fake_start(&fake);
	ck_assert_int_eq(call_connect(100), 0);
	before = open_fds();
	ck_assert_int_eq(nvmm_heap_open(&heap, nvmm, 2, O_RDWR), -ETIMEDOUT);
	usleep(300000);
	ck_assert_int_eq(nvmm_heap_open(&heap, nvmm, 1, O_RDWR), 0);
	/* Open, close, open, shelf. */
	ck_assert_uint_eq(fake_count(&fake.requests), 4);
	ck_assert_uint_eq(open_fds(), before);
	close(lanes_file);
}
END_TEST

/* Rubbish */

static int rubbish;

static enum fake_action serve_rubbish(struct fake *f, int conn, const Nvmm__Request *request,
				      Nvmm__Reply *reply, int *fds, size_t *n_fds)
{
	static const uint8_t noise[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x07 };

	call_answer_pool(reply, 3, NVMM_POOL_REGION);
	switch (rubbish) {
	case 0:
		(void)frame_send(conn, noise, sizeof(noise), NULL, 0, 0);
		return FAKE_SILENT;
	case 1:
		reply->seq++;
		return FAKE_REPLY;
	case 2:
		reply->error = 5;
		return FAKE_REPLY;
	case 3:
		reply->error = -100000;
		return FAKE_REPLY;
	case 4:
		reply->result_case = NVMM__REPLY__RESULT__NOT_SET;
		return FAKE_REPLY;
	case 5:
		fds[0] = fds[1] = 0;
		*n_fds = 2;
		return FAKE_REPLY;
	case 6:
		reply->pool->id = 70000;
		return FAKE_REPLY;
	case 7:
		reply->pool->kind = 9;
		return FAKE_REPLY;
	default:
		reply->pool->name = (char *)(uintptr_t) "a name that is longer than any pool's name "
							"may be, which has at most 63 bytes";
		return FAKE_REPLY;
	}
}
#define RUBBISH 9

START_TEST(test_rubbish)
{
	nvmm_pool_id id = 0;
	unsigned before;

	rubbish = _i;
	fake.serve = serve_rubbish;
	fake_start(&fake);
	ck_assert_int_eq(call_connect(2000), 0);
	before = open_fds();
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "x", &id), -EPROTO);
	ck_assert_uint_eq(id, 0);
	ck_assert_str_ne(nvmm_errmsg(nvmm), "");
	ck_assert_uint_le(open_fds(), before);
}
END_TEST

/* The daemon goes away */

static unsigned hang_ups;

static enum fake_action serve_hang_up(struct fake *f, int conn, const Nvmm__Request *request,
				      Nvmm__Reply *reply, int *fds, size_t *n_fds)
{
	static uint64_t seq;

	if (hang_ups == 0) {
		/* The same request again, by its number. */
		ck_assert_uint_eq(request->seq, seq);
		return call_answer_pool(reply, 4, NVMM_POOL_REGION);
	}
	seq = request->seq;
	hang_ups--;
	return FAKE_HANG_UP;
}

START_TEST(test_resume)
{
	nvmm_pool_id id = 0;

	hang_ups = 1;
	fake.serve = serve_hang_up;
	fake_start(&fake);
	ck_assert_int_eq(call_connect(5000), 0);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "x", &id), 0);
	ck_assert_uint_eq(id, 4);
	ck_assert_uint_eq(fake_count(&fake.resumes), 1);
}
END_TEST

/* A daemon that hangs up on a request again and again is not asked for ever. */
START_TEST(test_hang_up)
{
	nvmm_pool_id id = 0;

	hang_ups = 1000;
	fake.serve = serve_hang_up;
	fake_start(&fake);
	ck_assert_int_eq(call_connect(-1), 0);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "x", &id), -ECONNRESET);
	ck_assert_uint_le(fake_count(&fake.requests), 3);
}
END_TEST

/* Daemons that die one after the other cost waiting alone; a request that kills them all ends, too. */
START_TEST(test_deaths)
{
	nvmm_pool_id id = 0;

	fake.reborn = true;
	hang_ups = 20;
	fake.serve = serve_hang_up;
	fake_start(&fake);
	ck_assert_int_eq(call_connect(-1), 0);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "x", &id), 0);
	ck_assert_uint_eq(id, 4);
	ck_assert_uint_eq(fake_count(&fake.requests), 21);
	hang_ups = 1000;
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "x", &id), -ECONNRESET);
	ck_assert_uint_le(fake_count(&fake.requests), 21 + 100);
}
END_TEST

START_TEST(test_session_lost)
{
	nvmm_pool_id id = 0;

	hang_ups = 1;
	fake.refuse_resume = true;
	fake.serve = serve_hang_up;
	fake_start(&fake);
	ck_assert_int_eq(call_connect(5000), 0);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "x", &id), -ECONNRESET);
	ck_assert_ptr_nonnull(strstr(nvmm_errmsg(nvmm), "connect anew"));
	/* For good, and at once. */
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "x", &id), -ECONNRESET);
	ck_assert_uint_eq(fake_count(&fake.resumes), 1);
}
END_TEST

static enum fake_action serve_stop(struct fake *f, int conn, const Nvmm__Request *request,
				   Nvmm__Reply *reply, int *fds, size_t *n_fds)
{
	return FAKE_STOP;
}

START_TEST(test_daemon_away)
{
	struct timespec from, to;
	nvmm_pool_id id = 0;

	fake.serve = serve_stop;
	fake_start(&fake);
	ck_assert_int_eq(call_connect(300), 0);
	clock_gettime(CLOCK_MONOTONIC, &from);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "x", &id), -ETIMEDOUT);
	clock_gettime(CLOCK_MONOTONIC, &to);
	ck_assert_int_ge((to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000,
			 299);
	ck_assert_ptr_nonnull(strstr(nvmm_errmsg(nvmm), "no daemon came back"));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("call");
	TCase *tc = tcase_create("call");

	tcase_add_checked_fixture(tc, call_setup, call_teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, test_connect);
	tcase_add_test(tc, test_connect_refused);
	tcase_add_test(tc, test_options);
	tcase_add_test(tc, test_other_version);
	tcase_add_test(tc, test_info_size);
	tcase_add_test(tc, test_info_versions);
	tcase_add_test(tc, test_late_reply);
	tcase_add_test(tc, test_late_lanes);
	tcase_add_test(tc, test_late_open);
	tcase_add_loop_test(tc, test_rubbish, 0, RUBBISH);
	tcase_add_test(tc, test_resume);
	tcase_add_test(tc, test_hang_up);
	tcase_add_test(tc, test_deaths);
	tcase_add_test(tc, test_session_lost);
	tcase_add_test(tc, test_daemon_away);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
