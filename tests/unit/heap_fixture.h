/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A heap without daemon and files, for tests of the engine: shared anonymous memory, a grant behind a
 * mutex that stands in for the daemon, lanes.
 */
#pragma once

#include <pthread.h>

#include "media/check.h"
#include "media/count.h"
#include "media/grant.h"
#include "media/lane.h"

#define FIXTURE_LANES 16u

struct fixture {
	struct heap heap;
	struct heap_shelf shelf[2];
	char *memory[2];   /* user bytes */
	void *mapping;     /* all metadata: shared with forked children */
	size_t mapping_len;
	struct grant *grant;
	struct grant_words words; /* of user bytes, for settling */
	pthread_mutex_t lock;
	unsigned calls; /* requests that lanes made */
	bool away;      /* the daemon is: they get -ENOSPC */
	bool alive[FIXTURE_LANES];
};

/* `units` in one shelf; room for a second of as many. Exits the test on failure. */
void fixture_init(struct fixture *f, uint64_t units, uint32_t min_block);
/* The same of durability `power`. `watch` (may be NULL) is called with the metadata before its first use. */
void fixture_init_power(struct fixture *f, uint64_t units, uint32_t min_block,
			void (*watch)(void *metadata, size_t len));
void fixture_deinit(struct fixture *f);

/* Brings the second shelf into service. */
void fixture_second_shelf(struct fixture *f, uint64_t units);

struct lane *fixture_lane(struct fixture *f, uint32_t number);

/* A new grant, as after a death of the daemon. */
void fixture_reload(struct fixture *f);
/* The same after a power cut: everybody is dead. */
void fixture_reload_cut(struct fixture *f);

/* The address of a block's bytes. */
void *fixture_at(struct fixture *f, uint64_t ptr);

/* Fails the test if a rule is broken. */
void fixture_check(struct fixture *f);
/* Fails the test unless `used` bytes are in blocks. */
void fixture_expect_used(struct fixture *f, uint64_t used);
