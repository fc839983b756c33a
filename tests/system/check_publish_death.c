/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Publishing with a real daemon: what it does and refuses; processes killed in the midst of it, with the
 * daemon alive or killed as well, after which a list in the heap is whole and nothing is lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "tests/system/harness.h"

#define HEAP_BYTES (UINT64_C(64) << 20)
#define NODE_SIZE 64u
#define KILLS 100u

static struct harness h;

static void stop(void)
{
	if (h.daemon)
		harness_stop(&h);
}

/* A stack; its fields are words that are published together. */
struct stack {
	nvmm_ptr head;
	uint64_t count;
	uint64_t sum; /* of the nodes' values */
};

struct node {
	nvmm_ptr next;
	uint64_t value;
};

struct user {
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	nvmm_ptr at; /* of the stack */
	struct stack *stack;
	nvmm_ptr reserved;
};

static void user_open(struct user *u, nvmm_pool_id id, nvmm_ptr at)
{
	u->nvmm = harness_connect(&h);
	u->heap = harness_open(u->nvmm, id);
	u->at = at;
	u->stack = nvmm_local(u->nvmm, at);
	ck_assert_ptr_nonnull(u->stack);
}

static void user_close(struct user *u)
{
	nvmm_heap_close(u->heap);
	nvmm_disconnect(u->nvmm);
}

static nvmm_ptr field(const struct user *u, size_t offset)
{
	return u->at + offset;
}

static void push(struct user *u, uint64_t value)
{
	nvmm_ptr ptr = nvmm_reserve(u->heap, NODE_SIZE);
	struct node *node = nvmm_local(u->nvmm, ptr);
	struct nvmm_action actions[] = {
		NVMM_COMMIT(ptr),
		NVMM_STORE(field(u, offsetof(struct stack, head)), ptr),
		NVMM_STORE(field(u, offsetof(struct stack, count)), u->stack->count + 1),
		NVMM_STORE(field(u, offsetof(struct stack, sum)), u->stack->sum + value),
	};

	must(ptr != NVMM_NULL && node, "reserve: %s", nvmm_errmsg(u->nvmm));
	*node = (struct node){ .next = u->stack->head, .value = value };
	must(nvmm_publish(u->heap, actions, 4) == 0, "push: %s", nvmm_errmsg(u->nvmm));
}

static void pop(struct user *u)
{
	const struct node *node = nvmm_local(u->nvmm, u->stack->head);
	struct nvmm_action actions[] = {
		NVMM_STORE(field(u, offsetof(struct stack, head)), node->next),
		NVMM_STORE(field(u, offsetof(struct stack, count)), u->stack->count - 1),
		NVMM_STORE(field(u, offsetof(struct stack, sum)), u->stack->sum - node->value),
		NVMM_FREE(u->stack->head),
	};

	must(nvmm_publish(u->heap, actions, 4) == 0, "pop: %s", nvmm_errmsg(u->nvmm));
}

/* The list is as long as it says, and holds what it says. */
static void stack_check(struct user *u)
{
	uint64_t n = 0, sum = 0;

	for (nvmm_ptr p = u->stack->head; p != NVMM_NULL; n++) {
		const struct node *node = nvmm_local(u->nvmm, p);

		ck_assert_uint_eq(nvmm_usable_size(u->heap, p), NODE_SIZE);
		ck_assert_uint_lt(n, u->stack->count);
		sum += node->value;
		p = node->next;
	}
	ck_assert_uint_eq(n, u->stack->count);
	ck_assert_uint_eq(sum, u->stack->sum);
}

static bool exact(void *arg)
{
	struct user *u = arg;
	struct nvmm_heap_info info = { .size = sizeof(info) };

	ck_assert_int_eq(nvmm_heap_stat(u->heap, &info), 0);
	return info.limbo == 0 && info.used == (u->stack->count + 1) * NODE_SIZE;
}

struct setting {
	nvmm_pool_id id;
	nvmm_ptr at;
	uint64_t done; /* atomic: operations of the present worker */
};

static struct setting *setting;

static void start(void)
{
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;

	harness_init(&h, NULL);
	harness_start(&h);
	setting = harness_shared(sizeof(*setting));
	nvmm = harness_connect(&h);
	heap = harness_heap(nvmm, &setting->id, HEAP_BYTES, NULL, 0);
	setting->at = nvmm_zalloc(heap, NODE_SIZE);
	ck_assert_uint_ne(setting->at, NVMM_NULL);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}

/* Works until it is killed. */
static void work(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	struct user u;

	user_open(&u, setting->id, setting->at);
	for (;;) {
		/* Reservations that are never committed, and some that are cancelled. */
		if (rand_r(&seed) % 8 == 0)
			(void)nvmm_reserve(u.heap, 100 + (unsigned)rand_r(&seed) % 400);
		if (rand_r(&seed) % 4 == 0)
			must(nvmm_cancel(u.heap, nvmm_reserve(u.heap, 64)) == 0 ||
				     errno == ENOBUFS,
			     "cancel: %s", nvmm_errmsg(u.nvmm));
		if (u.stack->count > 200 || (u.stack->count > 0 && rand_r(&seed) % 2))
			pop(&u);
		else
			push(&u, (unsigned)rand_r(&seed));
		/* ordering: relaxed; a count for the eye. */
		__atomic_fetch_add(&setting->done, 1, __ATOMIC_RELAXED);
	}
}

static bool has_worked(void *arg)
{
	(void)arg;
	/* ordering: relaxed; as above. */
	return __atomic_load_n(&setting->done, __ATOMIC_RELAXED) > 3;
}

/* Kills it in the midst of its work. The process is dying then, and dead when its pid is waited for. */
static pid_t kill_worker(unsigned round, bool daemon_too)
{
	pid_t pid;

	/* ordering: relaxed; as above. */
	__atomic_store_n(&setting->done, 0, __ATOMIC_RELAXED);
	pid = harness_fork(work, (void *)(uintptr_t)(round + 1));
	harness_until(has_worked, NULL, 30000);
	for (volatile unsigned i = 0; i < round * 977 % 5000; i++)
		;
	if (daemon_too && round % 2)
		harness_signal(&h, SIGKILL);
	kill(pid, SIGKILL);
	if (daemon_too && !(round % 2))
		harness_signal(&h, SIGKILL);
	return pid;
}

START_TEST(killed_workers)
{
	struct user u;

	start();
	user_open(&u, setting->id, setting->at);
	for (unsigned i = 0; i < KILLS; i++) {
		pid_t pid = kill_worker(i, false);

		/* The signal is on its way: that is dead enough. */
		ck_assert_int_eq(nvmm_wait_settled(u.heap), 0);
		ck_assert_int_eq(waitpid(pid, NULL, WNOHANG), pid);
		stack_check(&u);
		harness_until(exact, &u, 10000);
	}
	user_close(&u);
	stop();
}
END_TEST

/* The daemon dies before the worker or after it; another process has the heap open, or nobody has. */
START_TEST(killed_with_the_daemon)
{
	struct user u;
	bool stays = _i;

	start();
	if (stays)
		user_open(&u, setting->id, setting->at);
	for (unsigned i = 0; i < KILLS / 4; i++) {
		ck_assert_int_gt(waitpid(kill_worker(i, true), NULL, 0), 0);
		harness_start(&h);
		if (!stays)
			user_open(&u, setting->id, setting->at);
		ck_assert_int_eq(nvmm_wait_settled(u.heap), 0);
		stack_check(&u);
		harness_until(exact, &u, 10000);
		if (!stays)
			user_close(&u);
	}
	if (stays)
		user_close(&u);
	stop();
}
END_TEST

START_TEST(refusals)
{
	struct nvmm_action many[NVMM_PUBLISH_MAX + 1];
	struct user u;
	nvmm_ptr ptr;

	start();
	user_open(&u, setting->id, setting->at);
	ptr = nvmm_reserve(u.heap, 64);
	ck_assert_uint_ne(ptr, NVMM_NULL);
	ck_assert_int_eq(nvmm_free(u.heap, ptr), -EBUSY);
	ck_assert_ptr_nonnull(strstr(nvmm_errmsg(u.nvmm), "reserved"));
	ck_assert_int_eq(nvmm_free_deferred(u.heap, ptr), -EBUSY);
	ck_assert_uint_eq(nvmm_realloc(u.heap, ptr, 4000), NVMM_NULL);
	ck_assert_int_eq(errno, EBUSY);
	for (unsigned i = 0; i <= NVMM_PUBLISH_MAX; i++)
		many[i] = (struct nvmm_action)NVMM_STORE(ptr, i);
	ck_assert_int_eq(nvmm_publish(u.heap, many, NVMM_PUBLISH_MAX + 1), -E2BIG);
	ck_assert_int_eq(nvmm_publish(u.heap, many, 2), -EINVAL);
	ck_assert_ptr_nonnull(strstr(nvmm_errmsg(u.nvmm), "action 1 (store"));
	ck_assert_int_eq(nvmm_publish(u.heap, many, 0), 0);
	many[0] = (struct nvmm_action)NVMM_STORE(ptr ^ UINT64_C(1) << 60, 1);
	ck_assert_int_eq(nvmm_publish(u.heap, many, 1), -EINVAL);
	many[0] = (struct nvmm_action)NVMM_COMMIT(setting->at);
	ck_assert_int_eq(nvmm_publish(u.heap, many, 1), -EINVAL);
	many[0].kind = (enum nvmm_action_kind)77;
	ck_assert_int_eq(nvmm_publish(u.heap, many, 1), -EINVAL);
	ck_assert_int_eq(nvmm_cancel(u.heap, setting->at), -EINVAL);
	ck_assert_int_eq(nvmm_cancel(u.heap, NVMM_NULL), 0);
	ck_assert_int_eq(nvmm_cancel(u.heap, ptr), 0);
	ck_assert_uint_eq(nvmm_reserve(u.heap, 0), NVMM_NULL);
	ck_assert_int_eq(errno, EINVAL);
	for (unsigned i = 0; i < 128; i++)
		ck_assert_uint_ne(nvmm_reserve(u.heap, 64), NVMM_NULL);
	ck_assert_uint_eq(nvmm_reserve(u.heap, 64), NVMM_NULL);
	ck_assert_int_eq(errno, ENOBUFS);
	/* Closing cancels what is left. */
	user_close(&u);
	user_open(&u, setting->id, setting->at);
	harness_until(exact, &u, 10000);
	user_close(&u);
	stop();
}
END_TEST

/* One thread reserves and ends, another publishes. */
static void *reserve_and_end(void *arg)
{
	struct user *u = arg;

	return (void *)(uintptr_t)nvmm_reserve(u->heap, NODE_SIZE);
}

START_TEST(across_threads)
{
	struct user u;
	pthread_t thread;
	void *reserved;

	start();
	user_open(&u, setting->id, setting->at);
	for (unsigned i = 0; i < 10; i++) {
		nvmm_ptr ptr;

		ck_assert_int_eq(pthread_create(&thread, NULL, reserve_and_end, &u), 0);
		pthread_join(thread, &reserved);
		ptr = (nvmm_ptr)(uintptr_t)reserved;
		ck_assert_uint_ne(ptr, NVMM_NULL);
		*(struct node *)nvmm_local(u.nvmm, ptr) = (struct node){ .next = u.stack->head };
		ck_assert_int_eq(nvmm_publish(u.heap,
					      (struct nvmm_action[]){
						      NVMM_COMMIT(ptr),
						      NVMM_STORE(setting->at, ptr),
						      NVMM_STORE(field(&u, 8), i + 1),
					      },
					      3),
				 0);
	}
	stack_check(&u);
	harness_until(exact, &u, 10000);
	while (u.stack->count > 0)
		pop(&u);
	harness_until(exact, &u, 10000);
	user_close(&u);
	stop();
}
END_TEST

/* A child has its parent's handles and reservations, and can do nothing with them, nor do them any harm. */
static void forked(void *arg)
{
	struct user *u = arg;
	struct nvmm_action commit = NVMM_COMMIT(u->reserved);

	must(nvmm_publish(u->heap, &commit, 1) == -ENOTCONN, "publish: %s", nvmm_errmsg(u->nvmm));
	must(nvmm_cancel(u->heap, u->reserved) == -ENOTCONN, "cancel: %s", nvmm_errmsg(u->nvmm));
	must(nvmm_reserve(u->heap, 64) == NVMM_NULL && errno == ENOTCONN, "reserve: %s",
	     nvmm_errmsg(u->nvmm));
	must(nvmm_realloc_in(u->heap, u->at, 5000) == NVMM_NULL, "realloc: %s", nvmm_errmsg(u->nvmm));
	must(nvmm_wait_settled(u->heap) == -ENOTCONN, "wait: %s", nvmm_errmsg(u->nvmm));
	nvmm_disconnect(u->nvmm);
}

START_TEST(in_a_forked_child)
{
	struct user u;

	start();
	user_open(&u, setting->id, setting->at);
	u.reserved = nvmm_reserve(u.heap, NODE_SIZE);
	ck_assert_uint_ne(u.reserved, NVMM_NULL);
	harness_join(harness_fork(forked, &u));
	ck_assert_int_eq(nvmm_wait_settled(u.heap), 0);
	ck_assert_int_eq(nvmm_free(u.heap, u.reserved), -EBUSY);
	*(struct node *)nvmm_local(u.nvmm, u.reserved) = (struct node){ .value = 0 };
	ck_assert_int_eq(nvmm_publish(u.heap,
				      (struct nvmm_action[]){
					      NVMM_COMMIT(u.reserved),
					      NVMM_STORE(setting->at, u.reserved),
					      NVMM_STORE(field(&u, 8), 1),
				      },
				      3),
			 0);
	stack_check(&u);
	harness_until(exact, &u, 10000);
	user_close(&u);
	stop();
}
END_TEST

/* Inside of an epoch of the caller's, twice entered: what is freed stays as it was until that ends. */
START_TEST(inside_an_epoch)
{
	struct nvmm_heap *view;
	struct user u;
	nvmm_ptr old, fresh;

	start();
	user_open(&u, setting->id, setting->at);
	push(&u, 5);
	old = u.stack->head;
	ck_assert_int_eq(nvmm_epoch_enter(u.nvmm), 0);
	ck_assert_int_eq(nvmm_epoch_enter(u.nvmm), 0);
	pop(&u);
	ck_assert_int_eq(nvmm_cancel(u.heap, nvmm_reserve(u.heap, 64)), 0);
	nvmm_epoch_exit(u.nvmm);
	ck_assert_int_eq(nvmm_wait_settled(u.heap), 0);
	for (unsigned i = 0; i < 1000; i++) {
		fresh = nvmm_alloc(u.heap, NODE_SIZE);
		ck_assert_uint_ne(fresh, NVMM_NULL);
		ck_assert_uint_ne(fresh, old);
		ck_assert_int_eq(nvmm_free(u.heap, fresh), 0);
	}
	ck_assert_uint_eq(((struct node *)nvmm_local(u.nvmm, old))->value, 5);
	nvmm_epoch_exit(u.nvmm);
	harness_until(exact, &u, 10000);
	/* Who may only read waits as well, and does nothing else. */
	ck_assert_int_eq(nvmm_heap_open(&view, u.nvmm, setting->id, O_RDONLY), 0);
	ck_assert_int_eq(nvmm_wait_settled(view), 0);
	ck_assert_uint_eq(nvmm_reserve(view, 64), NVMM_NULL);
	ck_assert_int_eq(errno, EROFS);
	ck_assert_int_eq(nvmm_publish(view, (struct nvmm_action[]){ NVMM_STORE(u.at, 1) }, 1), -EROFS);
	nvmm_heap_close(view);
	stack_check(&u);
	user_close(&u);
	stop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("publish and death");
	TCase *t = harness_case(s, "publish and death", 240);

	tcase_add_test(t, refusals);
	tcase_add_test(t, across_threads);
	tcase_add_test(t, in_a_forked_child);
	tcase_add_test(t, inside_an_epoch);
	tcase_add_test(t, killed_workers);
	tcase_add_loop_test(t, killed_with_the_daemon, 0, 2);
	return harness_run(s);
}
