/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Slots of sessions: <runtime>/epochs/slots-<session>.
 *
 * A file is made when a thread of the session first enters an epoch, or frees with delay; it is sparse,
 * as long as it can ever be, so that no thread waits for the daemon to make it longer. It outlives
 * the daemon: the next one maps it again and sees who is inside. It ends with its session. It gets its name
 * when it is whole: a daemon that is killed before leaves a file NEW, which the next to be made replaces.
 *
 * It is the client's to write and to truncate: how many slots there are is read once and bounded, and
 * a file that was spoilt is one without readers, at its process's own risk. One that a new daemon fails to
 * map, wanting descriptors or memory, may have readers in any epoch: mapping it is tried at each scan.
 *
 * How long a thread is inside is not for its slot to say, which would cost a look at the clock at each
 * entry: the daemon notes when it first saw it in this epoch.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/text.h"
#include "daemon/nvmmd.h"
#include "media/guard.h"

#define PREFIX "slots-"
#define NEW "new"
#define READ_ROOM 64u

static void file_name(char buf[32], const struct session *session)
{
	snprintf(buf, 32, PREFIX "%" PRIu64, session->id);
}

uint64_t epoch_slots_id(const char *name)
{
	uint64_t id = 0;

	if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 ||
	    text_parse_u64(&id, name + strlen(PREFIX), UINT64_MAX) < 0)
		return 0;
	return id;
}

int epoch_slots_file(int *ret, struct session *session)
{
	char name[32];

	file_name(name, session);
	*ret = openat(session->nvmmd->epochs.dir, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	return *ret < 0 ? -errno : 0;
}

static int map_slots(struct session *session, int fd)
{
	void *addr = mmap(NULL, EPOCH_SLOTS_BYTES, PROT_READ, MAP_SHARED, fd, 0);

	if (addr == MAP_FAILED)
		return -errno;
	session->epochs.slots = addr;
	return 0;
}

/* The header's page is there from the start: waking by a write never wants for space. */
static int make_file(struct session *session)
{
	static const struct epoch_slots head = { .magic = EPOCH_MAGIC };
	struct nvmmd *nvmmd = session->nvmmd;
	char name[32];
	int fd, r = 0;

	file_name(name, session);
	unlinkat(nvmmd->epochs.dir, NEW, 0);
	fd = openat(nvmmd->epochs.dir, NEW, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)EPOCH_SLOTS_BYTES) < 0 ||
	    pwrite(fd, &head, sizeof(head), 0) != (ssize_t)sizeof(head))
		r = errno ? -errno : -ENOSPC;
	/*
	 * COMMIT: the session has a place for epochs.
	 *   crash before: it has none, and the client asks again.
	 *   crash after:  the next daemon maps it.
	 *   ordering:     the kernel's: whoever finds the name finds the length.
	 *   durable:      not: sessions end with the machine.
	 */
	if (r == 0 && renameat(nvmmd->epochs.dir, NEW, nvmmd->epochs.dir, name) < 0)
		r = -errno;
	if (r == 0)
		r = map_slots(session, fd);
	close(fd);
	if (r < 0) {
		unlinkat(nvmmd->epochs.dir, NEW, 0);
		unlinkat(nvmmd->epochs.dir, name, 0);
	}
	return r;
}

int session_epochs_open(struct session *session)
{
	if (session->epochs.unread)
		session_epochs_restore(session);
	if (session->epochs.unread)
		return -EAGAIN; /* its threads are in the file that it has */
	return session->epochs.slots ? 0 : make_file(session);
}

void session_epochs_restore(struct session *session)
{
	struct stat st;
	int fd, r;

	r = epoch_slots_file(&fd, session);
	if (r == -ENOENT) {
		/* Without descriptors the kernel does not even say whether there is one. */
		session->epochs.unread = false;
		return;
	}
	if (r == 0) {
		r = fstat(fd, &st) < 0 ? -errno : map_slots(session, fd);
		close(fd);
	}
	if (r < 0 && !session->epochs.unread)
		log_error("session %" PRIu64 ": its epochs cannot be read: what is freed with delay in "
			  "its pools waits until they can: %s", session->id, strerror(-r));
	session->epochs.unread = r < 0;
}

void session_epochs_deinit(struct session *session)
{
	if (session->epochs.slots)
		munmap(session->epochs.slots, EPOCH_SLOTS_BYTES);
	free(session->epochs.ages);
	session->epochs = (struct session_epochs){ 0 };
}

void session_epochs_end(struct session *session)
{
	char name[32];

	if (!session->epochs.slots && !session->epochs.unread)
		return;
	file_name(name, session);
	unlinkat(session->nvmmd->epochs.dir, name, 0);
}

void epoch_slots_tidy(struct nvmmd *nvmmd)
{
	int fd = openat(nvmmd->epochs.dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((e = readdir(dir))) {
		uint64_t id = epoch_slots_id(e->d_name);

		if (id != 0 && !session_find(nvmmd, id))
			unlinkat(nvmmd->epochs.dir, e->d_name, 0);
	}
	closedir(dir);
}

/* Scanning */

struct scan_args {
	const struct epoch_slots *slots;
	uint32_t from;
	uint32_t room;
	uint32_t n;
	struct epoch_reading *ret;
};

static int scan_guarded(void *arg)
{
	struct scan_args *args = arg;

	args->n = epoch_scan(args->slots, &args->from, args->ret, args->room);
	return 0;
}

uint32_t session_epochs_read(struct session *session, uint32_t *from, struct epoch_reading *ret,
			     uint32_t room)
{
	struct scan_args args = { .slots = session->epochs.slots, .from = *from, .room = room,
				  .ret = ret };

	if (!args.slots || session->epochs.bad)
		return 0;
	if (guard_run(scan_guarded, &args, NULL) < 0) {
		session->epochs.bad = true;
		nvmmd_complain(session->nvmmd, "session %" PRIu64 " (pid %d) has spoilt its epochs: its "
			       "readers are not waited for", session->id,
			       session->peer.process.pid);
		return 0;
	}
	*from = args.from;
	return args.n;
}

/* The age of what a slot is in; NULL: no memory. */
static struct epoch_age *age_of(struct session_epochs *e, uint32_t slot)
{
	uint32_t n = e->n_ages;
	struct epoch_age *ages;

	if (slot < n)
		return &e->ages[slot];
	n = MAX(n * 2, 16u);
	n = MAX(n, slot + 1);
	ages = realloc(e->ages, n * sizeof(*ages));
	if (!ages)
		return NULL;
	memset(ages + e->n_ages, 0, (n - e->n_ages) * sizeof(*ages));
	e->ages = ages;
	e->n_ages = n;
	return &e->ages[slot];
}

static void warn_of(struct session *session, const struct epoch_reading *r, uint64_t ms)
{
	session->nvmmd->counters.readers_stalled++;
	nvmmd_complain(session->nvmmd, "thread %u of process %d (%s) has been in epoch %" PRIu64 " for %"
		       PRIu64 " ms: what is freed with delay in the pools that it has open waits for it",
		       r->tid, session->peer.process.pid, session->name, r->epoch, ms);
}

static void note_reading(struct session *session, const struct epoch_reading *r, uint64_t now)
{
	struct session_epochs *e = &session->epochs;
	uint64_t warning = session->nvmmd->config.epoch.stall_warning;
	struct epoch_age *age = age_of(e, r->slot);

	e->oldest = e->oldest == 0 ? r->epoch : MIN(e->oldest, r->epoch);
	if (!age)
		return;
	if (age->epoch != r->epoch)
		*age = (struct epoch_age){ .epoch = r->epoch, .since = now };
	if (!age->warned && warning > 0 && now - age->since >= warning) {
		age->warned = true;
		warn_of(session, r, now - age->since);
	}
}

void session_epochs_scan(struct session *session)
{
	uint64_t now = uv_now(&session->nvmmd->loop);
	struct epoch_reading readings[READ_ROOM];
	uint32_t from = 0, n;

	if (session->epochs.unread)
		session_epochs_restore(session);
	session->epochs.oldest = session->epochs.unread ? 1 : 0;
	do {
		n = session_epochs_read(session, &from, readings, READ_ROOM);
		for (uint32_t i = 0; i < n; i++)
			note_reading(session, &readings[i], now);
	} while (n == READ_ROOM);
}
