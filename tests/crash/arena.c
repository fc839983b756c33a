/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The test's process never waits for the daemon by a call that the daemon's death could leave
 * hanging: while points count, it watches the client's pipe and the daemon's pidfd.
 *
 * Daemons are nvmmd-points throughout, armed or not; whoever wants the ordinary one to read what
 * was left sets harness.program.
 */
#include "tests/crash/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/macro.h"
#include "tests/crash/audit.h"

#define CUT_TRIES 1000u
#define CUT_PAUSE_US 10000u
#define POOLS_MAX 16u
#define KEEP_BYTES (256u << 10)
#define KEEP_WORD UINT64_C(0x6b6565702d746869)
#define KEEP_BLOCK 4000u
#define WAIT_MS 30000

/* Points */

static void points_make(struct arena *a)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/points", a->h.dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, sizeof(*a->points)), 0);
	a->points = mmap(NULL, sizeof(*a->points), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne(a->points, MAP_FAILED);
	close(fd);
	ck_assert_int_eq(setenv(POINTS_ENV, path, 1), 0);
}

void arena_arm(struct arena *a, uint64_t k)
{
	a->armed = (int64_t)k + 1;
	/* ordering: relaxed; the daemon is idle, or not there yet. */
	__atomic_store_n(&a->points->left, a->armed, __ATOMIC_RELAXED);
}

bool arena_disarm(struct arena *a)
{
	/* ordering: relaxed; the word says all that there is to say. */
	int64_t left = __atomic_exchange_n(&a->points->left, 0, __ATOMIC_RELAXED);
	int status;

	a->passed = (uint64_t)(a->armed - MAX(left, INT64_C(0)));
	if (left > 0)
		return false;
	status = harness_wait_daemon(&a->h);
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
		      "the daemon ended with status 0x%x", status);
	return true;
}

/* Whether the daemon has died, of whatever. */
static bool daemon_ended(struct arena *a)
{
	siginfo_t info = { .si_pid = 0 };

	ck_assert_int_eq(waitid(P_PID, (id_t)a->h.daemon, &info, WEXITED | WNOHANG | WNOWAIT), 0);
	return info.si_pid != 0;
}

/* Whether there is somebody listening; nobody is greeted, as that would make a session. */
static bool daemon_listens(struct arena *a)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int r;

	ck_assert_int_ge(fd, 0);
	strcpy(addr.sun_path, a->h.socket);
	r = connect(fd, (struct sockaddr *)&addr, sizeof(addr));
	close(fd);
	return r == 0;
}

bool arena_start_dying(struct arena *a, uint64_t k)
{
	arena_arm(a, k);
	harness_spawn(&a->h);
	while (!daemon_ended(a) && !daemon_listens(a))
		harness_sleep_ms(1);
	return arena_disarm(a);
}

/* Actors: the client and the holder */

static void say(int fd)
{
	ck_assert_int_eq(write(fd, "x", 1), 1);
}

/* Waits for the other side's word; false: it is gone. */
static bool hear(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char c;

	ck_assert_msg(poll(&p, 1, WAIT_MS) == 1, "%s", "a process did not come to its end in time");
	return read(fd, &c, 1) == 1;
}

static pid_t actor_start(struct arena *a, void (*fn)(void *arg), int *in, int *out)
{
	int to[2], from[2];
	pid_t pid;

	ck_assert_int_eq(pipe2(to, O_CLOEXEC), 0);
	ck_assert_int_eq(pipe2(from, O_CLOEXEC), 0);
	*in = to[0];
	*out = from[1];
	pid = harness_fork(fn, a);
	close(to[0]);
	close(from[1]);
	*in = to[1];
	*out = from[0];
	ck_assert(hear(*out));
	return pid;
}

static void actor_close(int *in, int *out)
{
	close(*in);
	close(*out);
	*in = *out = -1;
}

static void client_run(void *arg)
{
	struct arena *a = arg;
	struct nvmm_client *nvmm = harness_connect(&a->h);

	if (a->op->enter)
		a->op->enter(a, nvmm);
	say(a->client_out);
	if (!hear(a->client_in))
		_exit(0);
	a->stage->result = a->op->act(a, nvmm);
	snprintf(a->stage->text, sizeof(a->stage->text), "%s", nvmm_errmsg(nvmm));
	say(a->client_out);
	if (!hear(a->client_in))
		_exit(0);
	nvmm_heap_close(a->client_heap);
	nvmm_disconnect(nvmm);
}

/* Has the target open and goes on using what it has mapped, whatever becomes of the pool. */
static void holder_run(void *arg)
{
	struct arena *a = arg;
	struct nvmm_client *nvmm = harness_connect(&a->h);
	struct nvmm_heap *heap = harness_open(nvmm, a->stage->id);
	nvmm_ptr ptr = nvmm_zalloc(heap, KEEP_BLOCK);
	uint64_t *word;

	ck_assert(ptr != NVMM_NULL);
	word = nvmm_local(nvmm, ptr);
	*word = KEEP_WORD;
	say(a->holder_out);
	hear(a->holder_in);
	ck_assert_uint_eq(*word, KEEP_WORD);
	_exit(0);
}

static void client_end(struct arena *a)
{
	say(a->client_in);
	harness_join(a->client);
	actor_close(&a->client_in, &a->client_out);
}

static void client_kill(struct arena *a)
{
	int status;

	kill(a->client, SIGKILL);
	ck_assert_int_eq(waitpid(a->client, &status, 0), a->client);
	actor_close(&a->client_in, &a->client_out);
}

static bool no_sessions(void *arg)
{
	struct arena *a = arg;

	return audit_sessions(a->h.runtime) == 0;
}

/* Ends it; the daemon, which has it from the kernel, takes a moment longer. */
static void holder_end(struct arena *a)
{
	say(a->holder_in);
	harness_join(a->holder);
	actor_close(&a->holder_in, &a->holder_out);
	a->holder = 0;
	harness_until(no_sessions, a, WAIT_MS);
}

/* The operation */

void arena_log(struct arena *a, const char *fmt, ...)
{
	/* The daemon goes on appending. */
	FILE *f = fopen(a->h.log, "we");
	va_list args;

	ck_assert_ptr_nonnull(f);
	va_start(args, fmt);
	vfprintf(f, fmt, args);
	va_end(args);
	fputc('\n', f);
	fclose(f);
}

/* Waits for the client's word or the daemon's death. */
static void await_death(struct arena *a)
{
	struct pollfd p[2] = { { .fd = a->client_out, .events = POLLIN }, { .events = POLLIN } };

	p[1].fd = (int)syscall(SYS_pidfd_open, a->h.daemon, 0);
	ck_assert_int_ge(p[1].fd, 0);
	ck_assert_msg(poll(p, 2, WAIT_MS) > 0, "%s", "neither client nor daemon came to an end");
	close(p[1].fd);
}

/* Whether the daemon has the target's lanes mapped: it gives a heap up with its last user's. */
static bool daemon_maps_lanes(struct arena *a)
{
	char path[64], want[64], line[512];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)a->h.daemon);
	snprintf(want, sizeof(want), "/pool-%u/lanes.", a->stage->id);
	f = fopen(path, "re");
	ck_assert_ptr_nonnull(f);
	while (!found && fgets(line, sizeof(line), f))
		found = strstr(line, want) != NULL;
	fclose(f);
	return found;
}

/* Kills the client, and waits until it is settled or the daemon has died. */
static void await_settled(struct arena *a)
{
	client_kill(a);
	while (!daemon_ended(a) && daemon_maps_lanes(a))
		harness_sleep_ms(1);
}

/* Runs it with the points counting; whether the daemon died. */
static bool perform(struct arena *a, uint64_t k)
{
	arena_arm(a, k);
	if (a->op->act) {
		say(a->client_in);
		await_death(a);
	} else {
		await_settled(a);
	}
	return arena_disarm(a);
}

static unsigned restart(struct arena *a, const uint64_t *starts, unsigned n)
{
	unsigned deaths = 0;

	for (unsigned i = 0; i < n; i++) {
		if (!arena_start_dying(a, starts[i]))
			return deaths;
		deaths++;
	}
	harness_start(&a->h);
	return deaths;
}

/* Verification */

unsigned arena_pools(struct nvmm_client *nvmm)
{
	struct nvmm_pool_info info[POOLS_MAX];
	int n = nvmm_pool_list(nvmm, 0, info, POOLS_MAX);

	ck_assert_int_ge(n, 0);
	return (unsigned)n;
}

bool arena_target(struct arena *a, struct nvmm_client *nvmm, struct nvmm_pool_info *ret)
{
	*ret = (struct nvmm_pool_info){ .size = sizeof(*ret) };
	return a->stage->id != 0 && nvmm_pool_stat(nvmm, a->stage->id, ret) == 0;
}

static void verify_region(struct nvmm_client *nvmm, nvmm_pool_id id, uint64_t word)
{
	struct nvmm_region *region;
	uint64_t *addr;
	void *p;

	ck_assert_msg(nvmm_region_open(&region, nvmm, id, O_RDWR) == 0, "%s", nvmm_errmsg(nvmm));
	ck_assert_int_eq(nvmm_region_map(region, NULL, nvmm_region_size(region),
					 PROT_READ | PROT_WRITE, 0, 0, &p), 0);
	addr = p;
	if (word)
		ck_assert_uint_eq(*addr, word);
	/* Reserved to its end: a store there finds its page. */
	addr[nvmm_region_size(region) / 8 - 1] = word;
	ck_assert_int_eq(nvmm_region_unmap(region, p, nvmm_region_size(region)), 0);
	nvmm_region_close(region);
}

/* Blocks can be had and given back, and what was there before still is. */
static void verify_heap(struct nvmm_client *nvmm, nvmm_pool_id id, bool kept)
{
	struct nvmm_heap_info before = { .size = sizeof(before) }, after = before;
	struct nvmm_heap *heap = harness_open(nvmm, id);
	size_t size[] = { 0, 24, 1000 };
	nvmm_ptr ptr;

	ck_assert_int_eq(nvmm_heap_stat(heap, &before), 0);
	if (kept) {
		ck_assert_int_eq(nvmm_root_get(heap, "keep", &ptr), 0);
		ck_assert_uint_eq(*(uint64_t *)nvmm_local(nvmm, ptr), KEEP_WORD);
		ck_assert_uint_eq(before.blocks, 1);
	}
	size[0] = before.largest / 2;
	for (unsigned i = 0; i < ARRAY_SIZE(size); i++) {
		ptr = nvmm_alloc(heap, size[i]);
		ck_assert_msg(ptr != NVMM_NULL, "%s", nvmm_errmsg(nvmm));
		memset(nvmm_local(nvmm, ptr), 0x5a, size[i]);
		ck_assert_int_eq(nvmm_free(heap, ptr), 0);
	}
	ck_assert_int_eq(nvmm_heap_stat(heap, &after), 0);
	ck_assert_uint_eq(after.used, before.used);
	ck_assert_uint_eq(after.bytes, before.bytes);
	nvmm_heap_close(heap);
}

/* Lists the pools. Lanes that a daemon added before it died are cut off again by its successor, soon after
 * the heap is recovered: this waits for that. */
static int list_when_cut(struct arena *a, struct nvmm_client *nvmm, struct nvmm_pool_info *info)
{
	int n = 0;

	for (unsigned i = 0; i < CUT_TRIES; i++) {
		n = nvmm_pool_list(nvmm, 0, info, POOLS_MAX);
		ck_assert_int_ge(n, 2);
		if (audit_bytes_agree(a->h.base, info, (size_t)n))
			break;
		usleep(CUT_PAUSE_US);
	}
	return n;
}

void arena_verify(struct arena *a)
{
	struct nvmm_pool_info info[POOLS_MAX];
	struct nvmm_client *nvmm = harness_connect(&a->h);
	int n = nvmm_pool_list(nvmm, 0, info, POOLS_MAX);

	ck_assert_int_ge(n, 2);
	for (int i = 0; i < n; i++) {
		ck_assert_msg(!info[i].damaged, "pool %u is damaged", info[i].id);
		if (info[i].kind == NVMM_POOL_REGION)
			verify_region(nvmm, info[i].id, info[i].id == a->region ? KEEP_WORD : 0);
		else
			verify_heap(nvmm, info[i].id, info[i].id == a->heap);
	}
	ck_assert_uint_eq(audit_sessions(a->h.runtime), 1 + (a->holder != 0));
	n = list_when_cut(a, nvmm, info);
	nvmm_disconnect(nvmm);
	audit_base(a->h.base, info, (size_t)n);
	for (int i = 0; i < n; i++)
		if (info[i].kind == NVMM_POOL_HEAP)
			audit_heap(a->h.base, &info[i]);
}

/* After all of it the lowest id is free, and whole pools can be made and destroyed under it. */
static void clean_up(struct arena *a)
{
	struct nvmm_client *nvmm = harness_connect(&a->h);
	struct nvmm_pool_info info;
	nvmm_pool_id id = 0;
	int r = 0;

	if (arena_target(a, nvmm, &info))
		r = info.kind == NVMM_POOL_HEAP ? nvmm_heap_destroy(nvmm, info.id) :
						  nvmm_region_destroy(nvmm, info.id);
	ck_assert_msg(r == 0, "%s", nvmm_errmsg(nvmm));
	ck_assert_uint_eq(arena_pools(nvmm), 2);
	r = nvmm_region_create(nvmm, &id, 4096, NULL);
	ck_assert_msg(r == 0, "%s", nvmm_errmsg(nvmm));
	ck_assert_msg(id == a->stage->next, "id %u was free and is not given out, but %u",
		      a->stage->next, id);
	ck_assert_int_eq(nvmm_region_destroy(nvmm, id), 0);
	nvmm_disconnect(nvmm);
}

static nvmm_pool_id lowest_id(const struct arena *a)
{
	nvmm_pool_id id = 1;

	while (id == a->region || id == a->heap)
		id++;
	return id;
}

static void prepare(struct arena *a)
{
	struct nvmm_client *nvmm = harness_connect(&a->h);

	*a->stage = (struct stage){ .next = lowest_id(a) };
	if (a->op->prepare)
		a->op->prepare(a, nvmm);
	a->stage->pools = arena_pools(nvmm);
	nvmm_disconnect(nvmm);
	if (a->op->held)
		a->holder = actor_start(a, holder_run, &a->holder_in, &a->holder_out);
	a->client = actor_start(a, client_run, &a->client_in, &a->client_out);
}

/* What the operation came to. */
static void judge(struct arena *a, enum fate fate, bool died)
{
	struct nvmm_client *nvmm = harness_connect(&a->h);
	bool lives = a->op->act && (fate == FATE_REPEATS || !died);
	bool done;

	if (lives) {
		if (died)
			ck_assert(hear(a->client_out));
		ck_assert_msg(a->stage->result == 0, "%d: %s", a->stage->result, a->stage->text);
		if (a->op->repeated)
			a->op->repeated(a, nvmm);
		client_end(a);
	}
	done = a->op->done(a, nvmm);
	ck_assert_msg(done || !lives, "%s", "it was acknowledged, and not done");
	nvmm_disconnect(nvmm);
}

/* Lets another client act, and yet another daemon start, before the first one asks again. */
static void overtake(struct arena *a)
{
	struct nvmm_client *nvmm = harness_connect(&a->h);
	bool done = a->op->done(a, nvmm);

	a->op->overtake(a, nvmm, done);
	nvmm_disconnect(nvmm);
	harness_signal(&a->h, SIGKILL);
	harness_start(&a->h);
	ck_assert_int_eq(kill(a->client, SIGCONT), 0);
	ck_assert(hear(a->client_out));
	nvmm = harness_connect(&a->h);
	a->op->overtaken(a, nvmm, done);
	nvmm_disconnect(nvmm);
	client_end(a);
}

bool arena_run(struct arena *a, const struct operation *op, uint64_t k, enum fate fate,
	       const uint64_t *starts, unsigned n, unsigned *deaths)
{
	bool died;

	a->op = op;
	prepare(a);
	died = perform(a, k);
	*deaths = 0;
	if (died && op->act && fate == FATE_DIES)
		client_kill(a);
	if (died && fate == FATE_OVERTAKEN)
		ck_assert_int_eq(kill(a->client, SIGSTOP), 0);
	if (died)
		*deaths = restart(a, starts, n);
	if (died && fate == FATE_OVERTAKEN)
		overtake(a);
	else
		judge(a, fate, died);
	arena_verify(a);
	if (a->holder)
		holder_end(a);
	clean_up(a);
	return died;
}

/* The arena itself */

static void keep_make(struct arena *a)
{
	struct nvmm_client *nvmm = harness_connect(&a->h);
	struct nvmm_pool_options options = { .size = sizeof(options), .name = "keep" };
	struct nvmm_region *region;
	struct nvmm_heap *heap;
	nvmm_ptr ptr;
	void *p;

	ck_assert_int_eq(nvmm_region_create(nvmm, &a->region, KEEP_BYTES, &options), 0);
	ck_assert_int_eq(nvmm_region_open(&region, nvmm, a->region, O_RDWR), 0);
	ck_assert_int_eq(nvmm_region_map(region, NULL, KEEP_BYTES, PROT_READ | PROT_WRITE, 0, 0, &p),
			 0);
	*(uint64_t *)p = KEEP_WORD;
	heap = harness_heap(nvmm, &a->heap, KEEP_BYTES, "keep heap", 16);
	ptr = nvmm_zalloc(heap, KEEP_BLOCK);
	ck_assert(ptr != NVMM_NULL);
	*(uint64_t *)nvmm_local(nvmm, ptr) = KEEP_WORD;
	ck_assert_int_eq(nvmm_root_set(heap, "keep", ptr), 0);
	nvmm_disconnect(nvmm);
}

void arena_init_empty(struct arena *a)
{
	*a = (struct arena){ .client_in = -1, .client_out = -1 };
	harness_init(&a->h, NULL);
	a->h.program = NVMMD_POINTS_PATH;
	points_make(a);
	a->stage = harness_shared(sizeof(*a->stage));
}

void arena_init(struct arena *a)
{
	arena_init_empty(a);
	harness_start(&a->h);
	keep_make(a);
}

void arena_init_power(struct arena *a)
{
	/* libpmem's: the medium is told to be persistent memory, here and in the daemon. */
	ck_assert_int_eq(setenv("PMEM_IS_PMEM_FORCE", "1", 1), 0);
	arena_init(a);
	a->durability = NVMM_DURABILITY_POWER;
}

static int remove_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	return ftw->level > 0 ? remove(path) : 0;
}

static void remove_all(const char *dir)
{
	ck_assert_int_eq(nftw(dir, remove_file, 16, FTW_DEPTH | FTW_PHYS), 0);
}

bool arena_first_start(struct arena *a, uint64_t k)
{
	bool died;

	arena_log(a, "first start: dies at point %lld", (long long)k);
	died = arena_start_dying(a, k);
	if (died)
		harness_start(&a->h);
	a->region = a->heap = 0;
	keep_make(a);
	arena_verify(a);
	ck_assert_uint_eq(a->region, 1);
	ck_assert_uint_eq(a->heap, 2);
	harness_signal(&a->h, SIGKILL);
	remove_all(a->h.base);
	remove_all(a->h.runtime);
	unlink(a->h.socket);
	return died;
}

bool arena_stop_dying(struct arena *a, uint64_t k)
{
	bool died, unclean;
	siginfo_t info;

	arena_log(a, "orderly stop: dies at point %lld", (long long)k);
	arena_arm(a, k);
	ck_assert_int_eq(kill(a->h.daemon, SIGTERM), 0);
	ck_assert_int_eq(waitid(P_PID, (id_t)a->h.daemon, &info, WEXITED | WNOWAIT), 0);
	died = arena_disarm(a);
	if (!died)
		ck_assert_int_eq(harness_wait_daemon(&a->h), 0);
	harness_start(&a->h);
	/* The clean mark is the last thing of all: only while it is being flushed is it there already. */
	unclean = harness_logged(&a->h, "was not stopped in order");
	ck_assert(unclean ? died : !died || k > 0);
	arena_verify(a);
	return died;
}

void arena_deinit(struct arena *a)
{
	harness_stop(&a->h);
	/* What was written by the one is read by the other. */
	a->h.program = NULL;
	harness_start(&a->h);
	arena_verify(a);
	harness_stop(&a->h);
	munmap(a->points, sizeof(*a->points));
	unlink(a->h.log);
}
