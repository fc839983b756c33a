/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Slots of sessions.
 *
 * They are a sealed memfd, made when a thread of the session first enters an epoch or frees with
 * delay. No client can make it longer or shorter, no file system is filled by it, and a page of it
 * is charged to the process that first stores there: the client. The daemon reads it by pread(2):
 * that makes no page and cannot fault, whatever the client does to it. A page that it punches out
 * reads as zero, which is a session without readers, at its own risk.
 *
 * How many slots are looked at is what the daemon granted, and nothing that the client writes: at
 * most twice the threads of its process, and in sum over a user's sessions EPOCH_SLOTS_MAX more
 * than the first.
 *
 * The keeper holds the slots for the next daemon (keep.c). Those that no keeper has, while the
 * session's file says that there are some, may have readers in any epoch.
 *
 * How long a thread is inside is not for its slot to say, which would cost a look at the clock at
 * each entry: the daemon notes when it first saw it in this epoch.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/nvmmd.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif

#define READ_SLOTS 64u /* read at once */
#define SEALS (F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)

void session_epochs_init(struct session *session)
{
	session->epochs = (struct session_epochs){ .memory = -1, .bell = -1 };
}

/* Gives up descriptors. The client and the keeper have them, too: so closing does not end
 * listening. */
static void close_slots(struct session *session)
{
	struct session_epochs *e = &session->epochs;

	if (e->bell >= 0) {
		epochs_unhear(session);
		close(e->bell);
	}
	if (e->memory >= 0)
		close(e->memory);
	e->memory = e->bell = -1;
}

/* How many */

static uint32_t round_up(uint64_t n)
{
	uint32_t slots = EPOCH_SLOTS_FIRST;

	while (slots < n && slots < EPOCH_SLOTS_MAX)
		slots *= 2;
	return slots;
}

/* What the user's sessions have beyond the first slots of each, without this one. */
static uint64_t slots_of_user(const struct session *session)
{
	const struct session *other;
	uint64_t n = 0;

	for (other = session_after(session->nvmmd, 0); other;
	     other = session_after(session->nvmmd, other->id))
		if (other != session && other->peer.uid == session->peer.uid &&
		    other->epochs.slots > EPOCH_SLOTS_FIRST)
			n += other->epochs.slots - EPOCH_SLOTS_FIRST;
	return n;
}

int session_epochs_grant(struct session *session, uint32_t want)
{
	struct session_epochs *e = &session->epochs;
	uint32_t threads, allowed, slots;
	int r;

	if (want <= e->slots)
		return 0;
	r = process_threads(&threads, session->peer.process.pid);
	if (r < 0)
		return r;
	allowed = round_up(UINT64_C(2) * threads);
	if (want > allowed)
		return -EUSERS;
	slots = MIN(round_up(want), allowed);
	if (slots > EPOCH_SLOTS_FIRST &&
	    slots_of_user(session) + slots - EPOCH_SLOTS_FIRST > EPOCH_SLOTS_MAX)
		return -EDQUOT;
	e->slots = slots;
	return 0;
}

/* Making */

static int make_memory(void)
{
	int fd = memfd_create("nvmmd-slots", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL), r;

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("nvmmd-slots", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (fchmod(fd, 0600) == 0 && ftruncate(fd, (off_t)EPOCH_SLOTS_BYTES) == 0 &&
	    fcntl(fd, F_ADD_SEALS, SEALS) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

int session_epochs_take(struct session *session, int memory, int bell, uint32_t slots)
{
	struct session_epochs *e = &session->epochs;
	int r;

	e->memory = memory;
	e->bell = bell;
	r = epochs_hear(session);
	if (r < 0) {
		e->memory = e->bell = -1;
		return r;
	}
	e->slots = e->kept = MIN(slots, EPOCH_SLOTS_MAX);
	e->saved = true;
	e->unread = false;
	return 0;
}

static int make_slots(struct session *session)
{
	struct session_epochs *e = &session->epochs;
	int r;

	e->memory = make_memory();
	e->bell = e->memory < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = e->memory < 0 ? e->memory : e->bell < 0 ? -errno : epochs_hear(session);
	if (r < 0) {
		close_slots(session);
		e->memory = -1;
	}
	return r;
}

/* A client asks when it has none: what nobody can read it has not got, or it says so at its own
 * risk. */
int session_epochs_open(struct session *session)
{
	struct session_epochs *e = &session->epochs;
	int r;

	if (e->memory >= 0)
		return 0;
	e->slots = 0;
	r = session_epochs_grant(session, EPOCH_SLOTS_FIRST);
	if (r == 0)
		r = make_slots(session);
	if (r == 0)
		e->unread = false;
	return r;
}

void session_epochs_end(struct session *session)
{
	close_slots(session);
	keep_drop(session);
	session->epochs.slots = 0;
}

void session_epochs_deinit(struct session *session)
{
	close_slots(session);
	free(take(session->epochs.ages));
	session->epochs.n_ages = 0;
}

/* Scanning */

/* The age of what a slot is in; NULL: no memory. */
static struct epoch_age *age_of(struct session_epochs *e, uint32_t slot)
{
	uint32_t n = e->n_ages;
	struct epoch_age *ages;

	if (slot < n)
		return &e->ages[slot];
	n = MAX(n * 2, 16u);
	n = MAX(n, slot + 1);
	n = MIN(n, e->slots);
	ages = realloc(e->ages, n * sizeof(*ages));
	if (!ages)
		return NULL;
	memset(ages + e->n_ages, 0, (n - e->n_ages) * sizeof(*ages));
	e->ages = ages;
	e->n_ages = n;
	return &e->ages[slot];
}

static void warn_of(struct session *session, const struct epoch_age *age, uint64_t ms)
{
	session->nvmmd->counters.readers_stalled++;
	client_log(session->nvmmd, CLIENT_COMPLAINT, session->peer.uid,
		   "thread %u of process %d (%s) has been in epoch %" PRIu64 " for %"
		       PRIu64 " ms: what is freed with delay in the pools that it has open waits for it",
		       age->tid, session->peer.process.pid, session->name, age->epoch, ms);
}

static void note_reading(struct session *session, const struct epoch_reading *r, uint64_t now)
{
	struct session_epochs *e = &session->epochs;
	uint64_t warning = session->nvmmd->config.epoch.stall_warning;
	struct epoch_age *age = age_of(e, r->slot);

	e->seen = e->seen == 0 ? r->epoch : MIN(e->seen, r->epoch);
	if (!age)
		return;
	if (age->epoch != r->epoch)
		*age = (struct epoch_age){ .epoch = r->epoch, .since = now };
	age->tid = r->tid;
	if (!age->warned && warning > 0 && now - age->since >= warning) {
		age->warned = true;
		warn_of(session, age, now - age->since);
	}
}

static void note_slots(struct session *session, const struct epoch_slot *copy, uint32_t first,
		       uint32_t n)
{
	struct session_epochs *e = &session->epochs;
	uint64_t now = uv_now(&session->nvmmd->loop);
	struct epoch_reading inside[READ_SLOTS];
	uint32_t n_inside = epoch_scan(copy, first, n, inside), next = 0;

	for (uint32_t slot = first; slot < first + n; slot++) {
		if (next < n_inside && inside[next].slot == slot)
			note_reading(session, &inside[next++], now);
		else if (slot < e->n_ages)
			e->ages[slot].epoch = 0;
	}
}

/* Looks at some more slots. False: they cannot be read, which only a broken page can bring
 * about. */
static bool scan_some(struct session *session)
{
	struct session_epochs *e = &session->epochs;
	struct epoch_slot copy[READ_SLOTS];
	uint32_t n = MIN(READ_SLOTS, e->slots - e->cursor);
	size_t bytes = n * sizeof(copy[0]);

	if (pread(e->memory, copy, bytes, (off_t)(e->cursor * sizeof(copy[0]))) != (ssize_t)bytes)
		return false;
	note_slots(session, copy, e->cursor, n);
	e->cursor += n;
	return true;
}

bool session_epochs_scan(struct session *session, uint64_t until)
{
	struct session_epochs *e = &session->epochs;
	bool readable = !e->unread;

	if (e->unread)
		keep_ask(session);
	while (readable && e->memory >= 0 && e->cursor < e->slots) {
		readable = scan_some(session);
		if (readable && e->cursor < e->slots && uv_hrtime() >= until)
			return false;
	}
	e->oldest = readable ? e->seen : 1;
	e->seen = 0;
	e->cursor = 0;
	return true;
}
