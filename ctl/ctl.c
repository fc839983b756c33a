/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nvmmctl: finds the command, parses its arguments, gives help.
 *
 * All parsing goes by the table of commands: global options may stand before or behind the command,
 * each command adds its own. A command checks the values of its arguments before it connects, so
 * that a wrong one is a usage error (2) with or without a daemon, and writes through ctl->writer
 * alone; what fails goes to stderr as one line. The output ends when the command has returned.
 */
#include "ctl/ctl.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#ifndef NVMMCTL_VERSION
#define NVMMCTL_VERSION "?"
#endif

static const struct command *const commands[] = {
	&command_status,
	&command_pools,
	&command_pool_create,
	&command_pool_destroy,
	&command_pool_resize,
	&command_pool_chmod,
	&command_pool_chown,
	&command_pool_show,
	&command_map,
	&command_clients,
	&command_epochs,
	&command_check,
	&command_recover,
};

static const struct ctl_option globals[] = {
	{ "socket", "PATH", "the daemon's socket; else $NVMM_SOCKET, else the default" },
	{ "timeout", "SECONDS", "how long to wait for the daemon (30); 0: for ever" },
	{ "json", NULL, "JSON instead of text" },
	{ "help", NULL, "this help; with a command, the command's" },
	{ "version", NULL, "the version of nvmmctl" },
};

#define TIMEOUT_MAX 86400u

/* Values that getopt_long() returns: below a byte's range are its own. */
enum {
	OPT_GLOBAL = 256,
	OPT_COMMAND = 512,
};

/* Help */

static void print_options(FILE *out, const struct ctl_option *options, size_t max)
{
	for (size_t i = 0; i < max && options[i].name; i++)
		fprintf(out, "  --%s%s%-*s  %s\n", options[i].name, options[i].arg ? " " : "",
			(int)(21 - strlen(options[i].name) - (options[i].arg ? 1 : 0)),
			options[i].arg ? options[i].arg : "", options[i].help);
}

static void print_help(FILE *out)
{
	fputs("Usage: nvmmctl [OPTIONS] COMMAND [ARGUMENTS]\n"
	      "Shows and changes what the nvmmd of this node manages.\n\nCommands:\n",
	      out);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(out, "  %-14s  %s\n", commands[i]->name, commands[i]->summary);
	fputs("\nOptions:\n", out);
	print_options(out, globals, ARRAY_SIZE(globals));
	fputs("\nA pool is named by its id or its name. Sizes are bytes or like 512MiB, 1.5G.\n"
	      "`nvmmctl COMMAND --help` tells more of a command, with examples; see nvmmctl(1).\n"
	      "\nExit status: 0 done, 1 failed, 2 wrong usage, 3 daemon not reachable,\n"
	      "4 not permitted, 5 damage found, or a heap is not recovered.\n",
	      out);
}

static void print_command_help(FILE *out, const struct command *command)
{
	fprintf(out, "Usage: nvmmctl %s%s%s\n%s.\n\n%s", command->name, *command->args ? " " : "",
		command->args, command->summary, command->help);
	if (command->options[0].name) {
		fputs("\nOptions:\n", out);
		print_options(out, command->options, CTL_OPTIONS_MAX);
	}
	fputs("\nOptions of every command:\n", out);
	print_options(out, globals, ARRAY_SIZE(globals));
}

/* Messages */

static void print_prefix(struct ctl *ctl)
{
	fputs("nvmmctl: ", ctl->err);
	if (ctl->command)
		fprintf(ctl->err, "%s: ", ctl->command->name);
}

enum ctl_exit ctl_usage(struct ctl *ctl, const char *fmt, ...)
{
	va_list args;

	print_prefix(ctl);
	va_start(args, fmt);
	vfprintf(ctl->err, fmt, args);
	va_end(args);
	fprintf(ctl->err, "; see `nvmmctl%s%s --help`\n", ctl->command ? " " : "",
		ctl->command ? ctl->command->name : "");
	return CTL_USAGE;
}

static enum ctl_exit exit_of(int error)
{
	switch (-error) {
	case EACCES:
	case EPERM:
		return CTL_NOT_PERMITTED;
	case ECONNREFUSED:
	case ECONNRESET:
	case ENOTCONN:
	case EPIPE:
	case ETIMEDOUT:
		return CTL_UNREACHABLE;
	case EUCLEAN:
		return CTL_DAMAGED;
	default:
		return CTL_FAILED;
	}
}

/* The text may have come from elsewhere: one line of it, without what steers a terminal. */
static void print_message(FILE *err, const char *text)
{
	size_t left = strlen(text);
	uint32_t c;

	while (left > 0) {
		size_t n = text_utf8(&c, text, left);

		if (n == 0 || !text_is_shown(c))
			fputc('?', err);
		else
			fwrite(text, 1, n, err);
		n = MAX(n, (size_t)1);
		text += n;
		left -= n;
	}
	fputc('\n', err);
}

enum ctl_exit ctl_fail(struct ctl *ctl, int error)
{
	const char *text = nvmm_errmsg(ctl->nvmm);

	ctl->failed = true;
	print_prefix(ctl);
	print_message(ctl->err, *text ? text : strerror(-error));
	return exit_of(error);
}

/* Arguments */

const char *ctl_option(const struct ctl *ctl, const char *name)
{
	const struct ctl_option *options = ctl->command->options;

	for (size_t i = 0; i < CTL_OPTIONS_MAX && options[i].name; i++) {
		if (!strcmp(options[i].name, name))
			return ctl->values[i];
	}
	return NULL;
}

enum ctl_exit ctl_parse_size(struct ctl *ctl, const char *what, const char *text, uint64_t *ret)
{
	uint64_t bytes;
	int r;

	r = text_parse_size(&bytes, text);
	if (r == -ERANGE || (r == 0 && bytes > NVMM_SIZE_MAX))
		return ctl_usage(ctl, "%s '%s' is more than a pool can have, 256TiB", what, text);
	if (r < 0)
		return ctl_usage(ctl, "%s '%s', expected bytes or a size like 512MiB", what, text);
	if (bytes == 0)
		return ctl_usage(ctl, "%s must be more than 0", what);
	*ret = bytes;
	return CTL_DONE;
}

enum ctl_exit ctl_parse_mode(struct ctl *ctl, const char *what, const char *text, mode_t *ret)
{
	uint32_t mode;

	if (text_parse_mode(&mode, text) < 0)
		return ctl_usage(ctl, "%s '%s', expected octal read and write bits like 0640", what,
				 text);
	*ret = mode;
	return CTL_DONE;
}

enum parse_result {
	PARSE_GO = -1, /* else an exit code: it ends here */
};

/* getopt's table of the global options and the command's. */
static void fill_options(struct option *to, const struct command *command)
{
	for (size_t i = 0; i < ARRAY_SIZE(globals); i++)
		*to++ = (struct option){ globals[i].name,
					 globals[i].arg ? required_argument : no_argument, NULL,
					 (int)(OPT_GLOBAL + i) };
	for (size_t i = 0; command && i < CTL_OPTIONS_MAX && command->options[i].name; i++)
		*to++ = (struct option){ command->options[i].name,
					 command->options[i].arg ? required_argument : no_argument,
					 NULL, (int)(OPT_COMMAND + i) };
	*to = (struct option){ 0 };
}

static int take_timeout(struct ctl *ctl, const char *text)
{
	uint64_t seconds;

	if (text_parse_u64(&seconds, text, TIMEOUT_MAX) < 0)
		return (int)ctl_usage(ctl, "timeout '%s', expected 0 to %u seconds", text, TIMEOUT_MAX);
	ctl->timeout_ms = seconds == 0 ? -1 : (int)seconds * 1000;
	return PARSE_GO;
}

static int take_option(struct ctl *ctl, int opt, char **argv)
{
	switch (opt) {
	case OPT_GLOBAL:
		ctl->socket = optarg;
		return PARSE_GO;
	case OPT_GLOBAL + 1:
		return take_timeout(ctl, optarg);
	case OPT_GLOBAL + 2:
		ctl->json = true;
		return PARSE_GO;
	case 'h':
	case OPT_GLOBAL + 3:
		ctl->help = true;
		return PARSE_GO;
	case OPT_GLOBAL + 4:
		fprintf(ctl->out, "nvmmctl %s\n", NVMMCTL_VERSION);
		return CTL_DONE;
	case ':':
		return (int)ctl_usage(ctl, "option '%s' needs a value", argv[optind - 1]);
	case '?':
		return (int)ctl_usage(ctl, "'%s' is no option here, or takes no value",
				      argv[optind - 1]);
	default:
		ctl->values[opt - OPT_COMMAND] = optarg ? optarg : "";
		return PARSE_GO;
	}
}

/* Options up to the first word that is none ("+"), or all; argv[0] is skipped. */
static int parse_options(struct ctl *ctl, int argc, char **argv, const char *shorts)
{
	struct option table[ARRAY_SIZE(globals) + CTL_OPTIONS_MAX + 1];
	int opt, r;

	fill_options(table, ctl->command);
	opterr = 0;
	optind = 0; /* glibc: begin anew */
	while ((opt = getopt_long(argc, argv, shorts, table, NULL)) != -1) {
		r = take_option(ctl, opt, argv);
		if (r != PARSE_GO)
			return r;
	}
	return PARSE_GO;
}

/* How many of the words name this command; 0: they do not. */
static int match_command(const struct command *command, int argc, char **argv)
{
	const char *space = strchr(command->name, ' ');
	size_t len = space ? (size_t)(space - command->name) : strlen(command->name);

	if (strncmp(argv[0], command->name, len) || argv[0][len])
		return 0;
	if (!space)
		return 1;
	return argc > 1 && !strcmp(argv[1], space + 1) ? 2 : 0;
}

/* Finds the command; returns how many words it took, or 0. */
static int find_command(struct ctl *ctl, int argc, char **argv)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		int words = match_command(commands[i], argc, argv);

		if (words) {
			ctl->command = commands[i];
			return words;
		}
	}
	return 0;
}

static enum ctl_exit refuse_command(struct ctl *ctl, int argc, char **argv)
{
	if (strcmp(argv[0], "pool"))
		return ctl_usage(ctl, "'%s' is no command", argv[0]);
	if (argc < 2 || *argv[1] == '-')
		return ctl_usage(ctl, "'pool' needs create, destroy, resize, chmod, chown or show");
	return ctl_usage(ctl, "'pool %s' is no command", argv[1]);
}

/* Everything up to running: PARSE_GO, or the exit code. */
static int parse(struct ctl *ctl, int argc, char **argv)
{
	int words, r;

	r = parse_options(ctl, argc, argv, "+:h");
	if (r != PARSE_GO)
		return r;
	argc -= optind;
	argv += optind;
	if (argc > 0 && !strcmp(argv[0], "help")) {
		ctl->help = true;
		argc--;
		argv++;
	}
	if (argc == 0)
		return ctl->help ? PARSE_GO : (int)ctl_usage(ctl, "which command?");
	words = find_command(ctl, argc, argv);
	if (words == 0)
		return (int)refuse_command(ctl, argc, argv);
	argc -= words - 1;
	argv += words - 1;
	r = parse_options(ctl, argc, argv, ":h");
	ctl->args = argv + optind;
	ctl->n_args = (size_t)(argc - optind);
	return r;
}

static enum ctl_exit check_arg_count(struct ctl *ctl)
{
	if (ctl->n_args < ctl->command->min_args)
		return ctl_usage(ctl, "too few arguments, expected %s", ctl->command->args);
	if (ctl->n_args > ctl->command->max_args)
		return ctl_usage(ctl, "unexpected argument '%s'",
				 ctl->args[ctl->command->max_args]);
	return CTL_DONE;
}

/* Running */

enum ctl_exit ctl_write(struct ctl *ctl)
{
	int r = writer_new(&ctl->writer, ctl->json ? WRITER_JSON : WRITER_TEXT, ctl->out);

	return r < 0 ? ctl_fail(ctl, r) : CTL_DONE;
}

enum ctl_exit ctl_connect(struct ctl *ctl)
{
	struct nvmm_options options = {
		.size = sizeof(options),
		.socket = ctl->socket,
		.name = "nvmmctl",
		.timeout_ms = ctl->timeout_ms,
	};
	enum ctl_exit code = ctl_write(ctl);
	int r;

	if (code != CTL_DONE)
		return code;
	r = nvmm_connect(&ctl->nvmm, &options);
	if (r == 0)
		return CTL_DONE;
	ctl_fail(ctl, r);
	return r == -ENOENT ? CTL_UNREACHABLE : exit_of(r);
}

/* Damage is a finding, not a failure: what was found is shown. Of what failed half-way, nothing. */
static enum ctl_exit finish(struct ctl *ctl, enum ctl_exit code)
{
	int r;

	if (!ctl->writer || ctl->failed || code == CTL_USAGE)
		return code;
	r = writer_finish(ctl->writer);
	if (r == 0)
		return code;
	print_prefix(ctl);
	fprintf(ctl->err, "the output cannot be written: %s\n", strerror(-r));
	return CTL_FAILED;
}

static enum ctl_exit run(struct ctl *ctl)
{
	enum ctl_exit code;

	code = check_arg_count(ctl);
	if (code == CTL_DONE)
		code = ctl->command->run(ctl);
	code = finish(ctl, code);
	writer_free(ctl->writer);
	nvmm_disconnect(ctl->nvmm);
	return code;
}

enum ctl_exit ctl_main(int argc, char **argv, FILE *out, FILE *err)
{
	struct ctl ctl = { .out = out, .err = err };
	int r;

	r = parse(&ctl, argc, argv);
	if (r != PARSE_GO)
		return (enum ctl_exit)r;
	if (!ctl.help)
		return run(&ctl);
	if (ctl.command)
		print_command_help(out, ctl.command);
	else
		print_help(out);
	return CTL_DONE;
}
