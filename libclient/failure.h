/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Telling the program of other processes' deaths: nvmm_on_failure().
 */
#pragma once

#include "libclient/connection.h"

/* At disconnection, before anything else goes: nobody is called any more. */
void failure_unwatch(struct nvmm_client *nvmm);
