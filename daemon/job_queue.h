/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Queues of jobs: one for each user in each class, served in turn.
 *
 * A class has a number of places. One user never has all of them, so that a place is left for the others. Users
 * take turns; the jobs of one user keep their order.
 *
 *   running(class) <= places(class)
 *   running(class, user) <= per_user(class)
 *   a user is in `turns` exactly if it has waiting jobs and running < per_user
 *
 * Loop thread only. No threads, no clocks: the caller says what time it is.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include <bsd/sys/tree.h>

enum job_class {
	JOB_WORK,     /* a client's: create, resize, destroy, load, reserve, repair */
	JOB_LOOK,     /* a client's, and reads all of a pool: check, stat, map */
	JOB_CLOSE,    /* the daemon's own: draining a heap after its last opener */
	JOB_RECOVERY, /* the daemon's own: loading and verifying heaps */
	JOB_SLICE,    /* on the loop: the next slice of work that takes turns with everything else */
	JOB_CLASSES,
};

TAILQ_HEAD(job_turns, job_turn);
TAILQ_HEAD(job_users, job_user);

/* One user's part of a class; there while it has jobs that wait or run. */
struct job_user {
	uid_t uid;
	unsigned waiting;
	unsigned running;
	unsigned looked; /* waiting jobs at the last look for abandoned ones */
	bool in_turns;
	struct job_turns jobs;
	TAILQ_ENTRY(job_user) of_turns;
	RB_ENTRY(job_user) of_uid;
};
RB_HEAD(job_user_ids, job_user);

/* A job's place in a queue; embedded in the job. */
struct job_turn {
	struct job_user *user;
	enum job_class class;
	bool waiting;
	uint64_t since; /* ms: when it was queued */
	TAILQ_ENTRY(job_turn) of_user;
};

struct job_class_queue {
	unsigned places;
	unsigned per_user;
	unsigned waiting;
	unsigned running;
	uint64_t begun;       /* jobs so far */
	uint64_t longest;     /* ms that a job waited for its beginning, so far */
	struct job_users turns;
	struct job_user_ids users;
	struct job_user spare; /* for users that no memory could be had for: they share it */
};

struct job_queue {
	struct job_class_queue class[JOB_CLASSES];
};

void job_queue_init(struct job_queue *queue);
/* Every job has left it. */
void job_queue_deinit(struct job_queue *queue);

void job_queue_limit(struct job_queue *queue, enum job_class class, unsigned places, unsigned per_user);

/* Queues a job of the user at the end of the user's others. Does not fail. */
void job_queue_push(struct job_queue *queue, struct job_turn *turn, enum job_class class, uid_t uid,
		    uint64_t now_ms);
/* Takes the next job of a class, which runs from now on; NULL: none waits, or none may run. */
struct job_turn *job_queue_pop(struct job_queue *queue, enum job_class class, uint64_t now_ms);
/* Ends a job that ran. */
void job_queue_end(struct job_queue *queue, struct job_turn *turn);
/* Takes a job out that waits. */
void job_queue_remove(struct job_queue *queue, struct job_turn *turn);

/* Gives a job that waits to another user who waits for it, if it comes sooner there. */
void job_queue_hasten(struct job_queue *queue, struct job_turn *turn, uid_t uid);

/* The name that operators see. */
const char *job_class_name(enum job_class class);

/* The first job of the class that waits; NULL: none. */
struct job_turn *job_queue_first(struct job_queue *queue, enum job_class class);

/* How long the job that waits longest has waited, in ms; 0: none waits. */
uint64_t job_queue_oldest(struct job_queue *queue, enum job_class class, uint64_t now_ms);
