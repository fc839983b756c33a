/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sessions of several users against the daemon: requests of every type, repeats, resumes, ends and deaths,
 * packets that are none, descriptors attached, replies left unread; meanwhile all that clients may write is
 * changed, and the daemon is stopped and started again. Afterwards the canary's pools are as they were.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/rig.h"
#include "tests/fuzz/rig_files.h"

const char fuzz_name[] = "session";

#define CLIENTS 6u
#define HELD 12u /* descriptors that came with replies */
#define STEPS 256u

static struct rig_client client[CLIENTS];
static struct vocabulary words;
static int held[HELD];
static unsigned n_held;
static struct {
	size_t len;
	uint8_t data[FRAME_MAX + 64];
} packet; /* the last one */
static unsigned long long requests, answered, refused, unanswered, starts, deaths;

void fuzz_begin(void)
{
	rig_begin();
}

void fuzz_end(void)
{
	printf("%llu requests, %llu answered, %llu refused, %llu not answered in time, %llu starts, %llu deaths\n",
	       requests, answered, refused, unanswered, starts, deaths);
}

static void hold(const int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (n_held >= HELD)
			close(held[n_held % HELD]);
		held[n_held++ % HELD] = fds[i];
	}
}

static void receive(struct rig_client *from)
{
	int fds[RIG_FDS], r;
	unsigned n;

	r = rig_receive(from, &words, NULL, fds, &n);
	hold(fds, n);
	if (r == 1 && from->error == 0)
		answered++;
	else if (r == 1)
		refused++;
	else
		unanswered++;
}

/* A client of any user but the daemon's, which is the one to be trusted. */
static void renew(struct rig_client *c, struct choice *in)
{
	unsigned how = choose(in, 8), user = 1 + (how & 1);

	rig_hang_up(c);
	rig_kill(c);
	if (!rig_connect(c, user, how >= 6))
		return;
	c->cookie[0] = (uint8_t)(1 + (c - client));
	if (how != 5)
		rig_hello(c, false);
	vocabulary_value(&words, "session", c->session);
	vocabulary_text(&words, "cookie", c->cookie, sizeof(c->cookie));
}

static void resume(struct rig_client *c)
{
	struct rig_client old = *c;

	if (c->sock < 0 || c->pid != 0) {
		rig_hang_up(c);
		if (c->pid != 0) /* its process connects once */
			return;
	}
	rig_hang_up(c);
	if (!rig_connect(c, old.user, false))
		return;
	memcpy(c->cookie, old.cookie, sizeof(old.cookie));
	c->session = old.session;
	c->seq = old.seq;
	rig_hello(c, true);
}

/* Makes the packet no message, or another one. */
static void spoil(struct choice *in)
{
	size_t at = choose(in, 65536) % (packet.len + 1);

	switch (choose(in, 4)) {
	case 0:
		packet.len = at;
		break;
	case 1:
		if (at < packet.len)
			packet.data[at] ^= (uint8_t)(1u << choose(in, 8));
		break;
	case 2:
		packet.len = at < 512 ? packet.len : FRAME_MAX + choose(in, 8) - 4;
		break;
	default:
		while (packet.len < 64 && !choice_done(in))
			packet.data[packet.len++] = choose_byte(in);
		break;
	}
}

static void send_packet(struct rig_client *c, const int *fds, size_t n_fds, bool listen)
{
	requests++;
	if (packet.len > 0 && rig_send(c, packet.data, packet.len, fds, n_fds) && listen)
		receive(c);
}

static void make_packet(struct rig_client *c, struct choice *in)
{
	uint64_t seq = choose(in, 32) == 31 ? choose_number(in) : ++c->seq;

	packet.len = grammar_request(&words, in, 0, seq, packet.data, FRAME_MAX);
}

/* Descriptors that mean something when they are closed, and some that the daemon gave. */
static void send_descriptors(struct rig_client *c, struct choice *in)
{
	int fds[8], pair[2];
	unsigned n = 0, most = 1 + choose(in, 6);

	while (n < most) {
		switch (choose(in, 3)) {
		case 0:
			fds[n++] = memfd_create("sent", MFD_CLOEXEC);
			break;
		case 1:
			if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
				fuzz_die("socketpair: %m");
			fds[n++] = pair[0];
			close(pair[1]);
			break;
		default:
			fds[n++] = dup(c->sock >= 0 ? c->sock : STDIN_FILENO);
			break;
		}
	}
	make_packet(c, in);
	send_packet(c, fds, n, true);
	while (n > 0)
		close(fds[--n]);
}

/* Changes what a descriptor of a reply lets a client change. */
static void write_held(struct choice *in)
{
	unsigned n = n_held < HELD ? n_held : HELD;

	if (n > 0)
		rig_files_damage(held[choose(in, n)], in, 0, 0);
}

static void restart(struct choice *in)
{
	rig_stop(choose(in, 2));
	fuzz_must(rig_start(), "the daemon does not start again");
	starts++;
	for (unsigned i = 0; i < CLIENTS; i++)
		if (client[i].sock >= 0 && client[i].pid == 0 && choose(in, 2))
			resume(&client[i]);
}

static void step(struct choice *in)
{
	unsigned how = choose(in, 64);
	struct rig_client *c = &client[choose(in, CLIENTS)];

	if (c->sock < 0 && how < 56)
		renew(c, in);
	if (how < 38) {
		make_packet(c, in);
		send_packet(c, NULL, 0, how != 37);
	} else if (how < 40) {
		make_packet(c, in);
		spoil(in);
		send_packet(c, NULL, 0, true);
	} else if (how == 40) {
		send_descriptors(c, in);
	} else if (how < 43) {
		send_packet(c, NULL, 0, true); /* again */
	} else if (how < 52) {
		write_held(in);
	} else if (how < 54) {
		receive(c);
	} else if (how == 54) {
		renew(c, in);
	} else if (how == 55) {
		rig_hang_up(c);
	} else if (how < 58) {
		resume(c);
	} else if (how < 60) {
		deaths += c->pid != 0;
		rig_kill(c);
	} else if (how == 60) {
		restart(in);
	} else if (how == 61) {
		rig_reload();
	} else {
		rig_turn(1 + choose(in, 8));
	}
}

/* The first client has a heap open, with lanes and slots: else few inputs come that far. */
static void open_heap(struct choice *in)
{
	int fds[RIG_OPEN_FDS];
	unsigned n = 0;

	renew(&client[0], in);
	if (client[0].sock < 0)
		return;
	rig_open(&client[0], RIG_HEAP + choose(in, 3), 1 + choose(in, 4), &words, fds, &n);
	hold(fds, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct choice in = choice_of(data, len);

	rig_reset();
	rig_words(&words);
	for (unsigned i = 0; i < CLIENTS; i++)
		client[i] = (struct rig_client){ .sock = -1 };
	n_held = 0;
	packet.len = 0;
	fuzz_must(rig_start(), "the daemon does not start");
	starts++;
	if (choose(&in, 4) > 0)
		open_heap(&in);
	for (unsigned i = 0; i < STEPS && !choice_done(&in); i++)
		step(&in);
	rig_turn(2);
	rig_canary();
	for (unsigned i = 0; i < CLIENTS; i++) {
		rig_kill(&client[i]);
		rig_hang_up(&client[i]);
	}
	rig_turn(2);
	rig_stop(true);
	for (unsigned i = 0; i < HELD && i < n_held; i++)
		close(held[i]);
	return 0;
}
