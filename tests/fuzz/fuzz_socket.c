/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a client may send: each input is one packet of a client that has said Hello, or has not. The daemon
 * answers, refuses, or ends the connection, and lives.
 */
#include <stdio.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/rig.h"

const char fuzz_name[] = "socket";

static struct rig_client client = { .sock = -1 };
static unsigned long long answered, ended;

void fuzz_begin(void)
{
	rig_begin();
	fuzz_must(rig_start(), "the daemon does not start");
}

void fuzz_end(void)
{
	printf("%llu answered, %llu connections ended\n", answered, ended);
	rig_canary();
	rig_hang_up(&client);
	rig_stop(true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len == 0)
		return 0;
	if (client.sock < 0) {
		fuzz_must(rig_connect(&client, 1, false), "it accepts no more");
		if (data[0] != 0x12) /* which is Hello, most often */
			fuzz_must(rig_hello(&client, false), "Hello: %d", client.error);
	}
	if (!rig_send(&client, data, len, NULL, 0) || rig_receive(&client, NULL, NULL, NULL, NULL) != 1) {
		/* Some requests are answered late or never. */
		rig_hang_up(&client);
		rig_turn(2);
		ended++;
	} else {
		answered++;
	}
	return 0;
}
