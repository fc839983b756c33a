/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Epochs of this process: its slots, and which of them each thread has.
 */
#pragma once

#include "libclient/connection.h"

struct epoch_page;
struct epochs;

int epochs_init(void);
void epochs_fork_child(void);

/* The connection's, if it has them. */
static inline struct epochs *epochs_of(struct nvmm_client *nvmm)
{
	/* ordering: acquire; pairs with the release in epochs_need(): they are mapped. */
	return __atomic_load_n(&nvmm->epochs, __ATOMIC_ACQUIRE);
}

/* The same, asking the daemon for them at first. Not entered. Errors of call_daemon(); -ENOMEM.
 * Text set. */
int epochs_need(struct nvmm_client *nvmm, struct epochs **ret);

/* The same for who has entered already. */
int epochs_get(struct nvmm_client *nvmm, struct epochs **ret);

/* Mapped until the connection's end. */
const struct epoch_page *epochs_page(const struct epochs *epochs);

/* Wakes the daemon, if there is one; what it is to see was stored before. */
void epochs_wake(struct epochs *epochs);

/* At disconnection, and in a forked child: no thread uses them any more. */
void epochs_free(struct nvmm_client *nvmm);
