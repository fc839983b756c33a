/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the requests about pools share.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "daemon/pool.h"
#include "daemon/request.h"

/* The pool's info, living as long as the request. NULL: no memory. */
Nvmm__PoolInfo *pool_info(struct request *request, const struct pool *pool);

/* Answers with the pool's info. 0 or -ENOMEM. */
int reply_pool(struct request *request, const struct pool *pool);

/* Finds a live pool for a request: 0; -EINVAL: no id; -ENOENT. */
int pool_need(struct request *request, uint32_t id, struct pool **ret);

/* The same, of the session that has it open, for writing if `write`. -EBADF: it has not. */
int opening_need(struct request *request, uint32_t id, bool write, struct opening **ret);

/* Whether `uid` may have `pools` more pools and `bytes` more of files. -ENOSPC; -EDQUOT; each with the
 * limit's name. */
int check_quota(struct request *request, uid_t uid, uint32_t pools, uint64_t bytes);

/* Whether the memory behind the shelf base has `bytes` more, where it is memory. 0 or -ENOSPC. */
int check_memory(struct request *request, uint64_t bytes);

/* The same of bytes alone, without a text. */
int quota_short(struct nvmmd *nvmmd, uid_t uid, uint64_t bytes);

/* Whether the record's last change was made by this very request, when it was sent before. */
bool pool_is_repeat(const struct request *request, const struct pool_record *record);
/* Writes into a record which request changes it. */
void pool_mark_change(const struct request *request, struct pool_record *record);
/* Takes that away: what the request asked for was undone, and its repeat is done anew. */
void pool_clear_change(struct pool_record *record);
