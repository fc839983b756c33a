/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The service manager: readiness, status, watchdog, passed sockets. Without libsystemd nobody is there
 * to be told, and no socket is passed.
 */
#pragma once

#include <stdint.h>

#include "common/macro.h"

/* sd_notify(3). */
void notify(const char *fmt, ...) _printf(1, 2);

/* Milliseconds between signs of life; 0: none are wanted. */
uint64_t notify_watchdog_ms(void);

/* The listening SOCK_SEQPACKET socket that was passed; -ENOENT: none; -EINVAL: another kind. */
int notify_socket(void);
