/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Users in turn.
 *
 * A user has a queue only while it has items, so memory is bounded by the things that can be queued: each is in
 * a queue once. Items are served in the loop's check phase, right after the events that queued them: without
 * others' items nobody waits for a further turn.
 */
#include "daemon/fair.h"

#include <stdlib.h>

#include "common/macro.h"

struct fair_user {
	uid_t uid;
	TAILQ_HEAD(, fair_item) items; /* never empty */
	TAILQ_ENTRY(fair_user) of_turn;
	RB_ENTRY(fair_user) of_uid;
};

static int user_compare(struct fair_user *a, struct fair_user *b)
{
	return a->uid < b->uid ? -1 : a->uid > b->uid;
}

RB_GENERATE_INTERNAL(fair_users, fair_user, of_uid, user_compare, _unused static)

static struct fair_user *user_get(struct fair *fair, uid_t uid)
{
	struct fair_user key = { .uid = uid };
	struct fair_user *user = RB_FIND(fair_users, &fair->users, &key);

	if (user)
		return user;
	user = calloc(1, sizeof(*user));
	if (!user)
		return NULL;
	user->uid = uid;
	TAILQ_INIT(&user->items);
	RB_INSERT(fair_users, &fair->users, user);
	TAILQ_INSERT_TAIL(&fair->turn, user, of_turn);
	return user;
}

static void keep_turning(uv_idle_t *idle)
{
	(void)idle;
}

void fair_push(struct fair *fair, struct fair_item *item, uid_t uid)
{
	struct fair_user *user;

	if (item->user)
		return;
	user = user_get(fair, uid);
	if (!user) {
		item->run(item);
		return;
	}
	item->user = user;
	TAILQ_INSERT_TAIL(&user->items, item, of_user);
	/* It may come from a timer: the loop must not wait for an event before it serves. */
	if (fair->items++ == 0)
		uv_idle_start(&fair->idle, keep_turning);
}

void fair_remove(struct fair *fair, struct fair_item *item)
{
	struct fair_user *user = item->user;

	if (!user)
		return;
	item->user = NULL;
	TAILQ_REMOVE(&user->items, item, of_user);
	fair->items--;
	if (!TAILQ_EMPTY(&user->items))
		return;
	TAILQ_REMOVE(&fair->turn, user, of_turn);
	RB_REMOVE(fair_users, &fair->users, user);
	free(user);
}

bool fair_serve(struct fair *fair)
{
	struct fair_user *user = TAILQ_FIRST(&fair->turn);
	struct fair_item *item;

	if (!user)
		return false;
	/* Its next item waits until every other user had one. */
	TAILQ_REMOVE(&fair->turn, user, of_turn);
	TAILQ_INSERT_TAIL(&fair->turn, user, of_turn);
	item = TAILQ_FIRST(&user->items);
	fair_remove(fair, item);
	item->run(item);
	return true;
}

static void serve_turn(uv_check_t *check)
{
	struct fair *fair = check->data;
	uint64_t until = uv_hrtime() + FAIR_BUDGET_NS;

	while (fair_serve(fair) && uv_hrtime() < until)
		;
	if (fair->items == 0)
		uv_idle_stop(&fair->idle);
}

int fair_start(struct fair *fair, uv_loop_t *loop)
{
	int r;

	TAILQ_INIT(&fair->turn);
	RB_INIT(&fair->users);
	fair->items = 0;
	fair->check.data = fair;
	uv_idle_init(loop, &fair->idle);
	uv_check_init(loop, &fair->check);
	r = uv_check_start(&fair->check, serve_turn);
	/* The loop ends when the things that it serves are closed; this is none of them. */
	uv_unref((uv_handle_t *)&fair->check);
	return r;
}

void fair_stop(struct fair *fair)
{
	uv_close((uv_handle_t *)&fair->check, NULL);
	uv_close((uv_handle_t *)&fair->idle, NULL);
}
