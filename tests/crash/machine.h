/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power cuts of a program that uses the real library and daemon: what its medium may hold at each of its points is put
 * into the files of a second machine, which is then switched on. And the death of program and daemon there: what is in
 * memory is put there, and the boot is the same.
 *
 *   test                          program, `here`                    `there`
 *   fork ----------------------> prepares
 *   .                             machine_begin(): stops             .
 *   copies the base ----------------------------------------------> base
 *   go on ---------------------> stops at a point                    .
 *   each image ---------------------------------------------------> files, another boot, daemon, try()
 *   go on ---------------------> stops at the next; machine_end()    .
 *
 * All of a heap's files are watched: the program's stores by tests/crash/cut.h, among them its plain ones to blocks;
 * what the daemon changes counts as drained, which its own tests answer for.
 */
#pragma once

#include <stdint.h>

#include "tests/system/harness.h"

#define MACHINE_FILES 5u

struct cut;
struct media_backend;

/* Shared with the program. */
struct machine_state {
	uint64_t points;   /* passed since machine_begin() */
	uint64_t step;     /* it stops at every so many-th of them, */
	uint64_t offset;   /* from this one on */
	bool begun, ended; /* by the program */
};

struct machine {
	struct harness here, there;
	nvmm_pool_id id;
	struct machine_state *state;
	struct cut *cut;
	const struct media_backend *backend; /* the cut's */
	bool alone; /* the daemon stands still while the program's points count, as it may (it is asked nothing) */
	char *words, *image; /* the files here and there, one behind the other */
	size_t bytes;
	struct machine_file {
		char path[512]; /* of the one here */
		size_t at;      /* of `words` */
	} file[MACHINE_FILES];
	pid_t program;
	unsigned boots;
	bool same_boot; /* what is tried: a death; else a power cut */
	uint64_t *tried; /* what identifies an image, of those that were put there */
	size_t n_tried;
};

/* Two machines with persistent memory; the first one runs. One at a time in a process. */
void machine_init(struct machine *m);
/* With the heap that is to be watched. */
void machine_watch(struct machine *m, nvmm_pool_id id);
void machine_deinit(struct machine *m);

/* By the program, before its first point that counts and after its last. */
void machine_begin(struct machine *m);
void machine_end(struct machine *m);

/*
 * Runs program(arg) and stops it at every `step`-th point; its death and up to `most` images of a power cut are put there
 * and given to try(arg), for which the second machine's daemon runs, and dies afterwards. `tell(arg)` is a number for what else an
 * image is judged by: an image that was tried with the same number is not tried again. Returns how many were.
 */
struct machine_run {
	void (*program)(void *arg);
	void (*try)(void *arg);
	uint64_t (*tell)(void *arg);
	void *arg;
	uint64_t step, offset;
	unsigned most;
};
uint64_t machine_run(struct machine *m, const struct machine_run *run);
