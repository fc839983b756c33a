/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The heap's last slot in the registry is rotten: what the other one says, that it is being created, must
 * not be acted on by a daemon that starts while it is repaired. All words of its table are gone.
 */
#include "tests/crash/op_repair.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "libclient/call.h"
#include "media/format.h"

#define SIZE (1u << 20)
#define BLOCKS 40u
#define TRIES 4u

enum { WAITS = 1, RUNS = 2, DONE = 4 }; /* states of a recovery */

static int open_file(struct arena *a, const char *name)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", a->h.base, name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static void spoil_record(struct arena *a)
{
	off_t at = (off_t)(offsetof(struct registry_file_df, entry) +
			   a->stage->id * sizeof(struct registry_entry_df));
	struct registry_entry_df entry;
	int fd = open_file(a, "registry");
	unsigned last;

	ck_assert_int_eq(pread(fd, &entry, sizeof(entry), at), sizeof(entry));
	last = entry.slot[1].head.commit.raw > entry.slot[0].head.commit.raw;
	ck_assert_uint_eq(entry.slot[!last].state.raw, POOL_CREATING);
	at += (off_t)(last * sizeof(entry.slot[0]) + offsetof(struct pool_record_df, gid));
	ck_assert_int_eq(pwrite(fd, "rot!", 4, at), 4);
	close(fd);
}

static void spoil_table(struct arena *a)
{
	static const char zero[SIZE / UNIT_SIZE * 8];
	char name[40];
	int fd;

	snprintf(name, sizeof(name), "pool-%u/table-0.1", a->stage->id);
	fd = open_file(a, name);
	ck_assert_int_eq(pwrite(fd, zero, sizeof(zero), sizeof(struct table_file_df)), sizeof(zero));
	close(fd);
}

void repair_prepare(struct arena *a, struct nvmm_client *nvmm)
{
	struct nvmm_heap *heap;
	nvmm_ptr ptr = NVMM_NULL;

	ck_assert_int_eq(nvmm_heap_create(nvmm, &a->stage->id, SIZE, NULL), 0);
	heap = harness_open(nvmm, a->stage->id);
	for (unsigned i = 0; i < BLOCKS; i++)
		ck_assert((ptr = nvmm_alloc(heap, 64 + i * 50)) != NVMM_NULL);
	ck_assert_int_eq(nvmm_root_set(heap, "root", ptr), 0);
	nvmm_heap_close(heap);
	harness_stop(&a->h);
	spoil_record(a);
	spoil_table(a);
	harness_start(&a->h);
}

static int ask(struct arena *a, struct nvmm_client *nvmm)
{
	Nvmm__Recover op = NVMM__RECOVER__INIT;
	Nvmm__Request request = NVMM_REQUEST(RECOVER, recover, &op);
	_reply reply = NVMM_REPLY_INIT;

	op.id = a->stage->id;
	op.repair = true;
	return nvmm_call(nvmm, &request, NVMM__REPLY__RESULT__NOT_SET, 0, &reply);
}

/* The state of its recovery, or an error. */
static int state_of(struct arena *a, struct nvmm_client *nvmm)
{
	Nvmm__RecoverStatus op = NVMM__RECOVER_STATUS__INIT;
	Nvmm__Request request = NVMM_REQUEST(RECOVER_STATUS, recover_status, &op);
	_reply reply = NVMM_REPLY_INIT;
	int r;

	op.id = a->stage->id;
	r = nvmm_call(nvmm, &request, NVMM__REPLY__RESULT_RECOVER_STATUS, 0, &reply);
	if (r < 0)
		return r;
	ck_assert_uint_eq(reply.msg->recover_status->n_pools, 1);
	return (int)reply.msg->recover_status->pools[0]->state;
}

int repair_act(struct arena *a, struct nvmm_client *nvmm)
{
	int r = 0;

	/* A daemon that was started since knows nothing of it, and is asked again. */
	for (unsigned i = 0; i < TRIES && r != DONE; i++) {
		r = ask(a, nvmm);
		while (r >= 0 && ((r = state_of(a, nvmm)) == WAITS || r == RUNS))
			harness_sleep_ms(1);
		if (r < 0)
			return r;
	}
	return r == DONE ? 0 : -EUCLEAN;
}

static uint64_t violations(struct arena *a, struct nvmm_client *nvmm)
{
	Nvmm__Check op = NVMM__CHECK__INIT;
	Nvmm__Request request = NVMM_REQUEST(CHECK, check, &op);
	_reply reply = NVMM_REPLY_INIT;
	int r;

	op.id = a->stage->id;
	r = nvmm_call(nvmm, &request, NVMM__REPLY__RESULT_CHECK, 0, &reply);
	ck_assert_msg(r == 0, "%s", nvmm_errmsg(nvmm));
	return reply.msg->check->violations;
}

bool repair_done(struct arena *a, struct nvmm_client *nvmm)
{
	struct nvmm_heap_report report = { .size = sizeof(report) };
	bool done = violations(a, nvmm) == 0;
	struct nvmm_heap *heap;
	nvmm_ptr ptr;
	int r;

	if (!done) {
		r = repair_act(a, nvmm);
		ck_assert_msg(r == 0, "it cannot be repaired any more: %d, %s", r, nvmm_errmsg(nvmm));
	}
	heap = harness_open(nvmm, a->stage->id);
	ck_assert_int_eq(nvmm_heap_check(heap, &report), 0);
	ck_assert_uint_eq(report.violations, 0);
	ck_assert_uint_eq(report.blocks, BLOCKS);
	ck_assert_int_eq(nvmm_root_get(heap, "root", &ptr), 0);
	ck_assert_uint_eq(nvmm_usable_size(heap, ptr) >= 64 + 39 * 50, 1);
	nvmm_heap_close(heap);
	return done;
}
