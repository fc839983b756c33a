/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The log is written as media/publish.c would, by hand: the process that dies in the midst of it cannot be
 * stopped there from outside. A block of words says what is what:
 *
 *   word 0, 1  stored by the log: the blocks that it commits, 0 before
 *   word 2, 3  the same two, from the start
 *   word 4, 5  the blocks that it frees
 *   word 6, 7  blocks that are reserved and in no log
 */
#include "tests/crash/leavings.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libclient/block.h"
#include "media/lane_private.h"
#include "media/publish.h"

#define WORDS 8u
#define NAME "leavings"

static const size_t sizes[2] = { 64, 40u << 10 };

static nvmm_ptr need(nvmm_ptr ptr)
{
	ck_assert(ptr != NVMM_NULL);
	return ptr;
}

/* Where a commit's value says that the block is reserved. */
static uint64_t entry_of(const struct lane *lane, nvmm_ptr ptr)
{
	for (unsigned i = 0; i < LANE_RESERVED; i++)
		if (media_load64(&lane->df->reserved[i]) == ptr)
			return (uint64_t)lane->number << 8 | i;
	ck_abort_msg("%#llx is not reserved", (unsigned long long)ptr);
	return 0;
}

static void add(struct log_copy *copy, enum log_kind kind, uint64_t where, uint64_t value)
{
	copy->action[copy->n].where = log_where(kind, where);
	copy->action[copy->n].old = 0;
	copy->action[copy->n++].value = value;
}

static void log_leave(struct lane *lane, nvmm_ptr at, const uint64_t *words)
{
	struct log_df *log = &lane->df->log;
	struct log_copy copy = { .n = 0 };

	for (unsigned i = 0; i < 2; i++) {
		add(&copy, LOG_COMMIT_BLOCK, words[2 + i], entry_of(lane, words[2 + i]));
		add(&copy, LOG_STORE, at + 8 * i, words[2 + i]);
		add(&copy, LOG_FREE_BLOCK, words[4 + i], 0);
	}
	copy.commit = LOG_COMMIT | 1u << 8 | copy.n;
	media_copy(log->action, copy.action, copy.n * sizeof(copy.action[0]));
	media_store32(&log->crc, log_crc(&copy));
	/* ordering: release; as where the library publishes. */
	media_store_release(&log->commit, copy.commit);
}

/* By the calling thread, which stays in an epoch. */
static void leavings_make(struct nvmm_client *nvmm, struct nvmm_heap *heap)
{
	nvmm_ptr at = need(nvmm_zalloc(heap, WORDS * sizeof(uint64_t)));
	uint64_t *words = nvmm_local(nvmm, at);

	for (unsigned i = 0; i < 2; i++) {
		words[2 + i] = need(nvmm_reserve(heap, sizes[i]));
		words[4 + i] = need(nvmm_alloc(heap, sizes[i]));
		words[6 + i] = need(nvmm_reserve(heap, sizes[i]));
	}
	ck_assert_int_eq(nvmm_root_set(heap, NAME, at), 0);
	ck_assert_int_eq(nvmm_epoch_enter(nvmm), 0);
	log_leave(lanes_find(&heap->lanes), at, words);
}

/* The log is applied, and what was reserved besides is free: 0, or -EUCLEAN. */
static int look(struct nvmm_client *nvmm, struct nvmm_heap *heap)
{
	const uint64_t *words;
	nvmm_ptr at;

	ck_assert_int_eq(nvmm_root_get(heap, NAME, &at), 0);
	words = nvmm_local(nvmm, at);
	for (unsigned i = 0; i < 2; i++)
		if (words[i] != words[2 + i] || nvmm_usable_size(heap, words[2 + i]) < sizes[i] ||
		    nvmm_usable_size(heap, words[4 + i]) != 0 ||
		    nvmm_usable_size(heap, words[6 + i]) != 0)
			return -EUCLEAN;
	return 0;
}

void leavings_enter(struct arena *a, struct nvmm_client *nvmm)
{
	a->client_heap = harness_open(nvmm, a->stage->id);
	leavings_make(nvmm, a->client_heap);
}

bool leavings_done(struct arena *a, struct nvmm_client *nvmm)
{
	struct nvmm_heap *heap;

	ck_assert_int_eq(nvmm_heap_open(&heap, nvmm, a->stage->id, O_RDONLY), 0);
	ck_assert_int_eq(look(nvmm, heap), 0);
	nvmm_heap_close(heap);
	return true;
}

/* Another process of the client's, which is killed in act(). */

static pid_t other;

static void other_run(struct arena *a, int ready)
{
	struct nvmm_client *nvmm = harness_connect(&a->h);

	leavings_make(nvmm, harness_open(nvmm, a->stage->id));
	ck_assert_int_eq(write(ready, "x", 1), 1);
	for (;;)
		pause();
}

void leavings_enter_waiting(struct arena *a, struct nvmm_client *nvmm)
{
	int ready[2];
	char c;

	a->client_heap = harness_open(nvmm, a->stage->id);
	ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
	other = fork();
	ck_assert_int_ge(other, 0);
	if (other == 0) {
		/* Not longer than the client. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		other_run(a, ready[1]);
	}
	close(ready[1]);
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	close(ready[0]);
}

int leavings_act_wait(struct arena *a, struct nvmm_client *nvmm)
{
	int r;

	kill(other, SIGKILL);
	r = nvmm_wait_settled(a->client_heap);
	waitpid(other, NULL, 0);
	return r < 0 ? r : look(nvmm, a->client_heap);
}
