/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file is never made shorter while a session has it open: a lane in the middle may be in use, and a process that
 * lost its session may look at its lane once more. So a lane that was given back is still paid for by the
 * user who had it added.
 *
 * Charges are in memory alone. The next daemon finds the file as long as it is, and charges those who have lanes in
 * it: their number is what it knows. What is left is the owner's.
 */
#include "daemon/lane_charge.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_ops.h"
#include "daemon/request.h"
#include "media/poolfile.h"

struct lane_charge {
	struct user *user; /* a reference */
	uint32_t lanes;
	LIST_ENTRY(lane_charge) of_pool;
};

static uint64_t lane_bytes(uint32_t lanes)
{
	return lanes_file_size(LANES_FIRST + lanes) - lanes_file_size(LANES_FIRST);
}

int lane_charge_check(struct request *request, struct pool *pool, uint32_t count)
{
	uint64_t bytes = lane_bytes(heap_service_lanes_short(pool->heap, count));
	uid_t uid = request_peer(request)->uid;
	int r = bytes > 0 ? quota_short(request->nvmmd, uid, bytes) : 0;

	if (r == -EDQUOT)
		return request_fail(request, r,
				    "%u lanes more take %" PRIu64 " bytes, and user %u would be over "
				    "limits.bytes_per_user",
				    count, bytes, uid);
	if (r < 0)
		return request_fail(request, r, "%u lanes more take %" PRIu64 " bytes: %s", count, bytes,
				    "they would go over shelves.capacity");
	return 0;
}

void lane_charge_add(struct pool *pool, struct user *user, uint32_t lanes)
{
	struct lane_charge *charge;

	if (lanes == 0 || !user)
		return;
	LIST_FOREACH (charge, &pool->lane_charges, of_pool)
		if (charge->user == user)
			break;
	if (!charge) {
		charge = calloc(1, sizeof(*charge));
		if (!charge)
			return;
		charge->user = user_ref(user);
		LIST_INSERT_HEAD(&pool->lane_charges, charge, of_pool);
	}
	charge->lanes += lanes;
	user->lane_bytes += lane_bytes(lanes);
	pool->lane_bytes += lane_bytes(lanes);
}

void lane_charge_clear(struct pool *pool)
{
	struct lane_charge *charge;

	while ((charge = LIST_FIRST(&pool->lane_charges))) {
		LIST_REMOVE(charge, of_pool);
		charge->user->lane_bytes -= lane_bytes(charge->lanes);
		user_unref(charge->user);
		free(charge);
	}
	pool->lane_bytes = 0;
}

void lane_charge_guess(struct pool *pool)
{
	uint32_t left = pool->lanes > LANES_FIRST ? pool->lanes - LANES_FIRST : 0, lanes;
	struct opening *opening;

	lane_charge_clear(pool);
	LIST_FOREACH (opening, &pool->openings, of_pool) {
		lanes = MIN(left, opening->n_lanes);
		lane_charge_add(pool, opening->session->user, lanes);
		left -= lanes;
	}
}
