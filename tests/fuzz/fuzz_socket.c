/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a client may send. Each input is one packet of a client that has said Hello, to a real daemon,
 * which answers, refuses, or ends the connection, and lives.
 */
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "tests/unit/daemon_child.h"
#include "tests/unit/tempdir.h"

#ifdef __SANITIZE_ADDRESS__
const unsigned fuzz_inputs = 1000;
#else
const unsigned fuzz_inputs = 6000;
#endif

static struct daemon_child child;
static struct raw_client client;
static bool connected;
static struct frame frame;
static char dir[128];

/* One request of each kind, with a few fields set: tag and length of an operation of three varints and text. */
size_t fuzz_seed(unsigned i, uint8_t *buf)
{
	static const uint8_t body[] = { 0x08, 1, 0x10, 0x80, 0x80, 4, 0x1a, 3, 'a', 'b', 'c', 0x20, 1, 0x28, 2,
					0x30, 1, 0x38, 1 };
	unsigned field = 2 + i, tag = field << 3 | 2;
	size_t n = 0;

	if (field > 40)
		return 0;
	buf[n++] = 0x08; /* seq */
	buf[n++] = (uint8_t)(1 + i);
	if (tag > 127) {
		buf[n++] = (uint8_t)(tag | 0x80);
		buf[n++] = (uint8_t)(tag >> 7);
	} else {
		buf[n++] = (uint8_t)tag;
	}
	buf[n++] = sizeof(body);
	memcpy(&buf[n], body, sizeof(body));
	return n + sizeof(body);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

/* What daemon_child_init() calls; that of the tests belongs to a suite of Check's. */
int tempdir_new(const char **ret_path)
{
	const char *under = getenv("NVMMD_TEST_DIR");

	snprintf(dir, sizeof(dir), "%s/nvmmd-test-XXXXXX", under ? under : "/dev/shm");
	if (!mkdtemp(dir))
		abort();
	*ret_path = dir;
	return open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

void fuzz_begin(void)
{
	daemon_child_init(&child, NULL);
	daemon_child_start(&child);
}

void fuzz_end(void)
{
	if (connected)
		raw_close(&client);
	/* It still is who answers. */
	raw_open(&client, &child, 9);
	raw_close(&client);
	if (daemon_child_stop(&child) != 0)
		abort();
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Waits for an answer or the end; some requests are answered late or never: those are left alone. */
static void hear(void)
{
	struct pollfd p = { .fd = client.fd, .events = POLLIN };
	int r;

	if (poll(&p, 1, 20) <= 0)
		r = 0;
	else
		r = frame_recv(&frame, client.fd, MSG_DONTWAIT);
	if (r > 0) {
		frame_close_fds(&frame);
		return;
	}
	raw_close(&client);
	connected = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	Nvmm__Request *request = nvmm__request__unpack(NULL, len, data);

	if (request)
		nvmm__request__free_unpacked(request, NULL);
	if (!connected)
		raw_open(&client, &child, 1);
	connected = true;
	if (frame_send(client.fd, data, len, NULL, 0, 0) == 0)
		hear();
	else {
		raw_close(&client);
		connected = false;
	}
	return 0;
}
