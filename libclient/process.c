/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Process-wide state: fork, the process lock, entering and leaving calls.
 *
 * Fork. The child has copies of the parent's connections, handles and lanes, and must use none of
 * them: two processes would write one lane, and two requests would mix in one socket. So the child
 * handler raises a generation number; whatever was made under another one is the parent's, and
 * the next call on it says so. The prepare handler takes the process lock, hence the child's lists
 * are whole and nvmm_disconnect() there can free them; the other locks may be held by threads that
 * the child does not have, and are never touched in it.
 *
 * Entering. A thread that is inside a call may be interrupted by a signal whose handler calls the
 * library again; it would wait for a lock that its own thread holds. A flag of the thread's own
 * turns that into -EDEADLK; so does another while it has the process lock, which is also taken outside of
 * calls (a thread's end, fork). Cancellation is put off until the call is done, because a thread that
 * vanished inside would leave locks held and a reply unread.
 */
#include <errno.h>
#include <signal.h>
#include <time.h>

#include "libclient/connection.h"
#include "libclient/epochs.h"
#include "libclient/lanes.h"
#include "libclient/lock.h"
#include "libclient/process.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static uint32_t generation;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int init_error;

static __thread volatile sig_atomic_t inside;
static __thread volatile sig_atomic_t locking;
static __thread uint64_t thread_deadline;

void process_lock(void)
{
	locking = 1;
	pthread_mutex_lock(&lock);
}

void process_unlock(void)
{
	pthread_mutex_unlock(&lock);
	locking = 0;
}

void process_wait(void)
{
	pthread_cond_wait(&changed, &lock);
}

void process_wake(void)
{
	pthread_cond_broadcast(&changed);
}

uint32_t process_generation(void)
{
	/* ordering: relaxed; changes in a forked child alone, while it has one thread. */
	return __atomic_load_n(&generation, __ATOMIC_RELAXED);
}

static void fork_child(void)
{
	/* ordering: relaxed; this is the only thread. */
	__atomic_add_fetch(&generation, 1, __ATOMIC_RELAXED);
	/* Who waited there is the parent's. */
	changed = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
	connection_fork_child();
	lanes_fork_child();
	epochs_fork_child();
	lock_fork_child();
	process_unlock();
}

static void init(void)
{
	init_error = -pthread_atfork(process_lock, process_unlock, fork_child);
	if (init_error == 0)
		init_error = lanes_init();
	if (init_error == 0)
		init_error = epochs_init();
}

int process_init(void)
{
	pthread_once(&once, init);
	return init_error;
}

uint64_t time_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t time_after_ms(int ms)
{
	return ms < 0 ? UINT64_MAX : time_now() + (uint64_t)ms * 1000000u;
}

int enter(struct entry *entry, const struct nvmm_client *nvmm)
{
	if (nvmm->generation != process_generation())
		return nvmm_fail(nvmm, -ENOTCONN,
				 "this process was forked after nvmm_connect(); connect anew");
	if (inside || locking)
		return nvmm_fail(nvmm, -EDEADLK,
				 "called from a signal handler that interrupted this library");
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &entry->cancel_state);
	inside = 1;
	entry->inside = true;
	thread_deadline = time_after_ms(nvmm->timeout_ms);
	return 0;
}

void leave(struct entry *entry)
{
	if (!entry->inside)
		return;
	entry->inside = false;
	inside = 0;
	pthread_setcancelstate(entry->cancel_state, NULL);
}

uint64_t deadline(void)
{
	return thread_deadline;
}

void deadline_set(uint64_t when)
{
	thread_deadline = when;
}
