/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lines of the file, fields between tabs: "begin" or "end", suite, operation, durability, points, images,
 * inner. Each is one write() to a file that is opened for appending, so that programs may run together.
 */
#include "tests/crash/ledger.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool ledger_whole(void)
{
	const char *text = getenv("NVMMD_TEST_LONG");

	return text && strcmp(text, "0") != 0;
}

static void append(const char *what, const struct ledger *l)
{
	const char *path = getenv("NVMMD_LEDGER");
	char line[512];
	int fd, n;

	if (!path)
		return;
	n = snprintf(line, sizeof(line), "%s\t%s\t%s\t%s\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%s\n",
		     what, l->suite, l->operation, l->durability, l->points, l->images, l->inner,
		     ledger_whole() && !l->sampled ? "whole" : "sample");
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, line, (size_t)n) != n) {
		perror(path);
		abort();
	}
	close(fd);
}

void ledger_begin(const struct ledger *l)
{
	append("begin", l);
}

void ledger_end(const struct ledger *l)
{
	append("end", l);
	printf("%s, %s, %s: %" PRIu64 " points, %" PRIu64 " images, %" PRIu64
	       " deaths inside recovery, 0 failures\n",
	       l->suite, l->operation, l->durability, l->points, l->images, l->inner);
}
