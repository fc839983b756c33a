/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See daemon_child.h. The daemon is the library's nvmmd_main() in a fork, so that it runs with
 * whatever media backend the test set, under the test's sanitizer.
 */
#include "tests/unit/daemon_child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/nvmmd.h"
#include "tests/unit/tempdir.h"

#define START_TRIES 2000

void daemon_child_config(struct daemon_child *d, const char *extra)
{
	FILE *f = fopen(d->config, "w");

	ck_assert_ptr_nonnull(f);
	fprintf(f,
		"node:\n  id: 1\nshelves:\n  base: %s\nsocket:\n  path: %s\n  mode: 0666\nruntime: "
		"%s\n%s\n",
		d->base, d->socket, d->run, extra ? extra : "");
	ck_assert_int_eq(fclose(f), 0);
}

void daemon_child_init(struct daemon_child *d, const char *extra)
{
	memset(d, 0, sizeof(*d));
	close(tempdir_new(&d->dir));
	snprintf(d->base, sizeof(d->base), "%s/base", d->dir);
	snprintf(d->run, sizeof(d->run), "%s/run", d->dir);
	snprintf(d->config, sizeof(d->config), "%s/config.yaml", d->dir);
	snprintf(d->socket, sizeof(d->socket), "%s/socket", d->dir);
	daemon_child_config(d, extra);
}

static void child_main(struct daemon_child *d)
{
	char name[] = "nvmmd", option[] = "--config", log[256];
	char *argv[] = { name, option, d->config, NULL };
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(log, sizeof(log), "%s/log", d->dir);
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd >= 0)
		dup2(fd, STDERR_FILENO);
	if (d->setup)
		d->setup();
	exit(nvmmd_main(3, argv));
}

static void child_fork(struct daemon_child *d)
{
	d->pid = fork();
	ck_assert_int_ge(d->pid, 0);
	if (d->pid == 0)
		child_main(d);
}

static int try_connect(const struct daemon_child *d)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", d->socket);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		return fd;
	close(fd);
	return -1;
}

void daemon_child_start(struct daemon_child *d)
{
	int fd = -1, status;

	child_fork(d);
	for (int i = 0; i < START_TRIES && fd < 0; i++) {
		fd = try_connect(d);
		if (fd < 0)
			usleep(5000);
		ck_assert_msg(waitpid(d->pid, &status, WNOHANG) == 0,
			      "the daemon ended: see %s/log", d->dir);
	}
	ck_assert_int_ge(fd, 0);
	close(fd);
}

int daemon_child_wait(struct daemon_child *d)
{
	int status;

	ck_assert_int_eq(waitpid(d->pid, &status, 0), d->pid);
	d->pid = 0;
	return status;
}

int daemon_child_fail(struct daemon_child *d)
{
	int status;

	child_fork(d);
	status = daemon_child_wait(d);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

int daemon_child_stop(struct daemon_child *d)
{
	int status;

	kill(d->pid, SIGTERM);
	status = daemon_child_wait(d);
	ck_assert_msg(WIFEXITED(status), "the daemon ended by signal %d", WTERMSIG(status));
	return WEXITSTATUS(status);
}

void daemon_child_kill(struct daemon_child *d)
{
	kill(d->pid, SIGKILL);
	daemon_child_wait(d);
}

void raw_connect(struct raw_client *c, const struct daemon_child *d)
{
	memset(c, 0, sizeof(*c));
	c->fd = try_connect(d);
	ck_assert_int_ge(c->fd, 0);
}

void raw_close(struct raw_client *c)
{
	frame_close_fds(&c->frame);
	if (c->reply)
		nvmm__reply__free_unpacked(c->reply, NULL);
	c->reply = NULL;
	close(c->fd);
	c->fd = -1;
}

int raw_send(struct raw_client *c, Nvmm__Request *request)
{
	uint8_t data[4096];

	ck_assert_uint_le(nvmm__request__get_packed_size(request), sizeof(data));
	return frame_send(c->fd, data, nvmm__request__pack(request, data), NULL, 0, 0);
}

int raw_receive(struct raw_client *c)
{
	int r;

	frame_close_fds(&c->frame);
	if (c->reply)
		nvmm__reply__free_unpacked(c->reply, NULL);
	c->reply = NULL;
	r = frame_recv(&c->frame, c->fd, 0);
	if (r <= 0)
		return -ECONNRESET;
	c->reply = nvmm__reply__unpack(NULL, c->frame.len, c->frame.data);
	ck_assert_ptr_nonnull(c->reply);
	if (c->reply->error != 0)
		ck_assert_str_ne(c->reply->text, "");
	return c->reply->error;
}

int raw_repeat(struct raw_client *c, Nvmm__Request *request)
{
	int r = raw_send(c, request);

	return r < 0 ? -ECONNRESET : raw_receive(c);
}

int raw_call(struct raw_client *c, Nvmm__Request *request)
{
	int r;

	request->seq = ++c->seq;
	r = raw_repeat(c, request);
	if (r != -ECONNRESET && c->reply->seq != 0)
		ck_assert_uint_eq(c->reply->seq, request->seq);
	return r;
}

#define REQUEST(CASE, member, op)                                            \
	{                                                                    \
		.base = PROTOBUF_C_MESSAGE_INIT(&nvmm__request__descriptor), \
		.op_case = NVMM__REQUEST__OP_##CASE, .member = &(op)         \
	}

int raw_hello(struct raw_client *c, uint64_t resume)
{
	Nvmm__Hello op = NVMM__HELLO__INIT;
	Nvmm__Request request = REQUEST(HELLO, hello, op);
	char name[] = "raw";
	int r;

	op.version = 1;
	op.cookie.data = c->cookie;
	op.cookie.len = sizeof(c->cookie);
	op.name = name;
	op.resume = resume;
	r = raw_repeat(c, &request);
	if (r == 0) {
		c->session = c->reply->hello->session;
		c->resumed = c->reply->hello->resumed;
	}
	return r;
}

void raw_open(struct raw_client *c, const struct daemon_child *d, uint8_t who)
{
	raw_connect(c, d);
	memset(c->cookie, who, sizeof(c->cookie));
	ck_assert_int_eq(raw_hello(c, 0), 0);
}

int raw_create(struct raw_client *c, uint32_t kind, uint64_t size, const char *name, uint32_t id)
{
	Nvmm__PoolCreate op = NVMM__POOL_CREATE__INIT;
	Nvmm__Request request = REQUEST(POOL_CREATE, pool_create, op);
	char buf[128];

	snprintf(buf, sizeof(buf), "%s", name ? name : "");
	op.kind = kind;
	op.size = size;
	op.name = buf;
	op.id = id;
	return raw_call(c, &request);
}

int raw_stat(struct raw_client *c, uint32_t id)
{
	Nvmm__PoolStat op = NVMM__POOL_STAT__INIT;
	Nvmm__Request request = REQUEST(POOL_STAT, pool_stat, op);

	op.id = id;
	return raw_call(c, &request);
}

int raw_lookup(struct raw_client *c, const char *name)
{
	Nvmm__PoolLookup op = NVMM__POOL_LOOKUP__INIT;
	Nvmm__Request request = REQUEST(POOL_LOOKUP, pool_lookup, op);
	char buf[128];

	snprintf(buf, sizeof(buf), "%s", name);
	op.name = buf;
	return raw_call(c, &request);
}

int raw_pool_open(struct raw_client *c, uint32_t id, bool write)
{
	Nvmm__PoolOpen op = NVMM__POOL_OPEN__INIT;
	Nvmm__Request request = REQUEST(POOL_OPEN, pool_open, op);

	op.id = id;
	op.write = write;
	return raw_call(c, &request);
}

int raw_pool_close(struct raw_client *c, uint32_t id, uint64_t incarnation, bool write)
{
	Nvmm__PoolClose op = NVMM__POOL_CLOSE__INIT;
	Nvmm__Request request = REQUEST(POOL_CLOSE, pool_close, op);

	op.id = id;
	op.incarnation = incarnation;
	op.write = write;
	return raw_call(c, &request);
}

int raw_destroy(struct raw_client *c, uint32_t id, bool force)
{
	Nvmm__PoolDestroy op = NVMM__POOL_DESTROY__INIT;
	Nvmm__Request request = REQUEST(POOL_DESTROY, pool_destroy, op);

	op.id = id;
	op.force = force;
	return raw_call(c, &request);
}

int raw_lanes(struct raw_client *c, uint32_t id, uint32_t count)
{
	Nvmm__LaneTake op = NVMM__LANE_TAKE__INIT;
	Nvmm__Request request = REQUEST(LANE_TAKE, lane_take, op);

	op.id = id;
	op.count = count;
	return raw_call(c, &request);
}

int raw_goodbye(struct raw_client *c)
{
	Nvmm__Goodbye op = NVMM__GOODBYE__INIT;
	Nvmm__Request request = REQUEST(GOODBYE, goodbye, op);

	return raw_call(c, &request);
}

unsigned raw_sessions(struct raw_client *c)
{
	Nvmm__Clients op = NVMM__CLIENTS__INIT;
	Nvmm__Request request = REQUEST(CLIENTS, clients, op);

	ck_assert_int_eq(raw_call(c, &request), 0);
	return (unsigned)c->reply->clients->n_clients;
}
