/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Packets: whole, with descriptors, and nothing left open of those that are refused.
 */
#include "proto/frame.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/fake_daemon.h"
#include "tests/unit/suite.h"

static int pair[2];
static struct frame frame;

static void setup(void)
{
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
}

static void teardown(void)
{
	close(pair[0]);
	close(pair[1]);
}

START_TEST(test_round_trip)
{
	int fds[2] = { open("/dev/null", O_RDONLY), open("/dev/zero", O_RDONLY) };
	char byte = 1;

	ck_assert_int_eq(frame_send(pair[0], "hello", 5, fds, 2, 0), 0);
	ck_assert_int_gt(frame_unread(pair[0]), 0);
	ck_assert_int_eq(frame_recv(&frame, pair[1], 0), 1);
	ck_assert_int_eq(frame_unread(pair[0]), 0);
	ck_assert_uint_eq(frame.len, 5);
	ck_assert_mem_eq(frame.data, "hello", 5);
	ck_assert_uint_eq(frame.n_fds, 2);
	ck_assert_int_eq(read(frame.fds[1], &byte, 1), 1);
	ck_assert_int_eq(byte, 0);
	ck_assert_int_eq(fcntl(frame.fds[0], F_GETFD), FD_CLOEXEC);
	frame_close_fds(&frame);
	ck_assert_uint_eq(frame.n_fds, 0);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

START_TEST(test_largest)
{
	uint8_t *data = calloc(1, FRAME_MAX + 1);

	data[FRAME_MAX - 1] = 9;
	ck_assert_int_eq(frame_send(pair[0], data, FRAME_MAX, NULL, 0, 0), 0);
	ck_assert_int_eq(frame_recv(&frame, pair[1], 0), 1);
	ck_assert_uint_eq(frame.len, FRAME_MAX);
	ck_assert_int_eq(frame.data[FRAME_MAX - 1], 9);
	ck_assert_int_eq(frame_send(pair[0], data, FRAME_MAX + 1, NULL, 0, 0), -EMSGSIZE);
	ck_assert_int_eq(frame_send(pair[0], data, 0, NULL, 0, 0), -EMSGSIZE);
	free(data);
}
END_TEST

/* Sends past frame_send()'s own limits. */
static void send_raw(size_t len, const int *fds, size_t n)
{
	union {
		char buf[CMSG_SPACE(64 * sizeof(int))];
		struct cmsghdr align;
	} control = { .buf = { 0 } };
	uint8_t *data = calloc(1, len);
	struct iovec iov = { .iov_base = data, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n > 0) {
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, n * sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
	}
	ck_assert_int_eq(sendmsg(pair[0], &msg, 0), (ssize_t)len);
	free(data);
}

START_TEST(test_oversized)
{
	int fds[2] = { 0, 0 };
	unsigned before = open_fds();

	send_raw(FRAME_MAX + 1, fds, 2);
	ck_assert_int_eq(frame_recv(&frame, pair[1], 0), -EMSGSIZE);
	ck_assert_uint_eq(open_fds(), before);
	/* The packet is gone whole: the next one is read as such. */
	ck_assert_int_eq(frame_send(pair[0], "x", 1, NULL, 0, 0), 0);
	ck_assert_int_eq(frame_recv(&frame, pair[1], 0), 1);
	ck_assert_uint_eq(frame.len, 1);
}
END_TEST

START_TEST(test_too_many_fds)
{
	int fds[64] = { 0 };
	unsigned before = open_fds();

	send_raw(1, fds, FRAME_FDS_MAX + 1);
	ck_assert_int_eq(frame_recv(&frame, pair[1], 0), -EPROTO);
	ck_assert_uint_eq(open_fds(), before);
	send_raw(1, fds, 64);
	ck_assert_int_eq(frame_recv(&frame, pair[1], 0), -EPROTO);
	ck_assert_uint_eq(open_fds(), before);
	ck_assert_int_eq(frame_send(pair[0], "x", 1, fds, FRAME_FDS_MAX + 1, 0), -EINVAL);
}
END_TEST

START_TEST(test_no_fd_free)
{
	struct rlimit old, none;
	int fds[2] = { 0, 0 };
	unsigned before = open_fds();
	int r;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = old;
	none.rlim_cur = (rlim_t)pair[1] + 1;
	send_raw(1, fds, 2);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	r = frame_recv(&frame, pair[1], 0);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	ck_assert_int_eq(r, -EMFILE);
	ck_assert_uint_eq(open_fds(), before);
}
END_TEST

START_TEST(test_ends)
{
	ck_assert_int_eq(frame_recv(&frame, pair[1], MSG_DONTWAIT), -EAGAIN);
	shutdown(pair[0], SHUT_WR);
	ck_assert_int_eq(frame_recv(&frame, pair[1], 0), 0);
	close(pair[1]);
	/* Without a signal. */
	ck_assert_int_eq(frame_send(pair[0], "x", 1, NULL, 0, 0), -EPIPE);
	pair[1] = open("/dev/null", O_RDONLY);
	ck_assert_int_eq(frame_recv(&frame, pair[1], 0), -ENOTSOCK);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("frame");
	TCase *tc = tcase_create("frame");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test_round_trip);
	tcase_add_test(tc, test_largest);
	tcase_add_test(tc, test_oversized);
	tcase_add_test(tc, test_too_many_fds);
	tcase_add_test(tc, test_no_fd_free);
	tcase_add_test(tc, test_ends);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
