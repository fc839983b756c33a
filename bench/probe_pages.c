/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * probe-pages: what the first touch of memory takes, which is the kernel's and no allocator's.
 *
 *   probe-pages [DIR]       prints "name value" in us for each 4 KiB; DIR: where shelves would be, else /dev/shm
 *
 *   anonymous               a private mapping, written to page by page
 *   anonymous_huge          the same with MADV_HUGEPAGE
 *   reserved                a shared mapping of a file in DIR whose space is reserved, as shelves of a heap are
 *   hole                    the same without space, as what a sparse heap has not granted
 *   mapped_again            pages that are there, by another mapping: what a second process pays
 *   populate_reserved       MADV_POPULATE_WRITE for 128 KiB at a time, of a reserved file
 *   populate_anonymous      the same of a private mapping
 *   huge_reserved           `reserved` on a tmpfs with huge=always, in a mount namespace of its own; only where
 *                           the caller may mount
 *   huge_populate           `populate_reserved` there
 *
 * Medians of ROUNDS, of BYTES each.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include "bench/gauge.h"
#include "bench/team.h"

#define ROUNDS 9
#define BYTES (UINT64_C(64) << 20)
#define HUGE (UINT64_C(2) << 20)
#define PAGE 4096u
#define CHUNK (128u << 10)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct kind {
	const char *name;
	bool file;
	bool reserved;
	bool before;   /* another mapping has touched all of it */
	int advice;    /* -1: none */
	bool populate; /* in place of touching */
};

static const struct kind usual[] = {
	{ .name = "anonymous", .advice = MADV_NOHUGEPAGE },
	{ .name = "anonymous_huge", .advice = MADV_HUGEPAGE },
	{ .name = "reserved", .file = true, .reserved = true, .advice = -1 },
	{ .name = "hole", .file = true, .advice = -1 },
	{ .name = "mapped_again", .file = true, .reserved = true, .before = true, .advice = -1 },
	{ .name = "populate_reserved", .file = true, .reserved = true, .advice = -1, .populate = true },
	{ .name = "populate_anonymous", .advice = MADV_NOHUGEPAGE, .populate = true },
	{ .name = NULL },
};

static const struct kind huge[] = {
	{ .name = "huge_reserved", .file = true, .reserved = true, .advice = -1 },
	{ .name = "huge_populate", .file = true, .reserved = true, .advice = -1, .populate = true },
	{ .name = NULL },
};

static const char *dir = "/dev/shm";

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "probe-pages: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int make_file(bool reserved)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	need(fd >= 0, dir);
	need(ftruncate(fd, (off_t)BYTES) == 0, "ftruncate");
	errno = reserved ? posix_fallocate(fd, 0, (off_t)BYTES) : 0;
	need(errno == 0, "no room for 64 MiB");
	return fd;
}

/* At a multiple of HUGE: a huge page can be mapped nowhere else. */
static char *map(int fd)
{
	char *room = mmap(NULL, BYTES + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *at;

	need(room != MAP_FAILED, "mmap");
	at = (char *)(((uintptr_t)room + HUGE - 1) & ~(uintptr_t)(HUGE - 1));
	if (at > room)
		munmap(room, (size_t)(at - room));
	if (at < room + HUGE)
		munmap(at + BYTES, (size_t)(room + HUGE - at));
	at = mmap(at, BYTES, PROT_READ | PROT_WRITE,
		  MAP_FIXED | (fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS), fd, 0);
	need(at != MAP_FAILED, "mmap");
	return at;
}

static void touch(volatile char *at)
{
	for (uint64_t i = 0; i < BYTES; i += PAGE)
		at[i] = 1;
}

/* False: this kernel does not do it. */
static bool populate(char *at)
{
	for (uint64_t i = 0; i < BYTES; i += CHUNK)
		if (madvise(at + i, CHUNK, MADV_POPULATE_WRITE) < 0)
			return false;
	return true;
}

/* Microseconds for a page; negative: it cannot be had. */
static double measure(const struct kind *kind)
{
	int fd = kind->file ? make_file(kind->reserved) : -1;
	char *other = kind->before ? map(fd) : NULL, *at = map(fd);
	bool done = true;
	uint64_t ns;

	if (other)
		touch(other);
	if (kind->advice >= 0)
		done = madvise(at, BYTES, kind->advice) == 0;
	ns = team_now_ns();
	if (!kind->populate)
		touch(at);
	else if (done)
		done = populate(at);
	ns = team_now_ns() - ns;
	munmap(at, BYTES);
	if (other)
		munmap(other, BYTES);
	if (fd >= 0)
		close(fd);
	return done ? (double)ns / 1e3 / (double)(BYTES / PAGE) : -1;
}

static void probe(const struct kind *kind)
{
	double us[ROUNDS];

	for (unsigned i = 0; i < ROUNDS; i++)
		if ((us[i] = measure(kind)) < 0)
			return;
	gauge_tell(kind->name, gauge_median(us, ROUNDS));
}

/* Nobody else sees the mount, and it goes with the process. */
static bool mount_huge(void)
{
	static const char at[] = "/tmp";

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", at, "tmpfs", 0, "huge=always,mode=0700") < 0)
		return false;
	dir = at;
	return true;
}

int main(int argc, char **argv)
{
	if (argc > 2)
		return 2;
	if (argc == 2)
		dir = argv[1];
	(void)team_cpus();
	team_pin(0);
	for (const struct kind *k = usual; k->name; k++)
		probe(k);
	if (!mount_huge())
		return 0;
	for (const struct kind *k = huge; k->name; k++)
		probe(k);
	return 0;
}
