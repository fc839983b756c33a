/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the clients of the rig's template do, by libnvmm-client: pools in every state that a file can hold.
 */
#pragma once

#define TEMPLATE_CANARY_BLOCKS 64u

/* Makes the pools of a user and leaves them in use. Returns when the process may end. */
void template_client(unsigned user, const char *socket);
