/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The configuration: any bytes are refused with a text, or taken; what was taken prints as something that
 * is taken.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/config.h"
#include "tests/fuzz/fuzz.h"

#ifdef __SANITIZE_ADDRESS__
const unsigned fuzz_inputs = 5000;
#else
const unsigned fuzz_inputs = 40000;
#endif

static const char *const seeds[] = {
	"node:\n  id: 3\n  name: seven\nshelves:\n  base: /dev/shm/x\n  capacity: 10GiB\n",
	"socket:\n  path: /run/x/s\n  mode: 0660\n  group: users\nruntime: /run/x\ndurability: power\n",
	"epoch:\n  interval: 10\n  stall_warning: 0\nlog: {level: debug, target: \"syslog\"}\n",
	"limits:\n  clients: 4096\n  bytes_per_user: 1TiB\n  pools: &a 3\n  pools_per_user: *a\n",
	"# nothing\n---\n? [a, b]\n: !!str |\n  x\n...\n",
};

size_t fuzz_seed(unsigned i, uint8_t *buf)
{
	if (i >= sizeof(seeds) / sizeof(seeds[0]))
		return 0;
	memcpy(buf, seeds[i], strlen(seeds[i]));
	return strlen(seeds[i]);
}

static unsigned taken, refused;

void fuzz_begin(void)
{
}

void fuzz_end(void)
{
	printf("%u taken, %u refused\n", taken, refused);
	if (taken == 0 || refused == 0)
		abort();
}

/* Whether it was taken. */
static bool load(const void *data, size_t len, struct config *config)
{
	int fd = memfd_create("config", MFD_CLOEXEC);
	char *error = NULL;
	char path[64];
	int r;

	if (fd < 0 || write(fd, data, len) != (ssize_t)len || config_init(config) < 0)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = config_load(config, path, &error);
	if (r < 0 && !error)
		abort();
	free(error);
	close(fd);
	return r == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct config config, again;
	char *text = NULL;
	size_t n = 0;
	FILE *f;

	if (!load(data, len, &config)) {
		refused++;
	} else {
		taken++;
		f = open_memstream(&text, &n);
		if (!f)
			abort();
		config_print(&config, f);
		fclose(f);
		if (!load(text, n, &again))
			abort();
		config_deinit(&again);
		free(text);
	}
	config_deinit(&config);
	return 0;
}
