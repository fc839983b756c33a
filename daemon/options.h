/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Command line of nvmmd.
 */
#pragma once

#include <stdbool.h>

struct options {
	const char *config; /* path; NULL: the defaults, or the installed file if it is there */
	bool check_config;
	bool foreground; /* log to stderr, whatever the configuration says */
};

enum options_result {
	OPTIONS_RUN,
	OPTIONS_DONE,  /* help or version was printed: exit 0 */
	OPTIONS_USAGE, /* exit 2 */
};

enum options_result options_parse(struct options *options, int argc, char **argv);
