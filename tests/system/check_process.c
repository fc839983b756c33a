/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What comes from outside of the protocol: signals, closed standard descriptors, `ulimit -f`, and
 * descriptors that a client sends to the daemon.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/raw.h"

#define MIB (UINT64_C(1) << 20)
#define PASSRIGHTS 83 /* SO_PASSRIGHTS */
#define LINGER_SECONDS 60
#define TURN_LIMIT_US 250000

static struct harness h;

static void start(void)
{
	harness_init(&h, NULL);
	harness_start(&h);
}

static void stop(void)
{
	harness_stop(&h);
}

START_TEST(stray_signals_end_nothing)
{
	static const int strays[] = { SIGUSR1, SIGUSR2, SIGALRM, SIGXFSZ, SIGPIPE, SIGPROF, SIGIO };

	for (size_t i = 0; i < sizeof(strays) / sizeof(strays[0]); i++)
		harness_signal(&h, strays[i]);
	harness_signal(&h, SIGRTMIN + 3);
	harness_signal(&h, SIGRTMAX);
	harness_alive(&h);
}
END_TEST

static void close_standard(void)
{
	close(STDIN_FILENO);
	close(STDOUT_FILENO);
}

/* Where a descriptor of the daemon leads. */
static void expect_fd(int fd, const char *target)
{
	char path[64], link[256];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)h.daemon, fd);
	n = readlink(path, link, sizeof(link) - 1);
	ck_assert_int_gt(n, 0);
	link[n] = '\0';
	ck_assert_str_eq(link, target);
}

START_TEST(daemon_without_standard_descriptors)
{
	harness_stop(&h);
	h.prepare = close_standard;
	harness_start(&h);
	expect_fd(STDIN_FILENO, "/dev/null");
	expect_fd(STDOUT_FILENO, "/dev/null");
	harness_alive(&h);
}
END_TEST

static uint64_t protocol_errors(void)
{
	static char out[65536];
	const char *argv[] = { "ctl/nvmmctl", "status", "--json", NULL };
	const char *at;

	ck_assert_int_eq(harness_command(&h, out, sizeof(out), argv), 0);
	at = strstr(out, "\"protocol_errors\"");
	ck_assert_ptr_nonnull(at);
	at = strstr(at, "\"value\":");
	ck_assert_ptr_nonnull(at);
	return strtoull(at + strlen("\"value\":"), NULL, 10);
}

/* Output that cannot be written is a failure, and never goes to the daemon. */
START_TEST(output_that_cannot_be_written)
{
	static const char *const ends[] = { ">&-", ">/dev/full", "0<&- >&-", "0<&- >&- 2>&-" };
	static const char *const commands[] = { "pools", "status", "pools --json", "--help" };
	uint64_t before = protocol_errors();
	char line[600];
	int status;

	for (size_t i = 0; i < 16; i++) {
		snprintf(line, sizeof(line), "NVMM_SOCKET=%s %s/ctl/nvmmctl %s %s", h.socket,
			 BUILD_DIR, commands[i / 4], ends[i % 4]);
		status = system(line);
		ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 1, "%s: status 0x%x", line,
			      status);
	}
	ck_assert_uint_eq(protocol_errors(), before);
}
END_TEST

/* Its wake-ups of the daemon are writes to a file. Check writes files for its own assertions, so
 * there are none under the limit. */
static void free_under_limit(void *arg)
{
	const struct rlimit none = { .rlim_cur = 0, .rlim_max = RLIM_INFINITY };
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	nvmm_pool_id id = 0;
	nvmm_ptr p;

	close(STDIN_FILENO);
	nvmm = harness_connect(&h);
	heap = harness_heap(nvmm, &id, 4 * MIB, NULL, 0);
	if (setrlimit(RLIMIT_FSIZE, &none) < 0)
		_exit(2);
	for (unsigned i = 0; i < 20; i++) {
		p = nvmm_alloc(heap, 4096);
		if (p == NVMM_NULL || nvmm_free_deferred(heap, p) != 0)
			_exit(3);
		harness_sleep_ms(20); /* the daemon sleeps by then, and is woken */
	}
	nvmm_heap_close(heap);
	/* What it keeps open stays away from the standard descriptors. */
	if (fcntl(STDIN_FILENO, F_GETFD) != -1)
		_exit(4);
	nvmm_disconnect(nvmm);
	_exit(0);
}

START_TEST(program_under_file_size_limit)
{
	harness_join(harness_fork(free_under_limit, NULL));
}
END_TEST

static void short_files(void)
{
	setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 8 * MIB, 8 * MIB });
}

/* It says what stands in the way, leaves nothing behind, and goes on. */
START_TEST(daemon_under_file_size_limit)
{
	struct nvmm_client *nvmm;
	nvmm_pool_id id = 0;

	harness_stop(&h);
	h.prepare = short_files;
	harness_start(&h);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, 16 * MIB, NULL), -EFBIG);
	ck_assert_msg(strstr(nvmm_errmsg(nvmm), "ulimit -f"), "%s", nvmm_errmsg(nvmm));
	id = 0;
	ck_assert_int_eq(nvmm_region_create(nvmm, &id, MIB, NULL), 0);
	ck_assert_int_eq(nvmm_pool_resize(nvmm, id, 16 * MIB), -EFBIG);
	ck_assert_msg(strstr(nvmm_errmsg(nvmm), "ulimit -f"), "%s", nvmm_errmsg(nvmm));
	nvmm_disconnect(nvmm);
	harness_alive(&h);
}
END_TEST

/* A TCP socket with unsent data whose last close waits LINGER_SECONDS. */
static int lingering_socket(int *peer)
{
	const struct linger linger = { .l_onoff = 1, .l_linger = LINGER_SECONDS };
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);
	/* Close-on-exec: a daemon that is started later must not have a reference of its own. */
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	static const char data[65536];

	ck_assert_int_eq(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	*peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	close(listener);
	while (send(fd, data, sizeof(data), MSG_DONTWAIT) > 0)
		;
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
	return fd;
}

/* Whether the kernel delivers it. */
static bool send_fd(int sock, int fd)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { .space = { 0 } };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)"x", .iov_len = 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };

	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	control.align.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.align), &fd, sizeof(int));
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) == 1)
		return true;
	ck_assert_int_eq(errno, EPERM);
	return false;
}

/* In the daemon's process: the kernel seems to be one that knows no SO_PASSRIGHTS. */
static void older_kernel(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setsockopt, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PASSRIGHTS, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOPROTOOPT),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		_exit(125);
}

/* Before Hello, after it, and on a connection that is closed at once; here, and on an older kernel. */
START_TEST(lingering_socket_holds_nobody_up)
{
	struct raw raw;
	int peer, fd = lingering_socket(&peer);
	const struct linger no_linger = { .l_onoff = 0 };

	if (_i >= 3) {
		harness_stop(&h);
		h.prepare = older_kernel;
		harness_start(&h);
	}
	raw_connect(&raw, &h);
	if (_i % 3 == 1)
		raw_hello(&raw);
	/* Stopped until this process has closed its own, so that the daemon has the last reference. */
	harness_signal(&h, SIGSTOP);
	/* One that the kernel refused is this process's alone, and would linger here. */
	if (!send_fd(raw.sock, fd))
		ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &no_linger,
					    sizeof(no_linger)), 0);
	close(fd);
	if (_i % 3 == 2)
		raw_close(&raw);
	harness_signal(&h, SIGCONT);
	harness_sleep_ms(100);
	harness_alive(&h);
	ck_assert_uint_lt(raw_longest_turn_us(&h, 60), TURN_LIMIT_US);
	if (_i % 3 != 2)
		raw_close(&raw);
	harness_alive(&h);
	close(peer);
	ck_assert_uint_lt(raw_longest_turn_us(&h, 60), TURN_LIMIT_US);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("process");
	TCase *tc = harness_case(suite, "process", 60);

	tcase_add_checked_fixture(tc, start, stop);
	tcase_add_test(tc, stray_signals_end_nothing);
	tcase_add_test(tc, daemon_without_standard_descriptors);
	tcase_add_test(tc, output_that_cannot_be_written);
	tcase_add_test(tc, program_under_file_size_limit);
	tcase_add_test(tc, daemon_under_file_size_limit);
	tcase_add_loop_test(tc, lingering_socket_holds_nobody_up, 0, 6);
	return harness_run(suite);
}
