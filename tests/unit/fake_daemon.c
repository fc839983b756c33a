/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The fake daemon: one connection at a time, one thread.
 */
#include "tests/unit/fake_daemon.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void count(unsigned *counter)
{
	/* ordering: seq_cst; tests read it from another thread. */
	__atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
}

unsigned fake_count(unsigned *counter)
{
	/* ordering: seq_cst; as in count(). */
	return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

unsigned open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

void fake_init(struct fake *fake)
{
	const char *base = getenv("TMPDIR");

	memset(fake, 0, sizeof(*fake));
	snprintf(fake->dir, sizeof(fake->dir), "%.30s/nvmmd-test-XXXXXX", base ? base : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(fake->dir));
	snprintf(fake->path, sizeof(fake->path), "%s/sock", fake->dir);
	fake->listener = -1;
}

static void say(int conn, Nvmm__Reply *reply, const int *fds, size_t n_fds)
{
	uint8_t *data = malloc(nvmm__reply__get_packed_size(reply));
	size_t len = nvmm__reply__pack(reply, data);

	(void)frame_send(conn, data, len, fds, n_fds, 0);
	free(data);
}

static enum fake_action hello(struct fake *fake, const Nvmm__Request *request, Nvmm__Reply *reply)
{
	static __thread Nvmm__HelloReply result;

	count(&fake->hellos);
	nvmm__hello_reply__init(&result);
	if (request->hello->resume) {
		count(&fake->resumes);
		if (fake->refuse_resume) {
			reply->error = -ESTALE;
			return FAKE_REPLY;
		}
		result.resumed = 1;
	}
	result.version = fake->version ? fake->version : 1;
	result.session = FAKE_SESSION;
	result.node = 1;
	result.run = fake->reborn ? fake_count(&fake->hellos) : 1;
	reply->result_case = NVMM__REPLY__RESULT_HELLO;
	reply->hello = &result;
	return FAKE_REPLY;
}

static enum fake_action dispatch(struct fake *fake, int conn, const Nvmm__Request *request,
				 Nvmm__Reply *reply, int *fds, size_t *n_fds)
{
	if (request->seq == 0)
		return FAKE_HANG_UP;
	if (request->op_case == NVMM__REQUEST__OP_HELLO)
		return hello(fake, request, reply);
	/* ordering: seq_cst; the test's thread reads it. */
	__atomic_store_n(&fake->last_seq, request->seq, __ATOMIC_SEQ_CST);
	if (request->op_case == NVMM__REQUEST__OP_GOODBYE) {
		count(&fake->goodbyes);
		return FAKE_REPLY;
	}
	count(&fake->requests);
	return fake->serve ? fake->serve(fake, conn, request, reply, fds, n_fds) : FAKE_REPLY;
}

/* Serves one packet. */
static enum fake_action serve_one(struct fake *fake, int conn, struct frame *frame)
{
	Nvmm__Reply reply = NVMM__REPLY__INIT;
	Nvmm__Request *request;
	enum fake_action action;
	int fds[FRAME_FDS_MAX];
	size_t n_fds = 0;

	if (frame_recv(frame, conn, 0) <= 0)
		return FAKE_HANG_UP;
	frame_close_fds(frame);
	if (frame_unread(conn) > 0)
		count(&fake->early);
	request = nvmm__request__unpack(NULL, frame->len, frame->data);
	if (!request)
		return FAKE_HANG_UP;
	reply.seq = request->seq;
	action = dispatch(fake, conn, request, &reply, fds, &n_fds);
	if (action == FAKE_REPLY)
		say(conn, &reply, fds, n_fds);
	nvmm__request__free_unpacked(request, NULL);
	return action;
}

static bool wait_readable(struct fake *fake, int fd)
{
	struct pollfd p[2] = {
		{ .fd = fd, .events = POLLIN },
		{ .fd = fake->stop[0], .events = POLLIN },
	};

	return poll(p, 2, -1) > 0 && p[1].revents == 0;
}

static void *run(void *arg)
{
	struct fake *fake = arg;
	struct frame *frame = malloc(sizeof(*frame));
	enum fake_action action = FAKE_REPLY;

	while (action != FAKE_STOP && wait_readable(fake, fake->listener)) {
		int conn = accept(fake->listener, NULL, NULL);

		action = FAKE_REPLY;
		while ((action == FAKE_REPLY || action == FAKE_SILENT) && wait_readable(fake, conn))
			action = serve_one(fake, conn, frame);
		close(conn);
	}
	close(fake->listener);
	free(frame);
	return NULL;
}

void fake_start(struct fake *fake)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", fake->path);
	fake->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fake->listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(fake->listener, 8), 0);
	ck_assert_int_eq(pipe(fake->stop), 0);
	ck_assert_int_eq(pthread_create(&fake->thread, NULL, run, fake), 0);
	fake->started = true;
}

void fake_stop(struct fake *fake)
{
	if (fake->started) {
		close(fake->stop[1]);
		pthread_join(fake->thread, NULL);
		close(fake->stop[0]);
		fake->started = false;
	}
	unlink(fake->path);
	rmdir(fake->dir);
}
