/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon: its start, its loop, its stop.
 *
 * Start, in this order, each step undone by nvmmd_deinit():
 *   1. configuration; log
 *   2. directories and their locks: from here on no other daemon serves them
 *   3. node file: the clean mark is taken away, durably, before anything else changes
 *   4. registry: refused as a whole, the daemon ends and leaves it untouched
 *   5. pools, interrupted changes put right; then sessions, which name pools; then epochs
 *   6. socket; READY; heaps are recovered beside (recovery.c)
 *
 * Stop: accept no more, read no more, wait for jobs, close connections; when the loop is empty, and
 * no session is left that has a pool open, the clean mark, last of all.
 * Killed instead at any point, the daemon leaves nothing that the next start does not put right.
 */
#include <config.h>

#include "daemon/config_verify.h"
#include "daemon/nvmmd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "daemon/keeper.h"
#include "daemon/lock.h"
#include "daemon/notify.h"
#include "daemon/owner.h"
#include "daemon/recover.h"
#include "media/file.h"
#include "media/guard.h"

#define DEFAULT_CONFIG SYSCONFDIR "/nvmmd/nvmmd.yaml"
#define RECOVERY_THREADS 4u /* at least, so that recovery.parallel can be raised by a reload */
#define PROBE_BYTES (UINT64_C(2) << 20)

int64_t nvmmd_now(void)
{
	return (int64_t)time(NULL);
}

/* Configuration */

static int load_config(struct nvmmd *nvmmd)
{
	const char *path = nvmmd->options->config;
	char *error = NULL;
	int r;

	if (!path && access(DEFAULT_CONFIG, F_OK) == 0)
		path = DEFAULT_CONFIG;
	r = config_init(&nvmmd->config);
	if (r == 0 && path) {
		r = config_load(&nvmmd->config, path, &error);
		nvmmd->config_path = path;
	}
	if (r == 0)
		r = config_verify_start(&nvmmd->config, &error);
	if (r < 0)
		log_error("%s", error ? error : strerror(-r));
	free(error);
	return r;
}

/* Directories and locks */

/* Opens a directory, made if only its last part is missing, and takes its lock. */
static int own_directory(int *ret, int *ret_lock, const char *path, mode_t mode, const char *key)
{
	pid_t holder = 0;
	int r;

	if (mkdir(path, mode) < 0 && errno != EEXIST) {
		r = -errno;
		log_error("%s: %s cannot be made: %s", key, path, strerror(-r));
		return r;
	}
	*ret = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*ret < 0) {
		r = -errno;
		log_error("%s: %s cannot be opened: %s", key, path, strerror(-r));
		return r;
	}
	r = lock_take(ret_lock, *ret, &holder);
	if (r == -EBUSY)
		log_error("%s: %s is served by another nvmmd, process %d: stop it, or give this "
			  "one a "
			  "directory of its own",
			  key, path, holder);
	else if (r < 0)
		log_error("%s: %s/%s: %s", key, path, LOCK_NAME, strerror(-r));
	return r;
}

/* Whether what libpmem flushes on this file system survives a power cut: asked of a file on it. */
static bool probe_pmem(int base_fd)
{
	static const char name[] = "nvmmd.probe";
	bool is_pmem = false;
	void *addr;
	int fd;

	file_remove(base_fd, name);
	if (file_create(&fd, base_fd, name, PROBE_BYTES) < 0)
		return false;
	if (file_map(&addr, fd, PROBE_BYTES, 0, true) == 0) {
		is_pmem = file_durability(fd, addr, PROBE_BYTES) == DURABILITY_POWER;
		file_unmap(addr, PROBE_BYTES);
	}
	close(fd);
	file_remove(base_fd, name);
	return is_pmem;
}

/* Media */

/* Whether a node file that is refused is rotten, and not another release's. */
static bool is_rotten(struct nvmmd *nvmmd, const char *name)
{
	struct file_header_df header = { .magic = { 0 } };
	const char *why;
	int fd, r;

	r = file_open(&fd, nvmmd->base_fd, name, O_RDONLY);
	if (r < 0)
		return false;
	if (pread(fd, &header, sizeof(header), 0) < 0)
		r = -errno;
	close(fd);
	return r == 0 && (!file_header_whole(&header) ||
			  file_header_check(&header, FILE_MAGIC_NODE, 0, 0, 0, &why) == 0);
}

/* All that a node file has can be done without but for the clean mark: without it heaps are looked at. */
static int renew_node_file(struct nvmmd *nvmmd, uint16_t node, const char **why)
{
	char name[32], aside[48];
	int r;

	snprintf(name, sizeof(name), "node-%u", node);
	if (!is_rotten(nvmmd, name))
		return -EUCLEAN;
	snprintf(aside, sizeof(aside), "%s.damaged", name);
	log_error("%s/%s: %s: it is put aside as %s, and heaps are recovered as after an unclean stop",
		  nvmmd->config.shelves.base, name, *why, aside);
	file_remove(nvmmd->base_fd, aside);
	r = file_rename(nvmmd->base_fd, name, aside);
	return r < 0 ? r : node_file_new(&nvmmd->node_file, &nvmmd->node, nvmmd->base_fd, node, why);
}

static int open_node_file(struct nvmmd *nvmmd)
{
	uint16_t node = (uint16_t)nvmmd->config.node.id;
	const char *why = "";
	int r;

	r = node_file_new(&nvmmd->node_file, &nvmmd->node, nvmmd->base_fd, node, &why);
	if (r == -EUCLEAN)
		r = renew_node_file(nvmmd, node, &why);
	if (r < 0) {
		log_error("%s/node-%u: %s", nvmmd->config.shelves.base, node,
			  r == -EUCLEAN ? why : strerror(-r));
		return r;
	}
	/* A base without a node file is new, and has no heaps; or the file was lost. */
	nvmmd->clean_start = nvmmd->node.clean;
	nvmmd->node.node = node;
	nvmmd->node.clean = false;
	nvmmd->node.starts++;
	owner_begin(nvmmd);
	memcpy(nvmmd->node.boot_id, nvmmd->boot_id, BOOT_ID_LEN);
	snprintf(nvmmd->node.name, sizeof(nvmmd->node.name), "%s",
		 nvmmd->config.node.name ? nvmmd->config.node.name : "");
	/* Durable on return: from the first change on, nothing may say clean. */
	r = node_file_put(nvmmd->node_file, &nvmmd->node);
	if (r < 0)
		log_error("%s/node-%u cannot be written: %s", nvmmd->config.shelves.base, node,
			  strerror(-r));
	return r;
}

static int open_media(struct nvmmd *nvmmd)
{
	struct pools_usage usage;
	const char *why = "";
	int r;

	r = open_node_file(nvmmd);
	if (r < 0)
		return r;
	r = registry_new(&nvmmd->registry, nvmmd->base_fd, nvmmd->node.node, &why);
	if (r < 0) {
		log_error("%s/registry: %s; it is left as it is", nvmmd->config.shelves.base,
			  r == -EUCLEAN ? why : strerror(-r));
		return r;
	}
	if (!nvmmd->clean_start && nvmmd->node.starts > 1)
		log_info("the daemon before this one was not stopped in order");
	nvmmd->base_is_pmem = probe_pmem(nvmmd->base_fd);
	if (nvmmd->config.durability == DURABILITY_CHOICE_POWER && !nvmmd->base_is_pmem)
		log_warning(
			"durability is 'power', but %s is no persistent memory: pools can only be "
			"created with durability 'process'",
			nvmmd->config.shelves.base);
	r = recover_pools(nvmmd);
	pools_usage(&usage, nvmmd, 0);
	nvmmd->clean_start |= nvmmd->node.starts == 1 && usage.pools == 0; /* a new base */
	return r;
}

/* Loop */

static void on_stop(uv_signal_t *signal, int number)
{
	log_info("stopping on signal %d", number);
	nvmmd_stop(signal->data);
}

static void on_reload(uv_signal_t *signal, int number)
{
	nvmmd_reload(signal->data);
}

static void on_watchdog(uv_timer_t *timer)
{
	notify("WATCHDOG=1");
}

static int open_loop(struct nvmmd *nvmmd)
{
	uint64_t ms = notify_watchdog_ms();
	int r;

	r = uv_loop_init(&nvmmd->loop);
	if (r < 0)
		return r;
	r = jobs_init(nvmmd, MAX(nvmmd->config.recovery.parallel, RECOVERY_THREADS));
	if (r < 0) {
		uv_loop_close(&nvmmd->loop);
		return r;
	}
	nvmmd->loop_ready = true;
	r = fair_start(&nvmmd->fair, &nvmmd->loop);
	if (r < 0)
		return r;
	settler_init(nvmmd);
	client_log_start(nvmmd);
	in_flight_start(nvmmd);
	r = turns_start(&nvmmd->turns, &nvmmd->loop, &nvmmd->counters.loop_turns_long);
	if (r < 0)
		return r;
	uv_signal_init(&nvmmd->loop, &nvmmd->sigterm);
	uv_signal_init(&nvmmd->loop, &nvmmd->sigint);
	uv_signal_init(&nvmmd->loop, &nvmmd->sighup);
	uv_timer_init(&nvmmd->loop, &nvmmd->watchdog);
	nvmmd->sigterm.data = nvmmd->sigint.data = nvmmd->sighup.data = nvmmd;
	uv_signal_start(&nvmmd->sigterm, on_stop, SIGTERM);
	uv_signal_start(&nvmmd->sigint, on_stop, SIGINT);
	uv_signal_start(&nvmmd->sighup, on_reload, SIGHUP);
	if (ms > 0)
		uv_timer_start(&nvmmd->watchdog, on_watchdog, ms, ms);
	return 0;
}

/* Each client takes two descriptors: as many as the hard limit allows. */
static void raise_limits(struct nvmmd *nvmmd)
{
	struct rlimit limit = { 0 };

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	in_flight_limit(&nvmmd->flights, limit.rlim_max);
}

/* Finds out which users the kernel can tell apart for this process, and says it if not all. */
static int init_identity(struct nvmmd *nvmmd)
{
	struct identity *identity = &nvmmd->identity;
	int r = identity_read(identity, "/proc");

	if (r < 0)
		return r;
	if (identity->uids_partial || identity->gids_partial)
		log_warning("this user namespace does not map all ids: users and groups without one are "
			    "seen as uid %u and gid %u; such users are refused, such groups grant nothing",
			    identity->overflow_uid, identity->overflow_gid);
	if (identity_uid_unknown(identity, geteuid()))
		log_error("this user namespace does not map the daemon's own user: no client can be "
			  "served; write a uid_map that has its users, and start nvmmd again");
	return 0;
}

/*
 * A stray signal does not end the daemon. Ignored SIGXFSZ makes a write beyond `ulimit -f` fail with
 * EFBIG, as SIGPIPE does with EPIPE. Signals of faults, of an operator who wants an end (SIGTERM, SIGINT,
 * SIGQUIT, SIGXCPU) and of job control stay as they are.
 */
static void ignore_signals(void)
{
	static const int without_meaning[] = { SIGPIPE, SIGXFSZ,   SIGUSR1, SIGUSR2,   SIGALRM,
					       SIGIO,	SIGVTALRM, SIGPROF, SIGSTKFLT, SIGPWR };

	for (size_t i = 0; i < ARRAY_SIZE(without_meaning); i++)
		signal(without_meaning[i], SIG_IGN);
	for (int i = SIGRTMIN; i <= SIGRTMAX; i++)
		signal(i, SIG_IGN);
}

static int init_process(struct nvmmd *nvmmd)
{
	int r;

	ignore_signals();
	raise_limits(nvmmd);
	r = guard_init();
	if (r == 0)
		r = boot_id_read(nvmmd->boot_id);
	if (r == 0)
		r = init_identity(nvmmd);
	if (r < 0) {
		log_error("the process cannot be set up: %s", strerror(-r));
		return r;
	}
	nvmmd->admin.uid = geteuid();
	nvmmd->started = nvmmd_now();
	nvmmd->run = uv_hrtime();
	nvmmd->frame = malloc(sizeof(*nvmmd->frame));
	nvmmd->reply_buffer = malloc(FRAME_MAX);
	return nvmmd->frame && nvmmd->reply_buffer ? nvmmd_find_admin(nvmmd) : -ENOMEM;
}

static int init_service(struct nvmmd *nvmmd)
{
	int r;

	memory_init(&nvmmd->memory, nvmmd->base_fd, nvmmd->config.shelves.memory_margin);
	r = open_media(nvmmd);
	/* Only from here on: a start needs little, and is not refused for want of it. */
	file_gate_set(memory_admit, &nvmmd->memory);
	if (r == 0)
		r = open_loop(nvmmd);
	if (r == 0)
		r = epochs_init(nvmmd);
	if (r == 0)
		r = sessions_restore(nvmmd);
	if (r == 0)
		r = epochs_start(nvmmd);
	if (r == 0)
		r = overgrown_start(nvmmd);
	if (r == 0) {
		recovery_plan(nvmmd);
		r = server_listen(nvmmd);
	}
	return r;
}

int nvmmd_init(struct nvmmd *nvmmd, const struct options *options)
{
	int r;

	memset(nvmmd, 0, sizeof(*nvmmd));
	nvmmd->options = options;
	nvmmd->epochs.dir = nvmmd->epochs.bells = -1;
	nvmmd->base_fd = nvmmd->base_lock = nvmmd->runtime_fd = nvmmd->runtime_lock = -1;
	pools_init(&nvmmd->pools);
	recovery_init(&nvmmd->recovery);
	RB_INIT(&nvmmd->users);
	overgrown_init(&nvmmd->overgrown);
	sessions_init(&nvmmd->sessions);
	server_init(&nvmmd->server);
	r = load_config(nvmmd);
	if (r < 0)
		return r;
	log_setup("nvmmd", nvmmd->config.log.level,
		  options->foreground ? LOG_TARGET_STDERR : nvmmd->config.log.target);
	r = init_process(nvmmd);
	if (r == 0)
		r = own_directory(&nvmmd->base_fd, &nvmmd->base_lock, nvmmd->config.shelves.base,
				  0700, "shelves.base");
	if (r == 0)
		r = own_directory(&nvmmd->runtime_fd, &nvmmd->runtime_lock, nvmmd->config.runtime,
				  0755, "runtime");
	return r == 0 ? init_service(nvmmd) : r;
}

void nvmmd_stop(struct nvmmd *nvmmd)
{
	if (nvmmd->stopping)
		return;
	nvmmd->stopping = true;
	memory_stop(&nvmmd->memory);
	jobs_stop(nvmmd);
	notify("STOPPING=1\nSTATUS=stopping");
	server_stop(nvmmd);
	server_pause_connections(nvmmd);
	nvmmd_stop_if_idle(nvmmd);
}

void nvmmd_stop_if_idle(struct nvmmd *nvmmd)
{
	if (!nvmmd->stopping || nvmmd->jobs.n > 0 || settler_busy(nvmmd) || nvmmd->stopped)
		return;
	nvmmd->stopped = true;
	server_close_connections(nvmmd);
	in_flight_stop(nvmmd);
	epochs_stop(nvmmd);
	overgrown_stop(nvmmd);
	nvmmd->sessions_left = sessions_with_pools(nvmmd);
	sessions_deinit(&nvmmd->sessions);
	settler_close(nvmmd);
	jobs_close(nvmmd);
	uv_close((uv_handle_t *)&nvmmd->sigterm, NULL);
	uv_close((uv_handle_t *)&nvmmd->sigint, NULL);
	uv_close((uv_handle_t *)&nvmmd->sighup, NULL);
	uv_close((uv_handle_t *)&nvmmd->watchdog, NULL);
	fair_stop(&nvmmd->fair);
	turns_stop(&nvmmd->turns);
	client_log_stop(nvmmd);
}

/* Last of all: what it vouches for is durable, nobody changes anything any more. */
static void mark_clean(struct nvmmd *nvmmd)
{
	int r;

	if (nvmmd->sessions_left > 0) {
		log_info("stopped; %u sessions still use their pools", nvmmd->sessions_left);
		return;
	}
	nvmmd->node.clean = true;
	nvmmd->node.last_stop = (uint64_t)nvmmd_now();
	r = node_file_put(nvmmd->node_file, &nvmmd->node);
	if (r < 0)
		log_error("the clean mark cannot be set: %s", strerror(-r));
	else
		log_info("stopped");
}

int nvmmd_start(struct nvmmd *nvmmd)
{
	struct pools_usage usage;
	int r;

	r = server_start(nvmmd);
	if (r < 0) {
		log_error("the socket cannot be watched: %s", strerror(-r));
		return r;
	}
	pools_usage(&usage, nvmmd, 0);
	log_info("serving %s as node %u on %s: %u pools, %u of them damaged, %u sessions from "
		 "before",
		 nvmmd->config.shelves.base, nvmmd->config.node.id, nvmmd->config.socket.path,
		 usage.pools, usage.damaged, nvmmd->sessions.n);
	notify("READY=1\nSTATUS=serving %u pools on %s", usage.pools, nvmmd->config.socket.path);
	recovery_kick(nvmmd);
	return 0;
}

void nvmmd_finish(struct nvmmd *nvmmd)
{
	mark_clean(nvmmd);
}

int nvmmd_run(struct nvmmd *nvmmd)
{
	int r = nvmmd_start(nvmmd);

	if (r < 0)
		return r;
	uv_run(&nvmmd->loop, UV_RUN_DEFAULT);
	nvmmd_finish(nvmmd);
	return 0;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void nvmmd_deinit(struct nvmmd *nvmmd)
{
	if (nvmmd->loop_ready) {
		/* After a failed start: what nvmmd_run() would have closed. */
		nvmmd_stop(nvmmd);
		uv_run(&nvmmd->loop, UV_RUN_DEFAULT);
		uv_loop_close(&nvmmd->loop);
	}
	file_gate_set(NULL, NULL);
	memory_deinit(&nvmmd->memory);
	server_deinit(&nvmmd->server);
	epochs_deinit(nvmmd);
	overgrown_deinit(&nvmmd->overgrown);
	pools_deinit(&nvmmd->pools);
	jobs_deinit(nvmmd);
	registry_free(nvmmd->registry);
	node_file_free(nvmmd->node_file);
	close_fd(nvmmd->runtime_lock);
	close_fd(nvmmd->runtime_fd);
	close_fd(nvmmd->base_lock);
	close_fd(nvmmd->base_fd);
	free(nvmmd->frame);
	free(nvmmd->reply_buffer);
	config_deinit(&nvmmd->config);
}

/* Says what the configuration is, or what is wrong with it. */
static int check_config(struct nvmmd *nvmmd, const struct options *options)
{
	int r;

	nvmmd->options = options;
	r = load_config(nvmmd);
	if (r == 0)
		config_print(&nvmmd->config, stdout);
	config_deinit(&nvmmd->config);
	return r < 0 ? 2 : 0;
}

int nvmmd_main(int argc, char **argv)
{
	struct options options;
	struct nvmmd *nvmmd;
	int r;

	if (fd_fill_standard(O_RDWR) < 0)
		return 1;
	/* A daemon that needs a keeper starts it so; see keeper.c. */
	if (argc == 2 && strcmp(argv[1], KEEPER_ARGUMENT) == 0)
		return keeper_main();
	switch (options_parse(&options, argc, argv)) {
	case OPTIONS_DONE:
		return 0;
	case OPTIONS_USAGE:
		return 2;
	case OPTIONS_RUN:
		break;
	}
	log_setup("nvmmd", LOG_LEVEL_INFO, LOG_TARGET_STDERR);
	nvmmd = calloc(1, sizeof(*nvmmd));
	if (!nvmmd)
		return 1;
	if (options.check_config) {
		r = check_config(nvmmd, &options);
		free(nvmmd);
		return r;
	}
	r = nvmmd_init(nvmmd, &options);
	if (r == 0)
		r = nvmmd_run(nvmmd);
	nvmmd_deinit(nvmmd);
	free(nvmmd);
	return r < 0 ? 1 : 0;
}
