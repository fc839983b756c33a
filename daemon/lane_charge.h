/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who pays for lanes. A heap's owner pays for the lanes that it is made with. Whoever makes its lanes file longer
 * pays for the rest, until the file is short again: when its last opener has left.
 *
 * Loop thread only.
 */
#pragma once

#include <stdint.h>
#include <sys/queue.h>

struct lane_charge;
struct pool;
struct request;
struct user;

LIST_HEAD(lane_charges, lane_charge);

/* Whether a session's user may have the lanes file longer, for `count` lanes. 0, or the request's error. */
int lane_charge_check(struct request *request, struct pool *pool, uint32_t count);

/* The file became longer by `lanes`, for `user`. Without memory the owner pays. */
void lane_charge_add(struct pool *pool, struct user *user, uint32_t lanes);
/* The file is as short as it gets, or nobody's any more. */
void lane_charge_clear(struct pool *pool);
/* After a daemon's start: those pay who have lanes in a file that was made longer. */
void lane_charge_guess(struct pool *pool);
