/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Users in turn: what clients ask of the loop is queued by user, and the users are served one item each, round
 * after round. So another user's request waits for at most one item of each user, however many items one user
 * has. Loop thread only.
 *
 * One turn of the loop serves items for FAIR_BUDGET_NS at most, plus the item that is under way then. What is left
 * is served in the next turn, after the loop has looked for new events.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include <bsd/sys/tree.h>
#include <uv.h>

#define FAIR_BUDGET_NS UINT64_C(300000)

struct fair_user;

/* Embedded in what is to be done. Zeroed: it is in no queue. */
struct fair_item {
	struct fair_user *user; /* whose queue it is in; NULL: none */
	void (*run)(struct fair_item *item);
	TAILQ_ENTRY(fair_item) of_user;
};

TAILQ_HEAD(fair_queue, fair_user);
RB_HEAD(fair_users, fair_user);

struct fair {
	struct fair_queue turn;  /* users that have items; the first one is next */
	struct fair_users users; /* the same, by uid */
	uint64_t items;
	uv_check_t check;
	uv_idle_t idle; /* active while items are left: the loop does not wait then */
};

/* Begins to serve on `loop`. 0 or -errno. */
int fair_start(struct fair *fair, uv_loop_t *loop);
/* Ends it; no item is left. The loop closes its handles. */
void fair_stop(struct fair *fair);

/*
 * Queues an item for a user: run(item) is called from the loop, once, and may free what the item is part of. An
 * item that is queued already stays where it is. Without memory for a queue it is run at once.
 */
void fair_push(struct fair *fair, struct fair_item *item, uid_t uid);
/* Takes it from its queue, if it is in one. */
void fair_remove(struct fair *fair, struct fair_item *item);
/* Serves the next user's first item. False: there is none. */
bool fair_serve(struct fair *fair);
