/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Log of a program. Thread-safe. To stderr (with systemd's "<N>" priority prefixes when stderr is
 * the journal) or to syslog. Control bytes in what is logged are escaped: a client chooses some of it.
 */
#pragma once

#include <stdbool.h>

#include "common/macro.h"

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

enum log_target {
	LOG_TARGET_STDERR,
	LOG_TARGET_SYSLOG,
};

void log_setup(const char *program, enum log_level level, enum log_target target);

void log_write(enum log_level level, const char *fmt, ...) _printf(2, 3);

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)
