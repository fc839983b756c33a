/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Command line of nvmmd: what there is to say beyond the configuration file.
 */
#include <config.h>

#include "daemon/options.h"

#include <getopt.h>
#include <stdio.h>

static const char help[] =
	"Usage: nvmmd [OPTION]...\n"
	"Serves shelves of non-volatile or fabric-attached memory to the processes of this node.\n"
	"\n"
	"  -c, --config FILE   read FILE; default: " SYSCONFDIR
	"/nvmmd/nvmmd.yaml, if it is there\n"
	"  -C, --check-config  say what is wrong with the configuration, or print it; do not "
	"start\n"
	"  -f, --foreground    log to standard error, whatever log.target says\n"
	"  -V, --version       print the version\n"
	"  -h, --help          print this\n"
	"\n"
	"nvmmd stays in the foreground; a service manager or '&' puts it in the background.\n"
	"SIGTERM and SIGINT stop it in order; SIGHUP makes it read the configuration again.\n"
	"Exit status: 0 done; 1 failed, the log says why; 2 wrong usage or configuration.\n"
	"See nvmmd(8), nvmmd.yaml(5), nvmmctl(1).\n";

enum options_result options_parse(struct options *options, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "check-config", no_argument, NULL, 'C' },
		{ "foreground", no_argument, NULL, 'f' },
		{ "version", no_argument, NULL, 'V' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	*options = (struct options){ 0 };
	optind = 1;
	while ((c = getopt_long(argc, argv, "c:CfVh", longs, NULL)) != -1) {
		switch (c) {
		case 'c':
			options->config = optarg;
			break;
		case 'C':
			options->check_config = true;
			break;
		case 'f':
			options->foreground = true;
			break;
		case 'V':
			printf("nvmmd %s\n", PACKAGE_VERSION);
			return OPTIONS_DONE;
		case 'h':
			fputs(help, stdout);
			return OPTIONS_DONE;
		default:
			fprintf(stderr, "Try 'nvmmd --help'.\n");
			return OPTIONS_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "nvmmd: unexpected argument '%s'\nTry 'nvmmd --help'.\n",
			argv[optind]);
		return OPTIONS_USAGE;
	}
	return OPTIONS_RUN;
}
