/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What system tests are run with: a real nvmmd from the build tree on a base of its own under
 * /dev/shm, clients as processes, and an end to all of it however a test ends.
 *
 *   harness_run()  makes one directory for the program, runs the suite in a child, removes it
 *     `- Check     forks a process (and group) for each test, ends it when its time is over
 *          |- nvmmd       die with the test's process (PR_SET_PDEATHSIG)
 *          `- clients
 *
 * Functions fail the test themselves (ck_assert), in clients too.
 */
#pragma once

#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <nvmm/client.h>

struct harness {
	char dir[128]; /* all else is in here */
	char base[192];
	char runtime[192];
	char socket[192];
	char config[192];
	char log[192];
	pid_t daemon; /* 0: it does not run */
	const char *program; /* what is started; NULL: nvmmd of the build tree */
	void (*prepare)(void); /* called in the daemon's process before that; NULL: nothing */
};

struct harness_options {
	const char *base;     /* NULL: one of its own */
	const char *runtime;  /* NULL: likewise */
	unsigned node;        /* 0: 1 */
	const char *capacity; /* NULL: what the file system has */
	const char *limits;   /* further lines of the section, two blanks in front; others may follow */
};

/* The program's main(): runs the suite, cleans up. Returns the exit code. */
int harness_run(Suite *suite);

/* A test case that the harness looks after; each of its tests has `seconds`. */
TCase *harness_case(Suite *suite, const char *name, unsigned seconds);
/* The same; each of its tests has `h` with an nvmmd that serves, which ends orderly afterwards if it runs then. One case
 * of a program. */
TCase *harness_case_served(Suite *suite, const char *name, unsigned seconds, struct harness *h);

/* Directory and configuration; no daemon yet. NULL: defaults. */
void harness_init(struct harness *h, const struct harness_options *options);

/* Puts a small file system of its own in place of the base, 64 MiB of memory, in a mount namespace that ends with this
 * test. False where the test may not: it skips then, this says so. Before harness_start(). */
bool harness_small_base(struct harness *h);

/* Starts nvmmd and waits until it serves. */
void harness_start(struct harness *h);
/* The two steps of it; the first alone for a daemon that is to refuse. */
void harness_spawn(struct harness *h);
void harness_await(struct harness *h);
/* Waits for it to end: its exit status, as of waitpid(). */
int harness_wait_daemon(struct harness *h);
/* Orderly end; asserts that it says 0. */
void harness_stop(struct harness *h);
/* kill(2) of the daemon; SIGKILL waits as well. */
void harness_signal(struct harness *h, int signal);
/* Asserts that the daemon is alive and answers a new client. */
void harness_alive(struct harness *h);
/* Whether the daemon's log has `text`. */
bool harness_logged(struct harness *h, const char *text);

/* Clients */

struct nvmm_client *harness_connect(struct harness *h);

/* A heap of `bytes`, made and opened. `name` may be NULL. */
struct nvmm_heap *harness_heap(struct nvmm_client *nvmm, nvmm_pool_id *id, uint64_t bytes,
			       const char *name, uint32_t smallest_block);
struct nvmm_heap *harness_open(struct nvmm_client *nvmm, nvmm_pool_id id);
/* Blocks that are allocated in it. */
uint64_t harness_blocks(struct nvmm_heap *heap);

/* A process that calls fn(arg) and exits with 0. It dies with the test. */
pid_t harness_fork(void (*fn)(void *arg), void *arg);
/* Waits for it; asserts that it exited with 0. */
void harness_join(pid_t pid);

/* Runs a command of the build tree, e.g. "ctl/nvmmctl", with the socket in its environment. Its
 * standard output goes to `out`, zero-terminated. Returns its exit code. */
int harness_command(struct harness *h, char *out, size_t room, const char *const argv[]);

/* An assertion for what runs often: Check writes a record of each of its own. */
#define must(cond, ...)                             \
	do {                                        \
		if (!(cond))                        \
			ck_abort_msg(__VA_ARGS__);  \
	} while (0)

/* Memory that forked clients share with the test, zeroed. */
void *harness_shared(size_t bytes);

/* Environment and time */

/* Seconds that a load test is to run: `usual`, or 60 with NVMMD_TEST_LONG=1. */
unsigned harness_seconds(unsigned usual);
/* Monotonic clock. */
uint64_t harness_now_us(void);
void harness_sleep_ms(unsigned ms);

/* Waits until cond(arg), at most `ms`; asserts it. Returns the microseconds that it took. */
uint64_t harness_until(bool (*cond)(void *arg), void *arg, unsigned ms);

/* Files under a directory: how many, and the bytes of disk that they take. */
struct harness_usage {
	unsigned files;
	uint64_t bytes;
};
struct harness_usage harness_usage(const char *dir);

/* What a process has open, and its mappings of files: what is anonymous is malloc's, or a sanitizer's. */
struct harness_holdings {
	unsigned fds;
	unsigned maps;
};
struct harness_holdings harness_holdings(pid_t pid);
