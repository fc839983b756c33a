/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The closer.
 *
 * Each close has a detached thread, at most CLOSER_USER_THREADS for a user and CLOSER_THREADS in sum;
 * what is beyond waits in a list of its user until a thread is done, and users take turns. So closes of one user that hang hold up only
 * those of the same user. What waits keeps its descriptor: the server counts it as a connection of its
 * user, and refuses further ones (server.c).
 *
 * Process exit needs no thread: the kernel skips the linger time for a process that exits.
 *
 * The lock guards everything and is never held across a close. The last of owner and threads frees.
 */
#include "daemon/closer.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <unistd.h>

#include <bsd/sys/tree.h>

#include "common/macro.h"

#define CLOSER_USER_THREADS 2u
#define CLOSER_THREADS 64u
#define CLOSER_STACK (128u << 10)

struct closing {
	struct closer *closer;
	struct closing_user *user;
	int fd;
	STAILQ_ENTRY(closing) of_user;
};

/* There while it has closes that wait or run. */
struct closing_user {
	uid_t uid;
	uint32_t n; /* that wait or run */
	unsigned running;
	bool in_turns; /* it has one that waits and may run */
	STAILQ_HEAD(, closing) waiting;
	TAILQ_ENTRY(closing_user) of_turns;
	RB_ENTRY(closing_user) of_uid;
};
RB_HEAD(closing_users, closing_user);

struct closer {
	pthread_mutex_t lock;
	struct closing_users users;
	TAILQ_HEAD(, closing_user) turns;
	unsigned threads;
	bool given_up;
};

static int compare_users(struct closing_user *a, struct closing_user *b)
{
	return (a->uid > b->uid) - (a->uid < b->uid);
}

RB_GENERATE_INTERNAL(closing_users, closing_user, of_uid, compare_users, _unused static)

int closer_new(struct closer **ret)
{
	struct closer *closer = calloc(1, sizeof(*closer));

	if (!closer)
		return -ENOMEM;
	pthread_mutex_init(&closer->lock, NULL);
	RB_INIT(&closer->users);
	TAILQ_INIT(&closer->turns);
	*ret = closer;
	return 0;
}

static void destroy(struct closer *closer)
{
	struct closing_user *user;
	struct closing *closing;

	while ((user = RB_MIN(closing_users, &closer->users))) {
		while ((closing = STAILQ_FIRST(&user->waiting))) {
			STAILQ_REMOVE_HEAD(&user->waiting, of_user);
			free(closing);
		}
		RB_REMOVE(closing_users, &closer->users, user);
		free(user);
	}
	pthread_mutex_destroy(&closer->lock);
	free(closer);
}

/* All of these under the lock. */

static struct closing_user *find_user(struct closer *closer, uid_t uid)
{
	struct closing_user key = { .uid = uid };

	return RB_FIND(closing_users, &closer->users, &key);
}

static struct closing_user *need_user(struct closer *closer, uid_t uid)
{
	struct closing_user *user = find_user(closer, uid);

	if (user)
		return user;
	user = calloc(1, sizeof(*user));
	if (!user)
		return NULL;
	user->uid = uid;
	STAILQ_INIT(&user->waiting);
	RB_INSERT(closing_users, &closer->users, user);
	return user;
}

/* Puts the user into the turns or takes it out, as its closes say; frees it with its last one. */
static void update_user(struct closer *closer, struct closing_user *user)
{
	bool has_turn = !STAILQ_EMPTY(&user->waiting) && user->running < CLOSER_USER_THREADS;

	if (has_turn && !user->in_turns)
		TAILQ_INSERT_TAIL(&closer->turns, user, of_turns);
	if (!has_turn && user->in_turns)
		TAILQ_REMOVE(&closer->turns, user, of_turns);
	user->in_turns = has_turn;
	if (user->n > 0)
		return;
	RB_REMOVE(closing_users, &closer->users, user);
	free(user);
}

/* The next one that may run, which runs from now on; NULL: none. */
static struct closing *next_closing(struct closer *closer)
{
	struct closing_user *user = TAILQ_FIRST(&closer->turns);
	struct closing *closing;

	if (!user)
		return NULL;
	TAILQ_REMOVE(&closer->turns, user, of_turns);
	user->in_turns = false;
	closing = STAILQ_FIRST(&user->waiting);
	STAILQ_REMOVE_HEAD(&user->waiting, of_user);
	user->running++;
	update_user(closer, user);
	return closing;
}

static void end_closing(struct closer *closer, struct closing *closing)
{
	struct closing_user *user = closing->user;

	free(closing);
	user->running--;
	user->n--;
	update_user(closer, user);
}

static void *close_all(void *arg)
{
	struct closing *closing = arg;
	struct closer *closer = closing->closer;
	bool last = false;

	while (closing) {
		close(closing->fd);
		pthread_mutex_lock(&closer->lock);
		end_closing(closer, closing);
		closing = closer->given_up ? NULL : next_closing(closer);
		if (!closing)
			closer->threads--;
		last = closer->given_up && closer->threads == 0;
		pthread_mutex_unlock(&closer->lock);
	}
	if (last)
		destroy(closer);
	return NULL;
}

/* Starts a detached thread that takes no signals. 0 or -errno. */
static int start_thread(struct closing *closing)
{
	sigset_t all, before;
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, MAX((size_t)CLOSER_STACK, (size_t)PTHREAD_STACK_MIN));
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&thread, &attr, close_all, closing);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

/* Puts it back: its thread could not be started. */
static void wait_again(struct closer *closer, struct closing *closing)
{
	closing->user->running--;
	STAILQ_INSERT_HEAD(&closing->user->waiting, closing, of_user);
	update_user(closer, closing->user);
}

void closer_close(struct closer *closer, int fd, uid_t uid)
{
	struct closing *closing = malloc(sizeof(*closing));
	struct closing_user *user;

	pthread_mutex_lock(&closer->lock);
	user = closing ? need_user(closer, uid) : NULL;
	if (user) {
		*closing = (struct closing){ .closer = closer, .user = user, .fd = fd };
		STAILQ_INSERT_TAIL(&user->waiting, closing, of_user);
		user->n++;
		update_user(closer, user);
		closing = closer->threads < CLOSER_THREADS ? next_closing(closer) : NULL;
		if (closing && start_thread(closing) == 0)
			closer->threads++;
		else if (closing) /* tried again at the next close */
			wait_again(closer, closing);
		closing = NULL;
	}
	pthread_mutex_unlock(&closer->lock);
	/* Without memory the socket stays open: a descriptor is less than a loop that waits. */
	free(closing);
}

uint32_t closer_of_user(struct closer *closer, uid_t uid)
{
	const struct closing_user *user;
	uint32_t n;

	pthread_mutex_lock(&closer->lock);
	user = find_user(closer, uid);
	n = user ? user->n : 0;
	pthread_mutex_unlock(&closer->lock);
	return n;
}

void closer_free(struct closer *closer)
{
	bool last;

	if (!closer)
		return;
	pthread_mutex_lock(&closer->lock);
	closer->given_up = true;
	last = closer->threads == 0;
	pthread_mutex_unlock(&closer->lock);
	if (last)
		destroy(closer);
}
