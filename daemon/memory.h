/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory behind a shelf base that is a file system in memory (tmpfs, ramfs).
 *
 * There the size of the file system is no promise: the kernel kills processes when memory runs out, and
 * the daemon may be one of them. So a reservation is refused before that, with a part of the memory kept free.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How much may still be reserved, by the tightest of what limits it. */
struct memory_room {
	uint64_t bytes;     /* after what is kept free; UINT64_MAX: nothing limits it */
	uint64_t available; /* before */
	char where[192];    /* "this machine", or the control group whose limit it is */
};

struct memory {
	bool counts;      /* the shelf base is memory */
	const char *proc; /* /proc, or a directory of a test's */
	uint32_t margin;  /* percent that stays free; atomic */
	int stopping;     /* atomic: reservations under way end */
	pthread_mutex_t lock;
	/* Under the lock: */
	uint64_t pending; /* bytes of reservations that were admitted and are not made yet */
	uint64_t credit;  /* bytes that may be reserved until the figures are read again */
	uint64_t read_ms; /* when they were read; 0: never */
};

/* One request's reservation, which a thread makes in slices. */
struct reservation {
	struct memory *memory; /* NULL: none has begun */
	const int *gone;       /* atomic: not 0, nobody waits for it; NULL: somebody does */
	uint64_t left;         /* bytes that are pending */
	bool refused;          /* a slice found no memory */
};

/* Reads the figures below `proc`, with `margin` percent of each kept free. A figure that cannot be read limits
 * nothing. */
void memory_read(struct memory_room *ret, const char *proc, uint32_t margin);

/* Whether files behind the descriptor are memory. */
bool memory_is_base(int fd);

void memory_init(struct memory *memory, int base_fd, uint32_t margin);
void memory_deinit(struct memory *memory);
void memory_set_margin(struct memory *memory, uint32_t margin);
/* Has reservations under way end with -ECANCELED. */
void memory_stop(struct memory *memory);

/* Whether `bytes` more may be reserved beside what is pending. 0, or -ENOSPC with the room there is. Any thread. */
int memory_check(struct memory *memory, uint64_t bytes, struct memory_room *room);
/* Room beside what is pending; UINT64_MAX: nothing limits it. */
uint64_t memory_left(struct memory *memory);
/* Asked before each slice is reserved (media/file.h): 0, -ENOSPC, or -ECANCELED. Any thread; memory is a
 * struct memory. */
int memory_admit(void *memory, uint64_t bytes);

/* Counts `bytes` as pending until they are reserved, or the end. Loop thread. */
void reservation_begin(struct reservation *reservation, struct memory *memory, uint64_t bytes,
		       const int *gone);
void reservation_end(struct reservation *reservation);
/* Makes it the one that this thread reserves for, until it is left. */
void reservation_enter(struct reservation *reservation);
void reservation_leave(struct reservation *reservation);
