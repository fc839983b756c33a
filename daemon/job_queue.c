/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Queues of jobs.
 *
 * A user's record is made with its first job and freed with its last, so their number is bounded by that of the
 * jobs. A user that begins a job goes to the end of the turns; one with as many running as it may have is out of
 * the turns until one of them ends. So each pop takes constant time, whatever waits.
 */
#include "daemon/job_queue.h"

#include <stdlib.h>
#include <string.h>

#include "common/macro.h"

static int compare_users(struct job_user *a, struct job_user *b)
{
	return (a->uid > b->uid) - (a->uid < b->uid);
}

RB_GENERATE_INTERNAL(job_user_ids, job_user, of_uid, compare_users, _unused static)

void job_queue_init(struct job_queue *queue)
{
	memset(queue, 0, sizeof(*queue));
	for (unsigned i = 0; i < JOB_CLASSES; i++) {
		struct job_class_queue *c = &queue->class[i];

		c->places = c->per_user = 1;
		TAILQ_INIT(&c->turns);
		RB_INIT(&c->users);
		TAILQ_INIT(&c->spare.jobs);
	}
}

void job_queue_deinit(struct job_queue *queue)
{
	for (unsigned i = 0; i < JOB_CLASSES; i++) {
		struct job_class_queue *c = &queue->class[i];
		struct job_user *user;

		while ((user = RB_MIN(job_user_ids, &c->users))) {
			RB_REMOVE(job_user_ids, &c->users, user);
			free(user);
		}
	}
}

const char *job_class_name(enum job_class class)
{
	static const char *const names[] = {
		[JOB_WORK] = "work",	     [JOB_LOOK] = "look",   [JOB_CLOSE] = "close",
		[JOB_RECOVERY] = "recovery", [JOB_SLICE] = "slice",
	};

	return names[class];
}

void job_queue_limit(struct job_queue *queue, enum job_class class, unsigned places, unsigned per_user)
{
	queue->class[class].places = places;
	queue->class[class].per_user = per_user;
}

static struct job_user *find_user(struct job_class_queue *c, uid_t uid)
{
	struct job_user key = { .uid = uid };

	return RB_FIND(job_user_ids, &c->users, &key);
}

static struct job_user *need_user(struct job_class_queue *c, uid_t uid)
{
	struct job_user *user = find_user(c, uid);

	if (user)
		return user;
	user = calloc(1, sizeof(*user));
	if (!user)
		return &c->spare;
	user->uid = uid;
	TAILQ_INIT(&user->jobs);
	RB_INSERT(job_user_ids, &c->users, user);
	return user;
}

/* Puts the user into the turns, or takes it out, as its jobs say; frees it with its last one. */
static void update_user(struct job_class_queue *c, struct job_user *user)
{
	bool has_turn = user->waiting > 0 && user->running < c->per_user;

	if (has_turn && !user->in_turns)
		TAILQ_INSERT_TAIL(&c->turns, user, of_turns);
	if (!has_turn && user->in_turns)
		TAILQ_REMOVE(&c->turns, user, of_turns);
	user->in_turns = has_turn;
	if (user->waiting > 0 || user->running > 0 || user == &c->spare)
		return;
	RB_REMOVE(job_user_ids, &c->users, user);
	free(user);
}

static void insert(struct job_class_queue *c, struct job_user *user, struct job_turn *turn)
{
	turn->user = user;
	turn->waiting = true;
	TAILQ_INSERT_TAIL(&user->jobs, turn, of_user);
	user->waiting++;
	c->waiting++;
	update_user(c, user);
}

void job_queue_push(struct job_queue *queue, struct job_turn *turn, enum job_class class, uid_t uid,
		    uint64_t now_ms)
{
	struct job_class_queue *c = &queue->class[class];

	turn->class = class;
	turn->since = now_ms;
	insert(c, need_user(c, uid), turn);
}

struct job_turn *job_queue_pop(struct job_queue *queue, enum job_class class, uint64_t now_ms)
{
	struct job_class_queue *c = &queue->class[class];
	struct job_user *user = TAILQ_FIRST(&c->turns);
	struct job_turn *turn;

	if (!user || c->running >= c->places)
		return NULL;
	TAILQ_REMOVE(&c->turns, user, of_turns);
	user->in_turns = false;
	turn = TAILQ_FIRST(&user->jobs);
	turn->waiting = false;
	TAILQ_REMOVE(&user->jobs, turn, of_user);
	user->waiting--;
	c->waiting--;
	user->running++;
	c->running++;
	c->begun++;
	c->longest = MAX(c->longest, now_ms - turn->since);
	update_user(c, user);
	return turn;
}

void job_queue_end(struct job_queue *queue, struct job_turn *turn)
{
	struct job_class_queue *c = &queue->class[turn->class];
	struct job_user *user = turn->user;

	turn->user = NULL;
	user->running--;
	c->running--;
	update_user(c, user);
}

void job_queue_remove(struct job_queue *queue, struct job_turn *turn)
{
	struct job_class_queue *c = &queue->class[turn->class];
	struct job_user *user = turn->user;

	turn->user = NULL;
	turn->waiting = false;
	TAILQ_REMOVE(&user->jobs, turn, of_user);
	user->waiting--;
	c->waiting--;
	update_user(c, user);
}

void job_queue_hasten(struct job_queue *queue, struct job_turn *turn, uid_t uid)
{
	struct job_class_queue *c = &queue->class[turn->class];
	const struct job_user *other = find_user(c, uid);
	unsigned before = other ? other->waiting + other->running : 0;

	if (turn->user->uid == uid || before + 1 >= turn->user->waiting + turn->user->running)
		return;
	job_queue_remove(queue, turn);
	insert(c, need_user(c, uid), turn);
}

struct job_turn *job_queue_first(struct job_queue *queue, enum job_class class)
{
	struct job_class_queue *c = &queue->class[class];
	struct job_user *user;

	if (c->waiting == 0)
		return NULL;
	RB_FOREACH (user, job_user_ids, &c->users)
		if (user->waiting > 0)
			return TAILQ_FIRST(&user->jobs);
	return TAILQ_FIRST(&c->spare.jobs);
}

uint64_t job_queue_oldest(struct job_queue *queue, enum job_class class, uint64_t now_ms)
{
	struct job_class_queue *c = &queue->class[class];
	struct job_turn *spare = TAILQ_FIRST(&c->spare.jobs);
	uint64_t since = spare ? spare->since : now_ms;
	struct job_user *user;

	RB_FOREACH (user, job_user_ids, &c->users)
		if (user->waiting > 0)
			since = MIN(since, TAILQ_FIRST(&user->jobs)->since);
	return now_ms - since;
}
