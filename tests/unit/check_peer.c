/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Peers of Unix sockets: who they are, whether they live, whether a number is still theirs.
 */
#include <errno.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/macro.h"
#include "daemon/peer.h"
#include "tests/unit/tempdir.h"

START_TEST(own_socket)
{
	gid_t groups[64];
	int n = getgroups(64, groups), fds[2];
	const char *why;
	struct peer peer;
	uint64_t start;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
	ck_assert_int_eq(peer_init(&peer, fds[0], &why), 0);
	ck_assert_int_eq(peer.process.pid, getpid());
	ck_assert_uint_eq(peer.uid, geteuid());
	ck_assert_uint_eq(peer.gid, getegid());
	ck_assert_int_eq(process_start(&start, getpid()), 0);
	ck_assert_uint_eq(peer.process.start, start);
	ck_assert(!process_ended(peer.pidfd));
	for (int i = 0; i < n; i++)
		ck_assert(peer_in_group(&peer, groups[i]));
	ck_assert(peer_in_group(&peer, getegid()));
	ck_assert(!peer_in_group(&peer, 987654));
	peer_deinit(&peer);
	peer_deinit(&peer);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

static int listen_abstract(struct sockaddr_un *addr, socklen_t *len)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	*len = sizeof(sa_family_t);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)addr, *len), 0); /* the kernel chooses */
	*len = sizeof(*addr);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)addr, len), 0);
	ck_assert_int_eq(listen(fd, 4), 0);
	return fd;
}

/* A process that connected and ended before it was accepted is refused. */
START_TEST(dead_before_accept)
{
	struct sockaddr_un addr;
	socklen_t len;
	int listener = listen_abstract(&addr, &len), fd;
	const char *why = NULL;
	struct peer peer;
	pid_t pid = fork();

	if (pid == 0) {
		fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
		_exit(connect(fd, (struct sockaddr *)&addr, len) < 0);
	}
	ck_assert_int_eq(waitpid(pid, &fd, 0), pid);
	ck_assert_int_eq(fd, 0);
	fd = accept(listener, NULL, NULL);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(peer_init(&peer, fd, &why), -ESRCH);
	ck_assert_ptr_nonnull(why);
	close(fd);
	close(listener);
}
END_TEST

START_TEST(death_is_seen)
{
	struct process_id id;
	int pidfd, status, hold[2];
	pid_t pid;

	ck_assert_int_eq(pipe(hold), 0);
	pid = fork();
	if (pid == 0) {
		char c;

		close(hold[1]);
		_exit(read(hold[0], &c, 1) != 0);
	}
	close(hold[0]);
	id.pid = pid;
	ck_assert_int_eq(process_start(&id.start, pid), 0);
	ck_assert_int_eq(process_open(&pidfd, id), 0);
	ck_assert(!process_ended(pidfd));
	close(hold[1]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(process_ended(pidfd));
	close(pidfd);
	ck_assert_int_eq(process_open(&pidfd, id), -ESRCH);
}
END_TEST

/* Deaths of a process of several threads, one of which holds a lock that the kernel gives to another. */
#define ROUNDS 40u
#define THREADS 4u

enum how { HOW_KILLED, HOW_CRASHES, HOW_EXITS, N_HOW };

struct locked {
	pthread_mutex_t mutex;
	int held; /* atomic */
};

static void *sleep_for_ever(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static _Noreturn void hold_and_die(struct locked *locked, enum how how)
{
	pthread_t thread;

	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	signal(SIGSEGV, SIG_DFL);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_create(&thread, NULL, sleep_for_ever, NULL);
	pthread_mutex_lock(&locked->mutex);
	/* ordering: release; the lock is held. */
	__atomic_store_n(&locked->held, 1, __ATOMIC_RELEASE);
	usleep(500);
	if (how == HOW_CRASHES)
		raise(SIGSEGV);
	if (how == HOW_EXITS)
		_exit(0);
	for (;;)
		pause();
}

static void locked_init(struct locked *locked)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	ck_assert_int_eq(pthread_mutex_init(&locked->mutex, &attr), 0);
	locked->held = 0;
}

/* Who gets the lock knows that its holder is dead; so must who is asked next. */
START_TEST(dying_when_its_locks_are_given)
{
	struct locked *locked = mmap(NULL, sizeof(*locked), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(locked, MAP_FAILED);
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct process_id id;
		bool dying;
		int pidfd;

		locked_init(locked);
		id.pid = fork();
		ck_assert_int_ge(id.pid, 0);
		if (id.pid == 0)
			hold_and_die(locked, (enum how)_i);
		ck_assert_int_eq(process_start(&id.start, id.pid), 0);
		pidfd = -1;
		(void)process_open(&pidfd, id);
		/* ordering: acquire; pairs with the holder's release. */
		while (__atomic_load_n(&locked->held, __ATOMIC_ACQUIRE) == 0)
			usleep(100);
		if (_i == HOW_KILLED)
			kill(id.pid, SIGKILL);
		ck_assert_int_eq(pthread_mutex_lock(&locked->mutex), EOWNERDEAD);
		dying = process_dying(id.pid);
		ck_assert_msg(dying || pidfd < 0 || process_ended(pidfd), "round %u: it seems to live", i);
		pthread_mutex_consistent(&locked->mutex);
		pthread_mutex_unlock(&locked->mutex);
		ck_assert_int_eq(waitpid(id.pid, NULL, 0), id.pid);
		close(pidfd);
	}
	munmap(locked, sizeof(*locked));
}
END_TEST

START_TEST(who_lives_is_not_dying)
{
	ck_assert(!process_dying(getpid()));
	ck_assert(!process_dying(getppid()));
	ck_assert(!process_dying(0x3fffffff));
}
END_TEST

/* Without a descriptor to look at it, it is not taken for one that lives. */
START_TEST(dying_if_it_cannot_be_seen)
{
	struct rlimit before, none;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = (rlim_t)dup(STDOUT_FILENO);
	close((int)none.rlim_cur);
	for (unsigned spare = 0; spare < 3; spare++, none.rlim_cur++) {
		bool dying;

		ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
		dying = process_dying(getpid());
		ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
		ck_assert_msg(dying, "with %u descriptors", spare);
	}
	ck_assert(!process_dying(getpid()));
}
END_TEST

/* The number is another's now: told by the start time. */
START_TEST(other_start_is_other_process)
{
	struct process_id id = { .pid = getpid() };
	int pidfd;

	ck_assert_int_eq(process_start(&id.start, id.pid), 0);
	id.start++;
	ck_assert_int_eq(process_open(&pidfd, id), -ESRCH);
}
END_TEST

/* As a number it is the same process; of one that is another, or none, the number says so. */
START_TEST(process_as_a_number)
{
	const struct process_id most = { .pid = (1 << 22) - 1,
					 .start = (UINT64_C(1) << PROCESS_START_BITS) - 1 };
	struct process_id id = { .pid = getpid() };
	int pidfd;

	ck_assert_uint_eq(process_number(most), UINT64_MAX);
	ck_assert_int_eq(process_of_number(UINT64_MAX).pid, most.pid);
	ck_assert_uint_eq(process_of_number(UINT64_MAX).start, most.start);
	ck_assert_int_eq(process_start(&id.start, id.pid), 0);
	ck_assert_int_eq(process_open(&pidfd, process_of_number(process_number(id))), 0);
	close(pidfd);
	ck_assert_int_eq(process_open(&pidfd, process_of_number(process_number(id) + 1)), -ESRCH);
}
END_TEST

struct numbered {
	pthread_barrier_t barrier;
	pid_t number;
};

static void *numbered_thread(void *arg)
{
	struct numbered *n = arg;

	n->number = (pid_t)syscall(SYS_gettid);
	pthread_barrier_wait(&n->barrier);
	/* Here it is looked at. */
	pthread_barrier_wait(&n->barrier);
	return NULL;
}

/* The number of a process that is gone may be that of another's thread, or be rotten. */
START_TEST(a_thread_is_no_process)
{
	struct process_id id = { .pid = 0 };
	struct numbered n;
	pthread_t thread;
	int pidfd;

	ck_assert_int_eq(process_open(&pidfd, id), -ESRCH);
	pthread_barrier_init(&n.barrier, NULL, 2);
	ck_assert_int_eq(pthread_create(&thread, NULL, numbered_thread, &n), 0);
	pthread_barrier_wait(&n.barrier);
	id.pid = n.number;
	ck_assert_int_eq(process_start(&id.start, id.pid), 0);
	ck_assert_int_eq(process_open(&pidfd, id), -ESRCH);
	pthread_barrier_wait(&n.barrier);
	pthread_join(thread, NULL);
	pthread_barrier_destroy(&n.barrier);
}
END_TEST

START_TEST(start_time_of_odd_names)
{
	static const char rest[] = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 19\n";
	static const char *const names[] = { "sh", "a b", ")", ") S 1 (", "((", "" };
	char text[256];
	uint64_t start;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(text, sizeof(text), "42 (%s)%s", names[i], rest);
		ck_assert_int_eq(process_parse_start(&start, text), 0);
		ck_assert_uint_eq(start, 4711);
	}
	ck_assert_int_eq(process_parse_start(&start, ""), -EBADMSG);
	ck_assert_int_eq(process_parse_start(&start, "42 (sh) S 1 2"), -EBADMSG);
	ck_assert_int_eq(process_parse_start(&start, "42 (sh"), -EBADMSG);
	ck_assert_int_eq(process_start(&start, 0x3fffffff), -ESRCH);
}
END_TEST

/* More groups than the first guess has room for. */
START_TEST(many_groups)
{
	gid_t groups[200];
	const char *why;
	struct peer peer;
	int fds[2];

	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		groups[i] = (gid_t)(50000 + i);
	if (setgroups(ARRAY_SIZE(groups), groups) < 0)
		return; /* needs root */
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
	ck_assert_int_eq(peer_init(&peer, fds[0], &why), 0);
	ck_assert_uint_eq(peer.n_groups, ARRAY_SIZE(groups));
	ck_assert(peer_in_group(&peer, 50199));
	peer_deinit(&peer);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("peer");
	TCase *tc = tcase_create("peer");

	tcase_add_test(tc, own_socket);
	tcase_add_test(tc, dead_before_accept);
	tcase_add_test(tc, death_is_seen);
	tcase_add_loop_test(tc, dying_when_its_locks_are_given, 0, N_HOW);
	tcase_add_test(tc, who_lives_is_not_dying);
	tcase_add_test(tc, dying_if_it_cannot_be_seen);
	tcase_add_test(tc, other_start_is_other_process);
	tcase_add_test(tc, process_as_a_number);
	tcase_add_test(tc, a_thread_is_no_process);
	tcase_add_test(tc, start_time_of_odd_names);
	tcase_add_test(tc, many_groups);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
