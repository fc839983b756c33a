/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nvmmctl: what its commands share. A command is a file cmd_<name>.c with a struct command; ctl.c
 * has the table of them, parses arguments by it, and makes the help texts from it.
 */
#pragma once

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include <nvmm/client.h>

#include "common/macro.h"
#include "ctl/writer.h"

/* Stable: scripts depend on them. */
enum ctl_exit {
	CTL_DONE = 0,
	CTL_FAILED = 1,
	CTL_USAGE = 2,
	CTL_UNREACHABLE = 3,
	CTL_NOT_PERMITTED = 4,
	CTL_DAMAGED = 5,
};

#define CTL_OPTIONS_MAX 12u

/* An option of one command; `arg` NULL: it takes none. */
struct ctl_option {
	const char *name;
	const char *arg;
	const char *help;
};

struct ctl;

struct command {
	const char *name;    /* one word, or two: "pool create" */
	const char *args;    /* as the usage line shows them */
	const char *summary; /* one line */
	const char *help;    /* what one should know, and examples */
	size_t min_args, max_args;
	struct ctl_option options[CTL_OPTIONS_MAX]; /* ends with a NULL name */
	enum ctl_exit (*run)(struct ctl *ctl);
};

struct ctl {
	FILE *out, *err;
	const struct command *command;
	const char *socket; /* NULL: the library's default */
	int timeout_ms;     /* for each call of the daemon; 0: the library's default; -1: none */
	bool json;
	bool help;
	const char *values[CTL_OPTIONS_MAX]; /* of command->options; NULL: not given */
	char **args;
	size_t n_args;
	struct nvmm_client *nvmm;     /* after ctl_connect() */
	struct writer *writer; /* likewise */
	bool failed;           /* ctl_fail() was called: nothing is put out */
};

/* The whole program. */
enum ctl_exit ctl_main(int argc, char **argv, FILE *out, FILE *err);

/* The value of an option of the running command; NULL: not given; "": given, takes none. */
const char *ctl_option(const struct ctl *ctl, const char *name);

/* Connects, and makes the writer. To be called when all arguments were found right. */
enum ctl_exit ctl_connect(struct ctl *ctl);

/* Makes the writer, for who needs no daemon. */
enum ctl_exit ctl_write(struct ctl *ctl);

/* Reports a failed call of the library (nvmm_errmsg() has its text); returns the exit code. */
enum ctl_exit ctl_fail(struct ctl *ctl, int error);

/* Says what is wrong with the arguments and where help is; returns CTL_USAGE. */
enum ctl_exit ctl_usage(struct ctl *ctl, const char *fmt, ...) _printf(2, 3);

/* Arguments. Each reports what is wrong itself; `what` names the argument. */
enum ctl_exit ctl_parse_size(struct ctl *ctl, const char *what, const char *text, uint64_t *ret);
enum ctl_exit ctl_parse_mode(struct ctl *ctl, const char *what, const char *text, mode_t *ret);

extern const struct command command_status;
extern const struct command command_pools;
extern const struct command command_pool_create;
extern const struct command command_pool_destroy;
extern const struct command command_pool_resize;
extern const struct command command_pool_chmod;
extern const struct command command_pool_chown;
extern const struct command command_pool_show;
extern const struct command command_map;
extern const struct command command_clients;
extern const struct command command_epochs;
extern const struct command command_check;
extern const struct command command_recover;
