/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * harness_run() forks: the outer process owns the directory and outlives whatever the inner one,
 * which is Check's, or its tests come to; it waits, shows the daemons' logs if a test failed, and
 * removes the directory. Every process below asks the kernel to be killed with its parent, so an
 * outer process that is killed takes all others with it.
 */
#include "tests/system/harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SERVE_MS 30000u /* a sanitized daemon on a busy machine */

static char root[96];
static volatile pid_t inner;

static void format(char *buf, size_t room, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void format(char *buf, size_t room, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf, room, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= room) {
		fprintf(stderr, "harness: path too long: %s\n", buf);
		abort();
	}
}

/* The program */

static void die_with_parent(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void show_file(const char *path)
{
	char line[1024];
	FILE *f = fopen(path, "re");

	if (!f)
		return;
	while (fgets(line, sizeof(line), f))
		fprintf(stderr, "%s: %s", path, line);
	fclose(f);
}

static int show_log(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	if (type == FTW_F && strcmp(path + ftw->base, "log") == 0)
		show_file(path);
	return 0;
}

static void on_signal(int signal)
{
	if (inner > 0)
		kill(inner, SIGKILL);
}

static void outer_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
}

static void run_inner(SRunner *runner)
{
	int failed;

	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	exit(failed > 0);
}

/*
 * Keepers end by themselves with the last client of their directory. One that listens still is told of and killed; it
 * fails the program.
 */
static unsigned keepers;
static bool keepers_may_stay;

static int look_for_keeper(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct ucred cred = { .pid = 0 };
	socklen_t len = sizeof(cred);
	int fd;

	if (strcmp(path + ftw->base, "keeper") != 0 || !S_ISSOCK(st->st_mode) ||
	    strlen(path) >= sizeof(addr.sun_path))
		return 0;
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return 0;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0) {
		keepers++;
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
		if (!keepers_may_stay && cred.pid > 1) {
			fprintf(stderr, "harness: keeper %d of %s is left\n", (int)cred.pid, path);
			kill(cred.pid, SIGKILL);
		}
	}
	close(fd);
	return 0;
}

static bool end_keepers(void)
{
	keepers_may_stay = true;
	for (unsigned i = 0; i < 500; i++) {
		keepers = 0;
		nftw(root, look_for_keeper, 16, FTW_PHYS);
		if (keepers == 0)
			return true;
		harness_sleep_ms(10);
	}
	keepers_may_stay = false;
	nftw(root, look_for_keeper, 16, FTW_PHYS);
	return false;
}

/* Those below an inner process that was killed end a moment after it, and may write until then. */
static void remove_root(void)
{
	for (unsigned i = 0; i < 200; i++) {
		nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
		if (access(root, F_OK) < 0)
			return;
		harness_sleep_ms(10);
	}
	fprintf(stderr, "harness: %s is left\n", root);
}

int harness_run(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	const char *under = getenv("NVMMD_TEST_DIR");
	pid_t self = getpid();
	int status = 0;
	bool ended;

	format(root, sizeof(root), "%s/nvmmd-test-XXXXXX", under ? under : "/dev/shm");
	if (!mkdtemp(root) || chmod(root, 0711) < 0) {
		perror(root);
		return 1;
	}
	fflush(NULL);
	inner = fork();
	if (inner == 0) {
		die_with_parent(self);
		run_inner(runner);
	}
	outer_signals();
	while (waitpid(inner, &status, 0) < 0 && errno == EINTR)
		;
	if (status != 0)
		nftw(root, show_log, 16, FTW_PHYS);
	ended = end_keepers();
	remove_root();
	srunner_free(runner);
	return WIFEXITED(status) && ended ? WEXITSTATUS(status) : 1;
}

static void case_setup(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

TCase *harness_case(Suite *suite, const char *name, unsigned seconds)
{
	TCase *tcase = tcase_create(name);

	tcase_add_checked_fixture(tcase, case_setup, NULL);
	tcase_set_timeout(tcase, seconds);
	suite_add_tcase(suite, tcase);
	return tcase;
}

static struct harness *served;

static void served_start(void)
{
	harness_init(served, NULL);
	harness_start(served);
}

static void served_stop(void)
{
	if (served->daemon)
		harness_stop(served);
}

TCase *harness_case_served(Suite *suite, const char *name, unsigned seconds, struct harness *h)
{
	TCase *tcase = harness_case(suite, name, seconds);

	served = h;
	tcase_add_checked_fixture(tcase, served_start, served_stop);
	return tcase;
}

/* The daemon */

static void write_config(const struct harness *h, const struct harness_options *o)
{
	FILE *f = fopen(h->config, "we");

	ck_assert_ptr_nonnull(f);
	fprintf(f, "node:\n  id: %u\n", o->node ? o->node : 1);
	fprintf(f, "shelves:\n  base: %s\n", h->base);
	if (o->capacity)
		fprintf(f, "  capacity: %s\n", o->capacity);
	fprintf(f, "socket:\n  path: %s\n  mode: 0666\n", h->socket);
	fprintf(f, "runtime: %s\n", h->runtime);
	if (o->limits)
		fprintf(f, "limits:\n%s", o->limits);
	fprintf(f, "log:\n  level: info\n  target: stderr\n");
	ck_assert_int_eq(fclose(f), 0);
}

static void make_dir(const char *path, mode_t mode)
{
	ck_assert_msg(mkdir(path, mode) == 0 || errno == EEXIST, "%s: %s", path, strerror(errno));
	ck_assert_int_eq(chmod(path, mode), 0);
}

void harness_init(struct harness *h, const struct harness_options *options)
{
	static const struct harness_options none;
	static unsigned count;
	const struct harness_options *o = options ? options : &none;

	*h = (struct harness){ 0 };
	format(h->dir, sizeof(h->dir), "%s/%d.%u", root, (int)getpid(), count++);
	format(h->config, sizeof(h->config), "%s/nvmmd.yaml", h->dir);
	format(h->log, sizeof(h->log), "%s/log", h->dir);
	format(h->socket, sizeof(h->socket), "%s/socket", h->dir);
	if (o->base)
		format(h->base, sizeof(h->base), "%s", o->base);
	else
		format(h->base, sizeof(h->base), "%s/base", h->dir);
	if (o->runtime)
		format(h->runtime, sizeof(h->runtime), "%s", o->runtime);
	else
		format(h->runtime, sizeof(h->runtime), "%s/run", h->dir);
	make_dir(h->dir, 0755);
	make_dir(h->base, 0700);
	make_dir(h->runtime, 0755);
	write_config(h, o);
}

bool harness_small_base(struct harness *h)
{
	if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", h->base, "tmpfs", 0, "size=64m,mode=0700") < 0) {
		fprintf(stderr, "a test is skipped: mounting is not allowed here\n");
		return false;
	}
	return true;
}

static void exec_daemon(const struct harness *h)
{
	int log = open(h->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (log < 0 || null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
		_exit(126);
	if (h->prepare)
		h->prepare();
	execl(h->program ? h->program : NVMMD_PATH, "nvmmd", "--config", h->config, (char *)NULL);
	_exit(127);
}

void harness_spawn(struct harness *h)
{
	pid_t self = getpid();

	ck_assert_int_eq(h->daemon, 0);
	fflush(NULL);
	h->daemon = fork();
	ck_assert_int_ge(h->daemon, 0);
	if (h->daemon == 0) {
		die_with_parent(self);
		exec_daemon(h);
	}
}

static bool serves(void *arg)
{
	struct harness *h = arg;
	struct nvmm_options options = { .size = sizeof(options), .socket = h->socket };
	struct nvmm_client *nvmm;
	int status;

	if (waitpid(h->daemon, &status, WNOHANG) == h->daemon) {
		h->daemon = 0;
		show_file(h->log);
		ck_abort_msg("nvmmd ended at once with status 0x%x", status);
	}
	if (nvmm_connect(&nvmm, &options) < 0)
		return false;
	nvmm_disconnect(nvmm);
	return true;
}

void harness_await(struct harness *h)
{
	harness_until(serves, h, SERVE_MS);
}

void harness_start(struct harness *h)
{
	harness_spawn(h);
	harness_await(h);
}

int harness_wait_daemon(struct harness *h)
{
	int status;

	ck_assert_int_eq(waitpid(h->daemon, &status, 0), h->daemon);
	h->daemon = 0;
	return status;
}

void harness_stop(struct harness *h)
{
	int status;

	ck_assert_int_eq(kill(h->daemon, SIGTERM), 0);
	status = harness_wait_daemon(h);
	ck_assert_msg(status == 0, "nvmmd stopped with status 0x%x", status);
}

void harness_signal(struct harness *h, int signal)
{
	ck_assert_int_eq(kill(h->daemon, signal), 0);
	if (signal == SIGKILL)
		harness_wait_daemon(h);
}

void harness_alive(struct harness *h)
{
	ck_assert_int_gt(h->daemon, 0);
	ck_assert_msg(serves(h), "nvmmd does not serve: %s", nvmm_errmsg(NULL));
}

bool harness_logged(struct harness *h, const char *text)
{
	bool found = false;
	char line[1024];
	FILE *f = fopen(h->log, "re");

	ck_assert_ptr_nonnull(f);
	while (!found && fgets(line, sizeof(line), f))
		found = strstr(line, text) != NULL;
	fclose(f);
	return found;
}

/* Clients */

struct nvmm_client *harness_connect(struct harness *h)
{
	struct nvmm_options options = { .size = sizeof(options), .socket = h->socket };
	struct nvmm_client *nvmm;
	int r;

	r = nvmm_connect(&nvmm, &options);
	ck_assert_msg(r == 0, "connect: %d: %s", r, nvmm_errmsg(NULL));
	return nvmm;
}

struct nvmm_heap *harness_open(struct nvmm_client *nvmm, nvmm_pool_id id)
{
	struct nvmm_heap *heap;
	int r;

	r = nvmm_heap_open(&heap, nvmm, id, O_RDWR);
	ck_assert_msg(r == 0, "open heap %u: %d: %s", id, r, nvmm_errmsg(nvmm));
	return heap;
}

uint64_t harness_blocks(struct nvmm_heap *heap)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };

	ck_assert_int_eq(nvmm_heap_stat(heap, &info), 0);
	return info.blocks;
}

struct nvmm_heap *harness_heap(struct nvmm_client *nvmm, nvmm_pool_id *id, uint64_t bytes,
			       const char *name, uint32_t smallest_block)
{
	struct nvmm_pool_options options = {
		.size = sizeof(options),
		.name = name,
		.smallest_block = smallest_block,
	};
	int r;

	*id = 0;
	r = nvmm_heap_create(nvmm, id, bytes, &options);
	ck_assert_msg(r == 0, "create heap: %d: %s", r, nvmm_errmsg(nvmm));
	ck_assert_uint_ne(*id, 0);
	return harness_open(nvmm, *id);
}

pid_t harness_fork(void (*fn)(void *arg), void *arg)
{
	pid_t self = getpid();
	pid_t pid;

	fflush(NULL);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		die_with_parent(self);
		fn(arg);
		_exit(0);
	}
	return pid;
}

void harness_join(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(status == 0, "process %d ended with status 0x%x", (int)pid, status);
}

static void exec_command(struct harness *h, int out, const char *const argv[])
{
	char path[4096];

	if (dup2(out, 1) < 0)
		_exit(126);
	setenv("NVMM_SOCKET", h->socket, 1);
	format(path, sizeof(path), "%s/%s", BUILD_DIR, argv[0]);
	execv(path, (char *const *)(uintptr_t)argv);
	_exit(127);
}

int harness_command(struct harness *h, char *out, size_t room, const char *const argv[])
{
	pid_t self = getpid();
	size_t length = 0;
	int fds[2], status;
	pid_t pid;
	ssize_t n;

	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	fflush(NULL);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		die_with_parent(self);
		exec_command(h, fds[1], argv);
	}
	close(fds[1]);
	while ((n = read(fds[0], out + length, room - 1 - length)) > 0)
		length += (size_t)n;
	out[length] = '\0';
	close(fds[0]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status), "%s ended with status 0x%x", argv[0], status);
	return WEXITSTATUS(status);
}

void *harness_shared(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(p, MAP_FAILED);
	return p;
}

/* Environment and time */

unsigned harness_seconds(unsigned usual)
{
	const char *text = getenv("NVMMD_TEST_LONG");

	return text && strcmp(text, "0") != 0 ? 60 : usual;
}

uint64_t harness_now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

void harness_sleep_ms(unsigned ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

uint64_t harness_until(bool (*cond)(void *arg), void *arg, unsigned ms)
{
	uint64_t start = harness_now_us();

	while (!cond(arg)) {
		ck_assert_msg(harness_now_us() - start < ms * UINT64_C(1000),
			      "what was waited for did not come within %u ms", ms);
		harness_sleep_ms(2);
	}
	return harness_now_us() - start;
}

static struct harness_usage usage;

static int add_usage(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	if (type == FTW_F) {
		usage.files++;
		usage.bytes += (uint64_t)st->st_blocks * 512;
	}
	return 0;
}

struct harness_usage harness_usage(const char *dir)
{
	usage = (struct harness_usage){ 0 };
	ck_assert_int_eq(nftw(dir, add_usage, 16, FTW_PHYS), 0);
	return usage;
}

static unsigned count_fds(pid_t pid)
{
	char path[64];
	unsigned n = 0;
	DIR *dir;

	format(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static unsigned count_maps(pid_t pid)
{
	char path[64], line[512];
	unsigned n = 0;
	FILE *f;

	format(path, sizeof(path), "/proc/%d/maps", (int)pid);
	f = fopen(path, "re");
	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f))
		n += strchr(line, '/') != NULL;
	fclose(f);
	return n;
}

struct harness_holdings harness_holdings(pid_t pid)
{
	return (struct harness_holdings){ .fds = count_fds(pid), .maps = count_maps(pid) };
}
