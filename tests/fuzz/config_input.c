/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/fuzz/config_input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/config.h"
#include "tests/fuzz/fuzz.h"

static bool load(const void *data, size_t len, struct config *config)
{
	int fd = memfd_create("config", MFD_CLOEXEC);
	char *error = NULL;
	char path[64];
	int r;

	fuzz_must(fd >= 0 && write(fd, data, len) == (ssize_t)len && config_init(config) == 0, "no memory");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = config_load(config, path, &error);
	fuzz_must(r == 0 || (error && error[0]), "refused without a text");
	free(error);
	close(fd);
	return r == 0;
}

static char *print(const struct config *config)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	fuzz_must(f, "no memory");
	config_print(config, f);
	fclose(f);
	return text;
}

bool config_input(const void *data, size_t len)
{
	struct config config, again;
	char *text, *second;
	bool taken = load(data, len, &config);

	if (taken) {
		text = print(&config);
		fuzz_must(load(text, strlen(text), &again), "what was printed is refused:\n%s", text);
		second = print(&again);
		fuzz_must(!strcmp(text, second), "what was printed means something else:\n%s\n%s", text, second);
		config_deinit(&again);
		free(text);
		free(second);
	}
	config_deinit(&config);
	return taken;
}
