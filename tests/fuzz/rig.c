/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See rig.h. The daemon's log goes to syslog(3), which is ours here: it formats and drops, so that the
 * texts are made, and nobody reads them.
 */
#include "tests/fuzz/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "daemon/nvmmd.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/rig_files.h"
#include "tests/fuzz/rig_template.h"

#define FIRST_USER 61000u
#define TURNS_FOR_REPLY 25u /* of a millisecond at most */
#define STOP_TURNS 100000u

int rig_base = -1, rig_runtime = -1;
char rig_dir[128];

static char config_path[192], socket_path[192];
static struct nvmmd nvmmd;
static struct options options;
static uv_timer_t tick;
static bool running;
static struct frame frame;

/* The log */

void __syslog_chk(int priority, int flag, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

__attribute__((format(printf, 1, 0))) static void drop(const char *fmt, va_list args)
{
	char text[4096];

	vsnprintf(text, sizeof(text), fmt, args);
	if (getenv("NVMMD_TEST_FUZZ_LOG"))
		fprintf(stderr, "nvmmd: %s\n", text);
}

void syslog(int priority, const char *fmt, ...)
{
	va_list args;

	(void)priority;
	va_start(args, fmt);
	drop(fmt, args);
	va_end(args);
}

void __syslog_chk(int priority, int flag, const char *fmt, ...)
{
	va_list args;

	(void)priority;
	(void)flag;
	va_start(args, fmt);
	drop(fmt, args);
	va_end(args);
}

/* The daemon */

static void on_tick(uv_timer_t *timer)
{
	(void)timer;
}

bool rig_running(void)
{
	return running;
}

bool rig_start(void)
{
	options = (struct options){ .config = config_path };
	if (nvmmd_init(&nvmmd, &options) < 0 || nvmmd_start(&nvmmd) < 0) {
		nvmmd_deinit(&nvmmd);
		return false;
	}
	/* A turn of the loop ends soon, whatever it waits for. */
	uv_timer_init(&nvmmd.loop, &tick);
	uv_timer_start(&tick, on_tick, 1, 1);
	running = true;
	return true;
}

void rig_stop(bool clean)
{
	fuzz_must(running, "no daemon runs");
	uv_close((uv_handle_t *)&tick, NULL);
	nvmmd_stop(&nvmmd);
	fuzz_must(uv_run(&nvmmd.loop, UV_RUN_DEFAULT) == 0, "the loop has handles left");
	if (clean)
		nvmmd_finish(&nvmmd);
	nvmmd_deinit(&nvmmd);
	running = false;
}

void rig_reload(void)
{
	nvmmd_reload(&nvmmd);
}

void rig_turn(unsigned turns)
{
	for (unsigned i = 0; i < turns; i++)
		uv_run(&nvmmd.loop, UV_RUN_ONCE);
}

/* Clients */

static bool may_become(void)
{
	return geteuid() == 0;
}

static uid_t uid_of(unsigned user)
{
	return user == RIG_ROOT || !may_become() ? geteuid() : FIRST_USER + user;
}

/* What a mortal client's process is told. */
struct mortal {
	int sock;
	int ready; /* a pipe */
	uid_t uid;
	struct sockaddr_un addr;
};

/*
 * Connects, and then waits to be killed. It shares memory and descriptors with the target, as a thread does, which
 * makes it cheap: it makes system calls alone.
 */
__attribute__((no_sanitize("address", "undefined"))) static int mortal_main(void *arg)
{
	const struct mortal *m = arg;
	char result;

	syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (m->uid != 0) {
		syscall(SYS_setresgid, m->uid, m->uid, m->uid);
		syscall(SYS_setresuid, m->uid, m->uid, m->uid);
	}
	result = syscall(SYS_connect, m->sock, &m->addr, sizeof(m->addr)) == 0;
	syscall(SYS_write, m->ready, &result, 1);
	while (true)
		syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0);
	return 0;
}

static struct sockaddr_un address(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.100s", socket_path);
	return addr;
}

static bool connect_mortal(struct rig_client *client)
{
	static _Alignas(64) char stack[64][32768]; /* one each: they are many */
	static unsigned next;
	struct mortal m = { .sock = client->sock, .uid = uid_of(client->user), .addr = address() };
	char result = 0;
	int ready[2];

	fuzz_must(pipe2(ready, O_CLOEXEC) == 0, "pipe2: %s", strerror(errno));
	m.ready = ready[1];
	client->pid = clone(mortal_main, stack[next++ % 64] + sizeof(stack[0]), CLONE_VM | CLONE_FILES | SIGCHLD, &m);
	fuzz_must(client->pid > 0, "clone: %s", strerror(errno));
	fuzz_must(read(ready[0], &result, 1) == 1, "a mortal client does not answer");
	close(ready[0]);
	close(ready[1]);
	return result;
}

/* The user of this thread alone: glibc's call would have all threads follow. */
static void become(uid_t uid)
{
	if (may_become() || uid == 0)
		syscall(SYS_setresuid, -1, uid, -1);
}

static bool connect_self(struct rig_client *client)
{
	struct sockaddr_un addr = address();
	uid_t self = geteuid(), uid = uid_of(client->user);
	bool done;

	if (uid != self)
		become(uid);
	done = connect(client->sock, (struct sockaddr *)&addr, sizeof(addr)) == 0;
	if (uid != self)
		become(self);
	return done;
}

bool rig_connect(struct rig_client *client, unsigned user, bool mortal)
{
	*client = (struct rig_client){ .user = user };
	client->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	fuzz_must(client->sock >= 0, "socket: %s", strerror(errno));
	memset(client->cookie, (int)user + 1, sizeof(client->cookie));
	if (mortal ? connect_mortal(client) : connect_self(client))
		return true;
	rig_hang_up(client);
	rig_kill(client);
	return false;
}

void rig_hang_up(struct rig_client *client)
{
	if (client->sock >= 0)
		close(client->sock);
	client->sock = -1;
	client->waits = false;
}

void rig_kill(struct rig_client *client)
{
	if (client->pid == 0)
		return;
	kill(client->pid, SIGKILL);
	waitpid(client->pid, NULL, 0);
	client->pid = 0;
}

bool rig_hello(struct rig_client *client, bool resume)
{
	Nvmm__Hello hello = NVMM__HELLO__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__Reply *reply = NULL;
	char name[] = "fuzz";
	uint8_t buf[256];
	int r;

	hello.version = 1;
	hello.cookie.data = client->cookie;
	hello.cookie.len = sizeof(client->cookie);
	hello.name = name;
	hello.resume = resume ? client->session : 0;
	request.op_case = NVMM__REQUEST__OP_HELLO;
	request.hello = &hello;
	if (!rig_send(client, buf, nvmm__request__pack(&request, buf), NULL, 0))
		return false;
	r = rig_receive(client, NULL, &reply, NULL, NULL);
	if (r == 1 && reply->error == 0 && reply->result_case == NVMM__REPLY__RESULT_HELLO)
		client->session = reply->hello->session;
	if (reply)
		nvmm__reply__free_unpacked(reply, NULL);
	return r == 1 && client->error == 0;
}

bool rig_send(struct rig_client *client, const void *data, size_t len, const int *fds, size_t n_fds)
{
	int r = client->sock < 0 ? -EPIPE : frame_send(client->sock, data, len, fds, n_fds, MSG_DONTWAIT);

	if (r == -EAGAIN)
		return true; /* it is not read from: the daemon is busy for it */
	if (r < 0 && r != -EMSGSIZE) {
		rig_hang_up(client);
		return false;
	}
	return true;
}

static int take_reply(struct rig_client *client, struct vocabulary *v, Nvmm__Reply **ret, int *fds,
		      unsigned *n_fds)
{
	Nvmm__Reply *reply = nvmm__reply__unpack(NULL, frame.len, frame.data);

	fuzz_must(reply, "a reply cannot be unpacked");
	fuzz_must(reply->error <= 0 && reply->error > -4096, "a reply has error %d", reply->error);
	fuzz_must((reply->error == 0) == (reply->text[0] == '\0'), "error %d with text '%s'", reply->error,
		  reply->text);
	client->error = reply->error;
	client->waits = false;
	for (unsigned i = 0; fds && i < frame.n_fds; i++)
		fds[i] = frame.fds[i];
	if (fds) {
		*n_fds = (unsigned)frame.n_fds;
		frame.n_fds = 0;
	}
	frame_close_fds(&frame);
	if (v)
		vocabulary_learn(v, &reply->base);
	if (ret)
		*ret = reply;
	else
		nvmm__reply__free_unpacked(reply, NULL);
	return 1;
}

int rig_receive(struct rig_client *client, struct vocabulary *v, Nvmm__Reply **ret, int *fds, unsigned *n_fds)
{
	int r;

	if (n_fds)
		*n_fds = 0;
	for (unsigned i = 0; client->sock >= 0 && i < TURNS_FOR_REPLY; i++) {
		r = frame_recv(&frame, client->sock, MSG_DONTWAIT);
		if (r > 0)
			return take_reply(client, v, ret, fds, n_fds);
		if (r != -EAGAIN) {
			rig_hang_up(client);
			return -1;
		}
		uv_run(&nvmmd.loop, UV_RUN_ONCE);
	}
	client->waits = true;
	return client->sock < 0 ? -1 : 0;
}

int rig_ask(struct rig_client *client, struct vocabulary *v, struct choice *c, uint32_t op)
{
	static uint8_t buf[FRAME_MAX];
	size_t len = grammar_request(v, c, op, ++client->seq, buf, sizeof(buf));

	if (len == 0)
		return 0;
	return rig_send(client, buf, len, NULL, 0) ? rig_receive(client, v, NULL, NULL, NULL) : -1;
}

/* Sends a request and waits; its descriptors are added to `fds`. */
static bool ask_plain(struct rig_client *client, Nvmm__Request *request, struct vocabulary *v, int *fds,
		      unsigned *n_fds)
{
	uint8_t buf[256];
	unsigned n = 0;
	int r;

	request->seq = ++client->seq;
	if (!rig_send(client, buf, nvmm__request__pack(request, buf), NULL, 0))
		return false;
	r = rig_receive(client, v, NULL, fds ? fds + *n_fds : NULL, &n);
	if (fds)
		*n_fds += n;
	return r == 1 && client->error == 0;
}

bool rig_open(struct rig_client *client, uint32_t id, uint32_t lanes, struct vocabulary *v, int *fds,
	      unsigned *n_fds)
{
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__PoolOpen open = NVMM__POOL_OPEN__INIT;
	Nvmm__ShelfOpen shelf = NVMM__SHELF_OPEN__INIT;
	Nvmm__LaneTake take = NVMM__LANE_TAKE__INIT;
	Nvmm__EpochOpen epoch = NVMM__EPOCH_OPEN__INIT;

	if (n_fds)
		*n_fds = 0;
	open.id = shelf.id = take.id = id;
	open.write = shelf.write = true;
	take.count = lanes;
	request.op_case = NVMM__REQUEST__OP_POOL_OPEN;
	request.pool_open = &open;
	if (!ask_plain(client, &request, v, fds, n_fds))
		return false;
	request.op_case = NVMM__REQUEST__OP_SHELF_OPEN;
	request.shelf_open = &shelf;
	if (!ask_plain(client, &request, v, fds, n_fds))
		return false;
	request.op_case = NVMM__REQUEST__OP_LANE_TAKE;
	request.lane_take = &take;
	if (!ask_plain(client, &request, v, fds, n_fds))
		return false;
	request.op_case = NVMM__REQUEST__OP_EPOCH_OPEN;
	request.epoch_open = &epoch;
	return ask_plain(client, &request, v, fds, n_fds);
}

/* Directories */

static void write_config(void)
{
	FILE *f = fopen(config_path, "we");

	fuzz_must(f, "%s: %s", config_path, strerror(errno));
	fprintf(f,
		"node:\n  id: 1\nshelves:\n  base: %s/base\n  capacity: 64MiB\nsocket:\n  path: %s\n"
		"runtime: %s/run\nepoch:\n  interval: 1\n  stall_warning: 5\n"
		"limits:\n  clients: 24\n  clients_per_user: 16\n  pools: 24\n  pools_per_user: 12\n"
		"  bytes_per_user: 32MiB\n  lanes_per_client: 40\n"
		"log:\n  level: debug\n  target: syslog\n",
		rig_dir, socket_path, rig_dir);
	fclose(f);
}

static int open_dir(const char *name)
{
	char path[192];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", rig_dir, name);
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		fuzz_die("%s: %s", path, strerror(errno));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fuzz_must(fd >= 0, "%s: %s", path, strerror(errno));
	return fd;
}

static void serve_until_done(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, WNOHANG) == 0)
		rig_turn(1);
	fuzz_must(status == 0, "a client of the template ended with 0x%x", status);
}

/* A client of the template: what it leaves is as its death leaves it. */
static void run_template(unsigned user)
{
	pid_t pid = fork();

	fuzz_must(pid >= 0, "fork: %s", strerror(errno));
	if (pid == 0) {
		uid_t uid = uid_of(user);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (uid != geteuid() && (setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0))
			_exit(1);
		template_client(user, socket_path);
		_exit(0);
	}
	serve_until_done(pid);
}

static void make_template(void)
{
	struct rig_client session;
	char path[192];

	fuzz_must(rig_start(), "the daemon of the template does not start");
	run_template(RIG_CANARY);
	run_template(1);
	run_template(2);
	rig_turn(50);
	fuzz_must(rig_connect(&session, 1, false) && rig_hello(&session, false) &&
			  rig_open(&session, RIG_SPARSE, 4, NULL, NULL, NULL),
		  "the session of the template: %d", session.error);
	rig_stop(true);
	rig_hang_up(&session);
	snprintf(path, sizeof(path), "%s/template", rig_dir);
	fuzz_must(mkdir(path, 0700) == 0, "%s: %s", path, strerror(errno));
	rig_files_copy(rig_dir, "base", "template/base");
	rig_files_copy(rig_dir, "run", "template/run");
}

static pid_t maker; /* the process that made the directory, and removes it */

void rig_begin(void)
{
	const char *under = getenv("NVMMD_TEST_DIR");

	/* Pools of durability `power` can be made on tmpfs then. */
	setenv("PMEM_IS_PMEM_FORCE", "1", 1);
	setenv("UV_THREADPOOL_SIZE", "2", 1);
	snprintf(rig_dir, sizeof(rig_dir), "%.60s/nvmmd-fuzz-XXXXXX", under ? under : "/dev/shm");
	fuzz_must(mkdtemp(rig_dir), "%s: %s", rig_dir, strerror(errno));
	maker = getpid();
	atexit(rig_end);
	chmod(rig_dir, 0711);
	snprintf(config_path, sizeof(config_path), "%s/config.yaml", rig_dir);
	snprintf(socket_path, sizeof(socket_path), "%s/socket", rig_dir);
	write_config();
	rig_base = open_dir("base");
	rig_runtime = open_dir("run");
	close(open_dir("none"));
	make_template();
}

void rig_end(void)
{
	if (maker != getpid())
		return;
	rig_files_remove(rig_dir);
	maker = 0;
}

void rig_reset(void)
{
	close(rig_base);
	close(rig_runtime);
	rig_files_copy(rig_dir, "template/base", "base");
	rig_files_copy(rig_dir, "template/run", "run");
	rig_base = open_dir("base");
	rig_runtime = open_dir("run");
}

void rig_forget(void)
{
	close(rig_runtime);
	rig_files_copy(rig_dir, "none", "run");
	rig_runtime = open_dir("run");
}

void rig_reset_part(const char *name)
{
	char from[64], to[64];

	snprintf(from, sizeof(from), "template/base/%s", name);
	snprintf(to, sizeof(to), "base/%s", name);
	rig_files_copy(rig_dir, from, to);
}

void rig_words(struct vocabulary *v)
{
	memset(v, 0, sizeof(*v));
	for (unsigned id = 1; id <= RIG_POOLS; id++)
		vocabulary_value(v, "id", id);
	vocabulary_value(v, "mode", 0600);
	vocabulary_value(v, "mode", 0666);
	vocabulary_value(v, "uid", FIRST_USER + 1);
	vocabulary_value(v, "uid", UINT32_MAX);
	vocabulary_value(v, "size", 1 << 20);
	vocabulary_value(v, "version", 1);
	vocabulary_value(v, "incarnation", 1);
	vocabulary_text(v, "name", "heap", 4);
	vocabulary_text(v, "name", "sparse", 6);
	vocabulary_text(v, "name", "", 0);
}

/* The canary */

static Nvmm__Reply *canary_ask(struct rig_client *client, Nvmm__Request *request)
{
	Nvmm__Reply *reply = NULL;
	uint8_t buf[256];
	int r = 0;

	request->seq = ++client->seq;
	fuzz_must(rig_send(client, buf, nvmm__request__pack(request, buf), NULL, 0), "the canary is cut off");
	for (unsigned i = 0; r == 0 && i < 1000; i++)
		r = rig_receive(client, NULL, &reply, NULL, NULL);
	fuzz_must(r == 1, "the canary gets no answer: %d", r);
	return reply;
}

static void canary_check(struct rig_client *client)
{
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__Check check = NVMM__CHECK__INIT;
	Nvmm__Reply *reply;

	check.id = RIG_CANARY_HEAP;
	request.op_case = NVMM__REQUEST__OP_CHECK;
	request.check = &check;
	reply = canary_ask(client, &request);
	fuzz_must(reply->error == 0, "Check of the canary's heap: %d %s", reply->error, reply->text);
	fuzz_must(reply->check->violations == 0 && reply->check->blocks == TEMPLATE_CANARY_BLOCKS,
		  "the canary's heap: %u violations, %u blocks", (unsigned)reply->check->violations,
		  (unsigned)reply->check->blocks);
	nvmm__reply__free_unpacked(reply, NULL);
}

static void canary_stat(struct rig_client *client, uint32_t id)
{
	Nvmm__Request request = NVMM__REQUEST__INIT;
	Nvmm__PoolStat stat = NVMM__POOL_STAT__INIT;
	Nvmm__Reply *reply;

	stat.id = id;
	request.op_case = NVMM__REQUEST__OP_POOL_STAT;
	request.pool_stat = &stat;
	reply = canary_ask(client, &request);
	fuzz_must(reply->error == 0, "PoolStat of the canary's pool %u: %d %s", id, reply->error, reply->text);
	fuzz_must(reply->pool->uid == FIRST_USER + RIG_CANARY && reply->pool->mode == 0600 &&
			  reply->pool->damage[0] == '\0' && reply->pool->incarnation == 1,
		  "the canary's pool %u was changed: %s", id, reply->pool->damage);
	nvmm__reply__free_unpacked(reply, NULL);
}

void rig_canary(void)
{
	struct rig_client client;

	if (!may_become())
		return;
	fuzz_must(rig_connect(&client, RIG_CANARY, false), "the canary cannot connect");
	fuzz_must(rig_hello(&client, false), "the canary's Hello: %d", client.error);
	canary_stat(&client, RIG_CANARY_HEAP);
	canary_stat(&client, RIG_CANARY_REGION);
	canary_check(&client);
	rig_hang_up(&client);
	rig_files_compare(rig_dir, "base/pool-6/shelf-0", "template/base/pool-6/shelf-0");
	rig_files_compare(rig_dir, "base/pool-7/shelf-0", "template/base/pool-7/shelf-0");
}
