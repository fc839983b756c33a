/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The closer.
 *
 * Each close has a detached thread, at most CLOSER_USER_THREADS for a user and CLOSER_THREADS in sum;
 * what is beyond waits in a list until a thread is done. So closes of one user that hang hold up only
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

#include "common/macro.h"

#define CLOSER_USER_THREADS 2u
#define CLOSER_THREADS 64u
#define CLOSER_STACK (128u << 10)

struct closing {
	struct closer *closer;
	int fd;
	uid_t uid;
	bool running;
	TAILQ_ENTRY(closing) of_closer;
};
TAILQ_HEAD(closing_list, closing);

struct closer {
	pthread_mutex_t lock;
	struct closing_list closings; /* oldest first */
	unsigned threads;
	bool given_up;
};

int closer_new(struct closer **ret)
{
	struct closer *closer = calloc(1, sizeof(*closer));

	if (!closer)
		return -ENOMEM;
	pthread_mutex_init(&closer->lock, NULL);
	TAILQ_INIT(&closer->closings);
	*ret = closer;
	return 0;
}

static void destroy(struct closer *closer)
{
	struct closing *closing;

	while ((closing = TAILQ_FIRST(&closer->closings))) {
		TAILQ_REMOVE(&closer->closings, closing, of_closer);
		free(closing);
	}
	pthread_mutex_destroy(&closer->lock);
	free(closer);
}

/* Both under the lock. */

static uint32_t count(const struct closer *closer, uid_t uid, bool running)
{
	const struct closing *closing;
	uint32_t n = 0;

	TAILQ_FOREACH (closing, &closer->closings, of_closer)
		n += closing->uid == uid && (closing->running || !running);
	return n;
}

/* The oldest that waits and may run now; NULL: none. */
static struct closing *next_closing(struct closer *closer)
{
	struct closing *closing;

	TAILQ_FOREACH (closing, &closer->closings, of_closer)
		if (!closing->running && count(closer, closing->uid, true) < CLOSER_USER_THREADS)
			return closing;
	return NULL;
}

static void *close_all(void *arg)
{
	struct closing *closing = arg;
	struct closer *closer = closing->closer;
	bool last = false;

	while (closing) {
		close(closing->fd);
		pthread_mutex_lock(&closer->lock);
		TAILQ_REMOVE(&closer->closings, closing, of_closer);
		free(closing);
		closing = closer->given_up ? NULL : next_closing(closer);
		if (closing)
			closing->running = true;
		else
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

void closer_close(struct closer *closer, int fd, uid_t uid)
{
	struct closing *closing = calloc(1, sizeof(*closing)), *next;

	/* Without memory it stays open: a descriptor is less than a loop that waits. */
	if (!closing)
		return;
	*closing = (struct closing){ .closer = closer, .fd = fd, .uid = uid };
	pthread_mutex_lock(&closer->lock);
	TAILQ_INSERT_TAIL(&closer->closings, closing, of_closer);
	next = closer->threads < CLOSER_THREADS ? next_closing(closer) : NULL;
	if (next) {
		next->running = true;
		closer->threads++;
		if (start_thread(next) < 0) { /* tried again at the next close */
			next->running = false;
			closer->threads--;
		}
	}
	pthread_mutex_unlock(&closer->lock);
}

uint32_t closer_of_user(struct closer *closer, uid_t uid)
{
	uint32_t n;

	pthread_mutex_lock(&closer->lock);
	n = count(closer, uid, false);
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
