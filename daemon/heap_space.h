/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Space of sparse heaps as the daemon's requests see it: counted against limits when it is reserved,
 * reserved in a thread if it is much, given back. Loop thread. For other heaps all of it does nothing.
 */
#pragma once

#include <stdbool.h>

#include "daemon/pool.h"

struct request;

/* The pool's heap was loaded: limits are asked from now on. */
void heap_space_begin(struct pool *pool);

/* A request asked the heap for something: its files are counted anew if they have grown. */
void heap_space_count(struct pool *pool);

/* The request ended with -EINPROGRESS: what it wished for is reserved in a thread, then it is begun again.
 * REQUEST_PENDING or an error with its text. */
int heap_space_wish(struct request *request, struct pool *pool);

/* The request found no space behind the heap: space of the heap's own free runs is given back, then the
 * request is begun again. False: it was not space, or there is none to be had. */
bool heap_space_relief(struct request *request, struct pool *pool);

/* Whether it was space that was short; then *r with the text that says whose. */
bool heap_space_short(struct request *request, struct pool *pool, int *r);
