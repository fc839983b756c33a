/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A daemon in a thread of the test, which answers what the test wants: to try the client against
 * what a real one never does.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "proto/frame.h"
#include "proto/nvmm.pb-c.h"

#define FAKE_SESSION 7u

enum fake_action {
	FAKE_REPLY,   /* send the reply and the descriptors (borrowed) */
	FAKE_SILENT,  /* send nothing */
	FAKE_HANG_UP, /* close the connection */
	FAKE_STOP,    /* close it and serve no more */
};

struct fake {
	char dir[64];
	char path[96];
	int listener;
	int stop[2];
	pthread_t thread;
	bool started;

	/* Set by the test before fake_start(). Hello is answered for it, unless hello is set. */
	enum fake_action (*serve)(struct fake *fake, int conn, const Nvmm__Request *request,
				  Nvmm__Reply *reply, int *fds, size_t *n_fds);
	bool refuse_resume;
	uint32_t version; /* of the protocol; 0: the right one */
	bool reborn;      /* each connection finds a new daemon */

	/* Atomic. */
	unsigned hellos;
	unsigned resumes;
	unsigned requests; /* others */
	unsigned goodbyes;
	unsigned early; /* requests that came while a reply was unread */
	uint64_t last_seq;
};

void fake_init(struct fake *fake);
void fake_start(struct fake *fake);
/* Ends the thread, removes the socket. */
void fake_stop(struct fake *fake);

unsigned fake_count(unsigned *counter);

/* How many descriptors this process has open. */
unsigned open_fds(void);
