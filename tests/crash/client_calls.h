/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The calls of the library that check_client_kill.c cuts short: what is there before, the call, and what must be there
 * after its process died in it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <nvmm/client.h>

#define CALL_WORDS 8u /* of the block that stays */
#define CALL_PTRS 2u

/* Of a process. What is said in `stage` the dead leave to the test. */
struct caller {
	struct nvmm_client *nvmm;
	struct nvmm_heap *heap;
	struct call_stage *stage;
	uint64_t *word; /* CALL_WORDS of them, in the heap; 0 before the scene is prepared */
};

struct call_stage {
	nvmm_pool_id id;
	nvmm_ptr at;             /* the block of the words */
	nvmm_ptr ptr[CALL_PTRS]; /* blocks that the call is about */
	uint64_t points;         /* that the call passed */
	bool returned;
};

struct call {
	const char *name;
	void (*lend)(struct caller *c);    /* by the test, before; may be NULL */
	void (*prepare)(struct caller *c); /* by who dies; may be NULL */
	void (*act)(struct caller *c);
	/* By the test, after: asserts that it happened or did not, and did if it returned. */
	void (*verify)(struct caller *c);
	unsigned unknown; /* blocks that may be allocated with nobody knowing */
};

#define N_CALLS 17u
extern const struct call calls[N_CALLS];

/* Whether a block is allocated, and not in limbo; whether it is one of those that the stage knows. */
bool call_live(struct caller *c, nvmm_ptr ptr);
bool call_known(const struct caller *c, nvmm_ptr ptr);
