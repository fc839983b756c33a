/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Telling of deaths.
 *
 * A thread of the library's waits, by futex, for a word of the epoch page that the daemon raises after it settled
 * a death, asks the daemon who it was, and calls the program. It asks for a short time only, so that a program
 * can end beside a daemon that is stopped; what it did not learn it asks for again.
 *
 * Ending it: the word is not this process's to change, so who ends the thread wakes it until it has seen that it
 * is to end. The watcher's memory is its thread's or its ender's: an ender that is the thread itself, in
 * the program's function, leaves it to the thread.
 */
#include "libclient/failure.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libclient/epochs.h"
#include "media/epoch.h"

#define ASK_MS 1000
#define PAUSE_NS 20000000L
#define WAKE_NS 500000L

struct watcher {
	struct nvmm_client *nvmm;
	void (*fn)(const struct nvmm_failure *failure, void *arg);
	void *arg;
	const struct epoch_page *page;
	pthread_t thread;
	uint64_t run; /* the daemon that was asked last, */
	uint64_t last; /* and how many deaths it had told of */
	bool end;      /* atomic; no call any more */
	bool ended;    /* atomic; the thread waits for nothing any more */
	bool own;      /* the thread frees it */
};

/* That the calling thread is of; NULL: it is the program's. */
static __thread struct watcher *mine;

static bool is_set(const bool *flag)
{
	/* ordering: acquire; pairs with set(). */
	return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

static void set(bool *flag)
{
	/* ordering: release; pairs with is_set(). */
	__atomic_store_n(flag, true, __ATOMIC_RELEASE);
}

/* Who died since the last time. Text set. */
static int ask(struct watcher *w, struct nvmm_reply *reply)
{
	_entry entry = ENTRY_NONE;
	Nvmm__Failures op = NVMM__FAILURES__INIT;
	Nvmm__Request request = NVMM_REQUEST(FAILURES, failures, &op);
	int r;

	r = enter(&entry, w->nvmm);
	if (r < 0)
		return r;
	deadline_set(MIN(deadline(), time_after_ms(ASK_MS)));
	op.run = w->run;
	op.after = w->last;
	return call_daemon(w->nvmm, &request, NVMM__REPLY__RESULT_FAILURES, 0, reply);
}

static void tell(struct watcher *w, const Nvmm__FailuresReply *reply)
{
	struct nvmm_failure failure = { 0 };

	w->run = reply->run;
	w->last = reply->last;
	if (reply->missed && !is_set(&w->end))
		w->fn(&failure, w->arg);
	for (size_t i = 0; i < reply->n_failures && !is_set(&w->end); i++) {
		failure.pool = (nvmm_pool_id)reply->failures[i]->pool;
		failure.pid = (pid_t)reply->failures[i]->pid;
		w->fn(&failure, w->arg);
	}
}

static void *watch(void *arg)
{
	static const struct timespec pause = { .tv_nsec = PAUSE_NS };
	struct watcher *w = arg;

	mine = w;
	while (!is_set(&w->end)) {
		uint32_t seen = epoch_page_calls(w->page);
		_reply reply = NVMM_REPLY_INIT;
		int r = ask(w, &reply);

		if (r == 0)
			tell(w, reply.msg->failures);
		else if (connection_lost(w->nvmm))
			break;
		else
			nanosleep(&pause, NULL);
		if (r == 0 && !is_set(&w->end))
			epoch_page_wait(w->page, seen);
	}
	set(&w->ended);
	if (w->own)
		free(w);
	return NULL;
}

/* Ends a watcher; when it returns the program's function is not running, unless it is the caller. */
static void end(struct watcher *w)
{
	static const struct timespec step = { .tv_nsec = WAKE_NS };

	if (!w)
		return;
	if (w->nvmm->generation != process_generation()) {
		free(w);
		return;
	}
	if (w == mine) {
		pthread_detach(pthread_self());
		w->own = true;
		set(&w->end);
		return;
	}
	set(&w->end);
	for (; !is_set(&w->ended); nanosleep(&step, NULL))
		epoch_page_wake(w->page);
	pthread_join(w->thread, NULL);
	free(w);
}

static int start(struct watcher *w)
{
	sigset_t all, before;
	int r;

	/* The program's signals are its own threads' business. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(&w->thread, NULL, watch, w);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

/* The watcher of a connection, in exchange for the one before. */
static struct watcher *swap(struct nvmm_client *nvmm, struct watcher *w)
{
	struct watcher *before;

	process_lock();
	before = nvmm->watcher;
	nvmm->watcher = w;
	process_unlock();
	return before;
}

void failure_unwatch(struct nvmm_client *nvmm)
{
	end(swap(nvmm, NULL));
}

/* What there is to know before it begins: the page, and what happened before. */
static int prepare(struct watcher *w)
{
	_reply reply = NVMM_REPLY_INIT;
	struct epochs *epochs;
	int r;

	r = epochs_need(w->nvmm, &epochs);
	if (r < 0)
		return r;
	w->page = epochs_page(epochs);
	r = ask(w, &reply);
	if (r < 0)
		return r;
	w->run = reply.msg->failures->run;
	w->last = reply.msg->failures->last;
	return 0;
}

_public int nvmm_on_failure(struct nvmm_client *nvmm,
			    void (*fn)(const struct nvmm_failure *failure, void *arg), void *arg)
{
	struct watcher *w;
	int r;

	if (!fn) {
		failure_unwatch(nvmm);
		return 0;
	}
	w = calloc(1, sizeof(*w));
	if (!w)
		return nvmm_fail(nvmm, -ENOMEM, "this process has no memory");
	*w = (struct watcher){ .nvmm = nvmm, .fn = fn, .arg = arg };
	r = prepare(w);
	if (r == 0) {
		r = start(w);
		if (r < 0)
			nvmm_fail(nvmm, r, "a thread cannot be started: %s", strerror(-r));
	}
	if (r < 0) {
		free(w);
		return r;
	}
	end(swap(nvmm, w));
	return 0;
}
