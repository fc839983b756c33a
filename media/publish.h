/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Publishing: several changes of a heap that happen all or not at all, whoever dies.
 *
 *   field           writer                                             readers
 *   lane_df.log     its thread; when that is dead, the lane's settler  all
 *   a word stored   the publisher; nobody else until the publish        all
 *                   returned or the death is settled
 *
 * Linearisation: the store of log_df.commit. A death before it leaves nothing changed; after it, settling
 * the lane (grant_settle_lanes()) applies what is missing.
 */
#pragma once

#include "media/heap.h"
#include "media/lane.h"
#include "media/reserve.h"

/* One change. */
struct publish_action {
	enum log_kind kind;
	uint64_t where; /* the block, or the word */
	uint64_t value; /* LOG_STORE */
	m64 *word;      /* LOG_STORE: where the word is mapped, for writing */
};

/*
 * Does `n` actions (1 to LOG_ACTIONS): words are stored in their order, then reserved blocks are committed,
 * then blocks go to limbo. The caller is in an epoch before and until it returns. *wake, *watch: as
 * lane_defer(). On failure nothing has changed, and *bad is the action that was wrong (n: none):
 *   -EINVAL    not a block's start, or not a reserved one; not an aligned word of an allocated block; the
 *              same block or word twice
 *   -EALREADY  a block to free is free already
 *   -EBUSY     a block to free is reserved; a reserved one is being committed or cancelled by another
 * and those of lane_defer().
 */
int lane_publish(struct lane *lane, struct reservations *res,
		 const struct publish_action *actions, size_t n, size_t *bad, bool *wake,
		 uint64_t *watch);

/* A log as it was read once. */
struct log_copy {
	uint64_t commit;
	unsigned n;
	struct {
		uint64_t where, old, value;
	} action[LOG_ACTIONS];
};

/* The CRC that a log of these contents has. */
uint32_t log_crc(const struct log_copy *copy);

static inline uint64_t log_where(enum log_kind kind, uint64_t ptr)
{
	return (uint64_t)kind << 48 | (ptr & ((UINT64_C(1) << 48) - 1));
}
