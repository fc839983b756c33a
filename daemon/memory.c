/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory that may still be reserved.
 *
 * What limits it:
 *   the machine         MemAvailable: what can be had without swapping
 *   a control group     of the daemon, up to the root: memory.max - memory.current + inactive page cache
 *                       (v1: memory.limit_in_bytes - memory.usage_in_bytes + total_inactive_file)
 * Of each a margin, a part of the whole, stays free, since the kernel and all other programs need memory, too.
 * Swap does not count: a shelf on swap is no memory, and its users would wait for a disk. The inactive page
 * cache counts as free, as it does for the kernel: else a group whose cache has filled it could reserve nothing.
 *
 * fallocate() takes the pages at once. So what is reserved is in the kernel's figures, and only what is under
 * way must be remembered: a request's bytes are pending from its check on, less each slice that is made. A
 * slice asks again, since other programs take memory, too.
 *
 * Grants of sparse heaps are small and many. Between two readings, which are at least CREDIT_MS apart, they
 * live on a credit: a part of the room that the last reading found.
 */
#include "daemon/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/macro.h"

#define CREDIT_MS 50u
#define CREDIT_PART 8u /* of the room */
#define FILE_MAX 65536u
#define PATH_ROOM 1024u

/* Files of numbers */

/* Reads a file as a text of at most `room` bytes with its NUL; false: it cannot be read. */
static bool read_file(char *buf, size_t room, const char *path)
{
	_auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n;

	if (fd < 0)
		return false;
	while (len < room - 1 && (n = read(fd, buf + len, room - 1 - len)) > 0)
		len += (size_t)n;
	buf[len] = '\0';
	return len > 0;
}

static bool read_number(uint64_t *ret, const char *dir, const char *name)
{
	char path[PATH_ROOM], text[64];

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) >= sizeof(path))
		return false;
	return read_file(text, sizeof(text), path) && sscanf(text, "%" SCNu64, ret) == 1;
}

/* The number after `key` at the beginning of a line. */
static bool find_number(uint64_t *ret, const char *text, const char *key)
{
	size_t len = strlen(key);

	for (; text; text = strchr(text, '\n')) {
		text += *text == '\n';
		if (strncmp(text, key, len) == 0)
			return sscanf(text + len, " %" SCNu64, ret) == 1;
	}
	return false;
}

/* Takes over a limit that is tighter than what is known. */
static void tighten(struct memory_room *room, uint64_t whole, uint64_t available, uint32_t margin,
		    const char *where)
{
	uint64_t kept = whole / 100 * margin;
	uint64_t bytes = available > kept ? available - kept : 0;

	if (bytes >= room->bytes)
		return;
	room->bytes = bytes;
	room->available = available;
	snprintf(room->where, sizeof(room->where), "%s", where);
}

static void read_machine(struct memory_room *room, char *buf, const char *proc, uint32_t margin)
{
	uint64_t total, available;
	char path[PATH_ROOM];

	snprintf(path, sizeof(path), "%s/meminfo", proc);
	if (read_file(buf, FILE_MAX, path) && find_number(&total, buf, "MemTotal:") &&
	    find_number(&available, buf, "MemAvailable:"))
		tighten(room, total * 1024, available * 1024, margin, "this machine");
}

/* Control groups */

struct hierarchy {
	const char *type;       /* of its file system */
	const char *controller; /* v1: an option of the mount, and in /proc/self/cgroup; v2: empty */
	const char *limit, *usage, *cache;
};

static const struct hierarchy hierarchies[] = {
	{ "cgroup2", "", "memory.max", "memory.current", "inactive_file" },
	{ "cgroup", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file" },
};

static bool has_word(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (; list; list = strchr(list, ',')) {
		list += *list == ',';
		if (strncmp(list, word, len) == 0 && strchr(",\n", list[len]))
			return true;
	}
	return false;
}

/* Finds where the hierarchy is mounted, and which of its groups stands there. */
static bool find_mount(const struct hierarchy *h, char *mounts, char at[PATH_ROOM], char root[PATH_ROOM])
{
	char *save = NULL;

	for (char *line = strtok_r(mounts, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		const char *rest = strstr(line, " - ");
		char type[32], options[PATH_ROOM];

		if (rest && sscanf(line, "%*s %*s %*s %1023s %1023s", root, at) == 2 &&
		    sscanf(rest, " - %31s %*s %1023s", type, options) == 2 &&
		    strcmp(type, h->type) == 0 && (!h->controller[0] || has_word(options, h->controller)))
			return true;
	}
	return false;
}

/* The group of this process in the hierarchy: a line "id:controllers:path", without controllers for v2. */
static bool find_group(const struct hierarchy *h, char *groups, char group[PATH_ROOM])
{
	char *save = NULL;

	for (char *line = strtok_r(groups, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;

		if (!path || strlen(path + 1) >= PATH_ROOM)
			continue;
		*path = '\0';
		if (h->controller[0] ? !has_word(names + 1, h->controller) : names[1] != '\0')
			continue;
		strcpy(group, path + 1);
		return true;
	}
	return false;
}

static void read_group(struct memory_room *room, const struct hierarchy *h, char *buf, const char *dir,
		       const char *group, uint32_t margin)
{
	uint64_t limit, usage, cache = 0;
	char path[PATH_ROOM], where[192];

	/* "max" is no number: no limit. */
	if (!read_number(&limit, dir, h->limit) || !read_number(&usage, dir, h->usage))
		return;
	if ((size_t)snprintf(path, sizeof(path), "%s/memory.stat", dir) < sizeof(path) &&
	    read_file(buf, FILE_MAX, path))
		find_number(&cache, buf, h->cache);
	usage -= MIN(usage, cache);
	snprintf(where, sizeof(where), "%s of control group %.120s", h->limit, *group ? group : "/");
	tighten(room, limit, limit - MIN(limit, usage), margin, where);
}

static void read_hierarchy(struct memory_room *room, const struct hierarchy *h, char *buf, const char *proc,
			   uint32_t margin)
{
	char at[PATH_ROOM], root[PATH_ROOM], group[PATH_ROOM], path[2 * PATH_ROOM];
	size_t base;
	char *slash;

	snprintf(path, sizeof(path), "%s/self/mountinfo", proc);
	if (!read_file(buf, FILE_MAX, path) || !find_mount(h, buf, at, root))
		return;
	snprintf(path, sizeof(path), "%s/self/cgroup", proc);
	if (!read_file(buf, FILE_MAX, path) || !find_group(h, buf, group))
		return;
	/* In a container, the mount may show one group alone, and the path be as seen from outside. */
	base = strcmp(root, "/") == 0 ? 0 : strlen(root);
	if (base > 0 && strncmp(group, root, base) != 0)
		base = strlen(group);
	if (strcmp(group + base, "/") == 0)
		base++;
	snprintf(path, sizeof(path), "%s%s", at, group + base);
	base = strlen(at);
	do {
		read_group(room, h, buf, path, path + base, margin);
		slash = strrchr(path + base, '/');
		if (slash)
			*slash = '\0';
	} while (slash);
}

void memory_read(struct memory_room *ret, const char *proc, uint32_t margin)
{
	char *buf = malloc(FILE_MAX);

	*ret = (struct memory_room){ .bytes = UINT64_MAX, .available = UINT64_MAX };
	if (!buf)
		return;
	read_machine(ret, buf, proc, margin);
	for (size_t i = 0; i < ARRAY_SIZE(hierarchies); i++)
		read_hierarchy(ret, &hierarchies[i], buf, proc, margin);
	free(buf);
}

/* The shelf base */

bool memory_is_base(int fd)
{
	struct statfs fs;

	/* Not hugetlbfs: its pages are set aside before, and one that there is not is -ENOSPC by the kernel. */
	return fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

void memory_init(struct memory *memory, int base_fd, uint32_t margin)
{
	*memory = (struct memory){ .counts = memory_is_base(base_fd), .proc = "/proc", .margin = margin };
	pthread_mutex_init(&memory->lock, NULL);
}

void memory_deinit(struct memory *memory)
{
	if (memory->proc)
		pthread_mutex_destroy(&memory->lock);
}

void memory_set_margin(struct memory *memory, uint32_t margin)
{
	/* ordering: relaxed; a number by itself. */
	__atomic_store_n(&memory->margin, margin, __ATOMIC_RELAXED);
}

void memory_stop(struct memory *memory)
{
	/* ordering: relaxed; a number by itself, seen by the next slice or the one after. */
	__atomic_store_n(&memory->stopping, 1, __ATOMIC_RELAXED);
}

static bool is_set(const int *word)
{
	/* ordering: relaxed; pairs with nothing: only the word itself is looked at. */
	return word && __atomic_load_n(word, __ATOMIC_RELAXED) != 0;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000 + 1;
}

/* Under the lock: reads the figures, less what is pending. */
static void read_room(struct memory *memory, struct memory_room *room)
{
	/* ordering: relaxed; a number by itself. */
	memory_read(room, memory->proc, __atomic_load_n(&memory->margin, __ATOMIC_RELAXED));
	if (room->bytes == UINT64_MAX)
		return;
	room->bytes -= MIN(room->bytes, memory->pending);
	memory->credit = room->bytes / CREDIT_PART;
	memory->read_ms = now_ms();
}

int memory_check(struct memory *memory, uint64_t bytes, struct memory_room *room)
{
	if (!memory->counts)
		return 0;
	pthread_mutex_lock(&memory->lock);
	read_room(memory, room);
	pthread_mutex_unlock(&memory->lock);
	return bytes > room->bytes ? -ENOSPC : 0;
}

uint64_t memory_left(struct memory *memory)
{
	struct memory_room room = { .bytes = UINT64_MAX };

	memory_check(memory, 0, &room);
	return room.bytes;
}

/* Reservations */

static _Thread_local struct reservation *current;

/* Under the lock. A reservation's own bytes were admitted as pending: it asks for what others left. */
static int admit(struct memory *memory, struct reservation *own, uint64_t bytes)
{
	uint64_t pending = own ? MIN(own->left, bytes) : 0;
	struct memory_room room;

	if (own) {
		own->left -= pending;
		memory->pending -= pending;
	}
	if (memory->read_ms > 0 && now_ms() - memory->read_ms < CREDIT_MS && bytes <= memory->credit) {
		memory->credit -= bytes;
		return 0;
	}
	read_room(memory, &room);
	if (bytes > room.bytes)
		return -ENOSPC;
	memory->credit -= MIN(memory->credit, bytes);
	return 0;
}

int memory_admit(void *arg, uint64_t bytes)
{
	struct memory *memory = arg;
	struct reservation *own = current;
	int r;

	if (is_set(&memory->stopping) || (own && is_set(own->gone)))
		return -ECANCELED;
	if (!memory->counts)
		return 0;
	pthread_mutex_lock(&memory->lock);
	r = admit(memory, own, bytes);
	pthread_mutex_unlock(&memory->lock);
	if (own && r == -ENOSPC)
		own->refused = true;
	return r;
}

void reservation_begin(struct reservation *reservation, struct memory *memory, uint64_t bytes,
		       const int *gone)
{
	*reservation = (struct reservation){ .memory = memory, .gone = gone, .left = bytes };
	pthread_mutex_lock(&memory->lock);
	memory->pending += bytes;
	pthread_mutex_unlock(&memory->lock);
}

void reservation_end(struct reservation *reservation)
{
	struct memory *memory = reservation->memory;

	if (!memory)
		return;
	pthread_mutex_lock(&memory->lock);
	memory->pending -= reservation->left;
	pthread_mutex_unlock(&memory->lock);
	reservation->left = 0;
	reservation->memory = NULL;
}

void reservation_enter(struct reservation *reservation)
{
	current = reservation;
}

void reservation_leave(struct reservation *reservation)
{
	(void)reservation;
	current = NULL;
}
