/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/fuzz/rig_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

#define WORDS_MAX 4096u /* that one decision changes */
#define LENGTH_MAX (UINT64_C(64) << 20)

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void rig_files_remove(const char *dir)
{
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Data is copied where there is any; blocks are reserved where the source has them reserved in full. */
static void copy_file(int from, int to, const struct stat *st)
{
	static char buf[1 << 16];
	off_t at = 0, end;
	ssize_t n;

	fuzz_must(ftruncate(to, st->st_size) == 0, "ftruncate: %s", strerror(errno));
	if (st->st_size > 0 && st->st_blocks * 512 >= st->st_size)
		fuzz_must(fallocate(to, 0, 0, st->st_size) == 0, "fallocate: %s", strerror(errno));
	while ((at = lseek(from, at, SEEK_DATA)) >= 0) {
		end = lseek(from, at, SEEK_HOLE);
		for (; at < end; at += n) {
			n = pread(from, buf, end - at < (off_t)sizeof(buf) ? (size_t)(end - at) : sizeof(buf), at);
			fuzz_must(n > 0 && pwrite(to, buf, (size_t)n, at) == n, "copy: %s", strerror(errno));
		}
	}
}

static void copy_tree(int from, int to);

static void copy_entry(int from, int to, const char *name)
{
	struct stat st;
	int a, b;

	fuzz_must(fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) == 0, "%s: %s", name, strerror(errno));
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return;
	a = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (S_ISDIR(st.st_mode)) {
		mkdirat(to, name, st.st_mode & 07777);
		b = openat(to, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	} else {
		b = openat(to, name, O_RDWR | O_CREAT | O_CLOEXEC, st.st_mode & 07777);
	}
	fuzz_must(a >= 0 && b >= 0, "%s: %s", name, strerror(errno));
	if (S_ISDIR(st.st_mode))
		copy_tree(a, b);
	else
		copy_file(a, b, &st);
	close(a);
	close(b);
}

static void copy_tree(int from, int to)
{
	DIR *dir = fdopendir(dup(from));
	const struct dirent *entry;

	fuzz_must(dir, "fdopendir: %s", strerror(errno));
	while ((entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			copy_entry(from, to, entry->d_name);
	closedir(dir);
}

static int open_at(const char *dir, const char *name, int flags)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, flags | O_CLOEXEC, 0600);
	fuzz_must(fd >= 0, "%s: %s", path, strerror(errno));
	return fd;
}

void rig_files_copy(const char *dir, const char *from, const char *to)
{
	char path[256];
	struct stat st;
	int a, b;

	snprintf(path, sizeof(path), "%s/%s", dir, to);
	rig_files_remove(path);
	a = open_at(dir, from, O_RDONLY);
	fuzz_must(fstat(a, &st) == 0, "%s: %s", from, strerror(errno));
	if (S_ISDIR(st.st_mode)) {
		fuzz_must(mkdir(path, 0755) == 0, "%s: %s", path, strerror(errno));
		b = open_at(dir, to, O_RDONLY | O_DIRECTORY);
		copy_tree(a, b);
	} else {
		b = open_at(dir, to, O_RDWR | O_CREAT);
		copy_file(a, b, &st);
	}
	close(a);
	close(b);
}

void rig_files_compare(const char *dir, const char *a, const char *b)
{
	static char x[1 << 16], y[1 << 16];
	int fd = open_at(dir, a, O_RDONLY), other = open_at(dir, b, O_RDONLY);
	ssize_t n, m;

	do {
		n = read(fd, x, sizeof(x));
		m = read(other, y, sizeof(y));
		fuzz_must(n == m && n >= 0 && memcmp(x, y, (size_t)n) == 0, "%s was changed", a);
	} while (n > 0);
	close(fd);
	close(other);
}

/* Values that could mean something in metadata, and others. */
static uint64_t odd_word(struct choice *c)
{
	uint64_t any;

	switch (choose(c, 8)) {
	case 0:
		return 0;
	case 1:
		return UINT64_MAX;
	case 2: /* refs, of units that there are and that there are not */
		any = choose(c, 65536);
		return UINT64_C(1) << 63 | (any & 0xff) | (any & 0xf00 ? 0 : (any >> 12) << 26);
	case 3: /* owner words */
		any = choose(c, 256);
		return any & 1 ? any & 7 : UINT64_C(1) << 63 | UINT64_C(1) << 40 | any >> 1;
	case 4:
		return choose(c, 8);
	case 5:
		return choose_bytes(c, 8);
	default:
		return choose_number(c);
	}
}

static void change_word(int fd, uint64_t at, struct choice *c)
{
	uint64_t word = 0;

	if (pread(fd, &word, sizeof(word), (off_t)at) < 0)
		return;
	switch (choose(c, 4)) {
	case 0:
		word ^= UINT64_C(1) << choose(c, 64);
		break;
	case 1:
		word += choose(c, 2) ? 1 : UINT64_MAX;
		break;
	default:
		word = odd_word(c);
		break;
	}
	if (pwrite(fd, &word, sizeof(word), (off_t)at) < 0)
		return; /* it is sealed, or has no room: fine */
}

static void change_run(int fd, uint64_t at, uint64_t end, struct choice *c)
{
	uint64_t n = 1 + choose(c, WORDS_MAX), word = odd_word(c), step = choose(c, 3);

	for (uint64_t i = 0; i < n && at + 8 <= end; i++, at += 8) {
		if (pwrite(fd, &word, sizeof(word), (off_t)at) < 0)
			return;
		word += step;
	}
}

static void change_length(int fd, uint64_t length, struct choice *c)
{
	uint64_t to = choose(c, 2) ? length + choose_number(c) % LENGTH_MAX : choose_number(c) % (length + 1);
	int r;

	switch (choose(c, 3)) {
	case 0:
		r = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(to & ~UINT64_C(4095)),
			      4096 * (1 + choose(c, 32)));
		break;
	case 1:
		r = fallocate(fd, 0, (off_t)(to % LENGTH_MAX), 4096 * (1 + choose(c, 16)));
		break;
	default:
		r = ftruncate(fd, (off_t)to);
		break;
	}
	(void)r; /* it is sealed, or has no room: fine */
}

/* A place in a file: its begin, anywhere, or a word of a page. */
static uint64_t choose_place(struct choice *c, uint64_t length)
{
	uint64_t words = length / 8;

	if (words == 0)
		return 0;
	switch (choose(c, 4)) {
	case 0:
		return 8 * (choose(c, 16) % words);
	case 1:
		return 8 * (choose(c, 65536) % words);
	case 2:
		return 8 * ((choose(c, 256) * UINT64_C(512) + choose(c, 16)) % words);
	default:
		return 8 * (choose(c, UINT32_MAX) % words);
	}
}

void rig_files_damage(int fd, struct choice *c, uint64_t keep, uint64_t keep_end)
{
	uint64_t at, end;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return;
	at = choose_place(c, (uint64_t)st.st_size);
	end = at < keep ? keep : (uint64_t)st.st_size;
	if (keep_end > 0 && at + 8 > keep && at < keep_end)
		return;
	if (keep_end == 0)
		end = (uint64_t)st.st_size;
	switch (choose(c, 8)) {
	case 0:
		change_run(fd, at, end, c);
		break;
	case 1:
		if (keep_end == 0)
			change_length(fd, (uint64_t)st.st_size, c);
		break;
	default:
		for (unsigned n = 1 + choose(c, 4); n > 0; n--, at += 8)
			if (at + 8 <= end)
				change_word(fd, at, c);
		break;
	}
}
