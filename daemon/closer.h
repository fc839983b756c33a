/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Closing what may take long to close.
 *
 * The close of a connection drops what its peer sent and nobody read: perhaps the last reference to a
 * socket with SO_LINGER, whose close waits as long as its sender asked. Such a close is done by a
 * thread of its own, which nobody waits for.
 *
 * Called on the loop thread; the threads touch nothing else of the daemon's.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

struct closer;

/* -ENOMEM. */
int closer_new(struct closer **ret);
/* Gives it up. Closes under way go on; what waits is left open for the exit of the process, which
 * waits for no linger time. Takes NULL. */
void closer_free(struct closer *closer);

/* Closes `fd`, which user `uid` filled, some time. Never waits. */
void closer_close(struct closer *closer, int fd, uid_t uid);

/* Closes of one user that are not done. */
uint32_t closer_of_user(struct closer *closer, uid_t uid);
