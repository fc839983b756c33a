/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Connecting, attaching again, and letting go.
 *
 * A connection outlives its socket: when the daemon has gone, the next call connects again and
 * greets with the session's number and cookie. A daemon that knows the session takes it on as it
 * was; one that does not says -ESTALE, and from then on every call fails with -ECONNRESET, while
 * what is mapped stays usable.
 *
 * At disconnection everything that was made through the connection goes, the daemon's knowledge of
 * the session last (Goodbye): until then it keeps the lanes and pools for this process. In the
 * child of a fork the same function frees memory and mappings and tells nobody.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "config.h"
#include "common/fd.h"
#include "libclient/connection.h"
#include "libclient/epochs.h"
#include "libclient/failure.h"
#include "libclient/lock.h"
#include "libclient/mapping.h"
#include "libclient/options.h"
#include "libclient/pool.h"
#include "libclient/range.h"
#include "libclient/shelf.h"

#define DEFAULT_SOCKET "/run/nvmmd/nvmmd.sock"
#define DEFAULT_TIMEOUT_MS 30000
#define GOODBYE_TIMEOUT_MS 5000
#define PROTOCOL_VERSION 1
#define HELLO_SEQ 1 /* each connection's first; what a session asks for comes after it */

/* All connections of this process, for fork; guarded by the process lock. */
static struct nvmm_client *connections;

static int sock_of(const struct nvmm_client *nvmm)
{
	/* ordering: relaxed; call_lock orders all but the forked child, which has one thread. */
	return __atomic_load_n(&nvmm->sock, __ATOMIC_RELAXED);
}

static void sock_set(struct nvmm_client *nvmm, int sock)
{
	/* ordering: relaxed; as above. */
	__atomic_store_n(&nvmm->sock, sock, __ATOMIC_RELAXED);
}

static void lock_word_set(struct nvmm_client *nvmm, uint64_t word)
{
	/* ordering: relaxed; before the connection is handed out, or to 0 at any time. */
	__atomic_store_n(&nvmm->lock_word, word, __ATOMIC_RELAXED);
}

void connection_fork_child(void)
{
	for (struct nvmm_client *n = connections; n; n = n->next) {
		/* What the parent has locked is the parent's. */
		lock_word_set(n, 0);
		if (sock_of(n) >= 0) {
			close(sock_of(n));
			sock_set(n, -1);
		}
	}
}

void connection_detach(struct nvmm_client *nvmm)
{
	if (sock_of(nvmm) >= 0)
		close(sock_of(nvmm));
	sock_set(nvmm, -1);
	nvmm->stale.pending = false;
}

int connection_lose(struct nvmm_client *nvmm, int error, const char *text)
{
	(void)snprintf(nvmm->lost_text, sizeof(nvmm->lost_text), "%s", text);
	/* ordering: release; pairs with connection_lost(). */
	__atomic_store_n(&nvmm->lost, error, __ATOMIC_RELEASE);
	lock_word_set(nvmm, 0);
	return nvmm_fail(nvmm, error, "%s", nvmm->lost_text);
}

bool connection_lost(struct nvmm_client *nvmm)
{
	/* ordering: acquire; pairs with connection_lose(). */
	return nvmm->generation != process_generation() ||
	       __atomic_load_n(&nvmm->lost, __ATOMIC_ACQUIRE) != 0;
}

/* One try. -errno of connect(2); -EAGAIN: the daemon's queue is full. */
static int try_connect(int *ret, const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int sock, r;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path) + 1);
	/* A program may have closed its standard output, and print all the same. */
	sock = fd_lift(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	if (sock < 0)
		return -errno;
	if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		r = errno == EPROTOTYPE ? -EPROTO : -errno;
		close(sock);
		return r;
	}
	*ret = sock;
	return 0;
}

/* Waits a little between tries. -ETIMEDOUT. */
static int pause_until(uint64_t when, unsigned *ms)
{
	struct timespec ts;
	uint64_t now = time_now();

	if (now >= when)
		return -ETIMEDOUT;
	*ms = MIN(*ms * 2, 100u);
	ts = (struct timespec){ .tv_nsec = (long)MIN((uint64_t)*ms * 1000000u, when - now) };
	(void)nanosleep(&ts, NULL);
	return 0;
}

static bool absent(int r)
{
	return r == -ENOENT || r == -ECONNREFUSED;
}

/* Connects; `wait`: also while there is no daemon. */
static int open_socket(struct nvmm_client *nvmm, bool wait)
{
	unsigned ms = 2;
	int sock = -1, r;

	for (;;) {
		r = try_connect(&sock, nvmm->path);
		if (r == 0) {
			sock_set(nvmm, sock);
			return 0;
		}
		if (r != -EAGAIN && r != -EINTR && !(wait && absent(r)))
			return r;
		r = pause_until(deadline(), &ms);
		if (r < 0)
			return r;
	}
}

static int hello_accept(struct nvmm_client *nvmm, const Nvmm__Reply *msg, bool resume)
{
	const Nvmm__HelloReply *hello = msg->hello;

	if (msg->result_case != NVMM__REPLY__RESULT_HELLO || hello->version != PROTOCOL_VERSION ||
	    hello->session == 0 || hello->node == 0 || hello->node > 255)
		return nvmm_fail(nvmm, -EPROTO, "%s: not an nvmmd of a version known here",
				 nvmm->path);
	if (hello->owner >> (64 - LOCK_OWNER_SHIFT))
		return nvmm_fail(nvmm, -EPROTO, "%s: an owner number is too large", nvmm->path);
	if (resume && (!hello->resumed || hello->session != nvmm->session ||
		       hello->owner << LOCK_OWNER_SHIFT != lock_me(nvmm)))
		return -ESTALE;
	if (!resume)
		lock_word_set(nvmm, hello->owner << LOCK_OWNER_SHIFT);
	nvmm->session = hello->session;
	nvmm->node = hello->node;
	nvmm->run = hello->run;
	return 0;
}

/* Greets. -ECONNRESET: it hung up; -ESTALE: it does not know the session. */
static int greet(struct nvmm_client *nvmm, bool resume)
{
	Nvmm__Hello op = NVMM__HELLO__INIT;
	Nvmm__Request request = NVMM_REQUEST(HELLO, hello, &op);
	uint8_t data[256];
	Nvmm__Reply *msg;
	int r;

	request.seq = HELLO_SEQ;
	op.version = PROTOCOL_VERSION;
	op.cookie = (ProtobufCBinaryData){ .len = sizeof(nvmm->cookie), .data = nvmm->cookie };
	op.name = nvmm->name;
	op.resume = resume ? nvmm->session : 0;
	if (nvmm__request__get_packed_size(&request) > sizeof(data))
		return -EMSGSIZE;
	r = call_send(sock_of(nvmm), data, nvmm__request__pack(&request, data), deadline());
	if (r == 0)
		r = call_recv(&nvmm->frame, sock_of(nvmm), deadline());
	if (r < 0)
		return r;
	frame_close_fds(&nvmm->frame);
	msg = nvmm__reply__unpack(NULL, nvmm->frame.len, nvmm->frame.data);
	if (!msg)
		return nvmm_fail(nvmm, -EPROTO, "%s: not an nvmmd", nvmm->path);
	if (msg->error < 0)
		r = nvmm_fail(nvmm, msg->error, "%s",
			      msg->text && *msg->text ? msg->text : strerror(-msg->error));
	else
		r = hello_accept(nvmm, msg, resume);
	nvmm__reply__free_unpacked(msg, NULL);
	return r;
}

/* Without waiting for the answer. */
static void send_goodbye(struct nvmm_client *nvmm, uint64_t seq)
{
	Nvmm__Goodbye op = NVMM__GOODBYE__INIT;
	Nvmm__Request request = NVMM_REQUEST(GOODBYE, goodbye, &op);
	uint8_t data[64];

	request.seq = seq;
	(void)call_send(sock_of(nvmm), data, nvmm__request__pack(&request, data), time_now());
}

/* Connects again and takes the session up; waits for a daemon until the deadline. */
static int resume(struct nvmm_client *nvmm)
{
	unsigned ms = 2;
	int r;

	for (;;) {
		r = open_socket(nvmm, true);
		if (r < 0)
			return r;
		r = greet(nvmm, true);
		if (r == 0)
			return 0;
		/* It may have begun another session for us: nobody wants that one. */
		if (r == -ESTALE)
			send_goodbye(nvmm, HELLO_SEQ + 1);
		connection_detach(nvmm);
		if (r != -ECONNRESET)
			return r;
		r = pause_until(deadline(), &ms);
		if (r < 0)
			return r;
	}
}

int connection_attach(struct nvmm_client *nvmm)
{
	int r;

	if (nvmm->lost)
		return nvmm_fail(nvmm, nvmm->lost, "%s", nvmm->lost_text);
	if (sock_of(nvmm) >= 0)
		return 0;
	r = resume(nvmm);
	if (r == -ESTALE || r == -EPERM)
		return connection_lose(nvmm, -ECONNRESET,
				       "the daemon was started anew and does not know this session; "
				       "disconnect and connect anew");
	if (r == -EPROTO)
		return connection_lose(nvmm, r, "another version of nvmmd runs now; connect anew");
	if (r == -ETIMEDOUT)
		return nvmm_fail(nvmm, r, "no daemon came back at %s in time", nvmm->path);
	if (r < 0)
		return nvmm_fail(nvmm, r, "cannot attach to the daemon at %s again: %s",
				 nvmm->path, strerror(-r));
	return 0;
}

static void *map_zero(size_t len)
{
	void *p = mapping_new(NULL, len, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);

	return p == MAP_FAILED ? NULL : p;
}

static void unmap_tables(struct nvmm_client *nvmm)
{
	if (nvmm->shelf_base) {
		for (unsigned i = 0; i <= POOL_ID_MAX; i++)
			free(nvmm->shelf_base[i]);
		munmap(nvmm->shelf_base, SHELF_BASE_BYTES);
	}
	if (nvmm->pools)
		munmap(nvmm->pools, POOL_TABLE_BYTES);
	if (nvmm->shelf_at)
		munmap(nvmm->shelf_at, SHELF_AT_BYTES);
}

static void nvmm_free_memory(struct nvmm_client *nvmm)
{
	unmap_tables(nvmm);
	if (sock_of(nvmm) >= 0)
		close(sock_of(nvmm));
	/* The parent's threads may wait at gates that this process copied: none of them will leave. */
	if (nvmm->generation == process_generation()) {
		gate_deinit(&nvmm->open_lock);
		gate_deinit(&nvmm->call_lock);
	}
	free(nvmm->path);
	free(nvmm);
}
DEFINE_AUTO(struct nvmm_client, nvmm_free_memory)

static void set_name(struct nvmm_client *nvmm, const char *name)
{
	(void)snprintf(nvmm->name, sizeof(nvmm->name), "%s",
		       name ? name : program_invocation_short_name);
}

static int nvmm_new(struct nvmm_client **ret, const struct nvmm_options *options)
{
	_auto(nvmm_free_memory) struct nvmm_client *nvmm = NULL;
	const char *path = options->socket;

	if (!path)
		path = secure_getenv("NVMM_SOCKET");
	if (path && !*path)
		path = NULL;
	nvmm = calloc(1, sizeof(*nvmm));
	if (!nvmm)
		return -ENOMEM;
	nvmm->sock = -1;
	gate_init(&nvmm->call_lock);
	gate_init(&nvmm->open_lock);
	nvmm->id = error_source_new();
	nvmm->generation = process_generation();
	nvmm->seq = HELLO_SEQ;
	nvmm->timeout_ms = options->timeout_ms ? options->timeout_ms : DEFAULT_TIMEOUT_MS;
	set_name(nvmm, options->name);
	nvmm->path = strdup(path ? path : DEFAULT_SOCKET);
	nvmm->shelf_base = map_zero(SHELF_BASE_BYTES);
	nvmm->pools = map_zero(POOL_TABLE_BYTES);
	nvmm->shelf_at = map_zero(SHELF_AT_BYTES);
	if (!nvmm->path || !nvmm->shelf_base || !nvmm->pools || !nvmm->shelf_at)
		return -ENOMEM;
	nvmm->translation.shelf_base = (char *const *const *)nvmm->shelf_base;
	nvmm->translation.epoch_id = nvmm->id;
	if (getrandom(nvmm->cookie, sizeof(nvmm->cookie), 0) != sizeof(nvmm->cookie))
		return -errno;
	*ret = take(nvmm);
	return 0;
}

static int connect_text(struct nvmm_client *nvmm, int r)
{
	struct stat st;

	switch (r) {
	case -ENAMETOOLONG:
		return nvmm_fail(NULL, r, "the path of the socket has %zu bytes: the kernel takes %zu", strlen(nvmm->path),
				 sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	case -ECONNREFUSED:
		if (stat(nvmm->path, &st) == 0 && !S_ISSOCK(st.st_mode))
			return nvmm_fail(NULL, r, "%s is no socket: set NVMM_SOCKET to nvmmd's", nvmm->path);
		/* fall through */
	case -ENOENT:
		return nvmm_fail(NULL, r, "no nvmmd serves %s: start it, or set NVMM_SOCKET",
				 nvmm->path);
	case -EACCES:
	case -EPERM:
		return nvmm_fail(NULL, -EACCES, "this user may not use the socket %s", nvmm->path);
	case -ETIMEDOUT:
		return nvmm_fail(NULL, r, "nvmmd at %s did not answer within %d.%d s: it is stopped, or busy",
				 nvmm->path, nvmm->timeout_ms / 1000, nvmm->timeout_ms % 1000 / 100);
	default:
		return nvmm_fail(NULL, r, "cannot connect to %s: %s", nvmm->path, strerror(-r));
	}
}

/* Opens the socket and greets; the texts are those of no connection yet. */
static int connect_first(struct nvmm_client *nvmm)
{
	_entry entry = ENTRY_NONE;
	int r;

	r = enter(&entry, nvmm);
	if (r < 0)
		return nvmm_fail(NULL, r, "%s", nvmm_errmsg(nvmm));
	r = open_socket(nvmm, false);
	if (r < 0)
		return connect_text(nvmm, r);
	r = greet(nvmm, false);
	if (r == -ECONNRESET || r == -ETIMEDOUT)
		return connect_text(nvmm, r);
	if (r < 0)
		return nvmm_fail(NULL, r, "%s", nvmm_errmsg(nvmm));
	return 0;
}

_public int nvmm_connect(struct nvmm_client **ret, const struct nvmm_options *options)
{
	_auto(nvmm_free_memory) struct nvmm_client *nvmm = NULL;
	struct nvmm_options o;
	int r;

	r = options_read(&o, sizeof(o), options, options ? options->size : 0);
	if (r < 0)
		return nvmm_fail(NULL, -EINVAL, "nvmm_options.size is %zu: set it to sizeof(struct nvmm_options)",
				 options->size);
	if (o.timeout_ms < -1)
		return nvmm_fail(NULL, -EINVAL, "a timeout of %d ms: 0 for the default, -1 for none, or more than 0",
				 o.timeout_ms);
	if (o.socket && !*o.socket)
		return nvmm_fail(NULL, -EINVAL, "the path of the socket is empty: NULL means the default");
	r = process_init();
	if (r == 0)
		r = nvmm_new(&nvmm, &o);
	if (r < 0)
		return nvmm_fail(NULL, r, "cannot prepare a connection: %s", strerror(-r));
	r = connect_first(nvmm);
	if (r < 0)
		return r;
	process_lock();
	nvmm->next = connections;
	connections = nvmm;
	process_unlock();
	*ret = take(nvmm);
	return 0;
}

static void forget(struct nvmm_client *nvmm)
{
	process_lock();
	for (struct nvmm_client **p = &connections; *p; p = &(*p)->next)
		if (*p == nvmm) {
			*p = nvmm->next;
			break;
		}
	process_unlock();
}

/* Ends the session, and with it the daemon's record of opened pools and lanes. A daemon that does
 * not answer holds nobody up long: it finds the Goodbye in its queue when it runs again, even if it
 * owes the answer to another request still. */
static void say_goodbye(struct nvmm_client *nvmm)
{
	_reply reply = NVMM_REPLY_INIT;
	Nvmm__Goodbye op = NVMM__GOODBYE__INIT;
	Nvmm__Request request = NVMM_REQUEST(GOODBYE, goodbye, &op);
	_entry entry = ENTRY_NONE;

	if (enter(&entry, nvmm) < 0)
		return;
	deadline_set(MIN(deadline(), time_after_ms(GOODBYE_TIMEOUT_MS)));
	if (sock_of(nvmm) < 0)
		return;
	if (call_daemon(nvmm, &request, NVMM__REPLY__RESULT__NOT_SET, 0, &reply) == -ETIMEDOUT &&
	    request.seq == 0)
		send_goodbye(nvmm, ++nvmm->seq);
}

_public void nvmm_disconnect(struct nvmm_client *nvmm)
{
	if (!nvmm)
		return;
	failure_unwatch(nvmm);
	/* Spans are given up while the session still vouches for the lanes that own them. */
	pools_free_all(nvmm);
	say_goodbye(nvmm);
	ranges_free_all(nvmm);
	while (nvmm->handles) {
		struct handle *h = nvmm->handles;

		nvmm->handles = h->next;
		free(h);
	}
	forget(nvmm);
	epochs_free(nvmm);
	nvmm_free_memory(nvmm);
}

_public const char *nvmm_version(void)
{
	return PACKAGE_VERSION;
}
