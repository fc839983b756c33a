/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The heap's operations as scenes for crash tests: what is there before, what is done, what must be there
 * after it was or was not.
 *
 *   scene_init()     a heap, two lanes, whatever the operation needs
 *   scene_killed()   the operation, in a child that dies just before its k-th store, flush or drain
 *   scene_recover()  the lane is settled by a daemon that lives, or all is loaded by the next one
 *   scene_verify()   no rule is broken, it happened or did not, all else can be had again
 */
#pragma once

#include <stdbool.h>

#include "tests/unit/heap_fixture.h"

struct scene {
	struct fixture fix;
	struct lane *actor; /* dies */
	struct lane *other; /* lives */
	uint64_t ptr[4096];
	unsigned n;
	uint64_t before, after; /* bytes used, either way */
	bool range; /* it is many steps: anything between them */
};

struct scene_operation {
	const char *name;
	void (*prepare)(struct scene *s);
	void (*act)(struct scene *s); /* in the child */
	bool daemon; /* it is the daemon's: all is loaded by the next one */
	void (*again)(struct scene *s); /* after recovery, what the daemon's next start repeats; may be NULL */
};

enum scene_recovery {
	SCENE_LOADS,   /* the daemon died as well: all is loaded anew */
	SCENE_SETTLES, /* a daemon that loaded while the client lived sees it die */
	SCENE_LIVES,   /* the daemon that served it sees it die: nothing is looked through as in loading */
	N_SCENE_RECOVERIES,
};

#define N_SCENES 27u
extern const struct scene_operation scene_operations[N_SCENES];

/* One at a time. */
extern struct scene scene;

void scene_init(const struct scene_operation *op, enum durability durability);
void scene_deinit(void);
/* Whether it died there. */
bool scene_killed(const struct scene_operation *op, long k);
/*
 * Whether the scene can be recovered from so. What the child had from its daemon is known to that one
 * alone, which died with it: only who asked for nothing can be settled by the one that lives.
 */
bool scene_allows(const struct scene_operation *op, enum scene_recovery how);
void scene_recover(const struct scene_operation *op, enum scene_recovery how);
/* The same, in a child that dies at its j-th point. */
bool scene_recover_killed(const struct scene_operation *op, enum scene_recovery how, long j);
/* `k`: to be told of. */
void scene_verify(const struct scene_operation *op, long k);
