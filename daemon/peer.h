/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who is at the other end of a Unix socket: the kernel's word, never the client's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A process, told apart from a later one of the same number by its start. */
struct process_id {
	pid_t pid;
	uint64_t start; /* clock ticks after the boot */
};

/* The same as a number, not 0: Linux has at most 22 bits of the one, and 42 of the other last a thousand years. */
#define PROCESS_START_BITS 42

static inline uint64_t process_number(struct process_id id)
{
	return (uint64_t)id.pid << PROCESS_START_BITS | id.start;
}

static inline struct process_id process_of_number(uint64_t number)
{
	return (struct process_id){ .pid = (pid_t)(number >> PROCESS_START_BITS),
				    .start = number & ((UINT64_C(1) << PROCESS_START_BITS) - 1) };
}

struct peer {
	struct process_id process;
	int pidfd; /* owned; -1: none */
	uid_t uid;
	gid_t gid;
	gid_t *groups; /* supplementary ones, owned */
	size_t n_groups;
};

/*
 * Fills *peer from a connected socket. -ESRCH: the process is gone, or its number belongs to another
 * by now; -EACCES: /proc does not show it to the daemon; others of getsockopt(2), pidfd_open(2).
 * *why is a static text of what failed.
 */
int peer_init(struct peer *peer, int sock, const char **why);
void peer_deinit(struct peer *peer);

/* Whether `gid` is among the peer's groups, the primary one included. Nobody is in group -1. */
bool peer_in_group(const struct peer *peer, gid_t gid);

/* Opens a pidfd of just this process. -ESRCH: it is gone. */
int process_open(int *ret_pidfd, struct process_id id);

/* When `pid` started, from /proc/<pid>/stat. -ESRCH; -EACCES: hidden; -EBADMSG. */
int process_start(uint64_t *ret, pid_t pid);
/* How many threads it has. As process_start(). */
int process_threads(uint32_t *ret, pid_t pid);

/* The same from the text of that file, whose second field may hold anything. -EBADMSG. */
int process_parse_start(uint64_t *ret, const char *stat);

/* Whether the process of a pidfd has ended. */
bool process_ended(int pidfd);
/*
 * Whether a process that has not is about to: it exits, SIGKILL is on its way to it, or it took another signal that
 * ends it, and may be having its core dumped. The kernel releases what it had locked before its pidfd says that
 * it has ended. False if /proc does not say; true if the daemon lacks the descriptors to ask.
 */
bool process_dying(pid_t pid);
