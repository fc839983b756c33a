/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See attacks.h. Each attack is bounded in memory: some hundred MiB of the base at most.
 */
#include "tests/system/attacks.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/macro.h"
#include "proto/frame.h"
#include "proto/nvmm.pb-c.h"

#define MIB (UINT64_C(1) << 20)
#define ATTACKER_UID 61011u
#define VICTIM_UID 61012u
#define WAIT_MS 20000u
#define FOES_MAX 512u

static volatile bool *begun;

static void attack_begun(void)
{
	*begun = true;
}

/* Clients */

struct foe {
	int sock;
	uint64_t seq;
	uint64_t session;
	uint32_t id; /* of the last reply's pool */
	uint8_t cookie[16];
	struct frame frame;
};

static bool foe_connect(struct foe *foe, struct harness *h)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = 30 };

	memcpy(addr.sun_path, h->socket, MIN(strlen(h->socket), sizeof(addr.sun_path) - 1));
	foe->seq = 0;
	foe->frame.n_fds = 0;
	foe->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (foe->sock >= 0 && connect(foe->sock, (struct sockaddr *)&addr, sizeof(addr)) == 0) {
		setsockopt(foe->sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		return true;
	}
	if (foe->sock >= 0)
		close(foe->sock);
	foe->sock = -1;
	return false;
}

static void foe_close(struct foe *foe)
{
	frame_close_fds(&foe->frame);
	if (foe->sock >= 0)
		close(foe->sock);
	foe->sock = -1;
}

static int foe_send(struct foe *foe, Nvmm__Request *request, const int *fds, size_t n_fds)
{
	static uint8_t packed[FRAME_MAX];

	if (foe->sock < 0 || nvmm__request__get_packed_size(request) > sizeof(packed))
		return -EINVAL;
	request->seq = ++foe->seq;
	return frame_send(foe->sock, packed, nvmm__request__pack(request, packed), fds, n_fds, 0);
}

static int foe_tell(struct foe *foe, Nvmm__Request *request)
{
	return foe_send(foe, request, NULL, 0);
}

/* The reply's error; -ECONNRESET: there is none. */
static int foe_hear(struct foe *foe)
{
	Nvmm__Reply *reply;
	int r;

	frame_close_fds(&foe->frame);
	r = foe->sock < 0 ? 0 : frame_recv(&foe->frame, foe->sock, 0);
	if (r <= 0) {
		foe_close(foe);
		return -ECONNRESET;
	}
	reply = nvmm__reply__unpack(NULL, foe->frame.len, foe->frame.data);
	if (!reply)
		return -EBADMSG;
	r = reply->error;
	if (reply->result_case == NVMM__REPLY__RESULT_POOL)
		foe->id = reply->pool->id;
	else if (reply->result_case == NVMM__REPLY__RESULT_HELLO)
		foe->session = reply->hello->session;
	nvmm__reply__free_unpacked(reply, NULL);
	return r;
}

static int foe_ask(struct foe *foe, Nvmm__Request *request)
{
	int r = foe_send(foe, request, NULL, 0);

	return r < 0 ? -ECONNRESET : foe_hear(foe);
}

static bool foe_hello(struct foe *foe, struct harness *h, uint64_t resume)
{
	Nvmm__Hello hello = NVMM__HELLO__INIT;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	int r;

	if (!foe_connect(foe, h))
		return false;
	if (resume == 0)
		for (unsigned i = 0; i < sizeof(foe->cookie); i++)
			foe->cookie[i] = (uint8_t)(1 + (harness_now_us() >> i % 8));
	hello.version = 1;
	hello.cookie.data = foe->cookie;
	hello.cookie.len = sizeof(foe->cookie);
	hello.name = (char *)(uintptr_t)"foe";
	hello.resume = resume;
	request.op_case = NVMM__REQUEST__OP_HELLO;
	request.hello = &hello;
	r = foe_ask(foe, &request);
	foe->seq = resume ? 1000000 : 0;
	if (r < 0)
		foe_close(foe);
	return r == 0;
}

/* A request with some fields of `op`, sent by `how`. */
#define DO(how, foe, member, case_name, type, ...)            \
	({                                                    \
		type op_, *op = &op_;                         \
		Nvmm__Request request_ = NVMM__REQUEST__INIT; \
		nvmm__##member##__init(op);                   \
		__VA_ARGS__;                                  \
		request_.op_case = NVMM__REQUEST__OP_##case_name; \
		request_.member = &op_;                       \
		how(foe, &request_);                          \
	})
#define ASK(...) DO(foe_ask, __VA_ARGS__)
#define SEND(...) DO(foe_tell, __VA_ARGS__)

static int create(struct foe *foe, uint32_t kind, uint64_t size, bool sparse)
{
	int r = ASK(foe, pool_create, POOL_CREATE, Nvmm__PoolCreate, op->kind = kind;
		    op->size = size; op->mode = 0666; op->sparse = sparse);

	return r < 0 ? r : (int)foe->id;
}

static int open_pool(struct foe *foe, uint32_t id)
{
	return ASK(foe, pool_open, POOL_OPEN, Nvmm__PoolOpen, op->id = id; op->write = true);
}

static int shelf_open(struct foe *foe, uint32_t id)
{
	return ASK(foe, shelf_open, SHELF_OPEN, Nvmm__ShelfOpen, op->id = id;
		   op->write = true);
}

static int destroy(struct foe *foe, uint32_t id, bool force)
{
	return ASK(foe, pool_destroy, POOL_DESTROY, Nvmm__PoolDestroy, op->id = id;
		   op->force = force);
}

/* Takes descriptor `i` of the last reply; -1: it has none. */
static int take_fd(struct foe *foe, unsigned i)
{
	return i < foe->frame.n_fds ? dup(foe->frame.fds[i]) : -1;
}

static void many_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* Many sessions that each ask the same again and again, without a pause. */
static void flood(struct harness *h, unsigned n, int (*send)(struct foe *foe, uint32_t id), uint32_t id)
{
	static struct foe *foes[FOES_MAX];
	static struct pollfd polls[FOES_MAX];

	many_files();
	n = MIN(n, FOES_MAX);
	for (unsigned i = 0; i < n; i++) {
		foes[i] = calloc(1, sizeof(*foes[i]));
		if (foes[i] && foe_hello(foes[i], h, 0))
			send(foes[i], id);
	}
	attack_begun();
	for (;;) {
		for (unsigned i = 0; i < n; i++)
			polls[i] = (struct pollfd){ .fd = foes[i]->sock, .events = POLLIN };
		if (poll(polls, n, 1000) < 0)
			return;
		for (unsigned i = 0; i < n; i++)
			if (polls[i].revents && foe_hear(foes[i]) != -ECONNRESET)
				send(foes[i], id);
	}
}

/* Descriptors */

/* A TCP socket whose last close waits: what it has sent is not read, and it lingers. */
static int lingering(int keep[2])
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct linger linger = { .l_onoff = 1, .l_linger = 5 };
	static char bytes[65536];
	socklen_t len = sizeof(addr);
	int small = 4096, sock;

	keep[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(keep[0], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(keep[0], (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(keep[0], 1) < 0 ||
	    getsockname(keep[0], (struct sockaddr *)&addr, &len) < 0 ||
	    connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -1;
	keep[1] = accept4(keep[0], NULL, NULL, SOCK_CLOEXEC);
	while (send(sock, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
	setsockopt(sock, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	return sock;
}

/* Sends a lingering socket in one of three ways, and lets go of it when the daemon has it: before Hello; in a
 * request; in a packet that is not received, because one before it ended the connection. */
static void linger_once(struct harness *h, unsigned way)
{
	Nvmm__Request request = NVMM__REQUEST__INIT;
	struct pollfd p = { .events = POLLIN };
	struct foe foe;
	int fd, keep[2];

	fd = lingering(keep);
	if (fd < 0 || !(way == 1 ? foe_hello(&foe, h, 0) : foe_connect(&foe, h)))
		return;
	if (way == 2)
		frame_send(foe.sock, "\xff", 1, NULL, 0, 0);
	if (way == 1)
		foe_send(&foe, &request, &fd, 1);
	else
		frame_send(foe.sock, "x", 1, &fd, 1, MSG_DONTWAIT);
	close(fd);
	attack_begun();
	p.fd = foe.sock;
	poll(&p, 1, 200);
	foe_close(&foe);
}

/* Each way by processes of its own: one that waits for its own socket does not hold up the others. */
static void attack_linger(struct harness *h)
{
	for (unsigned i = 0; i < 300; i++) {
		if (fork() == 0) {
			linger_once(h, i % 3);
			_exit(0);
		}
		harness_sleep_ms(30);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	pause();
}

/* Replies with descriptors are left unread; the daemon closes the connection, and the session attaches again. */
static void attack_unread(struct harness *h)
{
	static struct foe foes[FOES_MAX];
	struct foe first;
	int id;

	many_files();
	if (!foe_hello(&first, h, 0) || (id = create(&first, 2, MIB, false)) < 0)
		return;
	for (unsigned i = 0; i < FOES_MAX; i++) {
		if (!foe_hello(&foes[i], h, 0))
			break;
		open_pool(&foes[i], (uint32_t)id);
		for (unsigned k = 0; k < 32 && foes[i].sock >= 0; k++) {
			SEND(&foes[i], shelf_open, SHELF_OPEN, Nvmm__ShelfOpen,
			     op->id = (uint32_t)id; op->write = true);
			SEND(&foes[i], status, STATUS, Nvmm__Status, (void)0);
			/* The old socket stays open, with what it has in it. */
			if (!foe_hello(&foes[i], h, foes[i].session))
				break;
		}
		attack_begun();
	}
	pause();
}

/* Check and other jobs */

static int send_check(struct foe *foe, uint32_t id)
{
	return SEND(foe, check, CHECK, Nvmm__Check, op->id = id);
}

static int send_stat(struct foe *foe, uint32_t id)
{
	return SEND(foe, heap_stat, HEAP_STAT, Nvmm__HeapStat, op->id = id);
}

static int send_map(struct foe *foe, uint32_t id)
{
	return SEND(foe, heap_map, HEAP_MAP, Nvmm__HeapMap, op->id = id; op->per_cell = 1;
		    op->cells = 512);
}

static int send_create(struct foe *foe, uint32_t id)
{
	/* Makes one, then destroys it, in turn. */
	if (foe->id != 0) {
		id = foe->id;
		foe->id = 0;
		return SEND(foe, pool_destroy, POOL_DESTROY, Nvmm__PoolDestroy,
			    op->id = id);
	}
	return SEND(foe, pool_create, POOL_CREATE, Nvmm__PoolCreate, op->kind = 2;
		    op->size = 4 * MIB);
}

static int send_trim(struct foe *foe, uint32_t id)
{
	return SEND(foe, heap_trim, HEAP_TRIM, Nvmm__HeapTrim, op->id = id);
}

static int send_root(struct foe *foe, uint32_t id)
{
	return SEND(foe, root_set, ROOT_SET, Nvmm__RootSet, op->id = id;
		    op->name = (char *)(uintptr_t)"root"; op->ptr = foe->seq);
}

static int send_list(struct foe *foe, uint32_t id)
{
	(void)id;
	return SEND(foe, pool_list, POOL_LIST, Nvmm__PoolList, op->max = UINT32_MAX);
}

static int send_recover(struct foe *foe, uint32_t id)
{
	return SEND(foe, recover, RECOVER, Nvmm__Recover, op->id = id);
}

static int send_sync(struct foe *foe, uint32_t id)
{
	(void)id;
	return SEND(foe, epoch_sync, EPOCH_SYNC, Nvmm__EpochSync, (void)0);
}

/* A heap of `mib`, open for writing in a session that stays. */
static int own_heap(struct foe *foe, struct harness *h, unsigned mib, bool sparse)
{
	int id = foe_hello(foe, h, 0) ? create(foe, 2, mib * MIB, sparse) : -1;

	return id > 0 && open_pool(foe, (uint32_t)id) == 0 ? id : -1;
}

static void attack_check_lanes(struct harness *h)
{
	static struct foe foe;
	int id = own_heap(&foe, h, 1, false), lanes;

	if (id < 0)
		return;
	lanes = take_fd(&foe, 0);
	for (unsigned shift = 44; shift > 30 && ftruncate(lanes, (off_t)1 << shift) < 0; shift--)
		;
	flood(h, 8, send_check, (uint32_t)id);
}

static void write_all(int fd, int byte, off_t from, off_t to)
{
	static char bytes[65536];

	memset(bytes, byte, sizeof(bytes));
	for (off_t at = from; at < to; at += (off_t)sizeof(bytes))
		if (pwrite(fd, bytes, MIN(sizeof(bytes), (size_t)(to - at)), at) < 0)
			return;
}

static void attack_check_state(struct harness *h)
{
	static struct foe foe;
	int id = own_heap(&foe, h, 64, false), state;
	struct stat st;

	if (id < 0 || shelf_open(&foe, (uint32_t)id) < 0)
		return;
	state = take_fd(&foe, 2);
	if (fstat(state, &st) == 0)
		write_all(state, 0x11, 64, st.st_size);
	flood(h, 8, send_check, (uint32_t)id);
}

static void attack_check_flood(struct harness *h)
{
	static struct foe foe;
	int id = own_heap(&foe, h, 256, true);

	if (id > 0)
		flood(h, 128, send_check, (uint32_t)id);
}

static void attack_stat_flood(struct harness *h)
{
	static struct foe foe;
	int id = own_heap(&foe, h, 256, true);

	if (id > 0)
		flood(h, 128, send_stat, (uint32_t)id);
}

static void attack_map_flood(struct harness *h)
{
	static struct foe foe;
	int id = own_heap(&foe, h, 64, false);

	if (id > 0)
		flood(h, 64, send_map, (uint32_t)id);
}

static void attack_create_flood(struct harness *h)
{
	flood(h, 32, send_create, 0);
}

static void attack_trim_flood(struct harness *h)
{
	static struct foe foe;
	int id = own_heap(&foe, h, 256, true);

	if (id > 0)
		flood(h, 32, send_trim, (uint32_t)id);
}

static void attack_root_flood(struct harness *h)
{
	static struct foe foe;
	int id = own_heap(&foe, h, 1, false);

	if (id > 0)
		flood(h, 64, send_root, (uint32_t)id);
}

/* The pool is open in each session: the daemon looks at all of their processes. */
static int send_settle_wait(struct foe *foe, uint32_t id)
{
	if (foe->id != id && open_pool(foe, id) == 0)
		foe->id = id;
	return SEND(foe, settle_wait, SETTLE_WAIT, Nvmm__SettleWait, op->id = id);
}

static void attack_settle_wait(struct harness *h)
{
	static struct foe foe;
	int id = own_heap(&foe, h, 1, false);

	if (id > 0)
		flood(h, 512, send_settle_wait, (uint32_t)id);
}

static void attack_recover_flood(struct harness *h)
{
	static struct foe foe;
	int id = own_heap(&foe, h, 64, false);

	if (id > 0)
		flood(h, 32, send_recover, (uint32_t)id);
}

/* Answers as long as there are. */
static void attack_list_flood(struct harness *h)
{
	static struct foe foe;

	if (!foe_hello(&foe, h, 0))
		return;
	for (unsigned i = 0; i < 1000; i++)
		create(&foe, 1, 4096, false);
	flood(h, 64, send_list, 0);
}

/* Slots */

static int open_slots(struct foe *foe)
{
	if (ASK(foe, epoch_open, EPOCH_OPEN, Nvmm__EpochOpen, (void)0) < 0)
		return -1;
	return take_fd(foe, 1);
}

static void attack_slots(struct harness *h)
{
	static struct foe foes[128];
	uint32_t used = 65536, tid = 7;
	uint64_t word = UINT64_C(5) << 20 | 1;
	int fd;

	many_files();
	for (unsigned i = 0; i < ARRAY_SIZE(foes); i++) {
		fd = foe_hello(&foes[i], h, 0) ? open_slots(&foes[i]) : -1;
		if (fd < 0)
			break;
		if (pwrite(fd, &used, sizeof(used), 16) < 0 ||
		    pwrite(fd, &word, sizeof(word), 4096 + 64 * 65535) < 0 ||
		    pwrite(fd, &tid, sizeof(tid), 4096 + 64 * 65535 + 8) < 0)
			harness_sleep_ms(1); /* refused */
		close(fd);
	}
	flood(h, 32, send_sync, 0);
}

/* All slots are used, by all that can be: each is inside. */
static void attack_slots_full(struct harness *h)
{
	static struct foe foes[32];
	uint32_t used = 65536;
	int fd;

	for (unsigned i = 0; i < ARRAY_SIZE(foes); i++) {
		fd = foe_hello(&foes[i], h, 0) ? open_slots(&foes[i]) : -1;
		if (fd < 0)
			break;
		write_all(fd, 0x11, 4096, 4096 + 64 * 4096);
		if (pwrite(fd, &used, sizeof(used), 16) < 0)
			harness_sleep_ms(1); /* refused */
		close(fd);
	}
	flood(h, 32, send_sync, 0);
}

/* Space */

static void grow(int fd)
{
	for (off_t at = 8 << 20; at < 256 << 20; at += 16 << 20)
		if (fallocate(fd, 0, at, 16 << 20) < 0)
			return;
}

static void attack_slots_grow(struct harness *h)
{
	static struct foe foe;
	int fd = foe_hello(&foe, h, 0) ? open_slots(&foe) : -1;

	for (;;) {
		if (fd >= 0)
			grow(fd);
		attack_begun();
		harness_sleep_ms(50);
	}
}

/* Files of a heap are made longer, and the heap is closed and opened. */
static void attack_grow(struct harness *h)
{
	static struct foe foe;
	int id = own_heap(&foe, h, 1, false), fd;

	for (unsigned i = 0; id > 0; i++) {
		if (shelf_open(&foe, (uint32_t)id) == 0) {
			fd = take_fd(&foe, i % 2 ? 2 : 0);
			grow(fd);
			close(fd);
		}
		ASK(&foe, pool_close, POOL_CLOSE, Nvmm__PoolClose, op->id = (uint32_t)id;
		    op->write = true);
		attack_begun();
		if (open_pool(&foe, (uint32_t)id) < 0)
			harness_sleep_ms(10);
	}
}

/* Lanes and deaths */

static unsigned take_lanes(struct foe *foe, uint32_t id, unsigned n)
{
	unsigned taken = 0;

	while (taken < n && ASK(foe, lane_take, LANE_TAKE, Nvmm__LaneTake, op->id = id;
				op->count = 64) == 0)
		taken += 64;
	return taken;
}

/* Owned spans and reservations of a client's writing, in each lane. */
static void fill_lanes(int fd, unsigned n, uint32_t id)
{
	uint64_t page[256];

	for (unsigned i = 0; i < 128; i++) {
		page[i] = UINT64_C(1) << 63 | (i % 64);
		page[128 + i] = (uint64_t)id << 48 | (uint64_t)(i % 64) << 14;
	}
	for (unsigned lane = 0; lane < n; lane++)
		if (pwrite(fd, page, sizeof(page), 8192 + 4096 * (off_t)lane) < 0)
			return;
}

/* With many lanes in many heaps; then it dies. */
static void die_once(void *arg)
{
	static struct foe foe;
	uint32_t ids[16];
	unsigned n = 0;
	int id, lanes;

	if (!foe_hello(&foe, arg, 0))
		return;
	for (; n < ARRAY_SIZE(ids); n++) {
		id = create(&foe, 2, 4 * MIB, false);
		if (id < 0 || open_pool(&foe, (uint32_t)id) < 0)
			break;
		lanes = take_fd(&foe, 0);
		ids[n] = (uint32_t)id;
		fill_lanes(lanes, take_lanes(&foe, ids[n], 4096), ids[n]);
		close(lanes);
	}
	attack_begun();
	if (fork() == 0) { /* somebody is left to clear up */
		harness_sleep_ms(300);
		if (foe_hello(&foe, arg, 0))
			for (unsigned i = 0; i < n; i++)
				destroy(&foe, ids[i], true);
		_exit(0);
	}
	harness_sleep_ms(50);
	raise(SIGKILL);
}

static void attack_die(struct harness *h)
{
	pid_t pid;

	for (unsigned i = 0; i < 100; i++) {
		pid = harness_fork(die_once, h);
		waitpid(pid, NULL, 0);
		harness_sleep_ms(400);
	}
}

static void attack_lane_return(struct harness *h)
{
	static struct foe foe;
	static uint32_t lanes[32000];
	int id = own_heap(&foe, h, 1, false);

	if (id < 0)
		return;
	for (;;) {
		take_lanes(&foe, (uint32_t)id, 64);
		attack_begun();
		for (unsigned i = 0; i < 20; i++)
			if (ASK(&foe, lane_return, LANE_RETURN, Nvmm__LaneReturn,
				op->id = (uint32_t)id; op->lanes = lanes;
				op->n_lanes = ARRAY_SIZE(lanes)) == -ECONNRESET)
				return;
	}
}

/* Destroyed by force while another session has it open. */
static void attack_force(struct harness *h)
{
	static struct foe one, two;
	int id;

	if (!foe_hello(&one, h, 0) || !foe_hello(&two, h, 0))
		return;
	for (unsigned i = 0;; i++) {
		id = create(&one, 2, MIB, true);
		attack_begun();
		if (id < 0) {
			harness_sleep_ms(10);
			continue;
		}
		open_pool(&two, (uint32_t)id);
		take_lanes(&two, (uint32_t)id, 64);
		if (destroy(&one, (uint32_t)id, true) == -ECONNRESET)
			return;
	}
}

/* Connections */

/* All that makes the daemon write a line to its log. */
static void attack_log(struct harness *h)
{
	static struct foe foe;
	int id;

	for (unsigned i = 0;; i++) {
		attack_begun();
		switch (i % 4) {
		case 0:
			if (foe_connect(&foe, h))
				frame_send(foe.sock, "\xff", 1, NULL, 0, 0);
			break;
		case 1:
			if (foe_hello(&foe, h, 0) && (id = create(&foe, 1, 4096, false)) > 0)
				destroy(&foe, (uint32_t)id, false);
			break;
		case 2:
			if (foe_hello(&foe, h, 0)) {
				close(foe.sock);
				foe_hello(&foe, h, foe.session);
			}
			break;
		default:
			foe_hello(&foe, h, 0);
			break;
		}
		foe_close(&foe);
	}
}

/* Connections without a word. */
static void attack_silent(struct harness *h)
{
	static int socks[2048];
	struct foe foe;

	many_files();
	for (unsigned i = 0;; i++) {
		if (socks[i % ARRAY_SIZE(socks)] > 0)
			close(socks[i % ARRAY_SIZE(socks)]);
		socks[i % ARRAY_SIZE(socks)] = foe_connect(&foe, h) ? foe.sock : 0;
		if (i == 64)
			attack_begun();
	}
}

/* Opens wait for one who has the pool for itself, all at once. */
static void attack_park(struct harness *h)
{
	static struct foe foe, foes[256];
	int id = foe_hello(&foe, h, 0) ? create(&foe, 2, MIB, false) : -1;

	many_files();
	for (unsigned i = 0; id > 0 && i < ARRAY_SIZE(foes); i++)
		foe_hello(&foes[i], h, 0);
	while (id > 0) {
		ASK(&foe, exclusive, EXCLUSIVE, Nvmm__Exclusive, op->id = (uint32_t)id;
		    op->on = true);
		for (unsigned i = 0; i < ARRAY_SIZE(foes); i++)
			SEND(&foes[i], pool_open, POOL_OPEN, Nvmm__PoolOpen,
			     op->id = (uint32_t)id; op->write = true);
		ASK(&foe, exclusive, EXCLUSIVE, Nvmm__Exclusive, op->id = (uint32_t)id);
		for (unsigned i = 0; i < ARRAY_SIZE(foes); i++) {
			foe_hear(&foes[i]);
			ASK(&foes[i], pool_close, POOL_CLOSE, Nvmm__PoolClose,
			    op->id = (uint32_t)id; op->write = true);
		}
		attack_begun();
	}
}

/* Everything in state, hints and lanes says that there is limbo; the daemon is woken all the time. */
static void attack_limbo(struct harness *h)
{
	static struct foe foe;
	int id = own_heap(&foe, h, 64, false), state, lanes, slots;
	uint64_t word = 0;
	struct stat st;

	if (id < 0)
		return;
	lanes = take_fd(&foe, 0);
	if (shelf_open(&foe, (uint32_t)id) < 0)
		return;
	state = take_fd(&foe, 2);
	slots = open_slots(&foe);
	for (unsigned i = 0; fstat(state, &st) == 0; i++) {
		write_all(state, 0xff, 4096, MIN(st.st_size, (off_t)(1 << 20)));
		if (pwrite(lanes, &word, sizeof(word), 64) < 0 || (slots >= 0 && pwrite(slots, &word, 8, 8) < 0))
			harness_sleep_ms(1); /* refused */
		ASK(&foe, heap_trim, HEAP_TRIM, Nvmm__HeapTrim, op->id = (uint32_t)id);
		attack_begun();
	}
}

/* The same in many heaps at once. */
static void attack_limbo_many(struct harness *h)
{
	static struct foe foe;
	static int state[96];
	uint32_t ids[ARRAY_SIZE(state)];
	unsigned n = 0;
	struct stat st;
	int id;

	if (!foe_hello(&foe, h, 0))
		return;
	for (; n < ARRAY_SIZE(state); n++) {
		id = create(&foe, 2, 8 * MIB, false);
		if (id < 0 || open_pool(&foe, (uint32_t)id) < 0 || shelf_open(&foe, (uint32_t)id) < 0)
			break;
		ids[n] = (uint32_t)id;
		state[n] = take_fd(&foe, 2);
	}
	attack_begun();
	for (unsigned i = 0; n > 0; i = (i + 1) % n) {
		if (fstat(state[i], &st) == 0)
			write_all(state[i], 0xff, 4096, MIN(st.st_size, (off_t)(1 << 18)));
		if (ASK(&foe, heap_trim, HEAP_TRIM, Nvmm__HeapTrim, op->id = ids[i]) == -ECONNRESET)
			return;
	}
}

const struct attack attacks[] = {
	{ "lingering descriptors", attack_linger, false },
	{ "unread descriptors", attack_unread, false },
	{ "Check of long lanes", attack_check_lanes, false },
	{ "Check of rubbish state", attack_check_state, false },
	{ "Check, 128 sessions", attack_check_flood, false },
	{ "HeapStat, 128 sessions", attack_stat_flood, false },
	{ "HeapMap, 64 sessions", attack_map_flood, false },
	{ "create and destroy", attack_create_flood, false },
	{ "HeapTrim, 32 sessions", attack_trim_flood, false },
	{ "RootSet, 64 sessions", attack_root_flood, false },
	{ "Recover, 32 sessions", attack_recover_flood, false },
	{ "PoolList, 64 sessions", attack_list_flood, false },
	{ "SettleWait, 512 openers", attack_settle_wait, false },
	{ "slots, the last of each", attack_slots, false },
	{ "slots, all inside", attack_slots_full, false },
	{ "slots made longer", attack_slots_grow, false },
	{ "files made longer", attack_grow, false },
	{ "deaths, 65536 lanes", attack_die, false },
	{ "LaneReturn repeats", attack_lane_return, false },
	{ "forced destroys", attack_force, false },
	{ "lines in the log", attack_log, false },
	{ "silent connections", attack_silent, false },
	{ "256 opens parked", attack_park, false },
	{ "rubbish limbo", attack_limbo, false },
	{ "rubbish limbo, 96 heaps", attack_limbo_many, false },
};
const unsigned n_attacks = ARRAY_SIZE(attacks);

/* Users */

static void become(uid_t uid)
{
	if (geteuid() != 0)
		return;
	if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
		_exit(1);
	prctl(PR_SET_DUMPABLE, 1);
}

void attack_victim(void)
{
	become(VICTIM_UID);
}

struct order {
	const struct attack *attack;
	struct harness *h;
};

static void attacker_main(void *arg)
{
	struct order *order = arg;

	setpgid(0, 0);
	become(ATTACKER_UID);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	order->attack->run(order->h);
	attack_begun();
}

void attack_start(struct attacker *a, const struct attack *attack, struct harness *h)
{
	struct order order = { .attack = attack, .h = h };

	a->begun = begun = harness_shared(sizeof(bool));
	*begun = false;
	a->pid = harness_fork(attacker_main, &order);
	setpgid(a->pid, a->pid);
	for (unsigned i = 0; i < WAIT_MS && !*begun; i++)
		harness_sleep_ms(1);
}

void attack_end(struct attacker *a)
{
	kill(-a->pid, SIGKILL);
	waitpid(a->pid, NULL, 0);
}
