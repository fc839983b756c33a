/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Watching over the length of files that clients may write (daemon/cutback.h).
 *
 * Loop thread only. Every live pool's directory is watched by inotify, which tells of fallocate(2), ftruncate(2)
 * and write(2), not of stores. Unlinked files that clients still hold are watched one by one, by a descriptor
 * that is kept for it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include <bsd/sys/tree.h>
#include <uv.h>

struct nvmmd;
struct pool;
struct request;

/* Of a live pool, or of an unlinked file. */
struct overgrown_watch {
	struct pool *pool; /* NULL: an unlinked file */
	int wd;            /* 0: it is not watched */
	bool dirty;        /* to be looked at */
	bool own;          /* the daemon itself made it longer than it now needs: nobody is blamed */
	uint64_t bytes;    /* beyond, when it was looked at last; it counts for the pool's owner */
	uint64_t lanes;    /* of these, the lanes file's */
	uint64_t stuck;    /* of blocks, what a cut left: the file system's own */
	uint64_t cuts;     /* how often it was cut back */
	uint64_t not_before; /* ms; the next cut: a client that repeats it costs a bounded share */
	/* Of an unlinked file: */
	int fd;
	uint64_t length;
	uint16_t id;
	uint64_t incarnation;
	LIST_ENTRY(overgrown_watch) of_unlinked;
	TAILQ_ENTRY(overgrown_watch) of_dirty;
	RB_ENTRY(overgrown_watch) of_wd;
};

RB_HEAD(overgrown_wds, overgrown_watch);
TAILQ_HEAD(overgrown_dirty, overgrown_watch);

struct overgrown {
	int fd; /* of inotify; -1: there is none */
	bool ready;
	bool stopped;
	uv_poll_t poll;
	uv_timer_t timer;
	struct overgrown_wds by_wd;
	struct overgrown_dirty dirty;
	LIST_HEAD(, overgrown_watch) unlinked;
	uint32_t n_unlinked;
	uint64_t unlinked_bytes;
	unsigned cutting; /* jobs */
	TAILQ_HEAD(, request) waiting; /* that found no space until files are cut back */
};

void overgrown_init(struct overgrown *overgrown);
/* After the registry was read: watches and looks at all pools. 0 or -errno. */
int overgrown_start(struct nvmmd *nvmmd);
void overgrown_stop(struct nvmmd *nvmmd);
void overgrown_deinit(struct overgrown *overgrown);

/* Watches a pool that is live from now on; looks at one that is; watches it no more. */
void overgrown_watch(struct pool *pool);
void overgrown_look(struct pool *pool);
/* The pool needs fewer lanes than its file has: it is cut, and no client is blamed for that. */
void overgrown_trimmed(struct pool *pool);
void overgrown_forget(struct pool *pool);

/* Keeps an unlinked file that is held by clients, to cut it back; takes the descriptor. */
void overgrown_unlinked(struct nvmmd *nvmmd, uint16_t id, uint64_t incarnation, int fd, uint64_t length);
/* Nobody has the destroyed pool open any more: what is left of its files goes. */
void overgrown_closed(struct nvmmd *nvmmd, uint16_t id, uint64_t incarnation);

/* For a request that found no space: whether files are being cut back, after which it is begun again. Once a
 * request. */
bool overgrown_relief(struct request *request);
